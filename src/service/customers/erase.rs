//! Erases customers, and reads the receipts of erasures. Platform only.
//!
//! One transaction deletes the customer, its links, its search words and the cached carrier results for its phones,
//! sets the values in its history to null, removes its external ids from the earlier rows of the feed, and inserts the
//! receipt. The history entries are kept, but without values. Stored results of idempotency keys are kept too: they
//! hold no values of the customer, and expire after a day.
//!
//! SQLite does not overwrite deleted content. [`Customers::purge_erased`] rewrites the file without the deleted
//! content.

use std::collections::BTreeSet;

use entity::customer_event::Values;
use entity::erasure::{Column, Entity, Model};
use entity::value::{CustomerId, ErasureId, ErasureReference, IdempotencyKey};
use entity::{customer, customer_event, customer_operator, phone_lookup};
use sea_orm::{ColumnTrait, EntityTrait, IdenStatic, PaginatorTrait, QueryFilter, QuerySelect, QueryTrait};
use serde::Serialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{CustomerField, Customers, Prepared, Replayable, changes, feed_rows, find_stored, history, rows};
use crate::database::pages::{self, List, Page, PageRequest, Position, Positioned};
use crate::database::{
    ByBackend, OptimisticWrite, TransactionError, WriteSet, WriteStatement, delete_listed, positions, update_listed,
};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::phone_lookup::lookup_hashes;
use crate::service::{Actor, Origin, RequestInfo, now};

/// A request to erase a customer.
#[derive(Clone, Debug)]
pub struct EraseRequest {
    /// `None` for a malformed id, because no customer has such an id.
    pub customer: Option<CustomerId>,
    pub reference: ErasureReference,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// The result of [`Customers::erase`].
#[derive(Clone)]
pub struct Erased {
    pub erasure: Model,
    /// True if this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

const DELETE_CUSTOMER: WriteStatement = WriteStatement {
    name: "erase customers",
    columns: || vec![customer::Column::Id.as_str(), customer::Column::Revision.as_str()],
    statement: |new| {
        use customer::Column::{Id, Revision};
        let delete = delete_listed::<customer::Entity>(new, &[Id, Revision]);
        Box::new(ByBackend(move |backend| {
            delete.clone().and_where_option(positions::is_written_before(backend, "customer")).take()
        }))
    },
    must_write_all: true,
};

const DELETE_LOOKUPS: WriteStatement = WriteStatement {
    name: "erase lookups",
    columns: || vec![phone_lookup::Column::Hash.as_str()],
    statement: |new| Box::new(delete_listed::<phone_lookup::Entity>(new, &[phone_lookup::Column::Hash])),
    must_write_all: false,
};

const REDACT_EVENTS: WriteStatement = WriteStatement {
    name: "redact events",
    columns: || {
        use customer_event::Column::{After, Before, Id};
        [Id, Before, After].map(|column| column.as_str()).to_vec()
    },
    statement: |new| {
        use customer_event::Column::{After, Before, Id};
        Box::new(update_listed::<customer_event::Entity>(new, &[Id], [Before, After]))
    },
    must_write_all: true,
};

impl Customers {
    /// Erases a customer. Platform only.
    pub async fn erase(&self, actor: &Actor, request: &RequestInfo, erase: EraseRequest) -> Result<Erased, Error> {
        actor.require_platform()?;
        let origin = &actor.origin(request)?;
        let (key, input) = (&erase.idempotency_key, || erase.canonical_json());
        let idempotent = IdempotentRequest::new(&self.hash, origin, key, input);
        let idempotent = idempotent.as_ref();
        let prepare = |write_tx| self.prepare_erase(write_tx, origin, idempotent, &erase);
        self.run_write("customer.erase", origin, None, idempotent, prepare).await
    }

