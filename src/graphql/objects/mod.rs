//! The objects of the schema.
//!
//! `Customer`, `Operator` and `CustomerEvent` refer to each other: a customer has operators, an operator has customers, and
//! a history entry has an operator. Their files therefore import each other, which no other files in `graphql` may do.

mod address;
mod api_key;
mod customer;
mod history;
mod operator;

pub use api_key::{ApiKey, ApiKeyAccess};
pub use customer::{Customer, CustomerConnection};
pub use history::CustomerEvent;
pub use operator::{Operator, OperatorConnection};
