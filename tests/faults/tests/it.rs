//! A few rounds of each kind of fault, on this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use chancery_tests::skip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chancery-faults");
/// Exit code for what this machine cannot do.
const NOT_HERE: i32 = 4;

/// One run at a time: each has half a dozen processes.
static STAGE: Mutex<()> = Mutex::new(());

/// Runs so many rounds. Where this user is not root and it is required, `sudo` is asked, and may not ask back.
fn faults(name: &str, arguments: &[&str]) {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut output = Command::new(PROGRAM).args(arguments).output().unwrap();
    if output.status.code() == Some(NOT_HERE) && std::env::var_os("CHANCERY_REQUIRE").is_some() {
        output = Command::new("sudo").args(["-n", PROGRAM]).args(arguments).output().unwrap_or(output);
    }
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(NOT_HERE) {
        return skip(name, said(&output).trim());
    }
    assert!(output.status.success(), "{}\n{}", output.status, said(&output));
}

// proves relay.durable.1
#[test]
fn nothing_acknowledged_is_lost_by_sigkill_of_relay_or_clients() {
    faults("kill", &["kill", "--rounds", "2", "--seed", "7"]);
}

// proves relay.durable.1
#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut_and_without_fsync_it_would_be() {
    faults("power", &["power", "--rounds", "1", "--seed", "7"]);
    faults("power", &["power", "--rounds", "1", "--seed", "7", "--without-fsync"]);
}

// proves escrow.capture.1
#[test]
fn an_escrow_node_that_is_killed_archives_each_entry_once() {
    faults("archive", &["archive", "--rounds", "5", "--seed", "7"]);
}

#[test]
fn a_relay_whose_fsync_fails_acknowledges_nothing_more_and_ends() {
    faults("eio", &["eio", "--rounds", "2", "--seed", "7"]);
}

#[test]
fn a_relay_whose_disk_is_full_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    faults("full", &["full", "--rounds", "1", "--seed", "7"]);
}
