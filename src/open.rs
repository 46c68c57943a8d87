//! Opens the database: waits for it, inspects it, applies migrations, and builds the services on it. [`open`] rejects a
//! database that this program cannot use, that belongs to another environment, or that uses another key secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use entity::deployment::Environment;
use sea_orm::DbErr;
use tokio::time::sleep;

use crate::database::{
    self, Database, DatabaseTimeouts, Inspection, Problem, StatementObserver, describe, explain_connect_error,
};
use crate::error::Error;
use crate::fatal_error::FatalError;
use crate::keyed_hash::KeyedHasher;
use crate::service::{Caller, ServiceSettings, Services, deployment, feed_positions};

/// The settings of [`open`].
pub struct DatabaseSettings {
    /// `sqlite://FILE` or `postgres://…`
    pub url: String,
    pub pending_migrations: PendingMigrations,
    /// The longest time to wait at the start for a PostgreSQL that cannot be reached.
    pub startup_wait: Duration,
    pub timeouts: DatabaseTimeouts,
    /// Receives the SQL of each statement, without values.
    pub observer: Option<StatementObserver>,
}

/// The treatment of a database with pending migrations, or with other work of `vivamo migrate` to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingMigrations {
    /// Applies the migrations and does the other work. Also creates a SQLite file that does not exist.
    Apply,
    /// Rejects the database, but opens a database in which only search words are missing.
    Reject,
}

/// A database that this program may use, and the services on it.
pub struct Opened {
    pub database: Database,
    pub services: Arc<Services>,
    /// Names of the migrations that were applied.
    pub migrated: Vec<String>,
    /// True if the SQLite file existed and had no tables: see [`NO_TABLES`].
    pub had_no_tables: bool,
    pub search_words: SearchWords,
}

/// The state of the search words of the customers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SearchWords {
    /// The database already had all search words.
    Complete,
    /// Some search words were missing, and [`open`] wrote them.
    Completed,
    /// Some customers cannot be found by a search yet.
    Incomplete,
}

/// The warning for a SQLite file that existed and had no tables.
pub const NO_TABLES: &str = "the database file existed but had no tables, so a new database was created in it. If the \
                             file was copied with `cp`, the data is in the -wal file of the original: copy with \
                             `vivamo backup`";

/// Opens a database of the configured environment with all migrations applied, and builds the services on it.
pub async fn open(settings: DatabaseSettings, services: ServiceSettings) -> Result<Opened, FatalError> {
    let pending = settings.pending_migrations;
    let checked = open_checked(settings, services.environment, &services.hasher, NewSecret::Reject).await?;
    let CheckedDatabase { database, hasher, migrated, had_no_tables } = checked;
    continue_feed_positions(&database, pending).await?;
    let services = Services::new(&database, ServiceSettings { hasher, ..services });
    let search_words = complete_search_words(&database, &services, pending).await?;
    Ok(Opened { database, services, migrated, had_no_tables, search_words })
}

/// Lets new positions in the change feed continue after the stored positions if these are ahead, as after a restore on
/// another server. Fails in this case if pending work is rejected.
async fn continue_feed_positions(database: &Database, pending: PendingMigrations) -> Result<(), FatalError> {
    if !feed_positions::stored_positions_are_ahead(database).await.map_err(Error::from)? {
        return Ok(());
    }
    if pending == PendingMigrations::Reject {
        return Err(FatalError::FeedAhead);
    }
    feed_positions::raise_base(database).await.map_err(Error::from)?;
    tracing::info!("raised the positions in the change feed");
    Ok(())
}

/// Writes missing search words, unless pending work is rejected.
async fn complete_search_words(
    database: &Database,
    services: &Services,
    pending: PendingMigrations,
) -> Result<SearchWords, FatalError> {
    if deployment::has_all_words(database).await? {
        return Ok(SearchWords::Complete);
    }
    if pending == PendingMigrations::Reject {
        return Ok(SearchWords::Incomplete);
    }
    services.customers.add_missing_words(&Caller::Platform).await?;
    deployment::record_all_words(database).await?;
    Ok(SearchWords::Completed)
}

