//! The objects of the schema that are made from rows, each in its own file with its connection and edge. The types of
//! the objects that refer to each other are in `types.rs`. The payloads of mutations and objects such as `Viewer`,
//! which hold the result of one field, are in `resolvers`, beside this field.

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
pub use change::{ChangeFeed, ChangeType};
pub use erasure::{Erasure, ErasureConnection};
pub use operator::{OperatorConnection, OperatorStatus};
pub use types::{Customer, CustomerConnection, CustomerEvent, CustomerEventConnection, Operator};
pub use webhook::{Webhook, WebhookConnection};
