//! Customers: one record per person, shared by all operators that the person is connected to.
//!
//! [`Customers`] is the facade. Its methods are beside their types: `create`, `update`, `validate`, `lists`, `search`,
//! `history`.
//!
//! An operator sees a customer only through its own link; the platform sees all customers. Queries for an operator's
//! customers start from [`rows::of_operator`] or from the links in `lists`, which filter by the operator. Creates and updates
//! also look for an email or a phone among all customers of the platform; the limit on disclosures bounds what the caller
//! learns from this.
//!
//! A write puts its rows into one `WriteSet`. On PostgreSQL, no statement of the set sees the rows that another
//! statement writes; on SQLite the statements run in order. The order must give the same result on both databases. For
//! example, the words of a connected customer are replaced before the words of the new link are inserted.

mod changes;
mod create;
mod existing;
mod field;
mod history;
mod lists;
mod rows;
mod search;
mod update;
mod validate;

pub use create::{Created, CustomerDraft, MatchKey, Outcome};
pub use field::CustomerField;
pub use lists::{
    CustomerFilter, CustomerList, CustomerOrder, CustomerOrderField, CustomerPage, CustomerRows, TimeRange,
};
pub use search::SearchPlan;
pub use update::{CustomerChanges, Updated};
pub use validate::Validation;

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{ExprTrait, LockType, SimpleExpr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::idempotency::{IdempotentRequest, KeyLookup};
use super::restrictions::Restrictions;
use super::{Actor, Limits, Origin};
use crate::database::pages::{Page, PageRequest};
use crate::database::{BatchedQuery, Database, OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, Violation};
use crate::keyed_hash::KeyedHash;
use rows::{Link, of_operator, own_at};

pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    hash: KeyedHash,
    limits: Limits,
    /// Queries for one of an operator's customers, one for each kind of [`CustomerRef`].
    own_queries: [BatchedQuery<2>; 4],
    /// The same queries, for an update with an idempotency key.
    own_or_stored_queries: [BatchedQuery<4>; 4],
    /// Query for the rows that share a unique value with a new customer.
    existing_query: BatchedQuery<4>,
    /// The same query, for a create with an idempotency key.
    existing_or_stored_query: BatchedQuery<6>,
}

/// A customer as it appears to a caller.
#[derive(Clone)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen. `None` in the platform's list of all customers.
    pub link: Option<Link>,
    /// A page of the customer's operators, if it was fetched together with the customer.
    pub operators: Option<(PageRequest, Page<Link>)>,
}

/// The result of a write: [`Created`] or [`Updated`].
#[derive(Clone)]
pub struct Written<D> {
    pub view: CustomerView,
    /// Restrictions that production would enforce.
    pub warnings: Vec<Violation>,
    /// True if this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
    pub details: D,
}

/// The part of [`Written`] that is stored under an idempotency key. It holds no data of a person.
#[derive(Serialize, Deserialize)]
struct StoredOutcome<D> {
    customer: Uuid,
    warnings: Vec<ErrorCode>,
    #[serde(flatten)]
    details: D,
}

/// The outcome of the lookups of a request with an idempotency key.
enum OrStored<T, R> {
    Found(T),
    /// The key is in use. Nothing else was looked up.
    Stored(R),
}

/// The outcome of the reads of an attempt to write.
#[expect(clippy::large_enum_variant, reason = "nearly every attempt writes")]
enum Prepared<D> {
    /// The rows to write, and the result once they are written.
    Write {
        write_tx: OptimisticWrite,
        writes: WriteSet,
        /// The rows hold a new phone, which the carrier has to accept first.
        stores_phone: bool,
        written: Written<D>,
    },
    /// The stored outcome of the idempotency key.
    Stored(StoredOutcome<D>),
}

/// The outcome of one attempt to write.
#[expect(clippy::large_enum_variant, reason = "nearly every attempt is Done")]
enum Attempt<D> {
    Done(Written<D>),
    /// The attempt would store a phone that the carrier has not accepted yet. Nothing was written.
    NeedsPhoneCheck,
}

/// A reference to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerRef {
    Id(CustomerId),
    ExternalCustomerId(ExternalCustomerId),
    Email(EmailAddress),
    Phone(PhoneNumber),
}

