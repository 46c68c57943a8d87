//! Webhooks: endpoints of operators that receive the changes of their customers.

pub mod addresses;
pub mod delivery;
pub mod endpoints;
pub mod sender;
pub mod signature;

pub use endpoints::Webhooks;
