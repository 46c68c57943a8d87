//! Table `idempotency_key`: the results of requests that carried an idempotency key.
//!
//! Neither the key nor the input is stored, only their keyed hashes. A row is inserted by `service::idempotency` in the
//! transaction of the request, and deleted after it has expired.

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
    /// The stored result, which is always set. The column is nullable only for compatibility with earlier versions.
    pub result: Option<Json>,
    pub expires_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
