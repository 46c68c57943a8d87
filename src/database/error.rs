//! Classifies database errors (conflict, rejection, outage) and describes them for the log.
//!
//! | class | written | what follows |
//! | --- | --- | --- |
//! | conflict | nothing | the attempt runs again |
//! | rejection (includes conflicts) | nothing | members of a batch run alone; otherwise the error is returned |
//! | outage | perhaps | `UNAVAILABLE`: the client may repeat the request |

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

/// Returns the error of the database driver inside an error of SeaORM.
pub(super) fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    if let DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error)) = error
    {
        Some(error)
    } else {
        None
    }
}

/// An error that the database itself reported.
enum Reported<'e> {
    Postgres { sqlstate: &'e str, error: &'e PgDatabaseError },
    Sqlite { result_code: u32, error: &'e dyn DatabaseError },
}

/// Returns the error that the database reported, or `None` if the error arose elsewhere, for example on the connection.
fn reported(error: &DbErr) -> Option<Reported<'_>> {
    let sqlx::Error::Database(error) = sqlx_error(error)? else {
        return None;
    };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return Some(Reported::Postgres { sqlstate: error.code(), error });
    }
    // SQLite's extended result codes keep the primary one in their lowest byte.
    let result_code = error.code()?.parse::<u32>().ok()? & 0xff;
    Some(Reported::Sqlite { result_code, error: error.as_ref() })
}

/// Returns true if the transaction was certainly rolled back and may succeed when it runs again.
pub(super) fn is_conflict(error: &DbErr) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    if matches!(error, DbErr::RecordNotUpdated) {
        return true;
    }
    match reported(error) {
        // Unique violation, serialization failure, deadlock, lock timeout.
        Some(Reported::Postgres { sqlstate, .. }) => matches!(sqlstate, "23505" | "40001" | "40P01" | "55P03"),
        Some(Reported::Sqlite { result_code, error }) => {
            matches!(result_code, BUSY | LOCKED) || error.is_unique_violation()
        }
        None => false,
    }
}

/// Returns true if the database rejected the statement itself and certainly applied nothing of it.
pub(super) fn is_rejection(error: &DbErr) -> bool {
    is_conflict(error) || reported(error).is_some() && !is_outage(error)
}

/// Returns true if the same request may succeed later, because the database is at fault and not the statement.
fn is_outage(error: &DbErr) -> bool {
    const BUSY_LOCKED_IOERR_FULL_CANTOPEN: [u32; 5] = [5, 6, 10, 13, 14];
    match reported(error) {
        // Connection lost, out of resources, shutting down or starting up, statement timeout; a serialization failure,
        // deadlock or lock timeout after the last retry; a read-only standby.
        Some(Reported::Postgres { sqlstate, .. }) => {
            ["08", "3D", "40", "53", "57", "58"].iter().any(|class| sqlstate.starts_with(class))
                || matches!(sqlstate, "25006" | "55P03")
        }
        Some(Reported::Sqlite { result_code, .. }) => BUSY_LOCKED_IOERR_FULL_CANTOPEN.contains(&result_code),
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

/// Removes names and values from a message of the database, which puts them in double quotes or after a colon.
fn redact(message: &str) -> String {
    let message = message.split(": ").next().unwrap_or_default();
    message.split('"').step_by(2).map(str::trim).collect::<Vec<_>>().join(" … ").trim().to_owned()
}

/// Describes the error for the log, without values of rows and names of tables.
pub fn describe(error: &DbErr) -> String {
    match reported(error) {
        Some(Reported::Postgres { sqlstate, error }) => {
            // The messages of class 22 (data exceptions) quote the value.
            let message = if sqlstate.starts_with("22") { String::new() } else { redact(error.message()) };
            format!("PostgreSQL {sqlstate} {message}")
        }
        Some(Reported::Sqlite { error, .. }) => {
            format!("SQLite {} {}", error.code().unwrap_or_default(), redact(error.message()))
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
            // Other errors may quote what they could not read. Log the name of the variant only.
            _ => format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        },
    }
}
