use sea_orm::DeriveValueType;

use super::{Reason, line_of_text, masked_debug};

/// A first or last name: trimmed, NFC, 1 to 100 characters, no control characters.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct PersonName(String);

impl PersonName {
    pub const MAX_CHARACTERS: usize = 100;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        line_of_text(text, Self::MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(PersonName);

/// The name of an operator or of a key: trimmed, NFC, 1 to 100 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
pub struct DisplayName(String);

impl DisplayName {
    pub fn parse(text: &str) -> Result<Self, Reason> {
        line_of_text(text, PersonName::MAX_CHARACTERS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_trimmed_and_composed() {
        let longest = "ß".repeat(100);
        for (given, kept) in
            [(" Ada ", "Ada"), ("Jose\u{301}", "José"), ("O'Brien", "O'Brien"), (longest.as_str(), longest.as_str())]
        {
            assert_eq!(PersonName::parse(given).unwrap().as_str(), kept);
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
    fn a_person_is_never_printed() {
        assert_eq!(format!("{:?}", PersonName::parse("Ada").unwrap()), "PersonName(***)");
    }
}
