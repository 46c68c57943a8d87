//! Deletes rows that have expired.

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::now;
use crate::database::Database;
use crate::error::Error;

/// Deletes the rows of `E` whose time in `expires_at` has passed, and returns their number. Deletes them in batches,
/// because a statement may take at most 5 seconds. `name` is the name of the work in logs and metrics.
pub(super) async fn delete_expired<E: EntityTrait>(
    database: &Database,
    name: &'static str,
    expires_at: E::Column,
) -> Result<u64, Error> {
    const BATCH: u64 = 10_000;
    let time = now();
    let delete = || async {
        let transaction = database.begin_write().await?;
        let expired = E::find().select_only().column(expires_at).filter(expires_at.lte(time));
        let last_of_batch = expired.order_by_asc(expires_at).offset(BATCH - 1).limit(1);
        let end: Option<DateTime<Utc>> = last_of_batch.into_tuple().one(&transaction).await?;
        let is_in_batch = expires_at.lte(end.unwrap_or(time));
        let batch = E::delete_many().filter(is_in_batch).exec(&transaction).await?.rows_affected;
        transaction.commit().await?;
        Ok((batch, end.is_none()))
    };
    let mut deleted = 0;
    loop {
        let (batch, is_last) = database.with_retry(name, delete).await?;
        deleted += batch;
        if is_last {
            return Ok(deleted);
        }
    }
}
