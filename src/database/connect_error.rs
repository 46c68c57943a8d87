//! Explains why a database cannot be opened, for people who start the service.

use std::io::ErrorKind;

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{DbErr, sqlx};

use super::error::sqlite_codes::{CANTOPEN, NOTADB, READONLY};
use super::error::sqlstates::{INSUFFICIENT_PRIVILEGE, READ_ONLY_TRANSACTION};
use super::error::{Code, describe, reported, sqlx_error};
use super::sqlite_file;
use super::url::DatabaseOptions;
use crate::config::DATABASE_URL;

/// Returns a message that says why the database at `url` cannot be opened, and what to do about it. The message names
/// hosts, users and files, but no passwords.
pub fn explain_connect_error(url: &str, error: &DbErr) -> String {
    // A migration failed because the table that it creates already exists.
    if reported(error).is_some_and(|(_, error)| error.message().ends_with("already exists")) {
        return format!(
            "This database has tables of another application. Use an empty database: change {DATABASE_URL}."
        );
    }
    let explained = match sqlite_file(url) {
        Some(file) => sqlite_message(&file.display().to_string(), error),
        None => match DatabaseOptions::parse(url) {
            Ok(DatabaseOptions::Postgres(options)) => postgres_message(&options, error),
            Ok(DatabaseOptions::Sqlite(_)) | Err(_) => None,
        },
    };
    explained.unwrap_or_else(|| format!("Cannot open the database: {}. Check {DATABASE_URL}.", describe(error)))
}

fn sqlite_message(file: &str, error: &DbErr) -> Option<String> {
    match reported(error)?.0 {
        Code::Sqlite(READONLY | CANTOPEN) => Some(format!(
            "Cannot open the database file {file}. Check that the folder of the file exists and that the \
             folder and the file can be written, or change {DATABASE_URL}."
        )),
        Code::Sqlite(NOTADB) => Some(format!("{file} is not a SQLite database. Change {DATABASE_URL}.")),
        Code::Sqlite(_) | Code::Sqlstate(_) => None,
    }
}

/// Returns the `GRANT` statement that a role needs in order to serve. `schema` is quoted if necessary.
pub(super) fn grant_tables(schema: &str, role: &str) -> String {
    format!(
        "Run as the owner of the tables: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO \"{role}\"."
    )
}

fn create_hint(server: &str, database: &str, user: &str) -> String {
    format!(
        "{server} does not let `{user}` create tables in `{database}`. The command `vivamo migrate` must \
         create tables. Run as the owner of the database: GRANT USAGE, CREATE ON SCHEMA public TO \"{user}\"."
    )
}

fn postgres_message(options: &PgConnectOptions, error: &DbErr) -> Option<String> {
    let (host, user) = (options.get_host(), options.get_username());
    let server = format!("PostgreSQL at {host}:{}", options.get_port());
    let database = options.get_database().unwrap_or(user);
    Some(match (reported(error), error, sqlx_error(error)) {
        (Some((Code::Sqlstate("28P01" | "28000"), error)), ..) => {
            let cause = error.message();
            format!(
                "{server} rejected user `{user}` ({cause}). Check the user and password in {DATABASE_URL}. Special characters \
                 must be percent-encoded, for example % as %25."
            )
        }
        // The role may not use the schema, or may not create tables in the schema.
        (Some((Code::Sqlstate("3F000"), _)), ..) => create_hint(&server, database, user),
        (Some((Code::Sqlstate(INSUFFICIENT_PRIVILEGE), error)), ..) if error.message().contains(" schema ") => {
            create_hint(&server, database, user)
        }
        (Some((Code::Sqlstate(INSUFFICIENT_PRIVILEGE), error)), ..) if error.message().contains(" database ") => {
            format!(
                "{server} does not let `{user}` use the database `{database}`. Run as the owner of the database: \
             GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\"; or change {DATABASE_URL}."
            )
        }
        (Some((Code::Sqlstate(INSUFFICIENT_PRIVILEGE), _)), ..) => {
            format!("{server} does not let `{user}` use the tables of `{database}`. {}", grant_tables("public", user))
        }
        (Some((Code::Sqlstate(READ_ONLY_TRANSACTION), _)), ..) => {
            format!("{server} does not accept writes: it is a standby, or read-only. Change {DATABASE_URL}.")
        }
        (Some((Code::Sqlstate("53300"), error)), ..) => {
            format!("{server} has no free connection ({}). Close other connections, or raise a limit.", error.message())
        }
        (Some((Code::Sqlstate("55000"), error)), ..) => {
            format!(
                "{server} refuses connections to `{database}` ({}). Run as its owner: \
                 ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true.",
                error.message()
            )
        }
        (Some((Code::Sqlstate("3D000"), _)), ..) => {
            format!(
                "{server} has no database `{database}`. Create it with `createdb {database}`, or change {DATABASE_URL}."
            )
        }
        (_, _, Some(sqlx::Error::Tls(cause))) => {
            format!(
                "Cannot use TLS with {server}: {cause}. Check sslmode, sslrootcert, sslcert and sslkey in {DATABASE_URL}."
            )
        }
        (_, _, Some(sqlx::Error::Io(cause))) if cause.to_string().starts_with("failed to lookup address") => {
            format!("Cannot find the host `{host}` of PostgreSQL ({cause}). Check {DATABASE_URL}.")
        }
        (_, _, Some(sqlx::Error::Io(cause))) if cause.kind() == ErrorKind::ConnectionRefused => {
            format!("Cannot connect to {server}: connection refused. Is it running? Check {DATABASE_URL}.")
        }
        (_, _, Some(sqlx::Error::Io(cause))) => format!("Cannot connect to {server}: {cause}. Check {DATABASE_URL}."),
        (_, DbErr::ConnectionAcquire(_), _) | (_, _, Some(sqlx::Error::PoolTimedOut)) => {
            format!("{server} did not answer in time. Check {DATABASE_URL} and the network.")
        }
        _ => return None,
    })
}
