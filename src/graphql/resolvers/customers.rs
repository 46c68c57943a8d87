//! Queries and mutations of customers.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};

use crate::error::{Error, ErrorCode, Violation};
use crate::graphql::context::{caller, request_info, require_writer, services};
use crate::graphql::inputs::{
    CreateCustomerInput, CustomerFilterInput, CustomerOrderInput, CustomerRefInput, DisconnectCustomerInput,
    UpdateCustomerInput,
};
use crate::graphql::items::Single;
use crate::graphql::objects::{Customer, CustomerConnection};
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::service::customers::{CreateOutcome, Created, CustomerField, Disconnected, MatchKey, Updated, Validation};
use crate::service::restrictions::Restriction;

#[derive(Default)]
pub struct CustomerQuery;

#[Object]
impl CustomerQuery {
    /// Looks up one customer. Returns null if there is no such customer, or if the customer is not connected to the
    /// calling operator. A malformed email, phone or external id is an error.
    async fn customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer to look up.")] by: CustomerRefInput,
    ) -> Option<Result<Single<Customer>, Error>> {
        match by.parse(caller(context)) {
            Ok(reference) => Customer::find(context, &reference).await.map(|found| found.map(Single)).transpose(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Customers connected to the calling operator, by default oldest connection first. With the platform key: all
    /// customers, oldest first. With some filters, a page may have fewer items than requested although more follow:
    /// continue while `hasNextPage` is true. To learn of new customers, use `changes`. If you poll this list instead,
    /// do not continue from the last cursor: customers can appear up to 30 seconds late, before customers that you have
    /// already read. Filter by `connectedAt` (platform key: `createdAt`), from 30 seconds before the latest value that
    /// you have seen, and skip the customers that you already have.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn customers(
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
        #[graphql(desc = "Conditions that the customers must match.")] filter: Option<CustomerFilterInput>,
        #[graphql(
            desc = "Sort order. Default: oldest connection first. Not available with `search` or with the platform key."
        )]
        order_by: Option<CustomerOrderInput>,
    ) -> Option<Result<CustomerConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        // Boxed. Without the box, the future of each field of `Query` would be as large as this future.
        Some(Box::pin(CustomerConnection::load(context, caller(context).operator(), filter, order_by, arguments)).await)
    }

    /// Checks the input of `createCustomer` without writing anything. Makes no carrier lookup, and does not reveal
    /// whether other operators know the person. With the platform key, the input is not compared with existing
    /// customers.
    async fn validate_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The input to check.")] input: CreateCustomerInput,
    ) -> Option<Result<CustomerValidation, Error>> {
        // Boxed. Without the box, the future of each field of `Query` would be as large as this future.
        Some(Box::pin(services(context).customers.validate(caller(context), input.parse())).await.map(Into::into))
    }
}

#[derive(Default)]
pub struct CustomerMutation;

#[Object]
impl CustomerMutation {
    /// Creates a customer, or connects an existing one to your operator if the platform already knows the email or
    /// phone. Empty fields of a connected customer are filled from your input. If a field already has a different
    /// value, the stored value is kept and the field is listed in `unappliedFields`. If the email or the phone belongs
    /// to one of your own customers, nothing changes, and the errors include `EMAIL_TAKEN` or `PHONE_TAKEN`. Not
    /// available with the platform key.
    async fn create_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer to create.")] input: CreateCustomerInput,
    ) -> Option<Result<CreateCustomerPayload, Error>> {
        let customers = &services(context).customers;
        Some(customers.create(caller(context), request_info(context), input.parse()).await.map(Into::into))
    }

    /// Updates a customer. Every operator that the customer is connected to sees the changed data. Omitted fields stay
    /// as they are; null clears a field. The platform key may update any customer, identified by `id`.
    async fn update_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer and the changes to it.")] input: UpdateCustomerInput,
    ) -> Option<Result<UpdateCustomerPayload, Error>> {
        let customers = &services(context).customers;
        Some(
            customers
                .update(caller(context), request_info(context), input.parse(caller(context)))
                .await
                .map(Into::into),
        )
    }

    /// Disconnects a customer from your operator, for example if the wrong person was connected. Your operator then no
    /// longer sees the customer, and you can use the `externalCustomerId` for another customer. The record is unchanged
    /// for other operators. The platform key may disconnect a customer from any operator.
    async fn disconnect_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The customer to disconnect, and the reason.")] input: DisconnectCustomerInput,
    ) -> Option<Result<DisconnectCustomerPayload, Error>> {
        Some(disconnect_customer(context, input).await)
    }
}

async fn disconnect_customer(
    context: &Context<'_>,
    input: DisconnectCustomerInput,
) -> Result<DisconnectCustomerPayload, Error> {
    let (services, caller) = require_writer(context)?;
    let disconnected = services.customers.disconnect(caller, request_info(context), input.parse(caller)?).await?;
    Ok(disconnected.into())
}

