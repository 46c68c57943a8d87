//! Every way in which a request can fail, and the words for it.

use std::time::Duration;

use async_graphql::Enum;
use async_graphql::resolver_utils::EnumType;
use entity::value::Reason;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use serde::{Deserialize, Serialize};

/// What went wrong, for a program to act on. Values may be added: keep a default branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, Serialize, Deserialize, thiserror::Error)]
pub enum ErrorCode {
    /// The external customer id is empty, longer than 255 characters, has a blank at either end or a control character.
    #[error("The external customer id is not valid")]
    InvalidExternalCustomerId,
    /// The email address does not have the form `local@domain.tld`, or is longer than 254 bytes.
    #[error("The email address is not valid")]
    InvalidEmail,
    /// The phone number cannot be read, or no such number is possible.
    #[error("The phone number is not valid")]
    InvalidPhone,
    /// The name is blank, longer than 100 characters or has a control character.
    #[error("The name is not valid")]
    InvalidName,
    /// A part of the address is missing, too long or has a control character, or the country is unknown.
    #[error("The address is not valid")]
    InvalidAddress,
    /// An argument that is not a customer's value: a page size, a cursor, or a reference that this caller cannot use.
    #[error("The argument is not valid.")]
    InvalidArgument,

    /// Production only, a warning in sandbox: the email address is at a provider of disposable addresses.
    #[error("Disposable email addresses are not accepted. Please use a permanent email address.")]
    DisposableEmail,
    /// Production only, a warning in sandbox: the email address has a `+` before the `@`.
    #[error("Email addresses with a plus suffix are not supported. Please use an address without a +.")]
    PlusSuffixEmail,
    /// Production only, a warning in sandbox: the phone number is not a valid number of a mobile line.
    #[error("Sorry, this phone number cannot be used. Please use a valid mobile number.")]
    PhoneNotMobile,
    /// Production only: the carrier that knows whether the phone number is a mobile line did not answer. Nothing was
    /// written; send the request again.
    #[error("The phone number cannot be verified at the moment. Please send the request again.")]
    PhoneLookupUnavailable,

    /// You already use this external customer id for a customer.
    #[error("You already have a customer with this external customer id.")]
    ExternalCustomerIdTaken,
    /// A customer with this email address exists: on create one of your own, on update any other.
    #[error("A customer with this email address already exists.")]
    EmailTaken,
    /// A customer with this phone number exists: on create one of your own, on update any other.
    #[error("A customer with this phone number already exists.")]
    PhoneTaken,
    /// The email address and the phone number belong to two different customers, so neither can be connected.
    #[error("The email address and the phone number belong to different customers.")]
    IdentityConflict,
    /// The customer has changed since the version that you expected. Read it again, then decide.
    #[error("The customer has changed since the version that you expected. Read it again before you update it.")]
    VersionConflict,
    /// You used this idempotency key for another request within the last 24 hours.
    #[error("This idempotency key was used for another request. Use a new key for each thing that you want done.")]
    IdempotencyKeyReused,

    /// You have no such customer.
    #[error("You have no such customer.")]
    CustomerNotFound,
    /// There is no such operator.
    #[error("There is no such operator.")]
    OperatorNotFound,
    /// There is no such API key.
    #[error("There is no such API key.")]
    ApiKeyNotFound,
    /// The request has no API key, or one that is not valid (any more). HTTP status 401.
    #[error("This request needs a valid API key, in the header: Authorization: Bearer <key>")]
    Unauthenticated,
    /// The API key is valid, but may not do this.
    #[error("This API key may not do this.")]
    Forbidden,
    /// You ask too much in too short a time: wait for `retryAfterMs`, then send the request again. HTTP status 429 if it
    /// is the whole request that is refused.
    #[error("Too many requests. Please wait before you send this one again.")]
    RateLimited,
    /// The request is not one that this schema can answer: its syntax, its shape or its size is wrong.
    #[error("The request is not valid.")]
    BadRequest,
    /// The service cannot answer at the moment. The request can be sent again.
    #[error("The service is not available at the moment. Please send the request again.")]
    Unavailable,
    /// A fault of the service. Report it with the request id.
    #[error("Something went wrong on our side. Please report it with the request id.")]
    Internal,
}

impl ErrorCode {
    /// The code as it is written in the schema and in answers, such as `INVALID_EMAIL`.
    pub fn name(self) -> &'static str {
        Self::items().iter().find(|item| item.value == self).map_or("INTERNAL", |item| item.name)
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::PhoneLookupUnavailable | Self::RateLimited)
    }
}

/// One fault of a request, in words that the caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: ErrorCode,
    /// Where in the arguments of a field the fault lies, such as `["input", "data", "email"]`; empty where no one
    /// argument is at fault.
    pub input_path: Vec<&'static str>,
    pub detail: Option<Detail>,
    /// How long to wait before the request is sent again, where that is known.
    pub retry_after: Option<Duration>,
}

/// What a message adds to the words of its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Reason(Reason),
    Note(&'static str),
}

impl Violation {
    pub fn new(code: ErrorCode, input_path: &[&'static str]) -> Self {
        Self { code, input_path: input_path.to_vec(), detail: None, retry_after: None }
    }

    pub fn because(code: ErrorCode, input_path: &[&'static str], reason: Reason) -> Self {
        Self { detail: Some(Detail::Reason(reason)), ..Self::new(code, input_path) }
    }

    pub fn with_note(code: ErrorCode, input_path: &[&'static str], note: &'static str) -> Self {
        Self { detail: Some(Detail::Note(note)), ..Self::new(code, input_path) }
    }

    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    pub fn message(&self) -> String {
        match &self.detail {
            None => self.code.to_string(),
            Some(Detail::Reason(reason)) => {
                let code = self.code.to_string();
                // An address has parts, and people see the message before the path.
                let part = match (self.code, self.input_path.last()) {
                    (ErrorCode::InvalidAddress, Some(part)) => format!("{part}: "),
                    _ => String::new(),
                };
                format!("{}: {part}{reason}.", code.trim_end_matches('.'))
            }
            Some(Detail::Note(note)) => format!("{} {note}", self.code),
        }
    }
}

/// Why a request failed. It has no `Display`, so that no `?` can hand a database's words to a client.
#[derive(Clone, Debug)]
pub enum Error {
    /// The caller's fault: one entry for each.
    Rejected(Vec<Violation>),
    /// Ours: the cause is for the log alone, and says nothing of a person.
    Failed { code: ErrorCode, cause: String },
}

impl Error {
    /// Whether this is among the caller's faults.
    pub fn has(&self, code: ErrorCode) -> bool {
        match self {
            Self::Rejected(violations) => violations.iter().any(|violation| violation.code == code),
            Self::Failed { .. } => false,
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Rejected(vec![violation])
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Violation::new(code, &[]).into()
    }
}

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
