//! Health checks for load balancers and orchestrators.

use std::time::{Duration, Instant};

use axum::extract;
use axum::http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Shared, State};
use crate::database::describe;

/// The time for which the result of a check is used again, so that many probes cost no more than one probe.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The response to a probe.
type Health = (StatusCode, &'static str);

/// The last check of the database, and when it ended. The lock is held during a check, so probes that arrive during the
/// check wait for the result.
#[derive(Default)]
pub struct LastCheck(Mutex<Option<(Instant, Health)>>);

/// `GET /healthz`: the process is running.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database responds, has all migrations, and accepts writes of this version.
pub async fn readyz(extract::State(state): extract::State<State>) -> Health {
    // In a task of its own, so that the check ends and logs its result even if the client disconnects earlier.
    let health = tokio::spawn(async move {
        let mut last = state.last_check.0.lock().await;
        match *last {
            Some((ended, health)) if ended.elapsed() < MAX_AGE => health,
            _ => {
                let health = check(&state).await;
                *last = Some((Instant::now(), health));
                health
            }
        }
    });
    health.await.unwrap_or((StatusCode::SERVICE_UNAVAILABLE, "the check failed: see the log\n"))
}

async fn check(state: &Shared) -> Health {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let not_ready = |cause: String, body| {
        tracing::warn!(cause, "not ready");
        (StatusCode::SERVICE_UNAVAILABLE, body)
    };
    let inspection = match timeout(TIMEOUT, state.database.inspect()).await {
        Ok(Ok(inspection)) => inspection,
        Ok(Err(error)) => return not_ready(describe(&error), "the database does not respond: see the log\n"),
        Err(_) => return not_ready("timeout".to_owned(), "the database does not respond: see the log\n"),
    };
    if let Some(fault) = inspection.fault {
        return not_ready(fault.cause, "the database cannot be used: see the log\n");
    }
    if !inspection.pending.is_empty() {
        return not_ready("pending migrations".to_owned(), "the database lacks migrations: run `vivamo migrate`\n");
    }
    if inspection.is_outdated {
        let body = "a newer version has migrated the database, and this version must not write to it any more\n";
        return not_ready(format!("unknown migrations: {}", inspection.unknown.join(", ")), body);
    }
    (StatusCode::OK, "ready\n")
}
