//! Erases customers. Platform only.
//!
//! One transaction sets the values in the customer's history to null, removes its external ids from the earlier rows of
//! the feed, deletes the customer, its links, its search words and the cached results of carrier lookups for its
//! phones, and inserts the receipt. The history entries are kept, but without values. Stored results of idempotency
//! keys are kept too: they hold no values of the customer, and expire after a day.
//!
//! | module | contents |
//! | --- | --- |
//! | `ranges` | reads the rows to redact |
//! | `statements` | the statements that redact and delete |
//! | `receipts` | reads the receipts of erasures |
//! | `purge` | removes the deleted content from a SQLite file |

mod purge;
mod ranges;
mod receipts;
mod statements;

use entity::erasure::Model;
use entity::value::{CustomerId, ErasureId, ErasureReference, IdempotencyKey};
use entity::{customer, customer_operator, erasure};
use sea_orm::sea_query::Value;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{Customers, Prepared, Replayable, change_rows, row_reads};
use crate::database::{OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::phone_lookup::lookup_hashes;
use crate::service::{Caller, Origin, RequestInfo, now};
use ranges::{HistoryToRedact, MAX_ROWS};
use statements::{DELETE_LOOKUPS, REDACT_EVENTS, REDACT_FEED};

/// A request to erase a customer.
#[derive(Clone, Debug)]
pub struct EraseRequest {
    pub customer: CustomerId,
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

impl Customers {
    /// Erases a customer. Platform only.
    pub async fn erase(&self, caller: &Caller, request: &RequestInfo, erase: EraseRequest) -> Result<Erased, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        // `vivamo customer erase` repeats a long erasure. A newer version may have migrated the database in the
        // meantime, and may have added values to erase.
        self.database.ensure_may_write().await?;
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
        let customers = customer::Entity::find().filter(customer::Column::Id.eq(erase.customer)).lock_exclusive();
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
        let HistoryToRedact { mut phones, entries, entry_ranges, feed_ranges } =
            HistoryToRedact::read(&attempt, customer.id).await?;
        phones.extend(customer.phone.iter().map(|phone| phone.as_str().to_owned()));

        let mut writes = change_rows::erased(origin, customer, erased_at, &links);
        let hashes: Vec<_> = phones.iter().flat_map(|phone| lookup_hashes(&self.hasher, phone)).collect();
        for batch in hashes.chunks(MAX_ROWS as usize) {
            let mut deleted = WriteSet::new(origin.owner(), customer.id);
            deleted.push(DELETE_LOOKUPS, batch.iter().map(|hash| vec![hash.clone().into()]).collect());
            writes.add_earlier(deleted);
        }
        let of_events = entry_ranges.into_iter().map(|range| {
            let ends = range.into_iter().flat_map(|(version, id)| [version.into(), id.into()]);
            (REDACT_EVENTS, ends.collect::<Vec<Value>>())
        });
        let of_feed = feed_ranges.into_iter().map(|ids| (REDACT_FEED, ids.map(Into::into).to_vec()));
        for (statement, range) in of_events.chain(of_feed) {
            let mut redacted = WriteSet::new(origin.owner(), customer.id);
            redacted.push(statement, vec![[vec![customer.id.into()], range].concat()]);
            writes.add_earlier(redacted);
        }
        let erasure = Model {
            id: ErasureId::new(),
            customer_id: customer.id,
            erased_at,
            reference: erase.reference.clone(),
            request_id: origin.request().id,
            operators: i32::try_from(links.len()).unwrap_or(i32::MAX),
            entries: i32::try_from(entries).unwrap_or(i32::MAX),
        };
        writes.insert([erasure.clone()]);
        Ok(Prepared::Write { attempt, writes, new_phone: None, result: Erased { erasure, replayed: false } })
    }
}

impl Replayable for Erased {
    /// The id of the receipt.
    type Stored = Uuid;

    fn to_stored(&self) -> impl Serialize {
        *self.erasure.id.as_uuid()
    }

    async fn replay(customers: &Customers, origin: &Origin, stored: Uuid) -> Result<Self, TransactionError> {
        origin.caller().require_platform()?;
        // Uncounted: see `Customers::find_for_write`.
        let erasure = erasure::Entity::find_by_id(stored).one(&customers.database.uncounted_reader()).await?;
        let erasure = erasure.ok_or_else(|| Error::internal("the receipt of an erasure is missing"))?;
        Ok(Self { erasure, replayed: true })
    }
}

impl EraseRequest {
    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    fn canonical_json(&self) -> String {
        let Self { customer, reference, idempotency_key: _ } = self;
        json!({ "eraseCustomer": { "customer": customer.to_string(), "reference": reference.as_str() } }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_json_of_an_erasure_does_not_change() {
        let reference = ErasureReference::parse("ticket 1").unwrap();
        let customer = CustomerId::parse("cus_01h455vb4pex5vsknk084sn02q").unwrap();
        let erase = EraseRequest { customer, reference, idempotency_key: None };
        let all = r#"{"eraseCustomer":{"customer":"cus_01h455vb4pex5vsknk084sn02q","reference":"ticket 1"}}"#;
        assert_eq!(erase.canonical_json(), all);
    }
}
