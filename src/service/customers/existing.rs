//! Finds the customers and links that share a unique value with a new customer.

use std::iter::zip;

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, Iterable, JoinType, QueryFilter, QueryOrder, QueryResult,
    QuerySelect, QueryTrait, Value,
};
use serde::de::DeserializeOwned;

use super::rows::{self, OWN_ID, joined_customer_at};
use super::{Customers, OrStored};
use crate::database::{BatchedQuery, OptimisticWrite, TransactionError};
use crate::error::{ErrorCode, InputField, Violation};
use crate::service::idempotency::{IdempotentRequest, KeyLookup};

/// The rows that share a unique value with a new customer.
#[derive(Default)]
pub(super) struct Existing {
    /// The customer for which the operator already uses the external customer id.
    with_same_id: Option<CustomerId>,
    /// The operator's customer that has the email.
    own_by_email: Option<CustomerId>,
    /// The operator's customer that has the phone.
    own_by_phone: Option<CustomerId>,
    /// Customers that are not connected to the operator and have the email or the phone. Empty if one of the other
    /// fields is set.
    pub(super) others: Vec<customer::Model>,
}

impl Existing {
    /// Reads the rows of [`existing_query`].
    fn from_rows(rows: &[QueryResult], with_others: bool) -> Result<Self, DbErr> {
        let mut existing = Self::default();
        for row in rows {
            existing.with_same_id = row.try_get_by_index(0)?;
            existing.own_by_email = row.try_get_by_index(1)?;
            existing.own_by_phone = row.try_get_by_index(2)?;
            if with_others {
                existing.others.extend(joined_customer_at(row, 3)?);
            }
        }
        Ok(existing)
    }

    /// Returns faults for the values that the operator already uses for its own customers.
    pub(super) fn taken(&self) -> Vec<Violation> {
        let id = self.with_same_id.map(id_taken);
        let email = self.own_by_email.map(|own| in_the_way(own, ErrorCode::EmailTaken, InputField::Email));
        let phone = self.own_by_phone.map(|own| in_the_way(own, ErrorCode::PhoneTaken, InputField::Phone));
        id.into_iter().chain(email).chain(phone).collect()
    }
}

/// Returns the fault of an external customer id that the operator already uses for one of its customers, `own`.
pub(super) fn id_taken(own: CustomerId) -> Violation {
    in_the_way(own, ErrorCode::ExternalCustomerIdTaken, InputField::ExternalCustomerId)
}

fn in_the_way(own: CustomerId, code: ErrorCode, field: InputField) -> Violation {
    Violation { own_customer: Some(own), ..Violation::of(code, field) }
}

/// Returns a fault for the email if one of the customers has it, and a fault for the phone if one of the customers has
/// it.
pub(super) fn taken<'c>(
    mut customers: impl Iterator<Item = &'c customer::Model> + Clone,
    email: Option<&EmailAddress>,
    phone: Option<&PhoneNumber>,
) -> Vec<Violation> {
    let is_email_taken = customers.clone().any(|customer| Some(&customer.email) == email);
    let is_phone_taken = customers.any(|customer| phone.is_some() && customer.phone.as_ref() == phone);
    let email = is_email_taken.then(|| Violation::of(ErrorCode::EmailTaken, InputField::Email));
    let phone = is_phone_taken.then(|| Violation::of(ErrorCode::PhoneTaken, InputField::Phone));
    email.into_iter().chain(phone).collect()
}

/// The values of [`existing_query`].
pub(super) fn existing_values(
    operator: OperatorId,
    external_customer_id: &ExternalCustomerId,
    email: &EmailAddress,
    phone: Option<&PhoneNumber>,
) -> [Value; 4] {
    [operator.into(), external_customer_id.clone().into(), email.clone().into(), phone.cloned().into()]
}

impl Customers {
    /// Finds the rows that share a unique value with the new customer, in one statement unless the attempt takes locks.
    /// If the idempotency key of the request is in use, returns its stored outcome instead and reads no customer.
    pub(super) async fn find_existing<R: DeserializeOwned>(
        &self,
        write_tx: &OptimisticWrite,
        idempotent: &IdempotentRequest,
        values: [Value; 4],
    ) -> Result<OrStored<Existing, R>, TransactionError> {
        if write_tx.is_locking() {
            if let Some(stored) = idempotent.find(write_tx).await? {
                return Ok(OrStored::Stored(stored));
            }
            let [_, _, email, phone] = values.clone().map(SimpleExpr::from);
            write_tx.query_all(&holders_to_lock(email, phone)).await?;
        }
        let rows = if let Some([key_hash, now]) = idempotent.values() {
            let [operator, external_id, email, phone] = values;
            let values = [operator, external_id, email, phone, key_hash, now];
            let rows = self.read(write_tx, &self.existing_or_stored_query, values).await?;
            if let Some(stored) = rows.first().map(|row| idempotent.outcome(row)).transpose()?.flatten() {
                return Ok(OrStored::Stored(stored));
            }
            rows
        } else {
            self.read(write_tx, &self.existing_query, values).await?
        };
        Ok(OrStored::Found(Existing::from_rows(&rows, true)?))
    }

