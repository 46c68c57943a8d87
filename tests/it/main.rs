//! The integration tests: most send HTTP requests to the service, on SQLite and on PostgreSQL; some check the source
//! and the documentation.

#![expect(
    clippy::disallowed_types,
    reason = "a lock is poisoned only after a panic, which has already failed the test"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod administration;
mod batching;
mod bounded;
mod build_script;
mod carrier;
mod changes;
mod cli;
mod comments;
mod create;
mod databases;
mod delivery;
mod disconnect;
mod docs;
mod documents;
mod erase;
mod errors;
mod faults;
mod fields;
mod guide;
mod history;
mod hostile;
mod http;
mod idempotency;
mod interleavings;
mod json_writer;
mod keys;
mod layers;
mod limits;
mod log;
mod manifest;
mod operations;
mod pages;
mod platform;
mod races;
mod restrictions;
mod schema;
mod search;
mod settings;
mod statements;
mod timeouts;
mod update;
mod values;
mod verify;
mod visibility;
mod walk;
mod webhooks;
