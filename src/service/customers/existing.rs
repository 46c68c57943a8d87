//! Finds the customers and links that share a unique value with a new customer.

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement, SimpleExpr, UnionType};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, Iterable, JoinType, QueryFilter, QueryOrder, QueryResult,
    QueryTrait,
};
use serde::de::DeserializeOwned;

use super::rows::{has_email_or_phone, joined_customer_at, of_operator, own_customers};
use super::{Customers, OrStored, find_stored};
use crate::database::{OptimisticWrite, TransactionError};
use crate::error::{ErrorCode, InputField, Violation};
use crate::service::idempotency::{IdempotentRequest, KeyLookup};

/// The rows that share a unique value with a new customer.
#[derive(Default)]
pub(super) struct Existing {
    /// Customers that have the email or the phone and are connected only to other operators. Empty if the operator already
    /// uses one of the values.
    pub(super) others: Vec<customer::Model>,
    /// Customers of the operator that have the email or the phone.
    own: Vec<customer::Model>,
    /// The customer for which the operator already uses the external customer id.
    with_same_id: Option<CustomerId>,
}

impl Existing {
    /// Reads the rows of `existing_query`. If a customer of the operator already uses one of the values, does not read the
    /// customers of other operators. Otherwise the response time would reveal if such customers exist.
    fn from_rows(rows: &[QueryResult]) -> Result<Self, DbErr> {
        let (mut existing, mut others) = (Self::default(), Vec::new());
        for row in rows {
            existing.with_same_id = row.try_get_by_index(WITH_SAME_ID)?;
            if row.try_get_by_index(IS_OWN)? {
                existing.own.extend(joined_customer_at(row, HOLDER)?);
            } else {
                others.push(row);
            }
        }
        if existing.with_same_id.is_none() && existing.own.is_empty() {
            for row in others {
                existing.others.extend(joined_customer_at(row, HOLDER)?);
            }
        }
        Ok(existing)
    }

    /// Faults for the values that the operator already uses for its own customers.
    pub(super) fn taken(&self, email: &EmailAddress, phone: Option<&PhoneNumber>) -> Vec<Violation> {
        let id = self.with_same_id.map(id_taken);
        id.into_iter().chain(taken(self.own.iter(), Some(email), phone, |own| Some(own.id))).collect()
    }
}

/// Returns the fault of an external customer id that the operator already uses for one of its customers, `customer`.
pub(super) fn id_taken(customer: CustomerId) -> Violation {
    Violation {
        own_customer: Some(customer),
        ..Violation::of(ErrorCode::ExternalCustomerIdTaken, InputField::ExternalCustomerId)
    }
}

/// Returns a fault for the email and a fault for the phone, if one of the customers has the value. `own_id` returns the
/// id of a customer if the fault may name that customer.
pub(super) fn taken<'c>(
    mut customers: impl Iterator<Item = &'c customer::Model> + Clone,
    email: Option<&EmailAddress>,
    phone: Option<&PhoneNumber>,
    own_id: impl Fn(&customer::Model) -> Option<CustomerId>,
) -> Vec<Violation> {
    let fault = |code, field, holder| Violation { own_customer: own_id(holder), ..Violation::of(code, field) };
    let by_email = customers.clone().find(|customer| Some(&customer.email) == email);
    let by_phone = customers.find(|customer| phone.is_some() && customer.phone.as_ref() == phone);
    let email = by_email.map(|holder| fault(ErrorCode::EmailTaken, InputField::Email, holder));
    let phone = by_phone.map(|holder| fault(ErrorCode::PhoneTaken, InputField::Phone, holder));
    email.into_iter().chain(phone).collect()
}

