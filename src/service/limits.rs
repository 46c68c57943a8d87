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
//!
//! The buckets are implemented here, because a request reserves disclosures before it knows whether it needs them, and
//! returns unused ones. The buckets of the `governor` crate cannot take tokens back.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use entity::value::{ApiKeyId, OperatorId};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::field::display;

use super::{Actor, Origin};
use crate::config::LimitSettings;
use crate::database::{Work, WorkCounter};
use crate::error::{ErrorCode, Violation};

#[derive(Clone)]
pub struct Limits {
    /// Buckets by API key. `None` is the platform key.
    costs: TokenBuckets<Option<ApiKeyId>>,
    /// Buckets by the address or network of the client.
    auth_failures: TokenBuckets<IpAddr>,
    disclosures: TokenBuckets<OperatorId>,
    /// Notified each time a reservation ends.
    reservation_ended: Arc<Notify>,
}

/// The longest time that a request waits for disclosures that other requests have reserved. If they are still reserved
/// after this time, the request is rejected, and the error asks the client to wait for the same time before a retry.
/// Most reservations end after some milliseconds.
const RESERVATION_TIME: Duration = Duration::from_secs(1);

/// The maximum debt of a bucket of costs, as the time in which the debt is refilled. If a request uses more than the
/// bucket holds, later requests wait at most this long, plus the time for their own cost.
const MAX_DEBT: Duration = Duration::from_secs(300);

impl Limits {
    pub fn new(settings: LimitSettings) -> Self {
        let LimitSettings { cost_per_second, auth_failures_per_minute, disclosures_per_hour } = settings;
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            costs: TokenBuckets::new(cost_per_second, SECOND, 10),
            auth_failures: TokenBuckets::new(auth_failures_per_minute, 60 * SECOND, 1),
            disclosures: TokenBuckets::new(disclosures_per_hour, 3600 * SECOND, 1),
            reservation_ended: Arc::default(),
        }
    }

    /// Charges a cost of 1 to the caller's key. Called before the document is read, when only the caller is known.
    pub fn charge(&self, actor: &Actor) -> Result<CostCharge, Violation> {
        let mut charge = CostCharge { costs: self.costs.clone(), key: actor.key(), taken: 0 };
        charge.raise_to(1)?;
        Ok(charge)
    }

    /// True if the client with this [network](client_network) has used up the allowed authentication failures.
    pub fn is_suspect(&self, network: IpAddr) -> bool {
        self.auth_failures.is_used_up(&network)
    }

    /// Takes a token from the bucket of the client's [network](client_network), for a request without a valid key.
    pub fn record_auth_failure(&self, network: IpAddr) -> Result<(), Violation> {
        let message = "Too many failed authentications from this address. Wait before you retry.";
        self.auth_failures.take(network, 1).map_err(|shortage| rate_limited("address", message, shortage))
    }

    /// Like [`reserve_disclosures`](Self::reserve_disclosures), but returns `None` instead of waiting or rejecting.
    /// Reserves nothing for the platform, which sees all customers.
    pub fn try_reserve_disclosures(&self, origin: &Origin, values: u32) -> Option<DisclosureReservation> {
        self.take_disclosures(origin, values).ok()
    }

    /// Reserves the disclosure of up to `values` emails or phones. Must be called before the lookup, so that a
    /// rejection reveals nothing. If other requests have reserved the missing disclosures, waits for a moment, because
    /// most reservations end unused.
    pub async fn reserve_disclosures(
        &self,
        origin: &Origin,
        values: u32,
    ) -> Result<DisclosureReservation, RefusedReservation> {
        let reserve = async {
            loop {
                let ended = self.reservation_ended.notified();
                match self.take_disclosures(origin, values) {
                    Err(Shortage::HeldByReservations) => ended.await,
                    reserved => return reserved,
                }
            }
        };
        let reserved = timeout(RESERVATION_TIME, reserve).await.unwrap_or(Err(Shortage::HeldByReservations));
        reserved.map_err(|shortage| RefusedReservation { origin: origin.clone(), shortage })
    }

    /// Takes `values` disclosures, at most the operator's budget, from the operator's bucket, and returns a
    /// reservation. Takes none for the platform.
    fn take_disclosures(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Shortage> {
        let (values, capacity) = match origin.actor {
            Actor::Operator { disclosures_per_hour, .. } => (values, disclosures_per_hour),
            Actor::Platform => (0, None),
        };
        let capacity = capacity.map_or(self.disclosures.capacity, f64::from);
        self.disclosures.reserve(capacity, origin.owner(), values)?;
        Ok(DisclosureReservation { origin: origin.clone(), limits: self.clone(), capacity, reserved: values, used: 0 })
    }
}

