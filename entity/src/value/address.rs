use isocountry::CountryCode;
use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

use super::{Reason, line_of_text, masked_debug};

/// A postal address, stored and replaced as a whole. Each part is trimmed, NFC and free of control characters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Address(AddressParts);

/// The parts of an address; `country` is an ISO 3166-1 alpha-2 code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressParts {
    pub line1: String,
    pub line2: Option<String>,
    pub city: String,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    pub country: String,
}

/// A part of an address, to name the one at fault.
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
    /// The name of the part in the GraphQL schema.
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

    /// Parses the parts. The error lists each invalid part with its reason.
    pub fn parse(parts: AddressParts) -> Result<Self, Vec<(AddressPart, Reason)>> {
        let mut faults = Vec::new();
        let mut parse = |part, text: &str, most| {
            line_of_text(text, most).map_err(|reason| faults.push((part, reason))).unwrap_or_default()
        };
        let line1 = parse(AddressPart::Line1, &parts.line1, Self::MAX_CHARACTERS);
        let line2 = stated(parts.line2).map(|text| parse(AddressPart::Line2, &text, Self::MAX_CHARACTERS));
        let city = parse(AddressPart::City, &parts.city, Self::MAX_CHARACTERS);
        let region = stated(parts.region).map(|text| parse(AddressPart::Region, &text, Self::MAX_CHARACTERS));
        let postal_code = stated(parts.postal_code)
            .map(|text| parse(AddressPart::PostalCode, &text, Self::MAX_POSTAL_CODE_CHARACTERS));
        let country = parts.country.trim().to_ascii_uppercase();
        if CountryCode::for_alpha2(&country).is_err() {
            faults.push((AddressPart::Country, Reason::UnknownCountry));
        }
        if faults.is_empty() {
            Ok(Self(AddressParts { line1, line2, city, region, postal_code, country }))
        } else {
            Err(faults)
        }
    }

    pub fn parts(&self) -> &AddressParts {
        &self.0
    }
}

/// An optional part that is blank, as forms send it, is one that is left out.
fn stated(part: Option<String>) -> Option<String> {
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
    fn is_trimmed_and_its_country_upper_cased() {
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
    fn every_wrong_part_is_named() {
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
