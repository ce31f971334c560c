//! What the escrow machine knows of one group: how far it is archived, who is in it, and the segment that is open.
//!
//! This module does not seal and does not write; [`super::machine`] and [`super::seal_entry`] do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    capture::files::AwaitedFile,
    client::{AlarmKind, Halt},
    escrow::{DayReport, Gap, RecordLine, record::GapReason, scope::Day, seal::Segment},
    ids::{DeviceId, Epoch, GroupId, HeaderHash, PolicyHash, RootHash, SegmentId, Seq, StatementLookup},
    mls::{GroupView, LeafView, SignedPolicy},
    time::Timestamp,
    wire::{Blob, relay::Head},
};

/// How long after its day a segment stays open, for entries that the relay received before midnight.
const GRACE: Duration = Duration::from_secs(3_600);
/// How long a segment stays open at most.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Entries of a group are stated so much later: those that come until then are in the same statement. (escrow.state.1)
const STATE_AFTER: Duration = Duration::from_secs(5);
/// How often they are stated when nothing happens. (escrow.state.2)
pub(super) const STATE_EVERY: Duration = Duration::from_secs(15 * 60);
/// How often the leaf's keys are renewed. (escrow.renew.1)
const RENEW_EVERY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Why a segment was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// Its day is over.
    DayOver,
    /// It has been open for as long as a segment may be.
    Age,
    /// It is full.
    Full,
    /// The group is under another policy.
    Policy,
    /// The escrow member cannot read the group on.
    Stopped,
    /// The node was started again: the key was in the memory of the one before.
    Restart,
    /// It was sealed for a drill.
    Drill,
}

/// How far a group is archived: the row of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Under what name the group's statement is asked for.
    pub lookup: StatementLookup,
    /// The newest entry that is archived, or a gap, with the group's head there.
    pub head: Head,
    /// The epoch there.
    pub epoch: Epoch,
    /// SHA-256 over the epoch's authenticator.
    pub authenticator: [u8; 32],
    /// Why the group cannot be read on, if it cannot.
    pub stopped: Option<Stopped>,
    /// The newest entries before it that are not archived: the first and the last.
    pub missing: Option<(Seq, Seq)>,
    /// The policy that the group is under.
    pub policy: PolicyHash,
    /// When the leaf's keys were renewed; none if they are to be at once.
    pub renewed_at: Option<Timestamp>,
    /// The day whose report is not made yet.
    pub day: Option<DayReport>,
    /// The newest day whose report is made.
    pub reported: Option<u32>,
    /// Files that are not archived yet.
    pub files: Vec<AwaitedFile>,
}

/// Why a group is not read on, until the leaf is added again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Why entries behind the last one that is archived are missing.
    pub reason: GapReason,
    /// Of entries that the relay has deleted: the first one that it has.
    pub first_kept: Option<Seq>,
}

impl Stopped {
    /// For a reason that holds until the leaf is added again.
    pub(super) const fn by(reason: GapReason) -> Self {
        Self { reason, first_kept: None }
    }

    /// What keeps the client machine from reading on.
    pub(super) const fn halt(halt: Halt) -> Self {
        match halt {
            Halt::Removed => Self::by(GapReason::Removed),
            Halt::Gone(first) => Self { reason: GapReason::Gone, first_kept: Some(first) },
            Halt::Alarm(kind) => Self::by(match kind {
                AlarmKind::Damaged => GapReason::StateLost,
                AlarmKind::RelayRolledBack | AlarmKind::Fork | AlarmKind::AccessLost => GapReason::Withheld,
                _ => GapReason::Stuck,
            }),
        }
    }

    /// What is missing when the leaf is in again: what the relay had deleted, and what could not be read after that.
    pub(super) fn gaps(self, first: Seq, last: Seq) -> Vec<Gap> {
        let Self { reason, first_kept } = self;
        match first_kept.filter(|kept| first < *kept && *kept <= last) {
            Some(kept) => {
                vec![Gap { first, last: Seq(kept.0 - 1), reason }, Gap { first: kept, last, reason: GapReason::Stuck }]
            }
            None => vec![Gap { first, last, reason }],
        }
    }
}

