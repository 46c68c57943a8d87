//! `ApiKey`.

use async_graphql::{Enum, ID, SimpleObject};
use entity::api_key;

use crate::graphql::json_writer::WriteJson;
use crate::graphql::time::Time;

/// An API key of an operator. The secret is shown once, when the key is created.
#[derive(SimpleObject)]
pub struct ApiKey {
    /// Id of the key, for example `key_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// Name of the key.
    name: String,
    /// First characters of the secret, so that you can recognise the key, for example `vivamo_sandbox_Ab3d`.
    prefix: String,
    /// Access level of the key.
    access: ApiKeyAccess,
    /// Time at which the key was created.
    created_at: Time,
    /// Time at which the key expires. Null if it does not expire.
    expires_at: Option<Time>,
    /// Time at which the key was last used. Updated about once a minute. Null if the key has not been used.
    last_used_at: Option<Time>,
    /// Time at which the key was revoked. Null if it has not been revoked.
    revoked_at: Option<Time>,
}

/// Access level of an API key. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::api_key::Access")]
pub enum ApiKeyAccess {
    /// The key can only read the data of its operator. Mutations fail with `FORBIDDEN`.
    ReadOnly,
    /// The key can read and write the data of its operator.
    ReadWrite,
}

impl From<api_key::Model> for ApiKey {
    fn from(row: api_key::Model) -> Self {
        Self {
            id: row.id.to_string().into(),
            name: row.name.as_str().to_owned(),
            prefix: row.prefix,
            access: row.access.into(),
            created_at: Time(row.created_at),
            expires_at: row.expires_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            revoked_at: row.revoked_at.map(Time),
        }
    }
}

impl WriteJson for ApiKey {}
