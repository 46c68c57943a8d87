//! Waits for conditions of a test, with a limit, so that a condition that never holds fails the test with its name.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// The longest wait for a condition. A condition that holds at all holds much earlier, even on a slow machine.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Calls `check` every 20 ms until it returns a value, and returns this value. Panics with `what` after [`WAIT_LIMIT`],
/// for example with "the server is ready", and with the number of checks: after one check, the check itself hangs.
pub async fn wait_until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    // The pause leaves the processor to what the test waits for.
    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks = 0;
    let found = async {
        loop {
            pace.tick().await;
            checks += 1;
            if let Some(found) = check().await {
                return found;
            }
        }
    };
    let found = timeout(WAIT_LIMIT, found).await;
    found.unwrap_or_else(|_| panic!("not within {WAIT_LIMIT:?}, after {checks} checks: {what}"))
}
