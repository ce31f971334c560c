//! Commits that others have had for a minute and nobody has followed: who made three of them makes one an hour.
//! `spec/relay.md#append`. Kept in memory; a restart forgives.
//!
//! This module reads no clock, and does not know who is connected: the machine says whether somebody has had an entry.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::{
    ids::{AccountId, AppendId, GroupId, Seq},
    time::Timestamp,
};

/// How long another account must have had a commit before it counts. (relay.commits.3)
pub(super) const HAD_FOR: Duration = Duration::from_secs(60);
/// Between two commits of an account that is slowed. (relay.commits.3)
const INTERVAL: Duration = Duration::from_secs(3_600);
/// How many commits slow their account. (relay.commits.3)
const UNFOLLOWED_MAX: usize = 3;
/// Accounts in groups, and changes of committer, that are remembered at most; the oldest are forgotten first.
const KEYS_MAX: usize = 10_000;

/// A commit that nobody has followed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its place.
    pub seq: Seq,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// Whether somebody has had it for long enough.
    counts: bool,
}

/// The commits of one account in one group.
#[derive(Debug)]
struct Account {
    /// The newest one.
    id: AppendId,
    placed_at: Timestamp,
    /// The first ones that nobody has followed; what comes behind three that count does not matter.
    waiting: Vec<Waiting>,
}

