//! The background jobs of a server: deliver webhooks, measure their endpoints, store when keys were last used, delete
//! expired rows, and watch the change feed and the version of the database.
//!
//! A job that panics starts again after [`RESTART_PAUSE`]: requests do not need the job, so the server continues.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::database::Database;
use crate::error::Error;
use crate::graphql::ApiChangeRenderer;
use crate::service::job_errors::JobErrors;
use crate::service::webhooks::delivery::{self, Deliveries, DeliverySettings};
use crate::service::webhooks::sender::{Sender, SenderSettings};
use crate::service::{Caller, Services, every, idempotency, now, phone_lookup};

/// The pause before a job that has panicked starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(10);

/// The longest time to wait for attempts to deliver webhooks, after the HTTP server has stopped.
const DELIVERY_DRAIN_TIMEOUT: Duration = Duration::from_secs(9);

/// The longest time to save the times of last use of API keys when the process stops. With the other times, a process
/// stops within 35 seconds even if the database does not respond.
const KEY_USES_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of [`Jobs`].
pub struct JobSettings {
    /// Number of days for which the change feed keeps a change.
    pub changes_days: u32,
}

/// The background jobs, ready to start.
pub struct Jobs {
    context: JobContext,
    /// `None` if the HTTP client cannot be set up.
    deliveries: Option<Deliveries>,
}

/// The values that the periodic jobs use.
#[derive(Clone)]
struct JobContext {
    database: Database,
    services: Arc<Services>,
    /// The age at which a change is deleted from the change feed.
    keep_changes: TimeDelta,
}

/// The background jobs, started.
pub struct RunningJobs {
    services: Arc<Services>,
    periodic: JoinSet<()>,
    delivering: Option<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

impl Jobs {
    /// Sets up the jobs. Logs an error and leaves out the deliveries of webhooks if the HTTP client cannot be set up,
    /// which happens on a system without CA certificates.
    pub fn new(database: Database, services: Arc<Services>, sender: SenderSettings, settings: JobSettings) -> Self {
        let keep_changes = TimeDelta::days(settings.changes_days.into());
        let deliveries = match Sender::new(sender) {
            Ok(sender) => {
                let renderer = Arc::new(ApiChangeRenderer { hasher: services.hasher.clone() });
                let settings = DeliverySettings { sender, renderer, clock: Arc::new(now) };
                Some(Deliveries::new(database.clone(), services.clone(), settings))
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(cause, "cannot deliver webhooks: install the CA certificates of the system");
                None
            }
        };
        Self { context: JobContext { database, services, keep_changes }, deliveries }
    }

