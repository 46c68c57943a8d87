//! Delivers changes to the endpoints of webhooks.
//!
//! An endpoint reads the feed of its operator, and its row has the cursor of the last change that was delivered or
//! skipped. There are no rows for deliveries. Any number of processes run [`Deliveries::run`] on one database:
//!
//! 1. **Poll** (`poll.rs`). One statement per second reads the position of the last change, and whether the backoff of
//!    an endpoint has ended. A request that creates or enables an endpoint, or changes its URL or its cursor, ends the
//!    backoff: it sets `next_attempt_at` to the time of the request. A request that resumes a suspended operator does
//!    the same for a backoff that ended during the suspension. The statement reads two index entries. If the position
//!    is new or a backoff has ended, step 2 follows. Step 2 also runs every 30 seconds, because a killed process may
//!    not have finished its endpoints. Step 2 also runs when the process has finished its deliveries to an endpoint,
//!    because the endpoint may have new changes.
//! 2. **Claim** (`claim.rs`). A process takes endpoints that are due and have changes after their cursors, and gives
//!    them a lease of one minute. `SKIP LOCKED` lets processes claim different endpoints at the same time. A process
//!    delivers to many endpoints at the same time, but sends one request at a time to each endpoint, so an endpoint
//!    that is slow delays no other endpoint. While five deliveries to an operator are in progress, the process claims
//!    none of its endpoints.
//! 3. **Page** (`page.rs`). The process reads the changes after the cursor, at most 100 and at most 20 kB. The end of
//!    the page is stored before the first attempt. A repeated attempt therefore sends the same changes under the same
//!    id, even if another process makes the attempt.
//! 4. **Result** (`result.rs`). Status 2xx moves the cursor. After any other result, a backoff follows, first of
//!    seconds, later of hours. The endpoint is disabled after five days of failures, after a response with status 410,
//!    or if changes after the cursor are no longer stored.
//!
//! Steps 3 and 4 take effect only if this process still has the lease, and if no request has meanwhile changed the
//! cursor, the URL or the types of the endpoint, disabled or enabled it, or, while it was failing, resumed its operator
//! (`is_same_attempt`). If another process has the lease, nothing is written. If the endpoint has changed, only the
//! lease ends.

mod claim;
mod gauges;
mod outcome;
mod page;
mod poll;
mod queries;
mod result;
mod running;

pub use gauges::set_gauges;
pub use outcome::{DeliveryOutcome, DisableReason};

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use entity::customer_change;
use entity::value::OperatorId;
use entity::webhook::{ActiveModel, Failure, Model};
use reqwest::StatusCode;
use sea_orm::{ConnectionTrait, DbBackend, Set};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::sender::{Response, Sender};
use crate::database::Database;
use crate::error::{Error, ErrorCode};
use crate::request::{Tenant, run_as};
use crate::service::feed_positions::FeedPosition;
use crate::service::job_errors::JobErrors;
use crate::service::{Services, every};
use poll::PollState;
use result::{Failed, no_columns};
use running::Running;

/// A function that returns the current time. Tests pass their own function in order to let days pass.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Renders the parts of a delivery that clients also read from the API.
pub trait ChangeRenderer: Send + Sync {
    /// Returns a change with the field names of the API.
    fn change(&self, change: &customer_change::Model) -> Json;

    /// Returns the cursor of a position in the feed of an operator.
    fn cursor(&self, operator: OperatorId, position: FeedPosition) -> String;
}

/// The settings of [`Deliveries`].
pub struct DeliverySettings {
    pub sender: Sender,
    pub renderer: Arc<dyn ChangeRenderer>,
    pub clock: Clock,
}

/// Delivers changes to endpoints. Clones share their state.
#[derive(Clone)]
pub struct Deliveries {
    database: Database,
    /// Reads the feed.
    services: Arc<Services>,
    settings: Arc<DeliverySettings>,
    /// True if the process is about to end. Attempts in progress are finished, and no others begin.
    is_stopping: Arc<AtomicBool>,
}

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of pages that an endpoint receives before other endpoints have their turn.
const MAX_PAGES: usize = 20;

impl Deliveries {
    pub fn new(database: Database, services: Arc<Services>, settings: DeliverySettings) -> Self {
        Self { database, services, settings: Arc::new(settings), is_stopping: Arc::default() }
    }

