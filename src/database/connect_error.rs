//! Messages for people who start the service on a database that cannot be opened: one sentence for each cause, with the
//! setting to check. Hosts, users and files are named; passwords are not.

use std::io::ErrorKind;
use std::str::FromStr;

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{DbErr, sqlx};

use super::error::{Code, describe, reported, sqlx_error};
use super::{CONNECTION_TIMEOUT, sqlite_file};

const SETTING: &str = "DATABASE_URL (--database-url)";

/// Explains why the database at `url` cannot be opened, and what to do about it.
pub fn explain_connect_error(url: &str, error: &DbErr) -> String {
    // SeaORM reports an applied migration that the program does not have.
    if let DbErr::Custom(message) = error
        && let Some(message) = message.strip_prefix("Migration file of version '")
        && let Some((version, _)) = message.split_once('\'')
    {
        return format!(
            "This database was migrated by a newer version of vivamo, or belongs to another application: it has the \
             migration {version}, which this version does not know. Start the newer version, or change {SETTING}."
        );
    }
    // A migration creates a table that is there already.
    if reported(error).is_some_and(|(_, error)| error.message().ends_with("already exists")) {
        return format!("This database has tables of another application. Use an empty one: change {SETTING}.");
    }
    let explained = match sqlite_file(url) {
        Some(file) => sqlite_message(&file.display().to_string(), error),
        None => PgConnectOptions::from_str(url).ok().and_then(|options| postgres_message(&options, error)),
    };
    explained.unwrap_or_else(|| format!("Cannot open the database: {}. Check {SETTING}.", describe(error)))
}

fn sqlite_message(file: &str, error: &DbErr) -> Option<String> {
    const READONLY: u32 = 8;
    const CANTOPEN: u32 = 14;
    const NOTADB: u32 = 26;
    match reported(error)?.0 {
        Code::Sqlite(READONLY | CANTOPEN) => Some(format!(
            "Cannot open the database file {file}. Check that its folder exists and that both can be written, or change \
             {SETTING}."
        )),
        Code::Sqlite(NOTADB) => Some(format!("{file} is not a SQLite database. Change {SETTING}.")),
        Code::Sqlite(_) | Code::Sqlstate(_) => None,
    }
}

fn postgres_message(options: &PgConnectOptions, error: &DbErr) -> Option<String> {
    let (host, user) = (options.get_host(), options.get_username());
    let server = format!("PostgreSQL at {host}:{}", options.get_port());
    let database = options.get_database().unwrap_or(user);
    Some(match (reported(error), error, sqlx_error(error)) {
        (Some((Code::Sqlstate("28P01" | "28000"), error)), ..) => {
            let cause = error.message();
            format!("{server} rejected user `{user}` ({cause}). Check the user and password in {SETTING}.")
        }
        (Some((Code::Sqlstate("3D000"), _)), ..) => {
            format!("{server} has no database `{database}`. Create it with `createdb {database}`, or change {SETTING}.")
        }
        (_, _, Some(sqlx::Error::Io(cause))) if cause.to_string().starts_with("failed to lookup address") => {
            format!("Cannot find the host `{host}` of PostgreSQL ({cause}). Check {SETTING}.")
        }
        (_, _, Some(sqlx::Error::Io(cause))) if cause.kind() == ErrorKind::ConnectionRefused => {
            format!("Cannot connect to {server}: connection refused. Is it running? Check {SETTING}.")
        }
        (_, _, Some(sqlx::Error::Io(cause))) => format!("Cannot connect to {server}: {cause}. Check {SETTING}."),
        (_, DbErr::ConnectionAcquire(_), _) | (_, _, Some(sqlx::Error::PoolTimedOut)) => {
            let seconds = CONNECTION_TIMEOUT.as_secs();
            format!("{server} did not answer within {seconds} seconds. Check {SETTING} and the network.")
        }
        _ => return None,
    })
}