/// The result of `disconnectCustomer`.
#[derive(SimpleObject)]
struct DisconnectCustomerPayload {
    /// Id of the customer that was disconnected.
    customer_id: ID,
    /// True if this is the stored result of an earlier request with the same idempotency key.
    replayed: bool,
}

impl From<Disconnected> for DisconnectCustomerPayload {
    fn from(Disconnected { customer, replayed }: Disconnected) -> Self {
        Self { customer_id: customer.to_string().into(), replayed }
    }
}

/// The result of `createCustomer`.
#[derive(SimpleObject)]
struct CreateCustomerPayload {
    /// The created or connected customer.
    customer: Single<Customer>,
    /// `CREATED` for a new customer, `CONNECTED` for one that the platform already knew.
    outcome: CreateOutcome,
    /// Your values that matched the existing customer. Empty for a new customer. If only the phone matched, the record
    /// has a different email than the one you sent: check that the record belongs to the right person.
    matched_by: Vec<MatchKey>,
    /// Fields whose stored value differs from the one you sent. The stored values were kept. Use `updateCustomer` if
    /// your value is correct.
    unapplied_fields: Vec<CustomerField>,
    /// Problems with values that production would reject, for example a disposable email. Always empty in production.
    warnings: Vec<CustomerWarning>,
    /// True if this is the stored result of an earlier request with the same idempotency key. `customer` always shows
    /// the current record.
    replayed: bool,
}

/// The result of `updateCustomer`.
#[derive(SimpleObject)]
struct UpdateCustomerPayload {
    /// The updated customer.
    customer: Single<Customer>,
    /// Problems with values that production would reject, for example a disposable email. Always empty in production.
    warnings: Vec<CustomerWarning>,
    /// True if this is the stored result of an earlier request with the same idempotency key. `customer` always shows
    /// the current record.
    replayed: bool,
}

/// The result of `validateCustomer`.
#[derive(SimpleObject)]
struct CustomerValidation {
    /// Email address as it would be stored. Null if the address is invalid.
    email: Option<String>,
    /// Phone number as it would be stored. Null if the number is invalid or was omitted.
    phone: Option<String>,
    /// Errors that `createCustomer` would return. Excludes conflicts with customers that are not yours. If the platform
    /// uses a carrier lookup, does not check whether the phone is mobile.
    faults: Vec<CustomerWarning>,
    /// Problems with values that production would reject, for example a disposable email. Always empty in production.
    warnings: Vec<CustomerWarning>,
}

/// A problem with a value in the input, reported in the result and not in `errors` of the response. In `faults`: an
/// error that `createCustomer` would return. In `warnings`: a restriction that only production enforces.
#[derive(SimpleObject)]
struct CustomerWarning {
    /// Code of the corresponding error.
    code: ErrorCode,
    /// Message of the corresponding error, for people to read.
    message: String,
    /// Path of the value in the arguments of the query or mutation, for example `["input", "data", "email"]`.
    input_path: Vec<String>,
    /// Id of your own customer that already has the value. Only in `faults`, with the codes
    /// `EXTERNAL_CUSTOMER_ID_TAKEN`, `EMAIL_TAKEN` and `PHONE_TAKEN`.
    customer_id: Option<ID>,
}

impl From<Created> for CreateCustomerPayload {
    fn from(created: Created) -> Self {
        Self {
            customer: Single(Customer(Arc::new(created.view))),
            outcome: created.details.outcome,
            matched_by: created.details.matched_by,
            unapplied_fields: created.details.unapplied_fields,
            warnings: created.warnings.into_iter().map(Into::into).collect(),
            replayed: created.replayed,
        }
    }
}

impl From<Updated> for UpdateCustomerPayload {
    fn from(updated: Updated) -> Self {
        Self {
            customer: Single(Customer(Arc::new(updated.view))),
            warnings: updated.warnings.into_iter().map(Into::into).collect(),
            replayed: updated.replayed,
        }
    }
}

impl From<Validation> for CustomerValidation {
    fn from(validation: Validation) -> Self {
        Self {
            email: validation.email.map(|email| email.as_str().to_owned()),
            phone: validation.phone.map(|phone| phone.as_str().to_owned()),
            faults: validation.violations.into_iter().map(Into::into).collect(),
            warnings: validation.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Restriction> for CustomerWarning {
    fn from(restriction: Restriction) -> Self {
        restriction.warning().into()
    }
}

impl From<Violation> for CustomerWarning {
    fn from(violation: Violation) -> Self {
        Self {
            code: violation.code,
            input_path: violation.field.iter().flat_map(|field| field.path()).map(ToString::to_string).collect(),
            message: violation.message,
            customer_id: violation.own_customer.map(|id| id.to_string().into()),
        }
    }
}
