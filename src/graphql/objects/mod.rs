//! The objects of the schema that several fields return, each in a file of its own. The types of the objects that refer
//! to each other are in `types.rs`. The payloads of mutations and the objects that only one field returns are in
//! `resolvers`, beside this field.

mod address;
mod admin_event;
mod api_key;
mod change;
mod customer;
mod erasure;
mod history;
mod operator;
mod types;
mod webhook;

pub use admin_event::{AdminEvent, AdminEventConnection, AdminEventFilterInput};
pub use api_key::{ApiKey, ApiKeyAccess};
pub use change::{ChangeFeed, ChangeType, changed_fields};
pub use erasure::{Erasure, ErasureConnection};
pub use operator::{OperatorConnection, OperatorStatus};
pub use types::{Customer, CustomerConnection, CustomerEvent, CustomerEventConnection, Operator};
pub use webhook::{Webhook, WebhookConnection};
