//! Queries and mutations of operators and their API keys.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use entity::operator::Status;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use secrecy::ExposeSecret;

use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::context::{caller, request_info, require_platform};
use crate::graphql::inputs::{Violations, optional};
use crate::graphql::objects::{ApiKey, ApiKeyAccess, Operator, OperatorConnection, OperatorStatus};
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::graphql::time::Time;
use crate::service::api_keys::{NewApiKey, check_expiry};
use crate::service::operators::OperatorChanges;

#[derive(Default)]
pub struct OperatorQuery;

#[Object]
impl OperatorQuery {
    /// Looks up one operator. Returns null if the operator does not exist or the caller may not see it. An operator
    /// sees only itself.
    async fn operator(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Id of the operator. Default: the calling operator. With the platform key, the result without an id is null."
        )]
        id: Option<ID>,
    ) -> Option<Result<Operator, Error>> {
        let id = match id {
            Some(id) => OperatorId::parse(&id),
            None => caller(context).operator(),
        };
        Operator::find(context, id?).await.transpose()
    }

    /// Operators, oldest first. With the platform key: all operators. Otherwise: only the calling operator.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn operators(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<OperatorConnection, Error>> {
        Some(OperatorConnection::load(context, PageArguments { first, after, last, before }).await)
    }
}

#[derive(Default)]
pub struct OperatorMutation;

#[Object]
impl OperatorMutation {
    /// Creates an operator with its first API key. Platform key only. This mutation has no idempotency key: if the
    /// response is lost, wait 6 minutes, and look for the operator in `operators`. If it exists, revoke its key, and
    /// create a new key with `createApiKey`.
    async fn create_operator(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The operator to create.")] input: CreateOperatorInput,
    ) -> Option<Result<CreateOperatorPayload, Error>> {
        Some(create_operator(context, &input).await)
    }

    /// Renames, suspends or resumes an operator, or changes its disclosure budget (see `Operator.disclosuresPerHour`).
    /// Omitted fields stay as they are. Within a second, all servers reject all keys of a suspended operator, and
    /// accept the keys of a resumed operator. Platform key only.
    async fn update_operator(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The operator and the changes to it.")] input: UpdateOperatorInput,
    ) -> Option<Result<UpdateOperatorPayload, Error>> {
        Some(update_operator(context, input).await)
    }

    /// Creates an additional API key for an operator. Platform key only. To rotate a key: create a new key, use the new
    /// key in all your programs, and revoke the old key when its `lastUsedAt` no longer changes. This mutation has no
    /// idempotency key: if the response is lost, wait 6 minutes, read the operator's `apiKeys`, revoke the key whose
    /// secret you did not receive, and create another key.
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

    /// Revokes all API keys of an operator permanently, for example after a leak. The keys stop working on all servers
    /// within a second. Platform key only.
    async fn revoke_api_keys(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The operator whose API keys are revoked.")] input: RevokeApiKeysInput,
    ) -> Option<Result<RevokeApiKeysPayload, Error>> {
        Some(revoke_api_keys(context, &input).await)
    }
}

async fn create_operator(context: &Context<'_>, input: &CreateOperatorInput) -> Result<CreateOperatorPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let name = DisplayName::parse(&input.name)
        .map_err(|reason| Violation::of(ErrorCode::InvalidName, InputField::Name).with_reason(reason))?;
    let (operator, key) = services.operators.create(caller, request_info(context), name).await?;
    let secret = key.secret.expose_secret().to_owned();
    Ok(CreateOperatorPayload { operator: Operator(Arc::new(operator)), api_key: key.row.into(), secret })
}

async fn update_operator(context: &Context<'_>, input: UpdateOperatorInput) -> Result<UpdateOperatorPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let id = OperatorId::parse_or_unknown(&input.id);
    let operator = services.operators.update(caller, request_info(context), id, input.parse()?).await?;
    Ok(UpdateOperatorPayload { operator: Operator(Arc::new(operator)) })
}

async fn create_api_key(context: &Context<'_>, input: CreateApiKeyInput) -> Result<CreateApiKeyPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let operator = OperatorId::parse_or_unknown(&input.operator_id);
    let key = services.api_keys.create(caller, request_info(context), operator, input.parse()?).await?;
    Ok(CreateApiKeyPayload { secret: key.secret.expose_secret().to_owned(), api_key: key.row.into() })
}

