//! The errors that end the program, with messages for the people who run it.

use std::net::SocketAddr;
use std::path::PathBuf;

use entity::deployment::Environment;
use sea_orm::ActiveEnum;

use crate::config::DATABASE_URL;
use crate::error::Error;

/// An error that prevents the start of the service, or that ends a command. Most messages say what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FatalError {
    /// An argument or a setting is wrong.
    #[error("{0}")]
    Usage(String),
    #[error(
        "The database file {} does not exist. Check {DATABASE_URL}. To create a new database, run `vivamo migrate`.",
        .0.display()
    )]
    NoDatabase(PathBuf),
    /// Any other error, with its message.
    #[error("{0}")]
    Other(String),
    #[error("The database has {} pending migration(s): {}. Run `vivamo migrate` with the same settings.", .0.len(), .0.join(", "))]
    PendingMigrations(Vec<String>),
    #[error(
        "This database was migrated by a newer version of vivamo, or belongs to another application: it has the migration \
         {0}, which this version does not know. Start the newer version, or change {DATABASE_URL}."
    )]
    UnknownMigration(String),
    #[error(
        "The search words are incomplete. If `vivamo migrate` is still running, wait until it ends. Otherwise run it again \
         with the same settings."
    )]
    IncompleteSearchWords,
    #[error(
        "The database was restored on a PostgreSQL server with smaller transaction ids, so new changes would be ordered \
         before stored ones. Run `vivamo migrate` with the same settings: it moves the positions of new changes past the \
         stored ones."
    )]
    FeedAhead,
    #[error(
        "The API keys of this database were made with a different VIVAMO_KEY_SECRET (--key-secret). If the new value is a \
         mistake, set VIVAMO_KEY_SECRET to that secret. To rotate the secret, first restart all servers with the new value \
         in VIVAMO_KEY_SECRET and the old value in VIVAMO_KEY_SECRET_OLD (--key-secret-old). Then run \
         `vivamo rotate-key-secret` with the same two values. If you run it without the old value, all API keys stop \
         working."
    )]
    KeySecretMismatch,
    #[error(
        "This database belongs to {}, but VIVAMO_ENVIRONMENT (--environment) is {}. Change the environment, or use \
         another database: change {DATABASE_URL}.", .stored.to_value(), .configured.to_value()
    )]
    EnvironmentMismatch { stored: Environment, configured: Environment },
    #[error("Cannot listen on {0}: {1}. Choose another address with {2}.")]
    Listen(SocketAddr, std::io::Error, &'static str),
}

impl From<Error> for FatalError {
    fn from(error: Error) -> Self {
        Self::Other(error.describe())
    }
}
