//! The service as one value: [`App::start`] opens the database and builds the services, the schema, the HTTP server and
//! the metrics. [`App::run_until`] serves requests and runs the background jobs until it is told to stop.
//!
//! `vivamo serve` and the tests start the service this way, so the tests run what is deployed. The other commands need
//! the database and the services alone: [`open`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use entity::deployment::Environment;
use entity::value::PhoneNumber;
use sea_orm::{ActiveEnum, DbErr};
use tokio::net::TcpListener;

use crate::database::{self, Database, StatementObserver, explain_connect_error};
use crate::error::Error;
use crate::graphql::{self, Schema};
use crate::http::{HttpSettings, Metrics, Server};
use crate::service::{Actor, ServiceSettings, Services, deployment, idempotency};

/// The settings of [`App`]. The command line fills them from its arguments, the tests choose their own.
pub struct AppSettings {
    /// `sqlite://FILE` or `postgres://…`
    pub database_url: String,
    /// Applies pending migrations. Otherwise a database with pending migrations is refused.
    pub migrate: bool,
    /// Receives the SQL of each statement, without values.
    pub observer: Option<StatementObserver>,
    pub services: ServiceSettings,
    pub http: HttpSettings,
    /// Address and port of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Address and port of `/metrics`. `None` serves no metrics. A process can have one.
    pub metrics: Option<SocketAddr>,
    /// Serves GraphiQL at `/graphiql`.
    pub graphiql: bool,
    /// Runs the background jobs: write when keys were last used, delete expired idempotency keys.
    pub jobs: bool,
}

/// A reason why the service cannot start. The message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("The database file {} does not exist. Create it with `vivamo migrate`.", .0.display())]
    NoDatabase(PathBuf),
    /// The database cannot be opened, or failed.
    #[error("{0}")]
    Database(String),
    #[error("The database lacks {0} migration(s). Run `vivamo migrate` with the same settings.")]
    PendingMigrations(usize),
    #[error(
        "This database belongs to {}, but VIVAMO_ENVIRONMENT (--environment) is {}. Change it, or use another \
         database: change DATABASE_URL (--database-url).", .owner.to_value(), .configured.to_value()
    )]
    OtherEnvironment { owner: Environment, configured: Environment },
    #[error("Cannot listen on {0}: {1}. Choose another address with VIVAMO_LISTEN (--listen).")]
    Listen(SocketAddr, std::io::Error),
    #[error("Cannot serve metrics on {0}: {1}. Choose another address with VIVAMO_METRICS (--metrics).")]
    Metrics(SocketAddr, std::io::Error),
}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        Self::Database(error_message(error))
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
    /// The address the API listens on, with the port that was taken for port 0.
    pub address: SocketAddr,
    pub database: Database,
    pub services: Arc<Services>,
    server: Server,
    metrics: Option<Metrics>,
    jobs: bool,
}

impl App {
    /// Opens the database and binds the addresses. Connections wait until [`run_until`](Self::run_until) serves them.
    pub async fn start(settings: AppSettings) -> Result<Self, StartError> {
        let AppSettings { database_url, migrate, observer, services, http, listen, metrics, graphiql, jobs } = settings;
        let hash = services.hash.clone();
        let (database, services) = open(&database_url, migrate, observer, services).await?;
        let schema = Schema::new(services.clone(), hash);
        let introspection = if graphiql { Some(graphql::introspection().await) } else { None };

        let (listener, address) = bind(listen).await.map_err(|cause| StartError::Listen(listen, cause))?;
        let server = Server::new(listener, http, database.clone(), services.clone(), schema, introspection);
        let metrics = match metrics {
            Some(listen) => {
                let (listener, address) = bind(listen).await.map_err(|cause| StartError::Metrics(listen, cause))?;
                tracing::info!("metrics on http://{address}/metrics");
                Some(Metrics::new(listener))
            }
            None => None,
        };
        // The numbering plans are parsed on first use, which takes as long as many requests.
        tokio::task::spawn_blocking(|| PhoneNumber::parse("+14155552671").map(|phone| phone.line_type()));
        Ok(Self { address, database, services, server, metrics, jobs })
    }

    /// Serves until `stop` completes, then finishes the requests under way and closes the database.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), DbErr> {
        let Self { database, services, server, metrics, jobs, .. } = self;
        let mut background = tokio::task::JoinSet::new();
        if let Some(metrics) = metrics {
            background.spawn(metrics.serve(database.clone()));
        }
        if jobs {
            background.spawn(run_jobs(database.clone(), services.clone()));
        }
        server.serve(stop).await;
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
) -> Result<(Database, Arc<Services>), StartError> {
    let environment = services.environment;
    if let Some(file) = database::sqlite_file(url)
        && !migrate
        && !file.exists()
    {
        return Err(StartError::NoDatabase(file.to_owned()));
    }
    let cannot_open = |error| StartError::Database(explain_connect_error(url, &error));
    let database = Database::connect(url, observer).await.map_err(cannot_open)?;
    let pending = database.pending_migrations().await.map_err(cannot_open)?;
    // Checked before the migrations: they must not change a database of the other environment.
    if pending < database::migration_count() {
        check_owner(deployment::owner(&database).await?.unwrap_or(environment), environment)?;
    }
    let services = Services::new(&database, services);
    if pending > 0 && !migrate {
        return Err(StartError::PendingMigrations(pending));
    }
    if pending > 0 {
        database::migrate(url).await.map_err(cannot_open)?;
        tracing::info!(migrations = pending, "migrated the database");
        services.customers.add_missing_words(&Actor::Platform).await?;
    }
    check_owner(deployment::claim(&database, environment).await?, environment)?;
    Ok((database, services))
}

/// Binds an address. Returns it with the port that was taken for port 0.
async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn check_owner(owner: Environment, configured: Environment) -> Result<(), StartError> {
    if owner == configured { Ok(()) } else { Err(StartError::OtherEnvironment { owner, configured }) }
}

/// Every minute, writes when keys were last used; every tenth minute, deletes expired idempotency keys.
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
