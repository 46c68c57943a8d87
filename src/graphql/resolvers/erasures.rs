//! The `eraseCustomer` mutation, and the queries for its receipts. Platform key only.

use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::value::{CustomerId, ErasureId, ErasureReference};

use crate::error::{Error, ErrorCode, InputField};
use crate::graphql::context::{request_info, require_platform};
use crate::graphql::inputs::Violations;
use crate::graphql::objects::{Erasure, ErasureConnection};
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::service::customers::EraseRequest;

#[derive(Default)]
pub struct ErasureQuery;

#[Object]
impl ErasureQuery {
    /// Looks up an erasure receipt. Returns null if the receipt does not exist or the caller is not the platform.
    async fn erasure(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Id of the receipt, for example `era_01h455vb4pex5vsknk084sn02q`.")] id: ID,
    ) -> Option<Result<Erasure, Error>> {
        Erasure::find(context, ErasureId::parse(&id)?).await.transpose()
    }

    /// Receipts of all erased customers, oldest first. Platform key only.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn erasures(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<ErasureConnection, Error>> {
        Some(ErasureConnection::load(context, PageArguments { first, after, last, before }).await)
    }
}

#[derive(Default)]
pub struct ErasureMutation;

#[Object]
impl ErasureMutation {
    /// Erases a customer: deletes the record and its connections to operators, and sets the values in its history to
    /// null. Returns a receipt. Afterwards the email and the phone can be used for a new customer. An erasure cannot be
    /// undone. The erasure of a long history can take minutes: the response is then `UNAVAILABLE`, and the erasure
    /// continues for up to 5 minutes. Repeat the request with the same `idempotencyKey` until it returns the receipt.
    /// Platform key only.
    async fn erase_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer to erase.")] input: EraseCustomerInput,
    ) -> Option<Result<EraseCustomerPayload, Error>> {
        Some(erase_customer(context, input).await)
    }
}

async fn erase_customer(context: &Context<'_>, input: EraseCustomerInput) -> Result<EraseCustomerPayload, Error> {
    let (services, caller) = require_platform(context)?;
    let erased = services.customers.erase(caller, request_info(context), input.parse()?).await?;
    Ok(EraseCustomerPayload { erasure: Erasure(erased.erasure), replayed: erased.replayed })
}

/// The result of `eraseCustomer`.
#[derive(SimpleObject)]
struct EraseCustomerPayload {
    /// The receipt.
    erasure: Erasure,
    /// True if this is the stored result of an earlier request with the same idempotency key.
    replayed: bool,
}

/// Input of `eraseCustomer`.
#[derive(InputObject)]
struct EraseCustomerInput {
    /// Id of the customer, for example `cus_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// Your reference for the erasure, 1 to 100 characters, for example a ticket number. Kept on the receipt, so it
    /// must not contain personal data.
    reference: String,
    /// Makes retries safe: 1 to 255 characters, for example a UUID. For 24 hours, the same mutation with the same key
    /// and the same values returns the first result and changes nothing. With other values, or in another mutation, the
    /// error is `IDEMPOTENCY_KEY_REUSED`. A rejected mutation does not use up its key.
    idempotency_key: Option<String>,
}

impl EraseCustomerInput {
    fn parse(self) -> Result<EraseRequest, Error> {
        let Self { id, reference, idempotency_key } = self;
        let mut violations = Violations::default();
        let reference =
            violations.value(ErrorCode::InvalidArgument, InputField::Reference, ErasureReference::parse(&reference));
        let idempotency_key = idempotency_key.and_then(|text| violations.idempotency_key(&text));
        let reference = violations.finish_parsed(reference)?;
        Ok(EraseRequest { customer: CustomerId::parse_or_unknown(&id), reference, idempotency_key })
    }
}
