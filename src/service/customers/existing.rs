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

use super::row_reads::joined_customer_at;
use super::timing_safe::{NEXT_OWN_ID, timing_safe_lookup};
use super::{Customers, FoundOrReplay};
use crate::database::{BatchedQuery, OptimisticWrite, TransactionError};
use crate::error::{ErrorCode, InputField, Violation};
use crate::service::idempotency::{IdempotencyKeyLookup, IdempotentRequest};

/// The values of a new customer that must be unique, and the operator that creates the customer.
#[derive(Clone, Copy)]
pub(super) struct UniqueValues<'v> {
    pub(super) operator: OperatorId,
    pub(super) external_customer_id: &'v ExternalCustomerId,
    pub(super) email: &'v EmailAddress,
    pub(super) phone: Option<&'v PhoneNumber>,
}

impl UniqueValues<'_> {
    /// Returns the values in the order of the parameters of [`own_matches_query`] and [`existing_query`].
    fn to_array(self) -> [Value; 4] {
        let Self { operator, external_customer_id, email, phone } = self;
        [operator.into(), external_customer_id.clone().into(), email.clone().into(), phone.cloned().into()]
    }
}

/// The operator's own customers that use a value of a new customer.
#[derive(Default)]
pub(super) struct OwnMatches {
    /// The customer for which the operator already uses the external customer id.
    by_external_id: Option<CustomerId>,
    /// The customer that has the email.
    by_email: Option<CustomerId>,
    /// The customer that has the phone.
    by_phone: Option<CustomerId>,
}

/// The customers that share a unique value with a new customer.
pub(super) struct Existing {
    pub(super) own: OwnMatches,
    /// Customers that are not connected to the operator and have the email or the phone. Empty if the operator's own
    /// customers use a value.
    pub(super) others: Vec<customer::Model>,
}

impl OwnMatches {
    /// Reads a row of [`own_matches_query`].
    fn from_row(row: &QueryResult) -> Result<Self, DbErr> {
        let [by_external_id, by_email, by_phone] = [0, 1, 2].map(|index| row.try_get_by_index(index));
        Ok(Self { by_external_id: by_external_id?, by_email: by_email?, by_phone: by_phone? })
    }

    /// Returns a violation for each value that the operator's own customers use.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let id = self.by_external_id.map(external_id_taken);
        let email = self.by_email.map(|own| email_taken(Some(own)));
        let phone = self.by_phone.map(|own| phone_taken(Some(own)));
        id.into_iter().chain(email).chain(phone).collect()
    }
}

impl Existing {
    /// Reads the rows of [`existing_query`]. The columns of [`own_matches_query`] are the same in all rows.
    fn from_rows(rows: &[QueryResult]) -> Result<Self, DbErr> {
        let own = rows.first().map(OwnMatches::from_row).transpose()?.unwrap_or_default();
        let others = rows.iter().filter_map(|row| joined_customer_at(row, OWN_COLUMNS).transpose());
        Ok(Self { own, others: others.collect::<Result<_, _>>()? })
    }
}

/// Returns the violation of an external customer id that the operator already uses for one of its customers, `own`.
pub(super) fn external_id_taken(own: CustomerId) -> Violation {
    Violation {
        own_customer: Some(own),
        ..Violation::of(ErrorCode::ExternalCustomerIdTaken, InputField::ExternalCustomerId)
    }
}

/// Returns the violation of an email that another customer has. `own` is this customer, if it is one of the operator's
/// own customers.
pub(super) fn email_taken(own: Option<CustomerId>) -> Violation {
    let message = "You already have a customer with this email address. Its id is in `customerId`.";
    taken(Violation::of(ErrorCode::EmailTaken, InputField::Email), own, message)
}

/// Like [`email_taken`], for a phone.
pub(super) fn phone_taken(own: Option<CustomerId>) -> Violation {
    let message = "You already have a customer with this phone number. Its id is in `customerId`.";
    taken(Violation::of(ErrorCode::PhoneTaken, InputField::Phone), own, message)
}

