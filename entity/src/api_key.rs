//! An operator's key. The key itself is not here: only what recognises it.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{ApiKeyId, DisplayName, OperatorId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_key")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ApiKeyId,
    pub operator_id: OperatorId,
    pub name: DisplayName,
    /// How the key begins, for people to tell keys apart.
    pub prefix: String,
    /// The keyed hash of the whole key.
    #[sea_orm(unique)]
    pub hash: Vec<u8>,
    pub access: Access,
    pub created_at: DateTime<Utc>,
    /// From when on it opens nothing; `None`: it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last seen, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    #[sea_orm(belongs_to, from = "operator_id", to = "id")]
    pub operator: HasOne<super::operator::Entity>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

impl ActiveModelBehavior for ActiveModel {}
