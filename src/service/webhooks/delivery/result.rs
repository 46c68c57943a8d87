//! Stores the results of attempts: moves the cursor, begins a backoff or disables the endpoint.

use chrono::TimeDelta;
use entity::webhook::{ActiveModel, Entity, Failure, Model};
use rand::RngExt;
use sea_orm::sea_query::LockType;
use sea_orm::{ActiveModelTrait, EntityTrait, QuerySelect, Set, Unchanged};

use super::Deliveries;
use super::outcome::DisableReason;
use super::page::NextPage;
use crate::error::Error;

/// The result of a failed attempt.
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// True if the endpoint asks for no further deliveries, with status 410.
    pub(super) is_gone: bool,
    /// The backoff that the endpoint asks for.
    pub(super) retry_after: Option<TimeDelta>,
}

/// If all attempts fail for this time, the endpoint is disabled.
const MAX_FAILING: TimeDelta = TimeDelta::days(5);
/// The smallest number of failures in a row after which the endpoint is disabled. [`MAX_FAILING`] has far more, unless
/// the service did not run for a part of this time.
const MIN_FAILED_ATTEMPTS: i32 = 10;
/// The backoffs after the first, the second, … failure in a row. The last one repeats.
const BACKOFFS: [TimeDelta; 9] = [
    TimeDelta::seconds(5),
    TimeDelta::seconds(15),
    TimeDelta::minutes(1),
    TimeDelta::minutes(5),
    TimeDelta::minutes(15),
    TimeDelta::minutes(30),
    TimeDelta::hours(1),
    TimeDelta::hours(2),
    MAX_BACKOFF,
];
const MIN_BACKOFF: TimeDelta = TimeDelta::seconds(5);
const MAX_BACKOFF: TimeDelta = TimeDelta::hours(4);

impl Deliveries {
    /// Moves the cursor of an endpoint to the end of a page that was delivered or has no changes to deliver.
    pub(super) async fn move_cursor(
        &self,
        endpoint: &Model,
        page: &NextPage,
        columns: ActiveModel,
    ) -> Result<Option<Model>, Error> {
        let moved = ActiveModel {
            delivered_position: Set(page.end.number),
            delivered_id: Set(page.end.id),
            sending_position: Set(None),
            sending_id: Set(None),
            failed_attempts: Set(0),
            failing_since: Set(None),
            last_failure: Set(None),
            next_attempt_at: Set(self.now()),
            lease_until: Set(page.has_more.then(|| self.new_lease())),
            ..columns
        };
        Ok(self.store_if_same_attempt(endpoint, moved).await?.filter(|_| page.has_more))
    }

    /// Records a failed attempt: sets the time of the next attempt, or disables the endpoint. Also writes `columns` to
    /// its row.
    pub(super) async fn fail(&self, endpoint: &Model, failed: Failed, columns: ActiveModel) -> Result<(), Error> {
        let Failed { failure, is_gone, retry_after } = failed;
        let now = self.now();
        let failing_since = endpoint.failing_since.unwrap_or(now);
        let (end, failed_attempts) = (failing_since + MAX_FAILING, endpoint.failed_attempts + 1);
        let has_failed_too_long = now >= end;
        let next_attempt_at = now + backoff(failed_attempts, retry_after);
        let columns = ActiveModel {
            failed_attempts: Set(failed_attempts),
            failing_since: Set(Some(failing_since)),
            last_failure: Set(Some(failure)),
            next_attempt_at: Set(if has_failed_too_long { next_attempt_at } else { next_attempt_at.min(end) }),
            lease_until: Set(None),
            ..columns
        };
        if is_gone || (has_failed_too_long && failed_attempts >= MIN_FAILED_ATTEMPTS) {
            let reason = if is_gone { DisableReason::Gone } else { DisableReason::Failing };
            self.disable(endpoint, columns, reason).await
        } else {
            self.store_if_same_attempt(endpoint, columns).await.map(|_| ())
        }
    }

