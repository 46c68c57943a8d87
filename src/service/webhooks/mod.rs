//! Webhooks: endpoints of operators that receive the changes of their customers.

pub mod addresses;
pub mod signature;