/// A database of the configured environment with all migrations applied.
struct CheckedDatabase {
    database: Database,
    /// Makes hashes with the secret that the database uses, or with the configured one if that is a new secret.
    hasher: KeyedHasher,
    migrated: Vec<String>,
    had_no_tables: bool,
}

/// The treatment of a database that uses none of the configured secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewSecret {
    Accept,
    Reject,
}

async fn open_checked(
    settings: DatabaseSettings,
    environment: Environment,
    hasher: &KeyedHasher,
    new_secret: NewSecret,
) -> Result<CheckedDatabase, FatalError> {
    let had_file = database::sqlite_file(&settings.url).is_some_and(|file| file.exists());
    let missing_file = match settings.pending_migrations {
        PendingMigrations::Apply => MissingFile::Create,
        PendingMigrations::Reject => MissingFile::Reject,
    };
    let (database, inspection) = connect_and_inspect(&settings, missing_file).await?;
    // Before the migrations, because they must not change a database of the other environment. If the secret is wrong,
    // nothing must have changed either: servers of an older version may have to continue.
    check_usable(&database, &inspection, environment).await?;
    check_secret(&database, &inspection, hasher, new_secret).await?;
    let had_no_tables = had_file && inspection.is_new_database();
    let migrated = match settings.pending_migrations {
        _ if inspection.pending.is_empty() => Vec::new(),
        PendingMigrations::Apply => {
            let applied = database::migrate(&settings.url).await.map_err(|error| cannot_open(&settings.url, &error))?;
            if !applied.is_empty() {
                tracing::info!(migrations = applied.join(", "), "migrated the database");
            }
            applied
        }
        PendingMigrations::Reject => return Err(FatalError::PendingMigrations(inspection.pending)),
    };
    let deployment = deployment::claim(&database, environment, &hasher.fingerprint()).await?;
    // Another process may have claimed a new database in the meantime.
    check_environment(deployment.environment, environment)?;
    let hasher = hasher_for(&deployment.key_fingerprint.unwrap_or_default(), hasher, new_secret)?;
    Ok(CheckedDatabase { database, hasher, migrated, had_no_tables })
}

/// Fails if the service cannot use the database, or if the database belongs to the other environment.
async fn check_usable(
    database: &Database,
    inspection: &Inspection,
    environment: Environment,
) -> Result<(), FatalError> {
    if let Some(Problem { cause, remedy }) = &inspection.problem {
        return Err(FatalError::Other(format!("{cause} {remedy}")));
    }
    if !inspection.is_new_database() {
        check_environment(deployment::environment(database).await?.unwrap_or(environment), environment)?;
    }
    Ok(())
}

/// Fails if the database uses none of the configured secrets, unless a new secret is accepted.
async fn check_secret(
    database: &Database,
    inspection: &Inspection,
    hasher: &KeyedHasher,
    new_secret: NewSecret,
) -> Result<(), FatalError> {
    if inspection.pending.iter().any(|pending| pending == migration::KEY_FINGERPRINT) {
        return Ok(());
    }
    let stored = deployment::key_fingerprint(database).await?;
    stored.map_or(Ok(()), |stored| hasher_for(&stored, hasher, new_secret).map(|_| ()))
}

/// Returns the hasher for a database with this fingerprint. Fails if none of the configured secrets has it, unless a
/// new secret is accepted.
fn hasher_for(stored: &[u8], configured: &KeyedHasher, new_secret: NewSecret) -> Result<KeyedHasher, FatalError> {
    match configured.clone().with_fingerprint(stored) {
        Some(hasher) => Ok(hasher),
        None if new_secret == NewSecret::Accept => Ok(configured.clone()),
        None => Err(FatalError::KeySecretMismatch),
    }
}

