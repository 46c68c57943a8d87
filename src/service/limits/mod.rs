//! Rate limits: token buckets for the cost of requests, for authentication failures, and for disclosures.
//!
//! A disclosure reveals that an email or a phone belongs to a customer that is not connected to the caller's operator.
//! A mutation can make two. The limit prevents the enumeration of the platform's customers.
//!
//! The cost of a request is estimated and charged before the execution. After the execution, the estimate is replaced
//! by the cost of the work ([`CostCharge`]). Work is counted and not timed, so that the load of other requests does not
//! change the cost.
//!
//! | module | contents |
//! | --- | --- |
//! | `cost_charge` | charges the cost of a request to its API key |
//! | `disclosures` | reserves, uses up and gives back the disclosures of an operator |
//! | `token_buckets` | the buckets of one limit, one for each client |
//!
//! A bucket starts full and refills continuously, up to its capacity. A request takes tokens from the bucket. If there
//! are too few tokens, the request is rejected, and the error contains the time until there are enough. Only
//! disclosures are reserved: if other requests have reserved the missing ones, a request first waits for up to a
//! second. If it is then rejected, the time in the error is one second. For example, at 100 disclosures per hour the
//! bucket of an operator holds 100 tokens and gains one every 36 seconds. Each process counts separately, so with n
//! processes the effective limit is n times as high.

mod cost_charge;
mod disclosures;
mod token_buckets;

pub use cost_charge::{Cost, CostCharge};
pub use disclosures::{DisclosureKind, DisclosureReservation, RejectedReservation};

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use entity::value::{ApiKeyId, OperatorId};
use metrics::Counter;
use sea_orm::EnumIter;
use tokio::sync::Notify;

use crate::config::RateLimitSettings;
use crate::error::{ErrorCode, Violation};
use token_buckets::{Shortage, TokenBuckets};

/// The token buckets of all limits. Clones share their buckets.
#[derive(Clone)]
pub struct RateLimits {
    /// Buckets by API key. `None` is the platform key.
    costs: TokenBuckets<Option<ApiKeyId>>,
    /// Buckets by the network of the client: one IPv4 address, or an IPv6 /64 network.
    auth_failures: TokenBuckets<IpAddr>,
    disclosures: TokenBuckets<OperatorId>,
    /// The longest time that a request waits for disclosures that other requests have reserved.
    max_reservation_wait: Duration,
    /// Notified each time a reservation ends.
    reservation_ended: Arc<Notify>,
}

/// The limits that reject requests.
#[derive(Clone, Copy, EnumIter)]
pub enum Limit {
    /// The cost that a key may spend.
    Cost,
    /// The requests of a key that wait.
    InFlight,
    /// The failed authentications of an address.
    AuthenticationFailures,
    /// The disclosures to an operator.
    Disclosures,
}

impl Limit {
    /// Returns the counter of the requests that this limit rejected.
    pub fn counter(self) -> Counter {
        let limit = match self {
            Self::Cost => "cost",
            Self::InFlight => "in_flight",
            Self::AuthenticationFailures => "auth_failures",
            Self::Disclosures => "disclosures",
        };
        metrics::counter!("vivamo_rate_limited_total", "limit" => limit)
    }

    /// Returns the violation of a request that this limit rejects, and counts the rejection.
    pub fn reject(self, message: impl Into<String>, retry_after: Duration) -> Violation {
        self.counter().increment(1);
        Violation::new(ErrorCode::RateLimited).with_message(message).with_retry_after(Some(retry_after))
    }
}

impl RateLimits {
    pub fn new(settings: RateLimitSettings) -> Self {
        let RateLimitSettings { cost_per_second, auth_failures_per_minute, disclosures_per_hour, reservation_wait } =
            settings;
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            costs: TokenBuckets::new(cost_per_second, SECOND, 10),
            auth_failures: TokenBuckets::new(auth_failures_per_minute, 60 * SECOND, 1),
            disclosures: TokenBuckets::with_changing_capacity(disclosures_per_hour, 3600 * SECOND),
            max_reservation_wait: reservation_wait,
            reservation_ended: Arc::default(),
        }
    }

    /// Returns true if the client with this network has used up the allowed authentication failures.
    pub fn is_suspect(&self, network: IpAddr) -> bool {
        self.auth_failures.is_used_up(&network)
    }

    /// Takes a token from the bucket of the client's network, for a request without a valid key. Fails with
    /// `RATE_LIMITED` if the bucket is empty.
    pub fn charge_auth_failure(&self, network: IpAddr) -> Result<(), Violation> {
        let message = "Too many failed authentications from this address. Wait before you retry.";
        let reject = |shortage: Shortage| Limit::AuthenticationFailures.reject(message, shortage.retry_after());
        self.auth_failures.bucket(network, None).take(1).map_err(reject)
    }
}
