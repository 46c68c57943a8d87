//! Runs the writes of customers, and stores and replays their results.

use entity::value::PhoneNumber;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::find::CustomerRef;
use super::{CustomerView, Customers};
use crate::database::{OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, Violation};
use crate::service::Origin;
use crate::service::idempotency::IdempotentRequest;
use crate::service::restrictions::Restriction;

const CUSTOMER_GONE: &str = "The first request with this idempotency key was about a customer that has since been \
                             erased, or disconnected from the operator. Nothing was changed. For a new request, use a \
                             new idempotency key.";

/// The result of a write, for example [`Created`](super::Created).
#[derive(Clone)]
pub struct Written<D> {
    pub view: CustomerView,
    /// Violations of restrictions that only production enforces.
    pub warnings: Vec<Restriction>,
    /// True if this is the stored result of an earlier request with the same idempotency key.
    pub replayed: bool,
    pub details: D,
}

/// The result of a write, which can be stored under an idempotency key and restored later.
pub(super) trait Replayable: Sized {
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

/// The part of [`Written`] that is stored. The names of the fields are stored too, so do not rename them.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredOutcome<D> {
    customer: Uuid,
    /// Time at which the customer was connected to the caller's operator, in microseconds since 1970. `None` if the
    /// platform was the caller, or if an earlier version of this service stored the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected_at: Option<i64>,
    warnings: Vec<Restriction>,
    #[serde(flatten)]
    details: D,
}

/// The result of the first part of an attempt, which reads rows.
pub(super) enum Prepared<R: Replayable> {
    /// The rows to write, and the result to return after they were written.
    Write {
        attempt: OptimisticWrite,
        writes: WriteSet,
        /// The phone that the rows add. The carrier must accept it before it is written. `None` if the rows add no
        /// phone, or take over a phone from another customer.
        new_phone: Option<PhoneNumber>,
        result: R,
    },
    /// The stored result of the idempotency key, to be replayed.
    Replay(R::Stored),
}

/// The end of one attempt to write.
enum AttemptEnd<R> {
    Done(R),
    /// The attempt would store this phone, which the carrier has not accepted yet. Nothing was written.
    NeedsPhoneCheck(PhoneNumber),
}

impl Customers {
    /// Runs a write to completion: retries it after conflicts, replays the stored result of `idempotent`, and asks the
    /// carrier about a new phone. For an operator, `prepare` must look up `idempotent` before it reads customers of
    /// other operators.
    ///
    /// The carrier lookup may take several seconds, so it never runs inside a transaction. If an attempt would store a
    /// phone that was not accepted, the attempt ends before it writes. Then the carrier is asked, and a new attempt
    /// starts.
    pub(super) async fn run_write<R: Replayable, F>(
        &self,
        name: &'static str,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        prepare: impl Fn(OptimisticWrite) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Prepared<R>, TransactionError>>,
    {
        let mut accepted = None;
        loop {
            let run_attempt =
                |attempt| self.attempt_or_replay(attempt, origin, idempotent, &prepare, accepted.as_ref());
            match OptimisticWrite::run(&self.database, name, run_attempt).await? {
                AttemptEnd::Done(result) => return Ok(result),
                AttemptEnd::NeedsPhoneCheck(phone) => {
                    // Boxed, because this rare lookup would otherwise double the size of the future of every write.
                    let checked = Box::pin(self.restrictions.check_with_carrier(origin.caller(), &phone)).await;
                    if let Err(error) = checked {
                        // During the lookup, another request may have used the idempotency key.
                        return self.find_replay(origin, idempotent).await?.ok_or(error);
                    }
                    accepted = Some(phone);
                }
            }
        }
    }

    /// Runs one attempt. If it fails because of a conflict or a lost connection, returns the stored result of
    /// `idempotent` if there is one: another request, or this attempt, may have stored it.
    async fn attempt_or_replay<R: Replayable, F>(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        prepare: &impl Fn(OptimisticWrite) -> F,
        accepted: Option<&PhoneNumber>,
    ) -> Result<AttemptEnd<R>, TransactionError>
    where
        F: Future<Output = Result<Prepared<R>, TransactionError>>,
    {
        let attempted = self.attempt(attempt, origin, idempotent, prepare, accepted).await;
        // A rejected attempt has already looked up the key.
        if matches!(attempted, Ok(_) | Err(TransactionError::Error(Error::Rejected(_)))) {
            return attempted;
        }
        let replayed = self.find_replay(origin, idempotent).await?;
        replayed.map_or(attempted, |replayed| Ok(AttemptEnd::Done(replayed)))
    }

    /// Prepares the rows of one attempt and writes them.
    async fn attempt<R: Replayable, F>(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        prepare: &impl Fn(OptimisticWrite) -> F,
        accepted: Option<&PhoneNumber>,
    ) -> Result<AttemptEnd<R>, TransactionError>
    where
        F: Future<Output = Result<Prepared<R>, TransactionError>>,
    {
        // While the secret is being changed, the key has two hashes, and the statement of `prepare` looks up only one.
        // The lookup uses the connection of the attempt: attempts that hold a connection and wait for another one would
        // block each other.
        if idempotent.has_other_hash()
            && let Some(stored) = idempotent.find(&attempt).await?
        {
            drop(attempt);
            return R::replay(self, origin, stored).await.map(AttemptEnd::Done);
        }
        let (attempt, mut writes, new_phone, result) = match prepare(attempt).await? {
            Prepared::Write { attempt, writes, new_phone, result } => (attempt, writes, new_phone, result),
            Prepared::Replay(stored) => return R::replay(self, origin, stored).await.map(AttemptEnd::Done),
        };
        if let Some(phone) = new_phone
            && self.restrictions.needs_carrier()
            && accepted != Some(&phone)
        {
            return Ok(AttemptEnd::NeedsPhoneCheck(phone));
        }
        idempotent.store(&mut writes, &result.to_stored());
        attempt.write(writes).await?;
        Ok(AttemptEnd::Done(result))
    }

    /// Restores the result of an earlier request with the same idempotency key, if there is one.
    pub(super) async fn find_replay<R: Replayable>(
        &self,
        origin: &Origin,
        idempotent: &IdempotentRequest,
    ) -> Result<Option<R>, TransactionError> {
        match idempotent.find(&self.database.uncounted_reader()).await? {
            Some(stored) => R::replay(self, origin, stored).await.map(Some),
            None => Ok(None),
        }
    }
}

impl<D: Serialize + DeserializeOwned + Send> Replayable for Written<D> {
    type Stored = StoredOutcome<D>;

