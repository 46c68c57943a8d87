use phonenumber::metadata::DATABASE;
use rlibphonenumber::{NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};
use sea_orm::DeriveValueType;

use super::{Reason, masked_debug};

/// A phone number in E.164 form, such as `+15551234567`: a number that the numbering plan of its country has room for.
#[derive(Clone, PartialEq, Eq, Hash, DeriveValueType)]
pub struct PhoneNumber(String);

/// What kind of line a number belongs to, as far as the number itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineType {
    /// A mobile line, or one that cannot be told from a mobile line, as in North America.
    Mobile,
    /// Any other line, or no line at all.
    Other,
}

impl PhoneNumber {
    /// ITU-T E.164, 6.2.1.
    pub const MAX_DIGITS: usize = 15;

    /// Reads a number as people write it: digits of any script and separators, with a leading `+` and a country code.
    /// Without the `+`, ten digits or more are a US number.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let dialled = Dialled::read(text)?;
        let is_international = dialled.plus;
        let international = match dialled {
            Dialled { plus: true, digits } => digits,
            Dialled { plus: false, digits } if digits.len() < 10 => return Err(Reason::NoCountryCode),
            // A US number typed with its own country code does not get a second one.
            Dialled { plus: false, digits } if digits.len() == 11 && digits.starts_with('1') => digits,
            Dialled { plus: false, digits } => format!("1{digits}"),
        };
        Self::from_international_digits(&international)
            .map_err(|reason| if is_international { reason } else { Reason::NotAUsNumber })
    }

    fn from_international_digits(digits: &str) -> Result<Self, Reason> {
        let code = calling_code(digits).ok_or(Reason::UnknownCountryCode)?;
        // Two more than E.164 allows leave room for a trunk prefix, which is not kept.
        if digits.len() > Self::MAX_DIGITS + 2 {
            return Err(Reason::ImpossibleLength);
        }
        let e164 = e164(&format!("+{digits}")).ok_or(Reason::ImpossibleLength)?;
        // A numbering plan may rewrite what was dialled. Only a prefix may go (a trunk 0, say), and once: with any other
        // change the number could be somebody else's.
        let written = &digits[code.len()..];
        let kept = e164.strip_prefix('+').and_then(|kept| kept.strip_prefix(code)).ok_or(Reason::ImpossibleLength)?;
        let is_as_written = kept == written;
        let lost_a_prefix = || written.ends_with(kept) && self::e164(&e164).as_deref() == Some(e164.as_str());
        let is_too_long = code.len() + kept.len() > Self::MAX_DIGITS;
        if is_too_long || !(is_as_written || lost_a_prefix()) {
            return Err(Reason::ImpossibleLength);
        }
        Ok(Self(e164))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its digits with the country code, and without.
    pub fn digits(&self) -> [&str; 2] {
        let digits = self.0.trim_start_matches('+');
        [digits, &digits[calling_code(digits).map_or(0, str::len)..]]
    }

    /// The line that the number belongs to by the numbering plan of its country.
    pub fn line_type(&self) -> LineType {
        let Ok(number) = PHONE_NUMBER_UTIL.parse(&self.0, None) else {
            return LineType::Other;
        };
        // The type is `Unknown` where the number is not a valid one.
        match number.get_type() {
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
}

masked_debug!(PhoneNumber);

/// The E.164 form of a number with a leading `+`, by the numbering plan of its country, which has room for it.
fn e164(international: &str) -> Option<String> {
    let number = PHONE_NUMBER_UTIL.parse(international, None).ok()?;
    let is_possible = number.is_possible_with_reason() == Ok(NumberLengthType::IsPossible);
    is_possible.then(|| number.format_as(PhoneNumberFormat::E164).into_owned())
}

/// The ITU calling code that the digits begin with; codes are prefix-free and have one to three digits.
fn calling_code(digits: &str) -> Option<&str> {
    (1..=3).filter_map(|length| digits.get(..length)).find(|code| {
        code.parse::<u16>().is_ok_and(|number| !code.starts_with('0') && DATABASE.by_code(&number).is_some())
    })
}

/// What a caller wrote, without its separators.
struct Dialled {
    plus: bool,
    digits: String,
}

impl Dialled {
    fn read(text: &str) -> Result<Self, Reason> {
        let mut dialled = Dialled { plus: false, digits: String::new() };
        for char in text.chars() {
            if let Some(digit) = ascii_digit(char) {
                dialled.digits.push(digit);
            } else if matches!(char, '+' | '＋') && !dialled.plus && dialled.digits.is_empty() {
                dialled.plus = true;
            } else if !is_separator(char) {
                return Err(Reason::NotDigits);
            }
        }
        if dialled.digits.is_empty() { Err(Reason::Empty) } else { Ok(dialled) }
    }
}

/// The ASCII digit that stands for a decimal digit of any script.
pub(super) fn ascii_digit(char: char) -> Option<char> {
    if char.is_ascii() {
        char.is_ascii_digit().then_some(char)
    } else {
        PHONE_NUMBER_UTIL.normalize_digits_only(char.encode_utf8(&mut [0; 4])).chars().next()
    }
}

/// Space, hyphen, full stop, brackets and slash, in the forms that Unicode has of them.
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
    fn keeps_the_digits_of_the_caller() {
        for (given, kept) in [
            ("+15551234567", "+15551234567"),
            ("+1 (555) 123-4567", "+15551234567"),
            (" +1.555.123.4567 ", "+15551234567"),
            ("(+1) 555/123/4567", "+15551234567"),
            ("＋１５５５１２３４５６７", "+15551234567"),
            ("+١٥٥٥١٢٣٤٥٦٧", "+15551234567"),
            ("+१ ५५५ १२३ ४५६७", "+15551234567"),
            ("+1\u{2011}555\u{a0}123\u{2212}4567", "+15551234567"),
            // Without a plus: ten digits or more are a US number, which is not given a second country code.
            ("5551234567", "+15551234567"),
            ("(415) 555-2671", "+14155552671"),
            ("15551234567", "+15551234567"),
            ("1-415-555-2671", "+14155552671"),
            // A trunk prefix is not part of a number; a leading zero may be.
            ("+44 (0)20 7946 0018", "+442079460018"),
            ("+4402079460018", "+442079460018"),
            ("+390612345678", "+390612345678"),
            ("+2250123456789", "+2250123456789"),
            // Numbers that begin like a trunk prefix.
            ("+78001234567", "+78001234567"),
            ("+37080012345", "+37080012345"),
            ("+442079460018", "+442079460018"),
            ("+4915123456789", "+4915123456789"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(kept), "{given:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_dialled() {
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
            ("+1555\u{200b}1234567", Reason::NotDigits),
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
            // Rewritten, or rewritten more than once: it could become somebody else's.
            ("+54 11 15 2345 6789", Reason::ImpossibleLength),
            ("+860007548059104", Reason::ImpossibleLength),
            ("+1234567890123456789012345678901234567890", Reason::ImpossibleLength),
        ] {
            assert_eq!(canonical(bad), Err(reason), "{bad:?}");
        }
    }

    #[test]
    fn tells_a_mobile_line_from_another() {
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
    fn a_person_is_never_printed() {
        assert_eq!(format!("{:?}", PhoneNumber::parse("+15551234567").unwrap()), "PhoneNumber(***)");
    }

    proptest! {
        #[test]
        fn its_canonical_form_is_a_fixed_point_and_ends_as_the_caller_wrote(text in "\\+?[0-9 ().-]{0,24}|\\PC{0,20}|\\+[1-9][0-9]{6,17}") {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Ok(once.clone()));
                prop_assert!(once.len() <= 1 + PhoneNumber::MAX_DIGITS);
                let digits = Dialled::read(&text).unwrap().digits;
                let kept = once.trim_start_matches('+').trim_start_matches(calling_code(&once[1..]).unwrap());
                prop_assert!(digits.ends_with(kept));
            }
        }
    }
}
