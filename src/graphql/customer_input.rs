//! What callers write about customers, and how it is read: whole, each fault with its place.

use std::collections::HashSet;

use async_graphql::{Enum, ID, InputObject, MaybeUndefined, OneofObject};
use entity::value::{
    Address, AddressParts, CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PersonName,
    PhoneNumber, Reason, SearchQuery,
};
use sea_orm::ActiveValue::{self, NotSet, Set};

use super::time::Time;
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::Actor;
use crate::service::customers::{
    CustomerChanges, CustomerField, CustomerFilter, CustomerList, CustomerOrder, CustomerOrderField, CustomerRef,
    NewCustomer, OwnCustomerRef, TimeRange,
};

/// Identifies a customer. Exactly one of the fields must be given.
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

/// Identifies one of your customers. Exactly one of the fields must be given.
#[derive(OneofObject)]
#[graphql(name = "UpdateCustomerRef")]
pub enum UpdateCustomerRefInput {
    /// Global id, for example `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer.
    ExternalCustomerId(String),
}

/// Conditions for a list of customers. A customer must match all of them.
#[derive(Default, InputObject)]
#[graphql(name = "CustomerFilter")]
pub struct CustomerFilterInput {
    /// Free text, for example `ada love` or `415 555`. Finds customers whose names, email, external id or phone contain a
    /// word starting with each of the words given. Phone numbers are found with or without the country code; adjacent
    /// groups of digits are read as one number. Ignores case and accents; there are no wildcards. At most 255 characters
    /// and 8 words. A text without letters and digits finds nothing: omit `search` if the user has typed nothing. Results
    /// are ordered by customer id; cannot be combined with `orderBy`. Not available in the platform's list of all
    /// customers.
    search: Option<String>,
    /// Email address, in any spelling that `createCustomer` accepts. Matches the whole address.
    email: Option<String>,
    /// Phone number, in any spelling that `createCustomer` accepts. Matches the whole number.
    phone: Option<String>,
    /// The operator's own id for the customer. Matches the whole id. Not available in the platform's list of all customers.
    external_customer_id: Option<String>,
    /// Fields that must all be empty. Reads through the list, so a page takes longer if few customers match.
    missing: Option<Vec<CustomerField>>,
    /// When the customer record was created, by any operator. Reads through the list, so a page takes longer if few
    /// customers match.
    created_at: Option<DateTimeRange>,
    /// When the customer was connected to the operator. Uses an index. Not available in the platform's list of all
    /// customers.
    connected_at: Option<DateTimeRange>,
}

/// A range of time. Both ends are optional.
#[derive(InputObject)]
struct DateTimeRange {
    /// Start of the range, inclusive, for example `2026-11-23T00:00:00Z`.
    from: Option<Time>,
    /// End of the range, exclusive.
    before: Option<Time>,
}

/// Sort order of a list of customers.
#[derive(InputObject)]
#[graphql(name = "CustomerOrder")]
pub struct CustomerOrderInput {
    /// Field to sort by.
    field: CustomerOrderField,
    /// Sort direction.
    direction: OrderDirection,
}

/// Sort direction.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum OrderDirection {
    /// Ascending: oldest or smallest first.
    Asc,
    /// Descending: newest or largest first.
    Desc,
}

impl From<CustomerOrderInput> for CustomerOrder {
    fn from(input: CustomerOrderInput) -> Self {
        Self { field: input.field, descending: input.direction == OrderDirection::Desc }
    }
}

impl From<Option<DateTimeRange>> for TimeRange {
    fn from(range: Option<DateTimeRange>) -> Self {
        range.map_or_else(Self::default, |DateTimeRange { from, before }| Self {
            from: from.map(|Time(time)| time),
            before: before.map(|Time(time)| time),
        })
    }
}

