//! Inspects a database: its migrations, its encoding, and whether the service can write to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

use super::Database;
use super::connect_error::grant_tables;
use super::dedicated_connection::connect;
use super::error::{is_conflict, is_read_only};
use super::migrate::migration_count;
use super::retry::retry_on_conflict;
use super::url::DatabaseOptions;
use crate::config::DATABASE_URL;

/// Facts about a database that decide whether this version may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Names of the migrations that have not been applied yet.
    pub pending: Vec<String>,
    /// Names of applied migrations that this version does not know.
    pub unknown: Vec<String>,
    /// The reason why the database cannot be used: its encoding is wrong, or the service cannot write to it. `None` if
    /// no such reason was found. Write privileges are not checked while migrations are pending.
    pub problem: Option<Problem>,
    /// True if only a newer version of the program may write to the database. Always false while migrations are
    /// pending.
    pub is_outdated: bool,
}

impl Inspection {
    /// Returns true if no migration has been applied yet.
    pub fn is_new_database(&self) -> bool {
        self.pending.len() == migration_count()
    }
}

/// A reason why a database cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The problem, as a sentence for the log.
    pub cause: String,
    /// An instruction that removes the problem. May contain an SQL statement to run.
    pub remedy: String,
}

impl Database {
    /// Inspects the database on a new connection, so that the inspection fails if new connections are impossible.
    /// Changes nothing. On SQLite, it takes the write lock for a moment.
    pub async fn inspect(&self) -> Result<Inspection, DbErr> {
        let connection = connect((*self.options).clone().existing(), self.max_wait()).await?;
        let inspection = retry_on_conflict(self.max_wait(), || inspect(&connection, &self.options)).await;
        connection.close().await?;
        inspection
    }

    /// Reads which migration a server must know in order to write, and rejects or allows the later writes of this
    /// process accordingly. Returns false if writes are rejected.
    pub async fn update_may_write(&self) -> Result<bool, DbErr> {
        let may_write = knows_required_migration(self.reader()).await?;
        self.refuses_writes.store(!may_write, Ordering::Relaxed);
        Ok(may_write)
    }
}

async fn knows_required_migration(connection: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let sql = "SELECT required_migration FROM deployment";
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await?;
    let required: Option<String> = row.map(|row| row.try_get("", "required_migration")).transpose()?.flatten();
    Ok(required.is_none_or(|required| Migrator::migrations().iter().any(|migration| migration.name() == required)))
}

async fn inspect(connection: &DatabaseConnection, options: &DatabaseOptions) -> Result<Inspection, DbErr> {
    /// The encoding of the texts, whether any migration was applied, and the schema of the tables if the role may not
    /// use it.
    const POSTGRES: &str = "SELECT current_setting('server_encoding') AS encoding, \
                            to_regclass('seaql_migrations') IS NOT NULL AS is_migrated, \
                            (SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
                             WHERE relname = 'seaql_migrations' AND NOT has_schema_privilege(relnamespace, 'USAGE') \
                             AND nspname = ANY (string_to_array(translate(current_setting('search_path'), '\" ', ''), ',')) \
                             LIMIT 1)::text AS closed_schema";
    const SQLITE: &str = "SELECT encoding, EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'seaql_migrations') \
                          AS is_migrated, NULL AS closed_schema FROM pragma_encoding";
    let backend = connection.get_database_backend();
    let sql = if backend == DbBackend::Postgres { POSTGRES } else { SQLITE };
    let row = connection.query_one_raw(Statement::from_string(backend, sql)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the encoding".to_owned()))?;
    let encoding: String = row.try_get("", "encoding")?;
    let mut applied = BTreeSet::new();
    let is_migrated: bool = row.try_get("", "is_migrated")?;
    if is_migrated {
        let versions = Statement::from_string(backend, "SELECT version FROM seaql_migrations");
        for row in connection.query_all_raw(versions).await? {
            applied.insert(row.try_get::<String>("", "version")?);
        }
    }
    let known: BTreeSet<_> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let pending: Vec<_> = known.difference(&applied).cloned().collect();
    // If the migrations are found in another schema, the tables of the closed schema belong to another application.
    let closed_schema: Option<String> = if is_migrated { None } else { row.try_get("", "closed_schema")? };
    let problem = match (encoding_problem(&encoding, backend), closed_schema, options) {
        (Some(problem), ..) => Some(problem),
        // The tables exist, but the role does not see them, so all migrations seem to be pending.
        (None, Some(schema), DatabaseOptions::Postgres(options)) => {
            Some(schema_problem(&schema, options.get_username()))
        }
        // The pending migrations will write, so they report if writing is impossible.
        (None, ..) if !pending.is_empty() => None,
        (None, _, DatabaseOptions::Postgres(options)) => {
            postgres_write_problem(connection, options.get_username()).await?
        }
        (None, _, DatabaseOptions::Sqlite(options)) => sqlite_write_problem(connection, options.get_filename()).await?,
    };
    let is_outdated = pending.is_empty() && !knows_required_migration(connection).await?;
    Ok(Inspection { pending, unknown: applied.difference(&known).cloned().collect(), problem, is_outdated })
}

