//! The cache of carrier answers in the database, shared by all replicas. Numbers are stored as keyed hashes.

use chrono::TimeDelta;
use entity::phone_lookup::{ActiveModel, CarrierLineType, Column, Entity};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Set};

use super::super::now;
use crate::database::{Database, with_retry};
use crate::error::Error;

const MOBILE_TTL: TimeDelta = TimeDelta::days(30);
/// Shorter: a number that is not mobile, or unknown, may become mobile, and its owner then wants to use it.
const OTHER_TTL: TimeDelta = TimeDelta::hours(24);

/// Returns the cached answer for a number, unless it has expired.
pub(super) async fn find(database: &Database, hash: &[u8]) -> Result<Option<CarrierLineType>, Error> {
    let row = Entity::find_by_id(hash.to_vec()).filter(Column::ExpiresAt.gt(now())).one(database.reader()).await?;
    Ok(row.map(|row| row.line))
}

/// Stores an answer, replacing an earlier one.
pub(super) async fn store(database: &Database, hash: &[u8], line: CarrierLineType) -> Result<(), Error> {
    let store = || async {
        let now = now();
        let expires_at = now + if line == CarrierLineType::Mobile { MOBILE_TTL } else { OTHER_TTL };
        let row = ActiveModel { hash: Set(hash.to_vec()), line: Set(line), expires_at: Set(expires_at) };
        let transaction = database.begin_write().await?;
        // Carrier lookups are rare and slow, so each of them can afford to delete the expired rows.
        Entity::delete_many().filter(Column::ExpiresAt.lte(now)).exec(&transaction).await?;
        let replace = OnConflict::column(Column::Hash).update_columns([Column::Line, Column::ExpiresAt]).to_owned();
        Entity::insert(row).on_conflict(replace).exec_without_returning(&transaction).await?;
        transaction.commit().await?;
        Ok(())
    };
    with_retry("phone_lookup.store", store).await
}
