//! What is in the archive at the end: opened by as many seats as the policy names, and counted against what was said.
//!
//! This module serves and seals nothing; the node has stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use chancery_escrow::Node;
use chancery_protocol::{
    error::Malformed,
    escrow::{
        KeyShare, Opening, Record, RecordBody, SealedRecord,
        threshold::{ArchiveKey, combine},
    },
    ids::{GroupId, MessageId, OpeningHash},
    secret::Random,
    wire::envelope::{Body, Envelope},
};

use crate::{ledger::Said, receipts::Fingerprint};

/// The archive cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The node's folder.
    #[error("the archive: {0}")]
    Node(#[from] chancery_client::Error),
    /// A header or record is none.
    #[error("the archive: {0}")]
    Malformed(#[from] Malformed),
    /// The seats together do not open it.
    #[error("the archive is not opened: {0}")]
    Closed(String),
}

/// A text in the archive.
#[derive(Clone, Copy, Debug)]
struct Found {
    group: GroupId,
    id: MessageId,
    text: Fingerprint,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Texts of archived groups that are in the archive, each once.
    pub archived: u64,
    /// Texts of archived groups that are not.
    pub missing: u64,
    /// Records of other groups, and texts that were said elsewhere.
    pub foreign: u64,
    /// What else is wrong, in words.
    pub broken: Vec<String>,
}

/// Opens everything and counts it.
///
/// # Errors
/// The folder cannot be read, or the seats do not open it.
pub async fn count(dir: &Path, quorum: (&ArchiveKey, &[KeyShare]), said: &[Said]) -> Result<Counted, ArchiveError> {
    let node = Node::open(dir).await?;
    let opened = open(&node, quorum).await;
    node.shutdown().await?;
    let (groups, found) = opened?;
    Ok(compare(&groups, &found, said))
}

async fn open(
    node: &Node,
    (key, shares): (&ArchiveKey, &[KeyShare]),
) -> Result<(BTreeSet<GroupId>, Vec<Found>), ArchiveError> {
    let closed = |error: &dyn std::fmt::Display| ArchiveError::Closed(error.to_string());
    let mut random = Random::new([7; 32]);
    let (mut groups, mut found) = (BTreeSet::new(), Vec::new());
    for (id, segment) in node.segments().await? {
        let header = node.header(&segment)?;
        let group = header.scope().group;
        groups.insert(group);
        let opening = Opening { request: OpeningHash([0; 32]), log_index: 0 };
        let parts: Result<Vec<_>, _> =
            shares.iter().map(|share| share.decrypt(&header, opening, &mut random)).collect();
        let parts = parts.map_err(|error| closed(&error))?;
        let scope_key = combine(key, &header, opening, &parts).map_err(|error| closed(&error))?.key;
        for sealed in node.records(id).await? {
            let sealed = SealedRecord::from_bytes(&sealed).map_err(|error| closed(&error))?;
            let plain = sealed.open(&scope_key, &header).map_err(|error| closed(&error))?;
            let RecordBody::Message { envelope, .. } = Record::from_bytes(&plain)?.body else { continue };
            let envelope = Envelope::from_bytes(&envelope)?;
            if let Body::Text(text) = envelope.body {
                found.push(Found { group, id: envelope.id, text: Fingerprint::of(&text) });
            }
        }
    }
    Ok((groups, found))
}

fn compare(groups: &BTreeSet<GroupId>, found: &[Found], said: &[Said]) -> Counted {
    let due: BTreeMap<MessageId, &Said> =
        said.iter().filter(|said| said.escrowed).map(|said| (said.id, said)).collect();
    let archived_groups: BTreeSet<GroupId> = due.values().map(|said| said.group).collect();
    let elsewhere: BTreeSet<MessageId> = said.iter().filter(|said| !said.escrowed).map(|said| said.id).collect();
    let texts_elsewhere: BTreeSet<Fingerprint> =
        said.iter().filter(|said| !said.escrowed).map(|said| said.text).collect();
    let mut counted = Counted::default();
    counted.foreign += groups.difference(&archived_groups).count() as u64;
    let mut seen = BTreeSet::new();
    for record in found {
        if elsewhere.contains(&record.id) || texts_elsewhere.contains(&record.text) {
            counted.foreign += 1;
            continue;
        }
        match due.get(&record.id) {
            None => counted.broken.push("the archive holds a text that nobody said".to_owned()),
            Some(said) if said.text != record.text || said.group != record.group => {
                counted.broken.push("the archive holds another text than was said".to_owned());
            }
            Some(_) if !seen.insert(record.id) => counted.broken.push("the archive holds a text twice".to_owned()),
            Some(_) => {}
        }
    }
    counted.archived = seen.len() as u64;
    counted.missing = due.keys().filter(|id| !seen.contains(*id)).count() as u64;
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(number: u8, escrowed: bool) -> Said {
        let group = GroupId([u8::from(escrowed); 32]);
        Said { id: MessageId([number; 16]), group, escrowed, text: Fingerprint::of(&number.to_string()), from: 0 }
    }

    fn found(said: Said) -> Found {
        Found { group: said.group, id: said.id, text: said.text }
    }

    #[test]
    fn each_text_of_an_archived_group_counts_once_and_no_other() {
        let said = [said(1, true), said(2, true), said(3, false)];
        let groups = BTreeSet::from([GroupId([1; 32])]);
        let well = compare(&groups, &[found(said[0]), found(said[1])], &said);
        assert_eq!(well, Counted { archived: 2, ..Counted::default() });
        let lost = compare(&groups, &[found(said[0])], &said);
        assert_eq!((lost.archived, lost.missing), (1, 1));
        let doubled = compare(&groups, &[found(said[0]), found(said[1]), found(said[1])], &said);
        assert!(doubled.archived == 2 && doubled.broken.len() == 1);
        let personal = compare(&groups, &[found(said[0]), found(said[1]), found(said[2])], &said);
        assert_eq!((personal.archived, personal.foreign), (2, 1));
        let other_group = compare(&BTreeSet::from([GroupId([1; 32]), GroupId([0; 32])]), &[], &said);
        assert_eq!((other_group.foreign, other_group.missing), (1, 2));
        let made_up = compare(&groups, &[Found { id: MessageId([9; 16]), ..found(said[0]) }], &said);
        assert_eq!((made_up.broken.len(), made_up.missing), (1, 2));
    }
}
