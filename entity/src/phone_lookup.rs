//! What carriers said of phone numbers. The numbers themselves are not here.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "phone_lookup")]
pub struct Model {
    /// The keyed hash of the number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    pub line: CarrierLineType,
    pub expires_at: DateTime<Utc>,
}

/// The line that a number belongs to, by its carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum CarrierLineType {
    Mobile,
    /// Any other, or none at all.
    Other,
    /// The carrier cannot say.
    Unknown,
}

impl ActiveModelBehavior for ActiveModel {}
