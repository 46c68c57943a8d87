//! Table `admin_event`: the administrative audit log, one row for each change to an operator, an API key or a webhook
//! endpoint by a request or a command, and one for each start of `vivamo operator remove-customers`.
//!
//! Rows are inserted by `service::audit` in the transaction of the change, and never updated or deleted. They hold no
//! secrets and no data of customers.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{ActorName, AdminEventId, ApiKeyId, ChangedFields, OperatorId, RequestId, WebhookId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "admin_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AdminEventId,
    pub r#type: EventType,
    pub occurred_at: DateTime<Utc>,
    pub operator_id: OperatorId,
    /// The key that was created or revoked. `None` for a change of anything else.
    pub api_key_id: Option<ApiKeyId>,
    pub changed_fields: ChangedFields,
    /// The request that made the change, or the run of a command.
    pub request_id: RequestId,
    /// The user of the operating system who ran the command. `None` for a request.
    pub os_user: Option<String>,
    /// The staff member that the request named.
    pub actor: Option<ActorName>,
    /// The webhook endpoint that was created, changed or deleted. `None` for a change of anything else.
    pub webhook_id: Option<WebhookId>,
    /// The operator's key that made the change. `None` if the platform or a command made it.
    pub caller_key_id: Option<ApiKeyId>,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum EventType {
    OperatorCreated,
    OperatorUpdated,
    /// The status was set to suspended. Other fields may have changed with it.
    OperatorSuspended,
    /// The status was set to active. Other fields may have changed with it.
    OperatorResumed,
    /// `vivamo operator remove-customers` began to disconnect all customers of the operator.
    OperatorCustomersRemoved,
    ApiKeyCreated,
    ApiKeyRevoked,
    WebhookCreated,
    WebhookUpdated,
    WebhookSecretRotated,
    WebhookDeleted,
}

impl ActiveModelBehavior for ActiveModel {}
