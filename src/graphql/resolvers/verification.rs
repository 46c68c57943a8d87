//! The `recordVerification` mutation.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use chrono::SubsecRound;
use entity::value::CustomerId;

use crate::error::{Error, InputField};
use crate::graphql::context::{request_info, require_platform};
use crate::graphql::event_enums::VerifiableField;
use crate::graphql::inputs::Violations;
use crate::graphql::items::Single;
use crate::graphql::objects::Customer;
use crate::graphql::time::Time;
use crate::service::customers::{VerificationRequest, VerifiedValue};

#[derive(Default)]
pub struct VerificationMutation;

#[Object]
impl VerificationMutation {
    /// Records that a person has proved ownership of the email or the phone of their record, for example by entering a
    /// code that was sent to this email or phone. If the email or phone of the record changes later, the new value is
    /// not verified. Platform key only.
    async fn record_verification(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer and the verified email or phone.")] input: RecordVerificationInput,
    ) -> Option<Result<RecordVerificationPayload, Error>> {
        Some(record_verification(context, input).await)
    }
}

async fn record_verification(
    context: &Context<'_>,
    input: RecordVerificationInput,
) -> Result<RecordVerificationPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let verified = services.customers.record_verification(caller, request_info(context), input.parse()?).await?;
    Ok(RecordVerificationPayload { customer: Single(Customer(Arc::new(verified.view))), replayed: verified.replayed })
}

/// The result of `recordVerification`.
#[derive(SimpleObject)]
struct RecordVerificationPayload {
    /// The verified customer.
    customer: Single<Customer>,
    /// True if this is the stored result of an earlier request with the same idempotency key. `customer` always shows
    /// the current record.
    replayed: bool,
}

/// Input of `recordVerification`.
#[derive(InputObject)]
struct RecordVerificationInput {
    /// Id of the customer, for example `cus_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// The verified field: the person has proved ownership of this email or phone.
    field: VerifiableField,
    /// The verified email or phone. Must equal the current value of the customer, so that a delayed verification of an
    /// old value is rejected. Exception: with `takeOver`, if another customer has the phone, this customer may have a
    /// different phone or none.
    value: String,
    /// Time at which the person proved ownership. Must not be in the future. If the same or a later time is already
    /// recorded for the value, nothing changes.
    verified_at: Time,
    /// If another customer has the phone, moves the phone from that customer to this one. Fails with `PHONE_TAKEN` if
    /// that customer proved ownership of the phone after `verifiedAt`. Only for phones.
    #[graphql(default)]
    take_over: bool,
    /// Makes retries safe: 1 to 255 characters, for example a UUID. For 24 hours, the same mutation with the same key
    /// and the same values returns the first result and changes nothing. With other values, or in another mutation, the
    /// error is `IDEMPOTENCY_KEY_REUSED`. A rejected mutation does not use up its key. The repeated mutation fails with
    /// `CUSTOMER_NOT_FOUND` if the customer has since been erased.
    idempotency_key: Option<String>,
}

impl RecordVerificationInput {
    fn parse(self) -> Result<VerificationRequest, Error> {
        let Self { id, field, value, verified_at, take_over, idempotency_key } = self;
        let mut violations = Violations::default();
        let verified_at = violations.time(InputField::VerifiedAt, Some(verified_at));
        let value = match field {
            VerifiableField::Email => {
                if take_over {
                    violations.argument(InputField::TakeOver, "Only a phone can be taken over.");
                }
                violations.email(InputField::Value, &value).map(VerifiedValue::Email)
            }
            VerifiableField::Phone => {
                let number = violations.phone(InputField::Value, &value);
                number.map(|number| VerifiedValue::Phone { number, take_over })
            }
        };
        let idempotency_key = idempotency_key.and_then(|text| violations.idempotency_key(&text));
        let (value, verified_at) = violations.finish_parsed(value.zip(verified_at))?;
        Ok(VerificationRequest {
            customer: CustomerId::parse_or_unknown(&id),
            value,
            // PostgreSQL stores microseconds.
            verified_at: verified_at.trunc_subsecs(6),
            idempotency_key,
        })
    }
}
