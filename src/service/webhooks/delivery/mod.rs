//! Delivers changes to the endpoints of webhooks.
//!
//! An endpoint reads the feed of its operator, and its row has the cursor of the last change that was delivered or
//! skipped. There are no rows for deliveries. Any number of processes run [`Deliveries::run`] on one database:
//!
//! 1. **Poll.** One statement per second reads the position of the last change, and whether the backoff of an endpoint
//!    has ended. A request that creates or enables an endpoint, or changes its URL or its cursor, ends the backoff: it
//!    sets `next_attempt_at` to the time of the request. A request that resumes a suspended operator does the same for
//!    a backoff that ended during the suspension. The statement reads two index entries. If the position is new or a
//!    backoff has ended, step 2 follows. Step 2 also runs every 30 seconds, because a killed process may not have
//!    finished its endpoints. Step 2 also runs when the process has finished its deliveries to an endpoint, because the
//!    endpoint may have new changes.
//! 2. **Claim.** A process takes endpoints that are due and have changes after their cursors, and gives them a lease of
//!    one minute. `SKIP LOCKED` lets processes claim different endpoints at the same time. A process delivers to many
//!    endpoints at the same time, but sends one request at a time to each endpoint, so an endpoint that is slow delays
//!    no other endpoint. While five deliveries to an operator are under way, the process claims none of its endpoints.
//! 3. **Page.** The process reads the changes after the cursor, at most 100 and at most 20 kB. The end of the page is
//!    stored before the first attempt. A repeated attempt therefore sends the same changes under the same id, even if
//!    another process makes the attempt.
//! 4. **Result.** Status 2xx moves the cursor. After any other result, a backoff follows, first of seconds, later of
//!    hours. The endpoint is disabled after five days of failures, after a response with status 410, or if changes
//!    after the cursor are no longer stored.
//!
//! Steps 3 and 4 take effect only if this process still has the lease, and if no request has meanwhile changed the
//! cursor, the URL or the types of the endpoint, or disabled or enabled it (`is_same_attempt`). If another process has
//! the lease, nothing is written. If the endpoint has changed, only the lease ends.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use entity::customer_change;
use entity::value::{OperatorId, WebhookId};
use entity::webhook::{ActiveModel, Column, Entity, Failure, Model};
use metrics::Counter;
use rand::RngExt;
use reqwest::StatusCode;
use ring::digest;
use sea_orm::sea_query::{Expr, ExprTrait, Func, LockBehavior, LockType, Order, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, EnumIter,
    FromQueryResult, IdenStatic, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Set, Unchanged,
};
use serde::Serialize;
use serde_json::Value as Json;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::endpoints::{MAX_ENDPOINTS_PER_OPERATOR, cursor};
use super::sender::{Attempt, Response, Sender};
use super::signature::sign;
use crate::database::pages::{HasPosition, Position};
use crate::database::{Database, Tenant, describe, is_one_of, run_as, subquery, with_retry};
use crate::error::{Error, ErrorCode};
use crate::service::Services;
use crate::service::feed::{self, FeedRequest};
use crate::service::job_errors::JobErrors;

/// A function that returns the current time. Tests pass their own function in order to let days pass.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Renders the parts of a delivery that clients also read from the API.
pub trait Render: Send + Sync {
    /// Returns a change with the field names of the API.
    fn change(&self, change: &customer_change::Model) -> Json;

    /// Returns the cursor of a position in the feed of an operator.
    fn cursor(&self, operator: OperatorId, position: &Position) -> String;
}

/// The settings of [`Deliveries`].
pub struct DeliverySettings {
    pub sender: Sender,
    pub render: Arc<dyn Render>,
    pub clock: Clock,
}

/// Delivers changes to endpoints. Clones share their state.
#[derive(Clone)]
pub struct Deliveries {
    database: Database,
    /// Reads the feed.
    services: Arc<Services>,
    settings: Arc<DeliverySettings>,
    /// True if the process is about to end. Attempts under way are finished, and no others begin.
    is_stopping: Arc<AtomicBool>,
}

/// The facts that a process remembers between two polls.
struct PollState {
    /// The position of the last change.
    position: Option<i64>,
    /// The time of the last poll. Backoffs that ended more than [`MAX_DELAY_OF_CHANGES`] before this time have already
    /// caused a claim.
    time: DateTime<Utc>,
    /// True if an endpoint may be due.
    must_claim: bool,
    claimed_at: Instant,
}

