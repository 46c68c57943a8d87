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

/// How a customer is named: in exactly one of these ways.
#[derive(OneofObject)]
#[graphql(name = "CustomerRef")]
pub enum CustomerRefInput {
    /// The customer's id, such as `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer. Not for the platform, which has none.
    ExternalCustomerId(String),
    /// The customer's email address.
    Email(String),
    /// The customer's phone number, such as `+14155552671`.
    Phone(String),
}

/// How a customer of yours is named: in exactly one of these ways.
#[derive(OneofObject)]
#[graphql(name = "UpdateCustomerRef")]
pub enum UpdateCustomerRefInput {
    /// The customer's id, such as `cus_01h455vb4pex5vsknk084sn02q`.
    Id(ID),
    /// Your own id for the customer.
    ExternalCustomerId(String),
}

/// Which customers to list: those of whom all of this holds.
#[derive(Default, InputObject)]
#[graphql(name = "CustomerFilter")]
pub struct CustomerFilterInput {
    /// What somebody types to find a customer, such as `ada love` or `415 555`: beginnings of words of the names, the
    /// email and the external id, in any order, or of a phone's digits, with the country code or without. Case and
    /// accents make no difference, `%` and `*` mean nothing, digits next to each other are one number, and all of it must
    /// be found. Text without letters and digits finds nobody: leave `search` out where nothing was typed. At most 255
    /// characters and 8 words. Who is found is listed in the order of the customers' ids: `orderBy` cannot be given beside
    /// it. Not for the platform's list of all customers.
    search: Option<String>,
    /// The email address, in any spelling.
    email: Option<String>,
    /// The phone number, in any spelling.
    phone: Option<String>,
    /// The id that the operator whose list this is has for the customer.
    external_customer_id: Option<String>,
    /// Values that the customer lacks, all of them. The list is walked in its order and those who have one are left out, so
    /// where few lack anything a page takes longer.
    missing: Option<Vec<CustomerField>>,
    /// When the record was created, by whichever operator. The list is walked in its order and the others are left out.
    created_at: Option<DateTimeRange>,
    /// When the customer was connected to the operator whose list this is; by the index of that time. Not for the
    /// platform's list of all customers.
    connected_at: Option<DateTimeRange>,
}

/// A time from one point until another. Left out, an end is open.
#[derive(InputObject)]
struct DateTimeRange {
    /// From this time on, that included, such as `2026-11-23T00:00:00Z`.
    from: Option<Time>,
    /// Until this time, that not included.
    before: Option<Time>,
}

/// In which order to list customers.
#[derive(InputObject)]
#[graphql(name = "CustomerOrder")]
pub struct CustomerOrderInput {
    /// What to sort by.
    field: CustomerOrderField,
    /// Which end comes first.
    direction: OrderDirection,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum OrderDirection {
    /// The least first: the oldest, the first of the alphabet.
    Asc,
    /// The greatest first.
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

/// A customer to create or to connect.
#[derive(InputObject)]
pub struct CreateCustomerInput {
    /// Your own id for the customer: 1 to 255 characters, case-sensitive, unique among your customers.
    external_customer_id: String,
    /// Who the customer is. The email is enough; what you add here, the customer need not be asked for later.
    data: CustomerDataInput,
    /// A text of your choice, 1 to 255 characters, that tells this request from all others. Sent again with the same
    /// one within 24 hours, the request gets the first answer again and nothing is done twice: safe after a lost answer.
    idempotency_key: Option<String>,
}

/// The values of a new customer.
#[derive(InputObject)]
struct CustomerDataInput {
    /// The email address, such as `ada@example.com`: no two customers have the same one. In production, addresses of
    /// disposable providers and addresses with a `+` before the `@` are refused.
    email: String,
    /// The phone number with a leading `+` and country code, such as `+14155552671`. Without a `+`, ten digits or more
    /// are read as a US number. In production it must be a mobile line.
    phone: Option<String>,
    /// The first name, 1 to 100 characters.
    first_name: Option<String>,
    /// The last name, 1 to 100 characters.
    last_name: Option<String>,
    /// The postal address.
    address: Option<AddressInput>,
}

/// A postal address. Each part has at most 200 characters, the postal code 20.
#[derive(InputObject)]
struct AddressInput {
    /// Street and house number, such as `1 Main St`.
    line1: String,
    /// What follows the first line, such as `Apartment 4`.
    line2: Option<String>,
    /// The city.
    city: String,
    /// The state, province or county.
    region: Option<String>,
    /// The postal code.
    postal_code: Option<String>,
    /// The country, as an ISO 3166-1 alpha-2 code such as `US`.
    country: String,
}

/// A change to a customer of yours.
#[derive(InputObject)]
pub struct UpdateCustomerInput {
    /// Which customer.
    customer: UpdateCustomerRefInput,
    /// What to change.
    data: CustomerDataPatch,
    /// The `version` that you have seen. If the customer has changed since, nothing is done, and the answer is
    /// `VERSION_CONFLICT`. Left out, the change is made to whatever version there is.
    expected_version: Option<i32>,
    /// A text of your choice, 1 to 255 characters, that tells this request from all others. Sent again with the same
    /// one within 24 hours, the request gets the first answer again and nothing is done twice: safe after a lost answer.
    idempotency_key: Option<String>,
}

/// Values to change. Left out, a value stays as it is; null removes it.
#[derive(InputObject)]
struct CustomerDataPatch {
    /// The email address. It cannot be removed. A new one is subject to the same rules as on create.
    email: MaybeUndefined<String>,
    /// The phone number. A new one is subject to the same rules as on create.
    phone: MaybeUndefined<String>,
    /// The first name.
    first_name: MaybeUndefined<String>,
    /// The last name.
    last_name: MaybeUndefined<String>,
    /// The postal address, replaced as a whole.
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
