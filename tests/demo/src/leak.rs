//! The control run: a relay that leaks on purpose, searched like the real one.
//!
//! A search that finds nothing proves something only if it finds what is there. The leaking relay is a process of its own
//! with a folder made by the server's own `init`; it is handed a few texts, since a relay cannot read any, and does what
//! a bad one would do with them: it writes them into its database and into its log, and dies without cleaning up.

use std::{
    fs::{self, File},
    io::{self, Read, Write, stdin, stdout},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    child_relay::{self, RelayError},
    plaintext::{Findings, Search},
};

/// Most texts that are leaked.
const LEAKED_MAX: usize = 24;

/// The control run itself failed.
#[derive(Debug, thiserror::Error)]
pub enum LeakError {
    /// The operating system refuses.
    #[error("the control run: {0}")]
    Io(#[from] io::Error),
    /// The server's own code refuses.
    #[error("the control run: {0}")]
    Server(#[from] RelayError),
    /// The leaking relay's database.
    #[error("the control run: {0}")]
    Database(#[from] rusqlite::Error),
    /// What it was told is not a list of texts.
    #[error("the control run: {0}")]
    Json(#[from] serde_json::Error),
    /// The search misses what is there.
    #[error("the search is blind: a relay that leaks into its {0} goes unseen")]
    Blind(&'static str),
}

/// Lets a relay leak some of the texts into a fresh folder, and searches it.
///
/// # Errors
/// The search is blind, or the leaking relay does not run.
pub fn control(folder: &Path, search: &Search<'_>, texts: &[&str]) -> Result<Findings, LeakError> {
    fs::create_dir_all(folder)?;
    let stride = texts.len().div_ceil(LEAKED_MAX).max(1);
    let leaked: Vec<&str> = texts.iter().rev().step_by(stride).copied().collect();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("leaking-relay")
        .arg(state(folder))
        .stdin(Stdio::piped())
        .stdout(File::create(folder.join(LOG))?)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&leaked)?)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("the leaking relay ended with {status}")).into());
    }
    let findings = search.run(folder)?;
    let seen = |what: &Path| findings.files().any(|(file, _, _)| file.starts_with(what));
    if !seen(&folder.join(LOG)) {
        return Err(LeakError::Blind("log"));
    }
    if !seen(&state(folder)) {
        return Err(LeakError::Blind("database"));
    }
    Ok(findings)
}

const LOG: &str = "stdout.log";

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

/// The leaking relay's process.
///
/// # Errors
/// It cannot even leak.
pub fn run(state: &Path) -> Result<(), LeakError> {
    let mut told = Vec::new();
    stdin().read_to_end(&mut told)?;
    let texts: Vec<String> = serde_json::from_slice(&told)?;
    child_relay::found(state, child_relay::NOWHERE)?;
    let database = rusqlite::Connection::open(state.join("leak.db"))?;
    database.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE debug (entry INTEGER PRIMARY KEY, body TEXT)")?;
    for text in &texts {
        database.execute("INSERT INTO debug (body) VALUES (?1)", [text])?;
        writeln!(stdout().lock(), "DEBUG appended body={text}")?;
    }
    stdout().lock().flush()?;
    // Without closing the database, as after a kill: what it wrote is in the write-ahead log.
    std::process::exit(0)
}
