//! The administrative audit log: one entry per change to an operator, an API key or a webhook endpoint, written in the
//! transaction of the change. `vivamo operator remove-customers` writes one entry before its first batch, if there is
//! one. Only the platform can read the audit log.

use entity::admin_event::{Column, Entity, EventType, Model};
use entity::value::{AdminEventId, ApiKeyId, ChangedFields, OperatorId, WebhookId};
use sea_orm::{ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryTrait};

use super::{Caller, Origin, RequestInfo, now};
use crate::database::pages::{self, HasPosition, ListPart, Page, PageRequest, Position};
use crate::database::{Database, Transaction};
use crate::error::Error;
use crate::request::count_query;

/// The object that was changed.
pub(super) enum Subject {
    Operator,
    ApiKey(ApiKeyId),
    Webhook(WebhookId),
}

/// Conditions on the entries of the audit log. All of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdminEventFilter {
    pub operator: Option<OperatorId>,
    pub api_key: Option<ApiKeyId>,
}

/// Reads the administrative audit log.
pub struct AuditLog {
    database: Database,
}

impl AuditLog {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Finds an entry. Returns `None` if the caller may not see it: only the platform sees entries.
    pub async fn find(&self, caller: &Caller, id: AdminEventId) -> Result<Option<Model>, Error> {
        if caller.require_platform().is_err() {
            return Ok(None);
        }
        let found = Entity::find_by_id(id).one(self.database.reader()).await?;
        count_query(usize::from(found.is_some()));
        Ok(found)
    }

    /// Returns a page of the entries, oldest first. Platform only.
    pub async fn page(
        &self,
        caller: &Caller,
        filter: &AdminEventFilter,
        request: PageRequest,
    ) -> Result<Page<Model>, Error> {
        caller.require_platform()?;
        let rows = Entity::find()
            .apply_if(filter.operator, |events, operator| events.filter(Column::OperatorId.eq(operator)))
            .apply_if(filter.api_key, |events, key| events.filter(Column::ApiKeyId.eq(key)));
        let list = ListPart::new(rows.into_query(), vec![Column::Id.into_expr()]);
        Ok(pages::page(self.database.reader(), list, request).await?)
    }
}

impl HasPosition for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}

/// Adds an entry within the transaction of the change. `operator` is the changed operator, or the operator of the
/// changed key or webhook endpoint. `changed_fields` are the names of the changed fields in the schema.
pub(super) async fn add_entry(
    transaction: &Transaction,
    origin: &Origin,
    r#type: EventType,
    operator: OperatorId,
    subject: Subject,
    changed_fields: &[&str],
) -> Result<(), DbErr> {
    let RequestInfo { id: request_id, actor, os_user } = origin.request().clone();
    let (api_key_id, webhook_id) = match subject {
        Subject::Operator => (None, None),
        Subject::ApiKey(key) => (Some(key), None),
        Subject::Webhook(webhook) => (None, Some(webhook)),
    };
    let event = Model {
        id: AdminEventId::new(),
        r#type,
        occurred_at: now(),
        operator_id: operator,
        api_key_id,
        changed_fields: ChangedFields(changed_fields.iter().map(ToString::to_string).collect()),
        request_id,
        os_user,
        actor,
        webhook_id,
        caller_key_id: origin.caller().key(),
    };
    event.into_active_model().insert(transaction).await?;
    Ok(())
}
