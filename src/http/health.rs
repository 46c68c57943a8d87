//! For load balancers and orchestrators: is the process alive, and can it do its work.

use std::sync::Arc;

use axum::extract;
use axum::http::StatusCode;

use super::State;
use crate::database::Database;
use crate::error::describe;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The database answers too, and has all migrations.
pub async fn readyz(extract::State(state): extract::State<State>) -> (StatusCode, &'static str) {
    let database = state.database.clone();
    let pending = state.database.finish(Arc::default(), async move { pending_migrations(&database).await });
    match pending.await.ok().flatten().unwrap_or_else(|| Err("no answer".to_owned())) {
        Ok(0) => (StatusCode::OK, "ready\n"),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database lacks migrations: run `vivamo migrate`\n"),
        Err(cause) => {
            tracing::warn!(cause, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}

async fn pending_migrations(database: &Database) -> Result<usize, String> {
    database.pending_migrations().await.map_err(|error| describe(&error))
}