    /// Runs a query. If the attempt takes locks, the query runs in the transaction of the attempt. Otherwise, on
    /// PostgreSQL, the query runs in a batch with the queries of other requests.
    async fn read<const N: usize>(
        &self,
        write_tx: &OptimisticWrite,
        query: &BatchedQuery<N>,
        values: [Value; N],
    ) -> Result<Vec<QueryResult>, DbErr> {
        if write_tx.is_locking() {
            write_tx.query_all(&query.with_values(values)).await
        } else {
            query.run(self.database.reader(), values).await
        }
    }

    /// Finds the same rows as [`find_existing`](Self::find_existing), but only among the operator's own customers.
    pub(super) async fn find_existing_own(&self, values: [Value; 4]) -> Result<Existing, DbErr> {
        let query = existing_query(values.map(SimpleExpr::from), None, false);
        Existing::from_rows(&self.database.reader().query_all(&query).await?, false)
    }
}

/// Locks the customers that have the email or the phone. They are locked in the order of their ids, so that two
/// requests for the same customers do not deadlock.
fn holders_to_lock(email: SimpleExpr, phone: SimpleExpr) -> SelectStatement {
    use customer::Column::{Email, Id, Phone};
    let holders = customer::Entity::find().filter(Email.into_expr().eq(email).or(Phone.into_expr().eq(phone)));
    holders.select_only().column(Id).order_by_asc(Id).lock_exclusive().into_query()
}

/// Selects the operator's customer with the external customer id, its customer with the email, and its customer with
/// the phone. If none of these exists and `with_others` is true, selects the other customers of the platform that have
/// the email or the phone.
///
/// If one of the operator's own customers has one of the values, the request is rejected. The response time must then
/// not reveal if a customer of another operator has one of the other values (see [`rows::holder`]).
///
/// If `condition` does not hold, selects no row. Otherwise selects at least one row, whose columns are null if there is
/// no customer.
///
/// ```sql
/// SELECT same_id.customer_id, CASE WHEN by_email.id = by_email.own_id THEN by_email.own_id END, …, other.*
/// FROM (SELECT 1 AS one) AS always
/// LEFT JOIN customer_operator AS same_id ON same_id.operator_id = $1 AND same_id.external_customer_id = $2
/// LEFT JOIN (…) AS by_email ON TRUE
/// LEFT JOIN (…) AS by_phone ON TRUE
/// LEFT JOIN customer AS other
///   ON other.id IN (CASE WHEN same_id.customer_id IS NULL AND … THEN by_email.id END, …)
/// ```
pub(super) fn existing_query(
    [operator, external_customer_id, email, phone]: [SimpleExpr; 4],
    condition: Option<SimpleExpr>,
    with_others: bool,
) -> SelectStatement {
    use customer::Column::{Email, Id, Phone};
    use customer_operator::Column::{CustomerId, ExternalCustomerId, OperatorId};
    let of_same_id = |column| Expr::col(("same_id", column));
    let holders = ["by_email", "by_phone"];
    let own_id = |holder| {
        let own_id = Expr::col((holder, OWN_ID));
        Expr::expr(Expr::case(own_id.clone().eq(Expr::col((holder, Id))), own_id))
    };
    // The other tables are joined to a constant row, so that there is a result even if no customer is found.
    let always = Query::select().expr_as(Expr::cust("1"), "one").and_where_option(condition).take();
    let has_same_id =
        of_same_id(OperatorId).eq(operator.clone()).and(of_same_id(ExternalCustomerId).eq(external_customer_id));
    let mut query = Query::select()
        .expr(of_same_id(CustomerId))
        .exprs(holders.map(own_id))
        .from_subquery(always, "always")
        .join_as(JoinType::LeftJoin, customer_operator::Entity, "same_id", has_same_id)
        .take();
    for (holder, (column, value)) in zip(holders, [(Email, email), (Phone, phone)]) {
        let found = rows::holder(operator.clone(), column, value);
        query.join_subquery(JoinType::LeftJoin, found, holder, Expr::cust("TRUE"));
    }
    if with_others {
        let [by_email, by_phone] = holders.map(|holder| own_id(holder).is_null());
        let is_new = of_same_id(CustomerId).is_null().and(by_email).and(by_phone);
        let other = |holder| Expr::case(is_new.clone(), Expr::col((holder, Id)));
        let is_other = Expr::col(("other", Id)).is_in(holders.map(other));
        query.columns(customer::Column::iter().map(|column| ("other", column)));
        query.join_as(JoinType::LeftJoin, customer::Entity, "other", is_other);
    }
    query
}

/// Like [`existing_query`], but also selects the stored outcome of an idempotency key, and selects customers only if
/// the key is new.
pub(super) fn existing_or_stored_query(
    [operator, external_customer_id, email, phone, key_hash, now]: [SimpleExpr; 6],
) -> SelectStatement {
    let key = KeyLookup { operator: operator.clone(), key_hash, now };
    key.join(existing_query([operator, external_customer_id, email, phone], Some(key.is_new()), true))
}
