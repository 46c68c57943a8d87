//! Ids of rows and requests.
//!
//! In the database an id is a UUIDv7. Outside the database an id is a [TypeID](https://github.com/jetify-com/typeid): a
//! prefix for the type of the object and 26 characters, for example `cus_01h455vb4pex5vsknk084sn02q`. `parse` accepts
//! only this form: it returns `None` for upper case, or for another prefix.

use std::fmt;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::{NoContext, Timestamp, Uuid};

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
    Uuid::now_v7()
}

/// Returns a UUID from the time and random bits. [`ascending`] counts the UUIDs of a millisecond. Every response has
/// the id of its request, so a caller could otherwise compute how many requests other callers send.
fn independent() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
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
    fn the_ids_of_requests_do_not_count_the_requests() {
        let ids: Vec<_> = (0..1000).map(|_| RequestId::new()).collect();
        assert!(!ids.is_sorted());
    }
}
