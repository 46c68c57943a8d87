//! The current time, the times that both databases can store, and the ticks of background jobs.

use std::time::Duration;

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use tokio::time::{Interval, MissedTickBehavior};

use crate::error::{ErrorCode, InputField, Violation};

/// Returns the current time in microseconds, the precision of PostgreSQL. A time that is written therefore equals the
/// time that is read back.
#[expect(clippy::disallowed_methods, reason = "this function truncates the time to microseconds")]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Returns the ticks of a background job. The first tick is immediate. If a tick is late, the next one comes `period`
/// after it.
pub fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Turns a leap second (`23:59:60`) into the first second of the next minute, as PostgreSQL does. Returns other times
/// unchanged.
pub fn without_leap_second(time: DateTime<Utc>) -> DateTime<Utc> {
    const SECOND: u32 = 1_000_000_000;
    // In a leap second, `chrono` has more than a second of nanoseconds.
    let nanoseconds = time.timestamp_subsec_nanos();
    let seconds = time.timestamp() + i64::from(nanoseconds / SECOND);
    DateTime::from_timestamp(seconds, nanoseconds % SECOND).unwrap_or(time)
}

/// Checks that the year of a time in UTC is between 0001 and 9999, and returns the time. PostgreSQL and SQLite would
/// store other times differently, and compare them differently. `field` is the argument that is at fault.
pub fn check_year(time: DateTime<Utc>, field: InputField) -> Result<DateTime<Utc>, Violation> {
    if (1..=9999).contains(&time.year()) {
        return Ok(time);
    }
    let message = format!("`{}` must be between the years 0001 and 9999 in UTC.", field.path().join("."));
    Err(Violation::of(ErrorCode::InvalidArgument, field).with_message(message))
}
