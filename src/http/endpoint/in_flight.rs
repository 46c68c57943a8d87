//! Limits the number of requests that each API key has in flight, and holds the memory for the large responses of each
//! operator.
//!
//! A request that exceeds the limit waits before its body is read, so it holds little memory and no database
//! connection. Here, only requests of the same key wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::value::{ApiKeyId, OperatorId};
use metrics::Gauge;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{ErrorCode, Violation};
use crate::request::{OwnerMemory, ProcessMemory, ResponseSize};
use crate::service::Caller;
use crate::service::limits::Limit;

/// The maximum number of requests of one key that are in flight at the same time. The limit does not reduce throughput:
/// 256 clients of one key reach as many requests per second as without the limit.
const MAX_IN_FLIGHT: usize = 64;

/// The maximum number of requests of one operator that wait, for all its keys together: half of the HTTP connections
/// that a process accepts.
const MAX_WAITING: usize = 2048;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The requests in flight of each key, and the memory for large responses.
pub struct InFlight {
    /// The keys that were used recently. `None` is the platform key.
    keys: Cache<Option<ApiKeyId>, Arc<ApiKeyState>>,
    waiting: Gauge,
    /// The state of each operator, and of the platform.
    owners: Cache<OperatorId, Arc<OwnerState>>,
    memory: ProcessMemory,
}

/// The state of a key in this process.
struct ApiKeyState {
    /// Has a permit for each further request that may be in flight.
    slots: Arc<Semaphore>,
    owner: Arc<OwnerState>,
}

/// The state of an operator, or of the platform, in this process.
#[derive(Default)]
struct OwnerState {
    /// The number of requests that wait for a slot of one of the keys.
    waiting: AtomicUsize,
    memory: OwnerMemory,
}

/// A slot of a key. The request that holds it is in flight until this value is dropped.
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    pub response_size: Arc<ResponseSize>,
}

impl Default for InFlight {
    fn default() -> Self {
        const MAX_KEYS: u64 = 100_000;
        /// Longer than the longest request, so that a key is not removed from the cache while it has requests in
        /// flight. A mutation of the platform may take five minutes.
        const MAX_IDLE: Duration = Duration::from_secs(600);
        let keys = Cache::builder().max_capacity(MAX_KEYS).time_to_idle(MAX_IDLE).build();
        // An entry does not expire when it is idle. `owners` is read only when a key is new in `keys`, and all keys of
        // an operator must share one state.
        let owners = Cache::new(MAX_KEYS);
        let waiting = metrics::gauge!("vivamo_requests_waiting");
        Self { keys, waiting, owners, memory: ProcessMemory::default() }
    }
}

impl InFlight {
    /// Waits until the caller's key may have one more request in flight. Fails with `RATE_LIMITED` if too many requests
    /// wait, and with `UNAVAILABLE` after `max_wait`.
    pub async fn enter(&self, caller: &Caller, max_wait: Duration) -> Result<Slot, Violation> {
        let new_state = || ApiKeyState::new(self.owners.get_with(caller.owner(), Arc::default));
        let key = self.keys.get_with(caller.key(), || Arc::new(new_state()));
        let slot = |permit| {
            let response_size = Arc::new(ResponseSize::new(self.memory.clone(), key.owner.memory.clone()));
            Slot { _permit: permit, response_size }
        };
        if let Ok(permit) = key.slots.clone().try_acquire_owned() {
            return Ok(slot(permit));
        }
        let _waiting = Waiting::join(&key.owner.waiting, &self.waiting)?;
        match timeout(max_wait, key.slots.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(slot(permit)),
            Ok(Err(_)) | Err(_) => {
                let message = format!(
                    "This API key has {MAX_IN_FLIGHT} requests in flight, and this request has waited for {} seconds. It \
                     was not executed. Send fewer requests at the same time.",
                    max_wait.as_secs()
                );
                let violation = Violation::new(ErrorCode::Unavailable).with_message(message);
                Err(violation.with_retry_after(Some(RETRY_AFTER)))
            }
        }
    }
}

impl ApiKeyState {
    fn new(owner: Arc<OwnerState>) -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)), owner }
    }
}

/// A waiting request. The request is no longer counted when this value is dropped.
struct Waiting<'a> {
    of_owner: &'a AtomicUsize,
    of_process: &'a Gauge,
}

impl<'a> Waiting<'a> {
    fn join(of_owner: &'a AtomicUsize, of_process: &'a Gauge) -> Result<Self, Violation> {
        of_process.increment(1);
        // If too many requests wait, this value is dropped, which removes the request from both counts.
        let waiting = Self { of_owner, of_process };
        if of_owner.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            return Ok(waiting);
        }
        let message = format!(
            "This API key has {MAX_IN_FLIGHT} requests in flight, and {MAX_WAITING} requests of all your keys are waiting. \
             Send fewer requests at the same time."
        );
        Err(Limit::InFlight.reject(message, RETRY_AFTER))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of_owner.fetch_sub(1, Ordering::Relaxed);
        self.of_process.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use entity::api_key::Access;
    use entity::value::OperatorId;
    use futures::future::join_all;
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_key_waits_for_its_own_requests_only() {
        let in_flight = InFlight::default();
        let key =
            |id| Caller::Operator { id, key: ApiKeyId::new(), access: Access::ReadOnly, disclosures_per_hour: None };
        let operator = OperatorId::new();
        let (busy, second, other) = (key(operator), key(operator), key(OperatorId::new()));
        let enter = |caller| in_flight.enter(caller, Duration::from_secs(60));
        let mut slots = Vec::new();
        for _ in 0..MAX_IN_FLIGHT {
            slots.push(enter(&busy).await.unwrap());
        }
        let second_slots = join_all((0..MAX_IN_FLIGHT).map(|_| enter(&second))).await;
        assert!(second_slots.iter().all(Result::is_ok));
        // The keys of an operator share the number of waiting requests.
        let keys = [&busy, &second].into_iter().cycle();
        let mut waiting: Vec<_> = keys.take(MAX_WAITING).map(|key| Box::pin(enter(key))).collect();
        for request in &mut waiting {
            assert!(poll!(request).is_pending());
        }
        for key in [&busy, &second] {
            let rejected = enter(key).await.err().unwrap();
            assert_eq!((rejected.code, rejected.retry_after), (ErrorCode::RateLimited, Some(RETRY_AFTER)));
        }
        assert!(pin!(enter(&other)).await.is_ok());
        // A request that stops waiting makes room for another request.
        waiting.pop();
        let mut last = Box::pin(enter(&busy));
        assert!(poll!(&mut last).is_pending());
        slots.pop();
        assert!(waiting.remove(0).await.is_ok());
    }
}
