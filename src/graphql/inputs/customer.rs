//! The GraphQL inputs for one customer, and their conversion to the request types of the service. Invalid values of an
//! input are reported together, each with its path.

use async_graphql::{ID, InputObject, MaybeUndefined, OneofObject};
use chrono::SubsecRound;
use entity::customer;
use entity::value::{Address, AddressParts, CustomerId, EmailAddress, ErasureReference, ExternalCustomerId};
use sea_orm::ActiveValue::{self, NotSet, Set};
use sea_orm::Iterable;

use super::violations::Violations;
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::event_enums::{DisconnectReason, VerifiableField};
use crate::graphql::time::Time;
use crate::service::Caller;
use crate::service::customers::{
    ConnectBy, CustomerChanges, CustomerDraft, CustomerRef, DisconnectRequest, EraseRequest, MatchKey,
    VerificationRequest, VerifiedValue,
};

/// Identifies a customer. Set exactly one field.
#[derive(OneofObject)]
#[graphql(name = "CustomerRef")]
pub enum CustomerRefInput {
    /// Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer. Not available with the platform key.
    ExternalCustomerId(String),
    /// Email address of the customer.
    Email(String),
    /// Phone number of the customer, for example `+14155552671`.
    Phone(String),
}

/// Identifies a customer by one of its ids. With an operator key: one of your customers. With the platform key: any
/// customer. Set exactly one field.
#[derive(OneofObject)]
pub enum UpdateCustomerRef {
    /// Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer. With the platform key, available only in `disconnectCustomer`.
    ExternalCustomerId(String),
}

/// Input of `createCustomer` and `validateCustomer`.
#[derive(InputObject)]
pub struct CreateCustomerInput {
    /// Your own id for the customer: 1 to 255 characters, case-sensitive, unique among your customers.
    external_customer_id: String,
    /// Personal data of the customer. Only the email is required; the Vivamo SDK asks the customer for missing fields.
    data: CustomerDataInput,
    /// Values by which an existing customer may be connected to your operator. If a customer matches only by values
    /// that are not in this list, nothing is connected and the error is `IDENTITY_CONFLICT`. With an empty list, no
    /// existing customer is connected.
    #[graphql(default_with = "MatchKey::iter().collect()")]
    connect_by: Vec<MatchKey>,
    /// Key that makes retries safe: 1 to 255 characters, for example a UUID. Use the same key for each retry of a
    /// request, and a new key for each new request. For 24 hours, a request with the same key and the same values
    /// returns the first result and changes nothing. With other values, the error is `IDEMPOTENCY_KEY_REUSED`. The
    /// repeated request fails with `CUSTOMER_NOT_FOUND` if the customer has since been disconnected from your operator
    /// or erased.
    idempotency_key: Option<String>,
}

/// Personal data of a new customer.
#[derive(InputObject)]
struct CustomerDataInput {
    /// Email address, for example `ada@example.com`. Unique on the platform. Production rejects addresses of disposable
    /// providers and addresses with a `+` before the `@`.
    email: String,
    #[graphql(flatten)]
    optional: OptionalDataInput,
}

/// The fields of `CustomerDataInput` and `CustomerDataPatch`, except the email, which is required in the first and
/// optional in the second. The schema shows these fields as fields of both inputs.
#[derive(Default, InputObject)]
struct OptionalDataInput {
    /// Phone number with a leading `+` and country code, for example `+14155552671`. Without `+`, a number of at least
    /// 10 digits is read as a US number. Unique on the platform. Production accepts only numbers that can belong to a
    /// mobile line.
    phone: MaybeUndefined<String>,
    /// First name, 1 to 100 characters.
    first_name: MaybeUndefined<String>,
    /// Last name, 1 to 100 characters.
    last_name: MaybeUndefined<String>,
    /// Postal address. Stored and replaced as a whole: parts that you omit are not kept from an earlier address.
    address: MaybeUndefined<AddressInput>,
}

