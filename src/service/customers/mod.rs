//! Customers: one record per person, shared by all operators that the person is connected to.
//!
//! All operations on customers are methods of [`Customers`]. Most modules of this folder implement some of the methods,
//! and define the types of their arguments and results. For example, `create.rs` has [`Customers::create`],
//! [`CustomerDraft`] and [`Created`].
//!
//! An operator sees a customer only through its own link; the platform sees all customers. Each query that returns an
//! operator's customers starts in `rows`, `lists`, `search` or `existing`, and filters by the operator. Other modules
//! only extend these queries. `createCustomer` and `updateCustomer` also look up an email or a phone among all
//! customers of the platform. The limit on disclosures limits what a caller can learn from this.
//!
//! A write puts its rows into one `WriteSet`. A takeover of a phone uses two, one for each customer, and an erasure
//! uses one for each range of history entries besides. On PostgreSQL, no statement of the set sees the rows that
//! another statement writes; on SQLite the statements run in order. The order of the statements must therefore give the
//! same result on both databases. For example, when a customer is connected, the words of its existing links are
//! replaced before the new link and its words are inserted.

mod changes;
mod create;
mod disconnect;
mod erase;
mod existing;
mod feed_rows;
mod field;
mod filter;
mod history;
mod lists;
mod removal;
mod rows;
mod search;
mod update;
mod validate;
mod verify;
mod words;

pub use create::{ConnectBy, Created, CustomerDraft, MatchKey, Outcome};
pub use disconnect::{Disconnect, Disconnected};
pub use erase::{EraseRequest, Erased};
pub use field::CustomerField;
pub use filter::{CustomerFilter, TimeRange};
pub use history::{EventList, HistoryEntry};
pub use lists::{CustomerList, CustomerOrder, CustomerOrderField, CustomerPage, CustomerRows};
pub use search::SearchPlan;
pub use update::{CustomerChanges, Updated};
pub use validate::Validation;
pub use verify::{Verification, Verified, VerifiedValue};

use std::sync::Arc;

use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{ExprTrait, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::idempotency::{IdempotentRequest, KeyLookup};
use super::restrictions::Restrictions;
use super::{Actor, Limits, Origin};
use crate::database::pages::{Page, PageRequest};
use crate::database::{BatchedQuery, Database, OptimisticWrite, TransactionError, Work, WriteSet, record};
use crate::error::{Error, ErrorCode, Violation};
use crate::keyed_hash::KeyedHash;
use rows::{Link, of_operator, own_at};

pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    hash: KeyedHash,
    limits: Limits,
    /// Queries that find a customer of an operator. There is one query for each kind of [`CustomerRef`].
    own_queries: [BatchedQuery<2>; 4],
    /// Like `own_queries`, but each query also looks up an idempotency key.
    own_or_stored_queries: [BatchedQuery<4>; 4],
    /// Query for the rows that share a unique value with a new customer.
    existing_query: BatchedQuery<4>,
    /// Like `existing_query`, but also looks up an idempotency key.
    existing_or_stored_query: BatchedQuery<6>,
}

/// A customer as it appears to a caller.
#[derive(Clone)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen. `None` if the platform sees the customer without an
    /// operator, for example in its list of all customers.
    pub link: Option<Link>,
    /// A page of the customer's operators, if it was fetched together with the customer.
    pub operators: Option<(PageRequest, Page<Link>)>,
}

/// The result of a write, for example [`Created`].
#[derive(Clone)]
pub struct Written<D> {
    pub view: CustomerView,
    /// Violations of restrictions that only production enforces.
    pub warnings: Vec<Violation>,
    /// True if this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
    pub details: D,
}

/// The result of a write, which can be stored under an idempotency key and restored later.
trait Replayable: Sized {
    /// The stored form of the result, without personal data.
    type Stored: DeserializeOwned;

    fn to_stored(&self) -> impl Serialize;

    /// Restores the result of an earlier request. A result that contains a customer's record fails with
    /// `CUSTOMER_NOT_FOUND` if, since the first request, the customer was erased or was disconnected from the caller's
    /// operator.
    fn replay(
        customers: &Customers,
        origin: &Origin,
        stored: Self::Stored,
    ) -> impl Future<Output = Result<Self, TransactionError>> + Send;
}