/// Adds the operator's own customer that has the value, if there is one, and a message about this customer.
fn taken(violation: Violation, own: Option<CustomerId>, message: &'static str) -> Violation {
    match own {
        Some(_) => Violation { own_customer: own, ..violation.with_message(message) },
        None => violation,
    }
}

impl Customers {
    /// Finds the customers that share a unique value with the new one, in one statement unless the attempt takes locks.
    /// If the idempotency key of the request is in use, returns its stored result instead and reads no customer.
    pub(super) async fn find_existing<R: DeserializeOwned>(
        &self,
        attempt: &OptimisticWrite,
        idempotent: &IdempotentRequest,
        values: UniqueValues<'_>,
    ) -> Result<FoundOrReplay<Existing, R>, TransactionError> {
        if attempt.is_locking() {
            // A repeated request must not lock customers of other operators. The query below looks up the key again:
            // while this request waits for the locks, another request may use the key.
            if let Some(stored) = idempotent.find(attempt).await? {
                return Ok(FoundOrReplay::Replay(stored));
            }
            attempt.query_all(&customers_to_lock(values.email, values.phone)).await?;
        }
        let rows = if let Some([key_hash, now]) = idempotent.values() {
            let [operator, external_id, email, phone] = values.to_array();
            let values = [operator, external_id, email, phone, key_hash, now];
            let rows = self.read(attempt, &self.existing_or_replay_query, values).await?;
            if let Some(stored) = rows.first().map(|row| idempotent.stored_result(row)).transpose()?.flatten() {
                return Ok(FoundOrReplay::Replay(stored));
            }
            rows
        } else {
            self.read(attempt, &self.existing_query, values.to_array()).await?
        };
        Ok(FoundOrReplay::Found(Existing::from_rows(&rows)?))
    }

    /// Runs a query. If the attempt takes locks, the query runs in the transaction of the attempt. Otherwise, on
    /// PostgreSQL, the query runs in a batch with the queries of other requests.
    async fn read<const N: usize>(
        &self,
        attempt: &OptimisticWrite,
        query: &BatchedQuery<N>,
        values: [Value; N],
    ) -> Result<Vec<QueryResult>, DbErr> {
        if attempt.is_locking() {
            attempt.query_all(&query.with_values(values)).await
        } else {
            query.run(&self.database.uncounted_reader(), values).await
        }
    }

    /// Like [`find_existing`](Self::find_existing), but finds only the operator's own customers.
    pub(super) async fn find_own_matches(&self, values: UniqueValues<'_>) -> Result<OwnMatches, DbErr> {
        let query = own_matches_query(values.to_array().map(SimpleExpr::from), None);
        let row = self.database.reader().query_one(&query).await?;
        Ok(row.as_ref().map(OwnMatches::from_row).transpose()?.unwrap_or_default())
    }
}

/// Selects the customers that have the email or the phone, and locks them in the order of their ids, so that two
/// requests for the same customers do not deadlock.
fn customers_to_lock(email: &EmailAddress, phone: Option<&PhoneNumber>) -> SelectStatement {
    use customer::Column::{Email, Id, Phone};
    let (email, phone) = (Email.into_expr().eq(email.clone()), Phone.into_expr().eq(phone.cloned()));
    let customers = customer::Entity::find().filter(email.or(phone));
    customers.select_only().column(Id).order_by_asc(Id).lock_exclusive().into_query()
}