/// Returns a problem if the database is read-only, or if the role may not read or write a table. Checks only the tables
/// that have the same owner as the table of migrations, because an extension may have its own tables.
async fn postgres_write_problem(connection: &DatabaseConnection, role: &str) -> Result<Option<Problem>, DbErr> {
    const SQL: &str = "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only, \
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('seaql_migrations')) AS schema_name, \
        (SELECT COUNT(*) FROM pg_class AS t, pg_class AS m WHERE m.oid = to_regclass('seaql_migrations') AND t.oid <> m.oid \
         AND t.relkind = 'r' AND t.relnamespace = m.relnamespace AND t.relowner = m.relowner \
         AND NOT (has_table_privilege(t.oid, 'SELECT') AND has_table_privilege(t.oid, 'INSERT') \
         AND has_table_privilege(t.oid, 'UPDATE') AND has_table_privilege(t.oid, 'DELETE'))) AS closed_tables";
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, SQL)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the privileges".to_owned()))?;
    if row.try_get("", "is_read_only")? {
        let cause = "PostgreSQL does not accept writes to this database: it is a standby, or \
                     default_transaction_read_only is set.";
        let remedy = format!("Connect to the primary server: change {DATABASE_URL}.");
        return Ok(Some(Problem { cause: cause.to_owned(), remedy }));
    }
    let closed_tables: i64 = row.try_get("", "closed_tables")?;
    if closed_tables == 0 {
        return Ok(None);
    }
    let schema: String = row.try_get("", "schema_name")?;
    Ok(Some(Problem {
        cause: format!("The role `{role}` lacks read or write privileges. Number of tables: {closed_tables}."),
        remedy: grant_tables(&schema, role),
    }))
}

fn schema_problem(schema: &str, role: &str) -> Problem {
    let cause = format!("The role `{role}` may not use the schema `{schema}`, which has the tables.");
    let remedy = format!("Run as the owner of the schema: GRANT USAGE ON SCHEMA \"{schema}\" TO \"{role}\".");
    Problem { cause, remedy }
}

/// Returns a problem if the SQLite file cannot be written.
async fn sqlite_write_problem(connection: &DatabaseConnection, file: &Path) -> Result<Option<Problem>, DbErr> {
    // Without this setting, the check would wait for seconds while another connection writes.
    connection.execute_unprepared("PRAGMA busy_timeout = 0").await?;
    match connection.execute_unprepared("UPDATE deployment SET id = id WHERE 1 = 0").await {
        Err(error) if is_read_only(&error) => Ok(Some(Problem {
            cause: format!("The database file {} cannot be written.", file.display()),
            remedy: "Check the permissions of the file, of its -wal and -shm files and of its folder.".to_owned(),
        })),
        // Another connection of this or another process is writing, so the database can be written.
        Err(error) if is_conflict(&error) => Ok(None),
        written => written.map(|_| None),
    }
}

/// Returns a problem if the encoding of the texts is not UTF-8.
fn encoding_problem(encoding: &str, backend: DbBackend) -> Option<Problem> {
    if ["UTF8", "UTF-8"].contains(&encoding) {
        return None;
    }
    let (reason, remedy) = if backend == DbBackend::Postgres {
        (
            "which cannot store all Unicode names",
            format!(
                "Use a database in UTF-8: CREATE DATABASE name TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'; then change \
                 {DATABASE_URL}."
            ),
        )
    } else {
        ("in which the order of strings differs from UTF-8", format!("Use a new file: change {DATABASE_URL}."))
    };
    Some(Problem { cause: format!("The database encoding is {encoding}, {reason}."), remedy })
}
