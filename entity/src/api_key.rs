//! Table `api_key`: the API keys of operators.
//!
//! Only the keyed hash and the first characters of a key are stored, so a key cannot be read back. `service::api_keys`
//! creates and revokes keys. `service::authentication` stores the time of the last use, and replaces hashes that were
//! made with an older secret. A revoked or expired key stays as a row.

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
    /// The first characters of the key, by which people recognise it, for example `vivamo_sandbox_Ab3x`.
    pub prefix: String,
    /// The keyed hash of the whole key: HMAC-SHA256, 32 bytes.
    #[sea_orm(unique)]
    pub hash: Vec<u8>,
    pub access: Access,
    pub created_at: DateTime<Utc>,
    /// The time from which the key is rejected. `None` if it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time of the last use. Written about once a minute. `None` if the key has not been used.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    #[sea_orm(belongs_to, from = "operator_id", to = "id")]
    pub operator: HasOne<super::operator::Entity>,
}

/// The permissions of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Access {
    /// Queries only.
    ReadOnly,
    /// Queries and mutations.
    ReadWrite,
}

impl ActiveModelBehavior for ActiveModel {}
