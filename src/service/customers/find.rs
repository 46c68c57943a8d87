//! Finds customers by an id, an email or a phone, for callers and for writes.

use std::sync::Arc;

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{ExprTrait, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select,
    SelectTwo,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::row_reads::{self, OwnCustomer, of_operator, own_customer_at};
use super::{CustomerView, Customers, timing_safe};
use crate::database::{BatchedQuery, OptimisticWrite, Reader, TransactionError, is_one_of};
use crate::error::Error;
use crate::request::count_query;
use crate::service::Caller;
use crate::service::idempotency::{IdempotencyKeyLookup, IdempotentRequest};

/// A reference to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerRef {
    Id(CustomerId),
    /// Only together with an operator, because each operator has its own external ids. The platform must not look up a
    /// customer by this reference alone.
    ExternalCustomerId(ExternalCustomerId),
    Email(EmailAddress),
    Phone(PhoneNumber),
}

/// The kind of a [`CustomerRef`].
#[derive(Clone, Copy)]
enum RefKind {
    Id,
    ExternalCustomerId,
    Email,
    Phone,
}

/// A value for each kind of a [`CustomerRef`].
pub(super) struct ByRefKind<T> {
    id: T,
    external_customer_id: T,
    email: T,
    phone: T,
}

impl<T> ByRefKind<T> {
    fn new(value: impl Fn(RefKind) -> T) -> Self {
        Self {
            id: value(RefKind::Id),
            external_customer_id: value(RefKind::ExternalCustomerId),
            email: value(RefKind::Email),
            phone: value(RefKind::Phone),
        }
    }

    fn get(&self, kind: RefKind) -> &T {
        match kind {
            RefKind::Id => &self.id,
            RefKind::ExternalCustomerId => &self.external_customer_id,
            RefKind::Email => &self.email,
            RefKind::Phone => &self.phone,
        }
    }
}

/// The result of the lookups of a request with an idempotency key.
pub(super) enum FoundOrReplay<T, R> {
    Found(T),
    /// The stored result of the key, which is in use. Results of other lookups are dropped.
    Replay(R),
}

impl<T, R> FoundOrReplay<T, R> {
    /// Returns the stored result if there is one, and otherwise the result of the lookups.
    fn new(found: T, stored: Option<R>) -> Self {
        stored.map_or(Self::Found(found), Self::Replay)
    }

    fn map<U>(self, map: impl FnOnce(T) -> U) -> FoundOrReplay<U, R> {
        match self {
            Self::Found(found) => FoundOrReplay::Found(map(found)),
            Self::Replay(stored) => FoundOrReplay::Replay(stored),
        }
    }
}

impl Customers {
    /// Finds a customer. Returns `None` if the caller may not see it.
    pub async fn find(&self, caller: &Caller, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        Ok(self.find_with(self.database.reader(), caller, reference).await?)
    }

    /// Finds the customers with these ids that the caller may see.
    pub async fn find_by_ids(&self, caller: &Caller, ids: Vec<CustomerId>) -> Result<Vec<Arc<CustomerView>>, Error> {
        let is_listed = is_one_of(self.database.reader(), customer::Column::Id, ids);
        let reader = self.database.reader();
        let views: Vec<_> = match caller.operator() {
            None => {
                let query = customer::Entity::find().filter(is_listed).into_query();
                let found = row_reads::read_customers(reader, &query).await?;
                found.into_iter().map(|customer| Arc::new(CustomerView::new(customer, None))).collect()
            }
            Some(operator) => {
                let query = of_operator(operator).filter(is_listed).into_query();
                let found = row_reads::read_own_customers(reader, &query).await?;
                found.into_iter().map(|own| Arc::new(CustomerView::from(own))).collect()
            }
        };
        count_query(views.len());
        Ok(views)
    }

    /// Like [`find`](Self::find), but for the result of a write: the row does not count for the size of the response,
    /// because a stored write must not fail. If the returned error is a conflict, the write runs again.
    pub(super) async fn find_for_write(
        &self,
        caller: &Caller,
        reference: &CustomerRef,
    ) -> Result<Option<CustomerView>, DbErr> {
        self.find_with(&self.database.uncounted_reader(), caller, reference).await
    }

    async fn find_with(
        &self,
        reader: &Reader,
        caller: &Caller,
        reference: &CustomerRef,
    ) -> Result<Option<CustomerView>, DbErr> {
        let Some(operator) = caller.operator() else { return find_any(reader, any_customer(reference)).await };
        let found = self.find_own(reader, operator, reference).await?;
        Ok(found.map(CustomerView::from))
    }

