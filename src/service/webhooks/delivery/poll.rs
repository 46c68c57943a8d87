//! Looks for work once per second, and measures the endpoints.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::customer_change;
use entity::value::OperatorId;
use entity::webhook::{Column, Entity};
use sea_orm::sea_query::{Expr, Func, Order, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, QuerySelect, QueryTrait};
use tokio::time::Instant;

use super::Deliveries;
use super::queries::{is_active, undelivered_changes};
use crate::database::subquery;
use crate::service::feed;

/// The facts that a process remembers between two polls.
pub(super) struct PollState {
    /// The position of the last change.
    pub(super) position: Option<i64>,
    /// The time of the last poll. Backoffs that ended more than [`MAX_DELAY_OF_CHANGES`] before this time have already
    /// caused a claim.
    pub(super) time: DateTime<Utc>,
    /// True if an endpoint may be due.
    pub(super) must_claim: bool,
    pub(super) claimed_at: Instant,
}

/// The longest expected delay until polls see a new `next_attempt_at`. A request that sets the value commits some time
/// later, and the clock of its server may be slow.
const MAX_DELAY_OF_CHANGES: TimeDelta = TimeDelta::seconds(10);
/// If the last claim was at least this long ago, the next poll causes a claim even if the poll finds nothing new.
const CLAIM_INTERVAL: Duration = Duration::from_secs(30);

impl Deliveries {
    /// Looks for work since the last poll.
    pub(super) async fn poll(&self, state: &mut PollState) -> Result<(), DbErr> {
        let (reader, now) = (self.database.reader(), self.now());
        let position = feed::visible_to(self.backend(), OperatorId::PLATFORM)
            .select_only()
            .expr(customer_change::Column::Position.max())
            .into_query();
        let ended_backoff = Query::select()
            .expr(Expr::cust("1"))
            .from(Entity)
            .cond_where(is_active())
            .and_where(Column::NextAttemptAt.gt(state.time - MAX_DELAY_OF_CHANGES))
            .and_where(Column::NextAttemptAt.lte(now))
            .take();
        let poll = Query::select()
            .expr_as(subquery(position), "position")
            .expr_as(Expr::exists(ended_backoff), "has_ended_backoff")
            .take();
        let Some(row) = reader.query_one(&poll).await? else { return Ok(()) };
        let position = row.try_get::<Option<i64>>("", "position")?;
        if position != state.position
            || row.try_get::<bool>("", "has_ended_backoff")?
            || state.claimed_at.elapsed() >= CLAIM_INTERVAL
        {
            state.must_claim = true;
        }
        (state.position, state.time) = (position, now);
        Ok(())
    }

    /// Sets `vivamo_webhook_lag_seconds` and `vivamo_webhooks_disabled`. Each process measures the endpoints of the
    /// whole database, so all processes report the same values.
    pub(super) async fn set_gauges(&self) -> Result<(), DbErr> {
        let count =
            Query::select().expr(Column::Id.count()).from(Entity).and_where(Column::DisabledAt.is_not_null()).take();
        let mut first = undelivered_changes(self.backend(), customer_change::Column::OccurredAt.into_expr());
        let first = first
            .order_by(customer_change::Column::Position, Order::Asc)
            .order_by(customer_change::Column::Id, Order::Asc)
            .limit(1)
            .take();
        let oldest = Query::select().expr(Func::min(subquery(first))).from(Entity).cond_where(is_active()).take();
        let gauges = Query::select().expr_as(subquery(count), "disabled").expr_as(subquery(oldest), "oldest").take();
        let Some(row) = self.database.reader().query_one(&gauges).await? else { return Ok(()) };
        let oldest: Option<DateTime<Utc>> = row.try_get("", "oldest")?;
        let lag = oldest.map_or(TimeDelta::zero(), |oldest| self.now() - oldest);
        metrics::gauge!("vivamo_webhook_lag_seconds").set(lag.num_milliseconds() as f64 / 1000.0);
        metrics::gauge!("vivamo_webhooks_disabled").set(row.try_get::<i64>("", "disabled")? as f64);
        Ok(())
    }
}
