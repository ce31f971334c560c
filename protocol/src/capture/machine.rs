//! The escrow machine: a client machine that listens, and what it hears sealed in the same transaction. `spec/escrow.md`.
//!
//! This module decides when a segment ends and what is said of it; [`crate::escrow`] seals and has the forms. It opens nothing: the keys that it seals under are nowhere but in its memory, until their segment is closed.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    capture::{
        group::{CloseReason, GroupArchive, OpenSegment, Place, STATE_EVERY, SegmentRecord, Stopped},
        log::{ArchiveLog, CHECKPOINT},
        office::Office,
    },
    client::{ClientFault, ClientMachine, Command, CommandId, Event, Heard, Input, Output, RowWrite, Space},
    escrow::{ArchiveEvent, CaptureState, CaptureStatement, evidence, record::GapReason},
    identity::{Chain, DeviceIdentity, DeviceKey},
    ids::{BlobName, GroupId, SegmentId},
    merkle::{Checkpoint, Origin},
    mls::Core,
    secret::Random,
    time::Timestamp,
    wire::{decode_exact, encode},
};

/// Key of the row of an archive that has gone on from a backup.
const RESTORED: &[u8] = b"restored";
/// Numbers of commands of this machine: no host draws from here.
const OWN_COMMANDS: u64 = 1 << 63;

/// What the machine reads when it opens, besides what its client does.
pub const ARCHIVE_SPACES: &[Space] =
    &[Space::Archive, Space::ArchiveGroup, Space::Segment, Space::Office, Space::Retention];

/// The machine of an escrow device.
pub struct EscrowMachine {
    pub(super) client: ClientMachine,
    key: DeviceKey,
    pub(super) random: Random,
    pub(super) log: ArchiveLog,
    pub(super) groups: BTreeMap<GroupId, GroupArchive>,
    pub(super) office: Office,
    /// Segments that a process before this one left open, until the first input says what time it is.
    left_open: Vec<(SegmentId, SegmentRecord)>,
    pub(super) rows: Vec<RowWrite>,
    next_command: u64,
    /// When some group is to be looked at, at the latest.
    due: Option<Timestamp>,
    pub(super) origin: Origin,
    /// Groups with records that no entry of the log names yet.
    pub(super) unnamed: Vec<GroupId>,
    truncate: bool,
    /// Whether some group is lost and not stated so yet: the relay has no KeyPackage of this device that is of use.
    waits_to_state: bool,
    /// Whether the archive has ever gone on from a backup: a group that it does not know may have been in it before.
    pub(super) restored: bool,
    /// The file that is being read from the relay.
    pub(super) reading: Option<(GroupId, BlobName)>,
    /// The group whose file was asked for last.
    pub(super) last_file: Option<GroupId>,
    /// When files are asked for again, if one could not be read.
    pub(super) files_again: Option<Timestamp>,
    pub(super) asks: Vec<Output>,
    events: Vec<Event>,
    outputs: VecDeque<Output>,
}

impl core::fmt::Debug for EscrowMachine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EscrowMachine({} groups, {:?})", self.groups.len(), self.log)
    }
}

fn broken(what: &str) -> ClientFault {
    ClientFault::Internal(format!("the stored {what} cannot be read"))
}

impl EscrowMachine {
    /// Opens the machine on the rows of the client's spaces and of [`ARCHIVE_SPACES`]. `seed` is fresh entropy.
    ///
    /// # Errors
    /// `Internal` if the rows are not whole or the chain is not this key's.
    pub fn open(
        key: DeviceKey,
        chain: Chain,
        rows: impl IntoIterator<Item = (Space, Vec<u8>, Vec<u8>)>,
        seed: [u8; 32],
        now: Timestamp,
    ) -> Result<Self, ClientFault> {
        let mut random = Random::new(seed);
        let core = Core::new(Random::new(random.bytes()));
        Self::open_with(core, key, chain, rows, random, now)
    }

