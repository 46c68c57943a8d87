//! Mutations of API keys.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use secrecy::ExposeSecret;

use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::context::{actor, services};
use crate::graphql::objects::{ApiKey, ApiKeyAccess};
use crate::graphql::time::Time;
use crate::service::api_keys::KeyRequest;

#[derive(Default)]
pub struct ApiKeyMutation;

#[Object]
impl ApiKeyMutation {
    /// Creates an additional API key for an operator. Platform key only. To rotate keys: create a new key, use it
    /// everywhere, and revoke the old key once its `lastUsedAt` no longer changes.
    async fn create_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The API key to create.")] input: CreateApiKeyInput,
    ) -> Option<Result<CreateApiKeyPayload, Error>> {
        Some(create_api_key(context, input).await)
    }

    /// Revokes a key permanently. It stops working on all servers within a second. Platform key only.
    async fn revoke_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The API key to revoke.")] input: RevokeApiKeyInput,
    ) -> Option<Result<RevokeApiKeyPayload, Error>> {
        Some(revoke_api_key(context, &input).await)
    }
}

async fn create_api_key(context: &Context<'_>, input: CreateApiKeyInput) -> Result<CreateApiKeyPayload, Error> {
    let (services, actor) = (services(context), actor(context));
    actor.require_platform()?;
    let operator = OperatorId::parse(&input.operator_id)
        .ok_or_else(|| Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId))?;
    let request = KeyRequest {
        name: parse_name(&input.name)?,
        access: input.access.unwrap_or(ApiKeyAccess::ReadWrite).into(),
        expires_at: input.expires_at.map(|Time(time)| time),
    };
    let key = services.api_keys.create(actor, operator, request).await?;
    Ok(CreateApiKeyPayload { secret: key.secret.expose_secret().to_owned(), api_key: key.row.into() })
}

async fn revoke_api_key(context: &Context<'_>, input: &RevokeApiKeyInput) -> Result<RevokeApiKeyPayload, Error> {
    let (services, actor) = (services(context), actor(context));
    actor.require_platform()?;
    let id = ApiKeyId::parse(&input.id).ok_or_else(|| Violation::of(ErrorCode::ApiKeyNotFound, InputField::Id))?;
    Ok(RevokeApiKeyPayload { api_key: services.api_keys.revoke(actor, id).await?.into() })
}

/// Parses the field `name` of an operator or an API key.
pub fn parse_name(text: &str) -> Result<DisplayName, Error> {
    DisplayName::parse(text)
        .map_err(|reason| Violation::of(ErrorCode::InvalidName, InputField::Name).with_reason(reason).into())
}

/// Input of `createApiKey`.
#[derive(InputObject)]
struct CreateApiKeyInput {
    /// Id of the operator that the key is for, for example `op_01h455vb4pex5vsknk084sn02q`.
    operator_id: ID,
    /// Name to recognise the key by, 1 to 100 characters.
    name: String,
    /// Access level of the key. Default: `READ_WRITE`.
    access: Option<ApiKeyAccess>,
    /// Time at which the key expires. Must be in the future. Default: never.
    expires_at: Option<Time>,
}

/// The result of `createApiKey`.
#[derive(SimpleObject)]
struct CreateApiKeyPayload {
    /// The new API key.
    api_key: ApiKey,
    /// The secret to send in the header `Authorization: Bearer <secret>`. It is shown only here; store it safely.
    secret: String,
}

/// Input of `revokeApiKey`.
#[derive(InputObject)]
struct RevokeApiKeyInput {
    /// Id of the key, for example `key_01h455vb4pex5vsknk084sn02q`.
    id: ID,
}

/// The result of `revokeApiKey`.
#[derive(SimpleObject)]
struct RevokeApiKeyPayload {
    /// The revoked API key.
    api_key: ApiKey,
}
