//! A fair queue: hands out a fixed number of permits, so that no tenant makes other tenants wait for long.
//!
//! A free permit goes to the waiting tenant that holds the fewest permits. Tenants that hold the same number of permits
//! are served round robin. If a tenant sends a thousand requests at the same time, a request of another tenant
//! therefore waits for one permit to become free, and not for a thousand. If there are several permits, one tenant
//! never holds all of them, so a permit is usually free when a request of another tenant arrives.
//!
//! A tenant has only one long read at a time: several concurrent long reads would use all processors of the database,
//! and delay the short statements of all tenants. Long reads of different tenants may run at the same time, but they
//! take at most half of the permits, so that short statements do not wait for long reads to end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use entity::value::OperatorId;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The party for which a statement or a carrier lookup runs. Tenants share the permits of a [`FairQueue`] equally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tenant {
    Operator(OperatorId),
    Platform,
    /// Batched reads, which serve several tenants.
    BatchedReads,
    /// Deliveries of webhooks. There may be hundreds at the same time.
    Deliveries,
    /// Other work without an authenticated caller: authentication, background jobs and commands.
    #[default]
    Service,
}

/// The use of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub tenant: Tenant,
    /// True if the statement may use a processor of the database for a long time.
    pub is_long_read: bool,
}

impl From<Tenant> for Claim {
    fn from(tenant: Tenant) -> Self {
        Self { tenant, is_long_read: false }
    }
}

/// A queue for permits. Clones share the permits.
#[derive(Clone)]
pub struct FairQueue(Arc<Mutex<State>>);

struct State {
    /// The maximum number of permits that one tenant holds.
    max_per_tenant: usize,
    /// The maximum number of permits for long reads.
    max_long_reads: usize,
    free: usize,
    /// The number of permits that each tenant holds. Tenants without a permit are left out.
    held: HashMap<Tenant, usize>,
    /// The tenants that hold a permit for a long read.
    long_reads: HashSet<Tenant>,
    /// The waiting requests, grouped by claim. A claim joins at the end, and moves to the end when it is served. If a
    /// permit is free, [`may_take`](State::may_take) rejects every claim in this list.
    waiting: Vec<(Claim, VecDeque<oneshot::Sender<Permit>>)>,
}

/// The right to use a connection or to make a carrier lookup. When a permit is dropped, it goes to the next waiting
/// request.
pub struct Permit {
    queue: FairQueue,
    claim: Claim,
}

impl FairQueue {
    /// Creates a queue with `size` permits. A single tenant can hold at most four fifths of the permits, but at least
    /// one.
    pub fn new(size: usize) -> Self {
        Self::with_max_per_tenant(size, (size - size.div_ceil(5)).max(1))
    }

    /// Creates a queue with `size` permits. A single tenant can hold at most `max_per_tenant` permits.
    pub fn with_max_per_tenant(size: usize, max_per_tenant: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            max_per_tenant,
            max_long_reads: size.div_ceil(2),
            free: size,
            held: HashMap::new(),
            long_reads: HashSet::new(),
            waiting: Vec::new(),
        })))
    }

    /// Takes a free permit. If the tenant must wait, returns a place in the queue instead, which receives the permit
    /// later. To stop waiting, drop the place.
    pub fn acquire(&self, claim: Claim) -> Result<Permit, oneshot::Receiver<Permit>> {
        let mut state = self.0.lock();
        if state.free > 0 && state.may_take(claim) {
            state.take(claim);
            return Ok(Permit { queue: self.clone(), claim });
        }
        let (sender, place) = oneshot::channel();
        match state.waiting.iter_mut().find(|(waiting, _)| *waiting == claim) {
            Some((_, senders)) => senders.push_back(sender),
            None => state.waiting.push((claim, VecDeque::from([sender]))),
        }
        Err(place)
    }

    /// Takes a permit, and waits for it if necessary. Returns `None` if the tenant gets no permit within `limit`.
    pub async fn acquire_within(&self, claim: impl Into<Claim>, limit: Duration) -> Option<Permit> {
        match self.acquire(claim.into()) {
            Ok(permit) => Some(permit),
            Err(place) => timeout(limit, place).await.ok()?.ok(),
        }
    }

    /// Returns the number of waiting requests.
    pub fn waiting(&self) -> usize {
        let state = self.0.lock();
        let senders = state.waiting.iter().flat_map(|(_, senders)| senders);
        senders.filter(|sender| !sender.is_closed()).count()
    }
}

