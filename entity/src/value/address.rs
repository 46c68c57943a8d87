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

impl Address {
    pub const MAX_CHARACTERS: usize = 200;
    pub const MAX_POSTAL_CODE_CHARACTERS: usize = 20;

    /// Every part that is wrong is named as in [`AddressParts`], with its reason.
    pub fn parse(parts: AddressParts) -> Result<Self, Vec<(&'static str, Reason)>> {
        let mut faults = Vec::new();
        let mut part = |name, text: &str, most| {
            line_of_text(text, most).map_err(|reason| faults.push((name, reason))).unwrap_or_default()
        };
        let line1 = part("line1", &parts.line1, Self::MAX_CHARACTERS);
        let line2 = stated(parts.line2).map(|text| part("line2", &text, Self::MAX_CHARACTERS));
        let city = part("city", &parts.city, Self::MAX_CHARACTERS);
        let region = stated(parts.region).map(|text| part("region", &text, Self::MAX_CHARACTERS));
        let postal_code =
            stated(parts.postal_code).map(|text| part("postalCode", &text, Self::MAX_POSTAL_CODE_CHARACTERS));
        let country = parts.country.trim().to_ascii_uppercase();
        if CountryCode::for_alpha2(&country).is_err() {
            faults.push(("country", Reason::UnknownCountry));
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
                ("line1", Reason::Empty),
                ("line2", Reason::ControlCharacter),
                ("city", Reason::TooLong(200)),
                ("region", Reason::ControlCharacter),
                ("postalCode", Reason::TooLong(20)),
                ("country", Reason::UnknownCountry),
            ]
        );
        for country in ["", "U", "USA", "UK", "EU", "ZZ", "ÜS"] {
            let address = AddressParts { country: country.into(), ..parts() };
            assert_eq!(Address::parse(address).unwrap_err(), [("country", Reason::UnknownCountry)], "{country}");
        }
    }
}
