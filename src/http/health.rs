//! For load balancers and orchestrators: is the process alive, and can it do its work.

use std::time::Duration;

use axum::extract;
use axum::http::StatusCode;
use tokio::time::timeout;

use super::State;
use crate::database::describe;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The database answers too, and has all migrations.
pub async fn readyz(extract::State(state): extract::State<State>) -> (StatusCode, &'static str) {
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
    let pending = timeout(REQUEST_TIMEOUT, state.database.pending_migrations()).await;
    match pending.map_or_else(|_| Err("no answer".to_owned()), |pending| pending.map_err(|error| describe(&error))) {
        Ok(0) => (StatusCode::OK, "ready\n"),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database lacks migrations: run `vivamo migrate`\n"),
        Err(cause) => {
            tracing::warn!(cause, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}
