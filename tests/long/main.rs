//! Tests that take minutes: `cargo test --locked --test long`. A plain `cargo test` leaves them out.

#![expect(
    clippy::disallowed_types,
    reason = "a lock is poisoned only after a panic, which has already failed the test"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![expect(clippy::print_stdout, reason = "the tests print their results and the seed to repeat them with")]

mod conflicting_creates;
mod erasure;
mod feed;
mod hostile;
mod kill;
mod model;
mod outages;
mod pgbouncer;
mod plans;
mod servers;
mod webhooks;
