//! The scalar `DateTime`.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::service::without_leap_second;

/// The hint for a string that is not a `DateTime`.
pub const FORMAT_HINT: &str = "A DateTime must be in RFC 3339 format, for example 2026-11-23T09:30:00Z.";

#[derive(Clone, Copy)]
pub struct Time(pub DateTime<Utc>);

/// A point in time in RFC 3339 format, for example `2026-11-23T09:30:00.123456+00:00`. Output is in UTC with
/// microseconds. Input must have a UTC offset, for example `Z` or `+02:00`.
#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
impl ScalarType for Time {
    fn parse(value: Value) -> InputValueResult<Self> {
        parse(&value).map(Self).ok_or_else(|| InputValueError::custom(FORMAT_HINT))
    }

    fn is_valid(value: &Value) -> bool {
        parse(value).is_some()
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339_opts(SecondsFormat::Micros, false))
    }
}

fn parse(value: &Value) -> Option<DateTime<Utc>> {
    let Value::String(text) = value else { return None };
    DateTime::parse_from_rfc3339(text).ok().map(|time| without_leap_second(time.to_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_always_has_microseconds() {
        for (input, output) in [
            ("2026-11-23T09:30:00Z", "2026-11-23T09:30:00.000000+00:00"),
            ("2026-11-23T09:30:00.120+01:00", "2026-11-23T08:30:00.120000+00:00"),
            ("2026-11-23T09:30:00.123456Z", "2026-11-23T09:30:00.123456+00:00"),
            ("2026-06-30T23:59:60.250Z", "2026-07-01T00:00:00.250000+00:00"),
        ] {
            let Ok(time) = Time::parse(Value::from(input)) else { panic!("{input} is not a DateTime") };
            assert_eq!(time.to_value(), Value::from(output));
        }
    }
}
