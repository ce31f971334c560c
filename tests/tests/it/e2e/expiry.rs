//! What was archived eighty days ago expires: real processes, the first half of them with clocks that are back by so much.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use chancery_client::machine::Space;
use chancery_escrow::Node;
use chancery_protocol::escrow::{
    ArchiveEntry, ArchiveEvent, Scope,
    dossier::Catalogue,
    retention::{Period, list_hash},
};
use chancery_tests::skip;
use serde_json::Value;

use super::{
    escrow_cli::write_policy,
    terminals::{Folder, Terminal, ok, ok_with, refused, serve},
};

const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static DAYS_BACK: Cell<u32> = const { Cell::new(0) };
}

/// The library that puts clocks back (libfaketime).
fn clocks() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

/// Puts back the clock of a process that this thread starts, if it is to be. Pauses stay as long as they are.
pub fn set_clock(command: &mut Command) {
    let days = DAYS_BACK.get();
    if days > 0 {
        let library = clocks().unwrap();
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME", format!("-{days}d"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

fn json(printed: &str) -> Value {
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

struct Stage {
    folder: Folder,
    root: String,
    log_key: String,
}

impl Stage {
    fn path(&self, name: &str) -> String {
        self.folder.path(name)
    }

    fn officer(&self, name: &str, command: &[&str]) -> Vec<String> {
        let own = ["--officer".to_owned(), self.path(name), "--passphrase-file".to_owned(), self.path("passphrase")];
        let command = ["chancery-escrow"].iter().chain(command).map(|word| (*word).to_owned());
        command.chain(own).collect()
    }

    fn run(&self, name: &str, command: &[&str]) -> String {
        ok(&self.officer(name, command).iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fails(&self, name: &str, command: &[&str]) -> String {
        refused(&self.officer(name, command).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Hands an order in; what the node says to it.
    fn hand_in(&self, file: &str, name: &str) -> String {
        fs::copy(file, Path::new(&self.path("node/officers/in")).join(name)).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            for outcome in ["done", "refused"] {
                if let Ok(said) = fs::read_to_string(self.path(&format!("node/officers/out/{name}.{outcome}"))) {
                    return format!("{outcome}: {said}");
                }
            }
            assert!(Instant::now() < end, "nothing is said of {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An order of the officer who asks, handed in at once.
    fn order(&self, name: &str, command: &[&str]) -> String {
        let file = self.path(name);
        self.run("li", &[command, &["--out", &file]].concat());
        self.hand_in(&file, name)
    }

    fn catalogue(&self, name: &str) -> (String, Catalogue) {
        let said = self.order(name, &["case", "catalogue", "--first", "2020-01-01", "--last", "2999-12-31"]);
        assert!(said.starts_with("done"), "{said}");
        let file = self.path(&format!("node/officers/out/{name}.catalogue"));
        let catalogue = Catalogue::from_bytes(&fs::read(&file).unwrap()).unwrap();
        (file, catalogue)
    }

    /// A request for all of a catalogue, handed in.
    fn open(&self, case: &str, catalogue: &str) -> String {
        let certificate = self.path("ceremony/archive.cert");
        let why = ["--case", case, "--legal-basis", "an order", "--purpose", "a test"];
        let dir = self.path(case);
        let open = ["case", "open", "--dir", &dir, "--catalogue", catalogue, "--certificate", &certificate];
        self.run("li", &[&open[..], &why].concat());
        self.hand_in(&format!("{dir}/request"), &format!("{case}-request"))
    }

    fn node(&self) -> Terminal {
        let arguments = ["chancery-escrow", "serve", "--json", "--listen", "127.0.0.1:0", "--dir", &self.path("node")];
        let mut node = Terminal::start(&arguments);
        node.wait_for("listening");
        node
    }
}

/// Eighty days ago: a relay, an escrow node, a ceremony of three seats, and somebody who says something.
fn archive_something() -> Stage {
    let folder = Folder(tempfile::tempdir().unwrap());
    let relay_dir = folder.path("relay");
    let said = ok(&["chancery-relay", "init", "--dir", &relay_dir, "--listen", "127.0.0.1:0"]);
    let root = said.lines().find_map(|line| line.split_once("(root hash): ")).unwrap().1.to_owned();
    let config = format!("{relay_dir}/config.toml");
    let relay = serve(&config);
    let ticket = |arguments: &[&str]| {
        let arguments = [&["chancery-relay", "account", "add"], arguments, &["--config", &config, "--json"]].concat();
        json(&ok(&arguments))["ticket"].as_str().unwrap().to_owned()
    };
    let (node, ana) = (folder.path("node"), folder.path("ana"));
    let enrol = ["chancery-escrow", "enrol", "--json", "--dir", &node];
    let enrolled = json(&ok_with(&enrol, &ticket(&["archive", "--role", "escrow"])).unwrap());
    let log_key = enrolled["policy"]["log_key"].as_str().unwrap().to_owned();
    let stage = Stage { folder, root, log_key };
    fs::write(stage.path("passphrase"), "correct horse battery\n").unwrap();
    let seats = ["chen", "wu", "kim"];
    let mut files = Vec::new();
    for name in seats.into_iter().chain(["li"]) {
        let file = stage.path(&format!("{name}.seat"));
        stage.run(name, &["seat", "new", "--name", name, "--out", &file, "--kdf-mib", "8"]);
        files.push(file);
    }
    let ceremony = stage.path("ceremony");
    let plan =
        ["chancery-escrow", "seat", "plan", &ceremony, "--tenant", &stage.root, "--generation", "1", "--quorum", "2"];
    let of_seats: Vec<&str> = files.iter().take(3).map(String::as_str).collect();
    ok(&[&plan[..], &of_seats].concat());
    for step in ["commit", "share", "confirm", "certify"] {
        for seat in seats {
            stage.run(seat, &["seat", step, &ceremony]);
        }
    }
    let serve = ["chancery-escrow", "serve", "--json", "--listen", "127.0.0.1:0", "--dir", &node];
    let mut serving = Terminal::start(&serve);
    let listening = json(&serving.wait_for("listening"));
    let (_, key) = chancery_escrow::officers::read_certificate(&Path::new(&ceremony).join("archive.cert")).unwrap();
    let key = data_encoding::HEXLOWER.encode(&key.public().to_bytes());
    let endpoint = listening["listening"].as_str().unwrap();
    let file = write_policy(stage.folder.0.path(), &enrolled["policy"], endpoint, &key);
    let (offline, signed) = (format!("{relay_dir}/offline"), stage.path("desk.policy"));
    let (key, certificate) = (format!("{offline}/policy.key"), format!("{offline}/policy.cert"));
    ok(&["chancery-escrow", "policy", "sign", &file, "--key", &key, "--certificate", &certificate, "--out", &signed]);
    ok(&["chancery-relay", "policy", "publish", &signed, "--config", &config]);
    ok(&["chancery", "--state", &ana, "enroll", &ticket(&["ana"])]);
    ok(&["chancery", "--state", &ana, "group", "new", "desk", "--class", "escrowed", "--policy", &signed]);
    ok(&["chancery", "--state", &ana, "group", "acknowledge", "desk"]);
    ok(&["chancery", "--state", &ana, "send", "desk", "for a while"]);
    let sealed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        let said = json(&ok(&["chancery-escrow", "status", "--json", "--dir", &node]));
        said["status"]["records"].as_u64() >= Some(3)
    });
    assert!(sealed, "what was said is sealed");
    serving.terminate();
    relay.terminate();
    stage
}

/// The archive's log, read out of the node's folder when it does not serve.
async fn log(node: &str) -> Vec<(u64, ArchiveEvent)> {
    let node = Node::open(Path::new(node)).await.unwrap();
    let rows = node.client().rows(Space::ArchiveEntry, Vec::new(), 1_000).await.unwrap();
    node.shutdown().await.unwrap();
    let entry = |bytes: &[u8]| ArchiveEntry::from_bytes(bytes).unwrap();
    rows.iter().map(|(_, bytes)| (entry(bytes).at.0, entry(bytes).event)).collect()
}

fn keys(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "key")).collect()
}

// proves retention.hold.1, retention.expire.1, retention.expire.2, retention.expire.3, retention.expire.4
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "a story from its beginning to its end")]
async fn what_was_archived_eighty_days_ago_is_held_expires_and_opens_no_more() {
    if clocks().is_none() {
        return skip("faketime", "there is no libfaketime: install the package faketime");
    }
    DAYS_BACK.set(80);
    let stage = archive_something();
    DAYS_BACK.set(0);
    let (node, retention) = (stage.path("node"), stage.path("node/retention"));
    let mut serving = stage.node();
    let officers = stage.path("node/officers");
    fs::copy(stage.path("ceremony/archive.cert"), format!("{officers}/certificates/1.cert")).unwrap();
    let who = stage.run("li", &["seat", "trust", "--tenant", &stage.root, "--log-key", &stage.log_key]);
    let requester = who.lines().find_map(|line| line.strip_prefix("key ")).unwrap().to_owned();
    fs::write(format!("{officers}/requesters"), format!("{requester} li\n")).unwrap();
    let may_ask = format!("{requester}=li");
    for seat in ["chen", "wu"] {
        stage.run(seat, &["seat", "trust", "--log-key", &stage.log_key, "--requester", &may_ask]);
    }

    // It is of a month that is over.
    let (file, catalogue) = stage.catalogue("q1");
    let [segment] = catalogue.segments.as_slice() else { panic!("{catalogue:?}") };
    assert_eq!(segment.closed_to, 0);
    let scope = Scope::from_bytes(&segment.scope).unwrap();
    let month = Period::of(&scope).month;
    let through = format!("{}-{:02}", 1970 + month / 12, month % 12 + 1);
    let kept = stage.path("copy");
    fs::create_dir(&kept).unwrap();
    for key in keys(&retention) {
        fs::copy(&key, Path::new(&kept).join(key.file_name().unwrap())).unwrap();
    }
    assert_eq!(keys(&kept).len(), 1);

    // While a hold stands, nothing expires, and a case is opened.
    let document = stage.path("passphrase");
    let days = ["hold", "place", "--first", "2020-01-01", "--last", "2999-12-31", "--document", &document];
    let hold = stage.path("hold");
    let placed = stage.run("li", &[&days[..], &["--out", &hold]].concat());
    assert!(stage.hand_in(&hold, "hold").contains("is logged"));
    let id = placed.split([' ', ':']).find(|word| word.len() == 32).unwrap_or_else(|| panic!("{placed}")).to_owned();
    let expire = ["expire", "--class", "seven-years", "--through", &through];
    let said = stage.order("expire-1", &expire);
    assert!(said.contains("expired: nothing; 0 segments") && said.contains("kept by holds"), "{said}");
    let said = stage.open("case-1", &file);
    assert!(said.starts_with("done"), "{said}");
    let hash = said.split_once("request ").unwrap().1.get(..64).unwrap().to_owned();
    let case = stage.path("case-1");
    for name in ["dossier", "material"] {
        fs::copy(format!("{officers}/out/{hash}.{name}"), format!("{case}/{name}")).unwrap();
    }
    let dossier = format!("{case}/dossier");
    for seat in ["chen", "wu"] {
        let answer = format!("{case}/answers/{seat}");
        stage.run(seat, &["seat", "approve", &dossier, "--out", &answer]);
        assert!(stage.hand_in(&answer, &format!("{seat}.answer")).contains("is logged"));
    }
    assert!(stage.run("li", &["case", "combine", "--dir", &case]).contains("opened by seats"));

    // It is lifted, and the month expires: key, dossier and material are gone, and nothing of it can be asked for.
    assert!(stage.order("lift", &["hold", "lift", &id, "--document", &document]).contains("is logged"));
    let said = stage.order("expire-2", &expire);
    assert!(said.contains("1 segments do not open any more") && said.contains("expired: seven-years"), "{said}");
    let gone = |serving: &str| {
        assert_eq!(keys(&retention), Vec::<PathBuf>::new(), "{serving}");
        let refused = stage.open(&format!("case-{serving}"), &file);
        assert!(refused.contains("has expired") && refused.contains("nobody can open it any more"), "{refused}");
    };
    gone("at-once");
    for name in ["dossier", "material"] {
        assert!(!Path::new(&format!("{officers}/out/{hash}.{name}")).exists(), "{name}");
    }
    let (again, catalogue) = stage.catalogue("q2");
    assert_eq!(catalogue.segments[0].closed_to, 2);
    let certificate = stage.path("ceremony/archive.cert");
    let nowhere = stage.path("nowhere");
    let open = ["case", "open", "--dir", &nowhere, "--catalogue", &again, "--certificate", &certificate];
    let why = ["--case", "x", "--legal-basis", "x", "--purpose", "x"];
    let said = stage.fails("li", &[&open[..], &why].concat());
    assert!(said.contains("nothing of this catalogue can be asked for") && said.contains("have expired"), "{said}");

    // A copy of the key that was away comes back, and is destroyed again.
    serving.terminate();
    for key in keys(&kept) {
        fs::copy(&key, Path::new(&retention).join(key.file_name().unwrap())).unwrap();
    }
    serving = stage.node();
    gone("after-a-copy");
    serving.terminate();

    // The log tells all of it, in order; what was sealed is dated eighty days back.
    let log = log(&node).await;
    let place = |wanted: &dyn Fn(&ArchiveEvent) -> bool| log.iter().position(|(_, event)| wanted(event)).unwrap();
    let opened = place(&|event| matches!(event, ArchiveEvent::SegmentOpened { .. }));
    let held = place(&|event| matches!(event, ArchiveEvent::Hold(hold) if hold.placed));
    let asked = place(&|event| matches!(event, ArchiveEvent::Requested { .. }));
    let lifted = place(&|event| matches!(event, ArchiveEvent::Hold(hold) if !hold.placed));
    let expired = place(&|event| matches!(event, ArchiveEvent::Expired { .. }));
    assert!(opened < held && held < asked && asked < lifted && lifted < expired);
    let count = |wanted: &dyn Fn(&ArchiveEvent) -> bool| log.iter().filter(|(_, event)| wanted(event)).count();
    assert_eq!(count(&|event| matches!(event, ArchiveEvent::Requested { .. })), 1, "what is refused is not logged");
    assert_eq!(count(&|event| matches!(event, ArchiveEvent::Expired { .. })), 1);
    let ArchiveEvent::Expired { month: through, segments, list, .. } = &log[expired].1 else { panic!() };
    assert_eq!((*through, *segments, *list), (month, 1, list_hash(&[segment.header])));
    let days = (log[expired].0 - log[opened].0) / 86_400_000;
    assert!((79..=80).contains(&days), "{days}");
}