impl Customers {
    /// Finds the existing customers and the link in one statement. If the idempotency key of the request is in use, returns
    /// its stored outcome instead and reads no customer.
    pub(super) async fn find_existing<R: DeserializeOwned>(
        &self,
        write_tx: &OptimisticWrite,
        operator: OperatorId,
        idempotent: Option<&IdempotentRequest>,
        (external_customer_id, email, phone): (&ExternalCustomerId, &EmailAddress, Option<&PhoneNumber>),
    ) -> Result<OrStored<Existing, R>, TransactionError> {
        let values =
            [operator.into(), external_customer_id.clone().into(), email.clone().into(), phone.cloned().into()];
        let reader = self.database.reader();
        let rows = match idempotent {
            _ if write_tx.is_locking() => {
                if let Some(stored) = find_stored(idempotent, write_tx).await? {
                    return Ok(OrStored::Stored(stored));
                }
                write_tx.query_all(&existing_query(values.map(SimpleExpr::from), true)).await?
            }
            Some(idempotent) => {
                let ([operator, external_id, email, phone], [key_hash, now]) = (values, idempotent.values());
                let values = [operator, external_id, email, phone, key_hash, now];
                let select = |[operator, external_id, email, phone, key_hash, now]: [SimpleExpr; 6]| {
                    let key = KeyLookup { operator: operator.clone(), key_hash, now };
                    let [external_id, email, phone] = [external_id, email, phone].map(|value| key.if_new(value));
                    key.join(existing_query([operator, external_id, email, phone], false))
                };
                let rows = self.existing_or_stored_query.run(reader, values, select).await?;
                if let Some(stored) = rows.first().map(|row| idempotent.outcome(row)).transpose()?.flatten() {
                    return Ok(OrStored::Stored(stored));
                }
                rows
            }
            None => self.existing_query.run(reader, values, |values| existing_query(values, false)).await?,
        };
        Ok(OrStored::Found(Existing::from_rows(&rows)?))
    }

    /// Finds the same rows as [`find_existing`](Self::find_existing), but only among the operator's own customers.
    pub(super) async fn find_existing_own(
        &self,
        operator: OperatorId,
        external_customer_id: &ExternalCustomerId,
        email: &EmailAddress,
        phone: Option<&PhoneNumber>,
    ) -> Result<Existing, DbErr> {
        let has_id = customer_operator::Column::ExternalCustomerId.eq(external_customer_id.clone());
        // Two queries, because a single query with conditions on two tables would check all customers of the operator.
        let mut query = of_operator(operator).filter(has_email_or_phone(Some(email), phone)).into_query();
        query.union(UnionType::All, of_operator(operator).filter(has_id).into_query());
        let own = own_customers(self.database.reader(), &query).await?;
        let with_same_id = own.iter().find(|(link, _)| link.external_customer_id == *external_customer_id);
        let with_same_id = with_same_id.map(|(_, customer)| customer.id);
        let own = own.into_iter().map(|(_, customer)| customer).collect();
        Ok(Existing { others: Vec::new(), own, with_same_id })
    }
}

// Positions of the columns of `existing_query`.
const IS_OWN: usize = 0;
const WITH_SAME_ID: usize = 1;
const HOLDER: usize = 2;

/// Selects the customers that have the email or the phone, and the customer that has the operator's external customer
/// id. Selects at least one row: if there is no customer, the columns of the row are null.
///
/// Customers that have the email or the phone are locked in the order of their ids, so that two requests for the same
/// customers do not deadlock. The query does not see a link that another request inserts while the query waits for a
/// lock. The unique constraint reports such a link.
fn existing_query(
    [operator, external_customer_id, email, phone]: [SimpleExpr; 4],
    is_locking: bool,
) -> SelectStatement {
    use customer_operator::Column;
    let [holder, own, same_id] = ["holder", "own", "same_id"].map(Alias::new);
    let mut holders = customer::Entity::find()
        .filter(customer::Column::Email.into_expr().eq(email).or(customer::Column::Phone.into_expr().eq(phone)))
        .order_by_asc(customer::Column::Id)
        .into_query();
    if is_locking {
        holders.lock_exclusive();
    }
    let is_of_operator = |link: &Alias| Expr::col((link.clone(), Column::OperatorId)).eq(operator.clone());
    let is_own = Expr::col((own.clone(), Column::CustomerId)).equals((holder.clone(), customer::Column::Id));
    let has_id = Expr::col((same_id.clone(), Column::ExternalCustomerId)).eq(external_customer_id);
    let (is_own, has_id) = (is_own.and(is_of_operator(&own)), has_id.and(is_of_operator(&same_id)));
    Query::select()
        .expr_as(Expr::col((own.clone(), Column::CustomerId)).is_not_null(), "is_own")
        .expr_as(Expr::col((same_id.clone(), Column::CustomerId)), "with_same_id")
        .exprs(customer::Column::iter().map(|column| Expr::col((holder.clone(), column))))
        // The other tables are joined to a constant row, so that there is a result even if no customer is found.
        .from_subquery(Query::select().expr_as(Expr::cust("1"), "one").take(), "always")
        .join_subquery(JoinType::LeftJoin, holders, holder.clone(), Expr::cust("TRUE"))
        .join_as(JoinType::LeftJoin, customer_operator::Entity, own, is_own)
        .join_as(JoinType::LeftJoin, customer_operator::Entity, same_id, has_id)
        .take()
}
