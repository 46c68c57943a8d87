//! `Address`.

use async_graphql::SimpleObject;
use entity::value::AddressParts;
use serde::Deserialize;

/// A postal address.
#[derive(Deserialize, SimpleObject)]
pub struct Address<'a> {
    /// Street and house number, for example `1 Main St`.
    line1: &'a str,
    /// Second address line, for example `Apartment 4`. Null if there is none.
    line2: Option<&'a str>,
    /// City.
    city: &'a str,
    /// State, province or county. Null if there is none.
    region: Option<&'a str>,
    /// Postal code. Null if there is none.
    postal_code: Option<&'a str>,
    /// Country as an ISO 3166-1 alpha-2 code, for example `US`, or `XK` for Kosovo.
    country: &'a str,
}

impl<'a> From<&'a AddressParts> for Address<'a> {
    fn from(parts: &'a AddressParts) -> Self {
        let AddressParts { line1, line2, city, region, postal_code, country } = parts;
        let (line2, region, postal_code) = (line2.as_deref(), region.as_deref(), postal_code.as_deref());
        Self { line1, line2, city, region, postal_code, country }
    }
}