impl Customers {
    pub fn new(database: Database, restrictions: Restrictions, hash: KeyedHash, limits: Limits) -> Self {
        let (own_queries, own_or_stored_queries) = Default::default();
        let (existing_query, existing_or_stored_query) = Default::default();
        Self {
            database,
            restrictions,
            hash,
            limits,
            own_queries,
            own_or_stored_queries,
            existing_query,
            existing_or_stored_query,
        }
    }

    /// Runs a write to its end: retries it after conflicts, replays the stored outcome of `idempotent`, and checks `phone`.
    /// `prepare` looks up `idempotent` before it reads other customers than the caller's.
    ///
    /// The carrier lookup may take several seconds, so it never runs inside a transaction. An attempt that would store an
    /// unchecked phone ends before it writes; then the phone is checked, and the write starts again.
    async fn run_write<D: Serialize + DeserializeOwned, F>(
        &self,
        name: &'static str,
        origin: &Origin,
        phone: Option<&PhoneNumber>,
        idempotent: Option<&IdempotentRequest>,
        prepare: impl Fn(OptimisticWrite) -> F,
    ) -> Result<Written<D>, Error>
    where
        F: Future<Output = Result<Prepared<D>, TransactionError>>,
    {
        let try_write = async |write_tx: OptimisticWrite, is_phone_checked: bool| {
            let (write_tx, mut writes, stores_phone, written) = match prepare(write_tx).await? {
                Prepared::Write { write_tx, writes, stores_phone, written } => {
                    (write_tx, writes, stores_phone, written)
                }
                Prepared::Stored(stored) => return self.replay(origin, stored).await.map(Attempt::Done),
            };
            if stores_phone && !is_phone_checked {
                return Ok(Attempt::NeedsPhoneCheck);
            }
            if let Some(idempotent) = idempotent {
                let Written { view, warnings, details, .. } = &written;
                let warnings = warnings.iter().map(|warning| warning.code).collect();
                idempotent
                    .store(&mut writes, &StoredOutcome { customer: *view.customer.id.as_uuid(), warnings, details });
            }
            write_tx.write(writes).await?;
            Ok(Attempt::Done(written))
        };
        let attempt = async |write_tx, is_phone_checked| {
            let attempted = try_write(write_tx, is_phone_checked).await;
            // The result of another attempt may be stored after a conflict or a lost connection. A refusal is final: it was
            // decided with a key that was not in use.
            if matches!(attempted, Ok(_) | Err(TransactionError::Error(Error::Rejected(_)))) {
                return attempted;
            }
            let replayed = self.find_replay(origin, idempotent).await?;
            replayed.map_or(attempted, |replayed| Ok(Attempt::Done(replayed)))
        };
        let run = |is_phone_checked| {
            let attempt = &attempt;
            OptimisticWrite::run(&self.database, name, move |write_tx| attempt(write_tx, is_phone_checked))
        };
        let lookup = &self.restrictions.phone_lookup;
        if let Attempt::Done(written) = run(lookup.is_none()).await? {
            return Ok(written);
        }
        if let (Some(lookup), Some(phone)) = (lookup, phone) {
            // Boxed: this rare lookup would double the size of every write's future.
            Box::pin(lookup.check(phone)).await?;
        }
        match run(true).await? {
            Attempt::Done(written) => Ok(written),
            Attempt::NeedsPhoneCheck => Err(ErrorCode::Internal.into()),
        }
    }

    /// Restores the result of an earlier request with the same idempotency key, if there is one.
    async fn find_replay<D: DeserializeOwned>(
        &self,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
    ) -> Result<Option<Written<D>>, TransactionError> {
        match find_stored(idempotent, self.database.reader()).await? {
            Some(stored) => self.replay(origin, stored).await.map(Some),
            None => Ok(None),
        }
    }

    /// Restores the result of an earlier request, with the customer as it is now.
    async fn replay<D>(&self, origin: &Origin, stored: StoredOutcome<D>) -> Result<Written<D>, TransactionError> {
        let StoredOutcome { customer, warnings, details } = stored;
        let own = self.find_own(origin.operator, &CustomerRef::Id(customer.into())).await?;
        let (link, customer) = own.ok_or_else(|| Error::from(ErrorCode::CustomerNotFound))?;
        let warnings = self.restrictions.warnings_from_codes(&warnings);
        Ok(Written { view: CustomerView::new(customer, Some(link)), warnings, replayed: true, details })
    }

