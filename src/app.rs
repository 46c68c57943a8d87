//! Builds and runs the whole service: [`App::start`] opens the database and builds the services, the schema, the HTTP
//! server and the metrics. [`App::run_until`] serves requests and runs the background jobs until its `stop` future
//! completes.
//!
//! `vivamo serve` and the tests start the service this way, so the tests run what is deployed. The commands that manage
//! data need only the database and the services, which [`open`] returns.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use entity::value::PhoneNumber;
use metrics::Gauge;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::config::{HttpSettings, HttpTimeouts};
use crate::database::Database;
use crate::fatal_error::FatalError;
use crate::graphql::Schema;
use crate::http::{self, Probes};
use crate::jobs::{JobSettings, Jobs};
use crate::open::{DatabaseSettings, NO_TABLES, Opened, SearchWords, open};
use crate::service::webhooks::sender::SenderSettings;
use crate::service::{ServiceSettings, Services};

/// The settings of [`App`]. The command line takes the settings from its arguments; the tests choose their own
/// settings.
pub struct AppSettings {
    pub database: DatabaseSettings,
    pub services: ServiceSettings,
    /// Address and port of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The other settings of the server. Only one [`App`] in a process can serve metrics.
    pub http: HttpSettings,
    /// The settings of the background jobs, for example to deliver webhooks and to delete expired idempotency keys.
    /// `None` disables the jobs.
    pub jobs: Option<JobSettings>,
    /// False only in tests, which compare the responses of `graphql::json_writer` with those of async-graphql.
    pub writes_json: bool,
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
    /// The requests whose work has not ended.
    running: TaskTracker,
    timeouts: HttpTimeouts,
    /// The server for metrics. Empty without metrics.
    metrics_server: JoinSet<()>,
    /// `None` if the background jobs are disabled.
    jobs: Option<Jobs>,
}

impl App {
    /// Opens the database, binds the addresses and serves metrics. Connections to the API wait until
    /// [`run_until`](Self::run_until) serves them.
    pub async fn start(settings: AppSettings) -> Result<Self, FatalError> {
        let AppSettings { database, services, listen, http, jobs, writes_json } = settings;
        let timeouts = http.timeouts;
        let sender = SenderSettings::new(services.environment, services.webhook_addresses.clone());
        let opened = open(database, services).await?;
        let Opened { database, services, migrated: _, had_no_tables, search_words } = opened;
        if search_words == SearchWords::Incomplete {
            return Err(FatalError::IncompleteSearchWords);
        }
        if had_no_tables {
            tracing::warn!("{NO_TABLES}");
        }
        let (listener, address) = bind(listen, "VIVAMO_LISTEN (--listen)").await?;
        let probes = Probes::new(database.clone());
        let mut metrics_server = JoinSet::new();
        if let Some(listen) = http.metrics {
            let (listener, address) = bind(listen, "VIVAMO_METRICS (--metrics)").await?;
            tracing::info!("metrics on http://{address}/metrics");
            let router = http::metrics_router(database.clone(), &probes);
            metrics_server.spawn(http::serve(listener, router, timeouts, Gauge::noop(), TaskTracker::new(), pending()));
        }
        let jobs = jobs.map(|jobs| Jobs::new(database.clone(), services.clone(), sender, jobs));
        let schema = Schema::new(services.clone(), writes_json);
        let running = TaskTracker::new();
        let router = http::router(http, services.clone(), schema, &probes, running.clone()).await;
        // The first use of the numbering plans parses the plans. The parsing takes as much time as many requests
        // together. This call starts the parsing before the first request.
        spawn_blocking(|| PhoneNumber::parse("+14155552671").map(|phone| phone.line_type()));
        Ok(Self { address, database, services, listener, router, probes, running, timeouts, metrics_server, jobs })
    }

    /// Serves until `stop` completes, then waits for a limited time until the requests and deliveries in progress are
    /// finished, and closes the database.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self { database, listener, router, probes, running, timeouts, mut metrics_server, jobs, .. } = self;
        let jobs = jobs.map(Jobs::start);
        let stop = async {
            stop.await;
            probes.stop();
            if let Some(jobs) = &jobs {
                jobs.begin_to_stop();
            }
        };
        let open = metrics::gauge!("vivamo_http_connections");
        http::serve(listener, router, timeouts, open, running, stop).await;
        if let Some(jobs) = jobs {
            jobs.stop().await;
        }
        metrics_server.shutdown().await;
        database.close().await;
    }
}

/// Binds an address. Returns the listener and its address, which has the actual port if the given port was 0.
async fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), FatalError> {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|cause| FatalError::Listen(address, cause, setting))?;
    Ok((listener, address))
}
