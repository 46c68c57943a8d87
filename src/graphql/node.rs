use async_graphql::{Context, ID, Interface, Object};
use entity::value::{CustomerEventId, CustomerId, OperatorId};

use super::customer::Customer;
use super::history::CustomerEvent;
use super::operator::Operator;
use crate::error::Error;
use crate::service::customers::CustomerRef;

/// Anything that has an id of its own.
#[derive(Interface)]
#[expect(clippy::large_enum_variant, reason = "it lives for one field, and is not kept")]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "The id, unique among all kinds of things. Its prefix tells the kind: `cus_…`, `op_…`, `evt_…`."
))]
enum Node {
    Customer(Customer),
    Operator(Operator),
    CustomerEvent(CustomerEvent),
}

#[derive(Default)]
pub struct NodeQuery;

#[Object]
impl NodeQuery {
    /// The customer, operator or entry of a history with this id. Null if there is none, or if it is not yours to see.
    async fn node(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The id, such as `cus_01h455vb4pex5vsknk084sn02q`.")] id: ID,
    ) -> Option<Result<Node, Error>> {
        if let Some(id) = CustomerId::parse(&id) {
            let customer = Customer::find(context, &CustomerRef::Id(id)).await.transpose()?;
            return Some(customer.map(Node::Customer));
        }
        if let Some(id) = CustomerEventId::parse(&id) {
            let event = CustomerEvent::find(context, id).await.transpose()?;
            return Some(event.map(Node::CustomerEvent));
        }
        let operator = Operator::find(context, OperatorId::parse(&id)?).await.transpose()?;
        Some(operator.map(Node::Operator))
    }
}
