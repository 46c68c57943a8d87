//! The `node` query, with which Relay refetches an object. API keys are not nodes: clients refetch them through
//! `Operator.apiKeys`.

use async_graphql::{Context, ID, Interface, Object};
use entity::value::{AdminEventId, CustomerEventId, CustomerId, ErasureId, OperatorId, WebhookId};

use crate::error::Error;
use crate::graphql::objects::{AdminEvent, Customer, CustomerEvent, Erasure, Operator, Webhook};
use crate::service::customers::CustomerRef;

/// An object with a global id.
#[derive(Interface)]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "Global id, prefixed by type: `cus_`, `op_`, `evt_` (history entry), `era_` (erasure), `adm_` (audit log), `wh_`."
))]
enum Node {
    Customer(Customer),
    Operator(Operator),
    CustomerEvent(CustomerEvent),
    Erasure(Erasure),
    AdminEvent(AdminEvent),
    Webhook(Webhook),
}

#[derive(Default)]
pub struct NodeQuery;

#[Object]
impl NodeQuery {
    /// Looks up an object of a type that implements `Node` by its global id. Returns null if the object does not exist
    /// or the caller may not see it.
    async fn node(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.")] id: ID,
    ) -> Option<Result<Node, Error>> {
        let found = if let Some(id) = CustomerId::parse(&id) {
            Customer::find(context, &CustomerRef::Id(id)).await.map(|found| found.map(Node::Customer))
        } else if let Some(id) = CustomerEventId::parse(&id) {
            CustomerEvent::find(context, id).await.map(|found| found.map(Node::CustomerEvent))
        } else if let Some(id) = ErasureId::parse(&id) {
            Erasure::find(context, id).await.map(|found| found.map(Node::Erasure))
        } else if let Some(id) = AdminEventId::parse(&id) {
            AdminEvent::find(context, id).await.map(|found| found.map(Node::AdminEvent))
        } else if let Some(id) = WebhookId::parse(&id) {
            Webhook::find(context, id).await.map(|found| found.map(Node::Webhook))
        } else {
            Operator::find(context, OperatorId::parse(&id)?).await.map(|found| found.map(Node::Operator))
        };
        found.transpose()
    }
}
