//! Builds and runs the whole service: [`App::start`] opens the database and builds the services, the schema, the HTTP
//! server and the metrics. [`App::run_until`] serves requests and runs the background jobs until its `stop` future
//! completes.
//!
//! `vivamo serve` and the tests start the service this way, so the tests run what is deployed. The other commands need
//! only the database and the services, which [`open`] returns.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use entity::deployment::Environment;
use entity::value::PhoneNumber;
use sea_orm::{ActiveEnum, DbErr};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};

use crate::config::HttpSettings;
use crate::database::{self, Database, StatementObserver, explain_connect_error};
use crate::error::Error;
use crate::graphql::Schema;
use crate::http;
use crate::service::{Actor, ServiceSettings, Services, deployment, idempotency};

/// The settings of [`App`]. The command line takes the settings from its arguments; the tests choose their own
/// settings.
pub struct AppSettings {
    /// `sqlite://FILE` or `postgres://…`
    pub database_url: String,
    /// True to apply pending migrations. If false, a database that has pending migrations is refused.
    pub migrate: bool,
    /// Receives the SQL of each statement, without values.
    pub observer: Option<StatementObserver>,
    pub services: ServiceSettings,
    /// Address and port of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The other settings of the server. Only one [`App`] in a process can serve metrics.
    pub http: HttpSettings,
    /// True to run the background jobs, which store when each key was last used and delete expired idempotency keys.
    pub jobs: bool,
}

/// An error that prevents the start of the service, or that ends a command. The message says what to do about the
/// error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An argument or a setting is wrong.
    #[error("{0}")]
    Usage(String),
    #[error("The database file {} does not exist. Create it with `vivamo migrate`.", .0.display())]
    NoDatabase(PathBuf),
    /// Any other failure, with its message.
    #[error("{0}")]
    Other(String),
    #[error("The database lacks {0} migration(s). Run `vivamo migrate` with the same settings.")]
    PendingMigrations(usize),
    #[error(
        "This database belongs to {}, but VIVAMO_ENVIRONMENT (--environment) is {}. Change the environment, or use \
         another database: change DATABASE_URL (--database-url).", .owner.to_value(), .configured.to_value()
    )]
    OtherEnvironment { owner: Environment, configured: Environment },
    #[error("Cannot listen on {0}: {1}. Choose another address with {2}.")]
    Listen(SocketAddr, std::io::Error, &'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error_message(error))
    }
}

/// Returns the messages of an error, one per line, for the people who run the service.
pub fn error_message(error: Error) -> String {
    match error {
        Error::Rejected(violations) => {
            violations.into_iter().map(|violation| violation.message).collect::<Vec<_>>().join("\n")
        }
        Error::Failed { cause, .. } => format!("The database failed: {cause}"),
    }
}

/// The service, ready to serve.
pub struct App {
    /// The address that the API listens on. If the setting was port 0, this address has the actual port.
    pub address: SocketAddr,
    pub database: Database,
    pub services: Arc<Services>,
    listener: TcpListener,
    router: Router,
    idle_timeout: Duration,
    background: JoinSet<()>,
    jobs: bool,
}

impl App {
    /// Opens the database, binds the addresses and serves metrics. Connections to the API wait until
    /// [`run_until`](Self::run_until) serves them.
    pub async fn start(settings: AppSettings) -> Result<Self, Failure> {
        let AppSettings { database_url, migrate, observer, services, listen, http, jobs } = settings;
        let idle_timeout = http.idle_timeout;
        let hash = services.hash.clone();
        let (database, services) = open(&database_url, migrate, observer, services).await?;
        let (listener, address) = bind(listen, "VIVAMO_LISTEN (--listen)").await?;
        let mut background = JoinSet::new();
        if let Some(listen) = http.metrics {
            let (listener, address) = bind(listen, "VIVAMO_METRICS (--metrics)").await?;
            tracing::info!("metrics on http://{address}/metrics");
            background.spawn(http::serve(listener, http::metrics_router(database.clone()), idle_timeout, pending()));
        }
        let schema = Schema::new(services.clone(), hash);
        let router = http::router(http, database.clone(), services.clone(), schema).await;
        // The first use of the numbering plans parses them, which takes as long as many requests. This call is the
        // first use, so no request has to wait.
        spawn_blocking(|| PhoneNumber::parse("+14155552671").map(|phone| phone.line_type()));
        Ok(Self { address, database, services, listener, router, idle_timeout, background, jobs })
    }

    /// Serves until `stop` completes, then finishes the requests under way and closes the database.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), DbErr> {
        let Self { database, services, listener, router, idle_timeout, mut background, jobs, .. } = self;
        if jobs {
            background.spawn(run_jobs(database.clone(), services.clone()));
        }
        http::serve(listener, router, idle_timeout, stop).await;
        background.shutdown().await;
        if jobs {
            write_key_uses(&services).await;
        }
        database.close().await
    }
}

/// Opens a database of the configured environment with all migrations applied, and builds the services on it.
pub async fn open(
    url: &str,
    migrate: bool,
    observer: Option<StatementObserver>,
    services: ServiceSettings,
) -> Result<(Database, Arc<Services>), Failure> {
    let environment = services.environment;
    if let Some(file) = database::sqlite_file(url).filter(|file| !migrate && !file.exists()) {
        return Err(Failure::NoDatabase(file.to_owned()));
    }
    let cannot_open = |error| Failure::Other(explain_connect_error(url, &error));
    let database = Database::connect(url, observer).await.map_err(cannot_open)?;
    let pending = database.pending_migrations().await.map_err(cannot_open)?;
    // This check comes before the migrations, because migrations must not change a database of the other environment.
    if pending < database::migration_count() {
        check_owner(deployment::owner(&database).await?.unwrap_or(environment), environment)?;
    }
    let services = Services::new(&database, services);
    if pending > 0 && !migrate {
        return Err(Failure::PendingMigrations(pending));
    }
    if pending > 0 {
        database::migrate(url).await.map_err(cannot_open)?;
        tracing::info!(migrations = pending, "migrated the database");
        services.customers.add_missing_words(&Actor::Platform).await?;
    }
    check_owner(deployment::claim(&database, environment).await?, environment)?;
    Ok((database, services))
}

/// Binds an address. Returns the listener and its address, which has the actual port if the given port was 0.
async fn bind(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = bound.map_err(|cause| Failure::Listen(address, cause, setting))?;
    Ok((listener, address))
}

fn check_owner(owner: Environment, configured: Environment) -> Result<(), Failure> {
    if owner == configured { Ok(()) } else { Err(Failure::OtherEnvironment { owner, configured }) }
}

/// Stores once per minute when keys were last used, and deletes expired idempotency keys every ten minutes.
async fn run_jobs(database: Database, services: Arc<Services>) {
    const PERIOD: Duration = Duration::from_secs(60);
    const SWEEP_EVERY: u64 = 10;
    let mut interval = tokio::time::interval(PERIOD);
    for tick in 0_u64.. {
        interval.tick().await;
        write_key_uses(&services).await;
        if tick.is_multiple_of(SWEEP_EVERY) {
            match idempotency::sweep(&database).await {
                Ok(deleted) => tracing::debug!(deleted, "deleted expired idempotency keys"),
                Err(error) => tracing::warn!(cause = error_message(error), "cannot delete expired idempotency keys"),
            }
        }
    }
}

async fn write_key_uses(services: &Services) {
    if let Err(error) = services.api_keys.save_last_used().await {
        tracing::warn!(cause = error_message(error), "cannot store when keys were last used");
    }
}