/// Input of `createCustomer` and `validateCustomer`.
#[derive(InputObject)]
pub struct CreateCustomerInput {
    /// Your own id for the customer: 1 to 255 characters, case-sensitive, unique among your customers.
    external_customer_id: String,
    /// Personal data of the customer. Only the email is required; the SDK asks the customer for the fields that are missing.
    data: CustomerDataInput,
    /// A unique string of 1 to 255 characters. Repeating the request with the same key within 24 hours returns the first
    /// result and changes nothing, so it is safe to retry after a timeout.
    idempotency_key: Option<String>,
}

/// Personal data of a new customer.
#[derive(InputObject)]
struct CustomerDataInput {
    /// Email address, for example `ada@example.com`. Unique on the platform. Production rejects addresses of disposable
    /// providers and addresses with a `+` before the `@`.
    email: String,
    /// Phone number with a leading `+` and country code, for example `+14155552671`. Without `+`, a number of at least 10
    /// digits is read as a US number. Unique on the platform. Production accepts mobile numbers only.
    phone: Option<String>,
    /// First name, 1 to 100 characters.
    first_name: Option<String>,
    /// Last name, 1 to 100 characters.
    last_name: Option<String>,
    /// Postal address.
    address: Option<AddressInput>,
}

/// A postal address. Each field has at most 200 characters, `postalCode` at most 20.
#[derive(InputObject)]
struct AddressInput {
    /// Street and house number, for example `1 Main St`.
    line1: String,
    /// Second address line, for example `Apartment 4`.
    line2: Option<String>,
    /// City.
    city: String,
    /// State, province or county.
    region: Option<String>,
    /// Postal code.
    postal_code: Option<String>,
    /// Country as an ISO 3166-1 alpha-2 code, for example `US`.
    country: String,
}

/// Input of `updateCustomer`.
#[derive(InputObject)]
pub struct UpdateCustomerInput {
    /// The customer to update.
    customer: UpdateCustomerRefInput,
    /// The fields to change.
    data: CustomerDataPatch,
    /// The `version` that your change is based on. If the customer has changed since, nothing is changed and the error is
    /// `VERSION_CONFLICT`. If omitted, the update applies to any version.
    expected_version: Option<i32>,
    /// A unique string of 1 to 255 characters. Repeating the request with the same key within 24 hours returns the first
    /// result and changes nothing, so it is safe to retry after a timeout.
    idempotency_key: Option<String>,
}

/// Changes to a customer's personal data. Omitted fields stay as they are; null clears a field.
#[derive(InputObject)]
struct CustomerDataPatch {
    /// Email address. Cannot be null. A new one must meet the same rules as for `createCustomer`.
    email: MaybeUndefined<String>,
    /// Phone number. A new one must meet the same rules as for `createCustomer`.
    phone: MaybeUndefined<String>,
    /// First name, 1 to 100 characters.
    first_name: MaybeUndefined<String>,
    /// Last name, 1 to 100 characters.
    last_name: MaybeUndefined<String>,
    /// Postal address. Replaces the stored address as a whole.
    address: MaybeUndefined<AddressInput>,
}

/// The faults found so far.
#[derive(Default)]
struct Faults(Vec<Violation>);

impl Faults {
    /// The value, if it is one; the fault is kept with its place.
    fn value<T>(&mut self, code: ErrorCode, field: InputField, parsed: Result<T, Reason>) -> Option<T> {
        parsed.map_err(|reason| self.0.push(Violation::of(code, field).with_reason(reason))).ok()
    }

    fn email(&mut self, field: InputField, text: &str) -> Option<EmailAddress> {
        self.value(ErrorCode::InvalidEmail, field, EmailAddress::parse(text))
    }

    fn phone(&mut self, field: InputField, text: &str) -> Option<PhoneNumber> {
        self.value(ErrorCode::InvalidPhone, field, PhoneNumber::parse(text))
    }

    fn name(&mut self, field: InputField, text: &str) -> Option<PersonName> {
        self.value(ErrorCode::InvalidName, field, PersonName::parse(text))
    }

