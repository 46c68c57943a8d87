//! `Operator` and lists of operators.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use entity::value::OperatorId;

use super::api_key::ApiKey;
use super::types::{CustomerConnection, Operator};
use crate::database::pages::HasPosition;
use crate::error::Error;
use crate::graphql::context::{caller, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::fetch::{self, ApiKeysOfOperator};
use crate::graphql::inputs::{CustomerFilterInput, CustomerOrderInput};
use crate::graphql::items::Items;
use crate::graphql::json_writer::{CannotWriteJson, FieldWriter, SelectedField, WriteJson};
use crate::graphql::pagination::{Connection, Edge, PageArguments, list_complexity, total_count};
use crate::graphql::time::Time;

impl Operator {
    /// Returns the operator, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, id: OperatorId) -> Result<Option<Self>, Error> {
        Ok(services(context).operators.find_by_ids(caller(context), &[id]).await?.remove(&id).map(Self))
    }
}

/// Status of an operator. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::operator::Status")]
pub enum OperatorStatus {
    /// The keys of the operator are accepted, unless they are revoked or expired.
    Active,
    /// All keys of the operator are rejected with `UNAUTHENTICATED`, and nothing is delivered to its webhook endpoints.
    /// Its customers stay connected.
    Suspended,
}

/// A business on the platform.
#[Object]
impl Operator {
    /// Global id, for example `op_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Name of the operator.
    async fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// Time at which the operator was created.
    async fn created_at(&self) -> Time {
        Time(self.0.created_at)
    }

    /// Status of the operator. A change is visible on all servers within a second.
    async fn status(&self) -> OperatorStatus {
        self.0.status.into()
    }

    /// Disclosure budget: maximum number of disclosures per hour on each server, at least 1. A disclosure is an email
    /// or phone in a mutation that matched a customer that is not connected to the operator. Null: the service default
    /// applies.
    async fn disclosures_per_hour(&self) -> Option<i32> {
        self.0.disclosures_per_hour
    }

    /// API keys of the operator, oldest first, including revoked and expired ones. Null only if the read fails (see
    /// `errors`).
    async fn api_keys(&self, context: &Context<'_>) -> Option<Result<Items<ApiKey>, Error>> {
        // Boxed. Without the box, the future of each field of `Operator` would be as large as this future.
        let keys = Box::pin(fetch::loader(context).load_one(ApiKeysOfOperator(self.0.id))).await;
        Some(keys.map(|keys| keys.into_iter().flatten().map(Into::into).collect()))
    }

    /// Customers connected to the operator, by default oldest connection first. With some filters, a page may have
    /// fewer items than requested although more follow: continue while `hasNextPage` is true.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn customers(
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
        #[graphql(desc = "Conditions that the customers must match.")] filter: Option<CustomerFilterInput>,
        #[graphql(desc = "Sort order. Default: oldest connection first. Not available with `search`.")]
        order_by: Option<CustomerOrderInput>,
    ) -> Option<Result<CustomerConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        // Boxed. Without the box, the future of each field of `Operator` would be as large as this future.
        Some(Box::pin(CustomerConnection::load(context, Some(self.0.id), filter, order_by, arguments)).await)
    }
}

impl WriteJson for Operator {
    const MAY_WAIT: &'static [&'static str] = &["apiKeys", "customers"];

    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        match field.name() {
            "id" => field.id(|operator: &Self| operator.0.id),
            "name" => field.string(|operator: &Self| Some(operator.0.name.as_str())),
            _ => field.resolver(),
        }
    }
}

pub type OperatorConnection = Connection<OperatorEdge, OperatorCount>;

/// An operator in a list.
#[derive(SimpleObject)]
pub struct OperatorEdge {
    /// Cursor of this operator, for `after` and `before`.
    cursor: Cursor,
    /// The operator.
    node: Operator,
}

impl Edge for OperatorEdge {
    type Node = Operator;

    fn node(&self) -> &Operator {
        &self.node
    }
}

pub struct OperatorCount;

#[Object]
impl OperatorCount {
    /// Number of operators in the list. Null if there are more than 1,000,000. Computed only if requested.
    async fn total_count(&self, context: &Context<'_>) -> Option<Result<i32, Error>> {
        total_count(services(context).operators.count(caller(context)).await)
    }
}

impl OperatorConnection {
    /// Reads a page of the operators that the caller may see.
    pub async fn load(context: &Context<'_>, arguments: PageArguments) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListId::Operators);
        let page = services(context).operators.page(caller(context), arguments.parse(Some(&cursors))?).await?;
        let edge = |cursor, row| OperatorEdge { cursor, node: Operator(Arc::new(row)) };
        Ok(Self::new(page, &cursors, HasPosition::position, OperatorCount, edge))
    }
}
