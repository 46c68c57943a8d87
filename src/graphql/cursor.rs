//! Cursors: a position in a list, signed, so that one that was made up, damaged, or taken from another list or caller
//! is told from a real one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::DateTime;
use uuid::Uuid;

use crate::keyed_hash::KeyedHash;
use crate::service::page::{Key, Position};

const PURPOSE: &str = "cursor";
/// Enough to tell a mistake; a forged cursor would show its maker no more than the caller's own list.
const SIGNATURE_BYTES: usize = 8;
const ID_BYTES: usize = 16;

/// The cursors of one list, as one caller sees it.
pub struct Cursors<'h> {
    pub hash: &'h KeyedHash,
    /// What tells this list from all others.
    pub list: Vec<Vec<u8>>,
}

impl Cursors<'_> {
    pub fn encode(&self, position: &Position) -> String {
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
        let parts: Vec<&[u8]> = self.list.iter().map(Vec::as_slice).chain([position]).collect();
        let mut signature = self.hash.of(PURPOSE, &parts);
        signature.truncate(SIGNATURE_BYTES);
        signature
    }
}

#[cfg(test)]
mod tests {
    use chrono::{SubsecRound, Utc};
    use proptest::prelude::*;

    use super::*;

    fn cursors<'h>(hash: &'h KeyedHash, list: &str) -> Cursors<'h> {
        Cursors { hash, list: vec![list.as_bytes().to_vec()] }
    }

    #[test]
    fn a_cursor_reads_back_in_its_own_list_alone() {
        let hash = KeyedHash::new("one");
        for key in [Key::None, Key::Time(Utc::now().trunc_subsecs(6)), Key::Text("名前".to_owned())] {
            let position = Position { key, id: Uuid::now_v7() };
            let cursor = cursors(&hash, "list").encode(&position);
            assert!(cursors(&hash, "list").decode(&cursor) == Some(position));
            assert!(cursors(&hash, "other list").decode(&cursor).is_none());
            assert!(cursors(&KeyedHash::new("two"), "list").decode(&cursor).is_none());
        }
    }

    #[test]
    fn a_damaged_cursor_is_none() {
        let hash = KeyedHash::new("one");
        let list = cursors(&hash, "list");
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
            prop_assert!(cursors(&hash, "list").decode(&text).is_none());
        }
    }
}
