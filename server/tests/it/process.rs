//! The command as a child process: what it prints, how it ends, and what it logs.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use chancery_protocol::identity::Ticket;
use serde_json::Value;

use crate::client::{Device, GROUP, application, commit, enrol, key, token};

const PROGRAM: &str = env!("CARGO_BIN_EXE_chancery-relay");

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn serve(config: &str) -> (Child, String) {
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--json", "--config", config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
        let mut complaint = String::new();
        child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        panic!("{complaint}")
    });
    (child, listening["listening"].as_str().unwrap().to_owned())
}

fn config_of(dir: &Path) -> String {
    let dir = dir.to_str().unwrap();
    json(&run(&["init", "--json", "--dir", dir, "--listen", "127.0.0.1:0"]))["config"].as_str().unwrap().to_owned()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_initialises_serves_enrols_logs_nothing_private_and_stops_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_of(&folder.path().join("relay"));
    let text = std::fs::read_to_string(&config).unwrap().replace("filter = \"info\"", "filter = \"trace\"");
    std::fs::write(&config, text).unwrap();

    let early = run(&["account", "add", "ana", "--config", &config]);
    assert_eq!(early.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&early.stderr).contains("start it once"));

    let (mut child, address) = serve(&config);
    let second = run(&["serve", "--config", &config]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"), "{second:?}");

    let added = json(&run(&["account", "add", "anastasia", "--json", "--config", &config]));
    let ticket: Ticket = added["ticket"].as_str().unwrap().parse().unwrap();
    assert_eq!(ticket.addresses, [address.parse().unwrap()]);
    let chain = enrol(&ticket, &key(1)).await.unwrap();
    let mut ana = Device::connect(ticket.addresses[0], ticket.server, Some((&chain, &key(1)))).await.unwrap();
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();
    ana.append(application(1, b"very private words")).await.unwrap();

    let listed = json(&run(&["account", "list", "--json", "--config", &config]));
    assert_eq!(listed["accounts"][0]["devices"], 1);
    let disabled = run(&["account", "disable", "anastasia", "--config", &config]);
    assert!(disabled.status.success());
    ana.connection.closed().await;

    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{log}");
    assert!(log.contains("the relay is serving") && log.contains("the relay has stopped"), "{log}");
    let account = listed["accounts"][0]["account"].as_str().unwrap().to_owned();
    let device = key(1).device().to_string();
    let private = ["127.0.0.1", "anastasia", "private words", &GROUP.to_string(), &account, &device];
    for secret in private {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

// proves relay.durable.1
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_of(&folder.path().join("relay"));
    let (mut child, _) = serve(&config);
    let added = json(&run(&["account", "add", "ana", "--json", "--config", &config]));
    let ticket: Ticket = added["ticket"].as_str().unwrap().parse().unwrap();
    let chain = enrol(&ticket, &key(1)).await.unwrap();
    let connect = async || Device::connect(ticket.addresses[0], ticket.server, Some((&chain, &key(1)))).await.unwrap();
    let mut ana = connect().await;
    ana.append(commit(0, b"first", &token(1), vec![])).await.unwrap();
    ana.open(GROUP, token(1), None).await.unwrap();
    let mut last = None;
    for n in 0..100_u8 {
        last = Some(ana.append(application(1, &[n])).await.unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, _) = serve(&config);
    let mut ana = connect().await;
    let opened = ana.open(GROUP, token(1), Some(2)).await.unwrap();
    assert_eq!(Some(opened.head), last.map(|appended| appended.head));
    assert_eq!(ana.append(application(1, &[99])).await.ok(), last, "a repeated append gets the same answer");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn wrong_usage_and_missing_files_end_with_their_codes_and_a_hint() {
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    let missing = run(&["serve", "--config", "/nowhere/config.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("chancery-relay init"));
}
