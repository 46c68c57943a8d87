//! Webhooks: the service delivers the changes to an operator's customers to the endpoints of the operator. `endpoints`
//! has the requests that manage endpoints. `delivery` is the job that delivers, and uses `sender`, `signature` and
//! `addresses`.

pub mod addresses;
pub mod delivery;
pub mod endpoints;
pub mod sender;
pub mod signature;

pub use endpoints::Webhooks;