    /// Delivers changes until `stop` completes, then finishes the attempts in progress.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut polls = every(POLL_INTERVAL);
        let mut state = PollState { position: None, time: self.now(), must_claim: true, claimed_at: Instant::now() };
        let mut errors = JobErrors::new("deliver webhooks");
        let mut running = Running::default();
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = polls.tick() => {
                    errors.log(self.poll_and_deliver(&mut state, &mut running).await);
                }
            }
        }
        self.is_stopping.store(true, Ordering::Relaxed);
        running.finish().await;
    }

    /// Delivers once to the endpoints that are due, for tests. Returns the number of these endpoints.
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

    async fn claim_and_deliver(&self, running: &mut Running) -> Result<usize, Error> {
        let claimed = self.claim(running).await?;
        let endpoints = claimed.len();
        for endpoint in claimed {
            let (deliveries, operator) = (self.clone(), endpoint.operator_id);
            let deliver = async move {
                let id = endpoint.id;
                if let Err(error) = deliveries.deliver(endpoint).await {
                    // The endpoint is due again at the end of its lease.
                    tracing::warn!(webhook = %id, cause = error.describe(), "cannot deliver to a webhook endpoint");
                }
            };
            running.spawn(operator, run_as(Tenant::Deliveries, deliver));
        }
        Ok(endpoints)
    }

    /// Delivers pages to an endpoint of which this process has the lease.
    async fn deliver(&self, mut endpoint: Model) -> Result<(), Error> {
        for _ in 0..MAX_PAGES {
            if self.is_stopping.load(Ordering::Relaxed) {
                break;
            }
            match self.deliver_page(&endpoint).await? {
                Some(next) => endpoint = next,
                None => return Ok(()),
            }
        }
        self.store_if_same_attempt(&endpoint, ActiveModel { lease_until: Set(None), ..no_columns() }).await?;
        Ok(())
    }

    /// Delivers one page. Returns the new row if there are more changes. In this case, the process keeps the lease.
    async fn deliver_page(&self, endpoint: &Model) -> Result<Option<Model>, Error> {
        let page = match self.next_page(endpoint).await {
            Err(error) if error.has(ErrorCode::CursorExpired) => {
                let expired = ActiveModel { last_failure: Set(Some(Failure::CursorExpired)), ..no_columns() };
                self.disable(endpoint, expired, DisableReason::CursorExpired).await?;
                return Ok(None);
            }
            page => page?,
        };
        let Some(last) = page.changes.last() else {
            return self.move_cursor(endpoint, &page, no_columns()).await;
        };
        let begin = ActiveModel {
            sending_position: Set(Some(last.row.position)),
            sending_id: Set(Some(*last.row.id.as_uuid())),
            last_attempt_at: Set(Some(self.now())),
            lease_until: Set(Some(self.new_lease())),
            ..no_columns()
        };
        let begun = self.store_if_same_attempt(endpoint, begin).await?;
        let Some(endpoint) = begun else { return Ok(None) };
        // Since the claim, the operator may have been suspended.
        if endpoint.paused_at.is_some() {
            self.store_if_same_attempt(&endpoint, ActiveModel { lease_until: Set(None), ..no_columns() }).await?;
            return Ok(None);
        }
        let attempt = self.attempt(&endpoint, &page.changes, last);
        let result = self.settings.sender.send(&endpoint.url, attempt, self.now()).await;
        DeliveryOutcome::of(&result).counter().increment(1);
        let status = result.as_ref().ok().map(|response| response.status.as_u16().into());
        let answered = ActiveModel { last_status: Set(status), ..no_columns() };
        let failed = match result {
            Ok(Response { status, .. }) if status.is_success() => {
                return self.move_cursor(&endpoint, &page, answered).await;
            }
            Ok(Response { status, retry_after }) => {
                Failed { failure: Failure::Status, is_gone: status == StatusCode::GONE, retry_after }
            }
            Err(failure) => Failed { failure, is_gone: false, retry_after: None },
        };
        self.fail(&endpoint, failed, answered).await?;
        Ok(None)
    }

    fn backend(&self) -> DbBackend {
        self.database.reader().get_database_backend()
    }
}
