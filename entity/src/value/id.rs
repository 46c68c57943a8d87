//! Ids of rows and requests.
//!
//! In the database an id is a UUIDv7. Outside the database an id is a [TypeID](https://github.com/jetify-com/typeid): a
//! prefix for the type of the object and 26 characters, for example `cus_01h455vb4pex5vsknk084sn02q`. `parse` accepts
//! only this form: it returns `None` for upper case, or for another prefix.

use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::{ClockSequence, NoContext, Timestamp, Uuid};

/// Defines an id type: its name, the marker type of its prefix, the prefix, and the function that makes a new id.
macro_rules! id {
    ($(#[$doc:meta])* $id:ident, $prefix:ident, $text:literal, $new:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        pub struct $id(Uuid);

        #[derive(Default)]
        struct $prefix;

        impl StaticType for $prefix {
            const TYPE: &'static str = $text;
        }

        impl $id {
            /// Returns a new id.
            #[expect(clippy::new_without_default, reason = "each new id differs, so there is no default id")]
            pub fn new() -> Self {
                Self($new())
            }

            /// Parses the TypeID form. Returns `None` for any other text, including an id with another prefix.
            pub fn parse(text: &str) -> Option<Self> {
                TypeSafeId::<$prefix>::from_str(text).ok().map(|id| Self(id.uuid()))
            }

            /// Parses the TypeID form. Returns a new id for any other text. No row has the new id, so a malformed id is
            /// then treated like an unknown one.
            pub fn parse_or_unknown(text: &str) -> Self {
                Self::parse(text).unwrap_or_else(Self::new)
            }

            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        // SeaORM requires that the type of every primary key implements this trait, although only auto-increment keys
        // use it.
        impl TryFromU64 for $id {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($id)))
            }
        }

        impl From<Uuid> for $id {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                TypeSafeId::<$prefix>::from_uuid(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Returns a UUID that is greater than all UUIDs that this function returned before in this process.
fn ascending() -> Uuid {
    static SEQUENCE: RandomSteps = RandomSteps(Mutex::new(0));
    Uuid::new_v7(Timestamp::now(&SEQUENCE))
}

/// Returns a UUID from the time and random bits, without regard to the order of the UUIDs of a millisecond. Every
/// response has the id of its request, so these ids must not even show roughly how many requests other callers send.
fn independent() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
}

/// Numbers the UUIDs of a millisecond in random steps.
///
/// `Uuid::now_v7` counts in steps of 1. An operator could then compute how many ids were made for other operators
/// between two of its own. The sizes of random steps differ by several orders of magnitude, so the difference of two
/// ids does not show how many ids are between them.
///
/// The value is the time of the last UUID in milliseconds, and in its last [`COUNTER_BITS`] the counter.
struct RandomSteps(Mutex<u128>);

/// The size of the counter. The remaining 32 bits of a UUID are random.
const COUNTER_BITS: u32 = 42;

impl ClockSequence for RandomSteps {
    type Output = u64;

    fn generate_sequence(&self, seconds: u64, subsec_nanos: u32) -> u64 {
        self.generate_timestamp_sequence(seconds, subsec_nanos).0
    }

    fn generate_timestamp_sequence(&self, seconds: u64, subsec_nanos: u32) -> (u64, u64, u32) {
        let (start, random) = Uuid::new_v4().as_u64_pair();
        let millis = u128::from(seconds) * 1_000 + u128::from(subsec_nanos / 1_000_000);
        let first = millis << COUNTER_BITS | u128::from(start >> (u64::BITS - COUNTER_BITS));
        let step = (random as u32 >> ((random >> 32) % 32)).max(1);
        let mut last = self.0.lock();
        // Each millisecond starts at a random number. If the clock was set back, the time of the last UUID is used
        // again.
        *last = if millis > *last >> COUNTER_BITS { first } else { *last + u128::from(step) };
        let (millis, counter) = ((*last >> COUNTER_BITS) as u64, *last as u64 & ((1 << COUNTER_BITS) - 1));
        (counter, millis / 1_000, (millis % 1_000) as u32 * 1_000_000)
    }

    fn usable_bits(&self) -> usize {
        COUNTER_BITS as usize
    }
}

id!(
    /// The id of a customer: `cus_…`.
    CustomerId,
    Cus,
    "cus",
    ascending
);
id!(
    /// The id of an operator: `op_…`.
    OperatorId,
    Op,
    "op",
    ascending
);
id!(
    /// The id of an API key: `key_…`.
    ApiKeyId,
    Key,
    "key",
    ascending
);
id!(
    /// The id of a history entry: `evt_…`.
    CustomerEventId,
    Evt,
    "evt",
    ascending
);
id!(
    /// The id of an entry of the audit log: `adm_…`.
    AdminEventId,
    Adm,
    "adm",
    ascending
);
id!(
    /// The id of the receipt of an erasure: `era_…`.
    ErasureId,
    Era,
    "era",
    ascending
);
id!(
    /// The id of a request: `req_…`.
    RequestId,
    Req,
    "req",
    independent
);
id!(
    /// The id of a webhook endpoint: `wh_…`.
    WebhookId,
    Wh,
    "wh",
    ascending
);

impl OperatorId {
    /// Stands for the platform in columns that name an operator and cannot be null. No operator has this id.
    pub const PLATFORM: Self = Self(Uuid::nil());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_only_the_displayed_form() {
        let id = CustomerId::new();
        let text = id.to_string();
        assert_eq!(text.len(), "cus_".len() + 26);
        assert_eq!(CustomerId::parse(&text), Some(id));
        assert_eq!(OperatorId::parse(&text), None);
        for other in ["", "cus_", "cus", &text[1..], &text.to_uppercase(), &format!("{text}0"), &format!(" {text}")] {
            assert_eq!(CustomerId::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn new_ids_are_in_ascending_order() {
        let ids: Vec<_> = (0..1000).map(|_| CustomerId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn ids_of_a_millisecond_are_random_steps_apart() {
        let sequence = RandomSteps(Mutex::new(0));
        let next = |_| {
            sequence.generate_sequence(1_000, 0);
            *sequence.0.lock()
        };
        let numbers: Vec<_> = (0..1000).map(next).collect();
        let steps: Vec<_> = numbers.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (1..1 << 32).contains(step)), "{steps:?}");
        for bits in [8, 16, 24] {
            let small = steps.iter().filter(|step| **step < 1 << bits).count();
            assert!((100..900).contains(&small), "{small} steps are below 2^{bits}");
        }
    }

    #[test]
    fn ids_ascend_if_the_clock_is_set_back() {
        let sequence = RandomSteps(Mutex::new(0));
        let at = |seconds| Uuid::new_v7(Timestamp::from_unix(&sequence, seconds, 0));
        let (later, earlier) = (at(1_000), at(999));
        assert!(earlier > later);
        assert_eq!(later.get_timestamp().map(|time| time.to_unix().0), Some(1_000));
    }

    #[test]
    fn the_ids_of_requests_are_in_no_order() {
        let ids: Vec<_> = (0..1000).map(|_| RequestId::new()).collect();
        assert!(!ids.is_sorted());
    }
}
