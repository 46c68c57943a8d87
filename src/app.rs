//! Builds and runs the whole service: [`App::start`] opens the database and builds the services, the schema, the HTTP
//! server and the metrics. [`App::run_until`] serves requests and runs the background jobs until its `stop` future
//! completes.
//!
//! `vivamo serve` and the tests start the service this way, so the tests run what is deployed. The other commands need
//! only the database and the services, which [`open`] returns. `open` refuses a database that this program cannot use or
//! that belongs to other settings.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use entity::deployment::{self as entity_deployment, Environment};
use entity::value::PhoneNumber;
use sea_orm::{ActiveEnum, DbErr};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, sleep};

use crate::config::HttpSettings;
use crate::database::{self, Database, Fault, StatementObserver, describe, explain_connect_error};
use crate::error::Error;
use crate::graphql::Schema;
use crate::http;
use crate::keyed_hash::KeyedHash;
use crate::service::{Actor, ServiceSettings, Services, deployment, idempotency};

/// The settings of [`App`]. The command line takes the settings from its arguments; the tests choose their own
/// settings.
pub struct AppSettings {
    pub database: DatabaseSettings,
    pub services: ServiceSettings,
    /// Address and port of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The other settings of the server. Only one [`App`] in a process can serve metrics.
    pub http: HttpSettings,
    /// True to run the background jobs, which store when each key was last used and delete expired idempotency keys.
    pub jobs: bool,
}

/// The settings of [`open`].
pub struct DatabaseSettings {
    /// `sqlite://FILE` or `postgres://…`
    pub url: String,
    /// Applies pending migrations. Otherwise a database with pending migrations is refused.
    pub migrate: bool,
    /// The longest time to wait for a PostgreSQL that cannot be reached.
    pub wait: Duration,
    /// Receives the SQL of each statement, without values.
    pub observer: Option<StatementObserver>,
}

/// An error that prevents the start of the service, or that ends a command. The message says what to do about it.
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
    #[error("The database lacks {} migration(s): {}. Run `vivamo migrate` with the same settings.", .0.len(), .0.join(", "))]
    PendingMigrations(Vec<String>),
    #[error(
        "This database was migrated by a newer version of vivamo, or belongs to another application: it has the migration \
         {0}, which this version does not know. Start the newer version, or change DATABASE_URL (--database-url)."
    )]
    UnknownMigration(String),
    #[error("The search words are incomplete: `vivamo migrate` was interrupted. Run it again with the same settings.")]
    IncompleteWords,
    #[error(
        "The API keys of this database were made with another VIVAMO_KEY_SECRET (--key-secret). Set the value of that time. \
         If you changed it on purpose, give the old value as VIVAMO_KEY_SECRET_OLD (--key-secret-old) too, and run \
         `vivamo change-key-secret`. Without the old value, all API keys stop working."
    )]
    OtherKeySecret,
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
        let AppSettings { database, services, listen, http, jobs } = settings;
        let idle_timeout = http.idle_timeout;
        let opened = open(database, services).await?;
        let Opened { database, services, hash, migrated, is_refilled, has_all_words } = opened;
        if !has_all_words {
            return Err(Failure::IncompleteWords);
        }
        if !migrated.is_empty() {
            tracing::info!(migrations = migrated.join(", "), "migrated the database");
        }
        if is_refilled {
            tracing::warn!("{NO_TABLES}");
        }
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
            background.spawn(watch_version(database.clone()));
        }
        http::serve(listener, router, idle_timeout, stop).await;
        background.shutdown().await;
        if jobs {
            write_key_uses(&services).await;
        }
        database.close().await
    }
}

/// A database that this program may use, and the services on it.
pub struct Opened {
    pub database: Database,
    pub services: Arc<Services>,
    /// The secret that the database uses. The schema signs cursors with this secret.
    pub hash: KeyedHash,
    /// Names of the migrations that were applied.
    pub migrated: Vec<String>,
    /// True if the SQLite file existed and had no tables: see [`NO_TABLES`].
    pub is_refilled: bool,
    /// False if some customers cannot be found by a search yet.
    pub has_all_words: bool,
}

/// The warning for a SQLite file that existed and had no tables.
pub const NO_TABLES: &str = "the database file existed but had no tables, so a new database was created in it. If it was copied \
                             with `cp`, the data is in the -wal file of the original: copy with `vivamo backup`";

/// Opens a database of the configured environment with all migrations applied, and builds the services on it.
pub async fn open(settings: DatabaseSettings, services: ServiceSettings) -> Result<Opened, Failure> {
    let is_migrating = settings.migrate;
    let claimed = open_claimed(settings, services.environment, &services.hash).await?;
    let Claimed { database, deployment, migrated, is_refilled } = claimed;
    let fingerprint = deployment.key_fingerprint.as_deref().unwrap_or_default();
    let hash = services.hash.clone().with_fingerprint(fingerprint).ok_or(Failure::OtherKeySecret)?;
    let services = Services::new(&database, ServiceSettings { hash: hash.clone(), ..services });
    let mut has_all_words = deployment::has_all_words(&database).await?;
    if !has_all_words && is_migrating {
        services.customers.add_missing_words(&Actor::Platform).await?;
        deployment::record_all_words(&database).await?;
        has_all_words = true;
    }
    Ok(Opened { database, services, hash, migrated, is_refilled, has_all_words })
}

