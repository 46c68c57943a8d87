//! The table of customer fields. Every rule that treats all fields of a customer in the same way uses this table.
//!
//! A new field needs a variant of [`CustomerField`], a field of [`CustomerPatch`] and a row of the table in this file;
//! CONTRIBUTING.md lists the other edits. The following then include the field: missing and unapplied fields, the
//! `missing` filter, history, the canonical JSON of requests, the filling of empty fields on connect, and updates. The
//! order of the variants is the order of the fields in responses.

use async_graphql::Enum;
use chrono::{DateTime, Utc};
use entity::customer_event::{self, VerifiableField};
use entity::value::{Address, EmailAddress, PersonName, PhoneNumber};
use entity::{customer, customer_change};
use sea_orm::{ColumnTrait, EnumIter, Iterable};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// A field of a customer. Fields may be added, so keep a default case.
// The names of the variants are stored with the results of idempotency keys, so do not rename them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, EnumIter, Serialize, Deserialize)]
pub enum CustomerField {
    /// Email address.
    Email,
    /// First name.
    FirstName,
    /// Last name.
    LastName,
    /// Phone number. Payment and disbursement flows need the phone number to verify the customer by SMS.
    Phone,
    /// Postal address, as a whole.
    Address,
}

/// New values for fields of a customer. `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct CustomerPatch {
    pub email: Option<EmailAddress>,
    pub first_name: Option<Option<PersonName>>,
    pub last_name: Option<Option<PersonName>>,
    pub phone: Option<Option<PhoneNumber>>,
    pub address: Option<Option<Address>>,
}

impl CustomerPatch {
    /// The phone that is set, even if the customer already has it.
    pub(super) fn given_phone(&self) -> Option<&PhoneNumber> {
        self.phone.as_ref()?.as_ref()
    }
}

/// One row of the table.
struct Row {
    name: &'static str,
    column: customer::Column,
    is_missing: fn(&customer::Model) -> bool,
    differs: fn(&customer::Model, &customer::Model) -> bool,
    json: fn(&customer::Model) -> Json,
    patch_json: fn(&CustomerPatch) -> Option<Json>,
    apply: fn(&CustomerPatch, &mut customer::Model),
}

/// A row for a column of `customer`. The type of the column must implement [`Serialize`].
macro_rules! row {
    ($name:literal, $column:ident, $field:ident) => {
        Row {
            name: $name,
            column: customer::Column::$column,
            is_missing: |customer| customer.$field.is_missing(),
            differs: |one, other| one.$field != other.$field,
            json: |customer| json!(customer.$field),
            patch_json: |patch| patch.$field.as_ref().map(|value| json!(value)),
            apply: |patch, customer| {
                if let Some(value) = &patch.$field {
                    customer.$field.clone_from(value);
                }
            },
        }
    };
}

impl CustomerField {
    fn row(self) -> Row {
        match self {
            Self::Email => row!("email", Email, email),
            Self::FirstName => row!("firstName", FirstName, first_name),
            Self::LastName => row!("lastName", LastName, last_name),
            Self::Phone => row!("phone", Phone, phone),
            Self::Address => row!("address", Address, address),
        }
    }

    /// All fields, in the order of responses.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// The fields that a history entry changed, in the order of responses.
    pub(super) fn changed_by(event: &customer_event::Model) -> impl Iterator<Item = Self> {
        Self::all().filter(|field| event.after.0.contains_key(field.name()))
    }

    /// The changed fields of a change in the feed, in the order of responses.
    pub fn changed_in(change: &customer_change::Model) -> impl Iterator<Item = Self> {
        Self::all().filter(|field| change.changed_fields.0.iter().any(|name| name == field.name()))
    }

    /// Name in the schema, in stored history and in the canonical JSON of requests.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    pub(super) fn column(self) -> customer::Column {
        self.row().column
    }

    /// Returns true if a customer may have no value for this field.
    pub(super) fn is_optional(self) -> bool {
        self.column().def().is_null()
    }

    pub(super) fn is_missing(self, customer: &customer::Model) -> bool {
        (self.row().is_missing)(customer)
    }

    /// Value as it is stored in history: a string, an object or null.
    pub fn json_of(self, customer: &customer::Model) -> Json {
        (self.row().json)(customer)
    }

    /// Returns true if this field has different values in two states of a customer.
    pub(super) fn differs(self, one: &customer::Model, other: &customer::Model) -> bool {
        (self.row().differs)(one, other)
    }

    /// Returns true if a field has different values in two states of a customer.
    pub(super) fn any_differs(one: &customer::Model, other: &customer::Model) -> bool {
        Self::all().any(|field| field.differs(one, other))
    }

    /// The new value of this field. Null clears the field; `None` leaves it as it is.
    pub(super) fn patch_json(self, patch: &CustomerPatch) -> Option<Json> {
        (self.row().patch_json)(patch)
    }

    /// Sets the field of `customer` to its new value in `patch`, if there is one.
    pub(super) fn apply(self, patch: &CustomerPatch, customer: &mut customer::Model) {
        (self.row().apply)(patch, customer);
    }
}

impl From<VerifiableField> for CustomerField {
    fn from(field: VerifiableField) -> Self {
        match field {
            VerifiableField::Email => Self::Email,
            VerifiableField::Phone => Self::Phone,
        }
    }
}

/// The time of the verification of a field. `None` if the field is not verified.
pub(super) fn verified_at(customer: &customer::Model, field: VerifiableField) -> Option<DateTime<Utc>> {
    match field {
        VerifiableField::Email => customer.email_verified_at,
        VerifiableField::Phone => customer.phone_verified_at,
    }
}

pub(super) fn set_verified_at(customer: &mut customer::Model, field: VerifiableField, time: Option<DateTime<Utc>>) {
    match field {
        VerifiableField::Email => customer.email_verified_at = time,
        VerifiableField::Phone => customer.phone_verified_at = time,
    }
}

trait MaybeMissing {
    fn is_missing(&self) -> bool {
        false
    }
}

impl<T> MaybeMissing for Option<T> {
    fn is_missing(&self) -> bool {
        self.is_none()
    }
}

impl MaybeMissing for EmailAddress {}
