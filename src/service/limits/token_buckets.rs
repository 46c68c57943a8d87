//! Token buckets, one for each client of a limit.
//!
//! The buckets are implemented here, because a request reserves disclosures before it knows whether it needs them, and
//! returns unused ones. The buckets of the `governor` crate cannot take tokens back.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use parking_lot::Mutex;

/// The maximum debt of a bucket of costs, as the time in which the debt is refilled. If a request uses more than the
/// bucket holds, later requests wait at most this long, plus the time for their own cost.
const MAX_DEBT: Duration = Duration::from_secs(300);

/// Token buckets that refill in the same time, one for each client.
#[derive(Clone)]
pub(super) struct TokenBuckets<K> {
    /// The default capacity of a bucket, in tokens. 0 disables the limit for buckets with the default capacity.
    capacity: f64,
    /// The time in which an empty bucket becomes full.
    refill_time: Duration,
    /// Buckets that were used recently. An unused bucket is dropped after the time in which it becomes full again, even
    /// from the maximum debt. With a changing capacity, a bucket is dropped only if there are too many.
    buckets: Cache<K, Arc<Mutex<Tokens>>>,
}

/// The bucket of one client.
pub(super) struct TokenBucket {
    /// `None` if the limit is disabled for this client.
    tokens: Option<Arc<Mutex<Tokens>>>,
    capacity: f64,
    refill_time: Duration,
}

/// The tokens of a bucket.
struct Tokens {
    /// The number of tokens that are missing in the bucket. Because the missing tokens are stored, and not the
    /// available ones, a change of the capacity takes effect at once.
    taken: f64,
    /// Tokens that were taken as a reservation and may be given back.
    reserved: f64,
    refilled_at: Instant,
}

/// The reason why a bucket has too few tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The bucket has enough tokens after this time, if all reservations end unused.
    RefillsIn(Duration),
    /// Reservations hold the missing tokens, and may give them back at any time.
    HeldByReservations,
}

impl Shortage {
    /// The time that a client must wait before a retry if reservations hold the tokens that it needs.
    const RETRY_AFTER_RESERVATIONS: Duration = Duration::from_secs(1);

