//! How long is waited: for an answer, and between attempts to connect. Both double while it does not help, so that a relay
//! that is slow because all come at once is not made slower by clients that come again.
//!
//! This module does not wait and does not know what for.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// How long an answer is first waited for. Every request is answered. A relay that says nothing for so long after one is gone,
/// even if the network has not noticed: a relay that was killed and started again does not know the connection, and after
/// darkness the transport has learned to wait for long, which a fresh connection has not.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it is waited for at most.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long a relay may leave a request unanswered.
#[derive(Debug)]
pub(super) struct Patience {
    now: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { now: ANSWER }
    }

    pub(super) fn get(&self) -> Duration {
        self.now
    }

    /// No answer came, and the connection was given up.
    pub(super) fn grow(&mut self) {
        self.now = self.now.saturating_mul(2).min(ANSWER_MAX);
    }

    /// After a connection that has stood for long.
    pub(super) fn reset(&mut self) {
        self.now = ANSWER;
    }
}

/// The next pause. They have jitter, so that the devices of an office do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { next: FIRST.min(max), max }
    }

    /// Between half of the pause and the whole of it; the one after is twice as long.
    pub(super) fn pause(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        let half = whole / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(random % span)
    }

    /// After a good connection.
    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let longest = |backoff: &mut Backoff| backoff.pause(0).as_millis() * 2;
        let pauses: Vec<u128> = (0..9).map(|_| longest(&mut backoff)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(longest(&mut backoff), 100);
    }

    #[test]
    fn patience_doubles_up_to_the_longest_and_begins_anew_after_a_reset() {
        let mut patience = Patience::new();
        let grown: Vec<u64> = (0..4)
            .map(|_| {
                let seconds = patience.get().as_secs();
                patience.grow();
                seconds
            })
            .collect();
        assert_eq!(grown, [5, 10, 20, 20]);
        patience.reset();
        assert_eq!(patience.get().as_secs(), 5);
    }

    #[test]
    fn jitter_stays_within_the_upper_half() {
        for random in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            let pause = Backoff::new(Duration::from_secs(10)).pause(random);
            assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&pause), "{random}");
        }
    }
}
