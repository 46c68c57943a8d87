//! The enums that inputs of customers and history entries share.

use async_graphql::Enum;

/// Reason for a disconnect. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::DisconnectReason")]
pub enum DisconnectReason {
    /// The email or the phone matched the record of another person, for example because a phone number was reassigned.
    NotThisPerson,
    /// The customer has left the operator.
    Ended,
    /// The record is the right person's, but the operator did not intend to connect the customer.
    Mistake,
}

/// Field that can be verified: a person can prove ownership of this email or phone. Fields may be added, so keep a
/// default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::VerifiableField")]
pub enum VerifiableField {
    /// Email address.
    Email,
    /// Phone number.
    Phone,
}
