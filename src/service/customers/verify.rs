//! Records that a person has proved ownership of an email or a phone. Platform only.
//!
//! Carriers reassign numbers. A proof can therefore move a phone from one customer to another, unless the first
//! customer has a later proof for the phone.

use chrono::{DateTime, Utc};
use entity::customer;
use entity::customer_event::VerifiableField;
use entity::value::{CustomerId, EmailAddress, IdempotencyKey, PhoneNumber};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};
use serde_json::json;

use super::field::{set_verified_at, verified_at};
use super::{CustomerField, CustomerView, Customers, Prepared, Written, change_rows, row_reads};
use crate::database::{OptimisticWrite, TransactionError, WriteSet, outdated_read};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::{Caller, Origin, RequestInfo, now};

/// A request to record a verification.
#[derive(Clone, Debug)]
pub struct VerificationRequest {
    pub customer: CustomerId,
    pub value: VerifiedValue,
    pub verified_at: DateTime<Utc>,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// An email or a phone of which a person has proved ownership.
#[derive(Clone, Debug)]
pub enum VerifiedValue {
    Email(EmailAddress),
    Phone {
        number: PhoneNumber,
        /// True to take the phone from another customer.
        take_over: bool,
    },
}

/// The result of [`Customers::record_verification`].
pub type Verified = Written<()>;

impl Customers {
    /// Records that a person has proved ownership of an email or a phone. If the customer has this value, and the
    /// stored time of its last proof is the same or later, nothing changes. Platform only.
    pub async fn record_verification(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        verification: VerificationRequest,
    ) -> Result<Verified, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let idempotent = &IdempotentRequest::new(&self.hasher, origin, &verification.idempotency_key, || {
            verification.canonical_json()
        });
        let prepare = |attempt| self.prepare_verification(attempt, origin, idempotent, &verification);
        self.run_write("customer.verify", origin, idempotent, prepare).await
    }

    async fn prepare_verification(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        verification: &VerificationRequest,
    ) -> Result<Prepared<Verified>, TransactionError> {
        let VerificationRequest { customer, value, verified_at: proved_at, idempotency_key: _ } = verification;
        let phone = value.phone_to_take_over();
        // The customers are locked in the order of their ids, so that two requests for the same customers do not
        // deadlock.
        let customers = customer::Entity::find()
            .filter(
                Condition::any()
                    .add(customer::Column::Id.eq(*customer))
                    .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone()))),
            )
            .order_by_asc(customer::Column::Id);
        let customers = if attempt.is_locking() { customers.lock_exclusive() } else { customers };
        let found = row_reads::read_customers(&attempt, &customers.into_query()).await?;
        if let Some(stored) = idempotent.find(&attempt).await? {
            return Ok(Prepared::Replay(stored));
        }
        // Not checked before: a server whose clock is behind must still find the result of a repeated request.
        let time = now();
        if *proved_at > time {
            return Err(Violation::argument(InputField::VerifiedAt, "`verifiedAt` must not be in the future. Compare the clock of the sender with the clock of the service.").into());
        }
        let current = found.iter().find(|found| found.id == *customer);
        let current = current.ok_or_else(|| Violation::of(ErrorCode::CustomerNotFound, InputField::Id))?;

        let field = value.field();
        let mut verified = current.clone();
        let mut earlier = None;
        if !value.is_value_of(current) {
            let holder = match phone {
                Some(phone) => find_holder(&attempt, &found, phone).await?,
                None => None,
            };
            let holder = holder.ok_or_else(|| Violation::argument(InputField::Value, NOT_STORED))?;
            if holder.phone_verified_at > Some(*proved_at) {
                return Err(Violation::of(ErrorCode::PhoneTaken, InputField::Value).with_message(LATER_PROOF).into());
            }
            let without = change_rows::next_row(holder, customer::Model { phone: None, ..holder.clone() }, time);
            earlier = Some(change_rows::updated(origin, holder, &without, None, time));
            verified.phone = phone.cloned();
        }
        let mut writes = WriteSet::new(origin.owner(), current.id);
        if CustomerField::any_differs(current, &verified) || verified_at(current, field) < Some(*proved_at) {
            verified = change_rows::next_row(current, verified, time);
            set_verified_at(&mut verified, field, Some(*proved_at));
            writes = change_rows::verified(origin, field, current, &verified, time);
        }
        if let Some(earlier) = earlier {
            writes.add_earlier(earlier);
        }
        let result =
            Written { view: CustomerView::new(verified, None), warnings: Vec::new(), replayed: false, details: () };
        Ok(Prepared::Write { attempt, writes, new_phone: None, result })
    }
}

