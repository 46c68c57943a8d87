//! Health checks for load balancers and orchestrators.

use std::time::Duration;

use axum::extract;
use axum::http::StatusCode;
use tokio::time::timeout;

use super::State;
use crate::database::describe;

/// `GET /healthz`: the process is running.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database responds and has all migrations.
pub async fn readyz(extract::State(state): extract::State<State>) -> (StatusCode, &'static str) {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let pending = timeout(TIMEOUT, state.database.pending_migrations()).await;
    match pending.map_or_else(|_| Err("timeout".to_owned()), |pending| pending.map_err(|error| describe(&error))) {
        Ok(0) => (StatusCode::OK, "ready\n"),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database lacks migrations: run `vivamo migrate`\n"),
        Err(cause) => {
            tracing::warn!(cause, "not ready");
            let body = "the database does not respond, or a newer version has migrated it: see the log\n";
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}
