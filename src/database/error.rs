//! Classifies database errors, and describes them for the log.
//!
//! The classes overlap: a conflict is also an error of the statement, and some conflicts count as an outage after the
//! last retry.
//!
//! | class | was anything written? | in a batch of writes | otherwise |
//! | --- | --- | --- | --- |
//! | conflict ([`is_conflict`]) | no | each member writes its own rows | the attempt runs again; `UNAVAILABLE` after 4 seconds of retries |
//! | other error of the statement ([`is_statement_error`]) | no | each member writes its own rows | `INTERNAL` |
//! | outage ([`is_outage`]) | perhaps | all members get the error | `UNAVAILABLE`: the client may repeat the request |
//! | any other error | perhaps | all members get the error | `INTERNAL` |

use std::sync::Arc;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::error::{Error, ErrorCode};
use crate::request::SizeError;
use sqlite_codes::{BUSY, CANTOPEN, FULL, IOERR, LOCKED, READONLY};
use sqlstates::{
    DEADLOCK, DIVISION_BY_ZERO, FEATURE_NOT_SUPPORTED, IDLE_IN_TRANSACTION_TIMEOUT, INSUFFICIENT_PRIVILEGE,
    LOCK_TIMEOUT, READ_ONLY_TRANSACTION, SERIALIZATION_FAILURE, TRANSACTION_TIMEOUT,
};

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if let Some(error) = own_error::<SizeError>(&error) {
            return error.into();
        }
        let is_logged = own_error::<SharedFailure>(&error).is_some();
        Self::Failed { code: error_code(&error), cause: describe(&error), is_logged }
    }
}

/// Returns the code that clients get for the failure of a statement.
pub fn error_code(error: &DbErr) -> ErrorCode {
    if is_outage(error) { ErrorCode::Unavailable } else { ErrorCode::Internal }
}

/// Returns the error of an attempt whose rows have changed after they were read. It is a conflict, so the attempt runs
/// again.
pub fn outdated_read() -> DbErr {
    // SeaORM returns the same error if an update finds no row.
    DbErr::RecordNotUpdated
}

/// The error of a write that this server must not make, because it is too old for the database: see
/// [`Database::update_may_write`](super::Database::update_may_write).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a newer version has migrated the database, and this version must not write to it any more")]
pub(super) struct OutdatedServer;

/// Wraps an error of this service in an error of SeaORM.
pub(super) fn wrap_own_error(error: impl std::error::Error + Send + Sync + 'static) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Decode(error.into()))))
}

/// Returns the error of this service that was wrapped with [`wrap_own_error`], or with `sqlx::Error::Decode` while a
/// query was running.
pub(super) fn own_error<E: std::error::Error + Copy + 'static>(error: &DbErr) -> Option<E> {
    let sqlx::Error::Decode(error) = sqlx_error(error)? else { return None };
    error.downcast_ref().copied()
}

/// Returns the error of the database driver inside an error of SeaORM.
pub(super) fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    let (DbErr::Conn(error) | DbErr::Exec(error) | DbErr::Query(error)) = error else { return None };
    let RuntimeErr::SqlxError(error) = error else { return None };
    Some(error)
}

/// Primary result codes of SQLite.
pub(super) mod sqlite_codes {
    /// Another connection has locked the file.
    pub const BUSY: u32 = 5;
    /// Another statement of the same connection has locked the table.
    pub const LOCKED: u32 = 6;
    pub const READONLY: u32 = 8;
    pub const IOERR: u32 = 10;
    /// The disk is full.
    pub const FULL: u32 = 13;
    pub const CANTOPEN: u32 = 14;
    /// The file is not a database.
    pub const NOTADB: u32 = 26;
}

/// Error codes of PostgreSQL.
pub(super) mod sqlstates {
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// A statement with `must_write_all` did not write all of its rows: see `batch/mod.rs`.
    pub const DIVISION_BY_ZERO: &str = "22012";
    /// The transaction only reads, for example on a standby.
    pub const READ_ONLY_TRANSACTION: &str = "25006";
    /// PostgreSQL has ended the session because of `idle_in_transaction_session_timeout`.
    pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "25P03";
    /// PostgreSQL has ended the session because of `transaction_timeout`, which some databases set.
    pub const TRANSACTION_TIMEOUT: &str = "25P04";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const DEADLOCK: &str = "40P01";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// The statement waited for a lock longer than `lock_timeout`.
    pub const LOCK_TIMEOUT: &str = "55P03";
}