/// Selects the operator's customer with the external customer id, its customer with the email, and its customer with
/// the phone.
///
/// If `condition` does not hold, selects no row. Otherwise selects one row, whose columns are null if there is no
/// customer.
///
/// ```sql
/// SELECT by_external_id.customer_id, CASE WHEN by_email.next_own_id = by_email.id THEN by_email.next_own_id END, …
/// FROM (SELECT 1 AS one) AS always
/// LEFT JOIN customer_operator AS by_external_id
///   ON by_external_id.operator_id = $1 AND by_external_id.external_customer_id = $2
/// LEFT JOIN (…) AS by_email ON TRUE
/// LEFT JOIN (…) AS by_phone ON TRUE
/// ```
fn own_matches_query(
    [operator, external_customer_id, email, phone]: [SimpleExpr; 4],
    condition: Option<SimpleExpr>,
) -> SelectStatement {
    use customer::Column::{Email, Phone};
    use customer_operator::Column::{CustomerId, ExternalCustomerId, OperatorId};
    // The other tables are joined to a constant row, so that there is a result even if no customer is found.
    let always = Query::select().expr_as(Expr::cust("1"), "one").and_where_option(condition).take();
    let has_external_id = of_external_id(OperatorId)
        .eq(operator.clone())
        .and(of_external_id(ExternalCustomerId).eq(external_customer_id));
    let mut query = Query::select()
        .expr(of_external_id(CustomerId))
        .exprs(LOOKUP_ALIASES.map(own_id))
        .from_subquery(always, "always")
        .join_as(JoinType::LeftJoin, customer_operator::Entity, "by_external_id", has_external_id)
        .take();
    for (alias, (column, value)) in zip(LOOKUP_ALIASES, [(Email, email), (Phone, phone)]) {
        let found = timing_safe_lookup(operator.clone(), column, value);
        query.join_subquery(JoinType::LeftJoin, found, alias, Expr::cust("TRUE"));
    }
    query
}

/// The number of columns of [`own_matches_query`].
const OWN_COLUMNS: usize = 3;

/// The subqueries of [`own_matches_query`] for the email and the phone. Each selects the columns of
/// [`timing_safe_lookup`].
const LOOKUP_ALIASES: [&str; 2] = ["by_email", "by_phone"];

fn of_external_id(column: customer_operator::Column) -> SimpleExpr {
    Expr::col(("by_external_id", column))
}

/// The id of the customer that a [lookup](LOOKUP_ALIASES) found, if it is one of the operator's own customers.
fn own_id(lookup: &'static str) -> SimpleExpr {
    let next_own_id = Expr::col((lookup, NEXT_OWN_ID));
    Expr::expr(Expr::case(next_own_id.clone().eq(Expr::col((lookup, customer::Column::Id))), next_own_id))
}

/// Like [`own_matches_query`]. If none of the operator's own customers has one of the values, also selects the other
/// customers of the platform that have the email or the phone, each in a separate row.
///
/// If one of the operator's own customers has one of the values, the request is rejected. The response time must then
/// not reveal whether a customer of another operator has one of the other values (see [`timing_safe_lookup`]).
///
/// ```sql
/// SELECT …, other.*
/// FROM …
/// LEFT JOIN customer AS other
///   ON other.id IN (CASE WHEN by_external_id.customer_id IS NULL AND … THEN by_email.id END, …)
/// ```
pub(super) fn existing_query(values: [SimpleExpr; 4], condition: Option<SimpleExpr>) -> SelectStatement {
    use customer::Column::Id;
    let [by_email, by_phone] = LOOKUP_ALIASES.map(|lookup| own_id(lookup).is_null());
    let is_new = of_external_id(customer_operator::Column::CustomerId).is_null().and(by_email).and(by_phone);
    let other = |lookup| Expr::case(is_new.clone(), Expr::col((lookup, Id)));
    let is_other = Expr::col(("other", Id)).is_in(LOOKUP_ALIASES.map(other));
    let mut query = own_matches_query(values, condition);
    query.columns(customer::Column::iter().map(|column| ("other", column)));
    query.join_as(JoinType::LeftJoin, customer::Entity, "other", is_other);
    query
}

/// Like [`existing_query`], but also selects the stored result of an idempotency key, and selects customers only if the
/// key is new.
pub(super) fn existing_or_replay_query(
    [operator, external_customer_id, email, phone, key_hash, now]: [SimpleExpr; 6],
) -> SelectStatement {
    let key = IdempotencyKeyLookup { operator: operator.clone(), key_hash, now };
    key.join(existing_query([operator, external_customer_id, email, phone], Some(key.is_new())))
}