/// A postal address. A field has at most 200 characters; `postalCode` has at most 20.
#[derive(InputObject)]
struct AddressInput {
    /// Street and house number, for example `1 Main St`.
    line1: String,
    /// Second address line, for example `Apartment 4`.
    line2: Option<String>,
    /// City. Required, except in a country that is a single city (`GI`, `HK`, `MC`, `MO`, `SG`, `VA`): there the
    /// default is the name of that city.
    city: Option<String>,
    /// State, province or county.
    region: Option<String>,
    /// Postal code.
    postal_code: Option<String>,
    /// Country as an ISO 3166-1 alpha-2 code, for example `US`, or `XK` for Kosovo.
    country: String,
}

/// Input of `updateCustomer`.
#[derive(InputObject)]
pub struct UpdateCustomerInput {
    /// The customer to update.
    customer: UpdateCustomerRef,
    /// The fields to change. Required unless `externalCustomerId` is set.
    data: Option<CustomerDataPatch>,
    /// New value of your own id for the customer: 1 to 255 characters, case-sensitive, unique among your customers.
    /// Cannot be null. Only your operator and the platform see the new id. A new id does not change the `version` of
    /// the customer. Not available with the platform key.
    external_customer_id: MaybeUndefined<String>,
    /// The `version` that your change is based on. If the customer now has a different version, nothing is changed and
    /// the error is `VERSION_CONFLICT`. If omitted, the update applies to any version.
    expected_version: Option<i32>,
    /// Key that makes retries safe: 1 to 255 characters, for example a UUID. Use the same key for each retry of a
    /// request, and a new key for each new request. For 24 hours, a request with the same key and the same values
    /// returns the first result and changes nothing. With other values, the error is `IDEMPOTENCY_KEY_REUSED`. The
    /// repeated request fails with `CUSTOMER_NOT_FOUND` if the customer has since been disconnected from your operator
    /// or erased.
    idempotency_key: Option<String>,
}

/// Input of `disconnectCustomer`.
#[derive(InputObject)]
pub struct DisconnectCustomerInput {
    /// The customer to disconnect. With the platform key, `externalCustomerId` is the id that the operator given by
    /// `operatorId` uses for the customer.
    customer: UpdateCustomerRef,
    /// Reason for the disconnect. The platform sees the reason in the customer's history.
    reason: DisconnectReason,
    /// Id of the operator to disconnect the customer from. Required with the platform key. Not available with other
    /// keys.
    operator_id: Option<ID>,
    /// Key that makes retries safe: 1 to 255 characters, for example a UUID. Use the same key for each retry of a
    /// request, and a new key for each new request. For 24 hours, a request with the same key and the same values
    /// returns the first result and changes nothing. With other values, the error is `IDEMPOTENCY_KEY_REUSED`.
    idempotency_key: Option<String>,
}

/// Changes to a customer's personal data. Omitted fields stay as they are; null clears a field.
#[derive(Default, InputObject)]
struct CustomerDataPatch {
    /// Email address. Cannot be null. The same rules apply as for `createCustomer`.
    email: MaybeUndefined<String>,
    #[graphql(flatten)]
    optional: OptionalDataInput,
}

/// Input of `recordVerification`.
#[derive(InputObject)]
pub struct RecordVerificationInput {
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
    /// that customer proved ownership of the phone after `verifiedAt`. Only for phones. Default: false.
    take_over: Option<bool>,
    /// Key that makes retries safe: 1 to 255 characters, for example a UUID. Use the same key for each retry of a
    /// request, and a new key for each new request. For 24 hours, a request with the same key and the same values
    /// returns the first result and changes nothing. With other values, the error is `IDEMPOTENCY_KEY_REUSED`. The
    /// repeated request fails with `CUSTOMER_NOT_FOUND` if the customer has since been erased.
    idempotency_key: Option<String>,
}

