//! Phone numbers.
//!
//! - Accepted: decimal digits of any script, separators (space, `-`, `.`, `(`, `)`, `/`), and a leading `+` before the
//!   country code. Without a `+`, ten or more digits are read as a US number.
//! - Ignored: zero-width and bidirectional marks, and white space at the ends. Address books add such characters.
//! - Canonical form: E.164.
//! - Rejected: letters and extensions, unknown country codes, and numbers with too few or too many digits for their
//!   country.
//! - Examples: `(415) 555-2671` and `+1 415 555 2671` become `+14155552671`; `555-1234` is rejected.
//!
//! The service uses two libraries: `rlibphonenumber` (a port of Google's libphonenumber) parses, formats and classifies
//! numbers, and `phonenumber` has the table of country codes.

use phonenumber::metadata::DATABASE;
use rlibphonenumber::{NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};
use sea_orm::DeriveValueType;
use serde::Serialize;

use super::{Reason, is_formatting_mark, masked_debug};

/// A phone number in E.164 form, for example `+14155552671`. The number is possible, but not necessarily assigned.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, DeriveValueType)]
pub struct PhoneNumber(String);

/// The line type that the numbering plan assigns to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineType {
    /// A mobile line, or a number that may be mobile or fixed, as in North America.
    Mobile,
    /// Any other line type, or an unassigned number.
    Other,
}

impl PhoneNumber {
    /// The maximum number of digits, from ITU-T E.164, 6.2.1.
    pub const MAX_DIGITS: usize = 15;

    /// The maximum length of a string, in bytes: enough for a number with marks between its digits. It limits the work
    /// of reading the digits, because a filter with a phone may be part of thousands of lists.
    const MAX_BYTES: usize = 300;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.len() > Self::MAX_BYTES {
            return Err(Reason::ImpossibleLength);
        }
        let TypedNumber { has_plus, digits } = TypedNumber::parse(text)?;
        if has_plus {
            return Self::from_international_digits(&digits);
        }
        if digits.len() < 10 {
            return Err(Reason::NoCountryCode);
        }
        let has_us_code = digits.len() == 11 && digits.starts_with('1');
        let international = if has_us_code { digits } else { format!("1{digits}") };
        Self::from_international_digits(&international).map_err(|_| Reason::NotAUsNumber)
    }

    fn from_international_digits(digits: &str) -> Result<Self, Reason> {
        let country_code = country_code(digits).ok_or(Reason::UnknownCountryCode)?;
        if has_retired_mexican_prefix(digits) {
            return Err(Reason::RetiredMexicanPrefix);
        }
        // Limits the work. Allows two more digits than E.164, for a trunk prefix that is removed below.
        if digits.len() > Self::MAX_DIGITS + 2 {
            return Err(Reason::ImpossibleLength);
        }
        let typed = &digits[country_code.len()..];
        // A valid number is accepted as typed. libphonenumber would parse it to the same number, except that it takes
        // the first 8 of some Belarusian numbers for a trunk prefix. Parsing takes four times as long as this check.
        let as_typed = number_with_digits(country_code, typed);
        if digits.len() <= Self::MAX_DIGITS && is_possible(&as_typed) && as_typed.is_valid() {
            return Ok(Self(format!("+{digits}")));
        }
        let e164 = format_e164(&format!("+{digits}")).ok_or(Reason::ImpossibleLength)?;
        let national =
            e164.strip_prefix('+').and_then(|e164| e164.strip_prefix(country_code)).ok_or(Reason::ImpossibleLength)?;
        // libphonenumber may change a number. The result is accepted if only a prefix was removed (such as a trunk 0),
        // and if libphonenumber does not change the result again. After any other change, the number could belong to
        // another person.
        let is_unchanged = national == typed;
        let lost_only_a_prefix = || typed.ends_with(national) && format_e164(&e164).as_deref() == Some(e164.as_str());
        if country_code == "54" && !is_unchanged && !typed.ends_with(national) {
            return Err(Reason::DomesticArgentineMobile);
        }
        let is_too_long = country_code.len() + national.len() > Self::MAX_DIGITS;
        if is_too_long || !(is_unchanged || lost_only_a_prefix()) {
            return Err(Reason::ImpossibleLength);
        }
        Ok(Self(e164))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the digits with and without the country code: `+14155552671` has `14155552671` and `4155552671`.
    pub fn international_and_national_digits(&self) -> [&str; 2] {
        let digits = self.0.trim_start_matches('+');
        [digits, &digits[country_code(digits).map_or(0, str::len)..]]
    }

    /// Classifies the number by the numbering plan of its country, without a network request.
    pub fn line_type(&self) -> LineType {
        match self.parsed().get_type() {
            PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile => LineType::Mobile,
            PhoneNumberType::FixedLine
            | PhoneNumberType::TollFree
            | PhoneNumberType::PremiumRate
            | PhoneNumberType::SharedCost
            | PhoneNumberType::VoIP
            | PhoneNumberType::PersonalNumber
            | PhoneNumberType::Pager
            | PhoneNumberType::UAN
            | PhoneNumberType::VoiceMail
            | PhoneNumberType::Unknown => LineType::Other,
        }
    }

    /// Returns the number as libphonenumber has it. The canonical form is not parsed again, because parsing takes four
    /// times as long as the classification.
    fn parsed(&self) -> rlibphonenumber::PhoneNumber {
        let [international, national] = self.international_and_national_digits();
        number_with_digits(international.strip_suffix(national).unwrap_or_default(), national)
    }
}

