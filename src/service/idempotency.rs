//! Idempotency keys: a request that is sent again with the same key returns the first result and changes nothing.
//!
//! The result is written in the same transaction as the work. Its row has the operator (for the platform: the nil id),
//! keyed hashes of the idempotency key and of the input, and the result: ids and codes, but no personal data.
//!
//! 1. Look up the key before customers of other operators are looked up. If the key has a result for the same input,
//!    return the result. If it has a result for another input, fail with `IDEMPOTENCY_KEY_REUSED`. The key is looked up
//!    first, because a caller could otherwise send a used key and learn from the response time whether a person is
//!    known. The lookup needs no extra round trip: the statement of [`IdempotencyKeyLookup::join`] looks up the key
//!    and, only if the key is new, also the customers.
//! 2. Make the change, and insert the result in the same transaction. If another request has used the key in the
//!    meantime, the insert conflicts and nothing is written. If two requests with the same key run at the same time,
//!    the insert of the second waits for the first to commit, and conflicts if the wait takes too long.
//! 3. If the attempt failed because of a conflict or a lost connection, look up the key again: another request, or this
//!    attempt, may have stored a result.
//!
//! A rejected request stores nothing, so its key can be used again.

use chrono::TimeDelta;
use entity::idempotency_key::{Column, Entity, Model};
use entity::value::{IdempotencyKey, OperatorId};
use sea_orm::prelude::Json;
use sea_orm::sea_query::{
    Alias, Asterisk, Expr, ExprTrait, Func, JoinType, OnConflict, Query, SelectStatement, SimpleExpr,
};
use sea_orm::{ColumnTrait, ConnectionTrait, IdenStatic, Iterable, QueryResult, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::expired_rows::delete_expired;
use super::{Origin, now};
use crate::database::{Database, TransactionError, WriteSet, WriteStatement, insert_from_cte, row_values};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::{KeyedHasher, PerSecret};

/// The time for which a result is stored.
const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// The name of an extra column of the rows to insert, with the time of the request. A stored key that has expired at
/// this time is replaced.
const NOW: &str = "now";

/// Inserts results, or replaces expired ones. If a key is already in use, the request that repeats the key writes
/// nothing.
const STORE: WriteStatement = WriteStatement {
    name: "store results",
    columns: || Column::iter().map(|column| column.as_str()).chain([NOW]).collect(),
    build: |new, _| {
        let earliest = Query::select().expr(Expr::col(Alias::new(NOW)).min()).from(new.clone()).take();
        let replace_expired = OnConflict::columns([Column::OperatorId, Column::KeyHash])
            .update_columns([Column::InputHash, Column::Result, Column::ExpiresAt])
            .action_and_where(Column::ExpiresAt.into_expr().lte(earliest))
            .to_owned();
        Box::new(insert_from_cte::<Entity>(new).on_conflict(replace_expired).take())
    },
    must_write_all: true,
};

/// The idempotency key of a request, with its input. Without a key, nothing is found and nothing is stored.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    owner: OperatorId,
    /// The hashes of the key and of the input. `None` if the request has no key. While the secret is being changed,
    /// there are two secrets, and the result is stored under both. Two requests with the same key therefore conflict,
    /// even if their servers hash with different secrets.
    hashes: Option<PerSecret<(Vec<u8>, Vec<u8>)>>,
}

impl IdempotentRequest {
    /// Hashes the key and the input. `input` returns the canonical form of the request: two requests have the same form
    /// if and only if they call the same mutation with the same values. `input` is not called if there is no key.
    pub fn new(
        hasher: &KeyedHasher,
        origin: &Origin,
        key: &Option<IdempotencyKey>,
        input: impl FnOnce() -> String,
    ) -> Self {
        let hashes = key.as_ref().map(|key| {
            let key_hashes = hasher.accepted_digests("idempotency key", &[key.as_str().as_bytes()]);
            let input_hashes = hasher.accepted_digests("idempotency input", &[input().as_bytes()]);
            key_hashes.zip(input_hashes)
        });
        Self { owner: origin.owner(), hashes }
    }

    /// Finds the stored result of this request. Fails if the key was used for another input.
    pub async fn find<R: DeserializeOwned>(
        &self,
        connection: &impl ConnectionTrait,
    ) -> Result<Option<R>, TransactionError> {
        for (key_hash, _) in self.hashes.iter().flat_map(PerSecret::iter) {
            let [key_hash, now] = [Value::from(key_hash.clone()), now().into()].map(SimpleExpr::from);
            let query = IdempotencyKeyLookup { operator: self.owner.into(), key_hash, now }.query();
            if let Some(row) = connection.query_one(&query).await? {
                return self.stored_result(&row);
            }
        }
        Ok(None)
    }