    pub fn start(self) -> RunningJobs {
        let Self { context, deliveries } = self;
        let (stopping, stopped) = watch::channel(false);
        let delivering = deliveries.map(|deliveries| {
            tokio::spawn(restart_after_panics("deliver webhooks", RESTART_PAUSE, move || {
                let mut stopped = stopped.clone();
                deliveries.clone().run(async move { drop(stopped.wait_for(|is_stopping| *is_stopping).await) })
            }))
        });
        let mut periodic = JoinSet::new();
        spawn_periodic(&mut periodic, "watch the feed", &context, watch_feed);
        spawn_periodic(&mut periodic, "watch the version", &context, watch_version);
        spawn_periodic(&mut periodic, "measure webhooks", &context, measure_webhooks);
        spawn_periodic(&mut periodic, "save key uses", &context, save_key_uses);
        spawn_periodic(&mut periodic, "delete old rows", &context, delete_old_rows);
        RunningJobs { services: context.services, periodic, delivering, stopping }
    }
}

impl RunningJobs {
    /// Lets no further attempts to deliver webhooks begin.
    pub fn begin_to_stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Stops the jobs. Waits for a limited time until the attempts to deliver webhooks are finished, and stores when
    /// keys were last used.
    pub async fn stop(mut self) {
        self.begin_to_stop();
        if let Some(delivering) = self.delivering {
            // An attempt that is cut off is repeated by another process, or after the next start.
            let _ = timeout(DELIVERY_DRAIN_TIMEOUT, delivering).await;
        }
        self.periodic.shutdown().await;
        if timeout(KEY_USES_TIMEOUT, write_key_uses(&self.services)).await.is_err() {
            tracing::warn!("stopped before the times of last use of API keys were saved");
        }
    }
}

/// Starts a job that runs until the process stops. `name` names the job in the log.
fn spawn_periodic<J>(jobs: &mut JoinSet<()>, name: &'static str, context: &JobContext, run: fn(JobContext) -> J)
where
    J: Future<Output = ()> + Send + 'static,
{
    let context = context.clone();
    jobs.spawn(restart_after_panics(name, RESTART_PAUSE, move || run(context.clone())));
}

/// Runs a job until it ends. If the job panics, logs an error, and starts the job again after `pause`.
async fn restart_after_panics<J: Future<Output = ()>>(job: &'static str, pause: Duration, start: impl Fn() -> J) {
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        tracing::error!(job, seconds = pause.as_secs(), "a background job failed: it will start again");
        #[expect(clippy::disallowed_methods, reason = "the pause")]
        tokio::time::sleep(pause).await;
    }
}

/// Stores once per minute when each key was last used.
async fn save_key_uses(JobContext { services, .. }: JobContext) {
    let mut interval = every(Duration::from_secs(60));
    loop {
        interval.tick().await;
        write_key_uses(&services).await;
    }
}

/// Every ten minutes, deletes old changes, expired idempotency keys and expired results of carrier lookups, and removes
/// the content of erased customers from a SQLite file. If old changes or the content of erased customers remain,
/// continues with them a minute later.
async fn delete_old_rows(JobContext { database, services, keep_changes }: JobContext) {
    const MINUTE: Duration = Duration::from_secs(60);
    const PERIOD_IN_MINUTES: u32 = 10;
    let mut minutes = every(MINUTE);
    // The immediate tick, so that the ticks in the loop are a minute apart.
    minutes.tick().await;
    loop {
        log_deleted("expired idempotency keys", idempotency::delete_expired_results(&database).await);
        log_deleted("expired carrier results", phone_lookup::delete_expired_results(&database).await);
        let (mut may_have_old_changes, mut may_have_erased_content) = (true, true);
        for _ in 0..PERIOD_IN_MINUTES {
            if may_have_old_changes {
                may_have_old_changes = sweep_changes(&services, now() - keep_changes).await;
            }
            if may_have_erased_content {
                may_have_erased_content = purge_erased(&services).await;
            }
            minutes.tick().await;
        }
    }
}

/// Deletes changes that occurred before `time`. Returns true if there may be more of them.
async fn sweep_changes(services: &Services, time: DateTime<Utc>) -> bool {
    let swept = services.feed.sweep(&Caller::Platform, time).await;
    let may_have_more = swept.as_ref().map_or(true, |swept| swept.has_more);
    log_deleted("old changes", swept.map(|swept| swept.deleted));
    may_have_more
}

/// Logs the number of deleted rows, or the error. `rows` names the rows in the log.
fn log_deleted(rows: &str, result: Result<u64, Error>) {
    match result {
        Ok(deleted) => tracing::debug!(deleted, "deleted {rows}"),
        Err(error) => tracing::warn!(cause = error.describe(), "cannot delete {rows}"),
    }
}

/// Removes the content of erased customers from a SQLite file. Returns true if content remains because of an error, for
/// example because a reader used the file for too long.
async fn purge_erased(services: &Services) -> bool {
    match services.customers.purge_erased(&Caller::Platform).await {
        Ok(was_rewritten) => {
            if was_rewritten {
                tracing::info!("removed erased customers from the database file");
            }
            false
        }
        Err(error) => {
            tracing::warn!(cause = error.describe(), "cannot remove erased customers from the database file");
            true
        }
    }
}

/// Checks every second if a newer version has migrated the database in a way that forbids this version to write.
async fn watch_version(JobContext { database, .. }: JobContext) {
    let mut interval = every(Duration::from_secs(1));
    let mut errors = JobErrors::new("watch the version");
    let mut may_write = true;
    loop {
        interval.tick().await;
        let Some(may_write_now) = errors.log(database.update_may_write().await) else { continue };
        if may_write && !may_write_now {
            tracing::error!(
                "a newer version has migrated the database. This version rejects writes, because it would leave out rows \
                 that the newer version needs: replace this server"
            );
        }
        may_write = may_write_now;
    }
}

/// Measures every five seconds how long the change feed is delayed.
async fn watch_feed(JobContext { services, .. }: JobContext) {
    const PERIOD: Duration = Duration::from_secs(5);
    const LONG: TimeDelta = TimeDelta::seconds(60);
    let mut interval = every(PERIOD);
    let mut errors = JobErrors::new("watch the feed");
    let mut was_long = false;
    loop {
        interval.tick().await;
        let Some(lag) = errors.log(services.feed.lag().await) else { continue };
        metrics::gauge!("vivamo_feed_lag_seconds").set(lag.as_seconds_f64());
        if lag > LONG && !was_long {
            tracing::warn!(
                seconds = lag.num_seconds(),
                "an open transaction delays the change feed: look for it in pg_stat_activity and pg_prepared_xacts"
            );
        }
        was_long = lag > LONG;
    }
}

/// Measures the endpoints of webhooks every 30 seconds, also if this server cannot deliver.
async fn measure_webhooks(JobContext { database, .. }: JobContext) {
    let mut interval = every(Duration::from_secs(30));
    let mut errors = JobErrors::new("measure webhooks");
    loop {
        interval.tick().await;
        errors.log(delivery::set_gauges(&database).await);
    }
}

async fn write_key_uses(services: &Services) {
    if let Err(error) = services.authenticator.save_last_used().await {
        tracing::warn!(cause = error.describe(), "cannot store when keys were last used");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_starts_again() {
        let starts = AtomicU8::new(0);
        let job = async || assert_eq!(starts.fetch_add(1, Ordering::Relaxed), 2, "the first two starts fail");
        restart_after_panics("test", Duration::ZERO, job).await;
        assert_eq!(starts.into_inner(), 3);
    }
}
