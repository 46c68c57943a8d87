//! How much a caller may ask for in a time. Each process counts for itself, and forgets whom it has not seen for long.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use entity::value::{ApiKeyId, OperatorId};
use moka::sync::Cache;

use super::{Actor, Origin};
use crate::error::{ErrorCode, Violation};

/// The limits as they are set; 0 switches one off.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    /// What a key may spend in a second; it can save up for ten. A query costs 1 for each field at its root, a mutation 10.
    pub cost_per_second: u32,
    /// How many requests a minute an address may send with keys that are not valid; it can save up for one minute.
    pub auth_failures_per_minute: u32,
    /// How often an hour an operator may be told about people outside it; it can save up for one hour.
    pub disclosures_per_hour: u32,
}

impl LimitSettings {
    pub const OFF: Self = Self { cost_per_second: 0, auth_failures_per_minute: 0, disclosures_per_hour: 0 };
}

#[derive(Clone)]
pub struct Limits {
    /// `None`: the platform's key.
    keys: Buckets<Option<ApiKeyId>>,
    addresses: Buckets<IpAddr>,
    strangers: Buckets<OperatorId>,
}

impl Limits {
    pub fn new(settings: LimitSettings) -> Self {
        let LimitSettings { cost_per_second, auth_failures_per_minute, disclosures_per_hour } = settings;
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            keys: Buckets::new(cost_per_second, SECOND, 10),
            addresses: Buckets::new(auth_failures_per_minute, 60 * SECOND, 1),
            strangers: Buckets::new(disclosures_per_hour, 3600 * SECOND, 1),
        }
    }

    /// Takes what a request costs from its key.
    pub fn spend(&self, actor: &Actor, cost: u32) -> Result<(), Violation> {
        let key = match *actor {
            Actor::Operator { key, .. } => Some(key),
            Actor::Platform => None,
        };
        self.keys.take(key, cost).map_err(|wait| limited("key", wait))
    }

    /// Counts a request with a key that is not valid.
    pub fn auth_failure(&self, address: IpAddr) -> Result<(), Violation> {
        self.addresses.take(network(address), 1).map_err(|wait| limited("address", wait))
    }

    /// Leave to tell an operator something about so many emails and phones of people outside it, taken before anyone looks,
    /// so that the refusal says nothing of what would have been found.
    pub fn reserve_disclosures(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Violation> {
        self.strangers.take(origin.operator, values).map_err(|wait| {
            let Origin { operator, key, request } = origin;
            tracing::warn!(%operator, %key, request_id = %request, "asks too often about people outside the operator");
            limited("strangers", wait)
        })?;
        Ok(DisclosureReservation { origin: *origin, strangers: self.strangers.clone(), left: values })
    }
}

/// Leave to tell of strangers. What is left of it when it is dropped is given back.
pub struct DisclosureReservation {
    origin: Origin,
    strangers: Buckets<OperatorId>,
    left: u32,
}

impl DisclosureReservation {
    /// So many values are told of.
    pub fn disclosed(&mut self, what: &'static str, values: u32) {
        if values == 0 {
            return;
        }
        self.left = self.left.saturating_sub(values);
        let Origin { operator, key, request } = self.origin;
        tracing::info!(%operator, %key, request_id = %request, what, values, "told of a person outside the operator");
        metrics::counter!("vivamo_disclosures_total", "what" => what).increment(values.into());
    }
}

impl Drop for DisclosureReservation {
    fn drop(&mut self) {
        if self.left > 0 {
            self.strangers.give_back(self.origin.operator, self.left);
        }
    }
}

fn limited(limit: &'static str, wait: Duration) -> Violation {
    metrics::counter!("vivamo_rate_limited_total", "limit" => limit).increment(1);
    Violation::new(ErrorCode::RateLimited).with_retry_after(Some(wait))
}

/// What one client has of addresses: of IPv6 it has a whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Token buckets of many clients, whose tokens can be given back: what is taken before a look is not always used.
#[derive(Clone)]
struct Buckets<K> {
    size: f64,
    per_second: f64,
    /// Whoever is not here has a full bucket.
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    /// At most so many clients are remembered, those seen last.
    const MOST: u64 = 100_000;

    /// `tokens` come in each `period`; a bucket holds those of so many `periods`.
    fn new(tokens: u32, period: Duration, periods: u32) -> Self {
        let buckets = Cache::builder().max_capacity(Self::MOST).time_to_idle(period * periods).build();
        let tokens = f64::from(tokens);
        Self { size: tokens * f64::from(periods), per_second: tokens / period.as_secs_f64(), buckets }
    }

    /// Takes so many tokens, or says when they will be there. What costs more than a bucket holds costs all of it.
    fn take(&self, client: K, tokens: u32) -> Result<(), Duration> {
        if self.size == 0.0 || tokens == 0 {
            return Ok(());
        }
        let tokens = f64::from(tokens).min(self.size);
        self.with(client, |bucket| {
            let lacking = tokens - bucket.tokens;
            if lacking > 0.0 {
                return Err(Duration::from_secs_f64(lacking / self.per_second));
            }
            bucket.tokens -= tokens;
            Ok(())
        })
    }

    fn give_back(&self, client: K, tokens: u32) {
        if self.size > 0.0 {
            let tokens = f64::from(tokens).min(self.size);
            self.with(client, |bucket| bucket.tokens = (bucket.tokens + tokens).min(self.size));
        }
    }

    fn with<T>(&self, client: K, action: impl FnOnce(&mut Bucket) -> T) -> T {
        let full = || Arc::new(Mutex::new(Bucket { tokens: self.size, filled: Instant::now() }));
        let bucket = self.buckets.get_with(client, full);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let come_in = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.tokens = (bucket.tokens + come_in).min(self.size);
        bucket.filled = now;
        action(&mut bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_says_when_there_is_more() {
        let buckets = Buckets::new(2, Duration::from_secs(3600), 3);
        for _ in 0..6 {
            assert_eq!(buckets.take("a", 1), Ok(()));
        }
        let wait = buckets.take("a", 1).unwrap_err();
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert_eq!(buckets.take("b", 100), Ok(()));
        assert!(buckets.take("b", 1).is_err());
        buckets.give_back("b", 1);
        assert_eq!(buckets.take("b", 1), Ok(()));
    }

    #[test]
    fn nothing_is_counted_where_a_limit_is_off() {
        let buckets = Buckets::new(0, Duration::from_secs(1), 10);
        for _ in 0..1000 {
            assert_eq!(buckets.take("a", 1000), Ok(()));
        }
        assert_eq!(buckets.buckets.iter().count(), 0);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
