//! Erases customers, and reads the receipts of erasures. Platform only.
//!
//! One transaction sets the values in the customer's history to null, removes its external ids from the earlier rows of
//! the feed, deletes the customer, its links, its search words and the cached results of carrier lookups for its
//! phones, and inserts the receipt. The history entries are kept, but without values. Stored results of idempotency
//! keys are kept too: they hold no values of the customer, and expire after a day.
//!
//! SQLite does not overwrite deleted content. [`Customers::purge_erased`] rewrites the file without the deleted
//! content.

use std::collections::BTreeSet;

use entity::erasure::{Column, Entity, Model};
use entity::value::{CustomerEventId, CustomerId, ErasureId, ErasureReference, IdempotencyKey};
use entity::{customer, customer_change, customer_event, customer_operator, phone_lookup};
use sea_orm::sea_query::{BinOper, Expr, ExprTrait, Query, SimpleExpr, Value};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, IdenStatic, PaginatorTrait, QueryFilter, QueryOrder,
    QueryResult, QuerySelect, QueryTrait,
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::history::HISTORY_ORDER;
use super::{CustomerField, Customers, Prepared, Replayable, history, row_reads, row_writes};
use crate::database::pages::{self, HasPosition, ListPart, Page, PageRequest, Position};
use crate::database::{OptimisticWrite, TransactionError, WriteSet, WriteStatement, delete_in_cte};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::request::count_query;
use crate::service::idempotency::IdempotentRequest;
use crate::service::phone_lookup::lookup_hashes;
use crate::service::{Caller, Origin, RequestInfo, feed_positions, now};

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
    /// True if this is the stored result of an earlier request with the same idempotency key.
    pub replayed: bool,
}

const DELETE_CUSTOMER: WriteStatement = WriteStatement {
    name: "erase customers",
    columns: || vec![customer::Column::Id.as_str(), customer::Column::Revision.as_str()],
    build: |new, backend| {
        use customer::Column::{Id, Revision};
        let mut delete = delete_in_cte::<customer::Entity>(new, &[Id, Revision]);
        delete.and_where_option(feed_positions::keeps_version_order(backend, "customer"));
        Box::new(delete)
    },
    must_write_all: true,
};

const DELETE_LOOKUPS: WriteStatement = WriteStatement {
    name: "erase lookups",
    columns: || vec![phone_lookup::Column::Hash.as_str()],
    build: |new, _| Box::new(delete_in_cte::<phone_lookup::Entity>(new, &[phone_lookup::Column::Hash])),
    must_write_all: false,
};

