//! Classification of database errors: conflicts, rejections, outages, and their description for the log.

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::error::{Error, ErrorCode};

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        let code = if is_outage(&error) { ErrorCode::Unavailable } else { ErrorCode::Internal };
        Self::Failed { code, cause: describe(&error) }
    }
}

/// The error of the database driver under an error of SeaORM.
fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    if let DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error)) = error
    {
        Some(error)
    } else {
        None
    }
}

/// What the database said, with the code it gave: a SQLSTATE, or SQLite's primary result code.
enum Verdict<'e> {
    Postgres { state: &'e str, error: &'e PgDatabaseError },
    Sqlite { primary: u32, error: &'e dyn DatabaseError },
}

fn verdict(error: &DbErr) -> Option<Verdict<'_>> {
    let sqlx::Error::Database(error) = sqlx_error(error)? else {
        return None;
    };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return Some(Verdict::Postgres { state: error.code(), error });
    }
    // SQLite's extended result codes keep the primary one in their lowest byte.
    let primary = error.code()?.parse::<u32>().ok()? & 0xff;
    Some(Verdict::Sqlite { primary, error: error.as_ref() })
}

/// Whether the transaction surely left nothing behind, and may succeed if it starts anew: a lost race for a row or a unique
/// value, a serialization failure, a deadlock, a lock that others held for too long, a busy database.
pub fn is_conflict(error: &DbErr) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    if matches!(error, DbErr::RecordNotUpdated) {
        return true;
    }
    match verdict(error) {
        Some(Verdict::Postgres { state, .. }) => matches!(state, "23505" | "40001" | "40P01" | "55P03"),
        Some(Verdict::Sqlite { primary, error }) => matches!(primary, BUSY | LOCKED) || error.is_unique_violation(),
        None => false,
    }
}

/// Whether the database refused a statement for what it says, and did nothing of it.
pub fn is_refusal(error: &DbErr) -> bool {
    is_conflict(error) || verdict(error).is_some() && !is_outage(error)
}

/// Whether the database, rather than the statement, is at fault, so that the same request may succeed later.
fn is_outage(error: &DbErr) -> bool {
    const BUSY_LOCKED_IOERR_FULL_CANTOPEN: [u32; 5] = [5, 6, 10, 13, 14];
    match verdict(error) {
        // Connection lost, resources exhausted, shutting down or starting up, statement timeout; a serialization
        // failure, deadlock or lock that outlasted the retries; and a standby, which takes no writes.
        Some(Verdict::Postgres { state, .. }) => {
            ["08", "3D", "40", "53", "57", "58"].iter().any(|class| state.starts_with(class))
                || matches!(state, "25006" | "55P03")
        }
        Some(Verdict::Sqlite { primary, .. }) => BUSY_LOCKED_IOERR_FULL_CANTOPEN.contains(&primary),
        None => {
            matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_))
                || matches!(
                    sqlx_error(error),
                    Some(
                        sqlx::Error::Io(_)
                            | sqlx::Error::Tls(_)
                            | sqlx::Error::Protocol(_)
                            | sqlx::Error::PoolTimedOut
                            | sqlx::Error::PoolClosed
                            | sqlx::Error::WorkerCrashed
                    )
                )
        }
    }
}

/// The words of a database without the names and values in them, which it quotes, or puts after a colon.
fn without_names(message: &str) -> String {
    let message = message.split(": ").next().unwrap_or_default();
    message.split('"').step_by(2).map(str::trim).collect::<Vec<_>>().join(" … ").trim().to_owned()
}

/// The error in words for the log, without any value of a row and without the name of a table.
pub fn describe(error: &DbErr) -> String {
    match verdict(error) {
        Some(Verdict::Postgres { state, error }) => {
            // Class 22 (data exceptions) is about the value at fault.
            let message = if state.starts_with("22") { String::new() } else { without_names(error.message()) };
            format!("PostgreSQL {state} {message}")
        }
        Some(Verdict::Sqlite { error, .. }) => {
            format!("SQLite {} {}", error.code().unwrap_or_default(), without_names(error.message()))
        }
        None => match (error, sqlx_error(error)) {
            (DbErr::ConnectionAcquire(error), _) => error.to_string(),
            (_, Some(sqlx::Error::Io(error))) => format!("connection to the database: {error}"),
            (_, Some(sqlx::Error::Configuration(error))) => format!("database settings: {error}"),
            (_, Some(sqlx::Error::ColumnDecode { index, .. })) => {
                format!("column {index} holds a value that cannot be read")
            }
            (_, Some(sqlx::Error::PoolTimedOut)) => "no database connection became free in time".to_owned(),
            (_, Some(_)) => "database driver".to_owned(),
            (DbErr::Migration(message) | DbErr::Custom(message), _) => message.clone(),
            // Other errors may quote what they could not read: name their kind alone.
            _ => format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        },
    }
}