    /// As [`Self::open`], with a core that the caller has made: how tests give it crypto that repeats. No shipped code
    /// calls it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        core: Core,
        key: DeviceKey,
        chain: Chain,
        rows: impl IntoIterator<Item = (Space, Vec<u8>, Vec<u8>)>,
        mut random: Random,
        now: Timestamp,
    ) -> Result<Self, ClientFault> {
        let own = DeviceKey::from_seed(key.seed().clone()).map_err(|_| broken("key"))?;
        let (mut clients, mut archive, mut records, mut left_open) =
            (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
        let mut office = Office::default();
        let mut has_device = false;
        for (space, row, value) in rows {
            has_device |= space == Space::Device;
            match space {
                Space::Archive => archive.push((row, value)),
                Space::ArchiveGroup => {
                    let group = GroupId::from_slice(&row).ok_or_else(|| broken("archive of a group"))?;
                    let place: Place = decode_exact("", &value).map_err(|_| broken("archive of a group"))?;
                    records.insert(group, place);
                }
                Space::Segment => {
                    let id = SegmentId::from_slice(&row).ok_or_else(|| broken("segment"))?;
                    let record: SegmentRecord = decode_exact("", &value).map_err(|_| broken("segment"))?;
                    office.segment(id, &record).ok_or_else(|| broken("segment"))?;
                    if record.closed.is_none() {
                        left_open.push((id, record));
                    }
                }
                Space::Office => office.row(&row, &value).ok_or_else(|| broken("office"))?,
                Space::Retention => office.key(&row, &value).ok_or_else(|| broken("retention key"))?,
                _ => clients.push((space, row, value)),
            }
        }
        let (log, born) = ArchiveLog::open(&archive, &mut random).ok_or_else(|| broken("archive's log"))?;
        let client = ClientMachine::open_with(core, key, chain, clients)?;
        let origin = evidence::origin(client.identity().root());
        let mut groups = BTreeMap::new();
        for (group, place) in records {
            let view = client.view(group);
            groups.insert(group, GroupArchive::open(place, view));
        }
        let unclean = !left_open.is_empty();
        // retention.expire.3
        let resurrected = office.resurrected();
        let mut machine = Self {
            client,
            key: own,
            random,
            log,
            groups,
            office,
            left_open,
            rows: resurrected,
            next_command: OWN_COMMANDS,
            due: Some(now),
            origin,
            unnamed: Vec::new(),
            truncate: false,
            waits_to_state: false,
            restored: archive.iter().any(|(key, _)| key == RESTORED),
            reading: None,
            last_file: None,
            files_again: None,
            asks: Vec::new(),
            events: Vec::new(),
            outputs: born.map(|row| Output::Persist(vec![row])).into_iter().collect(),
        };
        if !has_device {
            machine.begin_anew(&archive, now);
        }
        machine.lose_groups(now);
        if unclean {
            // escrow.renew.1: who copied the memory of the process before reads nothing that comes after.
            for group in machine.groups.values_mut() {
                group.place.renewed_at = None;
            }
        }
        Ok(machine)
    }

    /// The rows are a backup's, or a folder's that has just been made: a client's own row is in no backup. What the log had
    /// after the backup was made is gone, and that is said where nobody can take it back. (escrow.restore.2)
    fn begin_anew(&mut self, archive: &[(Vec<u8>, Vec<u8>)], now: Timestamp) {
        self.rows.push(self.client.device_row());
        if self.log.size() == 0 {
            return;
        }
        self.restored = true;
        self.rows.push(RowWrite { space: Space::Archive, key: RESTORED.to_vec(), value: Some(Vec::new()) });
        let note = archive.iter().find(|(key, _)| key == CHECKPOINT);
        let shown = note.and_then(|(_, note)| Checkpoint::open(note, &self.origin, self.log.public()).ok());
        let since = shown.map_or(Timestamp(0), |shown| shown.at());
        self.append(ArchiveEvent::Restored { since }, now);
    }

    /// Groups that are archived and of which the client knows nothing. (escrow.restore.1)
    fn lose_groups(&mut self, now: Timestamp) {
        let lost = |(group, archive): &(&GroupId, &GroupArchive)| {
            archive.place.stopped.is_none() && !self.client.knows_group(**group)
        };
        let lost: Vec<GroupId> = self.groups.iter().filter(lost).map(|(group, _)| *group).collect();
        for group in lost {
            if let Some(archive) = self.groups.get_mut(&group) {
                archive.place.stopped = Some(Stopped::by(GapReason::StateLost));
                let what = format!("the state of the group is lost; archived up to entry {}", archive.place.head.seq.0);
                self.fault(group, what, now);
            }
            self.write_group(group);
        }
    }

    /// Who this device is.
    #[must_use]
    pub fn identity(&self) -> &DeviceIdentity {
        self.client.identity()
    }

    /// Takes one input. Drain [`Self::poll`] before the next.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::BlobRead(name, outcome) if self.reads(name) => self.file_read(outcome, now),
            input => self.client.handle(input, now),
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.client.handle_timeout(now);
        self.settle(now);
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.client.next_timeout().into_iter().chain(self.due).chain(self.files_due()).min()
    }

    /// Goes on with a later certificate of the same device.
    ///
    /// # Errors
    /// As [`ClientMachine::renew`].
    pub fn renew(&mut self, chain: Chain, now: Timestamp) -> Result<(), ClientFault> {
        self.client.renew(chain, now)?;
        self.settle(now);
        Ok(())
    }

    /// What there is to tell an operator; it names no group's title.
    pub fn take_events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }

    /// Seals what was heard, and puts its rows into the transaction of the rows that the client has written for it.
    /// (escrow.capture.1)
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.close_left_open(now);
        self.take_heard(now);
        if self.waits_to_state && self.client.can_be_added() {
            self.waits_to_state = false;
            for archive in self.groups.values_mut().filter(|archive| archive.state_at.is_none()) {
                archive.state_at = Some(now);
            }
            self.due = Some(now);
        }
        if self.due.is_some_and(|at| at <= now) {
            self.close_due(now);
            self.renew_due(now);
            self.state_due(now);
            self.due = self.groups.values().filter_map(GroupArchive::due).min();
        }
        self.read_files(now);
        for group in core::mem::take(&mut self.unnamed) {
            self.name_records(group, now);
        }
        self.log.seal(&self.origin, now, &mut self.rows);
        let mut outputs = Vec::new();
        while let Some(output) = self.client.poll() {
            match output {
                Output::Persist(rows) => self.rows.extend(rows),
                Output::Done(CommandId(number), _) if number >= OWN_COMMANDS => {}
                output => outputs.push(output),
            }
        }
        if !self.rows.is_empty() {
            self.outputs.push_back(Output::Persist(core::mem::take(&mut self.rows)));
        }
        if core::mem::take(&mut self.truncate) {
            self.outputs.push_back(Output::Truncate);
        }
        self.outputs.extend(outputs);
        self.outputs.extend(core::mem::take(&mut self.asks));
    }

    fn take_heard(&mut self, now: Timestamp) {
        let (heard, events) = self.client.take_heard();
        self.events.extend(events);
        let mut touched = Vec::new();
        for one in heard {
            let group = match &one {
                Heard::Began { group, .. } | Heard::Stopped { group, .. } => *group,
                Heard::Entry(entry) => entry.group,
            };
            match one {
                Heard::Began { head, epoch, view, authenticator, .. } => {
                    self.began(group, head, epoch, &view, &authenticator, now);
                }
                Heard::Entry(entry) => self.entry(&entry, now),
                Heard::Stopped { head, halt, .. } => {
                    self.close(group, CloseReason::Stopped, now);
                    if let Some(archive) = self.groups.get_mut(&group) {
                        archive.place.stopped.get_or_insert(Stopped::halt(halt));
                        archive.state_at = Some(now);
                    }
                    self.fault(group, format!("the group cannot be read on after entry {}", head.seq.0), now);
                }
            }
            if touched.last() != Some(&group) {
                touched.push(group);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for group in touched {
            self.write_group(group);
            self.due = self.groups.get(&group).and_then(GroupArchive::due).into_iter().chain(self.due).min();
        }
    }

    pub(super) fn append(&mut self, event: ArchiveEvent, now: Timestamp) {
        // A log of 2^40 entries is full; what it then lacks shows in reports and statements.
        let _ = self.log.append(now, event, &mut self.rows);
    }

    pub(super) fn write_group(&mut self, group: GroupId) {
        let Some(archive) = self.groups.get(&group) else { return };
        let value = Some(encode(&archive.place));
        self.rows.push(RowWrite { space: Space::ArchiveGroup, key: group.as_bytes().to_vec(), value });
    }

    pub(super) fn write_segment(&mut self, id: SegmentId, record: &SegmentRecord) {
        let value = Some(encode(record));
        self.rows.push(RowWrite { space: Space::Segment, key: id.as_bytes().to_vec(), value });
        // What this machine writes is whole.
        let _ = self.office.segment(id, record);
    }

    /// Something of a group is not archived: it is said where nobody can take it back. (escrow.gap.1, escrow.gap.2)
    pub(super) fn fault(&mut self, group: GroupId, what: String, now: Timestamp) {
        self.append(ArchiveEvent::Fault { group: Some(group), what }, now);
    }

    /// Their keys went with the process that had them. (archive.segment.1)
    fn close_left_open(&mut self, now: Timestamp) {
        for (id, mut record) in core::mem::take(&mut self.left_open) {
            record.closed = Some((now, CloseReason::Restart));
            record.closed_index = Some(self.log.size());
            self.append(ArchiveEvent::SegmentClosed { header: record.header, records: record.records }, now);
            self.write_segment(id, &record);
        }
    }

    /// Closes the segment of a group and erases its key.
    pub(super) fn close(&mut self, group: GroupId, reason: CloseReason, now: Timestamp) {
        self.name_records(group, now);
        let Some(segment) = self.groups.get_mut(&group).and_then(|archive| archive.segment.take()) else { return };
        let (id, header) = (segment.id(), segment.segment.hash());
        let mut record = segment.record;
        // Here the key goes.
        drop(segment.segment);
        record.closed = Some((now, reason));
        record.closed_index = Some(self.log.size());
        self.write_segment(id, &record);
        self.append(ArchiveEvent::SegmentClosed { header, records: record.records }, now);
        self.truncate = true;
    }

    fn close_due(&mut self, now: Timestamp) {
        let due = |archive: &GroupArchive| {
            archive.segment.as_ref().filter(|segment| segment.closes_at() <= now).map(OpenSegment::why)
        };
        let due: Vec<(GroupId, CloseReason)> =
            self.groups.iter().filter_map(|(group, archive)| Some((*group, due(archive)?))).collect();
        for (group, reason) in due {
            self.close(group, reason, now);
        }
        let over = |archive: &GroupArchive| archive.report_due().is_some_and(|at| at <= now);
        let over: Vec<GroupId> =
            self.groups.iter().filter(|(_, archive)| over(archive)).map(|(group, _)| *group).collect();
        for group in over {
            self.report(group, now);
            self.write_group(group);
        }
    }

    fn renew_due(&mut self, now: Timestamp) {
        let due = |archive: &GroupArchive| archive.renewal_due().is_some_and(|at| at <= now);
        let due: Vec<GroupId> =
            self.groups.iter().filter(|(_, archive)| due(archive)).map(|(group, _)| *group).collect();
        for group in due {
            self.next_command = self.next_command.wrapping_add(1) | OWN_COMMANDS;
            let renew = Command::RenewKeys { group };
            self.client.handle(Input::Command(CommandId(self.next_command), renew), now);
            if let Some(archive) = self.groups.get_mut(&group) {
                archive.place.renewed_at = Some(now);
            }
            self.write_group(group);
        }
    }

    /// escrow.state.1, escrow.state.2
    fn state_due(&mut self, now: Timestamp) {
        let due: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(_, archive)| archive.state_at.is_some_and(|at| at <= now))
            .map(|(group, _)| *group)
            .collect();
        for group in due {
            let can_be_added = self.client.can_be_added();
            let Some(archive) = self.groups.get_mut(&group) else { continue };
            let place = &archive.place;
            let state = match place.stopped.map(|stopped| stopped.reason) {
                None => CaptureState::Ok,
                Some(GapReason::StateLost) => CaptureState::Lost,
                Some(_) => CaptureState::Stuck,
            };
            if state == CaptureState::Lost && !can_be_added {
                // escrow.restore.3: members would add it with a KeyPackage that it has lost.
                archive.state_at = None;
                self.waits_to_state = true;
                continue;
            }
            archive.state_at = Some(now.plus(STATE_EVERY));
            let mut statement =
                CaptureStatement::new(place.lookup, place.head, place.epoch, place.authenticator, state, now);
            statement.missing = place.missing;
            let (key, value) = (place.lookup.as_bytes().to_vec(), Some(statement.sign(&self.key)));
            self.rows.push(RowWrite { space: Space::Statement, key, value });
        }
    }
}
