//! Queries and mutations of operators and their API keys.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use secrecy::ExposeSecret;

use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::context::{actor, services};
use crate::graphql::objects::{ApiKey, ApiKeyAccess, Operator, OperatorConnection};
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::graphql::time::Time;
use crate::service::api_keys::KeyRequest;

#[derive(Default)]
pub struct OperatorQuery;

#[Object]
impl OperatorQuery {
    /// Looks up one operator. Returns null if the operator does not exist or the caller may not see it. An operator sees
    /// only itself.
    async fn operator(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Id of the operator, for example `op_01h455vb4pex5vsknk084sn02q`. Default: the calling operator. The platform key has no default: without an id the result is null."
        )]
        id: Option<ID>,
    ) -> Option<Result<Operator, Error>> {
        let id = match id {
            Some(id) => OperatorId::parse(&id),
            None => actor(context).operator(),
        };
        Operator::find(context, id?).await.transpose()
    }

    /// Operators that the caller may see, oldest first. With the platform key: all operators. Otherwise: only the calling
    /// operator.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn operators(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Number of items from the start, 1 to 100. Default: 20.")] first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(desc = "Number of items from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<OperatorConnection, Error>> {
        Some(OperatorConnection::load(context, PageArguments { first, after, last, before }).await)
    }
}

#[derive(Default)]
pub struct OperatorMutation;

#[Object]
impl OperatorMutation {
    /// Creates an operator with its first API key. Platform key only.
    async fn create_operator(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The operator to create.")] input: CreateOperatorInput,
    ) -> Option<Result<CreateOperatorPayload, Error>> {
        Some(create_operator(context, &input).await)
    }

    /// Creates an additional API key for an operator. Platform key only. To rotate keys: create a new key, use it
    /// everywhere, and revoke the old key once its `lastUsedAt` no longer changes.
    async fn create_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The API key to create.")] input: CreateApiKeyInput,
    ) -> Option<Result<CreateApiKeyPayload, Error>> {
        Some(create_api_key(context, input).await)
    }

    /// Revokes a key permanently. The key stops working on all servers within a second. Platform key only.
    async fn revoke_api_key(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The API key to revoke.")] input: RevokeApiKeyInput,
    ) -> Option<Result<RevokeApiKeyPayload, Error>> {
        Some(revoke_api_key(context, &input).await)
    }
}

async fn create_operator(context: &Context<'_>, input: &CreateOperatorInput) -> Result<CreateOperatorPayload, Error> {
    let (services, actor) = (services(context), actor(context));
    actor.require_platform()?;
    let (operator, key) = services.operators.create(actor, parse_name(&input.name)?).await?;
    let secret = key.secret.expose_secret().to_owned();
    Ok(CreateOperatorPayload { operator: Operator(Arc::new(operator)), api_key: key.row.into(), secret })
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
fn parse_name(text: &str) -> Result<DisplayName, Error> {
    DisplayName::parse(text)
        .map_err(|reason| Violation::of(ErrorCode::InvalidName, InputField::Name).with_reason(reason).into())
}

/// Input of `createOperator`.
#[derive(InputObject)]
struct CreateOperatorInput {
    /// Name of the operator, 1 to 100 characters.
    name: String,
}

/// The result of `createOperator`.
#[derive(SimpleObject)]
struct CreateOperatorPayload {
    /// The new operator.
    operator: Operator,
    /// The operator's first API key, which has the access `READ_WRITE` and does not expire.
    api_key: ApiKey,
    /// The secret to send in the header `Authorization: Bearer <secret>`. The secret is shown only here, so store it
    /// safely.
    secret: String,
}

/// Input of `createApiKey`.
#[derive(InputObject)]
struct CreateApiKeyInput {
    /// Id of the operator that the key is for, for example `op_01h455vb4pex5vsknk084sn02q`.
    operator_id: ID,
    /// Name of the key, 1 to 100 characters, so that you can recognise the key.
    name: String,
    /// Access level of the key. Default: `READ_WRITE`.
    access: Option<ApiKeyAccess>,
    /// Time in the future at which the key expires. If omitted, the key does not expire.
    expires_at: Option<Time>,
}

/// The result of `createApiKey`.
#[derive(SimpleObject)]
struct CreateApiKeyPayload {
    /// The new API key.
    api_key: ApiKey,
    /// The secret to send in the header `Authorization: Bearer <secret>`. The secret is shown only here, so store it
    /// safely.
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
