//! Officers, each command a process of its own: a ceremony of five seats, a group that is archived, a case that three of
//! them open and two do not, searched, exported, verified; an expiry, and a drill.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chancery_client::{GroupId, Role};
use chancery_escrow::{Node, officers::read_certificate};
use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::Value;

use super::{
    capture::{acknowledge, archived, endpoint, opened, policy},
    deployment::{Deployment, PATIENCE, group_named, texts_when, within},
    terminals::{Terminal, ok, refused},
};

const SEATS: [&str; 5] = ["chen", "ana", "wu", "tanaka", "kim"];

/// All folders of a case, and commands in them.
struct Court<'a> {
    dir: &'a Path,
    node: PathBuf,
    ceremony: PathBuf,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn appears(path: &Path) {
    let end = Instant::now() + PATIENCE;
    while !path.exists() {
        let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(Instant::now() < end, "{} does not appear: {:?}", path.display(), names.collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Court<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn arguments(&self, name: &str, command: &[&str]) -> Vec<String> {
        let own = ["--officer".to_owned(), text(&self.path(name)).to_owned()];
        let passphrase = ["--passphrase-file".to_owned(), text(&self.path("passphrase")).to_owned()];
        let command = command.iter().map(|word| (*word).to_owned());
        let program = core::iter::once("chancery-escrow".to_owned());
        program.chain(command).chain(own).chain(passphrase).collect()
    }

    /// A command of an officer.
    fn run(&self, name: &str, command: &[&str]) -> String {
        let arguments = self.arguments(name, command);
        ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// One that must be refused; what it says.
    fn fails(&self, name: &str, command: &[&str]) -> String {
        let arguments = self.arguments(name, command);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn officer(&self, name: &str) -> String {
        let seat = self.path(&format!("{name}.seat"));
        let said = self.run(name, &["seat", "new", "--name", name, "--out", text(&seat), "--kdf-mib", "8"]);
        said.lines().find_map(|line| line.strip_prefix("key ")).unwrap().to_owned()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.node.join("officers/out").join(name)
    }

    /// Hands a file in at the node, and waits until it is done; what the node says.
    fn hand_in(&self, file: &Path, name: &str) -> String {
        let folder = self.node.join("officers/in");
        fs::copy(file, folder.join(format!(".{name}"))).unwrap();
        fs::rename(folder.join(format!(".{name}")), folder.join(name)).unwrap();
        let (done, not) = (self.out(&format!("{name}.done")), self.out(&format!("{name}.refused")));
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(said) = fs::read_to_string(&done) {
                return said;
            }
            if let Ok(said) = fs::read_to_string(&not) {
                return format!("refused: {said}");
            }
            assert!(Instant::now() < end, "the node says nothing to {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A request for everything that a catalogue has, in a case folder of this name.
    fn open_case(&self, case: &str, catalogue: &Path, more: &[&str]) -> (PathBuf, String) {
        let dir = self.path(case);
        let certificate = self.ceremony.join("archive.cert");
        let mut command = vec!["case", "open", "--dir", text(&dir), "--catalogue", text(catalogue)];
        command.extend(["--certificate", text(&certificate), "--case", case, "--legal-basis", "order 14 C 3"]);
        command.extend(["--purpose", "evidence in court"]);
        command.extend(more);
        self.run("li", &command);
        let said = self.hand_in(&dir.join("request"), &format!("{case}-request"));
        let hash = said.split_once("request ").unwrap_or_else(|| panic!("{said}")).1.get(..64).unwrap().to_owned();
        for name in ["dossier", "material"] {
            appears(&self.out(&format!("{hash}.{name}")));
            fs::copy(self.out(&format!("{hash}.{name}")), dir.join(name)).unwrap();
        }
        (dir, hash)
    }

    /// A seat approves; the answer goes to the node and into the case.
    fn approve(&self, seat: &str, dir: &Path, hash: &str) {
        let file = self.path(&format!("{seat}-{}.answer", hash.get(..8).unwrap()));
        let dossier = self.out(&format!("{hash}.dossier"));
        self.run(seat, &["seat", "approve", text(&dossier), "--out", text(&file), "--reason", "as ordered"]);
        let said = self.hand_in(&file, file.file_name().unwrap().to_str().unwrap());
        assert!(said.contains("is logged"), "{said}");
        fs::copy(&file, dir.join("answers").join(format!("{seat}.answer"))).unwrap();
    }

    fn verify(&self, export: &Path, root: &str, log_key: &str) -> Value {
        let arguments = ["chancery-escrow", "verify", text(export), "--tenant", root, "--log-key", log_key, "--json"];
        serde_json::from_str(&ok(&arguments)).unwrap()
    }
}

fn hold_ceremony(court: &Court<'_>, root: &str) {
    let plan = text(&court.ceremony).to_owned();
    let seats: Vec<PathBuf> = SEATS.iter().map(|name| court.path(&format!("{name}.seat"))).collect();
    let mut command = vec!["chancery-escrow", "seat", "plan", &plan, "--tenant", root];
    command.extend(["--generation", "1", "--quorum", "3"]);
    command.extend(seats.iter().map(|path| text(path)));
    assert!(ok(&command).contains("any 3 of 5 seats open together"));
    for step in ["commit", "share", "confirm", "certify"] {
        for seat in SEATS {
            if step == "share" && seat == SEATS[0] {
                // A step whose turn is not yet, and one that was done.
                assert!(court.fails(seat, &["seat", "confirm", &plan]).contains("once"));
            }
            court.run(seat, &["seat", step, &plan]);
        }
    }
    assert!(court.fails(SEATS[0], &["seat", "share", &plan]).contains("seat commit"));
}

/// A file that is sealed in three parts.
const PLAN: &str = "计划.txt";
fn plan() -> Vec<u8> {
    b"what we do next\n".repeat(80_000)
}

async fn people_talk(deployment: &Deployment, node: &Node, signed: &str) -> GroupId {
    let (ana, bo) = (deployment.tenant("ana").await, deployment.tenant("bo").await);
    let group = within(ana.create_escrowed_group("desk 设计", signed)).await.unwrap();
    acknowledge(&ana, group).await;
    within(ana.invite(group, bo.identity().unwrap().account)).await.unwrap();
    assert_eq!(group_named(&bo, "desk 设计").await, group);
    acknowledge(&bo, group).await;
    ana.send(group, "明天下午讨论预算").await.unwrap();
    within(bo.send_file(group, PLAN, "text/plain", &plan())).await.unwrap();
    let due = bo.send(group, "the budget is due").await.unwrap();
    bo.reply(group, due, "by Friday").await.unwrap();
    bo.edit(group, due, "the budget is overdue").await.unwrap();
    bo.delete(group, due).await.unwrap();
    within(bo.flush()).await.unwrap();
    ana.send(group, "서울 회의 来週").await.unwrap();
    let said = texts_when(&bo, group, 3).await;
    assert_eq!(said.len(), 3);
    let newest = within(ana.history(group, None, 10)).await.unwrap().last().unwrap().seq;
    archived(node, group, |place| place.head.seq >= newest && place.files.is_empty()).await;
    within(ana.shutdown()).await.unwrap();
    within(bo.shutdown()).await.unwrap();
    group
}

// proves opening.dossier.1, opening.dossier.2, opening.dossier.3, opening.material.1, opening.combine.1
// proves export.folder.1, export.folder.2, export.sealed.1, export.edits.1, export.cosigned.1
// proves opening.cosigned.1
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "a story from its beginning to its end")]
async fn three_of_five_officers_open_a_case_and_two_do_not() {
    let deployment = Deployment::start().await;
    let court = Court {
        dir: deployment.dir.path(),
        node: deployment.client_dir("archive"),
        ceremony: deployment.dir.path().join("ceremony"),
    };
    fs::write(court.path("passphrase"), "correct horse battery\n").unwrap();
    let node = opened(&court.node).await;
    let ticket = deployment.admin().add_account_with(&"archive".parse().unwrap(), Role::Escrow, None).unwrap();
    node.enrol(&ticket.to_string()).await.unwrap();
    within(node.client().wait_online()).await.unwrap();
    let chancery_protocol::identity::Authority::Tenant(root) = node.identity().unwrap().authority else { panic!() };
    let root = root.to_string();

    // The ceremony, and a group under its key.
    for seat in SEATS {
        court.officer(seat);
    }
    let requester = court.officer("li");
    hold_ceremony(&court, &root);
    let (_, key) = read_certificate(&court.ceremony.join("archive.cert")).unwrap();
    let asked = endpoint(&node, None).await;
    let signed = policy(&deployment, &node, &asked, &key).await;
    let group = people_talk(&deployment, &node, &signed).await;
    let log_key = data_encoding::HEXLOWER.encode(&node.log_key().await.unwrap().unwrap());
    // It is started again: what was open is closed, and can be asked for.
    drop(asked);
    within(node.shutdown()).await.unwrap();
    let serve = ["chancery-escrow", "serve", "--dir", text(&court.node), "--listen", "127.0.0.1:0", "--json"];
    let mut serving = Terminal::start(&serve);
    serving.wait_for("listening");
    appears(&court.node.join("officers/certificates"));
    fs::copy(court.ceremony.join("archive.cert"), court.node.join("officers/certificates/1.cert")).unwrap();
    fs::write(court.node.join("officers/requesters"), format!("{requester} Li, legal\n")).unwrap();
    let may_ask = format!("{requester}=Li, legal");
    for name in SEATS.iter().chain(["li"].iter()) {
        let trust = ["seat", "trust", "--tenant", &root, "--log-key", &log_key, "--requester", &may_ask];
        court.run(name, &trust);
    }

    // What there is, without content; then the request.
    let (order, today) = (court.path("q"), "2999-12-31");
    let of_group = group.to_string();
    let wanted = ["case", "catalogue", "--group", &of_group, "--first", "2020-01-01", "--last", today];
    court.run("li", &[&wanted[..], &["--out", text(&order)]].concat());
    assert!(court.hand_in(&order, "q").contains("a catalogue of"));
    let catalogue = court.out("q.catalogue");
    let (certificate, nowhere) = (court.ceremony.join("archive.cert"), court.path("nowhere"));
    let estimate = [
        "case",
        "open",
        "--dir",
        text(&nowhere),
        "--catalogue",
        text(&catalogue),
        "--certificate",
        text(&certificate),
        "--case",
        "x",
        "--legal-basis",
        "x",
        "--purpose",
        "x",
        "--estimate",
    ];
    let estimated = court.run("li", &estimate);
    assert!(estimated.contains("records of 1 groups") && !nowhere.exists(), "{estimated}");
    let (case, hash) = court.open_case("case-1", &catalogue, &[]);
    let dossier = court.out(&format!("{hash}.dossier"));

    // Each seat reads it in plain words, and decides.
    let shown = court.run("chen", &["seat", "show", text(&dossier)]);
    for part in
        ["case: case-1", "who asks: li", "legal basis: order 14 C 3", "everybody's", "nothing that the node tells"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let out = text(&court.out("")).to_owned();
    assert!(court.run("chen", &["seat", "requests", &out]).contains("waits; expires"));
    court.approve("chen", &case, &hash);
    court.approve("wu", &case, &hash);
    let said = court.fails("li", &["case", "combine", "--dir", text(&case)]);
    assert!(said.contains("2 of 3 seats have approved: nothing can be opened"), "{said}");
    assert!(!case.join("search.db").exists());
    // A seat that refuses, and one whose answer was spoiled on the way, do not count; both are named.
    let refusal = court.path("kim.answer");
    court.run("kim", &["seat", "refuse", text(&dossier), "--out", text(&refusal), "--reason", "too wide"]);
    assert!(court.hand_in(&refusal, "kim.answer").contains("2 of 3 seats"));
    fs::copy(&refusal, case.join("answers/kim.answer")).unwrap();
    let mut spoiled = fs::read(case.join("answers/wu.answer")).unwrap();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    fs::write(case.join("answers/spoiled"), spoiled).unwrap();
    let said = court.fails("li", &["case", "combine", "--dir", text(&case)]);
    assert!(said.contains("seat 5 refuses: too wide") && said.contains("spoiled: the answer is not signed"), "{said}");
    // A seat is lost; another goes on in its place.
    fs::remove_dir_all(court.path("ana")).unwrap();
    court.approve("tanaka", &case, &hash);
    let said = court.run("li", &["case", "combine", "--dir", text(&case)]);
    assert!(said.contains("opened by seats"), "{said}");

    // Searched by words and by characters, within the case.
    let search = |what: &str| -> Value {
        let arguments = ["chancery-escrow", "case", "search", "--dir", text(&case), what, "--json"];
        serde_json::from_str(&ok(&arguments)).unwrap()
    };
    for (what, sender) in [("预算", "ana"), ("论", "ana"), ("회의", "ana"), ("来週", "ana")] {
        let found = search(what);
        assert_eq!((&found["total"], found["hits"][0]["sender"].as_str()), (&Value::from(1), Some(sender)), "{what}");
    }
    assert_eq!(search("预算")["hits"][0]["after"], "bo: 计划.txt");
    assert_eq!(search("计划")["hits"][0]["sender"], "bo");
    // What was edited, and what it was edited to.
    assert_eq!((&search("BUDGET")["total"], &search("overdue")["total"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(search("nobody")["total"], 0);

    // Exported, closed in the log, verified by anybody.
    let export = court.path("export");
    court.run("li", &["case", "export", "--dir", text(&case), "--out", text(&export)]);
    assert!(court.hand_in(&case.join("close"), "close-1").contains("closes"));
    let closing = court.out(&format!("{hash}.closing"));
    court.run("li", &["case", "close", "--dir", text(&case), "--closing", text(&closing)]);
    assert!(!case.join("search.db").exists() && !case.join("material").exists());
    let verified = court.verify(&export, &root, &log_key);
    assert_eq!((&verified["verified"], &verified["gaps"]), (&Value::from(true), &Value::from(0)));
    assert_eq!(verified["records"], verified["released"]);
    let records = fs::read_to_string(export.join("records.jsonl")).unwrap();
    let lines: Vec<Value> = records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::from(lines.len()), verified["records"]);
    let texts: Vec<&str> =
        lines.iter().filter_map(|line| line["content"]["envelope"]["body"]["text"].as_str()).collect();
    assert_eq!(texts, ["明天下午讨论预算", "the budget is due", "서울 회의 来週"]);
    let page = fs::read_to_string(export.join("README.txt")).unwrap();
    assert!(page.starts_with("EXPORT OF CASE case-1\n\nNot in this export\n"), "{page}");
    let mails = fs::read_dir(export.join("mail")).unwrap().next().unwrap().unwrap().path();
    let mut mails: Vec<PathBuf> = fs::read_dir(mails).unwrap().map(|entry| entry.unwrap().path()).collect();
    mails.sort();
    let read: Vec<String> = mails.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let budget = read.iter().find(|mail| mail.contains("From: bo\r\n"));
    assert!(budget.unwrap().contains(" +0000\r\n"));
    let mail_with = |text: &str| {
        let parsed = read.iter().map(|mail| MessageParser::default().parse(mail).unwrap());
        parsed.into_iter().find(|mail| mail.body_text(0).is_some_and(|body| body.contains(text))).unwrap()
    };
    // What was edited and deleted stands as it was sent; replies, edits and deletes answer it, each in words.
    let first = mail_with("the budget is due");
    let id = first.message_id().unwrap();
    for text in ["by Friday", "which reads from here on:)\r\n\r\nthe budget is overdue", "(deletes message "] {
        let mail = mail_with(text);
        assert_eq!(mail.in_reply_to().as_text(), Some(id), "{text}");
        assert!(mail.references().as_text_list().is_some_and(|list| list.iter().any(|one| one == id)), "{text}");
    }
    let edits: Vec<&Value> = lines.iter().map(|line| &line["content"]["envelope"]["body"]["edit"]).collect();
    assert!(edits.iter().any(|edit| edit["text"] == "the budget is overdue"), "{records}");
    let files: Vec<PathBuf> = fs::read_dir(export.join("files")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() == 1 && fs::read(&files[0]).unwrap() == plan(), "{files:?}");
    let raw = mails.iter().map(|path| fs::read(path).unwrap()).find(|mail| mail.len() > plan().len()).unwrap();
    let mail = MessageParser::default().parse(&raw).unwrap();
    let attachment = mail.attachment(0).unwrap();
    assert!((attachment.attachment_name(), attachment.contents()) == (Some(PLAN), plan().as_slice()));
    let report = court.run("li", &["case", "status", "--dir", text(&case), "--report"]);
    let cosigned = "cosigned by 4 of 5 seats: 1, 3, 4, 5";
    let with_seats = ["verify", text(&export), "--tenant", &root, "--log-key", &log_key, "--certificate"];
    let said = ok(&[&["chancery-escrow"], &with_seats[..], &[text(&certificate)]].concat());
    assert!(said.contains(&format!("the log on which it rests is {cosigned}")), "{said}");
    for part in
        ["REPORT ON CASE case-1", "approvals: 3 of 3", "refuses: too wide", cosigned, "closed: the archive's log names"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }

    // What is changed in the folder is named.
    let spoil = |name: &Path, change: &dyn Fn(&Path)| {
        let before = fs::read(name).ok();
        change(name);
        let arguments = ["chancery-escrow", "verify", text(&export), "--tenant", &root, "--log-key", &log_key];
        let said = refused(&arguments);
        match before {
            Some(bytes) => fs::write(name, bytes).unwrap(),
            None => fs::remove_file(name).unwrap(),
        }
        said
    };
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let within = |path: &Path| path.strip_prefix(&export).unwrap().to_str().unwrap().to_owned();
    for name in ["records.jsonl", "README.txt", "sealed/00000.bin", &within(&mails[0]), &within(&files[0])] {
        let said = spoil(&export.join(name), &flip);
        assert!(said.contains(&format!("file {name}")), "{said}");
    }
    assert!(spoil(&export.join("manifest.bin"), &flip).contains("does not hold"));
    assert!(spoil(&export.join("closing.bin"), &flip).contains("closing"));
    let more = spoil(&export.join("more.txt"), &|path| fs::write(path, "more").unwrap());
    assert!(more.contains("file more.txt: it is not part of the export"), "{more}");
    let gone = spoil(&mails[0], &|path| fs::remove_file(path).unwrap());
    assert!(gone.contains("missing"), "{gone}");

    // Another case, for the words of one person: what was opened before is shown, and nothing else is released.
    let (second, again) = court.open_case("case-2", &catalogue, &["--person", "bo"]);
    let dossier = court.out(&format!("{again}.dossier"));
    let shown = court.run("kim", &["seat", "show", text(&dossier)]);
    assert!(shown.contains(cosigned), "{shown}");
    assert!(shown.contains("whose words: bo") && shown.contains("case case-1 by li"), "{shown}");
    for seat in ["kim", "wu", "chen"] {
        court.approve(seat, &second, &again);
    }
    court.run("li", &["case", "combine", "--dir", text(&second)]);
    let found = ok(&["chancery-escrow", "case", "search", "--dir", text(&second), "预算"]);
    assert!(found.starts_with("0 messages"), "{found}");
    // An answer for one case opens no other.
    fs::copy(case.join("answers/tanaka.answer"), second.join("answers/kim.answer")).unwrap();
    let said = court.fails("li", &["case", "combine", "--dir", text(&second)]);
    assert!(said.contains("the answer is to another request"), "{said}");

    // A drill leaves its trace like any other case.
    let drill = court.path("drill.order");
    court.run("li", &["drill", "--certificate", text(&certificate), "--out", text(&drill)]);
    assert!(court.hand_in(&drill, "drill").contains("sealed for a drill"));
    let (drilled, third) = court.open_case("drill", &court.out("drill.catalogue"), &[]);
    for seat in ["kim", "wu", "tanaka"] {
        court.approve(seat, &drilled, &third);
    }
    assert!(court.run("li", &["case", "combine", "--dir", text(&drilled)]).contains("1 records, of which 1"));

    // The node says who is still to be told, until the log says that they were; of a drill nobody is.
    let to_tell = || {
        let status: Value = serde_json::from_slice(&fs::read(court.node.join("status.json")).unwrap()).unwrap();
        let due = status["status"]["to_tell"].as_object().unwrap().keys().cloned();
        due.collect::<std::collections::BTreeSet<_>>()
    };
    let soon = |expected: &[&String]| {
        let expected = expected.iter().map(|hash| (*hash).clone()).collect();
        let end = Instant::now() + PATIENCE;
        while to_tell() != expected {
            assert!(Instant::now() < end, "{:?}", to_tell());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    soon(&[&hash, &again]);
    let said = ok(&["chancery-escrow", "status", "--dir", text(&court.node)]);
    let line = |hash: &str| format!("who is concerned by request {hash} is to be told by ");
    assert!(said.contains(&line(&hash)) && !said.contains(&line(&third)) && said.contains("the last drill"), "{said}");
    let told = court.path("told.order");
    court.run("li", &["case", "told", "--dir", text(&case), "--out", text(&told)]);
    assert!(court.hand_in(&told, "told").contains("were told"));
    soon(&[&again]);

    // The month is not over: nothing expires, and a hold is taken in all the same.
    let expire = court.path("expire.order");
    let this_month = "2999-12";
    court.run("li", &["expire", "--class", "seven-years", "--through", this_month, "--out", text(&expire)]);
    assert!(court.hand_in(&expire, "expire").starts_with("refused: the month is not over yet"));
    let hold = court.path("hold.order");
    let days = ["--first", "2020-01-01", "--last", today, "--document", text(&order), "--out", text(&hold)];
    court.run("chen", &[&["hold", "place"][..], &days].concat());
    assert!(court.hand_in(&hold, "hold").contains("is logged"));
    drop(serving);
}