    fn to_stored(&self) -> impl Serialize {
        let Self { view, warnings, replayed: _, details } = self;
        let customer = *view.customer.id.as_uuid();
        StoredOutcome { customer, connected_at: view.connected_micros(), warnings: warnings.clone(), details }
    }

    async fn replay(
        customers: &Customers,
        origin: &Origin,
        stored: StoredOutcome<D>,
    ) -> Result<Self, TransactionError> {
        let StoredOutcome { customer, connected_at, warnings, details } = stored;
        let view = customers.find_for_write(origin.caller(), &CustomerRef::Id(customer.into())).await?;
        // The stored result belongs to the link that existed when the result was stored. Since then, the operator may
        // have disconnected the customer and connected the customer again, perhaps with another external id, which
        // stands for another user account of the operator. A repeated request must then not return the record.
        let view = view.filter(|view| connected_at.is_none() || view.connected_micros() == connected_at);
        let view = view.ok_or_else(|| Violation::new(ErrorCode::CustomerNotFound).with_message(CUSTOMER_GONE))?;
        Ok(Written { view, warnings, replayed: true, details })
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::Iterable;
    use serde_json::json;

    use super::*;
    use crate::service::customers::create::CreateDetails;
    use crate::service::customers::{CreateOutcome, CustomerField, MatchKey};

    #[test]
    fn stored_results_do_not_change() {
        let customer = Uuid::from_u128(7);
        let created = StoredOutcome {
            customer,
            connected_at: Some(1_767_323_045_678_901),
            warnings: vec![Restriction::PlusSuffixEmail],
            details: CreateDetails {
                outcome: CreateOutcome::Connected,
                matched_by: MatchKey::iter().collect(),
                unapplied_fields: CustomerField::all().collect(),
            },
        };
        let stored = json!({
            "customer": "00000000-0000-0000-0000-000000000007",
            "connected_at": 1_767_323_045_678_901_i64,
            "warnings": ["PlusSuffixEmail"],
            "outcome": "Connected",
            "matched_by": ["Email", "Phone"],
            "unapplied_fields": ["Email", "FirstName", "LastName", "Phone", "Address"],
        });
        assert_eq!(json!(created), stored);
        let read: StoredOutcome<CreateDetails> = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(json!(read), stored);
        assert_eq!(json!(CreateOutcome::Created), "Created");

        let updated = StoredOutcome { customer, connected_at: None, warnings: Vec::new(), details: () };
        let stored = json!({ "customer": "00000000-0000-0000-0000-000000000007", "warnings": [] });
        assert_eq!(json!(updated), stored);
        let read: StoredOutcome<()> = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(json!(read), stored);
    }
}
