//! The names of changed fields, in `admin_event` and `customer_change`.

use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

/// The names of the changed fields of an operator, a webhook endpoint or a customer, as in the GraphQL schema, for
/// example `["name"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct ChangedFields(pub Vec<String>);
