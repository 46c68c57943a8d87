use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::{DateTime, Utc};

/// The scalar [`Time`] of the schema, which is called `DateTime` there.
#[derive(Clone, Copy)]
pub struct Time(pub DateTime<Utc>);

/// A point in time, as RFC 3339 writes it, such as `2026-11-23T09:30:00.123456+00:00`: answers are in UTC and exact to the
/// microsecond; questions may have any offset.
#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
impl ScalarType for Time {
    fn parse(value: Value) -> InputValueResult<Self> {
        read(&value).map(Self).ok_or_else(|| InputValueError::custom("A time is written such as 2026-11-23T09:30:00Z."))
    }

    fn is_valid(value: &Value) -> bool {
        read(value).is_some()
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339())
    }
}

fn read(value: &Value) -> Option<DateTime<Utc>> {
    let Value::String(text) = value else { return None };
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time)
    }
}