/// Input of `eraseCustomer`.
#[derive(InputObject)]
pub struct EraseCustomerInput {
    /// Id of the customer, for example `cus_01h455vb4pex5vsknk084sn02q`.
    id: ID,
    /// Your reference for the erasure, 1 to 100 characters, for example a ticket number. Kept on the receipt, so it
    /// must not contain personal data.
    reference: String,
    /// Key that makes retries safe: 1 to 255 characters, for example a UUID. Use the same key for each retry of a
    /// request, and a new key for each new request. For 24 hours, a request with the same key and the same values
    /// returns the first result and changes nothing. With other values, the error is `IDEMPOTENCY_KEY_REUSED`.
    idempotency_key: Option<String>,
}

impl AddressInput {
    fn parse(self, violations: &mut Violations) -> Option<Address> {
        let Self { line1, line2, city, region, postal_code, country } = self;
        let city = city.unwrap_or_default();
        let parsed = Address::parse(AddressParts { line1, line2, city, region, postal_code, country });
        for (part, reason) in parsed.as_ref().err().into_iter().flatten() {
            violations.add(Violation::of(ErrorCode::InvalidAddress, InputField::Address(*part)).with_reason(*reason));
        }
        parsed.ok()
    }
}

/// Parses a field that can be cleared. Returns `NotSet` for an omitted field and for an invalid value, and `Set(None)`
/// for null.
fn optional<I, T>(input: MaybeUndefined<I>, parse: impl FnOnce(I) -> Option<T>) -> ActiveValue<Option<T>>
where
    Option<T>: Into<sea_orm::Value>,
{
    match input {
        MaybeUndefined::Undefined => NotSet,
        MaybeUndefined::Null => Set(None),
        MaybeUndefined::Value(input) => parse(input).map_or(NotSet, |value| Set(Some(value))),
    }
}

impl OptionalDataInput {
    fn parse(self, violations: &mut Violations) -> customer::ActiveModel {
        customer::ActiveModel {
            phone: optional(self.phone, |text| violations.phone(InputField::Phone, &text)),
            first_name: optional(self.first_name, |text| violations.name(InputField::FirstName, &text)),
            last_name: optional(self.last_name, |text| violations.name(InputField::LastName, &text)),
            address: optional(self.address, |address| address.parse(violations)),
            ..Default::default()
        }
    }
}

impl CreateCustomerInput {
    pub fn parse(self) -> CustomerDraft {
        let Self { external_customer_id, data: CustomerDataInput { email, optional }, connect_by, idempotency_key } =
            self;
        let mut violations = Violations::default();
        CustomerDraft {
            external_customer_id: violations
                .external_customer_id(InputField::ExternalCustomerId, &external_customer_id),
            email: violations.email(InputField::Email, &email),
            optional_values: optional.parse(&mut violations),
            connect_by: ConnectBy::new(&connect_by),
            idempotency_key: idempotency_key.and_then(|text| violations.idempotency_key(&text)),
            violations: violations.into_violations(),
        }
    }
}

impl UpdateCustomerRef {
    /// Returns `None` for a malformed id, because no customer has such an id.
    fn parse(self, violations: &mut Violations) -> Option<CustomerRef> {
        match self {
            Self::Id(id) => CustomerId::parse(&id).map(CustomerRef::Id),
            Self::ExternalCustomerId(text) => violations
                .external_customer_id(InputField::CustomerExternalCustomerId, &text)
                .map(CustomerRef::ExternalCustomerId),
        }
    }
}

