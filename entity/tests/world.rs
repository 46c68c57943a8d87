//! Tests the values against tables made by other libraries: Google's libphonenumber and email-validator. The scripts
//! that make the tables are in the folder of the tables.

use std::collections::HashSet;

use entity::value::{EmailAddress, LineType, PhoneNumber};
use rlibphonenumber::{NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumberFormat};

/// Each number in the table is parsed to the E.164 form and the line type of libphonenumber. A number whose E.164 form
/// is `-`, and a number that is marked as an intended difference, must be rejected instead.
#[test]
fn phones_agree_with_libphonenumber() {
    let (mut wrong, mut rows, mut mobiles, mut intended_differences) = (Vec::new(), 0, 0, 0);
    for row in include_str!("data/phones.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [spelling, e164, line_type, difference] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let phone = PhoneNumber::parse(spelling).ok();
        let is_right = match &phone {
            None => e164 == "-" || !difference.is_empty(),
            Some(phone) => {
                difference.is_empty()
                    && phone.as_str() == e164
                    && (phone.line_type() == LineType::Mobile) == (line_type == "mobile")
            }
        };
        if !is_right {
            wrong.push(row);
        }
        rows += 1;
        mobiles += usize::from(phone.is_some_and(|phone| phone.line_type() == LineType::Mobile));
        intended_differences += usize::from(!difference.is_empty());
    }
    assert!(wrong.is_empty(), "{} of {rows} rows differ: {wrong:#?}", wrong.len());
    // Guards against a truncated table, and against marking too many rows as intended differences.
    assert!(
        rows > 9000 && mobiles > 1000 && intended_differences < 30,
        "{rows} rows, {mobiles} mobiles, {intended_differences} intended differences"
    );
}

/// Parsing never panics. If a string is accepted, its digits end with the digits that the parsed number has after its
/// country code.
#[test]
fn a_million_random_texts_are_rejected_or_keep_their_digits() {
    let mut random = random_numbers();
    let alphabets: [Vec<char>; 4] = [
        "0123456789".chars().collect(),
        "+0123456789 -.()/".chars().collect(),
        "+0123456789０１２３４５６７８９٠١٢٣٤٥٦٧٨٩ ‑（）".chars().collect(),
        "+0123456789abcx#*;,\0\u{7}é🎉\u{202e}".chars().collect(),
    ];
    let mut accepted = 0;
    for _ in 0..1_000_000 {
        let alphabet = &alphabets[random(4)];
        let length = random(24);
        let plus = if random(2) == 0 { "+" } else { "" };
        let text: String = plus.chars().chain((0..length).map(|_| alphabet[random(alphabet.len())])).collect();
        let Ok(phone) = PhoneNumber::parse(&text) else { continue };
        accepted += 1;
        let digits = phone.as_str().strip_prefix('+').unwrap();
        assert!((5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
        assert_eq!(PhoneNumber::parse(phone.as_str()).as_ref(), Ok(&phone), "{text:?}");
        // A country code has at most 3 digits. Parsing may remove digits directly after it (such as a trunk 0), but no
        // others. The input therefore ends with all digits of the result after the third.
        let typed: String =
            text.chars().filter_map(|char| char.to_digit(10).or(wide_digit(char))).map(|d| d.to_string()).collect();
        assert!(typed.ends_with(&digits[3..]), "{text:?} became {}", phone.as_str());
    }
    assert!(accepted > 40_000, "{accepted}");
}

/// A number that is valid as typed keeps its digits. libphonenumber parses such numbers to the same digits, except that
/// it takes the 8 of some Belarusian numbers for a trunk prefix.
#[test]
fn valid_numbers_are_accepted_as_typed() {
    let mut random = random_numbers();
    let codes: Vec<_> = PHONE_NUMBER_UTIL.get_supported_calling_codes().map(|code| code.to_string()).collect();
    let (mut valid, mut codes_of_valid) = (0, HashSet::new());
    for round in 0..2_000 {
        for code in &codes {
            let length = (4 + round % 9).min(PhoneNumber::MAX_DIGITS - code.len());
            let national: String = (0..length).map(|_| random(10).to_string()).collect();
            let typed = format!("+{code}{national}");
            let number = rlibphonenumber::PhoneNumber {
                country_code: code.parse().unwrap(),
                national_number: national.parse().unwrap(),
                ..Default::default()
            };
            // The zeros at the start of a number are not in `national_number`.
            let is_possible = number.is_possible_with_reason() == Ok(NumberLengthType::IsPossible);
            if national.starts_with('0') || !is_possible || !number.is_valid() {
                continue;
            }
            valid += 1;
            codes_of_valid.insert(code);
            assert_eq!(PhoneNumber::parse(&typed).unwrap().as_str(), typed);
            let parsed = PHONE_NUMBER_UTIL.parse(&typed, None).unwrap().format_as(PhoneNumberFormat::E164).into_owned();
            assert!(parsed == typed || typed.starts_with("+375810"), "{typed}: {parsed}");
        }
    }
    assert!(valid > 10_000 && codes_of_valid.len() > 180, "{valid} numbers, {} codes", codes_of_valid.len());
    assert_eq!(PhoneNumber::parse("+375 810 3931439").unwrap().as_str(), "+3758103931439");
}

/// Returns a function that returns a random number below its argument. The seed is fixed, so that each run tests the
/// same values.
fn random_numbers() -> impl FnMut(usize) -> usize {
    let mut state = 20_261_123_u64;
    move |below| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).expect("a number below a usize")
    }
}

fn wide_digit(char: char) -> Option<u32> {
    ['０', '٠'].iter().map(|zero| u32::from(char).wrapping_sub(u32::from(*zero))).find(|digit| *digit < 10)
}

/// Each row of the table is parsed to its canonical form, or rejected if the canonical form is `-`.
#[test]
fn emails_agree_with_email_validator() {
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for row in include_str!("data/emails.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [address, canonical, _difference] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let address: String = serde_json::from_str(address).unwrap();
        let email = EmailAddress::parse(&address).ok();
        if email.as_ref().map_or("-", |email| email.as_str()) != canonical {
            wrong.push((row, email.map(|email| email.as_str().to_owned())));
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "{} of {rows} rows differ: {wrong:#?}", wrong.len());
    assert!(rows > 100, "{rows} rows");
}
