//! A postal address: street lines, city, region, postal code and country.
//!
//! - Accepted: `line1`, `city` and `country` are required; each part is at most 200 characters, the postal code at most
//!   20. The city may be omitted if the country is a single city, such as Singapore.
//! - Canonical form: each part trimmed and in NFC, the country in upper case; a blank optional part is absent. Line
//!   breaks become `, `.
//! - Rejected: parts without a visible character, except optional parts of only white space; control characters other
//!   than line breaks; bidirectional controls; and country codes other than those of ISO 3166-1 alpha-2 and `XK`
//!   (Kosovo).
//! - Examples: the country `" ch"` becomes `CH`; `UK` is rejected with a message that names `GB`; `"c/o X\nStr 1"`
//!   becomes `c/o X, Str 1`.

use isocountry::CountryCode;
use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

use super::{Reason, is_blank, is_blank_at_an_end, masked_debug, single_line_text};

/// A valid postal address. Stored as JSON and always replaced as a whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Address(AddressParts);

/// The parts of an address. Only the parts inside an [`Address`] have been validated.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressParts {
    pub line1: String,
    pub line2: Option<String>,
    pub city: String,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    /// An ISO 3166-1 alpha-2 code, for example `US`, or `XK` for Kosovo.
    pub country: String,
}

/// Identifies the part of an address that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressPart {
    Line1,
    Line2,
    City,
    Region,
    PostalCode,
    Country,
}

impl AddressPart {
    /// The name of the part in the GraphQL schema, for example `postalCode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Line1 => "line1",
            Self::Line2 => "line2",
            Self::City => "city",
            Self::Region => "region",
            Self::PostalCode => "postalCode",
            Self::Country => "country",
        }
    }
}

impl Address {
    pub const MAX_CHARACTERS: usize = 200;
    pub const MAX_POSTAL_CODE_CHARACTERS: usize = 20;

    /// Validates the parts. The error lists each invalid part with its reason.
    pub fn parse(parts: AddressParts) -> Result<Self, Vec<(AddressPart, Reason)>> {
        let mut errors = Vec::new();
        let mut parse = |part, text: &str, max_characters| {
            single_line_text(&join_lines(text), max_characters)
                .map_err(|reason| errors.push((part, if reason == Reason::Empty { Reason::Missing } else { reason })))
                .unwrap_or_default()
        };
        let line1 = parse(AddressPart::Line1, &parts.line1, Self::MAX_CHARACTERS);
        let line2 = non_blank(parts.line2).map(|text| parse(AddressPart::Line2, &text, Self::MAX_CHARACTERS));
        let country = parts.country.trim_matches(is_blank).to_ascii_uppercase();
        let city = city_of(&country).filter(|_| is_left_out(&parts.city)).unwrap_or(&parts.city);
        let city = parse(AddressPart::City, city, Self::MAX_CHARACTERS);
        let region = non_blank(parts.region).map(|text| parse(AddressPart::Region, &text, Self::MAX_CHARACTERS));
        let postal_code = non_blank(parts.postal_code)
            .map(|text| parse(AddressPart::PostalCode, &text, Self::MAX_POSTAL_CODE_CHARACTERS));
        if let Err(reason) = check_country(&country) {
            errors.push((AddressPart::Country, reason));
        }
        if errors.is_empty() {
            Ok(Self(AddressParts { line1, line2, city, region, postal_code, country }))
        } else {
            Err(errors)
        }
    }

    pub fn parts(&self) -> &AddressParts {
        &self.0
    }
}

/// Returns `None` for a part without text.
fn non_blank(part: Option<String>) -> Option<String> {
    part.filter(|text| !is_left_out(text))
}

/// Returns true for a blank text, and for one that has only commas and line breaks. Web forms send such texts for empty
/// fields.
fn is_left_out(text: &str) -> bool {
    join_lines(text).is_empty()
}

/// Replaces line breaks by `, `. Drops lines without text, and commas at the ends of the other lines. A text without
/// line breaks, other than at its ends, stays unchanged.
fn join_lines(text: &str) -> String {
    const LINE_BREAKS: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let text = text.trim_matches(is_blank_at_an_end);
    if !text.contains(LINE_BREAKS) {
        return text.to_owned();
    }
    let lines = text.split(LINE_BREAKS).map(|line| line.trim_matches(is_blank_at_an_end).trim_end_matches([',', ' ']));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Returns the city of a country that is a single city. Addresses in such a country often have no city.
fn city_of(country: &str) -> Option<&'static str> {
    match country {
        "GI" => Some("Gibraltar"),
        "HK" => Some("Hong Kong"),
        "MC" => Some("Monaco"),
        "MO" => Some("Macao"),
        "SG" => Some("Singapore"),
        "VA" => Some("Vatican City"),
        _ => None,
    }
}

/// Checks a country code, which must be in upper case. If the code is an alpha-3 code, or one that is used instead of
/// the ISO code (`UK`, `EL`), the error names the code to write.
fn check_country(country: &str) -> Result<(), Reason> {
    match country {
        // In ISO 3166-1, this is a user-assigned code. Phone and payment systems use it for Kosovo.
        "XK" => Ok(()),
        "UK" => Err(Reason::OtherCountryCode("GB")),
        // The European Union uses this code for Greece.
        "EL" => Err(Reason::OtherCountryCode("GR")),
        "XKX" => Err(Reason::OtherCountryCode("XK")),
        _ if CountryCode::for_alpha2(country).is_ok() => Ok(()),
        _ => Err(CountryCode::for_alpha3(country)
            .map_or(Reason::UnknownCountry, |country| Reason::OtherCountryCode(country.alpha2()))),
    }
}