const USED_UP: &str = "Your operator's disclosure budget is used up. Wait before you retry.";
const RESERVED: &str =
    "Concurrent requests have reserved the rest of your disclosure budget. Send fewer requests in parallel.";

/// A rejected reservation of disclosures.
pub struct RefusedReservation {
    origin: Origin,
    shortage: Shortage,
}

impl RefusedReservation {
    /// Returns the fault of a request that is rejected for this reason, and logs and counts the rejection.
    pub fn refuse(&self) -> Violation {
        let (operator, key) = (self.origin.owner(), self.origin.actor.key().map(display));
        tracing::warn!(%operator, key, request_id = %self.origin.request.id, "disclosure limit reached");
        let message = match self.shortage {
            Shortage::RefillsIn(_) => USED_UP,
            Shortage::HeldByReservations => RESERVED,
        };
        rate_limited("disclosures", message, self.shortage)
    }
}

/// A reservation of disclosures. Gives the unused disclosures back when the reservation is dropped.
pub struct DisclosureReservation {
    origin: Origin,
    limits: Limits,
    /// The operator's budget.
    capacity: f64,
    reserved: u32,
    used: u32,
}

impl DisclosureReservation {
    /// Uses up `values` disclosures, and logs and counts them. `kind` is the label of the metric.
    pub fn disclosed(&mut self, kind: &'static str, values: u32) {
        let Some(operator) = self.origin.actor.operator().filter(|_| values > 0) else { return };
        self.used += values;
        let (key, request_id) = (self.origin.actor.key().map(display), self.origin.request.id);
        tracing::info!(%operator, key, %request_id, kind, values, "disclosed a match outside the operator");
        metrics::counter!("vivamo_disclosures_total", "kind" => kind).increment(values.into());
    }
}

impl Drop for DisclosureReservation {
    fn drop(&mut self) {
        let Self { origin, limits, capacity, reserved, used } = self;
        limits.disclosures.end_reservation(*capacity, origin.owner(), *reserved, *used);
        if *reserved > 0 {
            limits.reservation_ended.notify_waiters();
        }
    }
}

/// The weights of the work of a request, in thousandths of a cost of 1. A cost of 1 stands for about 100 µs of
/// processor time of the service and its database together, which `benches/service/cost.py` measures.
pub mod weights {
    /// The work to read and check a request and to send the response.
    pub const REQUEST: u64 = 500;
    /// The work to parse and validate a field of the document.
    pub const SELECTION: u64 = 8;
    pub const QUERY: u64 = 100;
    pub const ROW: u64 = 75;
    /// A value of the response.
    pub const VALUE: u64 = 1;
    pub const ENTRY: u64 = 1;
    pub const CHECK: u64 = 15;
    pub const WRITE: u64 = 60;
    /// The estimate for an item of a list: a row and its values.
    pub const ITEM: u64 = 100;
    /// The estimate for a search, for a condition without an index, or for a count.
    pub const SCAN: u64 = 1000;

    /// Estimates the work for a page of a list.
    pub fn list(items: u64, is_scanned: bool) -> u64 {
        QUERY + items * ITEM + u64::from(is_scanned) * SCAN
    }

