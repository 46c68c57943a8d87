//! The GraphQL inputs for one customer, and their conversion to the request types of the service. Invalid values of an
//! input are reported together, each with its path.

use async_graphql::{ID, InputObject, MaybeUndefined, OneofObject};
use entity::value::{Address, AddressParts, CustomerId, EmailAddress, ExternalCustomerId};
use sea_orm::Iterable;

use super::violations::{Violations, optional};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::event_enums::DisconnectReason;
use crate::service::Caller;
use crate::service::customers::{
    ConnectBy, CustomerChanges, CustomerDraft, CustomerPatch, CustomerRef, DisconnectRequest, MatchKey,
};

/// Identifies a customer. Set exactly one field.
#[derive(OneofObject)]
#[graphql(name = "CustomerRef")]
pub enum CustomerRefInput {
    /// Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer. Not available with the platform key.
    ExternalCustomerId(String),
    /// Email address of the customer, in any spelling that `createCustomer` accepts.
    Email(String),
    /// Phone number of the customer, for example `+14155552671`, in any spelling that `createCustomer` accepts.
    Phone(String),
}

/// Identifies a customer by one of its ids. With an operator key: one of your customers. With the platform key: any
/// customer. Set exactly one field.
#[derive(OneofObject)]
#[graphql(name = "UpdateCustomerRef")]
pub enum CustomerIdRefInput {
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
    /// Makes retries safe: 1 to 255 characters, for example a UUID. For 24 hours, the same mutation with the same key
    /// and the same values returns the first result and changes nothing. With other values, or in another mutation, the
    /// error is `IDEMPOTENCY_KEY_REUSED`. A rejected mutation does not use up its key. The repeated mutation fails with
    /// `CUSTOMER_NOT_FOUND` if the customer has since been erased or disconnected from your operator, even if it was
    /// connected again.
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
    /// Phone number with a leading `+` and country code, for example `+14155552671`. Without `+`, it is read as a US
    /// number. Unique on the platform. Production accepts only numbers that can belong to a mobile line.
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
    customer: CustomerIdRefInput,
    /// The fields to change. Required unless `externalCustomerId` is set.
    data: Option<CustomerDataPatch>,
    /// New value of your own id for the customer: 1 to 255 characters, case-sensitive, unique among your customers.
    /// Cannot be null. Only your operator and the platform see the new id. A new id does not change the `version` of
    /// the customer. Not available with the platform key.
    external_customer_id: MaybeUndefined<String>,
    /// The `version` that your change is based on. If the customer now has a different version, nothing is changed and
    /// the error is `VERSION_CONFLICT`. If omitted, the update applies to any version.
    expected_version: Option<i32>,
    /// Makes retries safe: 1 to 255 characters, for example a UUID. For 24 hours, the same mutation with the same key
    /// and the same values returns the first result and changes nothing. With other values, or in another mutation, the
    /// error is `IDEMPOTENCY_KEY_REUSED`. A rejected mutation does not use up its key. The repeated mutation fails with
    /// `CUSTOMER_NOT_FOUND` if the customer has since been erased or disconnected from your operator, even if it was
    /// connected again.
    idempotency_key: Option<String>,
}

/// Input of `disconnectCustomer`.
#[derive(InputObject)]
pub struct DisconnectCustomerInput {
    /// The customer to disconnect. With the platform key, `externalCustomerId` is the id that the operator given by
    /// `operatorId` uses for the customer.
    customer: CustomerIdRefInput,
    /// Reason for the disconnect. The platform sees the reason in the customer's history.
    reason: DisconnectReason,
    /// Id of the operator to disconnect the customer from. Required with the platform key. Not available with other
    /// keys.
    operator_id: Option<ID>,
    /// Makes retries safe: 1 to 255 characters, for example a UUID. For 24 hours, the same mutation with the same key
    /// and the same values returns the first result and changes nothing. With other values, or in another mutation, the
    /// error is `IDEMPOTENCY_KEY_REUSED`. A rejected mutation does not use up its key.
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

impl OptionalDataInput {
    fn parse(self, violations: &mut Violations) -> CustomerPatch {
        let Self { phone, first_name, last_name, address } = self;
        CustomerPatch {
            email: None,
            phone: optional(phone, |text| violations.phone(InputField::Phone, &text)),
            first_name: optional(first_name, |text| violations.name(InputField::FirstName, &text)),
            last_name: optional(last_name, |text| violations.name(InputField::LastName, &text)),
            address: optional(address, |address| address.parse(violations)),
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

impl CustomerIdRefInput {
    fn parse(self, violations: &mut Violations) -> Option<CustomerRef> {
        match self {
            Self::Id(id) => Some(CustomerRef::Id(CustomerId::parse_or_unknown(&id))),
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
        let is_by_external_id = matches!(customer, CustomerIdRefInput::ExternalCustomerId(_));
        let customer = if is_by_external_id && caller.operator().is_none() {
            violations.reject(InputField::CustomerExternalCustomerId, PLATFORM_HAS_NO_EXTERNAL_IDS)
        } else {
            customer.parse(&mut violations)
        };
        if data.is_none() && external_customer_id.is_undefined() {
            violations.argument(InputField::Data, NOTHING_TO_UPDATE);
        }
        let external_customer_id = if caller.operator().is_none() && !external_customer_id.is_undefined() {
            violations.reject(InputField::ExternalCustomerId, ONLY_OPERATORS_CHANGE_EXTERNAL_IDS)
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
            values: CustomerPatch { email, ..optional.parse(&mut violations) },
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
        let customer = customer.parse(&mut violations);
        let idempotency_key = idempotency_key.and_then(|text| violations.idempotency_key(&text));
        let customer = violations.finish_parsed(customer)?;
        Ok(DisconnectRequest { customer, reason: reason.into(), operator, idempotency_key })
    }
}

impl CustomerRefInput {
    pub fn parse(self, caller: &Caller) -> Result<CustomerRef, Error> {
        let mut violations = Violations::default();
        let reference = match self {
            Self::Id(id) => Some(CustomerRef::Id(CustomerId::parse_or_unknown(&id))),
            Self::ExternalCustomerId(_) if caller.operator().is_none() => {
                violations.reject(InputField::ByExternalCustomerId, PLATFORM_HAS_NO_EXTERNAL_IDS)
            }
            Self::ExternalCustomerId(text) => violations
                .external_customer_id(InputField::ByExternalCustomerId, &text)
                .map(CustomerRef::ExternalCustomerId),
            Self::Email(text) => violations.email(InputField::ByEmail, &text).map(CustomerRef::Email),
            Self::Phone(text) => violations.phone(InputField::ByPhone, &text).map(CustomerRef::Phone),
        };
        violations.finish_parsed(reference)
    }
}

const NOTHING_TO_UPDATE: &str = "Set `data`, `externalCustomerId` or both.";
const ONLY_OPERATORS_CHANGE_EXTERNAL_IDS: &str = "Omit `externalCustomerId`: only an operator can change its own id.";
const PLATFORM_HAS_NO_EXTERNAL_IDS: &str =
    "Each operator has its own `externalCustomerId`: with the platform key, name the customer by `id`.";
const PLATFORM_ONLY_OPERATOR_ID: &str =
    "Omit `operatorId`: an operator's key always disconnects the customer from its own operator.";
const OPERATOR_ID_REQUIRED: &str = "With the platform key, `operatorId` must name the operator to disconnect from.";
