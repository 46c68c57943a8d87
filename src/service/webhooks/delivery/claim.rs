//! Claims endpoints that are due, and gives them a lease.

use chrono::{DateTime, TimeDelta, Utc};
use entity::value::WebhookId;
use entity::webhook::{Column, Entity, Model};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IdenStatic, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};

use super::Deliveries;
use super::queries::{is_active, undelivered_changes};
use super::running::Running;
use crate::database::{describe, is_one_of};
use crate::error::Error;

/// The time for which a process has an endpoint for itself. Longer than an attempt and its statements take.
const LEASE: TimeDelta = TimeDelta::minutes(1);

impl Deliveries {
    /// Takes endpoints that are due, in the order of `next_attempt_at`, and gives them a lease. Takes as many as this
    /// process may begin to deliver to.
    pub(super) async fn claim(&self, running: &Running) -> Result<Vec<Model>, Error> {
        if running.is_full() {
            return Ok(Vec::new());
        }
        let claim = || async {
            let (now, lease) = (self.now(), self.new_lease());
            let transaction = self.database.begin_write().await?;
            let is_free = Condition::any().add(Column::LeaseUntil.is_null()).add(Column::LeaseUntil.lte(now));
            let due = Entity::find()
                .filter(is_active())
                .filter(Column::NextAttemptAt.lte(now))
                .filter(is_free)
                .filter(is_one_of(&transaction, Column::OperatorId, running.busy_operators()).not())
                .filter(Expr::exists(undelivered_changes(self.backend(), Expr::cust("1"))))
                .order_by_asc(Column::NextAttemptAt)
                .limit(running.free() as u64)
                .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked);
            let rows = transaction.query_all(&due.into_query()).await?;
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let ids = rows.iter().map(|row| row.try_get("", Column::Id.as_str()));
            let ids = ids.collect::<Result<Vec<WebhookId>, DbErr>>()?;
            let is_claimed = is_one_of(&transaction, Column::Id, ids.iter().copied());
            Entity::update_many()
                .col_expr(Column::LeaseUntil, lease.into())
                .filter(is_claimed)
                .exec(&transaction)
                .await?;
            transaction.commit().await?;
            let claimed = ids.iter().zip(&rows).filter_map(|(id, row)| match Model::from_query_result(row, "") {
                Ok(endpoint) => Some(Model { lease_until: Some(lease), ..endpoint }),
                Err(error) => {
                    // Only this endpoint waits. For example, a newer version has stored a value that this version does
                    // not know.
                    tracing::error!(webhook = %id, cause = describe(&error), "cannot read a webhook endpoint");
                    None
                }
            });
            Ok(claimed.collect())
        };
        self.database.with_retry("webhook.claim", claim).await
    }

    pub(super) fn new_lease(&self) -> DateTime<Utc> {
        self.now() + LEASE
    }
}