    /// Returns true while the secret is being changed. The result may then be stored under a hash that is not in
    /// [`values`](Self::values).
    pub fn has_other_hash(&self) -> bool {
        self.hashes.as_ref().is_some_and(|hashes| hashes.other.is_some())
    }

    /// Returns true if the request comes from this operator.
    pub fn is_of(&self, operator: OperatorId) -> bool {
        self.owner == operator
    }

    /// Returns the values for [`IdempotencyKeyLookup::key_hash`] and [`IdempotencyKeyLookup::now`]. `None` if the
    /// request has no key.
    pub fn values(&self) -> Option<[Value; 2]> {
        let (key_hash, _) = &self.hashes.as_ref()?.current;
        Some([key_hash.clone().into(), now().into()])
    }

    /// Reads the stored result from a row of [`IdempotencyKeyLookup`]. `None` if the key is not in use. Fails if the
    /// key was used for another input.
    pub fn stored_result<R: DeserializeOwned>(&self, row: &QueryResult) -> Result<Option<R>, TransactionError> {
        let Some(input_hash) = row.try_get::<Option<Vec<u8>>>("", Column::InputHash.as_str())? else { return Ok(None) };
        if !self.hashes.iter().flat_map(PerSecret::iter).any(|(_, own)| *own == input_hash) {
            return Err(Violation::of(ErrorCode::IdempotencyKeyReused, InputField::IdempotencyKey).into());
        }
        let result: Option<Json> = row.try_get("", Column::Result.as_str())?;
        let stored_result = result.and_then(|result| serde_json::from_value(result).ok());
        let unreadable = || Error::internal("cannot read a stored result");
        Ok(Some(stored_result.ok_or_else(unreadable)?))
    }

    /// Adds the result to the writes of the request, if there is a key.
    pub fn store(&self, writes: &mut WriteSet, result: &impl Serialize) {
        let Some(hashes) = &self.hashes else { return };
        let (now, result) = (now(), Some(serde_json::json!(result)));
        let row = |(key_hash, input_hash): &(Vec<u8>, Vec<u8>)| {
            let (key_hash, input_hash, result) = (key_hash.clone(), input_hash.clone(), result.clone());
            let row = Model { operator_id: self.owner, key_hash, input_hash, result, expires_at: now + LIFETIME };
            [row_values(&row), vec![now.into()]].concat()
        };
        writes.push(STORE, hashes.iter().map(row).collect());
    }
}

/// The parameters of a key lookup. Each parameter is a value or a placeholder.
#[derive(Clone)]
pub struct IdempotencyKeyLookup {
    pub operator: SimpleExpr,
    pub key_hash: SimpleExpr,
    pub now: SimpleExpr,
}

impl IdempotencyKeyLookup {
    fn query(&self) -> SelectStatement {
        // COALESCE prevents PostgreSQL from using the index of this column. Otherwise a plan that was made while the
        // table was empty would read all keys that have not expired, even when there are many.
        let expires_at =
            SimpleExpr::from(Func::coalesce([Column::ExpiresAt.into_expr(), Column::ExpiresAt.into_expr()]));
        Query::select()
            .columns([Column::InputHash, Column::Result])
            .from(Entity)
            .and_where(Column::OperatorId.into_expr().eq(self.operator.clone()))
            .and_where(Column::KeyHash.into_expr().eq(self.key_hash.clone()))
            .and_where(expires_at.gt(self.now.clone()))
            .take()
    }

    /// Returns an expression that is true if the key is not in use.
    pub fn is_new(&self) -> SimpleExpr {
        Expr::exists(self.query()).not()
    }

    /// Adds the columns of the stored result to the rows of `select`, which must select rows only if the key [is
    /// new](Self::is_new). The query always returns at least one row. The columns of the result are null if there is no
    /// result. The columns of `select` are null if it finds nothing.
    pub fn join(&self, select: SelectStatement) -> SelectStatement {
        let [always, stored, found] = ["always", "stored", "found"].map(Alias::new);
        Query::select()
            .column((found.clone(), Asterisk))
            .columns([Column::InputHash, Column::Result].map(|column| (stored.clone(), column)))
            .from_subquery(Query::select().expr_as(Expr::cust("1"), "one").take(), always)
            .join_subquery(JoinType::LeftJoin, self.query(), stored, Expr::cust("TRUE"))
            .join_subquery(JoinType::LeftJoin, select, found, Expr::cust("TRUE"))
            .take()
    }
}

/// Deletes expired results and returns their number.
pub async fn delete_expired_results(database: &Database) -> Result<u64, Error> {
    delete_expired::<Entity>(database, "idempotency.sweep", Column::ExpiresAt).await
}
