mod address;
mod email;
mod external_customer_id;
mod id;
mod idempotency_key;
mod name;
mod phone;
mod word;

pub use address::{Address, AddressParts};
pub use email::EmailAddress;
pub use external_customer_id::ExternalCustomerId;
pub use id::{ApiKeyId, CustomerEventId, CustomerId, OperatorId, RequestId};
pub use idempotency_key::IdempotencyKey;
pub use name::{DisplayName, PersonName};
pub use phone::{LineType, PhoneNumber};
pub use word::{SearchText, Word};

use unicode_normalization::UnicodeNormalization;

/// Why a text is not the value that it should be, in words for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {0} characters")]
    TooLong(usize),
    #[error("it has more than {0} words")]
    TooManyWords(usize),
    #[error("it begins or ends with a blank")]
    BlankAtAnEnd,
    #[error("it contains a control character")]
    ControlCharacter,
    #[error("it cannot be removed")]
    NotRemovable,

    #[error("it does not have the form local@domain.tld")]
    NotAnAddress,
    #[error("it is longer than 254 bytes")]
    AddressTooLong,
    #[error("the part before the @ has a quote or a character outside ASCII")]
    UnsupportedLocalPart,
    #[error("the part after the @ is not a domain name such as example.com")]
    NotADomain,

    #[error("it has characters other than digits, spaces and - . ( ) / after an optional leading +")]
    NotDigits,
    #[error("without a leading + and a country code it needs at least 10 digits, and is then read as a US number")]
    NoCountryCode,
    #[error("without a leading + it is read as a US number, and is none; write + and the country code (00 is not a +)")]
    NotAUsNumber,
    #[error("no country has its country code")]
    UnknownCountryCode,
    #[error("it has too few or too many digits for its country")]
    ImpossibleLength,

    #[error("it is not an ISO 3166-1 alpha-2 country code such as US")]
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