masked_debug!(Address);
masked_debug!(AddressParts);

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> AddressParts {
        AddressParts {
            line1: "1 Main St".into(),
            line2: None,
            city: "Springfield".into(),
            region: None,
            postal_code: None,
            country: "US".into(),
        }
    }

    #[test]
    fn parse_trims_the_parts_and_upper_cases_the_country() {
        let address = Address::parse(AddressParts {
            line1: " 1 Main St ".into(),
            region: Some("Orego\u{301}n".into()),
            line2: Some(" ".into()),
            country: " us".into(),
            ..parts()
        })
        .unwrap();
        assert_eq!(address.parts().line2, None);
        assert_eq!(address.parts().line1, "1 Main St");
        assert_eq!(address.parts().region.as_deref(), Some("Oregón"));
        assert_eq!(address.parts().country, "US");
        let invisible = AddressParts { line2: Some("\u{200b}".into()), ..parts() };
        assert_eq!(Address::parse(invisible).unwrap().parts().line2, None);
    }

    #[test]
    fn parse_lists_every_invalid_part() {
        let address = AddressParts {
            line1: " ".into(),
            line2: Some("a\0b".into()),
            city: "x".repeat(201),
            region: Some("a\tb".into()),
            postal_code: Some("9".repeat(21)),
            country: "XX".into(),
        };
        assert_eq!(
            Address::parse(address).unwrap_err(),
            [
                (AddressPart::Line1, Reason::Missing),
                (AddressPart::Line2, Reason::ControlCharacter),
                (AddressPart::City, Reason::TooLong(200)),
                (AddressPart::Region, Reason::ControlCharacter),
                (AddressPart::PostalCode, Reason::TooLong(20)),
                (AddressPart::Country, Reason::UnknownCountry),
            ]
        );
        for (country, reason) in [
            ("", Reason::UnknownCountry),
            ("U", Reason::UnknownCountry),
            ("EU", Reason::UnknownCountry),
            ("ZZ", Reason::UnknownCountry),
            ("XX", Reason::UnknownCountry),
            ("ÜS", Reason::UnknownCountry),
            ("U S", Reason::UnknownCountry),
            ("uk", Reason::OtherCountryCode("GB")),
            ("EL", Reason::OtherCountryCode("GR")),
            ("USA", Reason::OtherCountryCode("US")),
            ("deu", Reason::OtherCountryCode("DE")),
            ("XKX", Reason::OtherCountryCode("XK")),
        ] {
            let address = AddressParts { country: country.into(), ..parts() };
            assert_eq!(Address::parse(address).unwrap_err(), [(AddressPart::Country, reason)], "{country}");
        }
        for blank in ["\u{3164}", "\u{34f}", "\u{2800}"] {
            let address = AddressParts { line1: blank.into(), city: blank.into(), ..parts() };
            assert_eq!(
                Address::parse(address).unwrap_err(),
                [(AddressPart::Line1, Reason::NothingVisible), (AddressPart::City, Reason::NothingVisible)],
                "{blank:?}"
            );
        }
    }

    #[test]
    fn line_breaks_become_commas() {
        for (line1, expected) in [
            ("c/o X\nStr 1", "c/o X, Str 1"),
            ("c/o X,\r\nStr 1\r\n", "c/o X, Str 1"),
            ("\n\nc/o X \n\n \n Str 1", "c/o X, Str 1"),
            ("c/o X\u{2028}Str 1\u{85}Rear", "c/o X, Str 1, Rear"),
            ("Str 1,\n", "Str 1,"),
            ("Str 1\n,", "Str 1"),
            (",\u{2028} ,\r\nStr 1", "Str 1"),
            ("A\n\u{200b}\n\u{feff}B", "A, B"),
            ("\nStr 1", "Str 1"),
        ] {
            let address = Address::parse(AddressParts { line1: line1.into(), ..parts() }).unwrap();
            assert_eq!(address.parts().line1, expected, "{line1:?}");
        }
        let address = AddressParts { line2: Some(",\n,".into()), region: Some("A\nB".into()), ..parts() };
        let address = Address::parse(address).unwrap();
        assert_eq!((address.parts().line2.as_deref(), address.parts().region.as_deref()), (None, Some("A, B")));
        // The comma and the space count as characters.
        let address = AddressParts { line1: format!("{}\nb", "a".repeat(198)), ..parts() };
        assert_eq!(Address::parse(address).unwrap_err(), [(AddressPart::Line1, Reason::TooLong(200))]);
    }

    #[test]
    fn a_country_that_is_a_city_needs_no_city() {
        for (country, city) in [
            ("sg", "Singapore"),
            ("MC", "Monaco"),
            ("VA", "Vatican City"),
            ("GI", "Gibraltar"),
            (" hk ", "Hong Kong"),
            ("MO", "Macao"),
        ] {
            for blank in ["", " ", "\u{200b}", ",\n, ,\r\n"] {
                let address = AddressParts { city: blank.into(), country: country.into(), ..parts() };
                assert_eq!(Address::parse(address).unwrap().parts().city, city, "{country}");
            }
        }
        let kowloon = AddressParts { city: "Kowloon".into(), country: "HK".into(), ..parts() };
        assert_eq!(Address::parse(kowloon).unwrap().parts().city, "Kowloon");
        for country in ["US", "XK", "SM", "LU"] {
            let address = AddressParts { city: " ".into(), country: country.into(), ..parts() };
            assert_eq!(Address::parse(address).unwrap_err(), [(AddressPart::City, Reason::Missing)], "{country}");
        }
    }
}
