//! Table `phone_lookup`: the cached results of the carrier lookup, shared by all servers.
//!
//! The number is not stored, only its keyed hash. `service::phone_lookup` writes the rows, and deletes them after they
//! have expired. The erasure of a customer deletes the rows of all phones that the customer has had.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "phone_lookup")]
pub struct Model {
    /// The keyed hash of the number in E.164 form: HMAC-SHA256, 32 bytes.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    pub line: CarrierLineType,
    pub expires_at: DateTime<Utc>,
}

/// The line type that the carrier reports for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum CarrierLineType {
    Mobile,
    /// Any other line type, or no line.
    Other,
    /// The carrier does not know the line type of the number, or reports a type that the service does not know.
    Unknown,
}

impl ActiveModelBehavior for ActiveModel {}