    /// Disables an endpoint until a request enables it. Also writes `columns` to its row.
    pub(super) async fn disable(
        &self,
        endpoint: &Model,
        columns: ActiveModel,
        reason: DisableReason,
    ) -> Result<(), Error> {
        let disabled = ActiveModel { disabled_at: Set(Some(self.now())), lease_until: Set(None), ..columns };
        if self.store_if_same_attempt(endpoint, disabled).await?.is_some() {
            // The URL may contain a secret, so it is not logged.
            let (operator, name) = (endpoint.operator_id, reason.name());
            tracing::warn!(webhook = %endpoint.id, %operator, reason = name, "webhook endpoint disabled");
            reason.counter().increment(1);
        }
        Ok(())
    }

    /// Writes `columns` to the row of an endpoint, and returns the new row. Returns `None` if the endpoint was deleted,
    /// if another process has the lease, or if something that the attempt depends on has changed after the process read
    /// `endpoint`. In the last case, the lease of this process ends. In the other cases, nothing is written.
    pub(super) async fn store_if_same_attempt(
        &self,
        endpoint: &Model,
        columns: ActiveModel,
    ) -> Result<Option<Model>, Error> {
        let store = || async {
            let transaction = self.database.begin_write().await?;
            let current = Entity::find_by_id(endpoint.id).lock(LockType::NoKeyUpdate).one(&transaction).await?;
            // If the lease has changed, another process has the endpoint.
            let Some(current) = current.filter(|current| current.lease_until == endpoint.lease_until) else {
                return Ok(None);
            };
            let is_same = is_same_attempt(&current, endpoint);
            let columns =
                if is_same { columns.clone() } else { ActiveModel { lease_until: Set(None), ..no_columns() } };
            let updated = ActiveModel { id: Unchanged(endpoint.id), ..columns }.update(&transaction).await?;
            transaction.commit().await?;
            Ok(Some(updated).filter(|_| is_same))
        };
        self.database.with_retry("webhook.save_attempt", store).await
    }
}

/// Returns an update of a row that writes no column.
pub(super) fn no_columns() -> ActiveModel {
    <ActiveModel as Default>::default()
}

/// Returns true if two rows of an endpoint are equal in everything that must not change during an attempt. A new secret
/// or the start of a suspension leaves the rows equal. The end of a suspension moves the `failing_since` of a failing
/// endpoint, so the rows then differ.
fn is_same_attempt(one: &Model, other: &Model) -> bool {
    // Lists all columns: the result of an attempt must not be stored after a change of a column that this function
    // misses.
    let Model {
        id: _,
        operator_id: _,
        url,
        types,
        secret_version: _,
        secret_created_at: _,
        previous_secret_until: _,
        delivered_position,
        delivered_id,
        sending_position,
        sending_id,
        failed_attempts: _,
        failing_since,
        next_attempt_at: _,
        lease_until: _,
        last_attempt_at: _,
        last_status: _,
        last_failure: _,
        disabled_at,
        paused_at: _,
        created_at: _,
    } = one;
    *url == other.url
        && *types == other.types
        && (*delivered_position, *delivered_id) == (other.delivered_position, other.delivered_id)
        && (*sending_position, *sending_id) == (other.sending_position, other.sending_id)
        && *failing_since == other.failing_since
        && *disabled_at == other.disabled_at
}

/// Returns the backoff after a failed attempt. An endpoint may ask for another backoff within bounds.
fn backoff(failed_attempts: i32, retry_after: Option<TimeDelta>) -> TimeDelta {
    let index = usize::try_from(failed_attempts - 1).unwrap_or_default().min(BACKOFFS.len() - 1);
    let backoff = retry_after.map_or(BACKOFFS[index], |asked| asked.clamp(MIN_BACKOFF, MAX_BACKOFF));
    // Jitter: endpoints that failed at the same time must not be tried again at the same time.
    backoff * rand::rng().random_range(1000..1200) / 1000
}
