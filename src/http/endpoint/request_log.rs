//! The log line and the metrics of a request.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use entity::value::RequestId;
use metrics::Counter;
use sea_orm::{EnumIter, Iterable};

use crate::error::ErrorCode;
use crate::graphql::OperationSummary;
use crate::request::{Work, WorkCounter};
use crate::service::Caller;
use crate::service::limits::Cost;

/// The kind of operation of a request.
#[derive(Clone, Copy, EnumIter)]
enum OperationKind {
    Query,
    Mutation,
    /// The request was rejected before its document was accepted.
    NotAccepted,
}

impl OperationKind {
    fn of(operation: Option<&OperationSummary>) -> Self {
        match operation {
            Some(operation) if operation.is_mutation => Self::Mutation,
            Some(_) => Self::Query,
            None => Self::NotAccepted,
        }
    }

    /// The name in the log and the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::NotAccepted => "none",
        }
    }

    /// Returns the counter of the requests of this kind with this code.
    fn requests(self, code: &'static str) -> Counter {
        metrics::counter!("vivamo_requests_total", "kind" => self.name(), "code" => code)
    }

    /// Returns the counter of the cost of the requests of this kind.
    fn cost(self) -> Counter {
        metrics::counter!("vivamo_cost_total", "kind" => self.name())
    }
}

/// The code of a request without errors in the metrics.
const OK: &str = "OK";

/// The code of a request whose client disconnected before the response. No response has this code.
const CLIENT_DISCONNECTED: &str = "CLIENT_DISCONNECTED";

/// The status of a request whose client disconnected before the response. nginx uses it too.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Registers the counters of requests, with the codes that alerts use.
pub fn register_counters() {
    for kind in OperationKind::iter() {
        kind.cost().increment(0);
        for code in [OK, ErrorCode::Internal.name(), ErrorCode::Unavailable.name(), CLIENT_DISCONNECTED] {
            kind.requests(code).increment(0);
        }
    }
}

/// The facts about a request that are logged, filled in while the request is processed. The operation name is logged,
/// but variables and other values are never logged.
///
/// hyper drops the handler of a request when the client disconnects. If a log is dropped before [`write`](Self::write),
/// it is written with the code [`CLIENT_DISCONNECTED`].
pub struct RequestLog {
    pub request_id: RequestId,
    started: Instant,
    /// The address of the client, or the /64 network of an IPv6 address. Failed authentications are counted by this
    /// address. `None` until the headers are read.
    pub address: Option<IpAddr>,
    /// `None` until the request is authenticated.
    pub caller: Option<Caller>,
    /// `None` until the document is checked.
    pub operation: Option<OperationSummary>,
    /// Counts the work of the request while the request runs.
    pub work: Arc<WorkCounter>,
    /// The cost of the operation. 0 until the operation has been executed.
    pub cost: Cost,
    is_written: bool,
}

impl RequestLog {
    /// Starts the log of a request that has just arrived.
    pub fn start(request_id: RequestId) -> Self {
        Self {
            request_id,
            started: Instant::now(),
            address: None,
            caller: None,
            operation: None,
            work: Arc::default(),
            cost: Cost::default(),
            is_written: false,
        }
    }

    /// Writes the log line, and counts the request in the metrics.
    pub fn write(mut self, status: StatusCode, codes: &[ErrorCode]) {
        self.is_written = true;
        self.record(status.as_u16(), &codes.iter().map(|code| code.name()).collect::<Vec<_>>());
    }

    fn record(&self, status: u16, codes: &[&'static str]) {
        let duration = self.started.elapsed();
        let operator: Option<&dyn Display> = match &self.caller {
            Some(Caller::Operator { id, .. }) => Some(id),
            Some(Caller::Platform) => Some(&"platform"),
            None => None,
        };
        let operation = self.operation.as_ref();
        let kind = OperationKind::of(operation);
        tracing::info!(
            request_id = %self.request_id,
            address = self.address.map(display),
            operator = operator.map(display),
            key = self.caller.and_then(|caller| caller.key()).map(display),
            kind = %kind.name(),
            operation = operation.and_then(|operation| operation.name.as_deref()).map(display),
            status,
            codes = %codes.join(","),
            milliseconds = duration.as_millis() as u64,
            statements = self.work.get(Work::Statement),
            cost_requested = self.cost.requested,
            cost_used = self.cost.used,
            cost_available = self.cost.available,
            "request"
        );
        kind.requests(codes.first().copied().unwrap_or(OK)).increment(1);
        metrics::histogram!("vivamo_request_duration_seconds", "kind" => kind.name()).record(duration);
        kind.cost().increment(self.cost.used.into());
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if self.is_written {
            return;
        }
        // A panic of the handler also ends the request without a response, but it is not the client's fault.
        if std::thread::panicking() {
            self.record(StatusCode::INTERNAL_SERVER_ERROR.as_u16(), &[ErrorCode::Internal.name()]);
        } else {
            self.record(CLIENT_CLOSED_REQUEST, &[CLIENT_DISCONNECTED]);
        }
    }
}