    /// Converts work to a cost.
    pub fn cost(work: u64) -> u32 {
        u32::try_from(work.div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

/// The minimum cost of each mutation in a request. The work of a mutation can cost more, for example if many rows are
/// written.
pub const MUTATION_COST: u32 = 10;

/// The minimum cost of `validateCustomer`, which looks up the same values as `createCustomer`.
pub const VALIDATION_COST: u32 = 2;

/// Returns the cost of a request from the counted work, the number of selections in the document, and the number of
/// values in the response that the counted work does not include.
pub fn cost(work: &WorkCounter, selections: u64, values: u64) -> u32 {
    let weighted = [
        (Work::Query, weights::QUERY),
        (Work::Row, weights::ROW),
        (Work::Entry, weights::ENTRY),
        (Work::Check, weights::CHECK),
        (Work::Write, weights::WRITE),
        (Work::Value, weights::VALUE),
    ];
    let work: u64 = weighted.into_iter().map(|(kind, weight)| work.get(kind) * weight).sum();
    weights::cost(weights::REQUEST + work + selections * weights::SELECTION + values * weights::VALUE)
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
    /// few tokens now, the request is rejected, and the cost that was already taken is given back.
    pub fn raise_to(&mut self, cost: u32) -> Result<(), Violation> {
        let cost = self.costs.at_most_capacity(cost);
        let message = "This API key has reached its cost limit. Wait before you retry.";
        self.costs.take(self.key, cost.saturating_sub(self.taken)).map_err(|shortage| {
            self.costs.settle(self.key, self.taken, 0);
            rate_limited("key", message, shortage)
        })?;
        self.taken = self.taken.max(cost);
        Ok(())
    }

    /// Replaces the charged estimate by the cost of the work.
    pub fn settle(self, used: u32) -> Cost {
        Cost { requested: self.taken, used, available: self.costs.settle(self.key, self.taken, used) }
    }
}

/// The error of a rejected request. `limit` is the label of the metric.
fn rate_limited(limit: &'static str, message: &str, shortage: Shortage) -> Violation {
    metrics::counter!("vivamo_rate_limited_total", "limit" => limit).increment(1);
    let retry_after = Some(match shortage {
        Shortage::RefillsIn(time) => time,
        Shortage::HeldByReservations => RESERVATION_TIME,
    });
    Violation { message: message.to_owned(), retry_after, ..Violation::new(ErrorCode::RateLimited) }
}

/// The addresses that belong to one client: one IPv4 address, or an IPv6 /64 network.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Token buckets that refill in the same time, one for each client.
#[derive(Clone)]
struct TokenBuckets<K> {
    /// The default capacity of a bucket, in tokens. 0 disables the limit for buckets with the default capacity.
    capacity: f64,
    /// The time in which an empty bucket becomes full.
    refill_time: Duration,
    /// Buckets that were used recently. An unused bucket is dropped after the time in which it becomes full again, even
    /// from the maximum debt.
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

struct Bucket {
    /// The number of tokens that are missing in the bucket. Because the missing tokens are stored, and not the
    /// available ones, a change of the capacity takes effect immediately.
    taken: f64,
    /// Tokens that were taken as a reservation and may be given back.
    reserved: f64,
    refilled_at: Instant,
}

/// The reason why a bucket has too few tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortage {
    /// The bucket has enough tokens after this time.
    RefillsIn(Duration),
    /// Reservations hold the missing tokens, and may give them back at any time.
    HeldByReservations,
}

impl Bucket {
    /// Takes tokens if a bucket of this capacity has so many.
    fn take(&mut self, tokens: f64, capacity: f64, refill_time: Duration) -> Result<(), Shortage> {
        let missing = self.taken + tokens - capacity;
        if missing > self.reserved {
            return Err(Shortage::RefillsIn(refill_time.mul_f64(missing / capacity)));
        }
        if missing > 0.0 {
            return Err(Shortage::HeldByReservations);
        }
        self.taken += tokens;
        Ok(())
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> TokenBuckets<K> {
    const MAX_CLIENTS: u64 = 100_000;

    /// Each `period` refills `tokens`. A bucket holds the tokens of `periods` periods.
    fn new(tokens: u32, period: Duration, periods: u32) -> Self {
        let refill_time = period * periods;
        // A request can use two disclosures of a budget of one, which is a debt of the whole budget.
        let idle_time = refill_time + MAX_DEBT.max(refill_time);
        let buckets = Cache::builder().max_capacity(Self::MAX_CLIENTS).time_to_idle(idle_time).build();
        Self { capacity: f64::from(tokens) * f64::from(periods), refill_time, buckets }
    }

    /// Takes tokens, at most as many as the capacity.
    fn take(&self, client: K, tokens: u32) -> Result<(), Shortage> {
        self.take_and(self.capacity, client, tokens, |_, _| ())
    }

    /// Takes tokens from a bucket of this capacity, at most as many as the capacity. They stay reserved until
    /// [`end_reservation`](Self::end_reservation) gives the unused ones back.
    fn reserve(&self, capacity: f64, client: K, tokens: u32) -> Result<(), Shortage> {
        self.take_and(capacity, client, tokens, |bucket, tokens| bucket.reserved += tokens)
    }

    /// Takes tokens, and runs `action` with the bucket and the number of tokens that were taken.
    fn take_and(
        &self,
        capacity: f64,
        client: K,
        tokens: u32,
        action: impl FnOnce(&mut Bucket, f64),
    ) -> Result<(), Shortage> {
        if capacity == 0.0 || tokens == 0 {
            return Ok(());
        }
        let tokens = f64::from(tokens).min(capacity);
        self.with_bucket(capacity, client, |bucket| {
            bucket.take(tokens, capacity, self.refill_time)?;
            action(bucket, tokens);
            Ok(())
        })
    }

    fn at_most_capacity(&self, tokens: u32) -> u32 {
        if self.capacity == 0.0 { tokens } else { tokens.min(self.capacity as u32) }
    }

    /// Gives the `taken` tokens back and takes the `used` tokens instead. Returns the number of tokens in the bucket,
    /// which is negative for a debt. Returns `None` if the limit is disabled.
    fn settle(&self, client: K, taken: u32, used: u32) -> Option<i64> {
        (self.capacity > 0.0).then(|| {
            let most = self.capacity * (1.0 + MAX_DEBT.div_duration_f64(self.refill_time));
            self.with_bucket(self.capacity, client, |bucket| {
                bucket.taken = (bucket.taken + f64::from(used) - f64::from(taken)).clamp(0.0, most);
                (self.capacity - bucket.taken).floor() as i64
            })
        })
    }

    /// Gives back the reserved tokens that were not used.
    fn end_reservation(&self, capacity: f64, client: K, reserved: u32, used: u32) {
        let reserved = f64::from(reserved).min(capacity);
        if reserved == 0.0 {
            return;
        }
        self.with_bucket(capacity, client, |bucket| {
            bucket.reserved = (bucket.reserved - reserved).max(0.0);
            bucket.taken = (bucket.taken - reserved + f64::from(used)).max(0.0);
        });
    }

    /// Returns true if the client has less than one token.
    fn is_used_up(&self, client: &K) -> bool
    where
        K: Copy,
    {
        let is_empty = |bucket: &mut Bucket| bucket.taken + 1.0 > self.capacity;
        self.buckets.contains_key(client) && self.with_bucket(self.capacity, *client, is_empty)
    }

    /// Refills the bucket of a client, and runs `action` on the bucket while the bucket is locked.
    fn with_bucket<T>(&self, capacity: f64, client: K, action: impl FnOnce(&mut Bucket) -> T) -> T {
        let full = || Arc::new(Mutex::new(Bucket { taken: 0.0, reserved: 0.0, refilled_at: Instant::now() }));
        let bucket = self.buckets.get_with(client, full);
        let mut bucket = bucket.lock();
        let now = Instant::now();
        let refilled = now.duration_since(bucket.refilled_at).div_duration_f64(self.refill_time) * capacity;
        bucket.taken = (bucket.taken - refilled).max(0.0);
        bucket.refilled_at = now;
        action(&mut bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Result<(), Shortage> = Err(Shortage::HeldByReservations);

    fn wait_time(taken: Result<(), Shortage>) -> Duration {
        let Err(Shortage::RefillsIn(time)) = taken else { panic!("{taken:?}") };
        time
    }

    #[test]
    fn take_refuses_an_empty_bucket_and_returns_the_time_to_wait() {
        let buckets = TokenBuckets::new(2, Duration::from_secs(3600), 3);
        for _ in 0..6 {
            assert_eq!(buckets.take("a", 1), Ok(()));
        }
        let wait = wait_time(buckets.take("a", 1));
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert_eq!(buckets.take("b", 100), Ok(()));
        assert!(buckets.take("b", 1).is_err());
    }

    #[test]
    fn reserved_tokens_are_held_until_the_reservation_ends() {
        let buckets = TokenBuckets::new(2, Duration::from_secs(3600), 1);
        assert_eq!((buckets.reserve(2.0, "a", 1), buckets.reserve(2.0, "a", 1)), (Ok(()), Ok(())));
        assert_eq!((buckets.reserve(2.0, "a", 1), buckets.reserve(2.0, "a", 2)), (HELD, HELD));
        buckets.end_reservation(2.0, "a", 1, 0);
        assert_eq!(buckets.reserve(2.0, "a", 1), Ok(()));
        // Two disclosures use the budget up.
        buckets.end_reservation(2.0, "a", 1, 1);
        assert_eq!(buckets.reserve(2.0, "a", 1), HELD);
        buckets.end_reservation(2.0, "a", 1, 1);
        let wait = wait_time(buckets.reserve(2.0, "a", 1));
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        // More tokens than the capacity count as the capacity.
        assert_eq!(buckets.reserve(2.0, "b", 3), Ok(()));
        assert_eq!(buckets.reserve(2.0, "b", 1), HELD);
        buckets.end_reservation(2.0, "b", 3, 1);
        assert_eq!((buckets.reserve(2.0, "b", 1), buckets.reserve(2.0, "b", 1)), (Ok(()), HELD));
    }

    #[test]
    fn another_capacity_takes_effect_at_once_and_keeps_what_was_taken() {
        let buckets = TokenBuckets::new(2, Duration::from_secs(3600), 1);
        assert_eq!((buckets.reserve(2.0, "a", 2), buckets.reserve(2.0, "a", 1)), (Ok(()), HELD));
        assert_eq!(buckets.reserve(4.0, "a", 2), Ok(()));
        assert_eq!(buckets.reserve(4.0, "a", 1), HELD);
        buckets.end_reservation(2.0, "a", 2, 2);
        buckets.end_reservation(4.0, "a", 2, 2);
        // 4 tokens are missing in a bucket of 2. Three tokens must refill before one is available: an hour and a half
        // at 2 per hour.
        let wait = wait_time(buckets.take("a", 1));
        assert!(wait > Duration::from_secs(5300) && wait <= Duration::from_secs(5400), "{wait:?}");
        // A client with a capacity of its own is limited even if the limit is disabled for all other clients.
        let disabled = TokenBuckets::new(0, Duration::from_secs(3600), 1);
        assert_eq!(disabled.reserve(1.0, "a", 1), Ok(()));
        assert!(disabled.reserve(1.0, "a", 1).is_err());
    }

    #[test]
    fn more_used_tokens_than_reserved_tokens_are_a_debt() {
        let buckets = TokenBuckets::new(1, Duration::from_secs(3600), 1);
        assert_eq!(buckets.reserve(1.0, "a", 2), Ok(()));
        buckets.end_reservation(1.0, "a", 2, 2);
        let wait = wait_time(buckets.take("a", 1));
        assert!(wait > Duration::from_secs(7100) && wait <= Duration::from_secs(7200), "{wait:?}");
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let costs = TokenBuckets::new(10, Duration::from_secs(3600), 1);
        assert_eq!(costs.take(None, 6), Ok(()));
        let mut charge = CostCharge { costs: costs.clone(), key: None, taken: 1 };
        assert!(charge.raise_to(10).is_err());
        assert_eq!(costs.settle(None, 0, 0), Some(5));
    }

    #[test]
    fn a_disabled_limit_keeps_no_buckets() {
        let buckets = TokenBuckets::new(0, Duration::from_secs(1), 10);
        for _ in 0..1000 {
            assert_eq!(buckets.reserve(0.0, "a", 1000), Ok(()));
            buckets.end_reservation(0.0, "a", 1000, 0);
        }
        assert_eq!(buckets.buckets.iter().count(), 0);
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
