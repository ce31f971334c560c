//! The archive of runs with an escrow node, opened: each entry is in it once, of escrowed groups only, and what the node says of
//! it holds; and who sees an escrow member where.

use std::collections::{BTreeMap, BTreeSet};

use chancery_protocol::{
    capture::{
        group::Place as ArchivedPlace,
        log::entry_key,
        receipts::{Receipts, receipts_key},
        seal_entry::lines_key,
    },
    client::{GroupStatus, Space},
    escrow::{
        ArchiveEntry, ArchiveEvent, DayReport, Record, RecordBody, RecordLine,
        evidence::lines_root,
        record::{Attachment, GapReason},
    },
    identity::Role,
    ids::{GroupId, HeaderHash, MessageId, Seq, StatementLookup},
    mls::Class,
    wire::{
        blobs::BlobRef,
        decode_exact,
        envelope::{Body, Envelope},
        file::File,
        relay::{Entry, Head},
    },
};

use super::{
    super::{
        disk::Rows,
        ops::Kind,
        system::{CANARY, Opened, World},
    },
    rights::Ids,
};

const ONCE: &str = "archived_once";
const SCOPED: &str = "archive_is_scoped";
const SAYS: &str = "archive_proves_itself";

/// A broken promise, and what was seen.
type Broken = (&'static str, String);

fn rows_of(rows: &Rows, space: Space) -> impl Iterator<Item = (&[u8], &[u8])> {
    rows_from(rows, space, Vec::new())
}

fn rows_from(rows: &Rows, space: Space, key: Vec<u8>) -> impl Iterator<Item = (&[u8], &[u8])> {
    rows.range((space, key)..)
        .take_while(move |((of, _), _)| *of == space)
        .map(|((_, key), value)| (key.as_slice(), value.as_slice()))
}

/// As the node's endpoint finds it.
fn receipt_line(rows: &Rows, lookup: StatementLookup, seq: Seq) -> Option<RecordLine> {
    let key = receipts_key(lookup, seq);
    let (key, value) = rows_from(rows, Space::Receipt, key).next()?;
    let receipts = Receipts::found(lookup, key, value)?;
    let lines = &rows[&(Space::Lines, lines_key(receipts.log_index))];
    receipts.line(&decode_exact::<Vec<RecordLine>>("the lines of a capture", lines).unwrap(), seq)
}

fn holds(value: &[u8], what: &str) -> bool {
    value.windows(what.len()).any(|window| window == what.as_bytes())
}

/// The text of a record, if it is one, and the message's id.
fn text(record: &Record) -> Option<(MessageId, String)> {
    let RecordBody::Message { envelope, .. } = &record.body else { return None };
    let envelope = Envelope::from_bytes(envelope).ok()?;
    if let Body::Text(text) = envelope.body { Some((envelope.id, text)) } else { None }
}

impl World {
    /// Compares what the escrow node has on its disk with what was said.
    pub(super) fn check_archive(&mut self) {
        if let Err((invariant, what)) = self.look_into_archive() {
            self.evidence.violate(invariant, what);
        }
    }

    fn look_into_archive(&self) -> Result<(), Broken> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let rows = &self.nodes[archive.node].disk.rows;
        self.check_rest(rows)?;
        let segments = archive.open(rows).map_err(|what| (ONCE, what))?;
        check_keys(rows, &segments)?;
        self.check_scopes(&segments)?;
        check_captures(rows, &segments)?;
        self.check_restored(rows)?;
        for group in &self.evidence.escrowed {
            let lost = self.evidence.doomed.contains(group) || self.evidence.forsaken.contains(&(archive.node, *group));
            if !lost {
                self.check_group(archive.node, *group, &segments)?;
            }
        }
        Ok(())
    }

    /// No text is at rest but sealed; names of groups are nowhere but in MLS state. (mls.listen.2)
    fn check_rest(&self, rows: &Rows) -> Result<(), Broken> {
        for ((space, _), value) in rows {
            let what = if *space == Space::Mls { format!("{CANARY} 1") } else { CANARY.to_owned() };
            if holds(value, &what) {
                return Err(("sealed_at_rest", format!("a row of {space:?} of the node holds a text or a name")));
            }
        }
        Ok(())
    }

    /// The log says where it has gone on from a backup.
    fn check_restored(&self, rows: &Rows) -> Result<(), Broken> {
        let Some(index) = self.evidence.restored_at.last() else { return Ok(()) };
        let entry = rows.get(&(Space::ArchiveEntry, entry_key(*index)));
        match entry.map(|entry| ArchiveEntry::from_bytes(entry).unwrap().event) {
            Some(ArchiveEvent::Restored { .. }) => Ok(()),
            other => Err((SAYS, format!("the archive's log goes on behind a backup without saying so: {other:?}"))),
        }
    }

    /// Nothing is in the archive that was not said in a group that is archived, by its policy.
    fn check_scopes(&self, segments: &[Opened]) -> Result<(), Broken> {
        for segment in segments {
            let group = segment.header.scope().group;
            if !self.evidence.escrowed.contains(&group) {
                return Err((SCOPED, "a group that is not escrowed has a segment".to_owned()));
            }
            for (_, text) in segment.records.iter().filter_map(text) {
                let number = text.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
                if self.evidence.said.get(&number) != Some(&group) {
                    return Err((SCOPED, format!("text {number} was not said in the group in whose segment it is")));
                }
            }
        }
        Ok(())
    }

    /// Each entry behind the first, which brought the node in, has its record or stands in a gap of which the log tells.
    fn check_group(&self, node: usize, group: GroupId, segments: &[Opened]) -> Result<(), Broken> {
        let of_group = segments.iter().filter(|segment| segment.header.scope().group == group);
        let all: Vec<&Record> = of_group.flat_map(|segment| &segment.records).collect();
        let entries = self.disk.entries(group);
        let gaps = self.check_places(node, group, &all, &entries)?;
        self.check_texts(group, &all)?;
        check_files(&all, !gaps.is_empty())?;
        self.check_told(group, &gaps, &entries)?;
        self.check_words(node, group, &entries, &gaps)
    }

    fn check_places(
        &self,
        node: usize,
        group: GroupId,
        all: &[&Record],
        entries: &[Entry],
    ) -> Result<Vec<(Seq, Seq)>, Broken> {
        let mut gaps = Vec::new();
        let mut held: BTreeMap<Seq, (usize, usize)> = BTreeMap::new();
        for record in all {
            match &record.body {
                RecordBody::Members(_) | RecordBody::Attachment(_) => {}
                RecordBody::Gap { last, reason } if self.has_cause(node, group, *reason) => {
                    gaps.push((record.seq, *last));
                    (record.seq.0..=last.0).for_each(|seq| held.entry(Seq(seq)).or_default().0 += 1);
                }
                RecordBody::Gap { last, reason } => {
                    return Err((ONCE, format!("a gap from {} to {last}: {reason:?}", record.seq)));
                }
                RecordBody::Policy { .. } => held.entry(record.seq).or_default().1 += 1,
                _ => held.entry(record.seq).or_default().0 += 1,
            }
        }
        for entry in entries {
            let brought = self.disk.added(group, entry.seq).contains(&self.nodes[node].device)
                && !self.evidence.skipped.contains_key(&(group, entry.seq));
            let (records, policies) = held.remove(&entry.seq).unwrap_or_default();
            // The members that follow are the record of a commit that brings the node in; it may have read that it went, too.
            let fits = if brought { records <= 1 && policies == 0 } else { records.max(policies) == 1 };
            if !fits {
                return Err((ONCE, format!("entry {} has {records} records and {policies} policies", entry.seq)));
            }
        }
        match held.first_key_value() {
            Some((seq, _)) => Err((ONCE, format!("there is a record of entry {seq}, which is not in the log"))),
            None => Ok(gaps),
        }
    }

    /// Whether something has happened for which entries may be missing.
    fn has_cause(&self, node: usize, group: GroupId, reason: GapReason) -> bool {
        match reason {
            GapReason::Stuck => self.evidence.sabotaged.contains(&(node, group)),
            GapReason::StateLost => self.evidence.lost_at.is_some(),
            _ => false,
        }
    }

    /// The newest gap is told to every member who was there; what insiders have done is not looked through here.
    fn check_told(&self, group: GroupId, gaps: &[(Seq, Seq)], entries: &[Entry]) -> Result<(), Broken> {
        let Some((mut first, last)) = gaps.iter().max().copied().filter(|_| self.evidence.insiders.is_empty()) else {
            return Ok(());
        };
        while let Some((before, _)) = gaps.iter().find(|(_, end)| end.next() == first) {
            first = *before;
        }
        for who in (0..self.nodes.len()).filter(|who| self.is_honest(*who) && !self.archives(*who)) {
            let heard = self.history(who, group);
            let came = |entry: &&Entry| self.disk.added(group, entry.seq).contains(&self.nodes[who].device);
            let left = self.evidence.outs.contains_key(&(who, group));
            let was_there = heard.keys().any(|seq| *seq <= last) && heard.keys().any(|seq| *seq > last) && !left;
            let again = entries.iter().filter(came).count() > 1;
            if was_there && !again && !self.evidence.missing.contains(&(who, group, first, last)) {
                let name = self.nodes[who].name;
                return Err((ONCE, format!("{name} is not told that entries {first} to {last} are not archived")));
            }
        }
        Ok(())
    }

    /// What is sealed is what members have, at the same places.
    fn check_texts(&self, group: GroupId, all: &[&Record]) -> Result<(), Broken> {
        let mut said: BTreeMap<Seq, (MessageId, String)> = BTreeMap::new();
        for who in (0..self.nodes.len()).filter(|who| !self.evidence.insiders.contains(who)) {
            said.extend(self.history(who, group).into_values().filter_map(|message| match message.body {
                Body::Text(text) => Some((message.seq, (message.id, text))),
                _ => None,
            }));
        }
        let texts: BTreeMap<Seq, (MessageId, String)> =
            all.iter().filter_map(|record| Some((record.seq, text(record)?))).collect();
        let skipped: BTreeSet<Seq> = all
            .iter()
            .filter_map(|record| match record.body {
                RecordBody::Gap { last, .. } => Some((record.seq.0..=last.0).map(Seq)),
                _ => None,
            })
            .flatten()
            .collect();
        if let Some((seq, _)) = said.iter().find(|(seq, said)| !skipped.contains(seq) && texts.get(seq) != Some(*said))
        {
            return Err((ONCE, format!("the text of entry {seq} is not sealed as it was sent")));
        }
        let known: BTreeSet<&(MessageId, String)> = said.values().collect();
        // A member drops what it has had before; so has the archive, twice, as the log has.
        let foreign = texts.iter().find(|(seq, text)| {
            let by_insider = self.is_insiders(group, **seq);
            !known.contains(text) && !by_insider && !said.is_empty()
        });
        match foreign {
            Some((seq, _)) => Err((ONCE, format!("the text of entry {seq} is sealed, and nobody has it"))),
            None => Ok(()),
        }
    }

    /// What the node says of a group: how far it is, receipts, reports, faults.
    fn check_words(&self, node: usize, group: GroupId, entries: &[Entry], gaps: &[(Seq, Seq)]) -> Result<(), Broken> {
        let rows = &self.nodes[node].disk.rows;
        let wrong = |what: String| Err((SAYS, what));
        let Some(place) = rows.get(&(Space::ArchiveGroup, group.as_bytes().to_vec())) else {
            return wrong("an escrowed group is not archived".to_owned());
        };
        let place: ArchivedPlace = decode_exact("a place", place).unwrap();
        let mut head = Head::empty(group);
        for entry in entries {
            head = head.append(entry.kind, entry.received_at, &entry.body);
            let line = receipt_line(rows, place.lookup, head.seq);
            let gap = gaps.iter().any(|(first, last)| (*first..=*last).contains(&head.seq));
            match line {
                Some(line) if line.head != head.hash => {
                    return wrong(format!("the receipt of entry {} names another head", head.seq));
                }
                None if !gap => return wrong(format!("there is no receipt of entry {}", head.seq)),
                _ => {}
            }
        }
        if place.head != head || place.stopped.is_some() {
            return wrong(format!("the log reaches {}, and the archive {}", head.seq, place.head.seq));
        }
        let reports: Vec<DayReport> = rows_of(rows, Space::Report)
            .filter(|(key, _)| key.starts_with(group.as_bytes()))
            .map(|(_, value)| DayReport::from_bytes(value).unwrap())
            .collect();
        let sums = reports.iter().try_for_each(DayReport::check);
        let follow = reports.windows(2).try_for_each(|pair| pair[1].follows(&pair[0]));
        if let Err(fault) = sums.and(follow) {
            return wrong(format!("a report of a day does not hold: {fault}"));
        }
        let faults = rows_of(rows, Space::ArchiveEntry).filter_map(|(_, value)| {
            match ArchiveEntry::from_bytes(value).unwrap().event {
                ArchiveEvent::Fault { group: of, what } if of == Some(group) => Some(what),
                _ => None,
            }
        });
        let stuck = self.evidence.sabotaged.contains(&(node, group)) || self.evidence.lost_at.is_some();
        // A file that could not be read for a day is told so.
        let of_file = |what: &String| what.starts_with("a file of entry") && what.ends_with("for a day");
        match faults.filter(|what| !stuck && !of_file(what)).last() {
            Some(what) => Err(("no_false_alarm", format!("the archive's log tells of a fault: {what}"))),
            None => Ok(()),
        }
    }

    /// Whether the archive has all of a group, or tells what it lacks.
    ///
    /// # Errors
    /// What is wrong.
    pub fn archive_of(&self, group: GroupId) -> Result<(), String> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let segments = archive.open(&self.nodes[archive.node].disk.rows)?;
        self.check_group(archive.node, group, &segments).map_err(|(name, what)| format!("{name}: {what}"))
    }

    /// How many texts behind a number are sealed for a group.
    pub fn sealed_texts(&self, group: GroupId, behind: u64) -> usize {
        let Some(archive) = &self.archive else { return 0 };
        let segments = archive.open(&self.nodes[archive.node].disk.rows).unwrap_or_default();
        let of_group = segments.iter().filter(|segment| segment.header.scope().group == group);
        let texts = of_group.flat_map(|segment| segment.records.iter().filter_map(text));
        let numbers = texts.filter_map(|(_, text)| text.rsplit(' ').next()?.parse::<u64>().ok());
        numbers.filter(|number| *number > behind).count()
    }

    pub(super) fn check_escrow_members(&mut self) {
        if let Err(what) = self.escrow_members() {
            self.evidence.violate("one_escrow_member", what);
        }
    }

    /// An escrowed group has the member that its policy names, and nobody sees one elsewhere.
    ///
    /// # Errors
    /// Who sees what.
    pub fn escrow_members(&mut self) -> Result<(), String> {
        let Some(node) = self.archive.as_ref().map(|archive| self.nodes[archive.node].device) else { return Ok(()) };
        // A node that an insider has brought in sees that one's branch of the group.
        let sees = |who: &usize| self.is_honest(*who) && (self.archives(*who) || self.nodes[*who].kind != Kind::Escrow);
        for who in (0..self.nodes.len()).filter(sees).collect::<Vec<_>>() {
            for one in self.summaries(who).unwrap_or_default() {
                if !matches!(one.status, GroupStatus::Active | GroupStatus::Leaving) {
                    continue;
                }
                let members = self.members_of(who, one.group).unwrap_or_default();
                let seen: Vec<_> = members.iter().filter(|member| member.role == Role::Escrow).collect();
                let due = one.class == Class::Escrowed;
                if seen.len() != usize::from(due) || seen.iter().any(|member| member.device != node) {
                    let name = self.nodes[who].name;
                    let (count, class) = (seen.len(), one.class);
                    return Err(format!("{name} sees {count} escrow members in a group of class {class:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Each file that a message in the archive hands over is there in all its parts, once; a node that was added again does not know
/// what it has read before.
fn check_files(all: &[&Record], again: bool) -> Result<(), Broken> {
    let mut files: BTreeMap<MessageId, (File, Vec<&Attachment>)> = BTreeMap::new();
    for record in all {
        if let RecordBody::Message { envelope, .. } = &record.body
            && let Ok(Envelope { id, body: Body::File(file), .. }) = Envelope::from_bytes(envelope)
        {
            files.insert(id, (*file, Vec::new()));
        }
    }
    for record in all {
        let RecordBody::Attachment(part) = &record.body else { continue };
        match files.get_mut(&part.message) {
            Some((_, parts)) => parts.push(part),
            None => return Err((ONCE, "a file is sealed that no message hands over".to_owned())),
        }
    }
    for (file, mut parts) in files.into_values() {
        parts.sort_by_key(|part| part.part);
        if again {
            parts.dedup();
        }
        let numbers: Vec<(u32, u32)> = parts.iter().map(|part| (part.part, part.parts)).collect();
        let count = u32::try_from(parts.len()).unwrap();
        let content: Vec<u8> = parts.iter().flat_map(|part| part.content.iter().copied()).collect();
        let whole = numbers == (0..count).map(|part| (part, count)).collect::<Vec<_>>();
        // The node was away for a day: that is told by an entry of the archive's log.
        if numbers == [(0, 0)] {
            continue;
        }
        if count == 0 || !whole || BlobRef::to(&content).name.0 != file.hash {
            return Err((ONCE, format!("a file that was handed over is sealed in the parts {numbers:?}")));
        }
    }
    Ok(())
}

/// No key of a segment is in any row, whether the segment is open or closed.
fn check_keys(rows: &Rows, segments: &[Opened]) -> Result<(), Broken> {
    let mut keys = Ids::default();
    segments.iter().for_each(|segment| keys.insert(segment.key.expose()));
    match rows.iter().find(|(_, value)| keys.are_in(value)) {
        Some(((space, _), _)) => {
            Err(("archive_keys_are_gone", format!("a row of {space:?} holds the key of a segment")))
        }
        None => Ok(()),
    }
}

/// Every sealed record is in one entry of the archive's log, at its place in the segment.
fn check_captures(rows: &Rows, segments: &[Opened]) -> Result<(), Broken> {
    let mut named: BTreeMap<HeaderHash, u64> = BTreeMap::new();
    for (index, (_, value)) in rows_of(rows, Space::ArchiveEntry).enumerate() {
        let ArchiveEvent::Captured(captured) = ArchiveEntry::from_bytes(value).unwrap().event else { continue };
        let lines = rows.get(&(Space::Lines, lines_key(index as u64)));
        let lines: Vec<RecordLine> = lines.map(|row| decode_exact("lines", row).unwrap()).unwrap_or_default();
        let next = named.entry(captured.header).or_default();
        let first = lines.first().map(|line| line.index);
        if (lines_root(&lines), lines.len() as u64) != (Some(captured.root), captured.count)
            || (captured.first, first) != (*next, Some(*next))
        {
            return Err((
                SAYS,
                format!("entry {index} of the archive's log does not name the records that were sealed"),
            ));
        }
        *next += captured.count;
    }
    for segment in segments {
        let (count, header) = (segment.row.records, segment.header.hash());
        if named.remove(&header) != Some(count) {
            return Err((SAYS, "records are sealed that the archive's log does not name".to_owned()));
        }
    }
    if named.is_empty() {
        Ok(())
    } else {
        Err((SAYS, "the archive's log names a segment that is not there".to_owned()))
    }
}