/// Sets the values of history entries to null. The entries keep the names of the changed fields.
const REDACT_EVENTS: WriteStatement = WriteStatement {
    name: "redact events",
    columns: || vec!["of_customer", "first_version", "first_id", "last_version", "last_id"],
    build: |new, backend| {
        use customer_event::Column::{After, Before, CustomerId};
        let without_values = |column: customer_event::Column| (column, without_values(backend, column.as_str()));
        let mut update = Query::update();
        update.table(customer_event::Entity).from(new.clone()).values([Before, After].map(without_values));
        let listed =
            |columns: &[&'static str]| Expr::tuple(columns.iter().map(|column| Expr::col((new.clone(), *column))));
        let position = || Expr::tuple(HISTORY_ORDER.map(|column| column.into_expr()));
        update.and_where(CustomerId.into_expr().eq(Expr::col((new.clone(), "of_customer"))));
        update.and_where(position().gte(listed(&["first_version", "first_id"])));
        update.and_where(position().lte(listed(&["last_version", "last_id"])));
        Box::new(update)
    },
    must_write_all: false,
};

/// Removes the external ids from the feed rows of history entries.
const REDACT_FEED: WriteStatement = WriteStatement {
    name: "redact feed",
    columns: || vec!["of_customer", "first_id", "last_id"],
    build: |new, _| {
        use customer_change::Column::{CustomerId, ExternalCustomerId, Id};
        let listed = |column: &'static str| Expr::col((new.clone(), column));
        let mut update = Query::update();
        update.table(customer_change::Entity).from(new.clone()).value(ExternalCustomerId, Expr::cust("NULL"));
        update.and_where(CustomerId.into_expr().eq(listed("of_customer")));
        update.and_where(Id.into_expr().between(listed("first_id"), listed("last_id")));
        update.and_where(ExternalCustomerId.is_not_null());
        Box::new(update)
    },
    must_write_all: false,
};

/// Returns an expression for the JSON object in `column` with the same names, each with the value null.
fn without_values(backend: DbBackend, column: &str) -> SimpleExpr {
    let object = if backend == DbBackend::Postgres {
        format!(r#"SELECT COALESCE(jsonb_object_agg(name, NULL), '{{}}') FROM jsonb_object_keys("{column}") AS name"#)
    } else {
        format!(r#"SELECT json_group_object(key, NULL) FROM json_each("{column}")"#)
    };
    Expr::cust(format!("({object})"))
}

/// The part of a customer's history that an erasure reads.
#[derive(Default)]
struct History {
    /// All phones that the customer has had.
    phones: BTreeSet<String>,
    entries: usize,
    /// The first and the last entry of each range of at most [`MAX_ROWS`] entries, by version and id.
    ranges: Vec<[(i32, CustomerEventId); 2]>,
    /// Ranges of entries that have about [`MAX_ROWS`] rows in the feed, by id. An entry has a row for each operator.
    feed_ranges: Vec<[CustomerEventId; 2]>,
}

/// The maximum number of rows that one statement reads or changes. With many more rows, a statement could exceed its
/// time limit of 5 seconds.
const MAX_ROWS: u64 = 10_000;

impl History {
    async fn read(attempt: &OptimisticWrite, customer: CustomerId) -> Result<Self, DbErr> {
        use customer_event::Column::{After, Before, CustomerId};
        let phone_in = |column: customer_event::Column| {
            column.into_expr().binary(BinOper::Custom("->>"), CustomerField::Phone.name())
        };
        let mut history = Self { feed_ranges: feed_ranges(attempt, customer).await?, ..Self::default() };
        loop {
            let position = Expr::tuple(HISTORY_ORDER.map(|column| column.into_expr()));
            let last = history.ranges.last().map(|[_, (version, id)]| [Expr::val(*version), Expr::val(*id)]);
            let entries = customer_event::Entity::find()
                .select_only()
                .columns(HISTORY_ORDER)
                .exprs([Before, After].map(phone_in))
                .filter(CustomerId.eq(customer))
                .apply_if(last, |entries, last| entries.filter(position.gt(Expr::tuple(last))));
            let entries = HISTORY_ORDER.into_iter().fold(entries, QueryOrder::order_by_asc).limit(MAX_ROWS);
            let rows = attempt.query_all(&entries.into_query()).await?;
            let position = |row: &QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
            history.ranges.extend(ends(&rows, position)?);
            history.entries += rows.len();
            for row in &rows {
                let phones: [Option<String>; 2] = [row.try_get_by_index(2)?, row.try_get_by_index(3)?];
                history.phones.extend(phones.into_iter().flatten());
            }
            if (rows.len() as u64) < MAX_ROWS {
                return Ok(history);
            }
        }
    }
}

async fn feed_ranges(attempt: &OptimisticWrite, customer: CustomerId) -> Result<Vec<[CustomerEventId; 2]>, DbErr> {
    use customer_change::Column::{CustomerId, ExternalCustomerId, Id};
    let mut ranges: Vec<[CustomerEventId; 2]> = Vec::new();
    loop {
        let last = ranges.last().map(|[_, last]| *last);
        let changes = customer_change::Entity::find()
            .select_only()
            .column(Id)
            .filter(CustomerId.eq(customer))
            .filter(ExternalCustomerId.is_not_null())
            // Further rows of the last entry of a range belong to the range.
            .apply_if(last, |changes, last| changes.filter(Id.gt(last)))
            .order_by_asc(Id)
            .limit(MAX_ROWS);
        let rows = attempt.query_all(&changes.into_query()).await?;
        ranges.extend(ends(&rows, |row| row.try_get_by_index(0))?);
        if (rows.len() as u64) < MAX_ROWS {
            return Ok(ranges);
        }
    }
}

/// The values of the first and the last row.
fn ends<T>(rows: &[QueryResult], read: impl Fn(&QueryResult) -> Result<T, DbErr>) -> Result<Option<[T; 2]>, DbErr> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    Ok(Some([read(first)?, read(last)?]))
}

impl Customers {
    /// Erases a customer. Platform only.
    pub async fn erase(&self, caller: &Caller, request: &RequestInfo, erase: EraseRequest) -> Result<Erased, Error> {
        caller.require_platform()?;
        let origin = &caller.authorize_write(request)?;
        let idempotent =
            &IdempotentRequest::new(&self.hasher, origin, &erase.idempotency_key, || erase.canonical_json());
        let prepare = |attempt| self.prepare_erase(attempt, origin, idempotent, &erase);
        self.run_write("customer.erase", origin, idempotent, prepare).await
    }

    async fn prepare_erase(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        erase: &EraseRequest,
    ) -> Result<Prepared<Erased>, TransactionError> {
        // The first attempt takes locks too, because its reads are several statements, which must see the same state.
        let attempt = attempt.into_locking().await?;
        let customers = customer::Entity::find().filter(customer::Column::Id.is_in(erase.customer)).lock_exclusive();
        let found = row_reads::read_customers(&attempt, &customers.into_query()).await?;
        // The change gets its position in the feed with the lock. Its time is taken now, and not after the history was
        // read, because the feed finds positions by time. It is not taken before the lock either: the times of a
        // customer's changes are in the order of the changes.
        let erased_at = now();
        if let Some(stored) = idempotent.find(&attempt).await? {
            return Ok(Prepared::Replay(stored));
        }
        let customer = found.first().ok_or_else(|| Violation::of(ErrorCode::CustomerNotFound, InputField::Id))?;
        let links = customer_operator::Entity::find()
            .filter(customer_operator::Column::CustomerId.eq(customer.id))
            .all(&attempt)
            .await?;
        let History { mut phones, entries, ranges, feed_ranges } = History::read(&attempt, customer.id).await?;
        phones.extend(customer.phone.iter().map(|phone| phone.as_str().to_owned()));

        let mut writes = WriteSet::new(origin.owner(), customer.id);
        row_writes::remove_links(&mut writes, &links);
        writes.push(DELETE_CUSTOMER, vec![vec![customer.id.into(), customer.revision.into()]]);
        let hashes: Vec<_> = phones.iter().flat_map(|phone| lookup_hashes(&self.hasher, phone)).collect();
        for batch in hashes.chunks(MAX_ROWS as usize) {
            let mut deleted = WriteSet::new(origin.owner(), customer.id);
            deleted.push(DELETE_LOOKUPS, batch.iter().map(|hash| vec![hash.clone().into()]).collect());
            writes.add_earlier(deleted);
        }
        let of_events = ranges.into_iter().map(|range| {
            let ends = range.into_iter().flat_map(|(version, id)| [version.into(), id.into()]);
            (REDACT_EVENTS, ends.collect::<Vec<Value>>())
        });
        let of_feed = feed_ranges.into_iter().map(|ids| (REDACT_FEED, ids.map(Into::into).to_vec()));
        for (statement, range) in of_events.chain(of_feed) {
            let mut redacted = WriteSet::new(origin.owner(), customer.id);
            redacted.push(statement, vec![[vec![customer.id.into()], range].concat()]);
            writes.add_earlier(redacted);
        }
        history::record_erased(&mut writes, origin, customer, erased_at, &links);
        let erasure = Model {
            id: ErasureId::new(),
            customer_id: customer.id,
            erased_at,
            reference: erase.reference.clone(),
            request_id: origin.request.id,
            operators: i32::try_from(links.len()).unwrap_or(i32::MAX),
            entries: i32::try_from(entries).unwrap_or(i32::MAX),
        };
        writes.insert([erasure.clone()]);
        Ok(Prepared::Write { attempt, writes, new_phone: None, result: Erased { erasure, replayed: false } })
    }

    /// Finds a receipt. Returns `None` if the caller may not see it: only the platform sees receipts.
    pub async fn find_erasure(&self, caller: &Caller, id: ErasureId) -> Result<Option<Model>, Error> {
        if caller.require_platform().is_err() {
            return Ok(None);
        }
        let found = Entity::find_by_id(id).one(self.database.reader()).await?;
        count_query(found.iter().len());
        Ok(found)
    }

    /// Loads a page of the receipts, oldest first. Platform only.
    pub async fn erasures(&self, caller: &Caller, request: PageRequest) -> Result<Page<Model>, Error> {
        caller.require_platform()?;
        let list = ListPart::new(Entity::find().into_query(), vec![Column::Id.into_expr()]);
        Ok(pages::page(self.database.reader(), list, request).await?)
    }

    /// If customers were erased since the last call, rewrites the SQLite file, so that the file contains none of their
    /// values any more. Returns true if the file was rewritten. Does nothing on PostgreSQL.
    pub async fn purge_erased(&self, caller: &Caller) -> Result<bool, Error> {
        caller.require_platform()?;
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

impl Replayable for Erased {
    /// The id of the receipt.
    type Stored = Uuid;

    fn to_stored(&self) -> impl Serialize {
        *self.erasure.id.as_uuid()
    }

    async fn replay(customers: &Customers, origin: &Origin, stored: Uuid) -> Result<Self, TransactionError> {
        let erasure = customers.find_erasure(&origin.caller, stored.into()).await?;
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

impl HasPosition for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_an_erasure_does_not_change() {
        let reference = ErasureReference::parse("ticket 1").unwrap();
        let mut erase = EraseRequest { customer: None, reference, idempotency_key: None };
        let nobody = r#"{"eraseCustomer":{"customer":null,"reference":"ticket 1"}}"#;
        assert_eq!(erase.canonical_json(), nobody);
        erase.customer = CustomerId::parse("cus_01h455vb4pex5vsknk084sn02q");
        let all = r#"{"eraseCustomer":{"customer":"cus_01h455vb4pex5vsknk084sn02q","reference":"ticket 1"}}"#;
        assert_eq!(erase.canonical_json(), all);
    }
}
