//! Reserves, uses and returns the disclosures of an operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use metrics::Counter;
use sea_orm::EnumIter;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::field::display;

use super::token_buckets::{Shortage, TokenBucket};
use super::{Limit, RateLimits};
use crate::error::Violation;
use crate::service::{Caller, Origin};

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
    /// Reserves the disclosure of up to `values` emails or phones. Must be called before the lookup, so that a
    /// rejection reveals nothing. If other requests have reserved the missing disclosures, waits for a moment, because
    /// most reservations end unused. Reserves nothing for the platform, which sees all customers.
    pub async fn reserve_disclosures(
        &self,
        origin: &Origin,
        values: u32,
    ) -> Result<DisclosureReservation, RejectedReservation> {
        let result = match self.try_reserve(origin, values) {
            Err(Shortage::HeldByReservations) => self.wait_for_disclosures(origin, values).await,
            result => result,
        };
        result.map_err(|shortage| RejectedReservation { origin: origin.clone(), shortage })
    }

    /// Reserves disclosures as soon as other requests give enough of them back.
    async fn wait_for_disclosures(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Shortage> {
        let reserve = async {
            loop {
                // Registered before the attempt, so that no reservation ends unnoticed between the two.
                let ended = self.reservation_ended.notified();
                match self.try_reserve(origin, values) {
                    Err(Shortage::HeldByReservations) => ended.await,
                    result => return result,
                }
            }
        };
        timeout(self.max_reservation_wait, reserve).await.unwrap_or(Err(Shortage::HeldByReservations))
    }

    /// Reserves `values` disclosures, at most the operator's budget, from the operator's bucket. Reserves none for the
    /// platform.
    fn try_reserve(&self, origin: &Origin, values: u32) -> Result<DisclosureReservation, Shortage> {
        let (values, budget) = match *origin.caller() {
            Caller::Operator { disclosures_per_hour, .. } => (values, disclosures_per_hour),
            Caller::Platform => (0, None),
        };
        let bucket = self.disclosures.bucket(origin.owner(), budget.map(i32::unsigned_abs));
        bucket.reserve(values)?;
        Ok(DisclosureReservation {
            origin: origin.clone(),
            bucket,
            ended: self.reservation_ended.clone(),
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
        Limit::Disclosures.reject(message, self.shortage.retry_after())
    }
}

/// A reservation of disclosures. Gives the unused disclosures back when the reservation is dropped. If the reservation
/// is dropped before the request has an outcome, because the request panicked or took too long, the recorded matches
/// count as disclosed by a [`RejectedCreate`](DisclosureKind::RejectedCreate): the error does not contain them, but its
/// time may reveal them. Only creates record matches before they have an outcome.
pub struct DisclosureReservation {
    origin: Origin,
    /// The bucket of the operator.
    bucket: TokenBucket,
    /// Notified when this reservation ends.
    ended: Arc<Notify>,
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
        self.bucket.end_reservation(self.reserved, self.used);
        if self.reserved > 0 {
            self.ended.notify_waiters();
        }
    }
}
