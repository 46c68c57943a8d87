//! What became of requests that may be sent again. Neither the key nor the input is here, only their keyed hashes.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::OperatorId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_key")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operator_id: OperatorId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub key_hash: Vec<u8>,
    pub input_hash: Vec<u8>,
    /// The stored outcome. The column allows null, but no row has one.
    pub result: Option<Json>,
    pub expires_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