/// The next page of an endpoint.
struct NextPage {
    /// The changes to send. Empty if no change has a type that the endpoint wants.
    changes: Vec<RenderedChange>,
    /// The cursor after the page.
    end: Position,
    has_more: bool,
}

/// A change, and its form in a delivery.
struct RenderedChange {
    row: customer_change::Model,
    json: Json,
}

/// The result of a failed attempt.
struct Failed {
    failure: Failure,
    /// True if the endpoint asks for no further deliveries, with status 410.
    is_gone: bool,
    /// The backoff that the endpoint asks for.
    retry_after: Option<TimeDelta>,
}

/// The result of an attempt, in the metrics.
#[derive(Clone, Copy, EnumIter)]
pub enum DeliveryOutcome {
    Delivered,
    Status,
    Timeout,
    Connection,
    ForbiddenAddress,
}

impl DeliveryOutcome {
    fn of(result: &Result<Response, Failure>) -> Self {
        match result {
            Ok(response) if response.status.is_success() => Self::Delivered,
            Ok(_) | Err(Failure::Status) => Self::Status,
            Err(Failure::Timeout) => Self::Timeout,
            Err(Failure::ForbiddenAddress) => Self::ForbiddenAddress,
            // The sender does not return `CursorExpired`, which is a failure without an attempt.
            Err(Failure::Connection | Failure::CursorExpired) => Self::Connection,
        }
    }

    /// Returns the counter of the attempts with this outcome.
    pub fn counter(self) -> Counter {
        let outcome = match self {
            Self::Delivered => "delivered",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::ForbiddenAddress => "forbidden_address",
        };
        metrics::counter!("vivamo_webhook_deliveries_total", "outcome" => outcome)
    }
}

/// The reason for which the service disables an endpoint.
#[derive(Clone, Copy, EnumIter)]
pub enum DisableReason {
    /// All attempts failed for [`MAX_FAILING`].
    Failing,
    /// The receiver responded with status 410.
    Gone,
    /// Changes after the cursor are no longer stored.
    CursorExpired,
}

impl DisableReason {
    /// The name in the log and the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Gone => "gone",
            Self::CursorExpired => "cursor_expired",
        }
    }

    /// Returns the counter of the endpoints that were disabled for this reason.
    pub fn counter(self) -> Counter {
        metrics::counter!("vivamo_webhooks_disabled_total", "reason" => self.name())
    }
}

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest expected delay until polls see a new `next_attempt_at`. A request that sets the value commits some time
/// later, and the clock of its server may be slow.
const MAX_DELAY_OF_CHANGES: TimeDelta = TimeDelta::seconds(10);
/// If the last claim was at least this long ago, the next poll causes a claim even if the poll finds nothing new.
const CLAIM_INTERVAL: Duration = Duration::from_secs(30);
const GAUGE_INTERVAL: Duration = Duration::from_secs(30);
/// The maximum number of endpoints that a process delivers to at the same time.
const MAX_CONCURRENT_ENDPOINTS: usize = 200;
/// The time for which a process has an endpoint for itself. Longer than an attempt and its statements take.
const LEASE: TimeDelta = TimeDelta::minutes(1);
/// The maximum number of pages that an endpoint receives before other endpoints have their turn.
const MAX_PAGES: usize = 20;
const PAGE_CHANGES: usize = 100;
/// The number of changes that are read for a page of an endpoint with `types`.
const EXAMINED_CHANGES: usize = 500;
const MAX_BODY_BYTES: usize = 20_000;
/// An upper bound on the size of a body without changes.
const ENVELOPE_BYTES: usize = 500;
/// If all attempts fail for this time, the endpoint is disabled.
const MAX_FAILING: TimeDelta = TimeDelta::days(5);
/// The backoffs after the first, the second, … failure in a row. The last one repeats.
const BACKOFFS: [TimeDelta; 9] = [
    TimeDelta::seconds(5),
    TimeDelta::seconds(15),
    TimeDelta::minutes(1),
    TimeDelta::minutes(5),
    TimeDelta::minutes(15),
    TimeDelta::minutes(30),
    TimeDelta::hours(1),
    TimeDelta::hours(2),
    MAX_BACKOFF,
];
const MIN_BACKOFF: TimeDelta = TimeDelta::seconds(5);
const MAX_BACKOFF: TimeDelta = TimeDelta::hours(4);
/// The number of bytes of a message id, which is a hash.
const ID_BYTES: usize = 16;