/// The code of an error that the database itself reported.
pub(super) enum Code<'e> {
    /// The SQLSTATE of PostgreSQL.
    Sqlstate(&'e str),
    /// The primary result code of SQLite.
    Sqlite(u32),
}

/// Returns the error that the database reported, or `None` if the error has another source, for example a broken
/// connection.
pub(super) fn reported(error: &DbErr) -> Option<(Code<'_>, &dyn DatabaseError)> {
    let sqlx::Error::Database(error) = sqlx_error(error)? else { return None };
    let code = match error.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => Code::Sqlstate(error.code()),
        // The lowest byte of an extended result code is the primary result code.
        None => Code::Sqlite(error.code()?.parse::<u32>().ok()? & 0xff),
    };
    Some((code, error.as_ref()))
}

/// Returns true if the transaction was certainly rolled back, and may succeed if it runs again.
pub(super) fn is_conflict(error: &DbErr) -> bool {
    match reported(error) {
        Some((_, error)) if error.is_unique_violation() => true,
        Some(_) if is_outdated_statement(error) => true,
        Some((Code::Sqlstate(code), _)) => {
            matches!(code, DIVISION_BY_ZERO | SERIALIZATION_FAILURE | DEADLOCK | LOCK_TIMEOUT)
        }
        Some((Code::Sqlite(code), _)) => matches!(code, BUSY | LOCKED),
        None => matches!(error, DbErr::RecordNotUpdated),
    }
}

/// Returns true if PostgreSQL has ended the statement because it waited for a lock longer than `lock_timeout`. Such an
/// error is also a conflict.
pub(super) fn is_lock_timeout(error: &DbErr) -> bool {
    matches!(reported(error), Some((Code::Sqlstate(LOCK_TIMEOUT), _)))
}

/// Returns true if SQLite cannot lock the file, because another connection is writing. Such an error is also a
/// conflict.
pub(super) fn is_busy(error: &DbErr) -> bool {
    matches!(reported(error), Some((Code::Sqlite(BUSY), _)))
}

/// Returns true if the database rejected the statement itself and certainly applied nothing of it.
pub(super) fn is_statement_error(error: &DbErr) -> bool {
    is_conflict(error) || reported(error).is_some() && !is_outage(error)
}

/// Returns true if the database is at fault and not the statement, so that the same request may succeed later.
fn is_outage(error: &DbErr) -> bool {
    use sqlx::Error::{Io, Protocol, Tls, WorkerCrashed};
    if let Some(SharedFailure { is_outage }) = own_error(error) {
        return is_outage;
    }
    // A newer server, or this one after an upgrade, can write.
    if own_error::<OutdatedServer>(error).is_some() {
        return true;
    }
    // There is no connection: the database server is gone, has too many connections, or refuses the role. Members of a
    // batch also get `ConnectionAcquire` if their leader was cancelled.
    if matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) || is_read_only(error) {
        return true;
    }
    match reported(error) {
        // 08: connection lost. 28: role refused. 3D: no such database. 40 and the lock timeout: a conflict after the
        // last retry. 53: out of resources. 57: statement timeout, shutting down, starting up. 58: system error.
        Some((Code::Sqlstate(code), _)) => {
            ["08", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                || matches!(
                    code,
                    INSUFFICIENT_PRIVILEGE | LOCK_TIMEOUT | IDLE_IN_TRANSACTION_TIMEOUT | TRANSACTION_TIMEOUT
                )
        }
        Some((Code::Sqlite(code), _)) => matches!(code, BUSY | LOCKED | IOERR | FULL | CANTOPEN),
        None => matches!(sqlx_error(error), Some(Io(_) | Tls(_) | Protocol(_) | WorkerCrashed)),
    }
}

/// Returns true if PostgreSQL rejects a prepared statement, because a migration has changed the type or the collation
/// of a column that the statement returns. The session rejects the statement until it is prepared again.
pub(super) fn is_outdated_statement(error: &DbErr) -> bool {
    let Some((Code::Sqlstate(FEATURE_NOT_SUPPORTED), error)) = reported(error) else { return false };
    // Many errors have this code. The name of PostgreSQL's function tells them apart, and is not translated.
    error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine) == Some("RevalidateCachedQuery")
}

