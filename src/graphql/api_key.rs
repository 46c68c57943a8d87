use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::api_key;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use secrecy::ExposeSecret;

use super::time::Time;
use super::{actor, services};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::api_keys::KeyRequest;

/// A key of an operator. Its secret is nowhere but with its holder.
#[derive(SimpleObject)]
pub struct ApiKey {
    /// The key's id, such as `key_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// A name that tells the key from the operator's others.
    name: String,
    /// How the key begins, such as `vivamo_sandbox_Ab3d`.
    prefix: String,
    /// What the key may do.
    access: ApiKeyAccess,
    /// When the key was made.
    created_at: Time,
    /// From when on the key opens nothing. Null if it does not expire.
    expires_at: Option<Time>,
    /// When the key was used last, to the minute. Null if it never was.
    last_used_at: Option<Time>,
    /// When the key was revoked. Null if it never was.
    revoked_at: Option<Time>,
}

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::api_key::Access")]
enum ApiKeyAccess {
    /// Read the customers of its operator.
    ReadOnly,
    /// Read and write the customers of its operator.
    ReadWrite,
}

impl From<api_key::Model> for ApiKey {
    fn from(row: api_key::Model) -> Self {
        Self {
            id: row.id.to_string().into(),
            name: row.name.as_str().to_owned(),
            prefix: row.prefix,
            access: row.access.into(),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            revoked_at: row.revoked_at.map(Time),
        }
    }
}

/// The keys of an operator, for the loader.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeysOf(pub OperatorId);

/// A name in the input of a mutation.
pub fn name(text: &str) -> Result<DisplayName, Error> {
    DisplayName::parse(text)
        .map_err(|reason| Violation::of(ErrorCode::InvalidName, InputField::Name).with_reason(reason).into())
}

/// A key to create.
#[derive(InputObject)]
struct CreateApiKeyInput {
    /// The id of the operator that the key is for.
    operator_id: ID,
    /// A name that tells the key from the operator's others, 1 to 100 characters.
    name: String,
    /// What the key may do. Left out: read and write.
    access: Option<ApiKeyAccess>,
    /// From when on the key opens nothing. Left out: it does not expire.
    expires_at: Option<Time>,
}

/// What became of a `createApiKey`.
#[derive(SimpleObject)]
struct CreateApiKeyPayload {
    /// The new key.
    api_key: ApiKey,
    /// The key itself, for the `Authorization` header. It is shown this once, and is nowhere else.
    secret: String,
}

/// A key to revoke.
#[derive(InputObject)]
struct RevokeApiKeyInput {
    /// The key's id, such as `key_01h455vb4pex5vsknk084sn02q`.
    id: ID,
}

/// What became of a `revokeApiKey`.
#[derive(SimpleObject)]
struct RevokeApiKeyPayload {
    /// The key as it is now.
    api_key: ApiKey,
}

#[derive(Default)]
pub struct ApiKeyMutation;

#[Object]
impl ApiKeyMutation {
    /// Creates one more key for an operator. To rotate keys, create the new one, use it everywhere, and revoke the old one
    /// when its `lastUsedAt` stands still. For the platform's key alone.
    async fn create_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "What the key is for.")] input: CreateApiKeyInput,
    ) -> Option<Result<CreateApiKeyPayload, Error>> {
        Some(CreateApiKeyPayload::of(context, input).await)
    }

    /// Ends a key, for good. On every server it opens nothing after a second. For the platform's key alone.
    async fn revoke_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Which key.")] input: RevokeApiKeyInput,
    ) -> Option<Result<RevokeApiKeyPayload, Error>> {
        Some(RevokeApiKeyPayload::of(context, &input.id).await)
    }
}

impl CreateApiKeyPayload {
    async fn of(context: &Context<'_>, input: CreateApiKeyInput) -> Result<Self, Error> {
        let (services, actor) = (services(context), actor(context));
        actor.require_platform()?;
        let operator = OperatorId::parse(&input.operator_id)
            .ok_or_else(|| Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId))?;
        let access = input.access.unwrap_or(ApiKeyAccess::ReadWrite).into();
        let request =
            KeyRequest { name: name(&input.name)?, access, expires_at: input.expires_at.map(|Time(time)| time) };
        let key = services.api_keys.create(actor, operator, request).await?;
        Ok(Self { secret: key.secret.expose_secret().to_owned(), api_key: key.row.into() })
    }
}

impl RevokeApiKeyPayload {
    async fn of(context: &Context<'_>, id: &str) -> Result<Self, Error> {
        let (services, actor) = (services(context), actor(context));
        actor.require_platform()?;
        let id = ApiKeyId::parse(id).ok_or_else(|| Violation::of(ErrorCode::ApiKeyNotFound, InputField::Id))?;
        Ok(Self { api_key: services.api_keys.revoke(actor, id).await?.into() })
    }
}
