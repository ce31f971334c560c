//! The example of `spec/operations/escrow-policy.md` is read, checked and signed; what is wrong with a file has a line.

use std::path::PathBuf;

use chancery_protocol::{
    identity::{DeviceKey, key_file},
    mls::PolicyCertificate,
    secret::Secret32,
};
use serde_json::Value;

use super::*;
use crate::run_cli;

const DOCUMENT: &[u8] = b"# Archive policy of the trading desk\n";

const EXAMPLE_KEY: &str = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919";

fn example() -> String {
    let page = include_str!("../../../spec/operations/escrow-policy.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(toml: &str) -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.write("archive-policy.md", DOCUMENT);
        desk.write("policy.toml", toml.as_bytes());
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    fn read(&self) -> Result<PolicyFile, PolicyFileError> {
        read(&self.at("policy.toml"), None)
    }

    fn run(&self, words: &[&str]) -> u8 {
        let place = |word: &&str| match word.strip_prefix('@') {
            Some(name) => self.at(name).into_os_string(),
            None => word.into(),
        };
        run_cli([&"chancery-escrow"].into_iter().chain(words).map(place))
    }
}

fn key(byte: u8) -> DeviceKey {
    DeviceKey::from_seed(Secret32::new([byte; 32])).unwrap()
}

// proves policy.seats.1
#[test]
fn the_example_of_the_handbook_can_be_signed() {
    let desk = Desk::new(&example());
    let read = desk.read().unwrap();
    assert_eq!(read.policy.document_hash, document_hash(DOCUMENT));
    assert_eq!(usize::from(read.policy.seats), read.seats.seats.len());
    assert_eq!(read.policy.seats_hash, read.seats.hash());
    let mut other = read.seats.clone();
    other.rules.clear();
    assert_ne!(other.hash(), read.seats.hash(), "the rules are part of what the seats have agreed on");
    let key = key(8);
    let certificate = PolicyCertificate::issue(&self::key(1), key.public(), 1);
    let policy = EscrowPolicy { tenant: certificate.root(), ..read.policy };
    assert!(policy.sign(&key, &certificate).is_ok());
    let words = show::words(&policy);
    for part in [policy.purpose.as_str(), "any 3 of 5", policy.escrow.as_str(), &policy.notices[0].text] {
        assert!(words.contains(part), "{words}");
    }
}

#[test]
fn a_policy_is_checked_signed_shown_and_followed_by_the_next() {
    let desk = Desk::new(&example());
    desk.write("root.key", key_file::format("tenant-root", &Secret32::new([1; 32])).as_bytes());
    desk.write("policy.key", key_file::format("policy", &Secret32::new([8; 32])).as_bytes());
    assert_eq!(desk.run(&["policy", "check", "@policy.toml"]), 0);
    let certify =
        ["policy", "certify", "--root-key", "@root.key", "--key", "@policy.key", "--number", "1", "--out", "@cert"];
    assert_eq!(desk.run(&certify), 0);
    assert_eq!(desk.run(&certify), 1, "nothing is overwritten");
    let sign = |file: &'static str, out: &'static str, more: &[&'static str]| {
        let mut words = vec!["policy", "sign", file, "--key", "@policy.key", "--certificate", "@cert", "--out", out];
        words.extend(more);
        desk.run(&words)
    };
    assert_eq!(sign("@policy.toml", "@one", &[]), 0);
    assert_eq!(desk.run(&["policy", "show", "@one", "--document", "@archive-policy.md", "--seats", "@policy.toml"]), 0);
    assert_eq!(desk.run(&["policy", "show", "@one", "--document", "@policy.toml"]), 1, "another document");
    let second =
        example().replace("version = 1", "version = 2").replace("of = \"works_council\"", "of = \"privacy_officer\"");
    desk.write("second.toml", second.as_bytes());
    assert_eq!(desk.run(&["policy", "show", "@one", "--seats", "@second.toml"]), 1, "other rules");
    assert_eq!(sign("@second.toml", "@two", &[]), 1, "the version before is missing");
    assert_eq!(sign("@second.toml", "@two", &["--previous", "@one"]), 0);
    let signed = |name: &str| -> SignedPolicy { fs::read_to_string(desk.at(name)).unwrap().trim().parse().unwrap() };
    assert!(signed("two").follows(&signed("one")));
    // By another key than the certificate's nothing is signed.
    desk.write("policy.key", key_file::format("policy", &Secret32::new([9; 32])).as_bytes());
    assert_eq!(sign("@policy.toml", "@three", &[]), 1);
    assert!(!desk.at("three").exists());
    assert_eq!(desk.run(&["policy", "sign", "@policy.toml"]), 2);
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_field() {
    let good = example();
    for (was, is, field) in [
        ("id = \"acme-trading\"", "id = \"Acme Trading\"", "id"),
        ("version = 1", "version = 2", "version"),
        ("effective_from = 2027-01-01T00:00:00Z", "effective_from = 2027-01-01", "effective_from"),
        ("document = \"archive-policy.md\"", "document = \"missing.md\"", "document"),
        ("https://acme.example/archive-policy", "http://acme.example/archive-policy", "document_url"),
        ("quorum = 3", "quorum = 1", "archive.quorum"),
        ("quorum = 3", "quorum = 9", "archive.quorum"),
        ("generation = 1", "generation = 0", "archive.generation"),
        ("account = \"archive\"", "account = \"a b\"", "escrow.account"),
        ("archive.acme.example:4434", "https://archive.acme.example", "escrow.endpoint"),
        ("pin = \"9999", "pin = \"99", "escrow.pin"),
        ("log_key = \"aaaa", "log_key = \"AAAA", "escrow.log_key"),
        // The neutral element; and no element.
        (EXAMPLE_KEY, "0000000000000000000000000000000000000000000000000000000000000000", "archive.key"),
        (EXAMPLE_KEY, "7777777777777777777777777777777777777777777777777777777777777777", "archive.key"),
        ("mode = \"required\"", "mode = \"maybe\"", "TOML"),
        ("mode = \"required\"", "mood = \"required\"", "TOML"),
        ("at_least = 1", "at_least = 4", "rule"),
        ("class = \"works_council\"", "class = \"janitor\"", "TOML"),
    ] {
        assert!(good.contains(was), "{was}");
        let bad = good.replacen(was, is, 1);
        let (before, _) = bad.split_once(is).unwrap();
        let line = 1 + before.matches('\n').count();
        let error = Desk::new(&bad).read().unwrap_err();
        assert_eq!(error.field, field, "{error}");
        // A rule is one thing of several lines, and begins with the first.
        assert!(error.line.abs_diff(line) <= usize::from(field == "rule"), "{error} is not at line {line}");
        assert!(error.to_string().contains("policy.toml:"), "{error}");
    }
}

#[test]
fn rules_that_no_quorum_can_keep_are_refused() {
    let seat = |name: &str, class, byte| Seat { name: name.to_owned(), class, key: [byte; 32] };
    let mut seats = Seats::default();
    seats.add(seat("a", seats::Class::Legal, 1)).unwrap();
    seats.add(seat("b", seats::Class::WorksCouncil, 2)).unwrap();
    assert!(seats.add(seat("c", seats::Class::Legal, 2)).unwrap_err().contains("same key"));
    assert!(seats.add(seat("a", seats::Class::Legal, 3)).unwrap_err().contains("called a"));
    assert!(seats.add(seat("", seats::Class::Legal, 3)).is_err());
    let rule = |at_least, of| Rule { at_least, of };
    assert!(seats.demand(rule(2, seats::Class::Legal), 2).is_err());
    assert!(seats.demand(rule(1, seats::Class::Legal), 1).is_ok());
    assert!(seats.demand(rule(1, seats::Class::WorksCouncil), 1).unwrap_err().contains("quorum"));
    assert!(seats.demand(rule(1, seats::Class::Legal), 2).unwrap_err().contains("two rules"));
}

#[test]
fn moments_are_read_with_their_distance_from_utc() {
    let read = |text: &str| show::timestamp(&text.parse().unwrap());
    assert_eq!(read("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
    assert_eq!(read("2027-01-15T08:00:00Z"), Some(Timestamp(1_800_000_000_000)));
    assert_eq!(read("2027-01-15T09:00:00+01:00"), Some(Timestamp(1_800_000_000_000)));
    assert_eq!(read("2027-01-15T09:00:00"), None);
    assert_eq!(read("1969-12-31T23:59:59Z"), None);
}

#[test]
fn json_says_the_same() {
    let policy = Desk::new(&example()).read().unwrap().policy;
    let json = show::json(&policy, None);
    assert_eq!(json["id"], policy.id);
    assert_eq!(json["hash"], Value::Null);
    assert_eq!(json["effective_from"], "2027-01-01T00:00:00Z");
}
