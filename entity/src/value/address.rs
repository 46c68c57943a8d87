//! A postal address: street lines, city, region, postal code and country.
//!
//! - Accepted: `line1`, `city` and `country` are required; each part is at most 200 characters, the postal code at most
//!   20.
//! - Canonical form: each part trimmed and in NFC, the country in upper case; a blank optional part is absent.
//! - Rejected: control characters, and countries that are not in ISO 3166-1 alpha-2.
//! - Examples: the country `" ch"` becomes `CH`; the country `UK` is rejected.

use isocountry::CountryCode;
use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

use super::{Reason, masked_debug, single_line_text};

/// A valid postal address. Stored as JSON and always replaced as a whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Address(AddressParts);

/// The parts of an address. In an [`Address`] they are valid; on their own they are unchecked input.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressParts {
    pub line1: String,
    pub line2: Option<String>,
    pub city: String,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    /// ISO 3166-1 alpha-2, for example `US`.
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
            single_line_text(text, max_characters).map_err(|reason| errors.push((part, reason))).unwrap_or_default()
        };
        let line1 = parse(AddressPart::Line1, &parts.line1, Self::MAX_CHARACTERS);
        let line2 = non_blank(parts.line2).map(|text| parse(AddressPart::Line2, &text, Self::MAX_CHARACTERS));
        let city = parse(AddressPart::City, &parts.city, Self::MAX_CHARACTERS);
        let region = non_blank(parts.region).map(|text| parse(AddressPart::Region, &text, Self::MAX_CHARACTERS));
        let postal_code = non_blank(parts.postal_code)
            .map(|text| parse(AddressPart::PostalCode, &text, Self::MAX_POSTAL_CODE_CHARACTERS));
        let country = parts.country.trim().to_ascii_uppercase();
        if CountryCode::for_alpha2(&country).is_err() {
            errors.push((AddressPart::Country, Reason::UnknownCountry));
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

/// Treats a blank optional part, as web forms send it, as absent.
fn non_blank(part: Option<String>) -> Option<String> {
    part.filter(|text| !text.trim().is_empty())
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
    }

    #[test]
    fn parse_lists_every_invalid_part() {
        let address = AddressParts {
            line1: " ".into(),
            line2: Some("a\0b".into()),
            city: "x".repeat(201),
            region: Some("a\nb".into()),
            postal_code: Some("9".repeat(21)),
            country: "XX".into(),
        };
        assert_eq!(
            Address::parse(address).unwrap_err(),
            [
                (AddressPart::Line1, Reason::Empty),
                (AddressPart::Line2, Reason::ControlCharacter),
                (AddressPart::City, Reason::TooLong(200)),
                (AddressPart::Region, Reason::ControlCharacter),
                (AddressPart::PostalCode, Reason::TooLong(20)),
                (AddressPart::Country, Reason::UnknownCountry),
            ]
        );
        for country in ["", "U", "USA", "UK", "EU", "ZZ", "ÜS"] {
            let address = AddressParts { country: country.into(), ..parts() };
            assert_eq!(
                Address::parse(address).unwrap_err(),
                [(AddressPart::Country, Reason::UnknownCountry)],
                "{country}"
            );
        }
    }
}
