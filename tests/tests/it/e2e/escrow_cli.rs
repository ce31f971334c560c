//! An escrow node by its commands alone: each a process, as an operator starts it; people are terminals.

use std::path::Path;

use serde_json::Value;

use super::terminals::{Folder, Terminal, code, ok, ok_with, run, serve};

fn json(printed: &str) -> Value {
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

/// The policy as its authors write it, for a node that prints this when it enrols.
pub fn write_policy(dir: &Path, node: &Value, endpoint: &str, archive_key: &str) -> String {
    let [account, escrow_key, pin, log_key] =
        ["account", "key", "pin", "log_key"].map(|field| node[field].as_str().unwrap());
    let seats: String = (1..4)
        .map(|n| {
            format!("[[seat]]\nname = \"Seat {n}\"\nclass = \"legal\"\nkey = \"{}\"\n", format!("{n:02x}").repeat(32))
        })
        .collect();
    let text = format!(
        r#"id = "desk"
version = 1
effective_from = 2020-01-01T00:00:00Z
document = "policy.md"
document_url = "https://example.org/policy"
purpose = "Records of the desk."
retention_class = "seven-years"
mode = "best_effort"
[notice]
en = "This group is archived."
[escrow]
account = "{account}"
key = "{escrow_key}"
pin = "{pin}"
log_key = "{log_key}"
endpoint = "{endpoint}"
[archive]
key = "{archive_key}"
generation = 1
quorum = 2
{seats}"#
    );
    std::fs::write(dir.join("policy.md"), "What is kept, why, for how long.\n").unwrap();
    let file = dir.join("policy.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_node_is_enrolled_named_by_a_policy_serves_says_how_it_stands_and_stops() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let (relay_dir, node, ana) = (folder.path("relay"), folder.path("node"), folder.path("ana"));
    ok(&["chancery-relay", "init", "--dir", &relay_dir, "--listen", "127.0.0.1:0"]);
    let config = format!("{relay_dir}/config.toml");
    let relay = serve(&config);
    let account = |arguments: &[&str]| {
        let arguments = [&["chancery-relay", "account", "add"], arguments, &["--config", &config, "--json"]].concat();
        json(&ok(&arguments))["ticket"].as_str().unwrap().to_owned()
    };

    // A folder that is not enrolled does not serve, and a person's ticket enrols no node.
    let early = run(&["chancery-escrow", "serve", "--dir", &node]);
    assert_eq!(code(&early), 1);
    assert!(String::from_utf8_lossy(&early.stderr).contains("chancery-escrow enrol"), "{early:?}");
    let person = account(&["ana"]);
    let refused = ok_with(&["chancery-escrow", "enrol", "--dir", &folder.path("other")], &account(&["bo"]));
    let refused = refused.unwrap_err();
    assert!(refused.contains("--role escrow"), "{refused}");

    let ticket = account(&["archive", "--role", "escrow"]);
    let enrolled = json(&ok_with(&["chancery-escrow", "enrol", "--json", "--dir", &node], &ticket).unwrap());
    assert_eq!(enrolled["policy"]["account"], "archive");
    let standing = ok(&["chancery-escrow", "status", "--dir", &node]);
    assert!(standing.contains("not serving") && standing.contains("groups 0"), "{standing}");
    assert!(standing.contains(enrolled["policy"]["log_key"].as_str().unwrap()), "{standing}");

    let listen = "127.0.0.1:0";
    let mut serving = Terminal::start(&["chancery-escrow", "serve", "--json", "--listen", listen, "--dir", &node]);
    let first = json(&serving.wait_for("listening"));
    assert_eq!(first["pin"], enrolled["policy"]["pin"]);
    let archive_key = {
        use chancery_protocol::{escrow::threshold::deal, secret::Random};
        let (key, _) = deal(1, 2, 3, &mut Random::new([5; 32])).unwrap();
        data_encoding::HEXLOWER.encode(&key.public().to_bytes())
    };
    let endpoint = first["listening"].as_str().unwrap();
    let file = write_policy(folder.0.path(), &enrolled["policy"], endpoint, &archive_key);
    let (offline, signed) = (format!("{relay_dir}/offline"), folder.path("desk.policy"));
    let (key, certificate) = (format!("{offline}/policy.key"), format!("{offline}/policy.cert"));
    ok(&["chancery-escrow", "policy", "sign", &file, "--key", &key, "--certificate", &certificate, "--out", &signed]);

    let second = run(&["chancery-escrow", "serve", "--listen", listen, "--dir", &node]);
    assert_eq!(code(&second), 1);
    assert!(String::from_utf8_lossy(&second.stderr).contains("use"), "{second:?}");

    ok(&["chancery", "--state", &ana, "enroll", &person]);
    // Before the organisation can see the policy, nobody founds a group under it.
    let found = ["chancery", "--state", &ana, "group", "new", "desk 设计", "--class", "escrowed", "--policy", &signed];
    let unlisted = run(&found);
    assert_eq!(code(&unlisted), 5, "{unlisted:?}");
    assert!(String::from_utf8_lossy(&unlisted.stderr).contains("chancery-relay policy publish"), "{unlisted:?}");
    let publish = ["chancery-relay", "policy", "publish", &signed, "--config", &config, "--json"];
    let published = json(&ok(&publish));
    assert_eq!((&published["version"], &published["already"]), (&json("1"), &json("false")), "{published}");
    assert_eq!(json(&ok(&publish))["already"], json("true"));
    let listed = json(&ok(&["chancery-relay", "policy", "list", "--config", &config, "--json"]));
    assert_eq!(listed["policies"][0]["hash"], published["hash"], "{listed}");
    ok(&found);
    let policy = json(&ok(&["chancery", "--state", &ana, "--json", "group", "policy", "desk 设计"]));
    assert_eq!((&policy["directory"], &policy["hash"]), (&json("\"listed\""), &published["hash"]), "{policy}");
    let early = run(&["chancery", "--state", &ana, "send", "desk 设计", "before the notice"]);
    assert!(!early.status.success());
    assert!(ok(&["chancery", "--state", &ana, "group", "policy", "desk 设计"]).contains("This group is archived."));
    let members = ok(&["chancery", "--state", &ana, "group", "members", "desk 设计"]);
    assert!(members.lines().any(|line| line.starts_with("archive") && line.contains("escrow")), "{members}");
    ok(&["chancery", "--state", &ana, "group", "acknowledge", "desk 设计"]);
    ok(&["chancery", "--state", &ana, "send", "desk 设计", "for the record"]);

    let said = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let said = json(&ok(&["chancery-escrow", "status", "--json", "--dir", &node]));
        // Who is in the group, the notice that was acknowledged, the text.
        (said["status"]["records"].as_u64() >= Some(3)).then_some(said)
    });
    let said = said.expect("a serving node says what it has sealed");
    let status = &said["status"];
    assert_eq!((status["online"].as_bool(), status["groups"].as_u64()), (Some(true), Some(1)), "{said}");
    assert_eq!((status["stuck"].as_u64(), status["open_segments"].as_u64()), (Some(0), Some(1)), "{said}");
    assert!(said["at_ms"].as_u64() > Some(0) && said["policy"] == enrolled["policy"], "{said}");

    let archive = |more: &[&str]| ok(&[&["chancery", "--state", &ana, "group", "archive", "desk 设计"], more].concat());
    let said = archive(&["--message", "3"]);
    assert!(said.contains("message 3 is archived"), "{said}");
    let caught_up = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        archive(&[]).starts_with("archived up to entry 3,")
    });
    assert!(caught_up, "{}", archive(&[]));
    let listed = ok(&["chancery", "--state", &ana, "--json", "group", "list"]);
    // The founding that was refused is listed, too.
    let listed = json(listed.lines().find(|line| line.contains("\"active\"")).unwrap());
    assert_eq!((&listed["archive"]["archived"], &listed["archive"]["late"]), (&json("3"), &json("\"no\"")), "{listed}");

    let log = serving.terminate();
    for private in ["设计", "for the record", "ana"] {
        assert!(!log.contains(private), "{private} in {log}");
    }
    let standing = ok(&["chancery-escrow", "status", "--dir", &node]);
    assert!(standing.contains("not serving") && standing.contains("groups 1"), "{standing}");
    drop(relay);
}
