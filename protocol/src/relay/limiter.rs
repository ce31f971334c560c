//! How often somebody may do something: a burst, then one at each interval. Kept in memory; a restart forgives.
//!
//! This module reads no clock and does not know what it limits.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Keys that are remembered at most; the one that was idle for longest is forgotten first.
const KEYS_MAX: usize = 10_000;

/// A limit per key: `burst` at once, and one more for each `interval`.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    burst: u32,
    interval: Duration,
    /// The moment at which a key's burst is whole again.
    whole_at: BTreeMap<K, Timestamp>,
}

impl<K: Ord + Copy> Limiter<K> {
    /// Three at once, then one in ten minutes. (relay.notice.2)
    pub fn of_notices() -> Self {
        Self { burst: 3, interval: Duration::from_secs(600), whole_at: BTreeMap::new() }
    }

    /// Twenty at once, then five a second. (relay.commits.2)
    pub fn of_commits() -> Self {
        Self { burst: 20, interval: Duration::from_millis(200), whole_at: BTreeMap::new() }
    }

    /// Takes one, or says how long to wait for it.
    pub fn take(&mut self, key: K, now: Timestamp) -> Option<Duration> {
        let whole_at = self.whole_at.get(&key).copied().unwrap_or(now).max(now);
        let next = whole_at.plus(self.interval);
        let latest = now.plus(self.interval.saturating_mul(self.burst));
        if next > latest {
            return Some(Duration::from_millis(next.0.saturating_sub(latest.0)));
        }
        self.whole_at.insert(key, next);
        if self.whole_at.len() > KEYS_MAX {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            let idle = self.whole_at.iter().min_by_key(|(_, whole_at)| **whole_at).map(|(key, _)| *key);
            if let Some(idle) = idle.filter(|_| self.whole_at.len() > KEYS_MAX) {
                self.whole_at.remove(&idle);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves relay.notice.2
    #[test]
    fn a_burst_passes_and_then_one_at_each_interval() {
        let mut limiter = Limiter::of_notices();
        let start = Timestamp(1_000_000);
        for _ in 0..3 {
            assert_eq!(limiter.take(1, start), None);
        }
        assert_eq!(limiter.take(1, start), Some(Duration::from_secs(600)));
        assert_eq!(limiter.take(2, start), None);
        let later = start.plus(Duration::from_secs(601));
        assert_eq!(limiter.take(1, later), None);
        assert!(limiter.take(1, later).is_some());
    }

    // proves relay.commits.2
    #[test]
    fn commits_come_five_a_second_after_a_burst() {
        let mut limiter = Limiter::of_commits();
        let start = Timestamp(1_000_000);
        let taken = (0..10_000).filter(|ms| limiter.take(1, Timestamp(start.0 + ms)).is_none()).count();
        assert_eq!(taken, 20 + 9_999 / 200);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut limiter = Limiter::of_notices();
        for key in 0..2 * KEYS_MAX {
            assert_eq!(limiter.take(key, Timestamp(key as u64)), None);
        }
        assert!(limiter.whole_at.len() <= KEYS_MAX);
    }
}
