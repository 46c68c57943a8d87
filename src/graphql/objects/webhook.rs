//! `Webhook` and the list of webhook endpoints.

use async_graphql::connection::EmptyFields;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use entity::value::WebhookId;
use entity::webhook;

use super::change::ChangeType;
use super::types::Operator;
use crate::database::pages::HasPosition;
use crate::error::Error;
use crate::graphql::context::{caller, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::fetch::{self, UndeliveredSince};
use crate::graphql::json_writer::WriteJson;
use crate::graphql::pagination::{Connection, Edge, PageArguments};
use crate::graphql::time::Time;
use crate::service::webhooks::endpoints;

/// Reason why a delivery failed, or why the service disabled the endpoint. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::webhook::Failure")]
enum WebhookFailure {
    /// The receiver responded with a status other than 2xx (redirects included): see `lastStatus`.
    Status,
    /// The receiver did not accept the connection within 5 seconds, or did not respond within 15 seconds.
    Timeout,
    /// The connection failed: the host refused or closed the connection, or its certificate is not valid.
    Connection,
    /// The host is not reachable from the internet: its name could not be resolved (also while DNS fails), or all its
    /// addresses are private or reserved.
    ForbiddenAddress,
    /// Changes after the cursor are no longer stored, so the endpoint was disabled. Call `updateWebhook` with
    /// `deliverFrom` and `enabled: true`, and then read all customers, because the deleted changes are not delivered.
    CursorExpired,
}

pub struct Webhook(pub webhook::Model);

impl Webhook {
    /// Returns the endpoint, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, id: WebhookId) -> Result<Option<Self>, Error> {
        Ok(services(context).webhooks.find(caller(context), id).await?.map(Self))
    }
}

/// A webhook endpoint: a URL to which the service delivers the changes to an operator's customers, in the order of the
/// `changes` feed.
#[Object]
impl Webhook {
    /// Global id, for example `wh_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Operator that the endpoint belongs to. Null only if the read fails (see `errors`).
    async fn operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Some(fetch::load(context, self.0.operator_id).await.map(Operator))
    }

    /// URL that deliveries are sent to. Null with a read-only key, because a URL may contain a token.
    async fn url(&self, context: &Context<'_>) -> Option<&str> {
        (!caller(context).is_read_only()).then_some(self.0.url.as_str())
    }

    /// Types of the changes that are delivered. Null means all types.
    async fn types(&self) -> Option<Vec<ChangeType>> {
        self.0.types.as_ref().map(|types| types.0.iter().copied().map(Into::into).collect())
    }

    /// Cursor of the last change that was delivered or skipped, to pass to `changes` as `after`. Null for the platform
    /// key.
    async fn cursor(&self, context: &Context<'_>) -> Option<Cursor> {
        let cursor = || Cursors::new(context, ListId::Changes).at(endpoints::cursor(&self.0).into());
        caller(context).operator().map(|_| cursor())
    }

    /// Time of the oldest change after `cursor`, even if `types` excludes it. Null if there is none.
    async fn undelivered_since(&self, context: &Context<'_>) -> Option<Result<Time, Error>> {
        let key = UndeliveredSince { operator: self.0.operator_id, cursor: endpoints::cursor(&self.0) };
        fetch::load(context, key).await.map(|time| time.map(Time)).transpose()
    }

    /// False if the endpoint was disabled: by `updateWebhook`, after a response with status 410, after five days of
    /// failed deliveries, or because undelivered changes were deleted.
    async fn enabled(&self) -> bool {
        self.0.disabled_at.is_none()
    }

    /// Time at which the endpoint was disabled. Null if it is enabled.
    async fn disabled_at(&self) -> Option<Time> {
        self.0.disabled_at.map(Time)
    }

    /// Time at which the endpoint was created.
    async fn created_at(&self) -> Time {
        Time(self.0.created_at)
    }

    /// Time at which the current secret was created.
    async fn secret_created_at(&self) -> Time {
        Time(self.0.secret_created_at)
    }

    /// Time until which deliveries are also signed with the previous secret. Null if the secret was never rotated.
    async fn previous_secret_until(&self) -> Option<Time> {
        self.0.previous_secret_until.map(Time)
    }

    /// Time of the last attempt to deliver. Null if there was none.
    async fn last_attempt_at(&self) -> Option<Time> {
        self.0.last_attempt_at.map(Time)
    }

    /// HTTP status of the response to the last finished attempt. Null if there was no response.
    async fn last_status(&self) -> Option<i32> {
        self.0.last_status
    }

    /// Reason why the last finished attempt failed, or why the service disabled the endpoint. Null before the first
    /// failure, after a successful attempt, and after changes were skipped because of `types`.
    async fn last_failure(&self) -> Option<WebhookFailure> {
        self.0.last_failure.map(Into::into)
    }

    /// Time of the first failed attempt since the last success. Null if no attempt has failed since then. Reset to null
    /// when the endpoint is enabled or gets a new URL or `deliverFrom`, and when changes are skipped because of
    /// `types`. The service disables an endpoint that has been failing for five days. A suspension of the operator does
    /// not count: when the suspension ends, `failingSince` is moved forward by the length of the suspension.
    async fn failing_since(&self) -> Option<Time> {
        self.0.failing_since.map(Time)
    }

    /// Earliest time of the next attempt after a failed attempt. Null if `failingSince` is null, if the endpoint is
    /// disabled, or if the operator is suspended.
    async fn next_attempt_at(&self) -> Option<Time> {
        let row = &self.0;
        let is_retrying = row.failing_since.is_some() && row.disabled_at.is_none() && row.paused_at.is_none();
        is_retrying.then_some(Time(row.next_attempt_at))
    }
}

pub type WebhookConnection = Connection<WebhookEdge>;

/// A webhook endpoint in a list.
#[derive(SimpleObject)]
pub struct WebhookEdge {
    /// Cursor of this endpoint, for `after` and `before`.
    cursor: Cursor,
    /// The endpoint.
    node: Webhook,
}

impl WebhookConnection {
    /// Reads a page of the endpoints that the caller may see.
    pub async fn load(context: &Context<'_>, arguments: PageArguments) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListId::Webhooks);
        let page = services(context).webhooks.page(caller(context), arguments.parse(Some(&cursors))?).await?;
        let edge = |cursor, row| WebhookEdge { cursor, node: Webhook(row) };
        Ok(Self::new(page, &cursors, HasPosition::position, EmptyFields, edge))
    }
}

impl Edge for WebhookEdge {
    type Node = Webhook;

    fn node(&self) -> &Webhook {
        &self.node
    }
}

impl WriteJson for Webhook {
    const MAY_WAIT: &'static [&'static str] = &["operator", "undeliveredSince"];
}