    /// The time that a client must wait before a retry.
    pub(super) fn retry_after(self) -> Duration {
        match self {
            Self::RefillsIn(time) => time,
            Self::HeldByReservations => Self::RETRY_AFTER_RESERVATIONS,
        }
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> TokenBuckets<K> {
    /// The maximum number of buckets.
    const MAX_CLIENTS: u64 = 100_000;

    /// Each `period` refills `tokens`. A bucket holds the tokens of `periods` periods.
    pub(super) fn new(tokens: u32, period: Duration, periods: u32) -> Self {
        let refill_time = period * periods;
        let buckets = Cache::builder().max_capacity(Self::MAX_CLIENTS).time_to_idle(refill_time + MAX_DEBT).build();
        Self { capacity: f64::from(tokens) * f64::from(periods), refill_time, buckets }
    }

    /// Like [`new`](Self::new), for clients whose capacity can change. A bucket is not dropped when it is idle, because
    /// after a reduction of its capacity it can take longer than any fixed time to refill.
    pub(super) fn with_changing_capacity(tokens: u32, refill_time: Duration) -> Self {
        let buckets = Cache::builder().max_capacity(Self::MAX_CLIENTS).build();
        Self { capacity: f64::from(tokens), refill_time, buckets }
    }

    /// Returns the bucket of a client. The bucket has the default capacity if none is given.
    pub(super) fn bucket(&self, client: K, capacity: Option<u32>) -> TokenBucket {
        let capacity = capacity.map_or(self.capacity, f64::from);
        let full = || Arc::new(Mutex::new(Tokens { taken: 0.0, reserved: 0.0, refilled_at: Instant::now() }));
        let tokens = (capacity > 0.0).then(|| self.buckets.get_with(client, full));
        TokenBucket { tokens, capacity, refill_time: self.refill_time }
    }

    /// Returns true if the client has less than one token.
    pub(super) fn is_used_up(&self, client: &K) -> bool {
        let tokens = self.buckets.get(client);
        let bucket = TokenBucket { tokens, capacity: self.capacity, refill_time: self.refill_time };
        bucket.with_tokens(|tokens| tokens.taken + 1.0 > self.capacity).unwrap_or_default()
    }
}

impl TokenBucket {
    /// Takes tokens, at most as many as the capacity.
    pub(super) fn take(&self, tokens: u32) -> Result<(), Shortage> {
        self.take_and(tokens, |_, _| ())
    }

    /// Takes tokens, at most as many as the capacity. They stay reserved until
    /// [`end_reservation`](Self::end_reservation) gives the unused ones back.
    pub(super) fn reserve(&self, tokens: u32) -> Result<(), Shortage> {
        self.take_and(tokens, |state, tokens| state.reserved += tokens)
    }

    /// Takes tokens, and runs `action` with the number of tokens that were taken.
    fn take_and(&self, tokens: u32, action: impl FnOnce(&mut Tokens, f64)) -> Result<(), Shortage> {
        if tokens == 0 {
            return Ok(());
        }
        let count = f64::from(tokens).min(self.capacity);
        let taken = self.with_tokens(|tokens| {
            let missing = tokens.taken + count - self.capacity;
            if missing > tokens.reserved {
                // Requests in progress may give the reserved tokens back.
                return Err(Shortage::RefillsIn(self.time_to_refill(missing - tokens.reserved)));
            }
            if missing > 0.0 {
                return Err(Shortage::HeldByReservations);
            }
            tokens.taken += count;
            action(tokens, count);
            Ok(())
        });
        taken.unwrap_or(Ok(()))
    }

    /// Gives back the reserved tokens that were not used.
    pub(super) fn end_reservation(&self, reserved: u32, used: u32) {
        let reserved = f64::from(reserved).min(self.capacity);
        if reserved == 0.0 {
            return;
        }
        self.with_tokens(|tokens| {
            tokens.reserved = (tokens.reserved - reserved).max(0.0);
            tokens.taken = (tokens.taken - reserved + f64::from(used)).max(0.0);
        });
    }

    /// Gives the `taken` tokens back and takes the `used` tokens instead. Returns the number of tokens in the bucket,
    /// which is negative for a debt. Returns `None` if the limit is disabled.
    pub(super) fn settle(&self, taken: u32, used: u32) -> Option<i64> {
        self.with_tokens(|tokens| {
            let most = self.capacity * (1.0 + MAX_DEBT.div_duration_f64(self.refill_time));
            tokens.taken = (tokens.taken + f64::from(used) - f64::from(taken)).clamp(0.0, most);
            (self.capacity - tokens.taken).floor() as i64
        })
    }

    /// Returns the time in which the bucket refills this number of tokens.
    pub(super) fn time_to_refill(&self, tokens: f64) -> Duration {
        self.refill_time.mul_f64(tokens / self.capacity)
    }

    pub(super) fn at_most_capacity(&self, tokens: u32) -> u32 {
        if self.tokens.is_none() { tokens } else { tokens.min(self.capacity as u32) }
    }

    /// Refills the bucket, and runs `action` on its tokens while they are locked. Returns `None` if the limit is
    /// disabled.
    fn with_tokens<T>(&self, action: impl FnOnce(&mut Tokens) -> T) -> Option<T> {
        let mut tokens = self.tokens.as_ref()?.lock();
        let now = Instant::now();
        let refilled = now.duration_since(tokens.refilled_at).div_duration_f64(self.refill_time) * self.capacity;
        tokens.taken = (tokens.taken - refilled).max(0.0);
        tokens.refilled_at = now;
        Some(action(&mut tokens))
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
            assert_eq!(buckets.bucket("a", None).take(1), Ok(()));
        }
        let wait = wait_time(buckets.bucket("a", None).take(1));
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert_eq!(buckets.bucket("b", None).take(100), Ok(()));
        assert!(buckets.bucket("b", None).take(1).is_err());
    }

    #[test]
    fn reserved_tokens_are_held_until_the_reservation_ends() {
        let buckets = TokenBuckets::new(2, Duration::from_secs(3600), 1);
        let [a, b, c] = ["a", "b", "c"].map(|client| buckets.bucket(client, Some(2)));
        assert_eq!((a.reserve(1), a.reserve(1)), (Ok(()), Ok(())));
        assert_eq!((a.reserve(1), a.reserve(2)), (HELD, HELD));
        a.end_reservation(1, 0);
        assert_eq!(a.reserve(1), Ok(()));
        // Two disclosures use the budget up.
        a.end_reservation(1, 1);
        assert_eq!(a.reserve(1), HELD);
        a.end_reservation(1, 1);
        let wait = wait_time(a.reserve(1));
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
        // More tokens than the capacity count as the capacity.
        assert_eq!(b.reserve(3), Ok(()));
        assert_eq!(b.reserve(1), HELD);
        b.end_reservation(3, 1);
        assert_eq!((b.reserve(1), b.reserve(1)), (Ok(()), HELD));
        // One token is used and one is reserved. If the reservation ends unused, one more token must refill.
        assert_eq!(c.reserve(1), Ok(()));
        c.end_reservation(1, 1);
        assert_eq!(c.reserve(1), Ok(()));
        let wait = wait_time(c.reserve(2));
        assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
    }

    #[test]
    fn another_capacity_takes_effect_at_once_and_keeps_what_was_taken() {
        let buckets = TokenBuckets::new(2, Duration::from_secs(3600), 1);
        assert_eq!((buckets.bucket("a", Some(2)).reserve(2), buckets.bucket("a", Some(2)).reserve(1)), (Ok(()), HELD));
        assert_eq!(buckets.bucket("a", Some(4)).reserve(2), Ok(()));
        assert_eq!(buckets.bucket("a", Some(4)).reserve(1), HELD);
        buckets.bucket("a", Some(2)).end_reservation(2, 2);
        buckets.bucket("a", Some(4)).end_reservation(2, 2);
        // 4 tokens are missing in a bucket of 2. Three tokens must refill before one is available: an hour and a half
        // at 2 per hour.
        let wait = wait_time(buckets.bucket("a", None).take(1));
        assert!(wait > Duration::from_secs(5300) && wait <= Duration::from_secs(5400), "{wait:?}");
        // A client with its own capacity is limited even if the limit is disabled for all other clients.
        let disabled = TokenBuckets::new(0, Duration::from_secs(3600), 1);
        assert_eq!(disabled.bucket("a", Some(1)).reserve(1), Ok(()));
        assert!(disabled.bucket("a", Some(1)).reserve(1).is_err());
    }

    #[test]
    fn a_bucket_whose_capacity_can_change_is_kept_until_it_is_full() {
        let buckets = TokenBuckets::with_changing_capacity(1000, Duration::from_secs(3600));
        assert_eq!(buckets.bucket("a", Some(1000)).reserve(1000), Ok(()));
        buckets.bucket("a", Some(1000)).end_reservation(1000, 1000);
        let wait = wait_time(buckets.bucket("a", Some(1)).reserve(1));
        assert!(buckets.buckets.policy().time_to_idle().is_none_or(|idle_time| idle_time >= wait));
    }

    #[test]
    fn more_used_tokens_than_reserved_tokens_are_a_debt() {
        let buckets = TokenBuckets::new(1, Duration::from_secs(3600), 1);
        assert_eq!(buckets.bucket("a", Some(1)).reserve(2), Ok(()));
        buckets.bucket("a", Some(1)).end_reservation(2, 2);
        let wait = wait_time(buckets.bucket("a", None).take(1));
        assert!(wait > Duration::from_secs(7100) && wait <= Duration::from_secs(7200), "{wait:?}");
    }

    #[test]
    fn a_disabled_limit_keeps_no_buckets() {
        let buckets = TokenBuckets::new(0, Duration::from_secs(1), 10);
        for _ in 0..1000 {
            assert_eq!(buckets.bucket("a", Some(0)).reserve(1000), Ok(()));
            buckets.bucket("a", Some(0)).end_reservation(1000, 0);
        }
        assert_eq!(buckets.buckets.iter().count(), 0);
    }
}
