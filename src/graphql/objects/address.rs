//! `Address`.

use async_graphql::SimpleObject;
use entity::value::AddressParts;
use serde::Deserialize;

use crate::graphql::json_writer::WriteJson;

/// A postal address.
#[derive(Deserialize, SimpleObject)]
pub struct Address {
    /// Street and house number, for example `1 Main St`.
    line1: String,
    /// Second address line, for example `Apartment 4`. Null if there is none.
    line2: Option<String>,
    /// City.
    city: String,
    /// State, province or county. Null if there is none.
    region: Option<String>,
    /// Postal code. Null if there is none.
    postal_code: Option<String>,
    /// Country as an ISO 3166-1 alpha-2 code, for example `US`, or `XK` for Kosovo.
    country: String,
}

impl From<AddressParts> for Address {
    fn from(parts: AddressParts) -> Self {
        let AddressParts { line1, line2, city, region, postal_code, country } = parts;
        Self { line1, line2, city, region, postal_code, country }
    }
}

impl WriteJson for Address {}
