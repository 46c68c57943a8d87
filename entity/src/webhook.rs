//! Table `webhook`: the endpoints to which changes of customers are delivered, one row for each endpoint.
//!
//! The service reads the feed of the endpoint's operator (table `customer_change`), and the row stores the position up
//! to which changes were delivered. There are no rows for single deliveries. `service::webhooks` inserts, changes and
//! deletes the rows. The secret of an endpoint is not stored, because it is derived from `VIVAMO_KEY_SECRET`, the id
//! and `secret_version`.

use chrono::{DateTime, Utc};
use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::customer_event::EventType;
use crate::value::{OperatorId, WebhookId, WebhookUrl};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WebhookId,
    pub operator_id: OperatorId,
    pub url: WebhookUrl,
    /// The types of the changes to deliver. `None` stands for all types, including types that later versions add.
    pub types: Option<ChangeTypes>,
    /// Starts at 1 and increases by 1 with each rotation of the secret.
    pub secret_version: i32,
    pub secret_created_at: DateTime<Utc>,
    /// The time until which deliveries are also signed with the previous secret. `None` before the first rotation.
    pub previous_secret_until: Option<DateTime<Utc>>,
    /// The last change that was delivered or skipped: its position in the feed, and its id. At the start of the feed,
    /// the position is 0 and the id is nil.
    pub delivered_position: i64,
    pub delivered_id: Uuid,
    /// The last change of the page that is being delivered. It is set before the first attempt, so that each attempt
    /// sends the same page. `None` between two pages. If a request changes `types` or the delivered position during an
    /// attempt, the request sets this value to `None`. The result of the attempt is then not stored.
    pub sending_position: Option<i64>,
    pub sending_id: Option<Uuid>,
    /// The number of attempts that have failed since the last success. 0 again if a request enables the endpoint, or
    /// changes its URL or position.
    pub failed_attempts: i32,
    /// The time of the first attempt that failed since the last success, or since the endpoint was enabled or got
    /// another URL or position. When a suspended operator is resumed, the length of the suspension is added to this
    /// time, because deliveries are paused during a suspension.
    pub failing_since: Option<DateTime<Utc>>,
    /// The time from which the next attempt may start.
    pub next_attempt_at: DateTime<Utc>,
    /// The time until which only one process may deliver to the endpoint. `None` if no process delivers to it.
    pub lease_until: Option<DateTime<Utc>>,
    pub last_attempt_at: Option<DateTime<Utc>>,
    /// The HTTP status of the response to the last finished attempt. `None` if there was no response.
    pub last_status: Option<i32>,
    /// The reason why the last finished attempt failed, or why the service disabled the endpoint. `None` after a
    /// success.
    pub last_failure: Option<Failure>,
    /// The time at which the endpoint was disabled, by a request or because of failures. `None` if it is enabled.
    pub disabled_at: Option<DateTime<Utc>>,
    /// The time at which deliveries were paused, because the operator is suspended. `None` while the operator is
    /// active.
    pub paused_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    #[sea_orm(belongs_to, from = "operator_id", to = "id")]
    pub operator: HasOne<super::operator::Entity>,
}

/// A list of types of changes, stored as JSON, for example `["updated"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct ChangeTypes(pub Vec<EventType>);

/// The reason for which a delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Failure {
    /// The receiver responded with a status other than 2xx.
    Status,
    /// The receiver did not respond in time.
    Timeout,
    /// The host refused the connection, failed the TLS handshake or closed the connection.
    Connection,
    /// The host has no address, or only addresses that the service does not connect to, for example private ones.
    ForbiddenAddress,
    /// Changes after the delivered position were deleted because of their age. No delivery was attempted.
    CursorExpired,
}

impl ActiveModelBehavior for ActiveModel {}