/// The part of [`Written`] that is stored.
#[derive(Serialize, Deserialize)]
struct StoredOutcome<D> {
    customer: Uuid,
    /// Time at which the customer was connected to the caller's operator, in microseconds since 1970. `None` if the
    /// platform was the caller, or if an earlier version of this service stored the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected_at: Option<i64>,
    warnings: Vec<ErrorCode>,
    #[serde(flatten)]
    details: D,
}

/// The outcome of the lookups of a request with an idempotency key.
enum OrStored<T, R> {
    Found(T),
    /// The stored outcome of the key, which is in use. Results of other lookups are dropped.
    Stored(R),
}

impl<T, R> OrStored<T, R> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> OrStored<U, R> {
        match self {
            Self::Found(found) => OrStored::Found(map(found)),
            Self::Stored(stored) => OrStored::Stored(stored),
        }
    }
}

/// The outcome of the first part of an attempt, which reads rows.
#[expect(clippy::large_enum_variant, reason = "nearly every attempt writes")]
enum Prepared<R: Replayable> {
    /// The rows to write, and the result to return after they were written.
    Write {
        write_tx: OptimisticWrite,
        writes: WriteSet,
        /// True if the rows have a new phone. The carrier must accept a new phone before it is written. A phone that is
        /// taken over from another customer does not count as new.
        stores_phone: bool,
        result: R,
    },
    /// The stored outcome of the idempotency key.
    Stored(R::Stored),
}

/// The outcome of one attempt to write.
enum Attempt<R> {
    Done(R),
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

