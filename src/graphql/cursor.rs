//! Cursors: a position in a list, signed, so that one that was made up, damaged, or taken from another list or caller
//! is told from a real one.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{Context, ContextSelectionSet, OutputType, Positioned, ServerResult, Value};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::DateTime;
use entity::value::{CustomerId, OperatorId};
use uuid::Uuid;

use super::actor;
use crate::database::pages::{Key, Position};
use crate::keyed_hash::KeyedHash;
use crate::service::customers::{CustomerFilter, CustomerList};

const PURPOSE: &str = "cursor";
/// Enough to tell a mistake; a forged cursor would show its maker no more than the caller's own list.
const SIGNATURE_BYTES: usize = 8;
const ID_BYTES: usize = 16;

/// The cursors of one list, as one caller sees it.
pub struct Cursors {
    hash: KeyedHash,
    /// The operator that looks at the list; `None`: the platform does.
    viewer: Option<OperatorId>,
    list: ListName,
}

/// What tells a list from all others.
pub enum ListName {
    Operators,
    Customers(Arc<CustomerList>),
    OperatorsOf(CustomerId),
    HistoryOf(CustomerId),
}

/// The cursor of a position, made when somebody asks for it: most clients ask for few.
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

impl ListName {
    fn parts(&self) -> Vec<String> {
        let (name, parts) = match self {
            Self::Operators => ("operators", Vec::new()),
            Self::OperatorsOf(customer) => ("operators of", vec![customer.to_string()]),
            Self::HistoryOf(customer) => ("history", vec![customer.to_string()]),
            Self::Customers(list) => {
                let CustomerList { operator, filter, order } = &**list;
                let CustomerFilter { search, email, phone, external_customer_id, missing, created_at, connected_at } =
                    filter;
                let words = search.iter().flat_map(|search| search.words()).map(|word| word.as_str());
                let of_persons = (
                    search.is_some().then(|| words.collect::<Vec<_>>()),
                    email.as_ref().map(|email| email.as_str()),
                    phone.as_ref().map(|phone| phone.as_str()),
                    external_customer_id.as_ref().map(|id| id.as_str()),
                );
                let others = (operator, missing, created_at, connected_at, order);
                ("customers", vec![format!("{of_persons:?}"), format!("{others:?}")])
            }
        };
        [vec![name.to_owned()], parts].concat()
    }
}

impl Cursors {
    pub fn new(context: &Context<'_>, list: ListName) -> Arc<Self> {
        let hash = context.data_unchecked::<KeyedHash>().clone();
        Arc::new(Self { hash, viewer: actor(context).operator(), list })
    }

    pub fn at(self: &Arc<Self>, position: Position) -> Cursor {
        Cursor { cursors: self.clone(), position }
    }

    fn encode(&self, position: &Position) -> String {
        let mut bytes = position.id.as_bytes().to_vec();
        match &position.key {
            Key::None => bytes.push(0),
            Key::Time(time) => {
                bytes.push(1);
                bytes.extend(time.timestamp_micros().to_be_bytes());
            }
            Key::Text(text) => {
                bytes.push(2);
                bytes.extend(text.as_bytes());
            }
        }
        let signature = self.sign(&bytes);
        bytes.extend(signature);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn decode(&self, cursor: &str) -> Option<Position> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (position, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        let (id, key) = position.split_at_checked(ID_BYTES)?;
        if self.sign(position) != signature {
            return None;
        }
        let key = match key {
            [0] => Key::None,
            [1, time @ ..] => Key::Time(DateTime::from_timestamp_micros(i64::from_be_bytes(time.try_into().ok()?))?),
            [2, text @ ..] => Key::Text(String::from_utf8(text.to_vec()).ok()?),
            _ => return None,
        };
        Some(Position { key, id: Uuid::from_slice(id).ok()? })
    }

    fn sign(&self, position: &[u8]) -> Vec<u8> {
        let list = [self.list.parts(), vec![format!("{:?}", self.viewer)]].concat();
        let parts: Vec<&[u8]> = list.iter().map(|part| part.as_bytes()).chain([position]).collect();
        let mut signature = self.hash.digest(PURPOSE, &parts);
        signature.truncate(SIGNATURE_BYTES);
        signature
    }
}

#[cfg(test)]
mod tests {
    use chrono::{SubsecRound, Utc};
    use proptest::prelude::*;

    use super::*;

    fn cursors(hash: &KeyedHash, list: ListName) -> Cursors {
        Cursors { hash: hash.clone(), viewer: None, list }
    }

    #[test]
    fn a_cursor_reads_back_in_its_own_list_alone() {
        let hash = KeyedHash::new("one");
        for key in [Key::None, Key::Time(Utc::now().trunc_subsecs(6)), Key::Text("名前".to_owned())] {
            let position = Position { key, id: Uuid::now_v7() };
            let cursor = cursors(&hash, ListName::Operators).encode(&position);
            assert!(cursors(&hash, ListName::Operators).decode(&cursor) == Some(position));
            assert!(cursors(&hash, ListName::OperatorsOf(CustomerId::new())).decode(&cursor).is_none());
            assert!(cursors(&KeyedHash::new("two"), ListName::Operators).decode(&cursor).is_none());
        }
    }

    #[test]
    fn a_damaged_cursor_is_none() {
        let hash = KeyedHash::new("one");
        let list = cursors(&hash, ListName::Operators);
        let cursor = list.encode(&Position { key: Key::Time(Utc::now()), id: Uuid::now_v7() });
        for position in 0..cursor.len() {
            let mut damaged = cursor.clone().into_bytes();
            damaged[position] = if damaged[position] == b'A' { b'B' } else { b'A' };
            assert!(list.decode(&String::from_utf8(damaged).expect("ASCII")).is_none());
            assert!(list.decode(&cursor[..position]).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,80}") {
            let hash = KeyedHash::new("one");
            prop_assert!(cursors(&hash, ListName::Operators).decode(&text).is_none());
        }
    }
}