    async fn prepare_erase(
        &self,
        write_tx: OptimisticWrite,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
        erase: &EraseRequest,
    ) -> Result<Prepared<Erased>, TransactionError> {
        // The first attempt takes locks too, because its reads are several statements, which must see the same state.
        let write_tx = write_tx.into_locking().await?;
        let customers = customer::Entity::find().filter(customer::Column::Id.is_in(erase.customer)).lock_exclusive();
        let found = rows::customers(&write_tx, &customers.into_query()).await?;
        if let Some(stored) = find_stored(idempotent, &write_tx).await? {
            return Ok(Prepared::Stored(stored));
        }
        let not_found = || Error::from(Violation::of(ErrorCode::CustomerNotFound, InputField::Id));
        let customer = found.first().ok_or_else(not_found)?;
        let links = customer_operator::Entity::find()
            .filter(customer_operator::Column::CustomerId.eq(customer.id))
            .all(&write_tx)
            .await?;
        let events = customer_event::Entity::find()
            .filter(customer_event::Column::CustomerId.eq(customer.id))
            .all(&write_tx)
            .await?;

        let mut writes = WriteSet::new(origin.owner());
        changes::remove_links(&mut writes, &links);
        writes.push(DELETE_CUSTOMER, vec![vec![customer.id.into(), customer.revision.into()]]);
        let hashes = phones(customer, &events).into_iter().flat_map(|phone| lookup_hashes(&self.hash, phone));
        writes.push(DELETE_LOOKUPS, hashes.map(|hash| vec![hash.into()]).collect());
        let redacted = |event: &customer_event::Model| {
            let [before, after] = [&event.before, &event.after].map(without_values);
            vec![event.id.into(), before.into(), after.into()]
        };
        for events in events.chunks(MAX_EVENTS_PER_STATEMENT) {
            writes.push(REDACT_EVENTS, events.iter().map(redacted).collect());
        }
        feed_rows::redact(&mut writes, customer.id);
        history::record_erased(&mut writes, origin, customer, &links);
        let erasure = Model {
            id: ErasureId::new(),
            customer_id: customer.id,
            erased_at: now(),
            reference: erase.reference.clone(),
            request_id: origin.request.id,
            operators: i32::try_from(links.len()).unwrap_or(i32::MAX),
            entries: i32::try_from(events.len()).unwrap_or(i32::MAX),
        };
        writes.insert([erasure.clone()]);
        Ok(Prepared::Write { write_tx, writes, stores_phone: false, result: Erased { erasure, replayed: false } })
    }

    /// Finds a receipt. Returns `None` if the caller may not see it: only the platform sees receipts.
    pub async fn find_erasure(&self, actor: &Actor, id: ErasureId) -> Result<Option<Model>, Error> {
        if actor.require_platform().is_err() {
            return Ok(None);
        }
        Ok(Entity::find_by_id(id).one(self.database.reader()).await?)
    }

    /// Loads a page of the receipts, oldest first. Platform only.
    pub async fn erasures(&self, actor: &Actor, request: PageRequest) -> Result<Page<Model>, Error> {
        actor.require_platform()?;
        let list = List::new(Entity::find().into_query(), vec![Column::Id.into_expr()]);
        Ok(pages::page(self.database.reader(), list, request).await?)
    }

    /// If customers were erased since the last call, rewrites the SQLite file, so that the file contains none of their
    /// values any more. Returns true if the file was rewritten. Does nothing on PostgreSQL.
    pub async fn purge_erased(&self, actor: &Actor) -> Result<bool, Error> {
        actor.require_platform()?;
        let Some(purged) = self.database.sqlite_user_version().await? else { return Ok(false) };
        // The erasures are counted before the file is rewritten. If a customer is erased later, the next call rewrites
        // the file again.
        let erasures = Entity::find().count(self.database.reader()).await?;
        if erasures <= purged {
            return Ok(false);
        }
        self.database.vacuum_sqlite(erasures).await?;
        Ok(true)
    }
}

/// The number of entries that one statement changes. SQLite allows at most 32,766 values in a statement, and an entry
/// needs three.
const MAX_EVENTS_PER_STATEMENT: usize = 5_000;

/// Returns all phones that a customer has or had.
fn phones<'c>(customer: &'c customer::Model, events: &'c [customer_event::Model]) -> BTreeSet<&'c str> {
    let values = events.iter().flat_map(|event| [&event.before, &event.after]);
    let earlier = values.filter_map(|values| values.0.get(CustomerField::Phone.name())?.as_str());
    customer.phone.iter().map(|phone| phone.as_str()).chain(earlier).collect()
}

/// Returns the same fields, each with the value null.
fn without_values(values: &Values) -> Values {
    Values(values.0.keys().map(|name| (name.clone(), Json::Null)).collect())
}

impl Replayable for Erased {
    /// The id of the receipt.
    type Stored = Uuid;

    fn to_stored(&self) -> impl Serialize {
        *self.erasure.id.as_uuid()
    }

    async fn replay(customers: &Customers, origin: &Origin, stored: Uuid) -> Result<Self, TransactionError> {
        let erasure = customers.find_erasure(&origin.actor, stored.into()).await?;
        let erasure = erasure.ok_or_else(|| Error::internal("the receipt of an erasure is missing"))?;
        Ok(Self { erasure, replayed: true })
    }
}

impl EraseRequest {
    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    fn canonical_json(&self) -> String {
        let Self { customer, reference, idempotency_key: _ } = self;
        let customer = customer.map(|id| id.to_string());
        json!({ "eraseCustomer": { "customer": customer, "reference": reference.as_str() } }).to_string()
    }
}

impl Positioned for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}
