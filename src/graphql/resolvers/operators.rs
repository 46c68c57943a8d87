//! Queries and mutations of operators.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::value::OperatorId;
use secrecy::ExposeSecret;

use super::api_keys::parse_name;
use crate::error::Error;
use crate::graphql::context::{actor, services};
use crate::graphql::objects::{ApiKey, Operator, OperatorConnection};
use crate::graphql::pagination::{PageArguments, list_complexity};

#[derive(Default)]
pub struct OperatorQuery;

#[Object]
impl OperatorQuery {
    /// Looks up one operator. Returns null if it does not exist or the caller may not see it. An operator sees only itself.
    async fn operator(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Id of the operator, for example `op_01h455vb4pex5vsknk084sn02q`. Default: the calling operator. Required with the platform key."
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
}

async fn create_operator(context: &Context<'_>, input: &CreateOperatorInput) -> Result<CreateOperatorPayload, Error> {
    let (services, actor) = (services(context), actor(context));
    actor.require_platform()?;
    let (operator, key) = services.operators.create(actor, parse_name(&input.name)?).await?;
    let secret = key.secret.expose_secret().to_owned();
    Ok(CreateOperatorPayload { operator: Operator(Arc::new(operator)), api_key: key.row.into(), secret })
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
    /// The operator's first API key, with access `READ_WRITE` and without an expiry.
    api_key: ApiKey,
    /// The secret to send in the header `Authorization: Bearer <secret>`. It is shown only here; store it safely.
    secret: String,
}
