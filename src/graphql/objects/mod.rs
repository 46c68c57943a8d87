//! The objects of the schema: their types in `types.rs`, and the fields of each object in a file of its own.

mod address;
mod api_key;
mod customer;
mod history;
mod operator;
mod types;

pub use api_key::{ApiKey, ApiKeyAccess};
pub use operator::OperatorConnection;
pub use types::{Customer, CustomerConnection, CustomerEvent, Operator};
