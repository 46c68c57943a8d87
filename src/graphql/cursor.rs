//! Cursors: signed positions in a list.
//!
//! A cursor consists of a position (a row's id and sort key) and a signature over the position, the list and the
//! caller. Both are encoded in base64. Because of the signature, a cursor is rejected if it is damaged or belongs to
//! another list or caller. Without a signature, such a cursor could return a wrong page. A position in the change feed
//! is masked, because it would reveal how many changes other operators make.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextBase, ContextSelectionSet, OutputType, Positioned, ServerResult, Value};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::DateTime;
use entity::value::{CustomerId, ExternalCustomerId, OperatorId};
use uuid::Uuid;

use super::context::{caller, services};
use crate::database::pages::{Position, SortKey, SortOrder};
use crate::keyed_hash::{KeyedHasher, PerSecret};
use crate::service::audit::AdminEventFilter;
use crate::service::customers::{CustomerFilter, CustomerList, CustomerOrder, HistoryList};
use crate::service::feed_positions::FeedPosition;

const PURPOSE: &str = "cursor";
/// The signature detects mistakes, so 8 bytes are enough. A forged cursor reveals nothing, because the list has only
/// rows that the caller may see.
const SIGNATURE_BYTES: usize = 8;
const ID_BYTES: usize = 16;
/// The length of the longest cursor: of a list that is sorted by the external id.
const MAX_LENGTH: usize = 4 * (ID_BYTES + 1 + 4 * ExternalCustomerId::MAX_CHARACTERS + SIGNATURE_BYTES).div_ceil(3);

/// The byte after the id, which tells the kind of the sort key. It never gets another meaning, so that the cursors of
/// older versions of the service stay valid.
mod kind {
    pub const ONLY_ID: u8 = 0;
    pub const TIME: u8 = 1;
    pub const TEXT: u8 = 2;
    pub const FIRST: u8 = 3;
    pub const MASKED_NUMBER: u8 = 4;
    pub const NUMBER: u8 = 5;
}

/// Encodes and decodes the cursors of one list for one caller.
pub struct Cursors {
    hasher: KeyedHasher,
    /// The calling operator. `None` for the platform.
    caller: Option<OperatorId>,
    list: ListId,
}

/// Identifies a list.
pub enum ListId {
    Operators,
    AdminEvents(AdminEventFilter),
    Customers(Arc<CustomerList>),
    OperatorsOfCustomer(CustomerId),
    History(HistoryList),
    Erasures,
    /// The change feed, with any filter: the filter may change while a reader follows the feed.
    Changes,
    Webhooks,
}

/// A cursor that is encoded only when it is needed, because most requests select few of the cursors of a page.
pub struct Cursor {
    cursors: Arc<Cursors>,
    position: Position,
}

impl OutputType for Cursor {
    fn type_name() -> Cow<'static, str> {
        <String as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <String as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::String(self.cursors.encode(&self.position)))
    }
}

impl ListId {
    /// Returns the strings that identify this list in the signature of a cursor. Any two lists must have different
    /// strings. A change of the strings of a list, for example of the `Debug` output of a type, makes all existing
    /// cursors of this list invalid.
    fn signed_parts(&self) -> Vec<String> {
        let (name, parts) = match self {
            Self::Operators => ("operators", Vec::new()),
            Self::AdminEvents(filter) => ("admin events", vec![format!("{filter:?}")]),
            Self::Erasures => ("erasures", Vec::new()),
            Self::Changes => ("changes", Vec::new()),
            Self::Webhooks => ("webhooks", Vec::new()),
            Self::OperatorsOfCustomer(customer) => ("operators of", vec![customer.to_string()]),
            Self::History(HistoryList::OfCustomer(customer)) => ("history by version", vec![customer.to_string()]),
            Self::History(list) => ("events", vec![format!("{list:?}")]),
            Self::Customers(list) => {
                let CustomerList { operator, filter, order } = &**list;
                let CustomerFilter {
                    search,
                    email,
                    phone,
                    external_customer_id,
                    missing,
                    email_verified,
                    phone_verified,
                    created_at,
                    connected_at,
                } = filter;
                let words = search.iter().flat_map(|search| search.words()).map(|word| word.as_str());
                let email_first = search.as_ref().and_then(|search| search.email()).map(|email| email.as_str());
                let values = (
                    search.is_some().then(|| words.chain(email_first).collect::<Vec<_>>()),
                    email.as_ref().map(|email| email.as_str()),
                    phone.as_ref().map(|phone| phone.as_str()),
                    external_customer_id.as_ref().map(|id| id.as_str()),
                );
                let CustomerOrder { field, direction } = order;
                // Older versions of the service signed a struct with this `Debug` output.
                let descending = *direction == SortOrder::Descending;
                let order = format_args!("CustomerOrder {{ field: {field:?}, descending: {descending} }}");
                let conditions = (operator, missing, created_at, connected_at, order);
                let mut parts = vec![format!("{values:?}"), format!("{conditions:?}")];
                // These two conditions are left out if neither is given, so that cursors from older versions of the
                // service, which did not have these conditions, stay valid.
                if email_verified.is_some() || phone_verified.is_some() {
                    parts.push(format!("{email_verified:?} {phone_verified:?}"));
                }
                // In older versions of the service, these customers did not come first.
                if search.as_ref().is_some_and(|search| search.name_pair().is_some()) {
                    parts.push("name pair first".to_owned());
                }
                ("customers", parts)
            }
        };
        [vec![name.to_owned()], parts].concat()
    }
}

