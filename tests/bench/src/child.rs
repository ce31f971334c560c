//! The processes that are measured: started, asked for CPU and memory through `/proc`, ended.
//!
//! The load runs in the parent, so that what a child uses is the server's alone.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::Outcome;

/// Linux counts CPU time for user programs in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// A child that serves; it is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts this program again and waits for the line that says where it listens.
    pub(crate) fn start<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let said: serde_json::Value = serde_json::from_str(&line).map_err(|_| "a server did not start")?;
        let address = said.get("listening").and_then(|at| at.as_str()).ok_or("a server does not say where it is")?;
        Ok(Self { address: address.parse()?, child })
    }

    /// CPU time of all its threads, user and system.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc is unreadable")?;
        let ticks: Vec<u32> =
            fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        Ok(TICK * ticks.iter().sum::<u32>())
    }

    /// Memory in use, in KiB.
    pub(crate) fn resident_kib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc is unreadable")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; nothing depends on how.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when its parent is gone: nothing is ever written to its standard input.
pub(crate) fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// The relay, as its operator starts it.
pub(crate) fn serve_relay(config: PathBuf) -> u8 {
    end_with_stdin();
    let arguments = ["chancery-relay", "serve", "--json", "--config"].into_iter().map(OsString::from);
    chancery_server::run_cli(arguments.chain([config.into_os_string()]))
}
