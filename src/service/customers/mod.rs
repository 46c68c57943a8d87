//! Customers: one record per person, shared by all operators that the person is connected to.
//!
//! All operations on customers are methods of [`Customers`]. Most modules of this folder implement some of the methods,
//! and define the types of their arguments and results. For example, `create.rs` has [`Customers::create`],
//! [`CustomerDraft`] and [`Created`].
//!
//! | module | contents |
//! | --- | --- |
//! | `create`, `update`, `verify`, `disconnect`, `erase` | one kind of change each: its request, its rules and its result |
//! | `remove_customers` | disconnects all customers of an operator that has left the platform |
//! | `run_write` | runs the attempts of a change, and stores and replays results of idempotency keys |
//! | `validate` | checks the input of `create` and writes nothing |
//! | `find` | finds customers by id, external id, email or phone, for callers and for changes |
//! | `existing` | finds the customers that share a unique value with a new customer |
//! | `lists` | pages and counts of lists, with filters and searches |
//! | `links` | pages of the links of a customer |
//! | `history` | the entries of changes, their lists, and who sees an entry |
//! | `change_rows` | the rows that each kind of change writes, in their order |
//! | `feed_rows`, `words` | the rows of the feed and the search words that a change writes |
//! | `word_backfill` | adds search words to links that have none |
//! | `row_reads` | reads rows of `customer` and `customer_operator` |
//! | `timing_safe` | lookups whose response time does not reveal the customers of other operators |
//! | `field` | the table of the fields of a customer |
//!
//! An operator sees a customer only through its own link; the platform sees all customers. Each query that returns an
//! operator's customers starts in `row_reads`, `lists` or `existing`, and filters by the operator. Other
//! modules only extend these queries. `createCustomer` and `updateCustomer` also look up an email or a phone among all
//! customers of the platform. The limit on disclosures limits what a caller can learn from this.
//!
//! A write usually collects its rows in one `WriteSet`. The takeover of a phone needs a set for each customer. An
//! erasure redacts the history in earlier sets of limited size.

mod change_rows;
mod create;
mod disconnect;
mod erase;
mod existing;
mod feed_rows;
mod field;
mod find;
mod history;
mod links;
mod lists;
mod remove_customers;
mod row_reads;
mod run_write;
mod timing_safe;
mod update;
mod validate;
mod verify;
mod word_backfill;
mod words;

pub use create::{ConnectBy, CreateOutcome, Created, CustomerDraft, MatchKey};
pub use disconnect::{DisconnectRequest, Disconnected};
pub use erase::{EraseRequest, Erased};
pub use field::{CustomerField, CustomerPatch};
pub use find::CustomerRef;
pub use history::{HistoryEntry, HistoryList};
pub use lists::{
    CustomerFilter, CustomerList, CustomerOrder, CustomerOrderField, CustomerPage, CustomerPageRequest, ListedCustomer,
    SearchPlan, TimeRange,
};
pub use run_write::Written;
pub use update::{CustomerChanges, Updated};
pub use validate::Validation;
pub use verify::{VerificationRequest, Verified, VerifiedValue};

use std::sync::Arc;

use entity::customer;
use entity::value::PhoneNumber;

use super::RateLimits;
use super::restrictions::Restrictions;
use crate::database::pages::{Page, PageRequest};
use crate::database::{BatchedQuery, Database};
use crate::keyed_hash::KeyedHasher;
use find::{ByRefKind, FoundOrReplay};
use row_reads::{Link, OwnCustomer};
use run_write::{Prepared, Replayable};

/// All operations on customers.
pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    hasher: KeyedHasher,
    limits: RateLimits,
    /// Queries that find a customer of an operator.
    own_queries: ByRefKind<BatchedQuery<2>>,
    /// Like `own_queries`, but each query also looks up an idempotency key.
    own_or_replay_queries: ByRefKind<BatchedQuery<4>>,
    /// Query for the customers that share a unique value with a new customer.
    existing_query: BatchedQuery<4>,
    /// Like `existing_query`, but also looks up an idempotency key.
    existing_or_replay_query: BatchedQuery<6>,
}

/// A customer as it appears to a caller.
#[derive(Clone)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen. `None` if the platform sees the customer without an
    /// operator, for example in its list of all customers.
    pub link: Option<Link>,
    /// A page of the customer's links, if it was read together with the customer.
    links: Option<(PageRequest, Page<Arc<Link>>)>,
}

impl Customers {
    pub fn new(database: Database, restrictions: Restrictions, hasher: KeyedHasher, limits: RateLimits) -> Self {
        Self {
            database,
            restrictions,
            hasher,
            limits,
            own_queries: find::own_queries(),
            own_or_replay_queries: find::own_or_replay_queries(),
            existing_query: BatchedQuery::new(|values| existing::existing_query(values, None)),
            existing_or_replay_query: BatchedQuery::new(existing::existing_or_replay_query),
        }
    }
}

impl CustomerView {
    fn new(customer: customer::Model, link: Option<Link>) -> Self {
        Self { customer, link, links: None }
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

impl From<OwnCustomer> for CustomerView {
    fn from(OwnCustomer { link, customer }: OwnCustomer) -> Self {
        Self::new(customer, Some(link))
    }
}

/// Returns the phone that a change from `before` to `after` adds to the customer. `before` is `None` for a new
/// customer.
fn added_phone<'c>(before: Option<&customer::Model>, after: &'c customer::Model) -> Option<&'c PhoneNumber> {
    let old = before.and_then(|before| before.phone.as_ref());
    after.phone.as_ref().filter(|phone| old != Some(phone))
}