impl State {
    fn held(&self, tenant: Tenant) -> usize {
        self.held.get(&tenant).copied().unwrap_or_default()
    }

    /// Returns true if the tenant holds fewer than the maximum number of permits. For a long read, the tenant must also
    /// have no other long read, and all tenants together must hold fewer long reads than the maximum.
    fn may_take(&self, Claim { tenant, is_long_read }: Claim) -> bool {
        let may_read_long = || self.long_reads.len() < self.max_long_reads && !self.long_reads.contains(&tenant);
        self.held(tenant) < self.max_per_tenant && (!is_long_read || may_read_long())
    }

    fn take(&mut self, claim: Claim) {
        self.free -= 1;
        *self.held.entry(claim.tenant).or_default() += 1;
        if claim.is_long_read {
            self.long_reads.insert(claim.tenant);
        }
    }

    fn give_back(&mut self, Claim { tenant, is_long_read }: Claim) {
        self.free += 1;
        match self.held(tenant) {
            0 | 1 => self.held.remove(&tenant),
            held => self.held.insert(tenant, held - 1),
        };
        if is_long_read {
            self.long_reads.remove(&tenant);
        }
    }

    /// Takes a permit for the next waiting request, if there is a free permit and a request that may take it.
    fn next(&mut self) -> Option<(Claim, oneshot::Sender<Permit>)> {
        while self.free > 0 {
            let claims = self.waiting.iter().map(|(claim, _)| *claim).enumerate();
            let claims = claims.filter(|(_, claim)| self.may_take(*claim));
            // If several tenants hold the fewest permits, takes the first of these tenants.
            let (index, _) = claims.min_by_key(|(_, claim)| self.held(claim.tenant))?;
            let (claim, mut senders) = self.waiting.remove(index);
            // Skips requests that have stopped waiting.
            let next = std::iter::from_fn(|| senders.pop_front()).find(|sender| !sender.is_closed());
            if !senders.is_empty() {
                self.waiting.push((claim, senders));
            }
            if let Some(sender) = next {
                self.take(claim);
                return Some((claim, sender));
            }
        }
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Two requests can get a permit: if permits were free before, another request of this tenant may have waited
        // for one of the tenant's own permits, and another tenant may have waited for the end of a long read.
        let served: Vec<_> = {
            let mut state = self.queue.0.lock();
            state.give_back(self.claim);
            std::iter::from_fn(|| state.next()).collect()
        };
        for (claim, sender) in served {
            // If the request has just stopped waiting, the permit is dropped here, which serves the next request.
            drop(sender.send(Self { queue: self.queue.clone(), claim }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(number: u128) -> Tenant {
        Tenant::Operator(uuid::Uuid::from_u128(number).into())
    }

    /// Takes a permit that must be free.
    fn take(queue: &FairQueue, claim: impl Into<Claim>) -> Permit {
        queue.acquire(claim.into()).ok().expect("a free permit")
    }

    /// Takes a place in the queue, because no permit is free for the tenant.
    fn wait(queue: &FairQueue, claim: impl Into<Claim>) -> oneshot::Receiver<Permit> {
        queue.acquire(claim.into()).err().expect("no free permit")
    }

    #[test]
    fn a_tenant_with_many_requests_delays_another_by_one_permit() {
        let queue = FairQueue::new(5);
        let (a, b) = (operator(1), operator(2));
        let mut of_a: Vec<_> = (0..4).map(|_| take(&queue, a)).collect();
        let mut waiting_a: Vec<_> = (0..100).map(|_| wait(&queue, a)).collect();
        // `a` cannot take the fifth permit.
        let of_b = take(&queue, b);
        let mut waiting_b = wait(&queue, b);
        assert_eq!(queue.waiting(), 101);
        // `b` holds fewer permits than `a`, so `b` gets the next permit.
        of_a.pop();
        let second_of_b = waiting_b.try_recv().unwrap();
        assert!(waiting_a[0].try_recv().is_err());
        of_a.pop();
        of_a.push(waiting_a[0].try_recv().unwrap());
        assert!(waiting_a[1].try_recv().is_err());
        drop((of_b, second_of_b));
        assert!(waiting_a[1].try_recv().is_ok() && waiting_a[2].try_recv().is_ok());
    }

    #[test]
    fn long_reads_of_a_tenant_run_one_at_a_time() {
        let queue = FairQueue::new(5);
        let a = operator(1);
        let long_read = |tenant| Claim { tenant, is_long_read: true };
        let first = take(&queue, long_read(a));
        let mut second = wait(&queue, long_read(a));
        // Other statements of the tenant, and long reads of other tenants, do not wait.
        let _others = [take(&queue, a), take(&queue, a), take(&queue, long_read(operator(2)))];
        assert!(second.try_recv().is_err());
        drop(first);
        let second = second.try_recv().unwrap();
        // A long read counts as one of the four permits of the tenant.
        let fourth = take(&queue, a);
        let mut fifth = wait(&queue, a);
        drop(second);
        assert!(fifth.try_recv().is_ok());
        drop(fourth);
        take(&queue, long_read(a));
    }

    #[test]
    fn long_reads_of_all_tenants_take_at_most_half_of_the_permits() {
        let queue = FairQueue::with_max_per_tenant(10, 2);
        let long_read = |number| Claim { tenant: operator(number), is_long_read: true };
        let mut running: Vec<_> = (0..5).map(|number| take(&queue, long_read(number))).collect();
        let mut sixth = wait(&queue, long_read(5));
        let (_other, mut third) = (take(&queue, operator(0)), wait(&queue, operator(0)));
        assert!(sixth.try_recv().is_err());
        // The end of the long read lets two requests continue: one of the same tenant, and the sixth long read.
        running.remove(0);
        let received = (sixth.try_recv(), third.try_recv());
        assert!(received.0.is_ok() && received.1.is_ok());
        let limits = [1, 2, 4, 5, 10].map(|size| FairQueue::new(size).0.lock().max_long_reads);
        assert_eq!(limits, [1, 1, 2, 3, 5]);
    }

    #[test]
    fn tenants_that_hold_equally_many_take_turns() {
        let queue = FairQueue::new(1);
        let (a, b, c) = (operator(1), operator(2), operator(3));
        let mut permit = take(&queue, a);
        let mut waiting: Vec<_> = [a, a, b, c, a, b].map(|tenant| wait(&queue, tenant)).into();
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(permit);
            let (index, next) = (0..waiting.len()).find_map(|n| Some((n, waiting[n].try_recv().ok()?))).unwrap();
            waiting.remove(index);
            served.push(next.claim.tenant);
            permit = next;
        }
        assert_eq!(served, [a, b, c, a, b, a]);
        drop(permit);
        assert!(queue.0.lock().held.is_empty() && queue.0.lock().free == 1);
    }

    #[test]
    fn a_request_that_gives_up_loses_no_permit() {
        let queue = FairQueue::new(1);
        let a = operator(1);
        let permit = take(&queue, a);
        let (given_up, mut second, third) = (wait(&queue, a), wait(&queue, a), wait(&queue, a));
        drop(given_up);
        drop(permit);
        // The permit has already been sent to `third` when `third` gives up.
        drop(second.try_recv().unwrap());
        drop(third);
        assert_eq!(queue.waiting(), 0);
        drop(take(&queue, a));
    }

    #[test]
    fn one_permit_is_for_every_tenant() {
        let limits = [1, 2, 4, 5, 10].map(|size| FairQueue::new(size).0.lock().max_per_tenant);
        assert_eq!(limits, [1, 1, 3, 4, 8]);
    }
}