    /// Finds one of an operator's customers.
    async fn find_own(
        &self,
        reader: &Reader,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<OwnCustomer>, DbErr> {
        let (kind, value) = reference.kind_and_value();
        let query = self.own_queries.get(kind);
        let rows = query.run(reader, [operator.into(), value]).await?;
        rows.first().map(|row| own_customer_at(row, 0)).transpose()
    }

    /// Like [`find`](Self::find), but locks the customer if the write takes locks. If the idempotency key of the
    /// request is in use, returns its stored result instead.
    pub(super) async fn find_or_replay<R: DeserializeOwned>(
        &self,
        attempt: &OptimisticWrite,
        caller: &Caller,
        idempotent: &IdempotentRequest,
        reference: &CustomerRef,
    ) -> Result<FoundOrReplay<Option<CustomerView>, R>, TransactionError> {
        if let Some(operator) = caller.operator() {
            let found = self.find_own_or_replay(attempt, operator, idempotent, reference).await?;
            return Ok(found.map(|own| own.map(CustomerView::from)));
        }
        let customers = any_customer(reference);
        let customers = if attempt.is_locking() { customers.lock_exclusive() } else { customers };
        let found = find_any(attempt, customers).await?;
        let stored = idempotent.find(attempt).await?;
        Ok(FoundOrReplay::new(found, stored))
    }

    /// Finds one of an operator's customers, and locks it if the write takes locks. If the idempotency key of the
    /// request is in use, returns its stored result instead.
    pub(super) async fn find_own_or_replay<R: DeserializeOwned>(
        &self,
        attempt: &OptimisticWrite,
        operator: OperatorId,
        idempotent: &IdempotentRequest,
        reference: &CustomerRef,
    ) -> Result<FoundOrReplay<Option<OwnCustomer>, R>, TransactionError> {
        let (kind, value) = reference.kind_and_value();
        let (found, stored) = if attempt.is_locking() {
            let query = kind.own_customers(operator.into(), value.into());
            let found = row_reads::lock_own_customers(attempt, query).await?.into_iter().next();
            // The key is looked up under the lock. While this request waited for the lock, another request may have
            // changed the customer and used the key.
            (found, idempotent.find(attempt).await?)
        } else if let Some([key_hash, now]) = idempotent.values().filter(|_| idempotent.is_of(operator)) {
            let query = self.own_or_replay_queries.get(kind);
            let rows = query.run(&self.database.uncounted_reader(), [operator.into(), value, key_hash, now]).await?;
            let row = rows.first();
            let found = row.map(|row| row_reads::joined_own_customer_at(row, 0)).transpose()?.flatten();
            (found, row.map(|row| idempotent.stored_result(row)).transpose()?.flatten())
        } else {
            // There is no idempotency key, or the platform disconnects a customer of the operator. In the second case
            // the key belongs to the platform and the customer to the operator, so one statement cannot look up the key
            // and the customer.
            let found = self.find_own(&self.database.uncounted_reader(), operator, reference).await?;
            (found, idempotent.find(attempt).await?)
        };
        Ok(FoundOrReplay::new(found, stored))
    }
}

/// Selects the customer from all customers of the platform.
fn any_customer(reference: &CustomerRef) -> Select<customer::Entity> {
    let (kind, value) = reference.kind_and_value();
    customer::Entity::find().filter(kind.column().eq(value)).limit(1)
}

async fn find_any(
    connection: &impl ConnectionTrait,
    customers: Select<customer::Entity>,
) -> Result<Option<CustomerView>, DbErr> {
    let found = row_reads::read_customers(connection, &customers.into_query()).await?;
    count_query(found.len());
    Ok(found.into_iter().next().map(|customer| CustomerView::new(customer, None)))
}

impl CustomerRef {
    /// Returns the reference as JSON, for the hash of an idempotent request.
    pub(super) fn canonical_json(&self) -> serde_json::Value {
        match self {
            Self::Id(id) => json!({ "id": id.to_string() }),
            Self::ExternalCustomerId(id) => json!({ "externalCustomerId": id.as_str() }),
            Self::Email(email) => json!({ "email": email }),
            Self::Phone(phone) => json!({ "phone": phone }),
        }
    }

    /// Returns the kind, and the value to compare the [column](RefKind::column) with.
    fn kind_and_value(&self) -> (RefKind, sea_orm::Value) {
        match self {
            Self::Id(id) => (RefKind::Id, (*id).into()),
            Self::ExternalCustomerId(id) => (RefKind::ExternalCustomerId, id.clone().into()),
            Self::Email(email) => (RefKind::Email, email.clone().into()),
            Self::Phone(phone) => (RefKind::Phone, phone.clone().into()),
        }
    }
}

impl RefKind {
    fn column(self) -> SimpleExpr {
        match self {
            Self::Id => customer::Column::Id.into_expr(),
            Self::ExternalCustomerId => customer_operator::Column::ExternalCustomerId.into_expr(),
            Self::Email => customer::Column::Email.into_expr(),
            Self::Phone => customer::Column::Phone.into_expr(),
        }
    }

    /// Selects the operator's customer with this value, and its link.
    fn own_customers(
        self,
        operator: SimpleExpr,
        value: SimpleExpr,
    ) -> SelectTwo<customer_operator::Entity, customer::Entity> {
        let has_value = match self {
            Self::Id | Self::ExternalCustomerId => Condition::all().add(self.column().eq(value)),
            Self::Email => timing_safe::has_all(operator.clone(), [(customer::Column::Email, value)]),
            Self::Phone => timing_safe::has_all(operator.clone(), [(customer::Column::Phone, value)]),
        };
        of_operator(operator).filter(has_value)
    }
}

/// Returns the queries that find a customer of an operator.
pub(super) fn own_queries() -> ByRefKind<BatchedQuery<2>> {
    ByRefKind::new(|kind| BatchedQuery::new(move |[operator, value]| kind.own_customers(operator, value).into_query()))
}

/// Like [`own_queries`], but each query also looks up an idempotency key, and finds a customer only if the key is new.
pub(super) fn own_or_replay_queries() -> ByRefKind<BatchedQuery<4>> {
    ByRefKind::new(|kind| {
        BatchedQuery::new(move |[operator, value, key_hash, now]| {
            let key = IdempotencyKeyLookup { operator: operator.clone(), key_hash, now };
            key.join(kind.own_customers(operator, value).filter(key.is_new()).into_query())
        })
    })
}
