//! Health checks for load balancers and orchestrators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, extract};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::database::{Database, describe};

/// The time for which the result of a check is used again, so that many probes cost no more than one probe.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The response to a probe.
type Health = (StatusCode, &'static str);

/// The state of the probes. The API and the metrics have an address each, and the probes at both addresses share it.
pub struct Probes {
    database: Database,
    /// The last check of the database, and when it ended. The lock is held during a check, so probes that arrive during
    /// the check wait for the result.
    last_check: Arc<Mutex<Option<(Instant, Health)>>>,
    is_stopping: AtomicBool,
}

impl Probes {
    pub fn new(database: Database) -> Arc<Self> {
        Arc::new(Self { database, last_check: Arc::default(), is_stopping: AtomicBool::new(false) })
    }

    /// Lets `/readyz` report that the process stops. The address of the metrics is served until the process ends, so a
    /// load balancer that probes it would otherwise continue to send requests.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(self.clone())
    }
}

/// `GET /healthz`: the process is running.
async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database responds, has all migrations, and accepts writes of this version.
async fn readyz(extract::State(probes): extract::State<Arc<Probes>>) -> Health {
    if probes.is_stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n");
    }
    // A probe whose client disconnects no longer waits for the lock.
    let mut last = probes.last_check.clone().lock_owned().await;
    if let Some((ended, health)) = *last
        && ended.elapsed() < MAX_AGE
    {
        return health;
    }
    // In a separate task, so that the check ends and logs its result even if the client disconnects earlier.
    let health = tokio::spawn(async move {
        let health = check(&probes.database).await;
        *last = Some((Instant::now(), health));
        health
    });
    health.await.unwrap_or((StatusCode::SERVICE_UNAVAILABLE, "the check failed: see the log\n"))
}

async fn check(database: &Database) -> Health {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let not_ready = |cause: String, body| {
        tracing::warn!(cause, "not ready");
        (StatusCode::SERVICE_UNAVAILABLE, body)
    };
    let inspection = match timeout(TIMEOUT, database.inspect()).await {
        Ok(Ok(inspection)) => inspection,
        Ok(Err(error)) => return not_ready(describe(&error), "the database does not respond: see the log\n"),
        Err(_) => return not_ready("timeout".to_owned(), "the database does not respond: see the log\n"),
    };
    if let Some(problem) = inspection.problem {
        return not_ready(problem.cause, "the database cannot be used: see the log\n");
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
