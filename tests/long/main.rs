//! The tests that take minutes: `cargo test --locked --test long`.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(dead_code, unused_imports, unused_macros, reason = "what the other tests share with these")]
#![allow(clippy::print_stdout, reason = "what was done is told, and how to do it again")]

#[path = "../it/app.rs"]
mod app;
#[path = "../it/attacks.rs"]
mod attacks;
#[path = "../it/logs.rs"]
mod logs;
#[path = "../it/postgres.rs"]
mod postgres;
#[path = "../it/process.rs"]
mod process;
#[path = "../it/proxy.rs"]
mod proxy;

mod crossed;
mod hostile;
mod kill;
mod model;
mod outages;
mod pgbouncer;
mod plans;
mod servers;