/// The deliveries of this process that are under way.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    operators: HashMap<Id, OperatorId>,
}

impl Running {
    fn spawn(&mut self, operator: OperatorId, delivery: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(delivery).id();
        self.operators.insert(task, operator);
    }

    /// Forgets the deliveries that have ended. Returns true if there were any.
    fn remove_ended(&mut self) -> bool {
        let before = self.operators.len();
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.operators.remove(&ended.map_or_else(|error| error.id(), |(task, ())| task));
        }
        self.operators.len() < before
    }

    /// The number of deliveries that may begin.
    fn free(&self) -> usize {
        MAX_CONCURRENT_ENDPOINTS.saturating_sub(self.operators.len())
    }

    fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// The operators with as many deliveries as an operator may have endpoints. The delivery to an endpoint that was
    /// deleted in the meantime counts until it ends. Otherwise an operator that creates and deletes endpoints of slow
    /// hosts could take most deliveries of the process.
    fn busy_operators(&self) -> Vec<OperatorId> {
        let mut counts: HashMap<OperatorId, u64> = HashMap::new();
        for operator in self.operators.values() {
            *counts.entry(*operator).or_default() += 1;
        }
        counts.retain(|_, count| *count >= MAX_ENDPOINTS_PER_OPERATOR);
        counts.into_keys().collect()
    }

    /// Waits for all deliveries.
    async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Deliveries {
    pub fn new(database: Database, services: Arc<Services>, settings: DeliverySettings) -> Self {
        Self { database, services, settings: Arc::new(settings), is_stopping: Arc::default() }
    }

    /// Delivers changes until `stop` completes, then finishes the attempts under way.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let [mut polls, mut measurements] = [POLL_INTERVAL, GAUGE_INTERVAL].map(|period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        let mut state = PollState { position: None, time: self.now(), must_claim: true, claimed_at: Instant::now() };
        let mut errors = JobErrors::new("deliver webhooks");
        let mut gauge_errors = JobErrors::new("measure webhooks");
        let mut running = Running::default();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = measurements.tick() => {
                    gauge_errors.log(self.set_gauges().await);
                }
                _ = polls.tick() => {
                    errors.log(self.poll_and_deliver(&mut state, &mut running).await);
                }
            }
        }
        self.is_stopping.store(true, Ordering::Relaxed);
        running.finish().await;
    }

    /// Delivers to the endpoints that are due, and returns their number.
    pub async fn deliver_due(&self) -> Result<usize, Error> {
        let mut running = Running::default();
        let endpoints = self.claim_and_deliver(&mut running).await?;
        running.finish().await;
        Ok(endpoints)
    }

    fn now(&self) -> DateTime<Utc> {
        (self.settings.clock)()
    }

    /// Looks for work, and claims endpoints if there may be work.
    async fn poll_and_deliver(&self, state: &mut PollState, running: &mut Running) -> Result<(), Error> {
        // An endpoint that was busy at the last claim may have changes again.
        state.must_claim |= running.remove_ended();
        self.poll(state).await?;
        if state.must_claim {
            self.claim_and_deliver(running).await?;
            (state.must_claim, state.claimed_at) = (running.is_full(), Instant::now());
        }
        Ok(())
    }

    /// Looks for work since the last poll.
    async fn poll(&self, state: &mut PollState) -> Result<(), DbErr> {
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
    async fn set_gauges(&self) -> Result<(), DbErr> {
        let count =
            Query::select().expr(Column::Id.count()).from(Entity).and_where(Column::DisabledAt.is_not_null()).take();
        let mut first = self.next_change(customer_change::Column::OccurredAt.into_expr());
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

    async fn claim_and_deliver(&self, running: &mut Running) -> Result<usize, Error> {
        let claimed = self.claim(running).await?;
        let endpoints = claimed.len();
        for webhook in claimed {
            let (deliveries, operator) = (self.clone(), webhook.operator_id);
            let deliver = async move {
                let id = webhook.id;
                if let Err(error) = deliveries.deliver(webhook).await {
                    // The endpoint is due again at the end of its lease.
                    tracing::warn!(webhook = %id, cause = error.describe(), "cannot deliver to a webhook endpoint");
                }
            };
            running.spawn(operator, run_as(Tenant::Deliveries, deliver));
        }
        Ok(endpoints)
    }

    /// Takes endpoints that are due, in the order of `next_attempt_at`, and gives them a lease. Takes as many as this
    /// process may begin to deliver to.
    async fn claim(&self, running: &Running) -> Result<Vec<Model>, Error> {
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
                .filter(Expr::exists(self.next_change(Expr::cust("1"))))
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
                Ok(webhook) => Some(Model { lease_until: Some(lease), ..webhook }),
                Err(error) => {
                    // Only this endpoint waits. For example, a newer version has stored a value that this version does
                    // not know.
                    tracing::error!(webhook = %id, cause = describe(&error), "cannot read a webhook endpoint");
                    None
                }
            });
            Ok(claimed.collect())
        };
        with_retry("webhook.claim", claim).await
    }

    /// Selects `expression` from the visible changes after the cursor of the endpoint in the outer query.
    fn next_change(&self, expression: SimpleExpr) -> SelectStatement {
        let cursor = [Column::DeliveredPosition, Column::DeliveredId].map(|column| column.into_expr());
        let changes = feed::visible_after(self.backend(), Column::OperatorId.into_expr(), cursor);
        changes.select_only().expr(expression).into_query()
    }

    fn backend(&self) -> DbBackend {
        self.database.reader().get_database_backend()
    }

    fn new_lease(&self) -> DateTime<Utc> {
        self.now() + LEASE
    }

    /// Delivers pages to an endpoint of which this process has the lease.
    async fn deliver(&self, mut webhook: Model) -> Result<(), Error> {
        for _ in 0..MAX_PAGES {
            if self.is_stopping.load(Ordering::Relaxed) {
                break;
            }
            match self.deliver_page(&webhook).await? {
                Some(next) => webhook = next,
                None => return Ok(()),
            }
        }
        self.update(&webhook, ActiveModel { lease_until: Set(None), ..unchanged() }).await?;
        Ok(())
    }

    /// Delivers one page. Returns the new row if there are more changes. In this case, the process keeps the lease.
    async fn deliver_page(&self, webhook: &Model) -> Result<Option<Model>, Error> {
        let page = match self.next_page(webhook).await {
            Err(error) if error.has(ErrorCode::CursorExpired) => {
                let expired = ActiveModel { last_failure: Set(Some(Failure::CursorExpired)), ..unchanged() };
                self.disable(webhook, expired, DisableReason::CursorExpired).await?;
                return Ok(None);
            }
            page => page?,
        };
        let Some(last) = page.changes.last() else {
            return self.move_cursor(webhook, &page, unchanged()).await;
        };
        let begin = ActiveModel {
            sending_position: Set(Some(last.row.position)),
            sending_id: Set(Some(*last.row.id.as_uuid())),
            last_attempt_at: Set(Some(self.now())),
            lease_until: Set(Some(self.new_lease())),
            ..unchanged()
        };
        let begun = self.update(webhook, begin).await?;
        let Some(webhook) = begun else { return Ok(None) };
        // Since the claim, the operator may have been suspended.
        if webhook.paused_at.is_some() {
            self.update(&webhook, ActiveModel { lease_until: Set(None), ..unchanged() }).await?;
            return Ok(None);
        }
        let attempt = self.attempt(&webhook, &page.changes, last);
        let result = self.settings.sender.send(&webhook.url, attempt, self.now()).await;
        DeliveryOutcome::of(&result).counter().increment(1);
        let status = result.as_ref().ok().map(|response| response.status.as_u16().into());
        let answered = ActiveModel { last_status: Set(status), ..unchanged() };
        let failed = match result {
            Ok(Response { status, .. }) if status.is_success() => {
                return self.move_cursor(&webhook, &page, answered).await;
            }
            Ok(Response { status, retry_after }) => {
                Failed { failure: Failure::Status, is_gone: status == StatusCode::GONE, retry_after }
            }
            Err(failure) => Failed { failure, is_gone: false, retry_after: None },
        };
        self.fail(&webhook, failed, answered).await?;
        Ok(None)
    }

    /// Reads the changes after the cursor of an endpoint. If an attempt was made before, reads the same changes again.
    async fn next_page(&self, webhook: &Model) -> Result<NextPage, Error> {
        let cursor = cursor(webhook);
        let sending = webhook.sending_position.zip(webhook.sending_id);
        let sending_end = sending.map(|(number, id)| Position::by_number(number, id));
        // The changes of other types are left out here and not by the query, because a query for some types is a long
        // read, of which only one at a time runs for all deliveries.
        let size = if webhook.types.is_some() { EXAMINED_CHANGES } else { PAGE_CHANGES };
        let request = FeedRequest { size, after: Some(cursor.clone()), types: None };
        let mut page = self.services.feed.read_of(webhook.operator_id, request).await?;
        if let Some(types) = &webhook.types {
            page.changes.retain(|change| types.0.contains(&change.r#type));
        }
        let (found, mut bytes) = (page.changes.len(), ENVELOPE_BYTES);
        let fits = |change: &RenderedChange| {
            bytes += change.json.to_string().len() + 1;
            bytes <= MAX_BODY_BYTES
        };
        let is_sending = |row: &customer_change::Model| sending_end.as_ref().is_none_or(|end| row.position() <= *end);
        let rows = page.changes.into_iter().take(PAGE_CHANGES).take_while(is_sending);
        let rendered = rows.map(|row| RenderedChange { json: self.settings.render.change(&row), row });
        let changes: Vec<_> = rendered.take_while(fits).collect();
        if changes.len() == found {
            return Ok(NextPage { changes, end: page.end, has_more: page.has_more });
        }
        let end = changes.last().map_or(cursor, |last| last.row.position());
        Ok(NextPage { changes, end, has_more: true })
    }

    /// Builds an attempt to deliver these changes, of which `last` is the last one. Each attempt for the same changes
    /// has the same id. The body is the same too, unless a customer was erased or the key secret was changed in the
    /// meantime.
    fn attempt(&self, webhook: &Model, changes: &[RenderedChange], last: &RenderedChange) -> Attempt {
        let cursor = self.settings.render.cursor(webhook.operator_id, &last.row.position());
        let body = serde_json::to_vec(&Body {
            r#type: "customer.changes",
            timestamp: &last.json["occurredAt"],
            data: BodyData { changes: changes.iter().map(|change| &change.json).collect(), cursor },
        });
        let body = body.unwrap_or_default();
        let (id, now) = (message_id(webhook, changes), self.now());
        let secrets = self.services.webhooks.secrets(webhook, now);
        let timestamp = now.timestamp();
        Attempt { signatures: sign(&secrets, &id, timestamp, &body), id, timestamp, body }
    }

    /// Moves the cursor of an endpoint to the end of a page that was delivered or has no changes to deliver.
    async fn move_cursor(
        &self,
        webhook: &Model,
        page: &NextPage,
        changes: ActiveModel,
    ) -> Result<Option<Model>, Error> {
        let (position, id) = page.end.number_and_id();
        let moved = ActiveModel {
            delivered_position: Set(position),
            delivered_id: Set(id),
            sending_position: Set(None),
            sending_id: Set(None),
            failed_attempts: Set(0),
            failing_since: Set(None),
            last_failure: Set(None),
            next_attempt_at: Set(self.now()),
            lease_until: Set(page.has_more.then(|| self.new_lease())),
            ..changes
        };
        Ok(self.update(webhook, moved).await?.filter(|_| page.has_more))
    }

    /// Records a failed attempt: sets the time of the next attempt, or disables the endpoint. Also writes `changes` to
    /// its row.
    async fn fail(&self, webhook: &Model, failed: Failed, changes: ActiveModel) -> Result<(), Error> {
        let Failed { failure, is_gone, retry_after } = failed;
        let now = self.now();
        let failing_since = webhook.failing_since.unwrap_or(now);
        let (end, failed_attempts) = (failing_since + MAX_FAILING, webhook.failed_attempts + 1);
        let changes = ActiveModel {
            failed_attempts: Set(failed_attempts),
            failing_since: Set(Some(failing_since)),
            last_failure: Set(Some(failure)),
            next_attempt_at: Set(Ord::min(now + backoff(failed_attempts, retry_after), end)),
            lease_until: Set(None),
            ..changes
        };
        if is_gone || now >= end {
            let reason = if is_gone { DisableReason::Gone } else { DisableReason::Failing };
            self.disable(webhook, changes, reason).await
        } else {
            self.update(webhook, changes).await.map(|_| ())
        }
    }

    /// Disables an endpoint until a request enables it. Also writes `changes` to its row.
    async fn disable(&self, webhook: &Model, changes: ActiveModel, reason: DisableReason) -> Result<(), Error> {
        let disabled = ActiveModel { disabled_at: Set(Some(self.now())), lease_until: Set(None), ..changes };
        if self.update(webhook, disabled).await?.is_some() {
            // The URL may contain a secret, so it is not logged.
            let (operator, name) = (webhook.operator_id, reason.name());
            tracing::warn!(webhook = %webhook.id, %operator, reason = name, "webhook endpoint disabled");
            reason.counter().increment(1);
        }
        Ok(())
    }

    /// Changes the row of an endpoint, and returns the new row. Returns `None` if the endpoint was deleted, if another
    /// process has the lease, or if something that the attempt depends on has changed after the process read `webhook`.
    /// In the last case, the lease of this process ends. In the other cases, nothing is written.
    async fn update(&self, webhook: &Model, changes: ActiveModel) -> Result<Option<Model>, Error> {
        let update = || async {
            let transaction = self.database.begin_write().await?;
            let current = Entity::find_by_id(webhook.id).lock(LockType::NoKeyUpdate).one(&transaction).await?;
            // If the lease has changed, another process has the endpoint.
            let Some(current) = current.filter(|current| current.lease_until == webhook.lease_until) else {
                return Ok(None);
            };
            let is_same = is_same_attempt(&current, webhook);
            let changes = if is_same { changes.clone() } else { ActiveModel { lease_until: Set(None), ..unchanged() } };
            let updated = ActiveModel { id: Unchanged(webhook.id), ..changes }.update(&transaction).await?;
            transaction.commit().await?;
            Ok(Some(updated).filter(|_| is_same))
        };
        with_retry("webhook.save_attempt", update).await
    }
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

/// Returns an update of a row that changes no column.
fn unchanged() -> ActiveModel {
    <ActiveModel as Default>::default()
}

/// True for endpoints to which changes are delivered.
fn is_active() -> Condition {
    Condition::all().add(Column::DisabledAt.is_null()).add(Column::PausedAt.is_null())
}

/// True if two rows of an endpoint are equal in everything that must not change during an attempt. A new secret or the
/// start of a suspension leaves the rows equal. The end of a suspension moves the `failing_since` of a failing
/// endpoint, so the rows then differ.
fn is_same_attempt(one: &Model, other: &Model) -> bool {
    // Lists all columns: the result of an attempt must not be stored after a change of a column that this function
    // misses.
    let Model {
        id: _,
        operator_id: _,
        url,
        types,
        secret_version: _,
        secret_created_at: _,
        previous_secret_until: _,
        delivered_position,
        delivered_id,
        sending_position,
        sending_id,
        failed_attempts: _,
        failing_since,
        next_attempt_at: _,
        lease_until: _,
        last_attempt_at: _,
        last_status: _,
        last_failure: _,
        disabled_at,
        paused_at: _,
        created_at: _,
    } = one;
    *url == other.url
        && *types == other.types
        && (*delivered_position, *delivered_id) == (other.delivered_position, other.delivered_id)
        && (*sending_position, *sending_id) == (other.sending_position, other.sending_id)
        && *failing_since == other.failing_since
        && *disabled_at == other.disabled_at
}

/// Returns the id of the message with these changes. Depends only on the endpoint and the changes.
fn message_id(webhook: &Model, changes: &[RenderedChange]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(webhook.id.as_uuid().as_bytes());
    for change in changes {
        hash.update(change.row.id.as_uuid().as_bytes());
    }
    let hash = hash.finish();
    format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..ID_BYTES]))
}

/// Returns the backoff after a failed attempt. An endpoint may ask for another backoff within bounds.
fn backoff(failed_attempts: i32, retry_after: Option<TimeDelta>) -> TimeDelta {
    let index = usize::try_from(failed_attempts - 1).unwrap_or_default().min(BACKOFFS.len() - 1);
    let backoff = retry_after.map_or(BACKOFFS[index], |asked| asked.clamp(MIN_BACKOFF, MAX_BACKOFF));
    // Jitter: endpoints that failed at the same time must not be tried again at the same time.
    backoff * rand::rng().random_range(1000..1200) / 1000
}
