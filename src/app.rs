//! Builds and runs the whole service: [`App::start`] opens the database and builds the services, the schema, the HTTP
//! server and the metrics. [`App::run_until`] serves requests and runs the background jobs until its `stop` future
//! completes.
//!
//! `vivamo serve` and the tests start the service this way, so the tests run what is deployed. The commands that manage
//! data need only the database and the services, which [`open`] returns.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chrono::{DateTime, TimeDelta, Utc};
use entity::value::PhoneNumber;
use metrics::Gauge;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, timeout};

use crate::config::{ClientTimeouts, HttpSettings};
use crate::database::Database;
use crate::failure::{Failure, error_message};
use crate::graphql::{Schema, WebhookRender};
use crate::http::{self, Probes};
use crate::keyed_hash::KeyedHash;
use crate::open::{DatabaseSettings, NO_TABLES, Opened, open};
use crate::service::feed::Sweep;
use crate::service::webhooks::delivery::{Deliveries, DeliverySettings};
use crate::service::webhooks::sender::{Sender, SenderSettings};
use crate::service::{Actor, ServiceSettings, Services, idempotency, now, phone_lookup};

/// The settings of [`App`]. The command line takes the settings from its arguments; the tests choose their own
/// settings.
pub struct AppSettings {
    pub database: DatabaseSettings,
    pub services: ServiceSettings,
    /// Address and port of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The other settings of the server. Only one [`App`] in a process can serve metrics.
    pub http: HttpSettings,
    /// Number of days for which the change feed keeps a change.
    pub changes_days: u32,
    /// True to run the background jobs, for example to deliver webhooks and to delete expired idempotency keys.
    pub jobs: bool,
}

/// The service, ready to serve.
pub struct App {
    /// The address that the API listens on. If the setting was port 0, this address has the actual port.
    pub address: SocketAddr,
    pub database: Database,
    pub services: Arc<Services>,
    listener: TcpListener,
    router: Router,
    probes: Arc<Probes>,
    timeouts: ClientTimeouts,
    background: JoinSet<()>,
    changes_days: u32,
    jobs: bool,
    /// `None` if the background jobs are disabled, or if the HTTP client cannot be set up.
    deliveries: Option<Deliveries>,
}

impl App {
    /// Opens the database, binds the addresses and serves metrics. Connections to the API wait until
    /// [`run_until`](Self::run_until) serves them.
    pub async fn start(settings: AppSettings) -> Result<Self, Failure> {
        let AppSettings { database, services, listen, http, changes_days, jobs } = settings;
        let timeouts = http.client_timeouts;
        let sender = SenderSettings::new(services.environment, services.webhook_addresses.clone());
        let opened = open(database, services).await?;
        let Opened { database, services, hash, migrated, had_no_tables, has_all_words, .. } = opened;
        if !has_all_words {
            return Err(Failure::IncompleteWords);
        }
        if !migrated.is_empty() {
            tracing::info!(migrations = migrated.join(", "), "migrated the database");
        }
        if had_no_tables {
            tracing::warn!("{NO_TABLES}");
        }
        let (listener, address) = bind(listen, "VIVAMO_LISTEN (--listen)").await?;
        let probes = Probes::new(database.clone());
        let mut background = JoinSet::new();
        if let Some(listen) = http.metrics {
            let (listener, address) = bind(listen, "VIVAMO_METRICS (--metrics)").await?;
            tracing::info!("metrics on http://{address}/metrics");
            let router = http::metrics_router(database.clone(), &probes);
            background.spawn(http::serve(listener, router, timeouts, Gauge::noop(), pending()));
        }
        let deliveries = if jobs { start_deliveries(&database, &services, hash.clone(), sender) } else { None };
        let schema = Schema::new(services.clone(), hash);
        let router = http::router(http, services.clone(), schema, &probes).await;
        // The first use of the numbering plans parses the plans. The parsing takes as much time as many requests
        // together. This call starts the parsing before the first request.
        spawn_blocking(|| PhoneNumber::parse("+14155552671").map(|phone| phone.line_type()));
        Ok(Self {
            address,
            database,
            services,
            listener,
            router,
            probes,
            timeouts,
            background,
            changes_days,
            jobs,
            deliveries,
        })
    }

    /// Serves until `stop` completes, then waits for a limited time until the requests and deliveries under way are
    /// finished, and closes the database.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self {
            database,
            services,
            listener,
            router,
            probes,
            timeouts,
            mut background,
            changes_days,
            jobs,
            deliveries,
            ..
        } = self;
        if jobs {
            background.spawn(run_jobs(database.clone(), services.clone(), TimeDelta::days(changes_days.into())));
            background.spawn(watch_feed(services.clone()));
            background.spawn(watch_version(database.clone()));
        }
        let (stopping, stopped) = oneshot::channel::<()>();
        let stop_deliveries = async { drop(stopped.await) };
        let delivering = deliveries.map(|deliveries| tokio::spawn(deliveries.run(stop_deliveries)));
        let stop = async {
            stop.await;
            probes.stop();
            drop(stopping);
        };
        http::serve(listener, router, timeouts, metrics::gauge!("vivamo_http_connections"), stop).await;
        if let Some(delivering) = delivering {
            // An attempt that is cut off is repeated by another process, or after the next start.
            let _ = timeout(DELIVERY_DRAIN_TIMEOUT, delivering).await;
        }
        background.shutdown().await;
        if jobs && timeout(KEY_USES_TIMEOUT, write_key_uses(&services)).await.is_err() {
            tracing::warn!("stopped before the times of last use of API keys were saved");
        }
        database.close().await;
    }
}