    /// Finds a customer. Returns `None` if the caller may not see it.
    pub async fn find(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        let Some(operator) = actor.operator() else {
            let (_, column, value) = reference.column();
            let query = customer::Entity::find().filter(column.eq(value)).limit(1).into_query();
            let found = rows::customers(self.database.reader(), &query).await?;
            return Ok(found.into_iter().next().map(|customer| CustomerView::new(customer, None)));
        };
        let found = self.find_own(operator, reference).await?;
        Ok(found.map(|(link, customer)| CustomerView::new(customer, Some(link))))
    }

    /// Finds one of an operator's customers.
    async fn find_own(
        &self,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<(Link, customer::Model)>, DbErr> {
        let (kind, column, value) = reference.column();
        let own_query =
            |[operator, value]: [SimpleExpr; 2]| of_operator(operator).filter(column.clone().eq(value)).into_query();
        let rows = self.own_queries[kind].run(self.database.reader(), [operator.into(), value], own_query).await?;
        rows.first().map(|row| own_at(row, 0)).transpose()
    }

    /// Finds one of an operator's customers, and locks it if the write takes locks. If the idempotency key of the request is
    /// in use, returns its stored outcome instead.
    async fn find_own_for_update<R: DeserializeOwned>(
        &self,
        write_tx: &OptimisticWrite,
        operator: OperatorId,
        idempotent: Option<&IdempotentRequest>,
        reference: Option<&CustomerRef>,
    ) -> Result<OrStored<Option<(Link, customer::Model)>, R>, TransactionError> {
        let Some(reference) = reference else {
            let stored = find_stored(idempotent, write_tx).await?;
            return Ok(stored.map_or(OrStored::Found(None), OrStored::Stored));
        };
        let (kind, column, value) = reference.column();
        let own_query =
            |operator: SimpleExpr, value: SimpleExpr| of_operator(operator).filter(column.clone().eq(value));
        let (found, stored) = match idempotent {
            _ if write_tx.is_locking() => {
                let mut query = own_query(operator.into(), value.into());
                QuerySelect::query(&mut query).lock_with_tables(LockType::Update, [customer::Entity]);
                let found = rows::own_customers(write_tx, &query.into_query()).await?.into_iter().next();
                // Looked up under the lock: a request that has changed the customer meanwhile may have used the key.
                (found, find_stored(idempotent, write_tx).await?)
            }
            Some(idempotent) => {
                let [key_hash, now] = idempotent.values();
                let select = |[operator, value, key_hash, now]: [SimpleExpr; 4]| {
                    let key = KeyLookup { operator: operator.clone(), key_hash, now };
                    key.join(own_query(operator, key.if_new(value)).into_query())
                };
                let values = [operator.into(), value, key_hash, now];
                let rows = self.own_or_stored_queries[kind].run(self.database.reader(), values, select).await?;
                let row = rows.first();
                let found = row.map(|row| rows::joined_own_at(row, 0)).transpose()?.flatten();
                (found, row.map(|row| idempotent.outcome(row)).transpose()?.flatten())
            }
            None => (self.find_own(operator, reference).await?, None),
        };
        Ok(stored.map_or(OrStored::Found(found), OrStored::Stored))
    }
}

impl CustomerRef {
    /// Returns the index of the query in `own_queries`, the column to compare, and the value to compare with.
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

    /// Fields that are still empty.
    pub fn missing_fields(&self) -> Vec<CustomerField> {
        CustomerField::all().filter(|field| field.is_missing(&self.customer)).collect()
    }
}

/// Finds the stored outcome of a request. `None` if it has no idempotency key, or if the key is not in use.
async fn find_stored<R: DeserializeOwned>(
    idempotent: Option<&IdempotentRequest>,
    connection: &impl ConnectionTrait,
) -> Result<Option<R>, TransactionError> {
    match idempotent {
        Some(idempotent) => idempotent.find(connection).await,
        None => Ok(None),
    }
}

/// The phone that a request gives.
fn given_phone(given: &customer::ActiveModel) -> Option<&PhoneNumber> {
    given.phone.try_as_ref().and_then(Option::as_ref)
}
