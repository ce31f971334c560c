//! What is in the archive at the end: the export of a case for everything, counted against what was said.
//!
//! This module opens and verifies nothing; the officers' commands have.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::ids::{GroupId, MessageId};
use serde::Deserialize;

use crate::{ledger::Said, receipts::Fingerprint};

/// The export cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the export of the archive: {0}")]
pub struct ArchiveError(#[from] serde_json::Error);

/// A line of the export, as far as it is counted.
#[derive(Deserialize)]
struct Line {
    group: String,
    content: serde_json::Value,
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

/// Counts the records of an export.
///
/// # Errors
/// A line is no record.
pub fn count(records: &str, said: &[Said]) -> Result<Counted, ArchiveError> {
    let (mut groups, mut found) = (BTreeSet::new(), Vec::new());
    for line in records.lines() {
        let Line { group, content } = serde_json::from_str(line)?;
        let Some(group) = bytes(&group).map(GroupId) else { continue };
        groups.insert(group);
        let field = |path: &str| content.pointer(path).and_then(serde_json::Value::as_str);
        if let (Some(id), Some(text)) = (field("/envelope/id").and_then(bytes), field("/envelope/body/text")) {
            found.push(Found { group, id: MessageId(id), text: Fingerprint::of(text) });
        }
    }
    Ok(compare(&groups, &found, said))
}

/// Lower-case hexadecimal digits.
fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    (digits.len() == 2 * N).then_some(bytes)
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
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
    fn lines_of_an_export_are_read_and_whoever_is_no_text_is_passed_over() {
        let text = said(1, true);
        let (group, id) = ("01".repeat(32), "01".repeat(16));
        let line = format!(
            r#"{{"group":"{group}","kind":"message","content":{{"envelope":{{"id":"{id}","body":{{"text":"1"}}}}}}}}"#
        );
        let other = format!(r#"{{"group":"{group}","kind":"commit","content":{{"name":null}}}}"#);
        let counted = count(&format!("{line}\n{other}\n"), &[text]).unwrap();
        assert_eq!(counted, Counted { archived: 1, ..Counted::default() });
        assert!(count("{", &[text]).is_err());
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