/// The longest time to wait for attempts to deliver webhooks, after the HTTP server has stopped.
const DELIVERY_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time to save the times of last use of API keys when the process stops. With the other times, a process
/// stops within 30 seconds even if the database does not respond.
const KEY_USES_TIMEOUT: Duration = Duration::from_secs(1);

/// Sets up the deliveries of webhooks. Returns `None` if the HTTP client cannot be set up, which happens on a system
/// without CA certificates.
fn start_deliveries(
    database: &Database,
    services: &Arc<Services>,
    hash: KeyedHash,
    sender: SenderSettings,
) -> Option<Deliveries> {
    let sender = match Sender::new(sender) {
        Ok(sender) => sender,
        Err(error) => {
            let cause = error.to_string();
            tracing::error!(cause, "cannot deliver webhooks: install the CA certificates of the system");
            return None;
        }
    };
    let render = Arc::new(WebhookRender { hash });
    let settings = DeliverySettings { sender, render, clock: Arc::new(now) };
    Some(Deliveries::new(database.clone(), services.clone(), settings))
}

/// Binds an address. Returns the listener and its address, which has the actual port if the given port was 0.
async fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|cause| Failure::Listen(address, cause, setting))?;
    Ok((listener, address))
}

/// Once per minute, stores when each key was last used. Every ten minutes, deletes old changes, expired idempotency
/// keys and expired results of carrier lookups, and removes the content of erased customers from a SQLite file. If old
/// changes remain, deletes more changes a minute later.
async fn run_jobs(database: Database, services: Arc<Services>, keep_changes: TimeDelta) {
    const PERIOD: Duration = Duration::from_secs(60);
    const SWEEP_EVERY: u64 = 10;
    let mut interval = tokio::time::interval(PERIOD);
    let mut has_more_changes = false;
    for tick in 0_u64.. {
        interval.tick().await;
        write_key_uses(&services).await;
        if has_more_changes || tick.is_multiple_of(SWEEP_EVERY) {
            has_more_changes = sweep_changes(&services, now() - keep_changes).await;
        }
        if tick.is_multiple_of(SWEEP_EVERY) {
            match services.customers.purge_erased(&Actor::Platform).await {
                Ok(true) => tracing::info!("removed erased customers from the database file"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        cause = error_message(error),
                        "cannot remove erased customers from the database file"
                    );
                }
            }
            match idempotency::sweep(&database).await {
                Ok(deleted) => tracing::debug!(deleted, "deleted expired idempotency keys"),
                Err(error) => tracing::warn!(cause = error_message(error), "cannot delete expired idempotency keys"),
            }
            match phone_lookup::sweep(&database).await {
                Ok(deleted) => tracing::debug!(deleted, "deleted expired carrier results"),
                Err(error) => tracing::warn!(cause = error_message(error), "cannot delete expired carrier results"),
            }
        }
    }
}

/// Deletes changes that occurred before `time`. Returns true if there may be more of them, and false after an error.
async fn sweep_changes(services: &Services, time: DateTime<Utc>) -> bool {
    match services.feed.sweep(&Actor::Platform, time).await {
        Ok(Sweep { deleted, has_more }) => {
            tracing::debug!(deleted, has_more, "deleted old changes");
            has_more
        }
        Err(error) => {
            tracing::warn!(cause = error_message(error), "cannot delete old changes");
            false
        }
    }
}

/// Checks every second if a newer version has migrated the database in a way that forbids this version to write.
async fn watch_version(database: Database) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut may_write = true;
    loop {
        interval.tick().await;
        // If the database is unavailable, the requests log the cause.
        let Ok(now) = database.check_version().await else { continue };
        if may_write && !now {
            tracing::error!(
                "a newer version has migrated the database. This version rejects writes, because it would leave out rows \
                 that the newer version needs: replace this server"
            );
        }
        may_write = now;
    }
}

/// Measures every five seconds how long the change feed is delayed.
async fn watch_feed(services: Arc<Services>) {
    const PERIOD: Duration = Duration::from_secs(5);
    const LONG: TimeDelta = TimeDelta::seconds(60);
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_long = false;
    loop {
        interval.tick().await;
        // An outage is reported elsewhere.
        let Ok(lag) = services.feed.lag().await else { continue };
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

async fn write_key_uses(services: &Services) {
    if let Err(error) = services.api_keys.save_last_used().await {
        tracing::warn!(cause = error_message(error), "cannot store when keys were last used");
    }
}
