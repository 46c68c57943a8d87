//! Helpers of the integration tests: a service with its own database, processes of the binary, a PostgreSQL server, a
//! proxy that breaks connections, a receiver of webhooks, hostile documents, and checks of the log and the rows.

#![expect(
    clippy::disallowed_types,
    reason = "a lock is poisoned only after a panic, which has failed the test already"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod answer;
mod app;
pub mod attacks;
mod database;
mod invariants;
pub mod logs;
pub mod pages;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
mod wait;

pub use answer::{Answer, errors};
pub use app::{
    KEY_SECRET, PLATFORM_KEY, TestApp, TestCaller, Timeouts, http_client, is_key_lookup, is_operator_lookup,
};
pub use database::{Backend, TestDatabase, copy_history, wait_for_feed};
pub use wait::wait_until;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use entity::deployment::Environment;
use futures::FutureExt;
use tokio::time::timeout;

/// Sends requests until `is_seen` returns true for an answer, and returns this answer. Call this after a change that
/// each request must see that is sent more than a second later. How long an answer takes does not matter.
pub async fn seen_within_a_second<T>(request: impl AsyncFn() -> T, is_seen: impl Fn(&T) -> bool) -> T {
    let changed_at = Instant::now();
    loop {
        let sent_after = changed_at.elapsed();
        let answer = request().await;
        if is_seen(&answer) {
            return answer;
        }
        assert!(sent_after < Duration::from_secs(1), "a request that was sent {sent_after:?} later saw no change");
    }
}

/// Defines a test that runs on both databases, as `$name::sqlite` and `$name::postgres`, in the environment
/// `$environment`.
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

            // Both tests call one function, so that the test is compiled once.
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

/// Runs a test like [`run`], in its own async runtime. [`both`] expands to a call of this function.
pub fn run_blocking(backend: Backend, environment: Environment, test: impl AsyncFnOnce(&TestApp)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(backend, environment, test));
}

/// Runs a test on a new service with a new database, and then checks the invariants. Skips the test if PostgreSQL is
/// needed and not installed.
pub async fn run(backend: Backend, environment: Environment, test: impl AsyncFnOnce(&TestApp)) {
    let Some(app) = TestApp::start(backend, environment).await else { return };
    run_on(app, test).await;
}

/// The longest time that a test may take. Without this limit, a test that hangs would use up the time limit of CI, and
/// the output would not name the test.
const TEST_LIMIT: Duration = Duration::from_secs(600);

/// Runs a test on a service that is already started, checks the invariants, and stops the service.
pub async fn run_on(app: TestApp, test: impl AsyncFnOnce(&TestApp)) {
    let outcome = AssertUnwindSafe(async {
        let checked = async {
            test(&app).await;
            invariants::check(&app).await;
        };
        timeout(TEST_LIMIT, checked).await.unwrap_or_else(|_| panic!("the test hangs: it takes over {TEST_LIMIT:?}"));
    });
    let outcome = outcome.catch_unwind().await;
    app.stop().await;
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}
