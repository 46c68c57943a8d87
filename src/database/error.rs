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

/// The code of an error that the database itself reported.
pub(super) enum Code<'e> {
    /// The SQLSTATE of PostgreSQL.
    Sqlstate(&'e str),
    /// The primary result code of SQLite.
    Sqlite(u32),
}

/// Returns the error that the database reported, or `None` if the error arose elsewhere, for example on the connection.
pub(super) fn reported(error: &DbErr) -> Option<(Code<'_>, &dyn DatabaseError)> {
    let sqlx::Error::Database(error) = sqlx_error(error)? else { return None };
    let code = match error.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => Code::Sqlstate(error.code()),
        // Extended result codes keep the primary one in their lowest byte.
        None => Code::Sqlite(error.code()?.parse::<u32>().ok()? & 0xff),
    };
    Some((code, error.as_ref()))
}

/// Returns true if the transaction was certainly rolled back and may succeed when it runs again.
pub(super) fn is_conflict(error: &DbErr) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    match reported(error) {
        Some((_, error)) if error.is_unique_violation() => true,
        // Serialization failure, deadlock, lock timeout.
        Some((Code::Sqlstate(code), _)) => matches!(code, "40001" | "40P01" | "55P03"),
        Some((Code::Sqlite(code), _)) => matches!(code, BUSY | LOCKED),
        None => matches!(error, DbErr::RecordNotUpdated),
    }
}

/// Returns true if the database rejected the statement itself and certainly applied nothing of it.
pub(super) fn is_rejection(error: &DbErr) -> bool {
    is_conflict(error) || reported(error).is_some() && !is_outage(error)
}

/// Returns true if the same request may succeed later, because the database is at fault and not the statement.
fn is_outage(error: &DbErr) -> bool {
    use sqlx::Error::{Io, Protocol, Tls, WorkerCrashed};
    const BUSY_LOCKED_IOERR_FULL_CANTOPEN: [u32; 5] = [5, 6, 10, 13, 14];
    match reported(error) {
        // Connection lost, out of resources, shutting down or starting up, statement timeout; a serialization failure,
        // deadlock or lock timeout after the last retry; a read-only standby.
        Some((Code::Sqlstate(code), _)) => {
            ["08", "3D", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                || matches!(code, "25006" | "55P03")
        }
        Some((Code::Sqlite(code), _)) => BUSY_LOCKED_IOERR_FULL_CANTOPEN.contains(&code),
        None => {
            matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_))
                || matches!(sqlx_error(error), Some(Io(_) | Tls(_) | Protocol(_) | WorkerCrashed))
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
        // The messages of class 22 (data exceptions) quote the value.
        Some((Code::Sqlstate(code), _)) if code.starts_with("22") => format!("PostgreSQL {code}"),
        Some((Code::Sqlstate(code), error)) => format!("PostgreSQL {code} {}", redact(error.message())),
        Some((Code::Sqlite(_), error)) => {
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
