//! Table `customer_event`: the history of customers, one row for each change.
//!
//! Rows are inserted by `service::customers::change_rows` in the transaction of the change. A row changes only if its
//! customer is erased: all values in `before` and `after` become null. The rows of an erased customer stay.

use chrono::{DateTime, Utc};
use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::value::{ActorName, ApiKeyId, CustomerEventId, CustomerId, OperatorId, RequestId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CustomerEventId,
    pub customer_id: CustomerId,
    /// The operator that made the change, and its API key. Both are null if the platform made the change.
    pub operator_id: Option<OperatorId>,
    pub api_key_id: Option<ApiKeyId>,
    pub request_id: RequestId,
    /// The staff member that the request named.
    pub actor: Option<ActorName>,
    pub r#type: EventType,
    /// The version of the customer after the change.
    pub version: i32,
    pub before: FieldValues,
    pub after: FieldValues,
    pub occurred_at: DateTime<Utc>,
    /// The operator that a `Disconnected` entry is about.
    pub disconnected_operator_id: Option<OperatorId>,
    /// The reason of a `Disconnected` entry.
    pub reason: Option<DisconnectReason>,
    /// The field that a `Verified` entry is about.
    pub verified_field: Option<VerifiableField>,
}

/// The kind of a change. Later versions may add kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// The customer was created and connected to its first operator.
    Created,
    /// The existing customer was connected to one more operator. Empty fields may have been filled.
    Connected,
    /// Values of the customer were changed.
    Updated,
    /// The customer was disconnected from an operator.
    Disconnected,
    /// The customer proved ownership of an email or a phone.
    Verified,
    /// The customer was erased.
    Erased,
    /// An operator changed its own id for the customer.
    ExternalCustomerIdChanged,
}

/// The reason for which a customer was disconnected from an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum DisconnectReason {
    NotThisPerson,
    Ended,
    Mistake,
}

/// A field that can be verified: a person can prove ownership of this email or phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum VerifiableField {
    Email,
    Phone,
}

/// The values of the changed fields, by their names in the GraphQL schema, for example `{"firstName": "Ada"}`. The
/// value of an empty field is null.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct FieldValues(pub serde_json::Map<String, serde_json::Value>);

impl std::fmt::Debug for FieldValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FieldValues(***)")
    }
}

impl ActiveModelBehavior for ActiveModel {}