impl Account {
    fn is_slowed(&self) -> bool {
        self.waiting.iter().filter(|waiting| waiting.counts).count() >= UNFOLLOWED_MAX
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Unfollowed {
    accounts: BTreeMap<(GroupId, AccountId), Account>,
    /// From which commit on, until the next one here, all commits of the group are of one account.
    runs: BTreeMap<(GroupId, Seq), AccountId>,
    runs_by_age: VecDeque<(GroupId, Seq)>,
}

impl Unfollowed {
    /// A commit has its place. `is_had` says whether somebody who could follow has a commit.
    pub fn placed(
        &mut self,
        key: (GroupId, AccountId),
        seq: Seq,
        id: AppendId,
        now: Timestamp,
        is_had: impl Fn(Waiting) -> bool,
    ) {
        let (group, account) = key;
        if self.committer(group, seq) != Some(account) {
            self.runs.insert((group, seq), account);
            self.runs_by_age.push_back((group, seq));
            if self.runs_by_age.len() > KEYS_MAX
                && let Some(oldest) = self.runs_by_age.pop_front()
            {
                self.runs.remove(&oldest);
            }
        }
        let held = self.accounts.entry(key).or_insert(Account { id, placed_at: now, waiting: Vec::new() });
        (held.id, held.placed_at) = (id, now);
        if held.waiting.len() >= UNFOLLOWED_MAX {
            // One that nobody has would keep its room for ever.
            let idle = held.waiting.iter().position(|waiting| !waiting.counts && !is_had(*waiting));
            idle.map(|at| held.waiting.remove(at));
        }
        if held.waiting.len() < UNFOLLOWED_MAX {
            held.waiting.push(Waiting { seq, placed_at: now, counts: false });
        }
        if self.accounts.len() > KEYS_MAX {
            let oldest = self.accounts.iter().min_by_key(|(_, held)| (held.is_slowed(), held.placed_at));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.accounts.remove(&oldest);
            }
        }
    }

    /// Who made the commit at a place, if that is remembered.
    pub fn committer(&self, group: GroupId, seq: Seq) -> Option<AccountId> {
        self.runs.range((group, Seq(0))..=(group, seq)).next_back().map(|(_, account)| *account)
    }

    /// Another account has shown the token of a commit: this one is followed, and those of the same account before it.
    pub fn followed(&mut self, key: (GroupId, AccountId), seq: Seq) {
        if let Some(held) = self.accounts.get_mut(&key) {
            held.waiting.retain(|waiting| waiting.seq > seq);
        }
    }

    /// Looks which commits of a group, or of one account in it, somebody has had for a minute.
    pub fn look(&mut self, group: GroupId, account: Option<AccountId>, has_had: impl Fn(AccountId, Waiting) -> bool) {
        let (from, to) = account.map_or((AccountId([0; 32]), AccountId([0xff; 32])), |one| (one, one));
        for ((_, account), held) in self.accounts.range_mut((group, from)..=(group, to)) {
            for waiting in held.waiting.iter_mut().filter(|waiting| !waiting.counts) {
                waiting.counts = has_had(*account, *waiting);
            }
        }
    }

    /// How long an account must wait before this commit is taken, if it must. One that was taken before is no new one.
    pub fn wait(&self, key: (GroupId, AccountId), id: impl FnOnce() -> AppendId, now: Timestamp) -> Option<Duration> {
        let held = self.accounts.get(&key).filter(|held| held.is_slowed())?;
        let from = held.placed_at.plus(INTERVAL);
        (now < from && held.id != id()).then(|| Duration::from_millis(from.0.saturating_sub(now.0)))
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId([1; 32]);
    const ANA: (GroupId, AccountId) = (GROUP, AccountId([0xa; 32]));
    const BO: (GroupId, AccountId) = (GROUP, AccountId([0xb; 32]));
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn id(n: u64) -> AppendId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        AppendId(id)
    }

    fn commit(unfollowed: &mut Unfollowed, key: (GroupId, AccountId), n: u64, had: bool) {
        unfollowed.placed(key, Seq(n), id(n), NOW, |_| had);
    }

    fn is_slowed(unfollowed: &Unfollowed, key: (GroupId, AccountId)) -> bool {
        unfollowed.wait(key, || id(0), NOW).is_some()
    }

    // proves relay.commits.3
    #[test]
    fn three_commits_that_others_had_and_nobody_followed_slow_their_account_to_one_an_hour() {
        let mut unfollowed = Unfollowed::default();
        for n in 1..=50 {
            commit(&mut unfollowed, ANA, n, true);
            assert!(!is_slowed(&unfollowed, ANA), "within the minute nobody is slowed");
        }
        unfollowed.look(GROUP, Some(ANA.1), |_, waiting| waiting.seq < Seq(3));
        assert!(!is_slowed(&unfollowed, ANA), "two are not three");
        unfollowed.look(GROUP, None, |account, _| account == ANA.1);
        assert_eq!(unfollowed.wait(ANA, || id(0), NOW.plus(HAD_FOR)), Some(INTERVAL - HAD_FOR));
        assert_eq!(unfollowed.wait(ANA, || id(50), NOW), None, "a retry of the newest one is no new commit");
        assert_eq!(unfollowed.wait(ANA, || id(0), NOW.plus(INTERVAL)), None);
        assert!(!is_slowed(&unfollowed, BO));
    }

    #[test]
    fn whoever_is_followed_is_slowed_no_more_and_others_are_not_forgiven() {
        let mut unfollowed = Unfollowed::default();
        for n in [1, 2, 3] {
            commit(&mut unfollowed, ANA, n, true);
        }
        commit(&mut unfollowed, BO, 4, true);
        for n in 5..=9 {
            commit(&mut unfollowed, ANA, n, true);
        }
        unfollowed.look(GROUP, None, |_, _| true);
        assert_eq!(unfollowed.committer(GROUP, Seq(4)), Some(BO.1));
        assert_eq!(unfollowed.committer(GROUP, Seq(8)), Some(ANA.1), "also of commits that are not kept one by one");
        unfollowed.followed(BO, Seq(4));
        assert!(is_slowed(&unfollowed, ANA));
        unfollowed.followed(ANA, Seq(8));
        assert!(!is_slowed(&unfollowed, ANA));
    }

    #[test]
    fn commits_that_nobody_has_make_room_for_those_that_somebody_will_have() {
        let mut unfollowed = Unfollowed::default();
        for n in 1..=100 {
            commit(&mut unfollowed, ANA, n, false);
        }
        // Whoever comes now reads the last ones only.
        unfollowed.look(GROUP, None, |_, waiting| waiting.seq > Seq(97));
        assert!(is_slowed(&unfollowed, ANA));
    }

    #[test]
    fn the_memory_is_bounded_and_the_slowed_are_forgotten_last() {
        let mut unfollowed = Unfollowed::default();
        for n in [1, 2, 3] {
            commit(&mut unfollowed, ANA, n, true);
        }
        unfollowed.look(GROUP, None, |_, _| true);
        for n in 0..KEYS_MAX as u64 + 200 {
            let mut other = [0xee; 32];
            other[..8].copy_from_slice(&n.to_be_bytes());
            unfollowed.placed((GroupId(other), BO.1), Seq(1), id(n), NOW.plus(HAD_FOR), |_| true);
        }
        assert!(unfollowed.accounts.len() <= KEYS_MAX && unfollowed.runs.len() <= KEYS_MAX);
        assert!(is_slowed(&unfollowed, ANA));
    }
}
