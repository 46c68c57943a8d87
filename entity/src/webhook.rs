//! Table `webhook`: the endpoints to which changes of customers are delivered, one row for each endpoint.
//!
//! An endpoint is a reader of the feed of its operator (table `customer_change`) with a stored cursor, so there is no row for each
//! delivery. Rows are inserted, changed and deleted by `service::webhooks`. The secret of an endpoint is not stored: it is
//! derived from `VIVAMO_KEY_SECRET`, the id and `secret_version`.

use chrono::{DateTime, Utc};
use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::value::{OperatorId, WebhookId, WebhookUrl};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WebhookId,
    pub operator_id: OperatorId,
    pub url: WebhookUrl,
    /// The types of the changes to deliver. `None` stands for all types, also those that later versions add.
    pub types: Option<ChangeTypes>,
    /// Starts at 1 and increases by 1 with each rotation of the secret.
    pub secret_version: i32,
    pub secret_created_at: DateTime<Utc>,
    /// The time until which deliveries are also signed with the secret of the version before. `None` before the first rotation.
    pub previous_secret_until: Option<DateTime<Utc>>,
    /// The cursor in the feed: the last change that was delivered or skipped. `delivered_id` is the nil id before the first one.
    pub delivered_position: i64,
    pub delivered_id: Uuid,
    /// The last change of the page that is being delivered. Set before the first attempt, so that each attempt sends the
    /// same page. `None` between two pages. A change of `types` and a move of the cursor set it to `None`, also during an
    /// attempt: the attempt then must not move the cursor.
    pub sending_position: Option<i64>,
    pub sending_id: Option<Uuid>,
    /// The number of attempts that have failed since the last success.
    pub failed_attempts: i32,
    /// The time of the first of these attempts. While the operator is suspended, no time passes: a resume moves the value.
    pub failing_since: Option<DateTime<Utc>>,
    /// The time from which the endpoint is due.
    pub next_attempt_at: DateTime<Utc>,
    /// The time until which one process has the endpoint for itself. `None` if no process delivers to the endpoint.
    pub lease_until: Option<DateTime<Utc>>,
    pub last_attempt_at: Option<DateTime<Utc>>,
    /// The HTTP status of the last attempt. `None` without a response.
    pub last_status: Option<i32>,
    /// The reason for which the last attempt failed. `None` if it succeeded.
    pub last_failure: Option<Failure>,
    /// The time at which deliveries ended, because of failures or by a request. `None` if the endpoint is enabled.
    pub disabled_at: Option<DateTime<Utc>>,
    /// The time at which the operator was suspended. `None` while the operator is active.
    pub paused_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    #[sea_orm(belongs_to, from = "operator_id", to = "id")]
    pub operator: HasOne<super::operator::Entity>,
}

/// The types of changes, by their names in the column `type` of `customer_change`, for example `["updated"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct ChangeTypes(pub Vec<String>);

/// The reason for which a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Failure {
    /// The endpoint responded with a status other than 2xx.
    Status,
    /// The endpoint did not respond in time.
    Timeout,
    /// The host has no address, refused the connection, failed the TLS handshake or closed the connection.
    Connection,
    /// The host has only addresses that the service does not connect to, for example private ones.
    ForbiddenAddress,
}

impl ActiveModelBehavior for ActiveModel {}
