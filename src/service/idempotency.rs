//! Exactly once: what became of a request is kept with its work, in one transaction, under the key that the caller gave
//! it; sent again, the request gets the same answer and does nothing.

use chrono::TimeDelta;
use entity::idempotency_key::{Column, Entity, Model};
use entity::value::{IdempotencyKey, OperatorId};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IdenStatic, Iterable, QueryFilter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::customers::Attempt;
use super::now;
use crate::database::{
    Database, Dml, OptimisticWrite, TransactionError, WriteBatch, WriteStatement, insert_from_select, row_values,
};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::KeyedHash;

/// How long a key is kept.
const LIFE: TimeDelta = TimeDelta::hours(24);

/// The column of a row that is to be kept that tells when: a key whose time is over by then may be taken again.
const NOW: &str = "now";

/// Keeps a key, unless it is taken.
const KEEP: WriteStatement = WriteStatement {
    name: "keep",
    columns: || Column::iter().map(|column| column.as_str()).chain([NOW]).collect(),
    statement: |new| {
        let rows =
            Query::select().exprs(Column::iter().map(Expr::col)).from(new.clone()).and_where(Expr::cust("TRUE")).take();
        let earliest = Query::select().expr(Expr::col(Alias::new(NOW)).min()).from(new.clone()).take();
        let unless_taken = OnConflict::columns([Column::OperatorId, Column::KeyHash])
            .update_columns([Column::InputHash, Column::Result, Column::ExpiresAt])
            .action_and_where(Column::ExpiresAt.into_expr().lte(earliest))
            .to_owned();
        Dml::Insert(insert_from_select::<Entity>(rows).on_conflict(unless_taken).take())
    },
    must_write_all: true,
};

/// A request that carries a key.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    operator: OperatorId,
    key_hash: Vec<u8>,
    input_hash: Vec<u8>,
}

impl IdempotentRequest {
    /// `input` is what the request asks for, in canonical form: the same for two requests exactly if they ask for the same.
    pub fn new(hash: &KeyedHash, operator: OperatorId, key: &IdempotencyKey, input: &str) -> Self {
        Self {
            operator,
            key_hash: hash.digest("idempotency key", &[key.as_str().as_bytes()]),
            input_hash: hash.digest("idempotency input", &[input.as_bytes()]),
        }
    }

    /// What became of this request before, if it was done.
    pub async fn find<R: DeserializeOwned>(
        &self,
        connection: &impl ConnectionTrait,
    ) -> Result<Option<R>, TransactionError> {
        let id = (self.operator, self.key_hash.clone());
        let kept = Entity::find_by_id(id).filter(Column::ExpiresAt.gt(now())).one(connection).await?;
        kept.map(|kept| self.result_of(kept)).transpose().map_err(TransactionError::Error)
    }

    /// Keeps what became of the request. If its key is taken, the race for it is lost, and with it the work; of two at once,
    /// the second waits here for the first.
    fn store(&self, writes: &mut WriteBatch, result: &impl Serialize) {
        let now = now();
        let row = Model {
            operator_id: self.operator,
            key_hash: self.key_hash.clone(),
            input_hash: self.input_hash.clone(),
            result: Some(serde_json::json!(result)),
            expires_at: now + LIFE,
        };
        writes.push(KEEP, vec![[row_values(&row), vec![now.into()]].concat()]);
    }

    fn result_of<R: DeserializeOwned>(&self, kept: Model) -> Result<R, Error> {
        if kept.input_hash != self.input_hash {
            return Err(Violation::of(ErrorCode::IdempotencyKeyReused, InputField::IdempotencyKey).into());
        }
        let unreadable = || Error::Failed { code: ErrorCode::Internal, cause: "a kept result cannot be read".into() };
        serde_json::from_value(kept.result.ok_or_else(unreadable)?).map_err(|_| unreadable())
    }
}

/// Awaits an attempt, and if it is not done, replays the stored outcome of the request, if there is one.
///
/// The key is not looked up first: most requests are new, and for them a key then costs no statement of its own. A request
/// that is sent again runs into its own rows (a taken email, a lost race for the key), and only then is the key looked up.
/// A refusal or a phone that needs a check is not the answer to a request that was already done.
pub async fn or_replay<T, R: DeserializeOwned, P>(
    idempotent: Option<&IdempotentRequest>,
    connection: &impl ConnectionTrait,
    attempt: impl Future<Output = Result<Attempt<T>, TransactionError>>,
    replay: impl FnOnce(R) -> P,
) -> Result<Attempt<T>, TransactionError>
where
    P: Future<Output = Result<T, TransactionError>>,
{
    let attempted = attempt.await;
    if let Some(idempotent) = idempotent
        && !matches!(attempted, Ok(Attempt::Done(_)))
        && let Some(stored) = idempotent.find(connection).await?
    {
        return replay(stored).await.map(Attempt::Done);
    }
    attempted
}

/// WriteBatch the work of a request and keeps what became of it, all or none.
pub async fn write<R: Serialize>(
    write_tx: OptimisticWrite,
    mut writes: WriteBatch,
    idempotent: Option<&IdempotentRequest>,
    result: impl FnOnce() -> R,
) -> Result<(), TransactionError> {
    if let Some(idempotent) = idempotent {
        idempotent.store(&mut writes, &result());
    }
    Ok(write_tx.write(writes).await?)
}

/// Forgets the keys whose time is over, so that the table does not grow for ever.
pub async fn sweep(database: &Database) -> Result<u64, Error> {
    let transaction = database.begin_write().await?;
    let swept = Entity::delete_many().filter(Column::ExpiresAt.lte(now())).exec(&transaction).await?;
    transaction.commit().await?;
    Ok(swept.rows_affected)
}
