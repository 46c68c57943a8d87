//! The table of customer fields.

use async_graphql::Enum;
use serde::{Deserialize, Serialize};

/// A value of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, Serialize, Deserialize)]
pub enum CustomerField {
    /// The email address.
    Email,
    /// The first name.
    FirstName,
    /// The last name.
    LastName,
    /// The phone number. Payment and disbursement flows need it for SMS verification.
    Phone,
    /// The postal address, as a whole.
    Address,
}

pub(super) fn fields_where<const N: usize>(fields: [(CustomerField, bool); N]) -> Vec<CustomerField> {
    fields.into_iter().filter(|(_, holds)| *holds).map(|(field, _)| field).collect()
}