    fn external_customer_id(&mut self, field: InputField, text: &str) -> Option<ExternalCustomerId> {
        self.value(ErrorCode::InvalidExternalCustomerId, field, ExternalCustomerId::parse(text))
    }

    fn idempotency_key(&mut self, text: &str) -> Option<IdempotencyKey> {
        self.value(ErrorCode::InvalidArgument, InputField::IdempotencyKey, IdempotencyKey::parse(text))
    }

    fn address(&mut self, input: AddressInput) -> Option<Address> {
        let AddressInput { line1, line2, city, region, postal_code, country } = input;
        let parsed = Address::parse(AddressParts { line1, line2, city, region, postal_code, country });
        parsed
            .map_err(|parts| {
                for (part, reason) in parts {
                    let field = InputField::Address(part);
                    self.0.push(Violation::of(ErrorCode::InvalidAddress, field).with_reason(reason));
                }
            })
            .ok()
    }

    /// What a patch says of a value that may be removed.
    fn patch<I, T>(
        &mut self,
        patch: MaybeUndefined<I>,
        parse: impl FnOnce(&mut Self, I) -> Option<T>,
    ) -> ActiveValue<Option<T>>
    where
        Option<T>: Into<sea_orm::Value>,
    {
        match patch {
            MaybeUndefined::Undefined => NotSet,
            MaybeUndefined::Null => Set(None),
            MaybeUndefined::Value(input) => parse(self, input).map_or(NotSet, |value| Set(Some(value))),
        }
    }

    fn none(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Rejected(self.0)) }
    }
}

impl CreateCustomerInput {
    pub fn parse(self) -> NewCustomer {
        let Self { external_customer_id, data, idempotency_key } = self;
        let mut faults = Faults::default();
        NewCustomer {
            external_customer_id: faults.external_customer_id(InputField::ExternalCustomerId, &external_customer_id),
            email: faults.email(InputField::Email, &data.email),
            phone: data.phone.and_then(|text| faults.phone(InputField::Phone, &text)),
            first_name: data.first_name.and_then(|text| faults.name(InputField::FirstName, &text)),
            last_name: data.last_name.and_then(|text| faults.name(InputField::LastName, &text)),
            address: data.address.and_then(|input| faults.address(input)),
            idempotency_key: idempotency_key.and_then(|text| faults.idempotency_key(&text)),
            faults: faults.0,
        }
    }
}

impl UpdateCustomerInput {
    pub fn parse(self) -> CustomerChanges {
        let Self { customer, data, expected_version, idempotency_key } = self;
        let mut faults = Faults::default();
        CustomerChanges {
            customer: match customer {
                UpdateCustomerRefInput::Id(id) => CustomerId::parse(&id).map(OwnCustomerRef::Id),
                UpdateCustomerRefInput::ExternalCustomerId(text) => faults
                    .external_customer_id(InputField::CustomerExternalCustomerId, &text)
                    .map(OwnCustomerRef::ExternalCustomerId),
            },
            expected_version,
            email: match data.email {
                MaybeUndefined::Undefined => NotSet,
                MaybeUndefined::Null => {
                    faults.0.push(
                        Violation::of(ErrorCode::InvalidEmail, InputField::Email).with_reason(Reason::NotRemovable),
                    );
                    NotSet
                }
                MaybeUndefined::Value(text) => faults.email(InputField::Email, &text).map_or(NotSet, Set),
            },
            phone: faults.patch(data.phone, |faults, text| faults.phone(InputField::Phone, &text)),
            first_name: faults.patch(data.first_name, |faults, text| faults.name(InputField::FirstName, &text)),
            last_name: faults.patch(data.last_name, |faults, text| faults.name(InputField::LastName, &text)),
            address: faults.patch(data.address, |faults, input| faults.address(input)),
            idempotency_key: idempotency_key.and_then(|text| faults.idempotency_key(&text)),
            faults: faults.0,
        }
    }
}

