//! The one clock of the process: the system's, except that it never goes backwards.
//!
//! This module does not measure durations; `Instant` does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use chancery_protocol::time::Timestamp;

/// Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// The time now, at least as late as any that was given before.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_backwards() {
        let clock = Clock::default();
        let future = clock.now().0 + 1_000_000;
        clock.0.store(future, Ordering::Relaxed);
        assert_eq!(clock.now(), Timestamp(future));
    }
}