    /// Runs a write to completion: retries it after conflicts, replays the stored outcome of `idempotent`, and checks
    /// `phone`. For an operator, `prepare` must look up `idempotent` before it reads customers of other operators.
    ///
    /// The carrier lookup may take several seconds, so it never runs inside a transaction. If an attempt would store a
    /// phone that was not checked, the attempt ends before it writes. Then the phone is checked, and a new attempt
    /// starts.
    async fn run_write<R: Replayable, F>(
        &self,
        name: &'static str,
        origin: &Origin,
        phone: Option<&PhoneNumber>,
        idempotent: Option<&IdempotentRequest>,
        prepare: impl Fn(OptimisticWrite) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Prepared<R>, TransactionError>>,
    {
        let try_write = async |write_tx: OptimisticWrite, is_phone_checked: bool| {
            // While the secret is being changed, the key has two hashes, and the statement of `prepare` looks up only
            // one. The lookup uses the connection of the attempt: attempts that hold a connection and wait for another
            // one would block each other.
            if idempotent.is_some_and(IdempotentRequest::has_other_hash)
                && let Some(stored) = find_stored(idempotent, &write_tx).await?
            {
                drop(write_tx);
                return R::replay(self, origin, stored).await.map(Attempt::Done);
            }
            let (write_tx, mut writes, stores_phone, result) = match prepare(write_tx).await? {
                Prepared::Write { write_tx, writes, stores_phone, result } => (write_tx, writes, stores_phone, result),
                Prepared::Stored(stored) => return R::replay(self, origin, stored).await.map(Attempt::Done),
            };
            if stores_phone && !is_phone_checked {
                return Ok(Attempt::NeedsPhoneCheck);
            }
            if let Some(idempotent) = idempotent {
                idempotent.store(&mut writes, &result.to_stored());
            }
            write_tx.write(writes).await?;
            Ok(Attempt::Done(result))
        };
        let attempt = async |write_tx, is_phone_checked| {
            let attempted = try_write(write_tx, is_phone_checked).await;
            // After a conflict or a lost connection, the key may have a stored result: of another request, or of this
            // attempt. After a rejection the key is not looked up again, because the attempt has already looked up the
            // key.
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
        if let Attempt::Done(result) = run(lookup.is_none()).await? {
            return Ok(result);
        }
        if let (Some(lookup), Some(phone)) = (lookup, phone) {
            // Boxed, because this rare lookup would otherwise double the size of the future of every write.
            Box::pin(lookup.check(phone)).await?;
        }
        match run(true).await? {
            Attempt::Done(result) => Ok(result),
            Attempt::NeedsPhoneCheck => Err(Error::internal("a phone was not checked")),
        }
    }

    /// Restores the result of an earlier request with the same idempotency key, if there is one.
    async fn find_replay<R: Replayable>(
        &self,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
    ) -> Result<Option<R>, TransactionError> {
        match find_stored(idempotent, self.database.reader()).await? {
            Some(stored) => R::replay(self, origin, stored).await.map(Some),
            None => Ok(None),
        }
    }

    /// Finds a customer. Returns `None` if the caller may not see it.
    pub async fn find(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        Ok(self.find_visible(actor, reference).await?)
    }

    /// Finds the customers with these ids that the caller may see.
    pub async fn find_visible_among(
        &self,
        actor: &Actor,
        mut ids: Vec<CustomerId>,
    ) -> Result<Vec<Arc<CustomerView>>, Error> {
        let Some(first) = ids.first().copied() else { return Ok(Vec::new()) };
        // Repeats an id until the number of ids is a power of two, so that there are few different statements to
        // prepare.
        ids.resize(ids.len().next_power_of_two(), first);
        record(Work::Query, 1);
        let is_listed = customer::Column::Id.is_in(ids);
        let reader = self.database.reader();
        let views: Vec<_> = match actor.operator() {
            None => {
                let query = customer::Entity::find().filter(is_listed).into_query();
                let found = rows::customers(reader, &query).await?;
                found.into_iter().map(|customer| Arc::new(CustomerView::new(customer, None))).collect()
            }
            Some(operator) => {
                let query = of_operator(operator).filter(is_listed).into_query();
                let found = rows::own_customers(reader, &query).await?;
                let view = |(link, customer)| Arc::new(CustomerView::new(customer, Some(link)));
                found.into_iter().map(view).collect()
            }
        };
        record(Work::Row, views.len() as u64);
        Ok(views)
    }

    async fn find_visible(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, DbErr> {
        let Some(operator) = actor.operator() else {
            return find_any(self.database.reader(), any_customer(reference)).await;
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
        let (kind, _, value) = reference.column();
        let own_query = |[operator, value]: [SimpleExpr; 2]| {
            of_operator(operator.clone()).filter(reference.is_own(operator, value)).into_query()
        };
        let rows = self.own_queries[kind].run(self.database.reader(), [operator.into(), value], own_query).await?;
        rows.first().map(|row| own_at(row, 0)).transpose()
    }

    /// Like [`find`](Self::find), but locks the customer if the write takes locks. If the idempotency key of the
    /// request is in use, returns its stored outcome instead.
    async fn find_for_update<R: DeserializeOwned>(
        &self,
        write_tx: &OptimisticWrite,
        actor: &Actor,
        idempotent: Option<&IdempotentRequest>,
        reference: Option<&CustomerRef>,
    ) -> Result<OrStored<Option<CustomerView>, R>, TransactionError> {
        if let Some(operator) = actor.operator() {
            let found = self.find_own_for_update(write_tx, operator, idempotent, reference).await?;
            return Ok(found.map(|own| own.map(|(link, customer)| CustomerView::new(customer, Some(link)))));
        }
        let found = match reference.map(any_customer) {
            Some(customers) if write_tx.is_locking() => find_any(write_tx, customers.lock_exclusive()).await?,
            Some(customers) => find_any(write_tx, customers).await?,
            None => None,
        };
        let stored = find_stored(idempotent, write_tx).await?;
        Ok(stored.map_or(OrStored::Found(found), OrStored::Stored))
    }

    /// Finds one of an operator's customers, and locks it if the write takes locks. If the idempotency key of the
    /// request is in use, returns its stored outcome instead.
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
        let (kind, _, value) = reference.column();
        let own_query =
            |operator: SimpleExpr, value| of_operator(operator.clone()).filter(reference.is_own(operator, value));
        let (found, stored) = match idempotent {
            _ if write_tx.is_locking() => {
                let query = own_query(operator.into(), value.into());
                let found = rows::lock_own_customers(write_tx, query).await?.into_iter().next();
                // The key is looked up under the lock. While this request waited for the lock, another request may have
                // changed the customer and used the key.
                (found, find_stored(idempotent, write_tx).await?)
            }
            Some(idempotent) if idempotent.is_of(operator) => {
                let [key_hash, now] = idempotent.values();
                let select = |[operator, value, key_hash, now]: [SimpleExpr; 4]| {
                    let key = KeyLookup { operator: operator.clone(), key_hash, now };
                    key.join(own_query(operator, value).filter(key.is_new()).into_query())
                };
                let values = [operator.into(), value, key_hash, now];
                let rows = self.own_or_stored_queries[kind].run(self.database.reader(), values, select).await?;
                let row = rows.first();
                let found = row.map(|row| rows::joined_own_at(row, 0)).transpose()?.flatten();
                (found, row.map(|row| idempotent.outcome(row)).transpose()?.flatten())
            }
            // There is no idempotency key, or the platform disconnects a customer of the operator. In the second case
            // the key belongs to the platform and the customer to the operator, so one statement cannot look up the key
            // and the customer.
            _ => (self.find_own(operator, reference).await?, find_stored(idempotent, write_tx).await?),
        };
        Ok(stored.map_or(OrStored::Found(found), OrStored::Stored))
    }
}

impl<D: Serialize + DeserializeOwned + Send> Replayable for Written<D> {
    type Stored = StoredOutcome<D>;

    fn to_stored(&self) -> impl Serialize {
        let warnings = self.warnings.iter().map(|warning| warning.code).collect();
        let customer = *self.view.customer.id.as_uuid();
        StoredOutcome { customer, connected_at: self.view.connected_micros(), warnings, details: &self.details }
    }

    async fn replay(
        customers: &Customers,
        origin: &Origin,
        stored: StoredOutcome<D>,
    ) -> Result<Self, TransactionError> {
        let StoredOutcome { customer, connected_at, warnings, details } = stored;
        let view = customers.find_visible(&origin.actor, &CustomerRef::Id(customer.into())).await?;
        // The stored outcome belongs to the link that existed when the outcome was stored. Since then, the operator may
        // have disconnected the customer and connected the customer again, perhaps with another external id, which
        // stands for another user account of the operator. A repeated request must then not return the record.
        let view = view.filter(|view| connected_at.is_none() || view.connected_micros() == connected_at);
        let view = view.ok_or_else(|| Error::from(ErrorCode::CustomerNotFound))?;
        let warnings = customers.restrictions.warnings_from_codes(&warnings);
        Ok(Written { view, warnings, replayed: true, details })
    }
}

/// Selects the customer from all customers of the platform.
fn any_customer(reference: &CustomerRef) -> Select<customer::Entity> {
    let (_, column, value) = reference.column();
    customer::Entity::find().filter(column.eq(value)).limit(1)
}

async fn find_any(
    connection: &impl ConnectionTrait,
    customers: Select<customer::Entity>,
) -> Result<Option<CustomerView>, DbErr> {
    let found = rows::customers(connection, &customers.into_query()).await?;
    Ok(found.into_iter().next().map(|customer| CustomerView::new(customer, None)))
}

impl CustomerRef {
    /// Returns the reference as JSON, for the hash of an idempotent request.
    fn canonical_json(&self) -> serde_json::Value {
        match self {
            Self::Id(id) => json!({ "id": id.to_string() }),
            Self::ExternalCustomerId(id) => json!({ "externalCustomerId": id.as_str() }),
            Self::Email(email) => json!({ "email": email }),
            Self::Phone(phone) => json!({ "phone": phone }),
        }
    }

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

    /// Returns a condition on the operator's links, with their customers: the customer is the one with this `value`.
    fn is_own(&self, operator: SimpleExpr, value: SimpleExpr) -> Condition {
        match self {
            Self::Id(_) | Self::ExternalCustomerId(_) => Condition::all().add(self.column().1.eq(value)),
            Self::Email(_) => rows::has_all(operator, [(customer::Column::Email, value)]),
            Self::Phone(_) => rows::has_all(operator, [(customer::Column::Phone, value)]),
        }
    }
}

impl CustomerView {
    fn new(customer: customer::Model, link: Option<Link>) -> Self {
        Self { customer, link, operators: None }
    }

    /// Time at which the customer was connected to the caller's operator, in microseconds since 1970.
    fn connected_micros(&self) -> Option<i64> {
        self.link.as_ref().map(|link| link.connected_at.timestamp_micros())
    }

    /// Fields that are still empty.
    pub fn missing_fields(&self) -> Vec<CustomerField> {
        CustomerField::all().filter(|field| field.is_missing(&self.customer)).collect()
    }
}

/// Finds the stored outcome of a request. Returns `None` if the request has no idempotency key, or if no outcome is
/// stored under the key.
async fn find_stored<R: DeserializeOwned>(
    idempotent: Option<&IdempotentRequest>,
    connection: &impl ConnectionTrait,
) -> Result<Option<R>, TransactionError> {
    match idempotent {
        Some(idempotent) => idempotent.find(connection).await,
        None => Ok(None),
    }
}

/// The phone that a request sets.
fn given_phone(given: &customer::ActiveModel) -> Option<&PhoneNumber> {
    given.phone.try_as_ref().and_then(Option::as_ref)
}