/// Makes the database use the configured secret from now on. Returns false if the database already uses this secret.
/// Fails if an older secret is configured too, and the database uses neither of the two secrets.
pub async fn rotate_key_secret(settings: DatabaseSettings, services: ServiceSettings) -> Result<bool, FatalError> {
    let ServiceSettings { environment, hasher, .. } = services;
    let new_secret = if hasher.has_older() { NewSecret::Reject } else { NewSecret::Accept };
    let CheckedDatabase { database, .. } = open_checked(settings, environment, &hasher, new_secret).await?;
    if deployment::key_fingerprint(&database).await? == Some(hasher.fingerprint()) {
        return Ok(false);
    }
    deployment::change_key(&database, hasher.fingerprint()).await?;
    Ok(true)
}

/// Returns the pending work of `vivamo migrate`: the names of the migrations that the database lacks, or a line about
/// other work, such as incomplete search words. Changes nothing. Fails for a database that the service cannot use, that
/// belongs to the other environment, or that uses none of the configured secrets.
pub async fn pending_migrations(
    settings: DatabaseSettings,
    services: ServiceSettings,
) -> Result<Vec<String>, FatalError> {
    let (database, inspection) = connect_and_inspect(&settings, MissingFile::Reject).await?;
    check_usable(&database, &inspection, services.environment).await?;
    check_secret(&database, &inspection, &services.hasher, NewSecret::Reject).await?;
    if inspection.pending.is_empty() {
        if !deployment::has_all_words(&database).await? {
            return Ok(vec!["the search words are incomplete".to_owned()]);
        }
        if feed_positions::stored_positions_are_ahead(&database).await.map_err(Error::from)? {
            return Ok(vec![
                "the positions in the change feed are above the transaction ids of this PostgreSQL server".to_owned(),
            ]);
        }
    }
    Ok(inspection.pending)
}

/// The treatment of a SQLite file that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MissingFile {
    Create,
    Reject,
}

/// Connects to the database and inspects it. Rejects a database that a newer version has migrated, if this version must
/// not write to it any more, or if it also lacks migrations.
async fn connect_and_inspect(
    settings: &DatabaseSettings,
    missing_file: MissingFile,
) -> Result<(Database, Inspection), FatalError> {
    let url = &settings.url;
    let is_rejected = |file: &PathBuf| missing_file == MissingFile::Reject && !file.exists();
    if let Some(file) = database::sqlite_file(url).filter(is_rejected) {
        return Err(FatalError::NoDatabase(file));
    }
    let database = connect(settings).await?;
    let inspection = database.inspect().await.map_err(|error| cannot_open(url, &error))?;
    if let Some(unknown) = inspection.unknown.last() {
        if inspection.is_outdated || !inspection.pending.is_empty() {
            return Err(FatalError::UnknownMigration(unknown.clone()));
        }
        tracing::warn!(
            migration = unknown,
            "the database has migrations of a newer version; this version may still write"
        );
    }
    Ok((database, inspection))
}

/// Connects to the database. If the database cannot be reached, tries again for the time `startup_wait`.
async fn connect(settings: &DatabaseSettings) -> Result<Database, FatalError> {
    const MAX_PAUSE: Duration = Duration::from_secs(2);
    let DatabaseSettings { url, startup_wait, timeouts, observer, .. } = settings;
    let started = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        match Database::connect_with(url, *timeouts, observer.clone()).await {
            Err(error) if database::is_unreachable(&error) && started.elapsed() + pause <= *startup_wait => {
                tracing::warn!(cause = describe(&error), "waiting for the database");
            }
            connected => return connected.map_err(|error| cannot_open(url, &error)),
        }
        #[expect(clippy::disallowed_methods, reason = "the backoff")]
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn cannot_open(url: &str, error: &DbErr) -> FatalError {
    FatalError::Other(explain_connect_error(url, error))
}

fn check_environment(stored: Environment, configured: Environment) -> Result<(), FatalError> {
    if stored == configured { Ok(()) } else { Err(FatalError::EnvironmentMismatch { stored, configured }) }
}