/// A database of the configured environment with all migrations applied.
struct Claimed {
    database: Database,
    deployment: entity_deployment::Model,
    migrated: Vec<String>,
    is_refilled: bool,
}

async fn open_claimed(
    settings: DatabaseSettings,
    environment: Environment,
    hash: &KeyedHash,
) -> Result<Claimed, Failure> {
    let DatabaseSettings { url, migrate, wait, observer } = settings;
    let file = database::sqlite_file(&url);
    let had_file = file.as_ref().is_some_and(|file| file.exists());
    if let Some(file) = file.filter(|_| !migrate && !had_file) {
        return Err(Failure::NoDatabase(file));
    }
    let cannot_open = |error| cannot_open(&url, &error);
    let database = connect(&url, wait, observer).await?;
    let inspection = database.inspect().await.map_err(cannot_open)?;
    if let Some(unknown) = inspection.unknown.into_iter().next_back() {
        return Err(Failure::UnknownMigration(unknown));
    }
    if let Some(Fault { cause, remedy }) = inspection.fault {
        return Err(Failure::Other(format!("{cause} {remedy}")));
    }
    let pending = inspection.pending;
    // Checked before the migrations: they must not change a database of the other environment.
    if pending.len() < database::migration_count() {
        check_owner(deployment::owner(&database).await?.unwrap_or(environment), environment)?;
    }
    let is_refilled = had_file && pending.len() == database::migration_count();
    let migrated = match pending.is_empty() {
        true => Vec::new(),
        false if migrate => database::migrate(&url).await.map_err(cannot_open)?,
        false => return Err(Failure::PendingMigrations(pending)),
    };
    let deployment = deployment::claim(&database, environment, &hash.fingerprint()).await?;
    check_owner(deployment.environment, environment)?;
    Ok(Claimed { database, deployment, migrated, is_refilled })
}

/// Makes the database use the configured secret from now on. Returns false if the database already uses this secret. If an
/// older secret is configured too, the database must use the older secret so far.
pub async fn change_key_secret(settings: DatabaseSettings, services: ServiceSettings) -> Result<bool, Failure> {
    let ServiceSettings { environment, hash, .. } = services;
    let Claimed { database, deployment, .. } = open_claimed(settings, environment, &hash).await?;
    let stored = deployment.key_fingerprint.as_deref().unwrap_or_default();
    if hash.fingerprint() == stored {
        return Ok(false);
    }
    if hash.replaces_other() && hash.clone().with_fingerprint(stored).is_none() {
        return Err(Failure::OtherKeySecret);
    }
    deployment::change_key(&database, hash.fingerprint()).await?;
    Ok(true)
}

/// Returns the pending work of `vivamo migrate`: the names of the migrations that the database lacks, or a line that says
/// that search words are incomplete. Changes nothing.
pub async fn pending_migrations(settings: DatabaseSettings) -> Result<Vec<String>, Failure> {
    let DatabaseSettings { url, wait, observer, .. } = settings;
    if let Some(file) = database::sqlite_file(&url).filter(|file| !file.exists()) {
        return Err(Failure::NoDatabase(file));
    }
    let database = connect(&url, wait, observer).await?;
    let inspection = database.inspect().await.map_err(|error| cannot_open(&url, &error))?;
    if let Some(unknown) = inspection.unknown.into_iter().next_back() {
        return Err(Failure::UnknownMigration(unknown));
    }
    if inspection.pending.is_empty() && !deployment::has_all_words(&database).await? {
        return Ok(vec!["the search words are incomplete".to_owned()]);
    }
    Ok(inspection.pending)
}

/// Connects to the database. If the database cannot be reached, tries again for the time `wait`.
async fn connect(url: &str, wait: Duration, observer: Option<StatementObserver>) -> Result<Database, Failure> {
    const MAX_PAUSE: Duration = Duration::from_secs(2);
    let started = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        match Database::connect(url, observer.clone()).await {
            Err(error) if database::is_unreachable(&error) && started.elapsed() + pause <= wait => {
                tracing::warn!(cause = describe(&error), "waiting for the database");
            }
            connected => return connected.map_err(|error| cannot_open(url, &error)),
        }
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn cannot_open(url: &str, error: &DbErr) -> Failure {
    Failure::Other(explain_connect_error(url, error))
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

/// Stores once per minute when keys were last used. Every ten minutes deletes expired idempotency keys, and removes the
/// content of erased customers from a SQLite file.
async fn run_jobs(database: Database, services: Arc<Services>) {
    const PERIOD: Duration = Duration::from_secs(60);
    const SWEEP_EVERY: u64 = 10;
    let mut interval = tokio::time::interval(PERIOD);
    for tick in 0_u64.. {
        interval.tick().await;
        write_key_uses(&services).await;
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
        // An outage is reported elsewhere.
        let Ok(now) = database.check_version().await else { continue };
        if may_write && !now {
            tracing::error!(
                "a newer version has migrated the database. This version refuses writes, because it would write rows that the \
                 newer one cannot use: replace this server"
            );
        }
        may_write = now;
    }
}

async fn write_key_uses(services: &Services) {
    if let Err(error) = services.api_keys.save_last_used().await {
        tracing::warn!(cause = error_message(error), "cannot store when keys were last used");
    }
}