impl Cursors {
    pub fn new<T>(context: &ContextBase<'_, T>, list: ListId) -> Arc<Self> {
        Arc::new(Self::of(services(context).hasher.clone(), caller(context).operator(), list))
    }

    /// The cursors of a list for this operator, or for the platform.
    pub fn of(hasher: KeyedHasher, caller: Option<OperatorId>, list: ListId) -> Self {
        Self { hasher, caller, list }
    }

    /// Returns the cursor of a position.
    pub fn at(self: &Arc<Self>, position: Position) -> Cursor {
        Cursor { cursors: self.clone(), position }
    }

    pub fn encode(&self, position: &Position) -> String {
        let mut bytes = position.id.as_bytes().to_vec();
        match &position.sort_key {
            SortKey::OnlyId => bytes.push(kind::ONLY_ID),
            SortKey::First => bytes.push(kind::FIRST),
            SortKey::Time(time) => {
                bytes.push(kind::TIME);
                bytes.extend(time.timestamp_micros().to_be_bytes());
            }
            SortKey::Number(number) if self.is_masked() => {
                let mask = self.masks(&bytes).current;
                bytes.push(kind::MASKED_NUMBER);
                bytes.extend((number ^ mask).to_be_bytes());
            }
            SortKey::Number(number) => {
                bytes.push(kind::NUMBER);
                bytes.extend(number.to_be_bytes());
            }
            SortKey::Text(text) => {
                bytes.push(kind::TEXT);
                bytes.extend(text.as_bytes());
            }
        }
        bytes.extend(self.signatures(&bytes).current);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the position of a cursor, or `None` if the cursor does not belong to this list and this caller.
    pub fn decode(&self, cursor: &str) -> Option<Position> {
        if cursor.len() > MAX_LENGTH {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (position, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        let (id, sort_key) = position.split_at_checked(ID_BYTES)?;
        let secret = self.signatures(position).iter().position(|accepted| accepted == signature)?;
        let sort_key = match sort_key {
            [kind::ONLY_ID] => SortKey::OnlyId,
            [kind::FIRST] => SortKey::First,
            [kind::TIME, time @ ..] => {
                SortKey::Time(DateTime::from_timestamp_micros(i64::from_be_bytes(time.try_into().ok()?))?)
            }
            [kind::MASKED_NUMBER, number @ ..] if self.is_masked() => {
                SortKey::Number(i64::from_be_bytes(number.try_into().ok()?) ^ self.masks(id).iter().nth(secret)?)
            }
            [kind::NUMBER, number @ ..] => SortKey::Number(i64::from_be_bytes(number.try_into().ok()?)),
            [kind::TEXT, text @ ..] => SortKey::Text(String::from_utf8(text.to_vec()).ok()?),
            _ => return None,
        };
        Some(Position { sort_key, id: Uuid::from_slice(id).ok()? })
    }

    /// Like [`decode`](Self::decode), for a cursor of the change feed. Returns `None` also if the list is not the feed.
    pub fn decode_feed_position(&self, cursor: &str) -> Option<FeedPosition> {
        FeedPosition::try_from(self.decode(cursor)?).ok()
    }

    /// Returns the string that identifies the caller in the mask and the signature of a cursor.
    fn caller_part(&self) -> String {
        format!("{:?}", self.caller)
    }

    /// True if the number of a position is masked. Only the numbers of the change feed are masked. They are positions
    /// in the feed of the whole platform: if an operator could read them, it could compute how many changes other
    /// operators make. The numbers of a history are versions, which the operator knows. With the same mask, they would
    /// reveal the mask.
    fn is_masked(&self) -> bool {
        matches!(self.list, ListId::Changes)
    }

    /// Returns the accepted masks of the number of a position.
    fn masks(&self, id: &[u8]) -> PerSecret<i64> {
        let masks = self.hasher.accepted_digests("number in a cursor", &[self.caller_part().as_bytes(), id]);
        // The default of 0 is never used, because a digest has 32 bytes.
        masks.map(|mask| mask.first_chunk().copied().map_or(0, i64::from_be_bytes))
    }

    /// Returns the accepted signatures of a position. New cursors get the current signature.
    fn signatures(&self, position: &[u8]) -> PerSecret<Vec<u8>> {
        let list = [self.list.signed_parts(), vec![self.caller_part()]].concat();
        let parts: Vec<&[u8]> = list.iter().map(|part| part.as_bytes()).chain([position]).collect();
        self.hasher.accepted_digests(PURPOSE, &parts).map(|mut signature| {
            signature.truncate(SIGNATURE_BYTES);
            signature
        })
    }
}

#[cfg(test)]
mod tests {
    use entity::value::{ApiKeyId, EmailAddress, PhoneNumber, RequestId, SearchQuery};
    use proptest::prelude::*;

    use super::*;
    use crate::service::customers::{CustomerField, CustomerOrderField, TimeRange};
    use crate::service::now;

    const ID: &str = "01h455vb4pex5vsknk084sn02q";

    fn cursors(hasher: &KeyedHasher, list: ListId) -> Cursors {
        Cursors { hasher: hasher.clone(), caller: None, list }
    }

    #[test]
    fn a_cursor_is_valid_only_in_its_own_list() {
        let hasher = KeyedHasher::new("one");
        for sort_key in [
            SortKey::OnlyId,
            SortKey::First,
            SortKey::Time(now()),
            SortKey::Number(7),
            SortKey::Text("名前".to_owned()),
        ] {
            let position = Position { sort_key, id: Uuid::now_v7() };
            let cursor = cursors(&hasher, ListId::Operators).encode(&position);
            assert!(cursors(&hasher, ListId::Operators).decode(&cursor) == Some(position));
            assert!(cursors(&hasher, ListId::OperatorsOfCustomer(CustomerId::new())).decode(&cursor).is_none());
            assert!(cursors(&KeyedHasher::new("two"), ListId::Operators).decode(&cursor).is_none());
        }
    }

    #[test]
    fn a_cursor_of_the_older_secret_is_valid_during_a_change() {
        let old = KeyedHasher::new("old");
        let both = KeyedHasher::new("new").with_old("old");
        let position = Position { sort_key: SortKey::Number(7), id: Uuid::now_v7() };
        let encode = |hasher: &KeyedHasher| cursors(hasher, ListId::Changes).encode(&position);
        let decodes = |hasher: &KeyedHasher, cursor: &str| {
            cursors(hasher, ListId::Changes).decode(cursor).as_ref() == Some(&position)
        };
        assert!(decodes(&both, &encode(&old)) && decodes(&both, &encode(&both)));
        assert!(!decodes(&old, &encode(&both)) && encode(&both) == encode(&KeyedHasher::new("new")));
        // Until `vivamo rotate-key-secret` runs, servers that have both secrets sign with the old one.
        let waiting = both.with_fingerprint(&old.fingerprint()).expect("the old secret is known");
        assert!(decodes(&old, &encode(&waiting)) && decodes(&waiting, &encode(&KeyedHasher::new("new"))));
    }

    #[test]
    fn a_cursor_hides_the_position_in_the_feed() {
        let list = cursors(&KeyedHasher::new("one"), ListId::Changes);
        let difference = |one: Uuid, other: Uuid| {
            let number = |number, id| {
                let cursor =
                    BASE64_URL_SAFE_NO_PAD.decode(list.encode(&Position { sort_key: SortKey::Number(number), id }));
                i64::from_be_bytes(cursor.expect("base64")[ID_BYTES + 1..][..8].try_into().expect("eight bytes"))
            };
            number(7, one).abs_diff(number(8, other))
        };
        assert!(difference(Uuid::now_v7(), Uuid::now_v7()) > 1 << 20);
    }

    // A history entry and its change in the feed have the same id, and operators know the version of the entry.
    #[test]
    fn a_cursor_of_a_history_does_not_reveal_the_mask_of_the_feed() {
        let hasher = KeyedHasher::new("one");
        let position = Position { sort_key: SortKey::Number(7), id: Uuid::now_v7() };
        let number = |list: ListId| {
            let cursor = BASE64_URL_SAFE_NO_PAD.decode(cursors(&hasher, list).encode(&position)).expect("base64");
            i64::from_be_bytes(cursor[ID_BYTES + 1..][..8].try_into().expect("eight bytes"))
        };
        let history = ListId::History(HistoryList::OfCustomer(customer()));
        assert_eq!(number(history), 7);
        assert_ne!(number(ListId::Changes), 7);
    }

    // Older versions of the service masked the versions in the cursors of a history.
    #[test]
    fn a_masked_number_is_valid_only_in_the_feed() {
        let hasher = KeyedHasher::new("one");
        let history = cursors(&hasher, ListId::History(HistoryList::OfCustomer(customer())));
        let mut masked = [customer().as_uuid().as_bytes().as_slice(), &[4], &[0; 8]].concat();
        masked.extend(history.signatures(&masked).current);
        assert!(history.decode(&BASE64_URL_SAFE_NO_PAD.encode(&masked)).is_none());
    }

    fn operator() -> OperatorId {
        OperatorId::parse(&format!("op_{ID}")).expect("an id")
    }

    fn customer() -> CustomerId {
        CustomerId::parse(&format!("cus_{ID}")).expect("an id")
    }

    // Cursors from older versions of the service must stay valid. Many of the strings contain the `Debug` output of
    // types, so a renamed field or variant would change them.
    #[test]
    fn the_signed_parts_of_a_list_stay_the_same() {
        use CustomerField::{Address, Email, FirstName, LastName, Phone};
        let api_key = ApiKeyId::parse(&format!("key_{ID}")).expect("an id");
        let request = RequestId::parse(&format!("req_{ID}")).expect("an id");
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456);
        let all_conditions = CustomerFilter {
            search: SearchQuery::parse("ada@example.com").ok(),
            email: EmailAddress::parse("ada@example.com").ok(),
            phone: PhoneNumber::parse("+14155552671").ok(),
            external_customer_id: ExternalCustomerId::parse("crm-1").ok(),
            missing: vec![Email, FirstName, LastName, Phone, Address],
            email_verified: Some(true),
            phone_verified: Some(false),
            created_at: TimeRange { from: time, before: None },
            connected_at: TimeRange { from: None, before: time },
        };
        let order = CustomerOrder { field: CustomerOrderField::ExternalCustomerId, direction: SortOrder::Descending };
        let customers = |operator, filter, order| ListId::Customers(Arc::new(CustomerList { operator, filter, order }));
        let defaults = |operator| customers(operator, CustomerFilter::default(), CustomerOrder::default());
        let admin_events = |operator, api_key| ListId::AdminEvents(AdminEventFilter { operator, api_key });
        let full_name = CustomerFilter { search: SearchQuery::parse("ada lovelace").ok(), ..CustomerFilter::default() };
        let lists: [(ListId, &[&str]); 14] = [
            (ListId::Operators, &["operators"]),
            (
                admin_events(Some(operator()), Some(api_key)),
                &[
                    "admin events",
                    "AdminEventFilter { operator: Some(op_01h455vb4pex5vsknk084sn02q), \
                     api_key: Some(key_01h455vb4pex5vsknk084sn02q) }",
                ],
            ),
            (admin_events(None, None), &["admin events", "AdminEventFilter { operator: None, api_key: None }"]),
            (ListId::OperatorsOfCustomer(customer()), &["operators of", "cus_01h455vb4pex5vsknk084sn02q"]),
            (
                ListId::History(HistoryList::OfCustomer(customer())),
                &["history by version", "cus_01h455vb4pex5vsknk084sn02q"],
            ),
            (
                ListId::History(HistoryList::OfRequest(request)),
                &["events", "OfRequest(req_01h455vb4pex5vsknk084sn02q)"],
            ),
            (ListId::History(HistoryList::OfApiKey(api_key)), &["events", "OfApiKey(key_01h455vb4pex5vsknk084sn02q)"]),
            (ListId::Erasures, &["erasures"]),
            (ListId::Changes, &["changes"]),
            (ListId::Webhooks, &["webhooks"]),
            (
                defaults(None),
                &[
                    "customers",
                    "(None, None, None, None)",
                    "(None, [], TimeRange { from: None, before: None }, TimeRange { from: None, before: None }, \
                     CustomerOrder { field: ConnectedAt, descending: false })",
                ],
            ),
            (
                defaults(Some(operator())),
                &[
                    "customers",
                    "(None, None, None, None)",
                    "(Some(op_01h455vb4pex5vsknk084sn02q), [], TimeRange { from: None, before: None }, \
                     TimeRange { from: None, before: None }, CustomerOrder { field: ConnectedAt, descending: false })",
                ],
            ),
            (
                customers(Some(operator()), full_name, CustomerOrder::default()),
                &[
                    "customers",
                    "(Some([\"lovelace\", \"ada\"]), None, None, None)",
                    "(Some(op_01h455vb4pex5vsknk084sn02q), [], TimeRange { from: None, before: None }, \
                     TimeRange { from: None, before: None }, CustomerOrder { field: ConnectedAt, descending: false })",
                    "name pair first",
                ],
            ),
            (
                customers(Some(operator()), all_conditions, order),
                &[
                    "customers",
                    "(Some([\"example\", \"com\", \"ada\", \"ada@example.com\"]), Some(\"ada@example.com\"), \
                     Some(\"+14155552671\"), Some(\"crm-1\"))",
                    "(Some(op_01h455vb4pex5vsknk084sn02q), [Email, FirstName, LastName, Phone, Address], \
                     TimeRange { from: Some(2023-11-14T22:13:20.123456Z), before: None }, \
                     TimeRange { from: None, before: Some(2023-11-14T22:13:20.123456Z) }, \
                     CustomerOrder { field: ExternalCustomerId, descending: true })",
                    "Some(true) Some(false)",
                ],
            ),
        ];
        for (list, parts) in lists {
            assert_eq!(list.signed_parts(), parts);
        }
    }

    #[test]
    fn the_cursors_of_a_caller_stay_the_same() {
        let position = Position { sort_key: SortKey::Number(7), id: *customer().as_uuid() };
        for (caller, part, cursor) in [
            (None, "None", "AYkKXayWd0u8zrMCCZqAVwT2oddFif_kv0kTQjsJdp4d"),
            (Some(operator()), "Some(op_01h455vb4pex5vsknk084sn02q)", "AYkKXayWd0u8zrMCCZqAVwRP-tm-ycBfhIzyo-lk_00L"),
        ] {
            let cursors = Cursors::of(KeyedHasher::new("one"), caller, ListId::Changes);
            assert_eq!(cursors.caller_part(), part);
            assert_eq!(cursors.encode(&position), cursor);
        }
    }

    #[test]
    fn a_damaged_cursor_is_rejected() {
        let hasher = KeyedHasher::new("one");
        let list = cursors(&hasher, ListId::Operators);
        let cursor = list.encode(&Position { sort_key: SortKey::Time(now()), id: Uuid::now_v7() });
        for position in 0..cursor.len() {
            let mut damaged = cursor.clone().into_bytes();
            damaged[position] = if damaged[position] == b'A' { b'B' } else { b'A' };
            assert!(list.decode(&String::from_utf8(damaged).expect("ASCII")).is_none());
            assert!(list.decode(&cursor[..position]).is_none());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_rejected_without_a_panic(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,80}") {
            let hasher = KeyedHasher::new("one");
            prop_assert!(cursors(&hasher, ListId::Operators).decode(&text).is_none());
        }
    }
}