const LATER_PROOF: &str =
    "Another customer proved ownership of this phone after `verifiedAt`, so the phone was not moved.";
const NOT_STORED: &str = "`value` differs from the customer's record. Read the customer again. To take a phone over from \
                          another customer, set `takeOver`. To verify a new value, call `updateCustomer` first.";

/// Returns the one of the `found` customers that has the phone. Fails with a conflict, so that the write is tried
/// again, if another customer got the phone after the query for `found`.
async fn find_holder<'f>(
    attempt: &OptimisticWrite,
    found: &'f [customer::Model],
    phone: &PhoneNumber,
) -> Result<Option<&'f customer::Model>, DbErr> {
    let holder = found.iter().find(|found| found.phone.as_ref() == Some(phone));
    // On PostgreSQL, a query that waits for a lock does not find the customer that got the phone in the meantime.
    if holder.is_none() && attempt.is_locking() {
        let query = customer::Entity::find().filter(customer::Column::Phone.eq(phone.clone())).into_query();
        if !row_reads::read_customers(attempt, &query).await?.is_empty() {
            return Err(outdated_read());
        }
    }
    Ok(holder)
}

impl VerifiedValue {
    fn field(&self) -> VerifiableField {
        match self {
            Self::Email(_) => VerifiableField::Email,
            Self::Phone { .. } => VerifiableField::Phone,
        }
    }

    /// Returns the phone if it may be taken from another customer.
    fn phone_to_take_over(&self) -> Option<&PhoneNumber> {
        match self {
            Self::Phone { number, take_over: true } => Some(number),
            Self::Phone { take_over: false, .. } | Self::Email(_) => None,
        }
    }

    fn is_value_of(&self, customer: &customer::Model) -> bool {
        match self {
            Self::Email(email) => customer.email == *email,
            Self::Phone { number, take_over: _ } => customer.phone.as_ref() == Some(number),
        }
    }
}

impl VerificationRequest {
    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    fn canonical_json(&self) -> String {
        let Self { customer, value, verified_at, idempotency_key: _ } = self;
        let (value, take_over) = match value {
            VerifiedValue::Email(email) => (json!({ "email": email }), false),
            VerifiedValue::Phone { number, take_over } => (json!({ "phone": number }), *take_over),
        };
        json!({ "recordVerification": {
            "customer": customer.to_string(), "value": value, "verifiedAt": verified_at, "takeOver": take_over,
        } })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_json_of_a_verification_does_not_change() {
        let mut verification = VerificationRequest {
            customer: CustomerId::parse("cus_01h455vb4pex5vsknk084sn02q").expect("an id"),
            value: VerifiedValue::Email(EmailAddress::parse("ada@example.com").expect("an email")),
            verified_at: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
            idempotency_key: None,
        };
        let email = r#"{"recordVerification":{"customer":"cus_01h455vb4pex5vsknk084sn02q","takeOver":false,"value":{"email":"ada@example.com"},"verifiedAt":"2026-01-02T03:04:05.678Z"}}"#;
        assert_eq!(verification.canonical_json(), email);
        let number = PhoneNumber::parse("+14155552671").expect("a phone");
        for take_over in [false, true] {
            verification.value = VerifiedValue::Phone { number: number.clone(), take_over };
            let phone = format!(
                r#"{{"recordVerification":{{"customer":"cus_01h455vb4pex5vsknk084sn02q","takeOver":{take_over},"value":{{"phone":"+14155552671"}},"verifiedAt":"2026-01-02T03:04:05.678Z"}}}}"#
            );
            assert_eq!(verification.canonical_json(), phone);
        }
    }
}
