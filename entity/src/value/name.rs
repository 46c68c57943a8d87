//! Names of people, operators and API keys.
//!
//! - Accepted: 1 to 100 characters on one line.
//! - Canonical form: trimmed and in NFC; case and script are kept.
//! - Rejected: blank texts, control characters, line separators and bidirectional controls.
//! - Examples: `" Jose\u{301} "` becomes `José`; `"a\nb"` is rejected.

use sea_orm::DeriveValueType;
use serde::Serialize;

use super::{Reason, masked_debug, single_line_text};

/// The first or last name of a customer.
#[derive(Clone, PartialEq, Eq, Serialize, DeriveValueType)]
pub struct PersonName(String);

impl PersonName {
    pub const MAX_CHARACTERS: usize = 100;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        single_line_text(text, Self::MAX_CHARACTERS).map(Self)
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
        single_line_text(text, PersonName::MAX_CHARACTERS).map(Self)
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
        for (input, canonical) in
            [(" Ada ", "Ada"), ("Jose\u{301}", "José"), ("O'Brien", "O'Brien"), (longest.as_str(), longest.as_str())]
        {
            assert_eq!(PersonName::parse(input).unwrap().as_str(), canonical);
        }
        let too_long = "x".repeat(101);
        for (bad, reason) in [
            ("", Reason::Empty),
            (" \t\u{3000}", Reason::Empty),
            ("a\u{7}b", Reason::ControlCharacter),
            ("a\0", Reason::ControlCharacter),
            ("\u{200b}\u{feff}", Reason::Empty),
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
