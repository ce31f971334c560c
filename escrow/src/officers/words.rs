//! Moments, days and ids as people read and write them.

use chancery_protocol::{escrow::scope::Day, time::Timestamp};
use time::{Date, Month};

use crate::policy::show::utc;

/// A moment, in UTC, and saying so.
#[must_use]
pub(crate) fn moment(at: Timestamp) -> String {
    utc(at)
}

/// A day of UTC.
#[must_use]
pub(crate) fn day(day: u32) -> String {
    moment(Day(day).begins()).chars().take(10).collect()
}

/// A day as it is typed: 2027-01-15.
///
/// # Errors
/// If it is none.
pub(crate) fn parse_day(text: &str) -> Result<u32, String> {
    let refused = || format!("{text} is no day: write it as 2027-01-15");
    let mut parts = text.splitn(3, '-');
    let mut next = || parts.next().and_then(|part| part.parse::<u16>().ok());
    let (Some(year), Some(month), Some(of_month)) = (next(), next(), next()) else { return Err(refused()) };
    let month = u8::try_from(month).ok().and_then(|month| Month::try_from(month).ok()).ok_or_else(refused)?;
    let date = u8::try_from(of_month).ok().and_then(|day| Date::from_calendar_date(i32::from(year), month, day).ok());
    let secs = date.ok_or_else(refused)?.midnight().assume_utc().unix_timestamp();
    let secs = u64::try_from(secs).map_err(|_| refused())?;
    Ok(Day::of(Timestamp::from_secs(secs)).0)
}

/// A month as it is typed: 2027-01.
///
/// # Errors
/// If it is none.
pub(crate) fn parse_month(text: &str) -> Result<u32, String> {
    parse_day(&format!("{text}-01"))
        .map(|day| Day(day).month())
        .map_err(|_| format!("{text} is no month: write it as 2027-01"))
}

/// How many seats have cosigned, and which.
#[must_use]
pub(crate) fn cosigned_words(seats: &[u8], of: usize) -> String {
    let which: Vec<String> = seats.iter().map(u8::to_string).collect();
    let which = if which.is_empty() { String::new() } else { format!(": {}", which.join(", ")) };
    format!("cosigned by {} of {of} seats{which}", seats.len())
}

/// The first digits of an id, for people.
#[must_use]
pub(crate) fn short(id: &str) -> String {
    id.chars().take(16).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_read_as_they_are_written() {
        assert_eq!(day(parse_day("2027-01-15").unwrap()), "2027-01-15");
        assert_eq!(parse_day("2027-01-15").unwrap(), 20_833);
        assert_eq!(parse_month("2027-01").unwrap(), 684);
        for wrong in ["2027-02-29", "2027-1", "", "1969-12-31", "2027-01-15T00"] {
            assert!(parse_day(wrong).is_err(), "{wrong}");
        }
    }
}
