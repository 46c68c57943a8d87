//! The `viewer` query.

use async_graphql::{Context, Enum, Object};
use entity::api_key::Access;

use crate::error::Error;
use crate::graphql::context::{caller, services};
use crate::graphql::cursor::Cursor;
use crate::graphql::objects::{ChangeFeed, Operator};
use crate::service::Caller;

#[derive(Default)]
pub struct ViewerQuery;

#[Object]
impl ViewerQuery {
    /// The caller and its environment. Use this query to check an API key.
    async fn viewer(&self) -> Viewer {
        Viewer
    }
}

struct Viewer;

/// The caller and its environment.
#[Object]
impl Viewer {
    /// Environment of this deployment.
    async fn environment(&self, context: &Context<'_>) -> Environment {
        services(context).environment.into()
    }

    /// Role of the API key of this request.
    async fn role(&self, context: &Context<'_>) -> Role {
        match caller(context) {
            Caller::Operator { access: Access::ReadWrite, .. } => Role::Operator,
            Caller::Operator { access: Access::ReadOnly, .. } => Role::OperatorReadOnly,
            Caller::Platform => Role::Platform,
        }
    }

    /// Operator that the API key of this request belongs to. Null for the platform key.
    async fn operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Operator::find(context, caller(context).operator()?).await.transpose()
    }

    /// Cursor of the end of the change feed, to pass to `changes` as `after`. Read this cursor before you read all
    /// customers for the first time. Null only if the read fails (see `errors`).
    async fn changes_cursor(&self, context: &Context<'_>) -> Option<Result<Cursor, Error>> {
        Some(ChangeFeed::end(context).await)
    }
}

/// Environment of a deployment. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::deployment::Environment")]
enum Environment {
    /// Test environment. Well-formed emails and phones that production rejects are accepted here, with a warning.
    /// Sandbox makes no carrier lookups.
    Sandbox,
    /// Live environment. Disposable emails, emails with a plus suffix and phones that are not mobile are rejected.
    Production,
}

/// Role of an API key. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum Role {
    /// Reads and writes the customers and the webhook endpoints of its operator.
    Operator,
    /// Reads the customers and the webhook endpoints of its operator.
    OperatorReadOnly,
    /// Reads everything, manages operators, API keys and webhook endpoints, and updates, disconnects, verifies and
    /// erases customers.
    Platform,
}
