//! Charges the cost of requests to API keys.

use entity::value::ApiKeyId;

use super::token_buckets::{Shortage, TokenBuckets};
use super::{Limit, RateLimits};
use crate::error::Violation;
use crate::service::Caller;

impl RateLimits {
    /// Charges a cost of 1 to the caller's key. Called before the document is read, when only the caller is known.
    pub fn charge(&self, caller: &Caller) -> Result<CostCharge, Violation> {
        let mut charge = CostCharge { costs: self.costs.clone(), key: caller.key(), taken: 0 };
        charge.raise_to(1, true)?;
        Ok(charge)
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
    /// that cost stays charged, because a client without tokens must not get work done for nothing.
    pub fn raise_to(&mut self, cost: u32, gives_back: bool) -> Result<(), Violation> {
        let cost = self.costs.at_most_capacity(cost);
        let message = "This API key has reached its cost limit. Wait before you retry.";
        self.costs.take(self.key, cost.saturating_sub(self.taken)).map_err(|mut shortage| {
            if gives_back {
                self.costs.settle(self.key, self.taken, 0);
            } else if let Shortage::RefillsIn(time) = &mut shortage {
                // The next attempt also needs the tokens that this attempt keeps.
                *time += self.costs.time_to_refill(f64::from(self.taken));
            }
            Limit::Cost.reject(message, shortage.retry_after())
        })?;
        self.taken = self.taken.max(cost);
        Ok(())
    }

    /// Replaces the charged estimate by the cost of the work.
    pub fn settle(self, used: u32) -> Cost {
        Cost { requested: self.taken, used, available: self.costs.settle(self.key, self.taken, used) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rejected_request_costs_nothing_only_if_it_was_cheap() {
        for (gives_back, available, seconds) in [(true, 5, 5 * 360), (false, 4, 6 * 360)] {
            let costs = TokenBuckets::new(10, Duration::from_secs(3600), 1);
            assert_eq!(costs.take(None, 6), Ok(()));
            let mut charge = CostCharge { costs: costs.clone(), key: None, taken: 1 };
            let rejected = charge.raise_to(10, gives_back).expect_err("the bucket has 4 tokens");
            assert_eq!(costs.settle(None, 0, 0), Some(available));
            // After this time, the bucket is full, as the next attempt needs it.
            let wait = rejected.retry_after.map(|wait| wait.as_secs_f64().round());
            assert_eq!(wait, Some(f64::from(seconds)));
        }
    }
}
