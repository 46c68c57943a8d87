//! Charges the cost of requests to API keys.

use std::sync::Arc;

use super::token_buckets::{Shortage, TokenBucket};
use super::{Limit, RateLimits};
use crate::error::Violation;
use crate::request::WorkCounter;
use crate::service::{Caller, cost};

impl RateLimits {
    /// Charges a cost of 1 to the caller's key. Called before the document is read, when only the caller is known.
    /// `work` counts the work of the request.
    pub fn charge(&self, caller: &Caller, work: Arc<WorkCounter>) -> Result<CostCharge, Violation> {
        let bucket = self.costs.bucket(caller.key(), None);
        let mut charge = CostCharge { bucket, work, taken: 0, is_settled: false };
        charge.raise_to(1, true)?;
        Ok(charge)
    }
}

/// The cost that a request has been charged until now. If this value is dropped before [`settle`](Self::settle), for
/// example because the execution took too long, the cost stays charged, or the cost of the work if that is more.
pub struct CostCharge {
    /// The bucket of the caller's key. Found once, because the lookup costs more than the other steps of a charge. The
    /// bucket of a key with a request in progress is not dropped: a request ends before a bucket has been idle for as
    /// long as a bucket is kept.
    bucket: TokenBucket,
    work: Arc<WorkCounter>,
    taken: u32,
    is_settled: bool,
}

/// The cost of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// The estimate that was charged before the execution.
    pub requested: u32,
    /// The cost of the work.
    pub used: u32,
    /// The cost that the key can spend now. Negative if the key has used more than its budget. `None` if there is no
    /// limit.
    pub available: Option<i64>,
}

impl CostCharge {
    /// Raises the charge to this cost, or to the capacity of the bucket if this cost is larger. If the bucket has too
    /// few tokens now, the request is rejected.
    ///
    /// If `gives_back` is true, because the request has caused hardly any work, the cost that was already taken is then
    /// given back. A client that retries too early therefore does not use up the tokens that it waits for. Otherwise
    /// the cost of the work until now stays charged, because a client without tokens must not get work done for
    /// nothing.
    pub fn raise_to(&mut self, cost: u32, gives_back: bool) -> Result<(), Violation> {
        let cost = self.bucket.at_most_capacity(cost);
        let message = "This API key has reached its cost limit. Wait before you retry.";
        if let Err(mut shortage) = self.bucket.take(cost.saturating_sub(self.taken)) {
            let used = if gives_back { 0 } else { self.taken.max(self.cost_of_work()) };
            self.replace(used);
            if let Shortage::RefillsIn(time) = &mut shortage {
                // The next attempt also needs the tokens that this attempt keeps.
                *time += self.bucket.time_to_refill(f64::from(used));
            }
            return Err(Limit::Cost.reject(message, shortage.retry_after()));
        }
        self.taken = self.taken.max(cost);
        Ok(())
    }

    /// Replaces the charged estimate by the cost of the request.
    pub fn settle(mut self, used: u32) -> Cost {
        Cost { requested: self.taken, used, available: self.replace(used) }
    }

    /// Replaces the cost that was charged, for the last time. Returns the cost that the key can spend now.
    fn replace(&mut self, used: u32) -> Option<i64> {
        self.is_settled = true;
        self.bucket.settle(self.taken, used)
    }

    /// The cost of the work until now.
    fn cost_of_work(&self) -> u32 {
        cost::cost_of_request(&self.work, 0, 0)
    }
}

impl Drop for CostCharge {
    fn drop(&mut self) {
        if !self.is_settled {
            self.replace(self.taken.max(self.cost_of_work()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::token_buckets::TokenBuckets;
    use super::*;
    use crate::request::Work;

    /// Charges a cost of 1 to a bucket of 10 tokens that had 5 tokens.
    fn charge(costs: &TokenBuckets<()>) -> CostCharge {
        let bucket = costs.bucket((), None);
        assert_eq!(bucket.take(6), Ok(()));
        CostCharge { bucket, work: Arc::default(), taken: 1, is_settled: false }
    }

    fn buckets() -> TokenBuckets<()> {
        TokenBuckets::new(10, Duration::from_secs(3600), 1)
    }

    fn available(costs: &TokenBuckets<()>) -> Option<i64> {
        costs.bucket((), None).settle(0, 0)
    }

    #[test]
    fn a_request_that_is_cut_off_pays_for_its_work() {
        for (checks, expected) in [(0, 4), (100, 3), (200, 1), (10_000, -1)] {
            let costs = buckets();
            let charge = charge(&costs);
            charge.work.count(Work::Check, checks);
            drop(charge);
            assert_eq!(available(&costs), Some(expected));
        }
    }

    #[test]
    fn a_rejected_request_costs_nothing_only_if_it_was_cheap() {
        for (gives_back, parameters, expected, seconds) in
            [(true, 0, 5, 5 * 360), (false, 0, 4, 6 * 360), (false, 3, 1, 9 * 360)]
        {
            let costs = buckets();
            let mut charge = charge(&costs);
            charge.work.count(Work::Parameters, parameters);
            let rejected = charge.raise_to(10, gives_back).expect_err("the bucket has 4 tokens");
            drop(charge);
            assert_eq!(available(&costs), Some(expected));
            // After this time, the bucket is full, as the next attempt needs it.
            let wait = rejected.retry_after.map(|wait| wait.as_secs_f64().round());
            assert_eq!(wait, Some(f64::from(seconds)));
        }
    }
}
