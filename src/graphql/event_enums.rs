//! The enums that inputs of customers and history entries share.

use async_graphql::Enum;

/// Reason for a disconnect. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::DisconnectReason")]
pub enum DisconnectReason {
    /// The record belongs to another person, for example because a phone number was reassigned.
    NotThisPerson,
    /// The customer has left the operator.
    Ended,
    /// The customer was connected by mistake.
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
