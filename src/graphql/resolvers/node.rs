//! The query `node`, by which Relay refetches objects.

use async_graphql::{Context, ID, Interface, Object};
use entity::value::{CustomerEventId, CustomerId, OperatorId};

use crate::error::Error;
use crate::graphql::objects::{Customer, CustomerEvent, Operator};
use crate::service::customers::CustomerRef;

/// An object with a global id.
#[derive(Interface)]
#[expect(clippy::large_enum_variant, reason = "a node lives as long as one field is resolved")]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "Global id. Its prefix tells the type: `cus_` for a customer, `op_` for an operator, `evt_` for a history entry."
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
    /// Looks up any object by its global id. Returns null if it does not exist or the caller may not see it.
    async fn node(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.")] id: ID,
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
