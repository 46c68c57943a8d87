//! Idempotency keys: a request that is sent again with the same key returns the first outcome and changes nothing.
//!
//! The outcome is written in the same transaction as the work. Its row has the operator and the keyed hash of the key as
//! primary key, and a keyed hash of the input. The row holds ids and codes, no personal data. The protocol is optimistic:
//!
//! 1. Do the work, and insert the outcome with it. New requests, which are the majority, therefore need no lookup of
//!    the key.
//! 2. If the key is in use, the insert conflicts and nothing is written. If two requests with the same key run at the same
//!    time, the insert of the second waits for the first to commit. A repeated create usually fails before its insert,
//!    because the customer that the first request created has the email.
//! 3. If the attempt did not succeed, for whatever reason, look up the key. If the key has a stored outcome, return
//!    this outcome for the same input, and fail with `IDEMPOTENCY_KEY_REUSED` for another input.
//!
//! A refused request stores nothing, so its key can be used again.

use chrono::TimeDelta;
use entity::idempotency_key::{Column, Entity, Model};
use entity::value::{IdempotencyKey, OperatorId};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IdenStatic, Iterable, QueryFilter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::now;
use crate::database::{Database, TransactionError, WriteSet, WriteStatement, insert_from_select, row_values};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::KeyedHash;

/// The time for which an outcome is stored.
const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// An extra column of the rows to insert: the time of the request. A stored key that has expired at this time is
/// replaced.
const NOW: &str = "now";

/// Inserts outcomes, or replaces expired ones. A key that is in use aborts the writes of its request.
const STORE: WriteStatement = WriteStatement {
    name: "store outcomes",
    columns: || Column::iter().map(|column| column.as_str()).chain([NOW]).collect(),
    statement: |new| {
        let rows =
            Query::select().exprs(Column::iter().map(Expr::col)).from(new.clone()).and_where(Expr::cust("TRUE")).take();
        let earliest = Query::select().expr(Expr::col(Alias::new(NOW)).min()).from(new.clone()).take();
        let replace_expired = OnConflict::columns([Column::OperatorId, Column::KeyHash])
            .update_columns([Column::InputHash, Column::Result, Column::ExpiresAt])
            .action_and_where(Column::ExpiresAt.into_expr().lte(earliest))
            .to_owned();
        Box::new(insert_from_select::<Entity>(rows).on_conflict(replace_expired).take())
    },
    must_write_all: true,
};

/// A request with an idempotency key.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    operator: OperatorId,
    key_hash: Vec<u8>,
    input_hash: Vec<u8>,
}

impl IdempotentRequest {
    /// Hashes the key and the input. `input` returns the canonical form of the request: two requests have the same form
    /// if and only if they ask for the same change. Returns `None` if there is no key.
    pub fn new(
        hash: &KeyedHash,
        operator: OperatorId,
        key: &Option<IdempotencyKey>,
        input: impl FnOnce() -> String,
    ) -> Option<Self> {
        let key_hash = hash.digest("idempotency key", &[key.as_ref()?.as_str().as_bytes()]);
        let input_hash = hash.digest("idempotency input", &[input().as_bytes()]);
        Some(Self { operator, key_hash, input_hash })
    }

    /// Finds the stored outcome of this request. Fails if the key was used for another input.
    pub async fn find<R: DeserializeOwned>(
        &self,
        connection: &impl ConnectionTrait,
    ) -> Result<Option<R>, TransactionError> {
        let id = (self.operator, self.key_hash.clone());
        let stored = Entity::find_by_id(id).filter(Column::ExpiresAt.gt(now())).one(connection).await?;
        let Some(stored) = stored else { return Ok(None) };
        if stored.input_hash != self.input_hash {
            let reused = Violation::of(ErrorCode::IdempotencyKeyReused, InputField::IdempotencyKey);
            return Err(Error::from(reused).into());
        }
        let outcome = stored.result.and_then(|result| serde_json::from_value(result).ok());
        let unreadable = || Error::Failed { code: ErrorCode::Internal, cause: "cannot read a stored outcome".into() };
        Ok(Some(outcome.ok_or_else(unreadable)?))
    }

    /// Adds the outcome to the writes of the request.
    pub fn store(&self, writes: &mut WriteSet, outcome: &impl Serialize) {
        let now = now();
        let row = Model {
            operator_id: self.operator,
            key_hash: self.key_hash.clone(),
            input_hash: self.input_hash.clone(),
            result: Some(serde_json::json!(outcome)),
            expires_at: now + LIFETIME,
        };
        writes.push(STORE, vec![[row_values(&row), vec![now.into()]].concat()]);
    }
}

/// Deletes expired outcomes and returns their number.
pub async fn sweep(database: &Database) -> Result<u64, Error> {
    let transaction = database.begin_write().await?;
    let swept = Entity::delete_many().filter(Column::ExpiresAt.lte(now())).exec(&transaction).await?;
    transaction.commit().await?;
    Ok(swept.rows_affected)
}