impl UpdateCustomerInput {
    pub fn parse(self, caller: &Caller) -> CustomerChanges {
        let Self { customer, data, external_customer_id, expected_version, idempotency_key } = self;
        let mut violations = Violations::default();
        let is_by_external_id = matches!(customer, UpdateCustomerRef::ExternalCustomerId(_));
        let customer = if is_by_external_id && caller.operator().is_none() {
            violations.no_external_id(InputField::CustomerExternalCustomerId)
        } else {
            customer.parse(&mut violations)
        };
        if data.is_none() && external_customer_id.is_undefined() {
            violations.argument(InputField::Data, NOTHING_TO_UPDATE);
        }
        let external_customer_id = if caller.operator().is_none() && !external_customer_id.is_undefined() {
            violations.no_external_id(InputField::ExternalCustomerId)
        } else {
            let (code, field) = (ErrorCode::InvalidExternalCustomerId, InputField::ExternalCustomerId);
            violations.not_null(code, field, external_customer_id, ExternalCustomerId::parse)
        };
        let CustomerDataPatch { email, optional } = data.unwrap_or_default();
        let email = violations.not_null(ErrorCode::InvalidEmail, InputField::Email, email, EmailAddress::parse);
        CustomerChanges {
            customer,
            external_customer_id,
            expected_version,
            values: customer::ActiveModel { email: email.map_or(NotSet, Set), ..optional.parse(&mut violations) },
            idempotency_key: idempotency_key.and_then(|text| violations.idempotency_key(&text)),
            violations: violations.into_violations(),
        }
    }
}

impl DisconnectCustomerInput {
    pub fn parse(self, caller: &Caller) -> Result<DisconnectRequest, Error> {
        let Self { customer, reason, operator_id, idempotency_key } = self;
        let mut violations = Violations::default();
        let operator = violations.operator_id(caller, operator_id, PLATFORM_ONLY_OPERATOR_ID, OPERATOR_ID_REQUIRED);
        let disconnect = DisconnectRequest {
            customer: customer.parse(&mut violations),
            reason: reason.into(),
            operator,
            idempotency_key: idempotency_key.and_then(|text| violations.idempotency_key(&text)),
        };
        violations.finish(disconnect)
    }
}

impl RecordVerificationInput {
    pub fn parse(self) -> Result<VerificationRequest, Error> {
        let Self { id, field, value, verified_at, take_over, idempotency_key } = self;
        let mut violations = Violations::default();
        let verified_at = violations.time(InputField::VerifiedAt, Some(verified_at));
        let take_over = take_over.unwrap_or_default();
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
            customer: CustomerId::parse(&id),
            value,
            // PostgreSQL stores microseconds.
            verified_at: verified_at.trunc_subsecs(6),
            idempotency_key,
        })
    }
}

impl EraseCustomerInput {
    pub fn parse(self) -> Result<EraseRequest, Error> {
        let Self { id, reference, idempotency_key } = self;
        let mut violations = Violations::default();
        let reference =
            violations.value(ErrorCode::InvalidArgument, InputField::Reference, ErasureReference::parse(&reference));
        let idempotency_key = idempotency_key.and_then(|text| violations.idempotency_key(&text));
        let reference = violations.finish_parsed(reference)?;
        Ok(EraseRequest { customer: CustomerId::parse(&id), reference, idempotency_key })
    }
}

impl CustomerRefInput {
    /// Returns `None` for a malformed id, because no customer has such an id.
    pub fn parse(self, caller: &Caller) -> Result<Option<CustomerRef>, Error> {
        let mut violations = Violations::default();
        let reference = match self {
            Self::Id(id) => CustomerId::parse(&id).map(CustomerRef::Id),
            Self::ExternalCustomerId(_) if caller.operator().is_none() => {
                violations.no_external_id(InputField::ByExternalCustomerId)
            }
            Self::ExternalCustomerId(text) => violations
                .external_customer_id(InputField::ByExternalCustomerId, &text)
                .map(CustomerRef::ExternalCustomerId),
            Self::Email(text) => violations.email(InputField::ByEmail, &text).map(CustomerRef::Email),
            Self::Phone(text) => violations.phone(InputField::ByPhone, &text).map(CustomerRef::Phone),
        };
        violations.finish(reference)
    }
}

const NOTHING_TO_UPDATE: &str = "Set `data`, `externalCustomerId` or both.";
const PLATFORM_ONLY_OPERATOR_ID: &str =
    "Omit `operatorId`: an operator's key always disconnects the customer from its own operator.";
const OPERATOR_ID_REQUIRED: &str = "With the platform key, `operatorId` must name the operator to disconnect from.";
