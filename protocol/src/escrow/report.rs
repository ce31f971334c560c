//! Day reports: what of one group's log of one day is in the archive, and what is missing and why.
//! `spec/evidence.md#day-reports`.
//!
//! This module does not compare a report with what relays and members have signed; it gives the heads to compare with.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::Malformed,
    escrow::{evidence::Gap, scope::Day},
    ids::{DocumentHash, Epoch, GroupId, HeaderHash, PolicyHash, RootHash, Seq},
    limits::{REPORT_BYTES_MAX, REPORT_LIST_MAX},
    wire::{decode_exact, encode, relay::Head},
};

/// The layout that this version knows.
const VERSION: u8 = 1;
const WHAT: &str = "a day report";

/// How many records of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages, acknowledgements of the notice among them.
    pub messages: u64,
    /// Commits, changes of the policy among them.
    pub commits: u64,
    /// Entries without effect, and words of stuck members.
    pub others: u64,
    /// Parts of attachments.
    pub attachments: u64,
    /// Attachments that are missing.
    pub attachments_missing: u64,
}

/// A segment of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOfDay {
    /// Hash of its header.
    pub header: HeaderHash,
    /// The policy under which it was captured.
    pub policy: PolicyHash,
    /// How many records it has.
    pub records: u64,
}

/// The report of one group's day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayReport {
    version: u8,
    /// Root of the organisation.
    pub tenant: RootHash,
    /// The group.
    pub group: GroupId,
    /// The day.
    pub day: u32,
    /// The head before the day's first entry.
    pub before: Head,
    /// The head after its last one.
    pub after: Head,
    /// MLS epoch before and after.
    pub epochs: (Epoch, Epoch),
    /// Its segments, in the order in which they were opened.
    pub segments: Vec<SegmentOfDay>,
    /// What was captured.
    pub counts: Counts,
    /// What was not, in ascending order.
    pub gaps: Vec<Gap>,
}

/// What in a report does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ReportFault {
    /// It ends before it begins.
    #[error("the report's day ends before it begins")]
    Order,
    /// A gap lies outside the day, or over another gap.
    #[error("a gap lies outside of the day or over another one")]
    Gaps,
    /// Entries, gaps and places of the log do not add up: something is missing without a reason.
    #[error("{missing} entries are neither in the archive nor in a gap with a reason")]
    Missing {
        /// How many.
        missing: u64,
    },
    /// More was counted than there are places.
    #[error("more entries are counted than the log has")]
    TooMany,
    /// It does not begin where the report before it ends.
    #[error("the report does not begin where the one before it ends")]
    NotNext,
}

impl DayReport {
    /// A report of this version.
    #[must_use]
    pub fn new(tenant: RootHash, group: GroupId, day: Day, before: Head, epoch: Epoch) -> Self {
        Self {
            version: VERSION,
            tenant,
            group,
            day: day.0,
            before,
            after: before,
            epochs: (epoch, epoch),
            segments: Vec::new(),
            counts: Counts::default(),
            gaps: Vec::new(),
        }
    }

    /// The bytes that are hashed. (evidence.report.1)
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a report. What is wrong in it, [`Self::check`] says.
    ///
    /// # Errors
    /// `TooLong` or `Undecodable`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > REPORT_BYTES_MAX {
            return Err(Malformed::TooLong { what: WHAT, len: bytes.len(), max: REPORT_BYTES_MAX });
        }
        let report: Self = decode_exact(WHAT, bytes)?;
        let fits = report.segments.len() <= REPORT_LIST_MAX && report.gaps.len() <= REPORT_LIST_MAX;
        if fits && report.version == VERSION { Ok(report) } else { Err(Malformed::Undecodable { what: WHAT }) }
    }

    /// `SHA-256("chancery day report" || bytes)`.
    #[must_use]
    pub fn hash(&self) -> DocumentHash {
        DocumentHash(Sha256::new().chain_update(b"chancery day report").chain_update(self.to_bytes()).finalize().into())
    }

    /// Whether every place of the log that the day has is an entry that was captured or in a gap. (evidence.report.2)
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), ReportFault> {
        let places = self.after.seq.0.checked_sub(self.before.seq.0).ok_or(ReportFault::Order)?;
        let mut reached = self.before.seq;
        let mut in_gaps: u64 = 0;
        for gap in &self.gaps {
            if gap.first <= reached || gap.last < gap.first || gap.last > self.after.seq {
                return Err(ReportFault::Gaps);
            }
            in_gaps = in_gaps.saturating_add(gap.last.0 - gap.first.0).saturating_add(1);
            reached = gap.last;
        }
        let Counts { messages, commits, others, .. } = self.counts;
        let there = in_gaps.saturating_add(messages).saturating_add(commits).saturating_add(others);
        match places.checked_sub(there) {
            Some(0) => Ok(()),
            Some(missing) => Err(ReportFault::Missing { missing }),
            None => Err(ReportFault::TooMany),
        }
    }

    /// Whether it begins where the report before it ends. (evidence.report.3)
    ///
    /// # Errors
    /// `NotNext`.
    pub fn follows(&self, earlier: &Self) -> Result<(), ReportFault> {
        let next = self.group == earlier.group
            && self.tenant == earlier.tenant
            && self.day > earlier.day
            && (self.before, self.epochs.0) == (earlier.after, earlier.epochs.1);
        if next { Ok(()) } else { Err(ReportFault::NotNext) }
    }

    /// The places of the day, first and last; none if nothing was received.
    #[must_use]
    pub fn places(&self) -> Option<(Seq, Seq)> {
        (self.before.seq < self.after.seq).then(|| (self.before.seq.next(), self.after.seq))
    }
}
