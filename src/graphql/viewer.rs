use async_graphql::{Context, Enum, Object};

use super::operator::Operator;
use super::{actor, services};
use crate::error::Error;
use crate::service::Actor;

struct Viewer;

/// Where this deployment stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::deployment::Environment")]
enum Environment {
    /// For trying out: what production would refuse in an email or a phone is accepted, with a warning.
    Sandbox,
    /// For real customers: disposable and plus-suffix emails and phones that are not mobile lines are refused.
    Production,
}

/// What a caller may do.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum Role {
    /// Reads and writes the customers of its operator.
    Operator,
    /// Reads the customers of its operator.
    OperatorReadOnly,
    /// Reads everything, and manages operators and their keys.
    Platform,
}

/// Who calls, and where.
#[Object]
impl Viewer {
    /// Where this deployment stands.
    async fn environment(&self, context: &Context<'_>) -> Environment {
        services(context).environment.into()
    }

    /// What the key of this request may do.
    async fn role(&self, context: &Context<'_>) -> Role {
        use entity::api_key::Access;
        match actor(context) {
            Actor::Operator { access: Access::ReadWrite, .. } => Role::Operator,
            Actor::Operator { access: Access::ReadOnly, .. } => Role::OperatorReadOnly,
            Actor::Platform => Role::Platform,
        }
    }

    /// The operator that the key of this request belongs to. Null for the platform's own key.
    async fn operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Operator::find(context, actor(context).operator()?).await.transpose()
    }
}

#[derive(Default)]
pub struct ViewerQuery;

#[Object]
impl ViewerQuery {
    /// Who calls, and in which environment: a first query to try a key with.
    async fn viewer(&self) -> Viewer {
        Viewer
    }
}
