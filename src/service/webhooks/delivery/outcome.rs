//! The results of attempts and the reasons to disable endpoints, in the log and in the metrics.

use entity::webhook::Failure;
use metrics::Counter;
use sea_orm::EnumIter;

use crate::service::webhooks::sender::Response;

/// The result of an attempt, in the metrics.
#[derive(Clone, Copy, EnumIter)]
pub enum DeliveryOutcome {
    Delivered,
    Status,
    Timeout,
    Connection,
    ForbiddenAddress,
}

impl DeliveryOutcome {
    pub(super) fn of(result: &Result<Response, Failure>) -> Self {
        match result {
            Ok(response) if response.status.is_success() => Self::Delivered,
            Ok(_) | Err(Failure::Status) => Self::Status,
            Err(Failure::Timeout) => Self::Timeout,
            Err(Failure::ForbiddenAddress) => Self::ForbiddenAddress,
            // The sender does not return `CursorExpired`, which is a failure without an attempt.
            Err(Failure::Connection | Failure::CursorExpired) => Self::Connection,
        }
    }

    /// Returns the counter of the attempts with this outcome.
    pub fn counter(self) -> Counter {
        let outcome = match self {
            Self::Delivered => "delivered",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::ForbiddenAddress => "forbidden_address",
        };
        metrics::counter!("vivamo_webhook_deliveries_total", "outcome" => outcome)
    }
}

/// The reason for which the service disables an endpoint.
#[derive(Clone, Copy, EnumIter)]
pub enum DisableReason {
    /// All attempts failed for five days.
    Failing,
    /// The receiver responded with status 410.
    Gone,
    /// Changes after the cursor are no longer stored.
    CursorExpired,
}

impl DisableReason {
    /// The name in the log and the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Gone => "gone",
            Self::CursorExpired => "cursor_expired",
        }
    }

    /// Returns the counter of the endpoints that were disabled for this reason.
    pub fn counter(self) -> Counter {
        metrics::counter!("vivamo_webhooks_disabled_total", "reason" => self.name())
    }
}
