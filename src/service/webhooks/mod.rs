//! Webhooks: endpoints of operators that receive the changes of their customers.

pub mod addresses;
pub mod delivery;
pub mod sender;
pub mod signature;