/// Returns true if the database can be read but not written, for example a standby, or a file without write permission.
pub(super) fn is_read_only(error: &DbErr) -> bool {
    matches!(reported(error), Some((Code::Sqlstate(READ_ONLY_TRANSACTION) | Code::Sqlite(READONLY), _)))
}

/// Returns true if the database server cannot be reached at the moment, for example because the server is starting.
/// Returns false if the server refuses the connection for a lasting reason, such as a wrong password.
pub fn is_unreachable(error: &DbErr) -> bool {
    match reported(error) {
        Some((Code::Sqlstate(code), _)) => ["08", "53", "57"].iter().any(|class| code.starts_with(class)),
        Some((Code::Sqlite(_), _)) => false,
        None => {
            matches!(error, DbErr::ConnectionAcquire(_))
                || matches!(sqlx_error(error), Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut))
        }
    }
}

/// The error of each request of a batch whose statement failed. The log has one line for all these requests.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("batched statement failed")]
struct SharedFailure {
    is_outage: bool,
}

/// Logs the failure of a batch once for all its requests. Returns the error for each of these requests: an outage stays
/// an outage.
pub(super) fn log_shared_failure(error: &DbErr, requests: usize) -> DbErr {
    let shared = SharedFailure { is_outage: is_outage(error) };
    tracing::error!(requests, cause = describe(error), "batched statement failed");
    wrap_own_error(shared)
}

/// Removes names and values from a message of the database. The database puts both in double quotes or after a colon.
fn redact(message: &str) -> String {
    let message = message.split(": ").next().unwrap_or_default();
    message.split('"').step_by(2).map(str::trim).collect::<Vec<_>>().join(" … ").trim().to_owned()
}

/// Describes the error for the log, without values of rows and names of tables.
pub fn describe(error: &DbErr) -> String {
    if let Some(shared) = own_error::<SharedFailure>(error) {
        return shared.to_string();
    }
    if let Some(outdated) = own_error::<OutdatedServer>(error) {
        return outdated.to_string();
    }
    match (reported(error), error, sqlx_error(error)) {
        // The messages of class 22 (data exceptions) quote the value.
        (Some((Code::Sqlstate(code), _)), ..) if code.starts_with("22") => format!("PostgreSQL {code}"),
        (Some((Code::Sqlstate(code), error)), ..) => format!("PostgreSQL {code} {}", redact(error.message())),
        (Some((Code::Sqlite(_), error)), ..) => {
            format!("SQLite {} {}", error.code().unwrap_or_default(), redact(error.message()))
        }
        (_, DbErr::ConnectionAcquire(error), _) => error.to_string(),
        (_, _, Some(sqlx::Error::Io(error))) => format!("connection to the database: {error}"),
        (_, _, Some(sqlx::Error::Configuration(error))) => format!("database settings: {error}"),
        (_, _, Some(sqlx::Error::ColumnDecode { index, .. })) => {
            format!("column {index} holds a value that cannot be read")
        }
        (_, _, Some(sqlx::Error::PoolTimedOut)) => "no database connection became free in time".to_owned(),
        (_, _, Some(_)) => "the database driver reported an error".to_owned(),
        (_, DbErr::Migration(message) | DbErr::Custom(message) | DbErr::Conn(RuntimeErr::Internal(message)), _) => {
            message.clone()
        }
        // Other errors may quote a value that they could not read. Log only the name of the variant.
        _ => format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_shared_failure_stays_an_outage_and_is_logged_once() {
        let outage = DbErr::Query(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(ErrorKind::BrokenPipe.into()))));
        for (error, expected) in
            [(outage, ErrorCode::Unavailable), (DbErr::Custom("a defect".to_owned()), ErrorCode::Internal)]
        {
            let Error::Failed { code, is_logged, .. } = Error::from(error.clone()) else { panic!("{error}") };
            assert_eq!((code, is_logged), (expected, false));
            let shared = log_shared_failure(&error, 2);
            let Error::Failed { code, cause, is_logged } = Error::from(shared) else { panic!("{error}") };
            assert_eq!((code, cause.as_str(), is_logged), (expected, "batched statement failed", true));
        }
    }
}
