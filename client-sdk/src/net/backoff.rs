//! Pauses between attempts to connect: doubling, with jitter, so that the devices of an office do not come back together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// The next pause.
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
    fn jitter_stays_within_the_upper_half() {
        for random in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            let pause = Backoff::new(Duration::from_secs(10)).pause(random);
            assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&pause), "{random}");
        }
    }
}
