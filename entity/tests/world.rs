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
        rows > 9000 && mobiles > 1000 && on_purpose < 20,
        "{rows} rows, {mobiles} mobiles, {on_purpose} on purpose"
    );
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
