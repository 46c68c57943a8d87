use std::sync::Arc;

use async_graphql::{ComplexObject, Context, ID, InputObject, Object, SimpleObject};
use entity::operator;
use entity::value::OperatorId;
use secrecy::ExposeSecret;

use super::api_key::{ApiKey, KeysOf, name};
use super::cursor::{Cursor, Cursors, ListName};
use super::customer::CustomerConnection;
use super::customer_input::{CustomerFilterInput, CustomerOrderInput};
use super::pagination::{PageArguments, PageInfo, complexity, total};
use super::time::Time;
use super::{actor, loader, services};
use crate::database::pages::Positioned;
use crate::error::Error;

pub struct Operator(Arc<operator::Model>);

impl Operator {
    /// The operator with this id, if the caller may see it.
    pub async fn find(context: &Context<'_>, id: OperatorId) -> Result<Option<Self>, Error> {
        Ok(services(context).operators.find(actor(context), &[id]).await?.remove(&id).map(Self))
    }
}

impl From<Arc<operator::Model>> for Operator {
    fn from(row: Arc<operator::Model>) -> Self {
        Self(row)
    }
}

/// A business on the platform.
#[Object]
impl Operator {
    /// The operator's id, such as `op_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// The operator's name.
    async fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// When the operator joined the platform.
    async fn created_at(&self) -> Time {
        self.0.created_at.into()
    }

    /// The operator's keys, the oldest first, those that are revoked or expired included.
    async fn api_keys(&self, context: &Context<'_>) -> Option<Result<Vec<ApiKey>, Error>> {
        let keys = Box::pin(loader(context).load_one(KeysOf(self.0.id))).await;
        Some(keys.map(|keys| keys.unwrap_or_default().into_iter().map(Into::into).collect()))
    }

    /// The operator's customers, the one connected first first.
    #[graphql(complexity = "complexity(first, last, child_complexity)")]
    async fn customers(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Only customers of whom all of this holds.")] filter: Option<CustomerFilterInput>,
        #[graphql(desc = "In which order: by default the one connected first first. Not beside `search`.")]
        order_by: Option<CustomerOrderInput>,
    ) -> Option<Result<CustomerConnection, Error>> {
        let list = match filter.unwrap_or_default().list(Some(self.0.id), order_by) {
            Ok(list) => list,
            Err(error) => return Some(Err(error)),
        };
        // Each field of an operator would else have room for it.
        Some(Box::pin(CustomerConnection::load(context, list, PageArguments { first, after, last, before })).await)
    }
}

/// A page of operators.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct OperatorConnection {
    /// The operators of this page.
    edges: Vec<OperatorEdge>,
    /// How to get to the pages before and after this one.
    page_info: PageInfo,
}

/// An operator in a page.
#[derive(SimpleObject)]
pub struct OperatorEdge {
    /// The operator's place in the list, for `after` and `before`.
    cursor: Cursor,
    /// The operator.
    node: Operator,
}

impl OperatorConnection {
    async fn load(context: &Context<'_>, arguments: PageArguments) -> Result<Self, Error> {
        let actor = actor(context);
        let cursors = Cursors::new(context, ListName::Operators);
        let page = services(context).operators.page(actor, arguments.parse(&cursors)?).await?;
        Ok(Self {
            page_info: PageInfo::of(&page, &cursors),
            edges: page
                .rows
                .into_iter()
                .map(|row| OperatorEdge { cursor: cursors.at(row.position()), node: Operator(Arc::new(row)) })
                .collect(),
        })
    }
}

#[ComplexObject]
impl OperatorConnection {
    /// How many operators there are in all. Counted only when asked for.
    async fn total_count(&self, context: &Context<'_>) -> Option<Result<i32, Error>> {
        total(services(context).operators.count(actor(context)).await)
    }
}

#[derive(Default)]
pub struct OperatorQuery;

#[Object]
impl OperatorQuery {
    /// The operator with this id, or your own. An operator sees itself alone.
    async fn operator(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The operator's id. Left out: your own operator, which the platform does not have.")]
        id: Option<ID>,
    ) -> Option<Result<Operator, Error>> {
        let id = match id {
            Some(id) => OperatorId::parse(&id),
            None => actor(context).operator(),
        };
        Operator::find(context, id?).await.transpose()
    }

    /// The operators that you may see, the oldest first: for the platform all of them, for an operator itself alone.
    #[graphql(complexity = "complexity(first, last, child_complexity)")]
    async fn operators(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Result<OperatorConnection, Error>> {
        Some(OperatorConnection::load(context, PageArguments { first, after, last, before }).await)
    }
}

/// An operator to create.
#[derive(InputObject)]
struct CreateOperatorInput {
    /// The operator's name, 1 to 100 characters.
    name: String,
}

/// What became of a `createOperator`.
#[derive(SimpleObject)]
struct CreateOperatorPayload {
    /// The new operator.
    operator: Operator,
    /// Its first key, which reads and writes and does not expire.
    api_key: ApiKey,
    /// The key itself, for the `Authorization` header. It is shown this once, and is nowhere else.
    secret: String,
}

#[derive(Default)]
pub struct OperatorMutation;

#[Object]
impl OperatorMutation {
    /// Creates an operator with a first key. For the platform's key alone.
    async fn create_operator(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Who the operator is.")] input: CreateOperatorInput,
    ) -> Option<Result<CreateOperatorPayload, Error>> {
        Some(CreateOperatorPayload::of(context, &input.name).await)
    }
}

impl CreateOperatorPayload {
    async fn of(context: &Context<'_>, given: &str) -> Result<Self, Error> {
        let (services, actor) = (services(context), actor(context));
        actor.require_platform()?;
        let (operator, key) = services.operators.create(actor, &services.api_keys, name(given)?).await?;
        let secret = key.secret.expose_secret().to_owned();
        Ok(Self { operator: Arc::new(operator).into(), api_key: key.row.into(), secret })
    }
}
