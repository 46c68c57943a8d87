//! The log line and the metrics of a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use entity::value::RequestId;

use crate::database::{Work, WorkCounter};
use crate::error::ErrorCode;
use crate::graphql::Operation;
use crate::service::Actor;
use crate::service::limits::Cost;

/// The facts about a request that are logged, filled in while the request is processed. The operation name is logged,
/// but variables and other values are never logged.
pub struct RequestLog {
    pub request_id: RequestId,
    started: Instant,
    /// The address of the client, or the /64 network of an IPv6 address. Failed authentications are counted by this
    /// address. `None` until the headers are read.
    pub address: Option<IpAddr>,
    /// `None` until the request is authenticated.
    pub caller: Option<Actor>,
    /// `None` until the document is checked.
    pub operation: Option<Operation>,
    /// Counts the work of the request while the request runs.
    pub work: Arc<WorkCounter>,
    /// The cost of the operation. 0 until the operation has been executed.
    pub cost: Cost,
}

impl RequestLog {
    /// Starts the log of a request that has just arrived.
    pub fn start(request_id: RequestId) -> Self {
        let (work, cost) = Default::default();
        Self { request_id, started: Instant::now(), address: None, caller: None, operation: None, work, cost }
    }

    /// Writes the log line, and counts the request in the metrics.
    pub fn write(&self, status: StatusCode, codes: &[ErrorCode]) {
        let duration = self.started.elapsed();
        let (operator, key) = match self.caller {
            Some(Actor::Operator { id, key, .. }) => (Some(id.to_string()), Some(key.to_string())),
            Some(Actor::Platform) => (Some("platform".to_owned()), None),
            None => (None, None),
        };
        let operation = self.operation.as_ref();
        let kind = operation.map_or("none", |operation| operation.kind());
        tracing::info!(
            request_id = %self.request_id,
            address = self.address.map(|address| address.to_string()),
            operator,
            key,
            kind,
            operation = operation.and_then(|operation| operation.name.as_deref()),
            status = status.as_u16(),
            codes = codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(","),
            milliseconds = duration.as_millis() as u64,
            statements = self.work.get(Work::Statement),
            cost_requested = self.cost.requested,
            cost_used = self.cost.used,
            cost_available = self.cost.available,
            "request"
        );
        let code = codes.first().map_or("OK", |code| code.name());
        metrics::counter!("vivamo_requests_total", "kind" => kind, "code" => code).increment(1);
        metrics::histogram!("vivamo_request_duration_seconds", "kind" => kind).record(duration);
        metrics::counter!("vivamo_cost_total", "kind" => kind).increment(self.cost.used.into());
    }
}