impl CustomerRefInput {
    /// What the reference names; `None` for an id that no customer can have.
    pub fn parse(self, actor: &Actor) -> Result<Option<CustomerRef>, Error> {
        let mut faults = Faults::default();
        let reference = match self {
            Self::Id(id) => CustomerId::parse(&id).map(CustomerRef::Id),
            Self::ExternalCustomerId(text) => {
                has_external_customer_ids(actor, InputField::ByExternalCustomerId)?;
                faults
                    .external_customer_id(InputField::ByExternalCustomerId, &text)
                    .map(CustomerRef::ExternalCustomerId)
            }
            Self::Email(text) => faults.email(InputField::ByEmail, &text).map(CustomerRef::Email),
            Self::Phone(text) => faults.phone(InputField::ByPhone, &text).map(CustomerRef::Phone),
        };
        faults.none()?;
        Ok(reference)
    }
}

/// A text of repeats would be a statement of repeats.
fn without_repeats(fields: Vec<CustomerField>) -> Vec<CustomerField> {
    let mut seen = HashSet::new();
    fields.into_iter().filter(|field| seen.insert(*field)).collect()
}

impl CustomerFilterInput {
    /// The list of an operator's customers, or of all, that is filtered and sorted so.
    pub fn list(self, operator: Option<OperatorId>, order: Option<CustomerOrderInput>) -> Result<CustomerList, Error> {
        self.suits(operator, order.as_ref())?;
        let mut faults = Faults::default();
        let filter = CustomerFilter {
            search: self.search.and_then(|text| {
                faults.value(ErrorCode::InvalidArgument, InputField::FilterSearch, SearchQuery::parse(&text))
            }),
            email: self.email.and_then(|text| faults.email(InputField::FilterEmail, &text)),
            phone: self.phone.and_then(|text| faults.phone(InputField::FilterPhone, &text)),
            external_customer_id: self
                .external_customer_id
                .and_then(|text| faults.external_customer_id(InputField::FilterExternalCustomerId, &text)),
            missing: without_repeats(self.missing.unwrap_or_default()),
            created_at: self.created_at.into(),
            connected_at: self.connected_at.into(),
        };
        faults.none()?;
        Ok(CustomerList { operator, filter, order: order.map(Into::into).unwrap_or_default() })
    }

    /// That such a list can be filtered and sorted so.
    fn suits(&self, operator: Option<OperatorId>, order: Option<&CustomerOrderInput>) -> Result<(), Error> {
        let is_of_all = operator.is_none();
        let faults = [
            (
                is_of_all && self.search.is_some(),
                InputField::FilterSearch,
                "Search among the customers of an operator.",
            ),
            (
                is_of_all && self.connected_at.is_some(),
                InputField::FilterConnectedAt,
                "In the list of all customers nobody is connected to anyone.",
            ),
            (is_of_all && self.external_customer_id.is_some(), InputField::FilterExternalCustomerId, NO_EXTERNAL_IDS),
            (
                is_of_all && order.is_some(),
                InputField::OrderBy,
                "The list of all customers has one order. Ask for the customers of an operator.",
            ),
            (
                order.is_some() && self.search.is_some(),
                InputField::OrderBy,
                "Leave it out beside `search`: who is found is listed in the order of the ids.",
            ),
        ];
        match faults.into_iter().find(|(is_so, ..)| *is_so) {
            Some((_, field, note)) => Err(Violation::of(ErrorCode::InvalidArgument, field).with_note(note).into()),
            None => Ok(()),
        }
    }
}

const NO_EXTERNAL_IDS: &str = "An external customer id belongs to an operator, and the platform is none.";

/// External ids are an operator's own: the platform has none.
fn has_external_customer_ids(actor: &Actor, field: InputField) -> Result<(), Error> {
    match actor.operator() {
        Some(_) => Ok(()),
        None => Err(Violation::of(ErrorCode::InvalidArgument, field).with_note(NO_EXTERNAL_IDS).into()),
    }
}
