//! The vocabulary of the service: values that cannot be wrong, and the tables that hold them.
//!
//! A value is parsed once, at the edge (`parse`), and trusted from then on: what comes back from the database is not
//! judged again, so a rule that gets stricter does not turn old rows into failures.

pub mod value;

pub mod api_key;
pub mod customer;
pub mod customer_event;
pub mod customer_operator;
pub mod customer_word;
pub mod deployment;
pub mod idempotency_key;
pub mod operator;
pub mod phone_lookup;
