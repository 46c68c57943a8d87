//! Webhooks: the service delivers the changes of an operator's customers to the endpoints of the operator.

pub mod addresses;
pub mod delivery;
pub mod endpoints;
pub mod sender;
pub mod signature;

pub use endpoints::Webhooks;
