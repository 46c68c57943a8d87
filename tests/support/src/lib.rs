//! What the integration tests share: a server under test with its own database, processes of the binary, a PostgreSQL to
//! test on, a proxy that breaks connections, and the log with its checks.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod app;
pub mod attacks;
pub mod logs;
pub mod postgres;
pub mod process;
pub mod proxy;

pub use app::{
    Answer, Backend, Caller, KEY_SECRET, PLATFORM_KEY, TestApp, TestDatabase, faults, http_client, looks_up_a_key, run,
    run_blocking, run_on,
};

/// Defines a test that runs on both databases, as `$name::sqlite` and `$name::postgres`, in this environment.
///
/// ```ignore
/// both!(a_new_operator_has_no_customers, Sandbox, async |app| {
///     let operator = app.operator("A").await;
///     assert_eq!(app.query(&operator, "{ customers { totalCount } }").await["customers"]["totalCount"], 0);
/// });
/// ```
#[macro_export]
macro_rules! both {
    ($name:ident, $environment:ident, $test:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every test uses what its file imports")]
            use super::*;

            // One function, so that the test is compiled once.
            fn run(backend: $crate::Backend) {
                $crate::run_blocking(backend, ::entity::deployment::Environment::$environment, $test);
            }

            #[test]
            fn sqlite() {
                run($crate::Backend::Sqlite);
            }

            #[test]
            fn postgres() {
                run($crate::Backend::Postgres);
            }
        }
    };
}
