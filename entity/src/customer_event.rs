//! What happened to customers: written once, never changed.

use chrono::{DateTime, Utc};
use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::value::{ApiKeyId, CustomerEventId, CustomerId, OperatorId, RequestId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CustomerEventId,
    pub customer_id: CustomerId,
    /// Who caused it, with which key, by which request.
    pub operator_id: OperatorId,
    pub api_key_id: ApiKeyId,
    pub request_id: RequestId,
    pub r#type: EventType,
    /// The version of the customer after it.
    pub version: i32,
    pub before: Values,
    pub after: Values,
    pub occurred_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum EventType {
    Created,
    Connected,
    Updated,
}

/// The values of a customer that an event changed, by their names in the schema; null where there was or is none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Values(pub serde_json::Map<String, serde_json::Value>);

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Values(***)")
    }
}

impl ActiveModelBehavior for ActiveModel {}
