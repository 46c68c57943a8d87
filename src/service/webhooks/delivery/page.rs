//! Reads the next page of changes, and builds the attempt to deliver it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use entity::customer_change;
use entity::webhook::Model;
use ring::digest;
use serde::Serialize;
use serde_json::Value as Json;

use super::Deliveries;
use crate::error::Error;
use crate::service::feed::FeedRequest;
use crate::service::feed_positions::FeedPosition;
use crate::service::webhooks::endpoints::cursor;
use crate::service::webhooks::sender::Attempt;
use crate::service::webhooks::signature::sign;

/// The next page of an endpoint.
pub(super) struct NextPage {
    /// The changes to send. Empty if no change has a type that the endpoint wants.
    pub(super) changes: Vec<RenderedChange>,
    /// The cursor after the page.
    pub(super) end: FeedPosition,
    pub(super) has_more: bool,
}

/// A change, and its form in a delivery.
pub(super) struct RenderedChange {
    pub(super) row: customer_change::Model,
    json: Json,
}

/// The body of a delivery.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    /// The time of the last change.
    timestamp: &'a Json,
    data: BodyData<'a>,
}

#[derive(Serialize)]
struct BodyData<'a> {
    changes: Vec<&'a Json>,
    /// The cursor after these changes in the feed of the operator.
    cursor: String,
}

const PAGE_CHANGES: usize = 100;
/// The number of changes that are read for a page of an endpoint with `types`.
const EXAMINED_CHANGES: usize = 500;
const MAX_BODY_BYTES: usize = 20_000;
/// An upper bound on the size of a body without changes, plus the bytes by which erasures can lengthen a page: at most
/// one for each change.
const ENVELOPE_BYTES: usize = 500;
/// The number of bytes of a message id, which is a hash.
const ID_BYTES: usize = 16;

impl Deliveries {
    /// Reads the changes after the cursor of an endpoint. If an attempt was made before, reads the same changes again.
    pub(super) async fn next_page(&self, endpoint: &Model) -> Result<NextPage, Error> {
        let cursor = cursor(endpoint);
        let sending = endpoint.sending_position.zip(endpoint.sending_id);
        let sending_end = sending.map(|(number, id)| FeedPosition { number, id });
        // The changes of other types are left out here and not by the query, because a query for some types is a long
        // read, of which only one at a time runs for all deliveries.
        let size = if endpoint.types.is_some() { EXAMINED_CHANGES } else { PAGE_CHANGES };
        let request = FeedRequest { size, after: Some(cursor), types: None };
        let mut page = self.services.feed.read_page(endpoint.operator_id, request).await?;
        if let Some(types) = &endpoint.types {
            page.changes.retain(|change| types.0.contains(&change.r#type));
        }
        let (found, mut bytes) = (page.changes.len(), ENVELOPE_BYTES);
        // The end of a repeated page is stored. An erasure may have made the page larger, because null is longer than
        // an external id of one character.
        let is_repeated = sending_end.is_some();
        let fits = |change: &RenderedChange| {
            is_repeated || {
                bytes += change.json.to_string().len() + 1;
                bytes <= MAX_BODY_BYTES
            }
        };
        let is_sending = |row: &customer_change::Model| sending_end.is_none_or(|end| FeedPosition::from(row) <= end);
        let rows = page.changes.into_iter().take(PAGE_CHANGES).take_while(is_sending);
        let rendered = rows.map(|row| RenderedChange { json: self.settings.renderer.change(&row), row });
        let changes: Vec<_> = rendered.take_while(fits).collect();
        if changes.len() == found {
            return Ok(NextPage { changes, end: page.end, has_more: page.has_more });
        }
        let end = changes.last().map_or(cursor, |last| FeedPosition::from(&last.row));
        Ok(NextPage { changes, end, has_more: true })
    }

    /// Builds an attempt to deliver these changes, of which `last` is the last one. Each attempt for the same changes
    /// has the same id. The body is the same too, unless a customer was erased or the key secret was changed in the
    /// meantime.
    pub(super) fn attempt(&self, endpoint: &Model, changes: &[RenderedChange], last: &RenderedChange) -> Attempt {
        let cursor = self.settings.renderer.cursor(endpoint.operator_id, FeedPosition::from(&last.row));
        let body = serde_json::to_vec(&Body {
            r#type: "customer.changes",
            timestamp: &last.json["occurredAt"],
            data: BodyData { changes: changes.iter().map(|change| &change.json).collect(), cursor },
        });
        let body = body.expect("strings and JSON values can be serialized");
        let (id, now) = (message_id(endpoint, changes), self.now());
        let secrets = self.services.webhooks.secrets(endpoint, now);
        let timestamp = now.timestamp();
        Attempt { signatures: sign(&secrets, &id, timestamp, &body), id, timestamp, body }
    }
}

/// Returns the id of the message with these changes. Depends only on the endpoint and the changes.
fn message_id(endpoint: &Model, changes: &[RenderedChange]) -> String {
    let mut hasher = digest::Context::new(&digest::SHA256);
    hasher.update(endpoint.id.as_uuid().as_bytes());
    for change in changes {
        hasher.update(change.row.id.as_uuid().as_bytes());
    }
    let hash = hasher.finish();
    format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..ID_BYTES]))
}
