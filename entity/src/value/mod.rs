//! The value types of the service, one for each kind of value.
//!
//! Each type except the search words and [`ChangedFields`] has a function `parse`, which makes a value from text.
//! `parse` accepts the spellings that people use, returns the canonical form, and rejects all other texts. A value that
//! `parse` returns is therefore valid, and two spellings of a value become equal values. For example,
//! `EmailAddress::parse(" Ada@Example.COM ")` is `ada@example.com`, and `EmailAddress::parse("ada@localhost")` is
//! `Err(Reason::NotADomain)`. External ids and idempotency keys have one spelling only: their text is kept unchanged.
//!
//! The error of `parse` is a [`Reason`]. There are two exceptions: for an id, `parse` returns `None`; for an
//! [`Address`], the error is a list of the invalid parts, each with its `Reason`.
//!
//! `Debug` hides values that may be personal data, so that they cannot get into logs. For example, an email is printed
//! as `EmailAddress(***)`.

mod address;
pub use address::{Address, AddressPart, AddressParts};
mod changed_fields;
pub use changed_fields::ChangedFields;
mod email;
pub use email::EmailAddress;
mod external_customer_id;
pub use external_customer_id::ExternalCustomerId;
mod id;
pub use id::{AdminEventId, ApiKeyId, CustomerEventId, CustomerId, ErasureId, OperatorId, RequestId, WebhookId};
mod idempotency_key;
pub use idempotency_key::IdempotencyKey;
mod name;
pub use name::{ActorName, DisplayName, ErasureReference, PersonName};
mod phone;
pub use phone::{LineType, PhoneNumber};
mod search;
pub use search::{QueryWord, SearchQuery, SearchWord};
mod webhook_url;
pub use webhook_url::WebhookUrl;

use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;
use unicode_normalization::UnicodeNormalization;

/// The reason why a string was rejected. `Display` writes the rest of a sentence, for example "is empty". The message
/// puts a subject before this text, for example the word "it" or the name of an address part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("is empty")]
    Empty,
    #[error("is missing")]
    Missing,
    #[error("has no visible character")]
    NothingVisible,
    #[error("is longer than {0} characters")]
    TooLong(usize),
    #[error("has more than {0} words")]
    TooManyWords(usize),
    #[error("starts or ends with white space")]
    SurroundingWhitespace,
    #[error("starts or ends with the invisible character U+{:04X}", u32::from(*.0))]
    SurroundingInvisible(char),
    #[error("contains a line break, another control character, or an invisible direction control")]
    ControlCharacter,
    #[error("contains the invisible character U+{:04X}", u32::from(*.0))]
    InvisibleCharacter(char),
    #[error("is required and cannot be set to null")]
    NotRemovable,

    #[error("does not have the form local@domain.tld; check it for spaces, commas and misplaced dots")]
    NotAnEmail,
    #[error("is longer than 254 bytes")]
    EmailTooLong,
    #[error("has more than 64 characters before the @")]
    LocalPartTooLong,
    #[error("contains a quotation mark or a non-ASCII character before the @")]
    UnsupportedLocalPart,
    #[error("needs a valid domain name after the @, for example example.com")]
    NotADomain,

    #[error("may contain only digits, spaces, a leading + and the characters - . ( ) /")]
    NotDigits,
    #[error("needs a leading + and a country code, or at least 10 digits to be read as a US number")]
    NoCountryCode,
    #[error("has no leading + and is not a valid US number; other numbers need a + and the country code (not 00)")]
    NotAUsNumber,
    #[error("starts with an unknown country code")]
    UnknownCountryCode,
    #[error("has too few or too many digits for its country")]
    ImpossibleLength,
    #[error("has a mobile prefix that Mexico retired (1 after +52, or 044, 045 or 01); write +52 and the 10 digits")]
    RetiredMexicanPrefix,
    #[error(
        "has the domestic form of an Argentine mobile number; write +54 9, the area code and the number without 15"
    )]
    DomesticArgentineMobile,

    #[error("must be an ISO 3166-1 alpha-2 country code, for example US")]
    UnknownCountry,
    #[error("must be an ISO 3166-1 alpha-2 country code; write {0}")]
    OtherCountryCode(&'static str),

    #[error("must be an absolute URL that starts with https:// or http://, for example https://example.com/hook")]
    NotAUrl,
    #[error("contains a user name or a password")]
    UrlWithUser,
    #[error("contains a fragment, that is, a # and the text after it")]
    UrlWithFragment,
    #[error("must start with https:// in production")]
    NotHttps,
    #[error("has a host that is not reachable from the internet; in sandbox, VIVAMO_WEBHOOK_NETWORKS can allow it")]
    HostNotPublic,
}

/// Returns the string trimmed and in NFC. Rejects a string that is too long, that has no visible character, or that
/// contains control characters, line separators or bidirectional controls.
fn single_line_text(text: &str, max_characters: usize) -> Result<String, Reason> {
    let text: String = text.trim_matches(is_blank_at_an_end).nfc().collect();
    if text.is_empty() {
        Err(Reason::Empty)
    } else if text.chars().all(is_blank) {
        Err(Reason::NothingVisible)
    } else if text.chars().any(|char| char.is_control() || is_line_separator_or_bidi_control(char)) {
        Err(Reason::ControlCharacter)
    } else if text.chars().count() > max_characters {
        Err(Reason::TooLong(max_characters))
    } else {
        Ok(text)
    }
}

/// Returns true for characters that are not visible, for example zero-width spaces and Hangul fillers.
fn is_invisible(char: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
}

/// Returns true for white space, and for characters that look like white space or are not visible.
fn is_blank(char: char) -> bool {
    // U+2800 is the Braille pattern without dots.
    char.is_whitespace() || char == '\u{2800}' || is_invisible(char)
}

/// Returns true for zero-width and bidirectional marks that address books, spreadsheets and editors put around or into
/// a string.
fn is_formatting_mark(char: char) -> bool {
    matches!(
        char,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fe0f}'
    )
}

/// Returns true for white space, and for marks that have no meaning at the ends of a string.
fn is_blank_at_an_end(char: char) -> bool {
    // Joiners and the emoji variation selector stay: they can be part of the last letter or emoji.
    char.is_whitespace() || is_formatting_mark(char) && !matches!(char, '\u{200c}' | '\u{200d}' | '\u{fe0f}')
}

fn is_line_separator_or_bidi_control(char: char) -> bool {
    matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Implements `Debug` so that it prints the name of the type and hides the value.
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
