//! What carriers said, kept in the database for all replicas, under the number's idempotent hash.

use chrono::TimeDelta;
use entity::phone_lookup::{ActiveModel, CarrierLineType, Column, Entity};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, Set};

use super::super::now;
use crate::database::{Database, TransactionError, with_retry};
use crate::error::Error;

/// A line stays mobile for long; one that is not may become mobile, and its owner wants to be believed.
const MOBILE: TimeDelta = TimeDelta::days(30);
const OTHER: TimeDelta = TimeDelta::hours(24);

pub(super) async fn find(database: &Database, hash: &[u8]) -> Result<Option<CarrierLineType>, Error> {
    let kept = Entity::find_by_id(hash.to_vec()).filter(Column::ExpiresAt.gt(now())).one(database.reader()).await?;
    Ok(kept.map(|row| row.line))
}

pub(super) async fn store(database: &Database, hash: &[u8], line: CarrierLineType) -> Result<(), Error> {
    with_retry("phone_lookup.keep", || try_store(database, hash, line)).await
}

async fn try_store(database: &Database, hash: &[u8], line: CarrierLineType) -> Result<(), TransactionError> {
    let now = now();
    let expires_at = now + if line == CarrierLineType::Mobile { MOBILE } else { OTHER };
    let row = ActiveModel { hash: Set(hash.to_vec()), line: Set(line), expires_at: Set(expires_at) };
    let transaction = database.begin_write().await?;
    // Existing-ups are rare and slow: each may sweep what has expired.
    Entity::delete_many().filter(Column::ExpiresAt.lte(now)).exec(&transaction).await?;
    let newest = OnConflict::column(Column::Hash).update_columns([Column::Line, Column::ExpiresAt]).to_owned();
    Entity::insert(row).on_conflict(newest).exec_without_returning(&transaction).await?;
    transaction.commit().await?;
    Ok(())
}