/// A segment, as its row has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Its scope.
    pub scope: Blob,
    /// Hash of its header.
    pub header: HeaderHash,
    /// The header under the retention key of its period. (retention.header.1)
    pub sealed_header: Blob,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Index of the entry of the archive's log that says so.
    pub opened_index: u64,
    /// How many records are in it.
    pub records: u64,
    /// Places of the first and the last entry in it.
    pub entries: Option<(Seq, Seq)>,
    /// When it was closed, and why.
    pub closed: Option<(Timestamp, CloseReason)>,
    /// Index of the entry that says so.
    pub closed_index: Option<u64>,
}

/// A segment whose key is in memory.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub segment: Segment,
    pub record: SegmentRecord,
    pub day: Day,
    /// Of records that no entry of the archive's log names yet; and whether it is the one by which its place is proved.
    pub lines: Vec<(RecordLine, bool)>,
}

impl OpenSegment {
    pub fn id(&self) -> SegmentId {
        self.segment.header().scope().segment
    }

    /// When its key is erased at the latest. (escrow.segment.1)
    pub fn closes_at(&self) -> Timestamp {
        self.day.ends().plus(GRACE).min(self.record.opened_at.plus(AGE_MAX)).max(self.record.opened_at.plus(GRACE))
    }

    pub fn why(&self) -> CloseReason {
        if self.day.ends().plus(GRACE) <= self.record.opened_at.plus(AGE_MAX) {
            CloseReason::DayOver
        } else {
            CloseReason::Age
        }
    }
}

/// One group.
#[derive(Debug)]
pub(super) struct GroupArchive {
    pub place: Place,
    pub name: String,
    pub members: BTreeMap<DeviceId, Arc<LeafView>>,
    pub policy: Option<Arc<SignedPolicy>>,
    pub segment: Option<OpenSegment>,
    pub state_at: Option<Timestamp>,
}

impl GroupArchive {
    /// Of a group that is archived, after a restart: what was to be stated may not have been.
    pub fn open(place: Place, view: Option<&GroupView>) -> Self {
        let mut archive = Self {
            place,
            name: String::new(),
            members: BTreeMap::new(),
            policy: None,
            segment: None,
            state_at: Some(Timestamp(0)),
        };
        if let Some(view) = view {
            archive.see(view);
        }
        archive
    }

    /// The group as it is.
    pub fn see(&mut self, view: &GroupView) {
        self.name.clone_from(&view.state.name);
        self.members.clone_from(&view.leaves);
        self.policy.clone_from(&view.policy);
    }

    /// There is something to state, soon.
    pub fn has_news(&mut self, now: Timestamp) {
        let soon = now.plus(STATE_AFTER);
        self.state_at = Some(self.state_at.map_or(soon, |at| at.min(soon)));
    }

    /// Whether the state of the group is lost, until its leaf is added again.
    pub fn is_lost(&self) -> bool {
        self.place.stopped.is_some_and(|stopped| stopped.reason == GapReason::StateLost)
    }

    /// When something is to be done for the group.
    pub fn due(&self) -> Option<Timestamp> {
        let closing = self.segment.as_ref().map(OpenSegment::closes_at);
        closing.into_iter().chain(self.state_at).chain(self.report_due()).chain(self.renewal_due()).min()
    }

    /// When the report of the day is made. (escrow.report.1)
    pub fn report_due(&self) -> Option<Timestamp> {
        self.place.day.as_ref().map(|report| Day(report.day).ends().plus(GRACE))
    }

    /// When the leaf's keys are renewed.
    pub fn renewal_due(&self) -> Option<Timestamp> {
        let due = self.place.renewed_at.map_or(Timestamp(0), |at| at.plus(RENEW_EVERY));
        self.place.stopped.is_none().then_some(due)
    }

    /// The report that the next entry belongs to. What comes after its day was reported belongs to the next report.
    pub fn day(&mut self, tenant: RootHash, group: GroupId, day: Day) -> &mut DayReport {
        let Place { head, epoch, reported, .. } = self.place;
        let day = reported.map_or(day, |reported| day.max(Day(reported.saturating_add(1))));
        self.place.day.get_or_insert_with(|| DayReport::new(tenant, group, day, head, epoch))
    }
}