masked_debug!(PhoneNumber);

/// Returns the number with these digits. No prefix is removed.
fn number_with_digits(country_code: &str, national: &str) -> rlibphonenumber::PhoneNumber {
    let significant = national.trim_start_matches('0');
    // Zeros at the start are part of the number, for example in Italy. They are stored separately.
    let zeros = i32::try_from(national.len() - significant.len()).unwrap_or_default();
    rlibphonenumber::PhoneNumber {
        country_code: country_code.parse().unwrap_or_default(),
        national_number: significant.parse().unwrap_or_default(),
        italian_leading_zero: (zeros > 0).then_some(true),
        number_of_leading_zeros: (zeros > 1).then_some(zeros),
        ..Default::default()
    }
}

/// Returns true if the country has numbers of this length, other than numbers without an area code.
fn is_possible(number: &rlibphonenumber::PhoneNumber) -> bool {
    number.is_possible_with_reason() == Ok(NumberLengthType::IsPossible)
}

/// Formats a number with a leading `+` as E.164. Returns `None` if the number is not possible.
fn format_e164(international: &str) -> Option<String> {
    let number = PHONE_NUMBER_UTIL.parse(international, None).ok()?;
    is_possible(&number).then(|| number.format_as(PhoneNumberFormat::E164).into_owned())
}

/// Returns true if the number has a prefix that callers dialled until 2019 in front of the 10 digits of a Mexican
/// mobile number. Such a number is rejected. The prefix is not removed, because libraries disagree about which of these
/// prefixes are part of the number.
fn has_retired_mexican_prefix(digits: &str) -> bool {
    let Some(national) = digits.strip_prefix("52") else { return false };
    ["1", "01", "044", "045"].iter().any(|prefix| national.strip_prefix(prefix).is_some_and(|rest| rest.len() == 10))
}

/// Returns the ITU country code at the start of the digits. Codes have one to three digits, and no code is a prefix of
/// another code.
fn country_code(digits: &str) -> Option<&str> {
    (1..=3).filter_map(|length| digits.get(..length)).find(|code| {
        code.parse::<u16>().is_ok_and(|number| !code.starts_with('0') && DATABASE.by_code(&number).is_some())
    })
}

/// A number as typed, without its separators.
struct TypedNumber {
    has_plus: bool,
    /// ASCII digits; at least one.
    digits: String,
}

