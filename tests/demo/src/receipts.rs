//! The book of one client: what it was told by the SDK, each event once, written down before it is acknowledged.
//!
//! A process that is killed between writing and acknowledging is told the same events again; the book knows them by
//! their numbers and passes over them. So an entry that stands twice was really delivered twice. This module does not
//! judge what it writes.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use chancery_protocol::ids::{AccountId, GroupId, MessageId, Seq};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One event, as far as the demo needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The SDK's number of the event.
    pub event: u64,
    /// What happened.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A message of another.
    Received {
        /// Where.
        group: GroupId,
        /// Its id.
        id: MessageId,
        /// Its author.
        from: AccountId,
        /// Its text.
        text: Fingerprint,
        /// Its place in the log.
        seq: Seq,
        /// Whether it follows the author's previous message without a gap.
        continuous: bool,
    },
    /// An own message has its place.
    Sent {
        /// Where.
        group: GroupId,
        /// Its id.
        id: MessageId,
    },
    /// In a group.
    Joined {
        /// Which.
        group: GroupId,
        /// What it is called.
        name: Fingerprint,
    },
    /// Out of a group.
    Out {
        /// Which.
        group: GroupId,
        /// At the account's own wish.
        by_choice: bool,
    },
    /// Somebody else is out of a group, as this client sees it.
    MemberOut {
        /// Which.
        group: GroupId,
        /// Who.
        account: AccountId,
    },
    /// An entry was skipped.
    Skipped {
        /// Where.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// Something that should not happen.
    Alarm {
        /// What.
        reason: String,
    },
}

/// SHA-256 of a text: enough to compare, and short in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

/// The book of one client.
#[derive(Debug)]
pub struct Book {
    file: File,
    entries: u64,
    known: HashSet<u64>,
}

impl Book {
    /// Opens the book, and tells what stands in it. An entry that was cut off in the middle was never acknowledged, and
    /// goes.
    ///
    /// # Errors
    /// The file cannot be read or is not a book.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Receipt>)> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut receipts = Vec::new();
        let mut whole = 0;
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            receipts.push(serde_json::from_slice::<Receipt>(&line)?);
            whole += line.len() as u64;
            line.clear();
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        let known = receipts.iter().map(|receipt| receipt.event).collect();
        Ok((Self { file, entries: receipts.len() as u64, known }, receipts))
    }

    /// Writes down what is new of a batch and makes it durable. Returns the new entries with their places.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, batch: Vec<Receipt>) -> io::Result<Vec<(u64, Receipt)>> {
        let mut bytes = Vec::new();
        let mut fresh = Vec::new();
        for receipt in batch {
            if self.known.insert(receipt.event) {
                serde_json::to_writer(&mut bytes, &receipt)?;
                bytes.push(b'\n');
                fresh.push((self.entries, receipt));
                self.entries += 1;
            }
        }
        if !bytes.is_empty() {
            self.file.write_all(&bytes)?;
            self.file.sync_data()?;
        }
        Ok(fresh)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn alarm(event: u64) -> Receipt {
        Receipt { event, what: Happened::Alarm { reason: "ü\nx".into() } }
    }

    #[test]
    fn an_event_told_again_after_a_kill_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        let (mut book, old) = Book::open(&path).unwrap();
        assert!(old.is_empty());
        assert_eq!(book.write(vec![alarm(1), alarm(2)]).unwrap().len(), 2);
        drop(book);
        let (mut book, old) = Book::open(&path).unwrap();
        assert_eq!(old, [alarm(1), alarm(2)]);
        assert_eq!(book.write(vec![alarm(2), alarm(3)]).unwrap(), [(2, alarm(3))]);
    }

    #[test]
    fn an_entry_cut_off_in_the_middle_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        let (mut book, _) = Book::open(&path).unwrap();
        book.write(vec![alarm(1), alarm(2)]).unwrap();
        drop(book);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes.get(..bytes.len() - 3).unwrap()).unwrap();
        let (mut book, old) = Book::open(&path).unwrap();
        assert_eq!(old, [alarm(1)]);
        assert_eq!(book.write(vec![alarm(2)]).unwrap(), [(1, alarm(2))]);
        assert_eq!(Book::open(&path).unwrap().1, [alarm(1), alarm(2)]);
    }
}
