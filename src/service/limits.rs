//! Rate limits: token buckets for the cost of requests, for authentication failures, and for disclosures.
//!
//! A disclosure is a response that reveals that an email or a phone belongs to a customer of another operator. The
//! limit prevents the enumeration of the platform's customers.
//!
//! The cost of a request is estimated and reserved before the execution. After the execution, the estimate is replaced
//! by the cost of the work ([`CostCharge`]). Work is counted and not timed, so that the load of other requests does not
//! change the cost.
//!
//! A bucket starts full and refills continuously, up to its capacity. A request takes tokens from the bucket. If there
//! are too few tokens, the request is rejected, and the error contains the time until there are enough. If other
//! requests have reserved the missing tokens, the request first waits for up to a second. If it is then rejected, the
//! time in the error is one second. For example, at 100 disclosures per hour the bucket of an operator holds 100 tokens
//! and gains one every 36 seconds. Each process counts separately, so with n processes the effective limit is n times
//! as high.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use entity::value::{ApiKeyId, OperatorId};
use metrics::Counter;
use sea_orm::EnumIter;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::field::display;

use super::token_buckets::{Shortage, TokenBuckets};
use super::{Caller, Origin};
use crate::config::RateLimitSettings;
use crate::error::{ErrorCode, Violation};

/// The token buckets of all limits. Clones share their buckets.
#[derive(Clone)]
pub struct RateLimits {
    /// Buckets by API key. `None` is the platform key.
    costs: TokenBuckets<Option<ApiKeyId>>,
    /// Buckets by the address or network of the client.
    auth_failures: TokenBuckets<IpAddr>,
    disclosures: TokenBuckets<OperatorId>,
    /// The longest time that a request waits for disclosures that other requests have reserved.
    max_reservation_wait: Duration,
    /// Notified each time a reservation ends.
    reservation_ended: Arc<Notify>,
}

/// The time that a client must wait before a retry if other requests have reserved the disclosures that it needs.
const RETRY_AFTER_RESERVATIONS: Duration = Duration::from_secs(1);

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
}

/// The kinds of disclosures.
#[derive(Clone, Copy, EnumIter)]
pub enum DisclosureKind {
    /// A create connected the customer.
    Connected,
    /// A create failed with `IDENTITY_CONFLICT`.
    IdentityConflict,
    /// An update failed because another customer has the value.
    TakenOnUpdate,
    /// A create matched a customer, but then failed, or was rejected with a code other than `IDENTITY_CONFLICT`.
    RejectedCreate,
}