impl TypedNumber {
    fn parse(text: &str) -> Result<Self, Reason> {
        let mut number = TypedNumber { has_plus: false, digits: String::new() };
        let visible: String = text.chars().filter(|char| !is_formatting_mark(*char)).collect();
        for char in visible.trim().chars() {
            if let Some(digit) = ascii_digit(char) {
                number.digits.push(digit);
            } else if matches!(char, '+' | '＋') && !number.has_plus && number.digits.is_empty() {
                number.has_plus = true;
            } else if !is_separator(char) {
                return Err(Reason::NotDigits);
            }
        }
        if number.digits.is_empty() { Err(Reason::Empty) } else { Ok(number) }
    }
}

/// Maps a decimal digit of any script to its ASCII digit.
pub(super) fn ascii_digit(char: char) -> Option<char> {
    if char.is_ascii() {
        char.is_ascii_digit().then_some(char)
    } else {
        PHONE_NUMBER_UTIL.normalize_digits_only(char.encode_utf8(&mut [0; 4])).chars().next()
    }
}

/// Returns true for a space, hyphen, full stop, bracket or slash in any Unicode form.
fn is_separator(char: char) -> bool {
    matches!(
        char,
        ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
            | '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
            | '.' | '\u{2024}' | '\u{fe52}' | '\u{ff0e}'
            | '(' | ')' | '\u{fe59}' | '\u{fe5a}' | '\u{ff08}' | '\u{ff09}'
            | '/' | '\u{2044}' | '\u{2215}' | '\u{ff0f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, Reason> {
        PhoneNumber::parse(text).map(|phone| phone.0)
    }

    #[test]
    fn parse_returns_e164_with_the_digits_of_the_input() {
        for (input, expected) in [
            ("+15551234567", "+15551234567"),
            ("+1 (555) 123-4567", "+15551234567"),
            (" +1.555.123.4567 ", "+15551234567"),
            ("(+1) 555/123/4567", "+15551234567"),
            ("＋１５５５１２３４５６７", "+15551234567"),
            ("+١٥٥٥١٢٣٤٥٦٧", "+15551234567"),
            ("+१ ५५५ १२३ ४५६७", "+15551234567"),
            ("+1\u{2011}555\u{a0}123\u{2212}4567", "+15551234567"),
            // Address books add such marks.
            ("\u{202d}+14155552671\u{202c}", "+14155552671"),
            ("\u{2068}+1 415 555 2671\u{2069}", "+14155552671"),
            ("\u{feff}+1\u{200e}415\u{200b}5552671\u{fe0f}", "+14155552671"),
            ("\u{61c}+١٤١٥٥٥٥٢٦٧١", "+14155552671"),
            ("\t+14155552671\r\n", "+14155552671"),
            ("\u{202a}\n(415) 555-2671\u{2028}", "+14155552671"),
            // Without a plus, ten or more digits are a US number. An existing country code is not repeated.
            ("5551234567", "+15551234567"),
            ("(415) 555-2671", "+14155552671"),
            ("15551234567", "+15551234567"),
            ("1-415-555-2671", "+14155552671"),
            // A trunk prefix is removed; a leading zero that belongs to the number is kept.
            ("+44 (0)20 7946 0018", "+442079460018"),
            ("+4402079460018", "+442079460018"),
            ("+390612345678", "+390612345678"),
            ("+2250123456789", "+2250123456789"),
            // Mexican and Argentine mobile numbers in their international form.
            ("+52 55 1234 5678", "+525512345678"),
            ("+5491123456789", "+5491123456789"),
            // National numbers that start with the digit of a trunk prefix, and numbers that do not.
            ("+78001234567", "+78001234567"),
            ("+37080012345", "+37080012345"),
            ("+442079460018", "+442079460018"),
            ("+4915123456789", "+4915123456789"),
        ] {
            assert_eq!(canonical(input).as_deref(), Ok(expected), "{input:?}");
        }
    }

    #[test]
    fn parse_rejects_letters_unknown_countries_and_impossible_lengths() {
        for (bad, reason) in [
            ("", Reason::Empty),
            (" ", Reason::Empty),
            ("+", Reason::Empty),
            ("abc", Reason::NotDigits),
            ("1-800-FLOWERS", Reason::NotDigits),
            ("+1 555 123 4567 ext. 5", Reason::NotDigits),
            ("+15551234567x5", Reason::NotDigits),
            ("+15551234567;ext=5", Reason::NotDigits),
            ("+15551234567#", Reason::NotDigits),
            ("tel:+15551234567", Reason::NotDigits),
            ("++15551234567", Reason::NotDigits),
            ("1+5551234567", Reason::NotDigits),
            ("+1555\n1234567", Reason::NotDigits),
            ("+1555\t1234567", Reason::NotDigits),
            ("+1555\u{2028}1234567", Reason::NotDigits),
            ("+1555\u{3164}1234567", Reason::NotDigits),
            ("\u{202d}\u{202c}", Reason::Empty),
            ("+5215512345678", Reason::RetiredMexicanPrefix),
            ("+52 1 55 1234 5678", Reason::RetiredMexicanPrefix),
            ("+52 044 55 1234 5678", Reason::RetiredMexicanPrefix),
            ("+52 (045) 55-1234-5678", Reason::RetiredMexicanPrefix),
            ("+52 01 55 1234 5678", Reason::RetiredMexicanPrefix),
            ("+52 1 55 1234", Reason::ImpossibleLength),
            ("+52 551234567", Reason::ImpossibleLength),
            ("+1①②③④⑤⑥⑦⑧⑨①", Reason::NotDigits),
            ("123456789", Reason::NoCountryCode),
            ("555-1234", Reason::NoCountryCode),
            ("911", Reason::NoCountryCode),
            ("0015551234567", Reason::NotAUsNumber),
            ("+0015551234567", Reason::UnknownCountryCode),
            ("+99912345678", Reason::UnknownCountryCode),
            ("+2101234567", Reason::UnknownCountryCode),
            ("+1 555 1234", Reason::ImpossibleLength),
            ("+1", Reason::ImpossibleLength),
            ("+155512345678", Reason::ImpossibleLength),
            ("07700900123", Reason::NotAUsNumber),
            ("+4912345678901234", Reason::ImpossibleLength),
            // libphonenumber would change these numbers, and the results may belong to other people.
            ("+54 11 15 2345 6789", Reason::DomesticArgentineMobile),
            ("+54 0343 15 555 1212", Reason::DomesticArgentineMobile),
            ("+860007548059104", Reason::ImpossibleLength),
            // Far too long, even if most of it is not part of the number.
            (&" ".repeat(300), Reason::Empty),
            (&" ".repeat(301), Reason::ImpossibleLength),
            ("+1234567890123456789012345678901234567890", Reason::ImpossibleLength),
        ] {
            assert_eq!(canonical(bad), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn line_type_separates_mobile_lines_from_others() {
        for (number, line_type) in [
            ("+14155552671", LineType::Mobile),
            ("+447400123456", LineType::Mobile),
            ("+4915123456789", LineType::Mobile),
            ("+2250123456789", LineType::Mobile),
            ("+2290195123456", LineType::Mobile),
            ("+15551234567", LineType::Other),
            ("+18002345678", LineType::Other),
            ("+442079460018", LineType::Other),
            ("+445612345678", LineType::Other),
            ("+390612345678", LineType::Other),
        ] {
            assert_eq!(PhoneNumber::parse(number).unwrap().line_type(), line_type, "{number}");
        }
    }

    #[test]
    fn debug_output_hides_the_number() {
        assert_eq!(format!("{:?}", PhoneNumber::parse("+15551234567").unwrap()), "PhoneNumber(***)");
    }

    proptest! {
        #[test]
        fn parsing_the_canonical_form_returns_it_and_it_ends_in_the_typed_digits(text in "\\+?[0-9 ().-]{0,24}|\\PC{0,20}|\\+[1-9][0-9]{6,17}") {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Ok(once.clone()));
                prop_assert!(once.len() <= 1 + PhoneNumber::MAX_DIGITS);
                let digits = TypedNumber::parse(&text).unwrap().digits;
                let national = once.trim_start_matches('+').trim_start_matches(country_code(&once[1..]).unwrap());
                prop_assert!(digits.ends_with(national));
            }
        }
    }
}
