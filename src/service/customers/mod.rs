//! One person, one record: create or connect, update, and who sees what.

mod create;
mod field;
mod lists;
mod rows;
mod search;
mod update;
mod validate;

pub use create::{Created, MatchKey, NewCustomer, Outcome};
pub use field::CustomerField;
pub use lists::{CustomerFilter, CustomerList, CustomerOrder, CustomerOrderField, CustomerPage, TimeRange};
pub use update::{CustomerChanges, OwnCustomerRef, Updated};
pub use validate::Validation;

use std::sync::Arc;

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{ExprTrait, LockType, SimpleExpr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait};

use super::idempotency::IdempotentRequest;
use super::phone_lookup::PhoneLookup;
use super::restrictions::Restrictions;
use super::{Actor, Limits, Origin};
use crate::database::pages::{Page, PageRequest};
use crate::database::{BatchedQuery, Database, OptimisticWrite, TransactionError};
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;
use field::fields_where;
use rows::{Link, of_operator, own_at};

#[derive(Clone)]
pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    phone_lookup: Option<PhoneLookup>,
    hash: KeyedHash,
    limits: Limits,
    /// Of an operator's customers, by the kinds of their names.
    own_queries: Arc<[BatchedQuery<2>; 4]>,
    /// Of what a new customer has that others have already.
    existing_query: Arc<BatchedQuery<4>>,
}

/// A customer as a caller sees it.
#[derive(Clone)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen; `None` where the platform looks at all customers.
    pub link: Option<customer_operator::Model>,
    /// A page of the operators that the customer is connected to, where it was fetched with the customer.
    pub operators: Option<(PageRequest, Page<customer_operator::Model>)>,
}

/// How a caller names a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerRef {
    Id(CustomerId),
    ExternalCustomerId(ExternalCustomerId),
    Email(EmailAddress),
    Phone(PhoneNumber),
}

impl Customers {
    pub fn new(
        database: Database,
        restrictions: Restrictions,
        phone_lookup: Option<PhoneLookup>,
        hash: KeyedHash,
        limits: Limits,
    ) -> Self {
        Self {
            database,
            restrictions,
            phone_lookup,
            hash,
            limits,
            own_queries: Arc::default(),
            existing_query: Arc::default(),
        }
    }

    /// Makes an attempt that stops, and leaves nothing behind, when it is about to store a phone that nobody has judged
    /// yet; then has the phone judged, which no transaction can wait for, and makes the attempt anew.
    async fn with_checked_phone<T, F>(
        &self,
        phone: Option<&PhoneNumber>,
        attempt: impl Fn(bool) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Option<T>, Error>>,
    {
        if let Some(done) = attempt(self.phone_lookup.is_none()).await? {
            return Ok(done);
        }
        if let (Some(lookup), Some(phone)) = (&self.phone_lookup, phone) {
            lookup.check(phone).await?;
        }
        attempt(true).await?.ok_or_else(|| ErrorCode::Internal.into())
    }

    /// A request that carries an idempotency key.
    fn idempotent(
        &self,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
        canonical_form: impl FnOnce() -> String,
    ) -> Option<IdempotentRequest> {
        key.map(|key| IdempotentRequest::new(&self.hash, origin.operator, key, &canonical_form()))
    }

    /// The customer of a request that was done before, as it is now.
    async fn reload(&self, origin: &Origin, id: CustomerId) -> Result<CustomerView, TransactionError> {
        let own = self.find_own(origin.operator, &CustomerRef::Id(id)).await?;
        let (link, customer) = own.ok_or_else(|| Error::from(ErrorCode::CustomerNotFound))?;
        Ok(CustomerView::new(customer, Some(link)))
    }

    /// The customer so named, if the caller may see it.
    pub async fn find(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        let Some(operator) = actor.operator() else {
            let (_, column, name) = reference.column();
            let found = customer::Entity::find().filter(column.eq(name)).one(self.database.reader()).await?;
            return Ok(found.map(|customer| CustomerView::new(customer, None)));
        };
        let found = self.find_own(operator, reference).await?;
        Ok(found.map(|(link, customer)| CustomerView::new(customer, Some(link))))
    }

    /// The customer of an operator's own that is so named.
    async fn find_own(
        &self,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<(Link, customer::Model)>, DbErr> {
        let (kind, column, name) = reference.column();
        let own =
            |[operator, name]: [SimpleExpr; 2]| of_operator(operator).filter(column.clone().eq(name)).into_query();
        let rows = self.own_queries[kind].run(self.database.reader(), [operator.into(), name], own).await?;
        rows.first().map(own_at).transpose()
    }

    /// The same before it is written to.
    async fn find_own_for_update(
        &self,
        write_tx: &OptimisticWrite,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<(Link, customer::Model)>, DbErr> {
        if !write_tx.is_locking() {
            return self.find_own(operator, reference).await;
        }
        let (_, column, name) = reference.column();
        let mut own = of_operator(operator).filter(column.eq(name));
        QuerySelect::query(&mut own).lock_with_tables(LockType::Update, [customer::Entity]);
        let row = write_tx.query_one_raw(write_tx.get_database_backend().build(&own.into_query())).await?;
        row.as_ref().map(own_at).transpose()
    }
}

impl CustomerRef {
    /// The number of this kind of name, the column that holds it, and the name.
    fn column(&self) -> (usize, SimpleExpr, sea_orm::Value) {
        match self {
            Self::Id(id) => (0, customer::Column::Id.into_expr(), (*id).into()),
            Self::ExternalCustomerId(id) => {
                (1, customer_operator::Column::ExternalCustomerId.into_expr(), id.clone().into())
            }
            Self::Email(email) => (2, customer::Column::Email.into_expr(), email.clone().into()),
            Self::Phone(phone) => (3, customer::Column::Phone.into_expr(), phone.clone().into()),
        }
    }
}

impl CustomerView {
    fn new(customer: customer::Model, link: Option<Link>) -> Self {
        Self { customer, link, operators: None }
    }

    /// What the SDK would still ask the customer for.
    pub fn missing_fields(&self) -> Vec<CustomerField> {
        let customer = &self.customer;
        let missing = [
            (CustomerField::FirstName, customer.first_name.is_none()),
            (CustomerField::LastName, customer.last_name.is_none()),
            (CustomerField::Phone, customer.phone.is_none()),
            (CustomerField::Address, customer.address.is_none()),
        ];
        fields_where(missing)
    }
}
