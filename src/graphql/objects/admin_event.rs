//! `AdminEvent` and the administrative audit log.

use async_graphql::connection::EmptyFields;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::admin_event;
use entity::value::{AdminEventId, ApiKeyId, OperatorId};

use super::api_key::ApiKey;
use super::types::Operator;
use crate::database::pages::HasPosition;
use crate::error::{Error, InputField};
use crate::graphql::context::{caller, require_platform, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::fetch;
use crate::graphql::inputs::Violations;
use crate::graphql::json_writer::WriteJson;
use crate::graphql::pagination::{Connection, Edge, PageArguments};
use crate::graphql::time::Time;
use crate::service::audit::AdminEventFilter;

/// Type of an entry in the administrative audit log. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::admin_event::EventType")]
enum AdminEventType {
    /// The operator was created.
    OperatorCreated,
    /// The operator was changed, but its status stayed the same.
    OperatorUpdated,
    /// The operator was suspended. Other fields may have changed with its status.
    OperatorSuspended,
    /// The operator was resumed. Other fields may have changed with its status.
    OperatorResumed,
    /// `vivamo operator remove-customers` began to disconnect all customers of the operator.
    OperatorCustomersRemoved,
    /// The API key was created.
    ApiKeyCreated,
    /// The API key was revoked.
    ApiKeyRevoked,
    /// The webhook endpoint was created.
    WebhookCreated,
    /// A request changed, enabled or disabled the webhook endpoint, or set its `cursor` with `deliverFrom`.
    WebhookUpdated,
    /// The secret of the webhook endpoint was rotated.
    WebhookSecretRotated,
    /// The webhook endpoint was deleted.
    WebhookDeleted,
}

/// Origin of an administrative change. Values may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum AdminEventSource {
    /// A request with the platform key.
    PlatformKey,
    /// A request with a key of the operator.
    OperatorKey,
    /// A `vivamo` command.
    CommandLine,
}

/// Conditions on entries of the audit log. An entry must match all conditions. An unknown id matches no entries; a
/// malformed id is `INVALID_ARGUMENT`.
#[derive(InputObject)]
#[graphql(name = "AdminEventFilter")]
pub struct AdminEventFilterInput {
    /// Id of the operator that the entries concern.
    operator_id: Option<ID>,
    /// Id of the API key that was created or revoked.
    api_key_id: Option<ID>,
}

pub struct AdminEvent(admin_event::Model);

impl AdminEvent {
    /// Returns the entry, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, id: AdminEventId) -> Result<Option<Self>, Error> {
        Ok(services(context).audit_log.find(caller(context), id).await?.map(Self))
    }
}

/// An entry in the administrative audit log: a change to an operator, an API key or a webhook endpoint, or the start of
/// a run of `vivamo operator remove-customers` that found customers. Entries never change.
#[Object]
impl AdminEvent {
    /// Global id, for example `adm_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Type of the entry.
    async fn r#type(&self) -> AdminEventType {
        self.0.r#type.into()
    }

    /// Time of the change.
    async fn occurred_at(&self) -> Time {
        Time(self.0.occurred_at)
    }

    /// Operator that was changed, or whose API key, webhook endpoint or customers were changed. Null only if the read
    /// fails (see `errors`).
    async fn operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Some(fetch::load(context, self.0.operator_id).await.map(Operator))
    }

    /// API key that was created or revoked. Null for other changes.
    async fn api_key(&self, context: &Context<'_>) -> Option<Result<ApiKey, Error>> {
        api_key(context, self.0.api_key_id?).await.transpose()
    }

    /// Id of the webhook endpoint that was created, changed or deleted. Null for other changes.
    async fn webhook_id(&self) -> Option<ID> {
        self.0.webhook_id.map(|id| id.to_string().into())
    }

    /// Names of the fields of `Operator` or `Webhook` that an update changed, for example `["status"]`. `cursor` is
    /// listed for each update with `deliverFrom`, even if the position is the same. Fields that the service sets
    /// itself, such as `disabledAt`, are omitted. Empty for other changes.
    async fn changed_fields(&self) -> &[String] {
        &self.0.changed_fields.0
    }

    /// Source of the change.
    async fn source(&self) -> AdminEventSource {
        match (&self.0.os_user, self.0.caller_key_id) {
            (Some(_), _) => AdminEventSource::CommandLine,
            (None, Some(_)) => AdminEventSource::OperatorKey,
            (None, None) => AdminEventSource::PlatformKey,
        }
    }

    /// API key with which the operator made the change. Null unless `source` is `OPERATOR_KEY`.
    async fn caller_api_key(&self, context: &Context<'_>) -> Option<Result<ApiKey, Error>> {
        api_key(context, self.0.caller_key_id?).await.transpose()
    }

    /// Id of the request that made the change, as in the `x-request-id` response header. For a command: the id of the
    /// command run, which is also the `requestId` of the history entries that it wrote.
    async fn request_id(&self) -> String {
        self.0.request_id.to_string()
    }

    /// Operating system user who ran the command that made the change. Null if a request made the change.
    async fn os_user(&self) -> Option<&str> {
        self.0.os_user.as_deref()
    }

    /// Staff member named in the `Vivamo-Actor` header of the request. Null if there was no such header.
    async fn actor(&self) -> Option<&str> {
        self.0.actor.as_ref().map(|actor| actor.as_str())
    }
}

async fn api_key(context: &Context<'_>, id: ApiKeyId) -> Result<Option<ApiKey>, Error> {
    Ok(fetch::loader(context).load_one(id).await?.map(Into::into))
}

pub type AdminEventConnection = Connection<AdminEventEdge>;

/// An entry of the audit log in a list.
#[derive(SimpleObject)]
pub struct AdminEventEdge {
    /// Cursor of this entry, for `after` and `before`.
    cursor: Cursor,
    /// The entry.
    node: AdminEvent,
}

impl AdminEventFilterInput {
    fn parse(&self) -> Result<AdminEventFilter, Error> {
        let mut violations = Violations::default();
        let operator = self.operator_id.as_ref().and_then(|id| {
            let note = "`operatorId` must be the id of an operator (op_…).";
            violations.require(OperatorId::parse(id), InputField::FilterOperatorId, note)
        });
        let api_key = self.api_key_id.as_ref().and_then(|id| {
            let note = "`apiKeyId` must be the id of an API key (key_…).";
            violations.require(ApiKeyId::parse(id), InputField::FilterApiKeyId, note)
        });
        violations.finish(AdminEventFilter { operator, api_key })
    }
}

impl AdminEventConnection {
    /// Reads a page of the audit log.
    pub async fn load(
        context: &Context<'_>,
        filter: Option<AdminEventFilterInput>,
        arguments: PageArguments,
    ) -> Result<Self, Error> {
        let (services, caller) = require_platform(context)?;
        let filter = filter.map(|filter| filter.parse()).transpose()?.unwrap_or_default();
        let cursors = Cursors::new(context, ListId::AdminEvents(filter.clone()));
        let request = arguments.parse(Some(&cursors))?;
        let page = services.audit_log.page(caller, &filter, request).await?;
        let edge = |cursor, event| AdminEventEdge { cursor, node: AdminEvent(event) };
        Ok(Self::new(page, &cursors, HasPosition::position, EmptyFields, edge))
    }
}

impl Edge for AdminEventEdge {
    type Node = AdminEvent;

    fn node(&self) -> &AdminEvent {
        &self.node
    }
}

impl WriteJson for AdminEvent {
    const MAY_WAIT: &'static [&'static str] = &["operator", "apiKey", "callerApiKey"];
}
