//! The values against the world's data: tables that other people's libraries wrote (see the scripts beside them).

use entity::value::{EmailAddress, LineType, PhoneNumber};

/// Phones of every region and type, in several spellings, agree with Google's libphonenumber.
#[test]
fn phones_agree_with_libphonenumber() {
    let (mut wrong, mut rows, mut mobiles, mut on_purpose) = (Vec::new(), 0, 0, 0);
    for row in include_str!("data/phones.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [spelling, e164, line, why] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let phone = PhoneNumber::parse(spelling).ok();
        let is_right = match &phone {
            None => e164 == "-" || !why.is_empty(),
            Some(phone) => {
                why.is_empty()
                    && phone.as_str() == e164
                    && (phone.line_type() == LineType::Mobile) == (line == "mobile")
            }
        };
        if !is_right {
            wrong.push(row);
        }
        rows += 1;
        mobiles += usize::from(phone.is_some_and(|phone| phone.line_type() == LineType::Mobile));
        on_purpose += usize::from(!why.is_empty());
    }
    assert!(wrong.is_empty(), "{} of {rows} rows differ: {wrong:#?}", wrong.len());
    // The table is not empty of what it is for, and the differences on purpose are few.
    assert!(
        rows > 9000 && mobiles > 1000 && on_purpose < 30,
        "{rows} rows, {mobiles} mobiles, {on_purpose} on purpose"
    );
}

/// Whatever is typed, nothing panics, and what is accepted is a number that its spelling ends with.
#[test]
fn a_million_random_texts_are_read_without_a_wrong_accept() {
    let mut state = 20_261_123_u64;
    let mut random = move |below: usize| {
        // SplitMix64: the same texts in every run.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    };
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
        // What follows the country code ends as the caller's digits do, whatever prefix was dropped.
        let values: String =
            text.chars().filter_map(|char| char.to_digit(10).or(wide_digit(char))).map(|d| d.to_string()).collect();
        assert!(values.ends_with(&digits[3..]), "{text:?} became {}", phone.as_str());
    }
    assert!(accepted > 40_000, "{accepted}");
}

fn wide_digit(char: char) -> Option<u32> {
    ['０', '٠'].iter().map(|zero| u32::from(char).wrapping_sub(u32::from(*zero))).find(|digit| *digit < 10)
}

#[test]
fn emails_agree_with_email_validator() {
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for row in include_str!("data/emails.tsv").lines().filter(|line| !line.starts_with('#')) {
        let [address, canonical, _why] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
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
