use async_graphql::connection::PageInfo;
use async_graphql::{ComplexObject, Context, Enum, ID, Object, SimpleObject};
use chrono::{DateTime, Utc};
use entity::value::OperatorId;
use entity::{api_key, operator};

use super::cursor::Cursors;
use super::customer::CustomerConnection;
use super::customer_input::CustomerFilterInput;
use super::pagination::{PageArguments, page_info, total};
use super::{actor, services};
use crate::error::Error;
use crate::keyed_hash::KeyedHash;
use crate::service::customers::CustomerList;
use crate::service::page::Positioned;

pub struct Operator(operator::Model);

impl Operator {
    /// The operator with this id, if the caller may see it.
    pub async fn find(context: &Context<'_>, id: OperatorId) -> Result<Option<Self>, Error> {
        Ok(services(context).operators.find(actor(context), &[id]).await?.remove(&id).map(Self))
    }
}

impl From<operator::Model> for Operator {
    fn from(row: operator::Model) -> Self {
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
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// The operator's customers, the one connected first first.
    async fn customers(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Only customers that have all of these values.")] filter: Option<CustomerFilterInput>,
    ) -> Option<Result<CustomerConnection, Error>> {
        let list = match filter.unwrap_or_default().parse() {
            Ok(filter) => CustomerList { operator: Some(self.0.id), filter },
            Err(error) => return Some(Err(error)),
        };
        Some(CustomerConnection::load(context, list, PageArguments { first, after, last, before }).await)
    }
}

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
    created_at: DateTime<Utc>,
    /// When the key was revoked. Null while it is valid.
    revoked_at: Option<DateTime<Utc>>,
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
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        }
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
    cursor: String,
    /// The operator.
    node: Operator,
}

impl OperatorConnection {
    async fn load(context: &Context<'_>, arguments: PageArguments) -> Result<Self, Error> {
        let actor = actor(context);
        let hash = context.data_unchecked::<KeyedHash>();
        let cursors = Cursors { hash, list: vec![b"operators".to_vec(), format!("{:?}", actor.operator()).into()] };
        let page = services(context).operators.page(actor, arguments.parse(&cursors)?).await?;
        Ok(Self {
            page_info: page_info(&page, &cursors),
            edges: page
                .rows
                .into_iter()
                .map(|row| OperatorEdge { cursor: cursors.encode(row.position()), node: Operator(row) })
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
