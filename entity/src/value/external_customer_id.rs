//! The id that an operator uses for a customer in its own systems.
//!
//! - Accepted: 1 to 255 characters.
//! - Canonical form: exactly as given; ids are case-sensitive.
//! - Rejected: control characters, and white space or an invisible character at either end. For example, spreadsheets
//!   put a byte order mark before the first cell of a file. With this mark, the stored id would differ from the id that
//!   people see.
//! - Examples: `User-42` is accepted and differs from `user-42`; `" user-42"` is rejected.

use sea_orm::DeriveValueType;

use super::{Reason, is_blank, masked_debug};

/// An operator's own id for a customer.
#[derive(Clone, PartialEq, Eq, Hash, DeriveValueType)]
pub struct ExternalCustomerId(String);

impl ExternalCustomerId {
    pub const MAX_CHARACTERS: usize = 255;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() {
            Err(Reason::Empty)
        } else if text.len() > 4 * Self::MAX_CHARACTERS {
            // Not scanned, because a long text may be part of thousands of lists.
            Err(Reason::TooLong(Self::MAX_CHARACTERS))
        } else if text.chars().any(char::is_control) {
            Err(Reason::ControlCharacter)
        } else if let Some(char) =
            [text.chars().next(), text.chars().next_back()].into_iter().flatten().find(|char| is_blank(*char))
        {
            Err(if char.is_whitespace() { Reason::SurroundingWhitespace } else { Reason::SurroundingInvisible(char) })
        } else if text.chars().count() > Self::MAX_CHARACTERS {
            Err(Reason::TooLong(Self::MAX_CHARACTERS))
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<ExternalCustomerId> for String {
    fn from(ExternalCustomerId(id): ExternalCustomerId) -> Self {
        id
    }
}

// Masked, because some operators use email addresses or account names as ids.
masked_debug!(ExternalCustomerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_keeps_the_text_or_rejects_it() {
        let longest = "é".repeat(255);
        for good in ["1", "user-42", "User-42", "a b", "名前", "\"'%_\\", "می\u{200c}نا", longest.as_str()] {
            assert_eq!(ExternalCustomerId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "é".repeat(256);
        for (bad, reason) in [
            ("", Reason::Empty),
            (" ", Reason::SurroundingWhitespace),
            (" a", Reason::SurroundingWhitespace),
            ("a\u{a0}", Reason::SurroundingWhitespace),
            ("\u{feff}crm-1", Reason::SurroundingInvisible('\u{feff}')),
            ("crm-1\u{200b}", Reason::SurroundingInvisible('\u{200b}')),
            ("\u{202a}crm-1", Reason::SurroundingInvisible('\u{202a}')),
            ("\u{3164}", Reason::SurroundingInvisible('\u{3164}')),
            ("crm-1\u{2800}", Reason::SurroundingInvisible('\u{2800}')),
            ("a\n", Reason::ControlCharacter),
            ("a\0b", Reason::ControlCharacter),
            ("a\u{85}b", Reason::ControlCharacter),
            (too_long.as_str(), Reason::TooLong(255)),
        ] {
            assert_eq!(ExternalCustomerId::parse(bad), Err(reason), "{bad:?}");
        }
    }
}