async fn revoke_api_key(context: &Context<'_>, input: &RevokeApiKeyInput) -> Result<RevokeApiKeyPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let id = ApiKeyId::parse_or_unknown(&input.id);
    Ok(RevokeApiKeyPayload { api_key: services.api_keys.revoke(caller, request_info(context), id).await?.into() })
}

async fn revoke_api_keys(context: &Context<'_>, input: &RevokeApiKeysInput) -> Result<RevokeApiKeysPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let operator = OperatorId::parse_or_unknown(&input.operator_id);
    let revoked = services.api_keys.revoke_all(caller, request_info(context), operator).await?;
    Ok(RevokeApiKeysPayload { api_keys: revoked.into_iter().map(Into::into).collect() })
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
    /// The API key itself, to send in the `Authorization: Bearer <key>` header. It is shown only here, so store it
    /// safely.
    secret: String,
}

/// Input of `updateOperator`.
#[derive(InputObject)]
struct UpdateOperatorInput {
    /// Id of the operator, for example `op_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// New name of the operator, 1 to 100 characters. Cannot be null.
    name: MaybeUndefined<String>,
    /// New status of the operator. Cannot be null.
    status: MaybeUndefined<OperatorStatus>,
    /// New disclosure budget: maximum number of disclosures per hour on each server, at least 1 (see
    /// `Operator.disclosuresPerHour`). Null restores the service default.
    disclosures_per_hour: MaybeUndefined<i32>,
}

impl UpdateOperatorInput {
    fn parse(self) -> Result<OperatorChanges, Error> {
        let mut violations = Violations::default();
        let name = violations.not_null(ErrorCode::InvalidName, InputField::Name, self.name, DisplayName::parse);
        if self.status.is_null() {
            violations.argument(InputField::Status, "`status` cannot be null. Omit it to keep the current status.");
        }
        let disclosures_per_hour = optional(self.disclosures_per_hour, Some);
        let changes = OperatorChanges { name, status: self.status.take().map(Status::from), disclosures_per_hour };
        violations.check(changes.check());
        violations.finish(changes)
    }
}

/// The result of `updateOperator`.
#[derive(SimpleObject)]
struct UpdateOperatorPayload {
    /// The updated operator.
    operator: Operator,
}

/// Input of `createApiKey`.
#[derive(InputObject)]
struct CreateApiKeyInput {
    /// Id of the operator that the key is for, for example `op_01h455vb4pex5vsknk084sn02q`.
    operator_id: ID,
    /// Name of the key, 1 to 100 characters, so that you can recognise the key.
    name: String,
    /// Access level of the key.
    #[graphql(default_with = "ApiKeyAccess::ReadWrite")]
    access: ApiKeyAccess,
    /// Time in the future at which the key expires. If omitted, the key does not expire.
    expires_at: Option<Time>,
}

impl CreateApiKeyInput {
    fn parse(self) -> Result<NewApiKey, Error> {
        let mut violations = Violations::default();
        let name = violations.value(ErrorCode::InvalidName, InputField::Name, DisplayName::parse(&self.name));
        let expires_at = self.expires_at.map(|Time(time)| time);
        violations.check(check_expiry(expires_at));
        let name = violations.finish_parsed(name)?;
        Ok(NewApiKey { name, access: self.access.into(), expires_at })
    }
}

/// The result of `createApiKey`.
#[derive(SimpleObject)]
struct CreateApiKeyPayload {
    /// The new API key.
    api_key: ApiKey,
    /// The API key itself, to send in the `Authorization: Bearer <key>` header. It is shown only here, so store it
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

/// Input of `revokeApiKeys`.
#[derive(InputObject)]
struct RevokeApiKeysInput {
    /// Id of the operator, for example `op_01h455vb4pex5vsknk084sn02q`.
    operator_id: ID,
}

/// The result of `revokeApiKeys`.
#[derive(SimpleObject)]
struct RevokeApiKeysPayload {
    /// The API keys that this request revoked, oldest first. Keys that were revoked before are omitted.
    api_keys: Vec<ApiKey>,
}
