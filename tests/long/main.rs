//! The tests that take minutes: `cargo test --locked --test long`.

#![expect(clippy::disallowed_types, reason = "a poisoned lock fails a test that a panic has failed already")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stdout, reason = "what was done is told, and how to do it again")]

mod crossed;
mod hostile;
mod kill;
mod model;
mod outages;
mod pgbouncer;
mod plans;
mod servers;
