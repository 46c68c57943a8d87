//! The `recordVerification` mutation.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::error::Error;
use crate::graphql::context::{request_info, require_platform};
use crate::graphql::inputs::RecordVerificationInput;
use crate::graphql::items::Single;
use crate::graphql::objects::Customer;

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