impl DisclosureKind {
    /// The name in the log and the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::IdentityConflict => "identity_conflict",
            Self::TakenOnUpdate => "taken_on_update",
            Self::RejectedCreate => "rejected_create",
        }
    }

    /// Returns the counter of the disclosures of this kind.
    pub fn counter(self) -> Counter {
        metrics::counter!("vivamo_disclosures_total", "kind" => self.name())
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

    /// Charges a cost of 1 to the caller's key. Called before the document is read, when only the caller is known.
    pub fn charge(&self, caller: &Caller) -> Result<CostCharge, Violation> {
        let mut charge = CostCharge { costs: self.costs.clone(), key: caller.key(), taken: 0 };
        charge.raise_to(1, true)?;
        Ok(charge)
    }

    /// Returns true if the client with this [network](client_network) has used up the allowed authentication failures.
    pub fn is_suspect(&self, network: IpAddr) -> bool {
        self.auth_failures.is_used_up(&network)
    }

    /// Takes a token from the bucket of the client's [network](client_network), for a request without a valid key.
    /// Fails with `RATE_LIMITED` if the bucket is empty.
    pub fn charge_auth_failure(&self, network: IpAddr) -> Result<(), Violation> {
        let message = "Too many failed authentications from this address. Wait before you retry.";
        self.auth_failures
            .take(network, 1)
            .map_err(|shortage| rate_limited(Limit::AuthenticationFailures, message, shortage))
    }

    /// Reserves the disclosure of up to `values` emails or phones. Must be called before the lookup, so that a
    /// rejection reveals nothing. If other requests have reserved the missing disclosures, waits for a moment, because
    /// most reservations end unused. Reserves nothing for the platform, which sees all customers.
    pub async fn reserve_disclosures(
        &self,
        origin: &Origin,
        values: u32,
    ) -> Result<DisclosureReservation, RejectedReservation> {
        let reserved = match self.take_disclosures(origin, values) {
            Err(Shortage::HeldByReservations) => self.wait_for_disclosures(origin, values).await,
            reserved => reserved,
        };
        reserved.map_err(|shortage| RejectedReservation { origin: origin.clone(), shortage })
    }

    /// Takes disclosures as soon as other requests give enough of them back.
    async fn wait_for_disclosures(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Shortage> {
        let take = async {
            loop {
                // Registered before the attempt, so that no reservation ends unnoticed between the two.
                let ended = self.reservation_ended.notified();
                match self.take_disclosures(origin, values) {
                    Err(Shortage::HeldByReservations) => ended.await,
                    reserved => return reserved,
                }
            }
        };
        timeout(self.max_reservation_wait, take).await.unwrap_or(Err(Shortage::HeldByReservations))
    }

    /// Takes `values` disclosures, at most the operator's budget, from the operator's bucket, and returns a
    /// reservation. Takes none for the platform.
    fn take_disclosures(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Shortage> {
        let (values, capacity) = match *origin.caller() {
            Caller::Operator { disclosures_per_hour, .. } => (values, disclosures_per_hour),
            Caller::Platform => (0, None),
        };
        let capacity = capacity.map_or(self.disclosures.capacity, f64::from);
        self.disclosures.reserve(capacity, origin.owner(), values)?;
        Ok(DisclosureReservation {
            origin: origin.clone(),
            limits: self.clone(),
            capacity,
            reserved: values,
            matches: AtomicU32::default(),
            used: 0,
        })
    }
}

const USED_UP: &str = "Your operator's disclosure budget has too few disclosures left. Each email or \
    phone that matches a customer that is not yours uses one disclosure. Wait for `retryAfterMs`, then retry, or ask the \
    platform for a larger budget.";
const RESERVED: &str =
    "Concurrent requests have reserved the rest of your disclosure budget. Send fewer requests in parallel.";

/// A rejected reservation of disclosures.
pub struct RejectedReservation {
    origin: Origin,
    shortage: Shortage,
}

impl RejectedReservation {
    /// Logs and counts the rejection of a request for this reason, and returns the violation of the request.
    pub fn record_rejection(&self) -> Violation {
        let (operator, key) = (self.origin.owner(), self.origin.caller().key().map(display));
        tracing::warn!(%operator, key, request_id = %self.origin.request().id, "disclosure limit reached");
        let message = match self.shortage {
            Shortage::RefillsIn(_) => USED_UP,
            Shortage::HeldByReservations => RESERVED,
        };
        rate_limited(Limit::Disclosures, message, self.shortage)
    }
}

/// A reservation of disclosures. Gives the unused disclosures back when the reservation is dropped. If the reservation
/// is dropped before the request has an outcome, because the request panicked or took too long, the recorded matches
/// count as disclosed by a [`RejectedCreate`](DisclosureKind::RejectedCreate): the error does not contain them, but its
/// time may reveal them. Only creates record matches before they have an outcome.
pub struct DisclosureReservation {
    origin: Origin,
    limits: RateLimits,
    /// The operator's budget.
    capacity: f64,
    reserved: u32,
    /// The largest number of emails and phones for which an attempt of the request has found a match.
    matches: AtomicU32,
    used: u32,
}

impl DisclosureReservation {
    /// Records that an attempt has found matches for `values` emails or phones. The matches of an earlier attempt count
    /// even if the last attempt does not find them, because the time of the response may reveal them.
    pub fn record_matches(&self, values: u32) {
        self.matches.fetch_max(values, Ordering::Relaxed);
    }

    /// Uses up a disclosure for each [recorded match](Self::record_matches), and logs and counts the disclosures.
    pub fn record_disclosed(mut self, kind: DisclosureKind) {
        self.use_matches(kind);
    }

    /// Gives all disclosures back, also those of the recorded matches.
    pub fn release(mut self) {
        *self.matches.get_mut() = 0;
    }

    /// Uses up a disclosure for each recorded match, once.
    fn use_matches(&mut self, kind: DisclosureKind) {
        let values = std::mem::take(self.matches.get_mut());
        let Some(operator) = self.origin.caller().operator().filter(|_| values > 0) else { return };
        self.used = values;
        let (key, request_id) = (self.origin.caller().key().map(display), self.origin.request().id);
        let name = kind.name();
        tracing::info!(%operator, key, %request_id, kind = name, values, "disclosed a match outside the operator");
        kind.counter().increment(values.into());
    }
}

impl Drop for DisclosureReservation {
    fn drop(&mut self) {
        // Without an effect if the matches were used or released.
        self.use_matches(DisclosureKind::RejectedCreate);
        let Self { origin, limits, capacity, reserved, matches: _, used } = self;
        limits.disclosures.end_reservation(*capacity, origin.owner(), *reserved, *used);
        if *reserved > 0 {
            limits.reservation_ended.notify_waiters();
        }
    }
}

/// The cost that a request has been charged until now. If this value is dropped, the cost stays charged.
pub struct CostCharge {
    costs: TokenBuckets<Option<ApiKeyId>>,
    key: Option<ApiKeyId>,
    taken: u32,
}

/// The cost of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// The estimate that was reserved before the execution.
    pub requested: u32,
    /// The cost of the work.
    pub used: u32,
    /// The cost that the key can spend now. Negative if the key has used more than its budget. `None` if there is no
    /// limit.
    pub available: Option<i64>,
}

impl CostCharge {
    /// Raises the charge to this cost, or to the capacity of the bucket if this cost is larger. If the bucket has too
    /// few tokens now, the request is rejected. The cost that was already taken is then given back if the request
    /// `was_cheap`, so that a client that retries too early does not use up the tokens that it waits for. Otherwise the
    /// cost stays charged: a client without tokens must not get work done for nothing.
    pub fn raise_to(&mut self, cost: u32, was_cheap: bool) -> Result<(), Violation> {
        let cost = self.costs.at_most_capacity(cost);
        let message = "This API key has reached its cost limit. Wait before you retry.";
        self.costs.take(self.key, cost.saturating_sub(self.taken)).map_err(|mut shortage| {
            if was_cheap {
                self.costs.settle(self.key, self.taken, 0);
            } else if let Shortage::RefillsIn(time) = &mut shortage {
                // The next attempt also needs the tokens that this attempt keeps.
                *time += self.costs.time_to_refill(f64::from(self.taken));
            }
            rate_limited(Limit::Cost, message, shortage)
        })?;
        self.taken = self.taken.max(cost);
        Ok(())
    }

    /// Replaces the charged estimate by the cost of the work.
    pub fn settle(self, used: u32) -> Cost {
        Cost { requested: self.taken, used, available: self.costs.settle(self.key, self.taken, used) }
    }
}

/// Returns the error of a rejected request, and counts the rejection.
fn rate_limited(limit: Limit, message: &str, shortage: Shortage) -> Violation {
    limit.counter().increment(1);
    let retry_after = match shortage {
        Shortage::RefillsIn(time) => time,
        Shortage::HeldByReservations => RETRY_AFTER_RESERVATIONS,
    };
    Violation::new(ErrorCode::RateLimited).with_message(message).with_retry_after(Some(retry_after))
}

/// The addresses that belong to one client: one IPv4 address, or an IPv6 /64 network.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_request_costs_nothing_only_if_it_was_cheap() {
        for (was_cheap, available, seconds) in [(true, 5, 5 * 360), (false, 4, 6 * 360)] {
            let costs = TokenBuckets::new(10, Duration::from_secs(3600), 1);
            assert_eq!(costs.take(None, 6), Ok(()));
            let mut charge = CostCharge { costs: costs.clone(), key: None, taken: 1 };
            let rejected = charge.raise_to(10, was_cheap).expect_err("the bucket has 4 tokens");
            assert_eq!(costs.settle(None, 0, 0), Some(available));
            // After this time, the bucket is full, as the next attempt needs it.
            let wait = rejected.retry_after.map(|wait| wait.as_secs_f64().round());
            assert_eq!(wait, Some(f64::from(seconds)));
        }
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let address = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
