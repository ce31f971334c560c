//! The clock of the driver: wall time that never goes backwards and never stands still.
//!
//! This module does not correct a wrong clock; certificates and the relay's times show it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chancery_protocol::time::Timestamp;

/// Follows the system clock forwards. When the system clock is set back, time goes on at its own pace, so that timers
/// still fire.
pub(crate) struct Clock {
    last: Timestamp,
    at: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { last: wall_clock(), at: Instant::now() }
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        self.advance(wall_clock(), Instant::now())
    }

    fn advance(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let paced = self.last.plus(at.saturating_duration_since(self.at));
        self.last = wall.max(paced);
        self.at = at;
        self.last
    }
}

/// What the system clock says.
pub(crate) fn wall_clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(0).plus(elapsed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_goes_on_when_the_system_clock_is_set_back() {
        let start = Instant::now();
        let mut clock = Clock { last: Timestamp(1_000_000), at: start };
        let later = |millis| start + Duration::from_millis(millis);
        assert_eq!(clock.advance(Timestamp(1_500_000), later(10)), Timestamp(1_500_000));
        assert_eq!(clock.advance(Timestamp(900_000), later(30)), Timestamp(1_500_020));
        assert_eq!(clock.advance(Timestamp(900_100), later(130)), Timestamp(1_500_120));
        assert_eq!(clock.advance(Timestamp(2_000_000), later(131)), Timestamp(2_000_000));
    }
}
