//! Exactly once: what became of a request is kept with its work, in one transaction, under the key that the caller gave
//! it; sent again, the request gets the same answer and does nothing.

use chrono::TimeDelta;
use entity::idempotency_key::{ActiveModel, Column, Entity, Model};
use entity::value::{IdempotencyKey, OperatorId};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, ModelTrait, QueryFilter, Set, Unchanged,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::now;
use crate::database::{Aborted, Database};
use crate::error::{Error, ErrorCode, Violation};
use crate::keyed_hash::KeyedHash;

/// How long a key is kept.
const LIFE: TimeDelta = TimeDelta::hours(24);

/// A request that carries a key.
#[derive(Clone, Debug)]
pub struct Keyed {
    operator: OperatorId,
    key_hash: Vec<u8>,
    input_hash: Vec<u8>,
}

impl Keyed {
    /// `input` is what the request asks for, in canonical form: the same for two requests exactly if they ask for the same.
    pub fn new(hash: &KeyedHash, operator: OperatorId, key: &IdempotencyKey, input: &str) -> Self {
        Self {
            operator,
            key_hash: hash.of("idempotency key", &[key.as_str().as_bytes()]),
            input_hash: hash.of("idempotency input", &[input.as_bytes()]),
        }
    }

    /// What became of this request before; `None`: it is new, and its key is taken until the transaction ends. Of two at
    /// once, the second waits here for the first.
    pub async fn begin<R: DeserializeOwned>(&self, transaction: &DatabaseTransaction) -> Result<Option<R>, Aborted> {
        loop {
            if self.take(transaction).await? {
                return Ok(None);
            }
            let id = (self.operator, self.key_hash.clone());
            // It may have been swept in between.
            let Some(kept) = Entity::find_by_id(id).one(transaction).await? else { continue };
            if kept.expires_at <= now() {
                kept.delete(transaction).await?;
                continue;
            }
            return self.result_of(kept).map(Some).map_err(Aborted::Error);
        }
    }

    /// Keeps what became of the request.
    pub async fn end(&self, transaction: &DatabaseTransaction, result: &impl Serialize) -> Result<(), DbErr> {
        let row = ActiveModel {
            operator_id: Unchanged(self.operator),
            key_hash: Unchanged(self.key_hash.clone()),
            result: Set(Some(serde_json::json!(result))),
            ..Default::default()
        };
        row.update(transaction).await?;
        Ok(())
    }

    async fn take(&self, transaction: &DatabaseTransaction) -> Result<bool, DbErr> {
        let row = ActiveModel {
            operator_id: Set(self.operator),
            key_hash: Set(self.key_hash.clone()),
            input_hash: Set(self.input_hash.clone()),
            result: Set(None),
            expires_at: Set(now() + LIFE),
        };
        let unless_taken = OnConflict::columns([Column::OperatorId, Column::KeyHash]).do_nothing().to_owned();
        let taken = Entity::insert(row).on_conflict(unless_taken).exec_without_returning(transaction).await?;
        Ok(taken == 1)
    }

    fn result_of<R: DeserializeOwned>(&self, kept: Model) -> Result<R, Error> {
        if kept.input_hash != self.input_hash {
            return Err(Violation::new(ErrorCode::IdempotencyKeyReused, &["input", "idempotencyKey"]).into());
        }
        let unreadable = || Error::Failed { code: ErrorCode::Internal, cause: "a kept result cannot be read".into() };
        serde_json::from_value(kept.result.ok_or_else(unreadable)?).map_err(|_| unreadable())
    }
}

/// Forgets the keys whose time is over, so that the table does not grow for ever.
pub async fn sweep(database: &Database) -> Result<u64, Error> {
    let transaction = database.begin_write().await?;
    let swept = Entity::delete_many().filter(Column::ExpiresAt.lte(now())).exec(&transaction).await?;
    transaction.commit().await?;
    Ok(swept.rows_affected)
}
