//! Renders the changes and the cursor of a webhook delivery in the form that the `changes` query returns.

use async_graphql::ScalarType;
use async_graphql::resolver_utils::enum_value;
use entity::customer_change;
use entity::value::OperatorId;
use serde_json::{Value as Json, json};

use super::cursor::{Cursors, ListId};
use super::objects::ChangeType;
use super::time::Time;
use crate::keyed_hash::KeyedHasher;
use crate::service::customers::CustomerField;
use crate::service::feed_positions::FeedPosition;
use crate::service::webhooks::delivery::ChangeRenderer;

/// Renders changes and cursors for deliveries as the `changes` query does.
pub struct ApiChangeRenderer {
    /// Signs cursors.
    pub hasher: KeyedHasher,
}

impl ChangeRenderer for ApiChangeRenderer {
    fn change(&self, change: &customer_change::Model) -> Json {
        json!({
            "id": change.id.to_string(),
            "type": enum_value(ChangeType::from(change.r#type)),
            "occurredAt": Time(change.occurred_at).to_value(),
            "customerId": change.customer_id.to_string(),
            "externalCustomerId": change.external_customer_id.as_ref().map(|id| id.as_str()),
            "version": change.version,
            "changedFields": CustomerField::changed_in(change).map(enum_value).collect::<Vec<_>>(),
            "own": change.own,
        })
    }

    fn cursor(&self, operator: OperatorId, position: FeedPosition) -> String {
        Cursors::of(self.hasher.clone(), Some(operator), ListId::Changes).encode(&position.into())
    }
}
