//! Looks for work once per second.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::customer_change;
use entity::value::OperatorId;
use entity::webhook::{Column, Entity};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, QuerySelect, QueryTrait};
use tokio::time::Instant;

use super::Deliveries;
use super::queries::is_active;
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
}
