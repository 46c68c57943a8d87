//! Names of people, operators and API keys, and references to an erasure.
//!
//! - Accepted: 1 to 100 characters on one line.
//! - Canonical form: without white space, bidirectional marks and most zero-width marks at the ends, and in NFC; case
//!   and script are kept.
//! - Rejected: control characters, line separators, bidirectional controls, and texts without a visible character.
//! - Examples: `" Jose\u{301} "` becomes `José`; `"a\nb"` is rejected.

use sea_orm::DeriveValueType;
use serde::Serialize;

use super::{Reason, masked_debug, single_line_text};

/// The maximum length of a name or a reference.
const MAX_CHARACTERS: usize = 100;

/// A name of a customer, for example the first name.
#[derive(Clone, PartialEq, Eq, Serialize, DeriveValueType)]
pub struct PersonName(String);

impl PersonName {
    pub fn parse(text: &str) -> Result<Self, Reason> {
        single_line_text(text, MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(PersonName);

/// The name of an operator or of an API key. Not personal data, so `Debug` prints it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
pub struct DisplayName(String);

impl DisplayName {
    pub fn parse(text: &str) -> Result<Self, Reason> {
        single_line_text(text, MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of the staff member who acts through a key of an operator or the platform.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct ActorName(String);

impl ActorName {
    pub fn parse(text: &str) -> Result<Self, Reason> {
        single_line_text(text, MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(ActorName);

/// The reference that the platform gives to an erasure. It names no person, so `Debug` prints it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
pub struct ErasureReference(String);

impl ErasureReference {
    pub fn parse(text: &str) -> Result<Self, Reason> {
        single_line_text(text, MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_trims_and_composes() {
        let longest = "ß".repeat(100);
        for (input, canonical) in [
            (" Ada ", "Ada"),
            ("Jose\u{301}", "José"),
            ("O'Brien", "O'Brien"),
            ("\u{feff}Ada\u{200b} ", "Ada"),
            ("\u{202d}Ada\u{202c}", "Ada"),
            ("\u{200f}علي\u{200e}", "علي"),
            // The joiner belongs to the last letter, and the selector to the emoji.
            ("അവന്\u{200d}", "അവന്\u{200d}"),
            ("Ada ❤\u{fe0f}", "Ada ❤\u{fe0f}"),
            ("می\u{200c}نا", "می\u{200c}نا"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(PersonName::parse(input).unwrap().as_str(), canonical);
        }
        let too_long = "x".repeat(101);
        for (bad, reason) in [
            ("", Reason::Empty),
            (" \t\u{3000}", Reason::Empty),
            ("a\u{7}b", Reason::ControlCharacter),
            ("a\0", Reason::ControlCharacter),
            ("\u{200b}\u{feff}", Reason::Empty),
            ("\u{3164}", Reason::NothingVisible),
            ("\u{34f}", Reason::NothingVisible),
            ("\u{115f}\u{1160} \u{ffa0}", Reason::NothingVisible),
            ("\u{2800}", Reason::NothingVisible),
            ("\u{ad}\u{200d}", Reason::NothingVisible),
            ("\u{fe0f}\u{e0100}\u{180e}\u{e0041}", Reason::NothingVisible),
            ("a\u{2028}b", Reason::ControlCharacter),
            ("a\u{202e}b", Reason::ControlCharacter),
            (too_long.as_str(), Reason::TooLong(100)),
        ] {
            assert_eq!(PersonName::parse(bad), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_name() {
        assert_eq!(format!("{:?}", PersonName::parse("Ada").unwrap()), "PersonName(***)");
    }
}
