mod address;
mod email;
mod external_customer_id;
mod id;
mod idempotency_key;
mod name;
mod phone;
mod word;

pub use address::{Address, AddressPart, AddressParts};
pub use email::EmailAddress;
pub use external_customer_id::ExternalCustomerId;
pub use id::{ApiKeyId, CustomerEventId, CustomerId, OperatorId, RequestId};
pub use idempotency_key::IdempotencyKey;
pub use name::{DisplayName, PersonName};
pub use phone::{LineType, PhoneNumber};
pub use word::{SearchText, Word};

use unicode_normalization::UnicodeNormalization;

/// The reason why a text is not a valid value. Displays as a predicate, to follow a subject such as "it" or "line1".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("is empty")]
    Empty,
    #[error("is longer than {0} characters")]
    TooLong(usize),
    #[error("has more than {0} words")]
    TooManyWords(usize),
    #[error("starts or ends with a blank")]
    BlankAtAnEnd,
    #[error("contains a control character")]
    ControlCharacter,
    #[error("cannot be removed")]
    NotRemovable,

    #[error("does not have the form local@domain.tld")]
    NotAnAddress,
    #[error("is longer than 254 bytes")]
    AddressTooLong,
    #[error("has a quote or a non-ASCII character before the @")]
    UnsupportedLocalPart,
    #[error("has no valid domain name after the @, for example example.com")]
    NotADomain,

    #[error("contains characters other than digits, spaces and - . ( ) / after an optional leading +")]
    NotDigits,
    #[error("needs a leading + and a country code, or at least 10 digits to be read as a US number")]
    NoCountryCode,
    #[error(
        "has no leading +, so it is read as a US number, but is not a valid one; write + and the country code (00 is not a +)"
    )]
    NotAUsNumber,
    #[error("has an unknown country code")]
    UnknownCountryCode,
    #[error("has too few or too many digits for its country")]
    ImpossibleLength,

    #[error("is not an ISO 3166-1 alpha-2 country code, for example US")]
    UnknownCountry,
}

/// Trims, composes (NFC), and refuses what is blank, too long or holds control characters.
fn line_of_text(text: &str, most: usize) -> Result<String, Reason> {
    let text: String = text.trim().nfc().collect();
    if text.chars().all(|char| char.is_whitespace() || is_invisible(char)) {
        Err(Reason::Empty)
    } else if text.chars().any(|char| char.is_control() || breaks_or_turns(char)) {
        Err(Reason::ControlCharacter)
    } else if text.chars().count() > most {
        Err(Reason::TooLong(most))
    } else {
        Ok(text)
    }
}

/// Characters without width: a text of them alone is blank to everyone who looks at it.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Separators of lines and paragraphs, and the marks that turn the direction of the text after them.
fn breaks_or_turns(char: char) -> bool {
    matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A `Debug` that names the type and hides the person, for logs and panics.
macro_rules! masked_debug {
    ($type:ident) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(***)"))
            }
        }
    };
}
use masked_debug;
