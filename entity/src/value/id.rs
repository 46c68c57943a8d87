use std::fmt;
use std::str::FromStr;

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

/// An id: a UUIDv7 in the database, a [TypeID](https://github.com/jetify-com/typeid) such as
/// `cus_01h455vb4pex5vsknk084sn02q` outside.
macro_rules! id {
    ($(#[$doc:meta])* $id:ident, $prefix:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        pub struct $id(Uuid);

        #[derive(Default)]
        struct $prefix;

        impl StaticType for $prefix {
            const TYPE: &'static str = $text;
        }

        impl $id {
            /// A new id, greater than those that this process made before.
            #[expect(clippy::new_without_default, reason = "two new ids differ")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that this text spells; `None` for any other text, an id of another kind included.
            pub fn parse(text: &str) -> Option<Self> {
                TypeSafeId::<$prefix>::from_str(text).ok().map(|id| Self(id.uuid()))
            }

            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        // SeaORM asks this of every primary key, for databases that number the rows.
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

id!(
    /// `cus_…`
    CustomerId,
    Cus,
    "cus"
);
id!(
    /// `op_…`
    OperatorId,
    Op,
    "op"
);
id!(
    /// `key_…`
    ApiKeyId,
    Key,
    "key"
);

id!(
    /// `evt_…`
    CustomerEventId,
    Evt,
    "evt"
);
id!(
    /// `req_…`
    RequestId,
    Req,
    "req"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_no_other_text_does() {
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
    fn ids_are_made_in_ascending_order() {
        let ids: Vec<_> = (0..1000).map(|_| CustomerId::new()).collect();
        assert!(ids.is_sorted());
    }
}
