//! Changes to a customer.

use entity::customer;
use entity::customer_event::EventType;
use entity::value::{
    Address, CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, PersonName, PhoneNumber, RequestId,
};
use sea_orm::ActiveValue::{self, Set};
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rows::{holds_any, of_operator, write};
use super::{CustomerRef, CustomerView, Customers};
use crate::database::{OptimisticWrite, TransactionError, WriteBatch};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::{self, IdempotentRequest};
use crate::service::restrictions::Findings;
use crate::service::{Actor, Origin, history};

/// What a request says of an existing customer: each value is left as it is (`NotSet`), cleared (`Set(None)`) or set.
/// A value that could not be read is left as it is, and its fault in `faults`.
#[derive(Clone, Debug, Default)]
pub struct CustomerChanges {
    /// `None`: an id that no customer can have.
    pub customer: Option<OwnCustomerRef>,
    pub expected_version: Option<i32>,
    pub email: ActiveValue<EmailAddress>,
    pub phone: ActiveValue<Option<PhoneNumber>>,
    pub first_name: ActiveValue<Option<PersonName>>,
    pub last_name: ActiveValue<Option<PersonName>>,
    pub address: ActiveValue<Option<Address>>,
    pub idempotency_key: Option<IdempotencyKey>,
    pub faults: Vec<Violation>,
}

/// How an operator names a customer of its own that it writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCustomerRef {
    Id(CustomerId),
    ExternalCustomerId(ExternalCustomerId),
}

impl From<&OwnCustomerRef> for CustomerRef {
    fn from(own: &OwnCustomerRef) -> Self {
        match own {
            OwnCustomerRef::Id(id) => Self::Id(*id),
            OwnCustomerRef::ExternalCustomerId(id) => Self::ExternalCustomerId(id.clone()),
        }
    }
}

#[derive(Clone)]
pub struct Updated {
    pub view: CustomerView,
    pub warnings: Vec<Violation>,
    /// Whether this was done before, by a request with the same idempotency key.
    pub replayed: bool,
}

/// What is kept of an `updateCustomer` under its idempotency key.
#[derive(Serialize, Deserialize)]
struct StoredOutcome {
    customer: uuid::Uuid,
    warnings: Vec<ErrorCode>,
}

impl Customers {
    /// Changes values of a customer of the caller's operator.
    pub async fn update(&self, actor: &Actor, request: RequestId, changes: CustomerChanges) -> Result<Updated, Error> {
        let origin = actor.origin(request)?;
        let phone = changes.phone.try_as_ref().and_then(Option::as_ref);
        // A request with faults is refused, and a refused request keeps no key.
        let key = changes.idempotency_key.as_ref().filter(|_| changes.faults.is_empty());
        let email = changes.email.try_as_ref();
        let values = u32::from(email.is_some()) + u32::from(phone.is_some());
        let mut disclosures = self.limits.reserve_disclosures(&origin, values)?;
        let idempotent = self.idempotent(&origin, key, || changes.canonical_form());
        let updated = self.with_checked_phone(phone, |is_checked| {
            let (origin, idempotent, changes) = (&origin, idempotent.as_ref(), &changes);
            OptimisticWrite::run(&self.database, "customer.update", move |write_tx| {
                let attempt = self.try_update(write_tx, origin, idempotent, changes, is_checked);
                idempotency::or_replay(
                    idempotent,
                    self.database.reader(),
                    attempt,
                    async |StoredOutcome { customer, warnings }| {
                        let view = self.reload(origin, customer.into()).await?;
                        Ok(Updated { view, warnings: self.restrictions.warnings_from_codes(&warnings), replayed: true })
                    },
                )
            })
        });
        let updated = updated.await;
        if let Err(error) = &updated {
            disclosures.disclosed("taken on update", self.taken_by_strangers(&origin, error, email, phone).await?);
        }
        updated
    }

    /// How many values are taken by customers who are not the operator's own.
    async fn taken_by_strangers(
        &self,
        origin: &Origin,
        error: &Error,
        email: Option<&EmailAddress>,
        phone: Option<&PhoneNumber>,
    ) -> Result<u32, Error> {
        let email = email.filter(|_| error.has(ErrorCode::EmailTaken));
        let phone = phone.filter(|_| error.has(ErrorCode::PhoneTaken));
        if email.is_none() && phone.is_none() {
            return Ok(0);
        }
        let own = of_operator(origin.operator).filter(holds_any(email, phone)).all(self.database.reader()).await?;
        let own = || own.iter().filter_map(|(_, customer)| customer.as_ref());
        let is_own_email = own().any(|customer| Some(&customer.email) == email);
        let is_own_phone = own().any(|customer| customer.phone.as_ref() == phone);
        Ok(u32::from(email.is_some() && !is_own_email) + u32::from(phone.is_some() && !is_own_phone))
    }

    /// `None`: it would store a phone that is not judged.
    async fn try_update(
        &self,
        write_tx: OptimisticWrite,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
        changes: &CustomerChanges,
        is_phone_checked: bool,
    ) -> Result<Option<Updated>, TransactionError> {
        let current = match &changes.customer {
            Some(customer) => self.find_own_for_update(&write_tx, origin.operator, &customer.into()).await?,
            None => None,
        };
        let Some((link, current)) = current else {
            let faults = match changes.faults.as_slice() {
                [] => vec![Violation::of(ErrorCode::CustomerNotFound, InputField::Customer)],
                faults => faults.to_vec(),
            };
            return Err(Error::Rejected(faults).into());
        };

        let mut row = current.clone().into_active_model();
        change(&mut row.email, &changes.email);
        change(&mut row.phone, &changes.phone);
        change(&mut row.first_name, &changes.first_name);
        change(&mut row.last_name, &changes.last_name);
        change(&mut row.address, &changes.address);
        let email = row.email.is_set().then(|| row.email.as_ref());
        let phone = row.phone.is_set().then(|| row.phone.as_ref().as_ref()).flatten();

        let Findings { refusals, warnings } = self.restrictions.check(email, phone);
        let faults = [changes.faults.as_slice(), &refusals].concat();
        if !faults.is_empty() {
            return Err(Error::Rejected(faults).into());
        }

        let mut faults = Vec::new();
        if changes.expected_version.is_some_and(|version| version != current.version) {
            faults.push(Violation::of(ErrorCode::VersionConflict, InputField::ExpectedVersion));
        }
        if email.is_some() || phone.is_some() {
            let others = customer::Entity::find()
                .filter(holds_any(email, phone))
                .filter(customer::Column::Id.ne(current.id))
                .all(&write_tx)
                .await?;
            if others.iter().any(|other| Some(&other.email) == email) {
                faults.push(Violation::of(ErrorCode::EmailTaken, InputField::Email));
            }
            if others.iter().any(|other| phone.is_some() && other.phone.as_ref() == phone) {
                faults.push(Violation::of(ErrorCode::PhoneTaken, InputField::Phone));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Rejected(faults).into());
        }
        if phone.is_some() && !is_phone_checked {
            return Ok(None);
        }

        let mut writes = WriteBatch::new(origin.operator);
        let customer = if row.is_changed() {
            let customer = write(&mut writes, &current, row)?;
            history::record(&mut writes, origin, EventType::Updated, Some(&current), &customer);
            customer
        } else {
            current
        };
        let kept = || StoredOutcome {
            customer: *customer.id.as_uuid(),
            warnings: warnings.iter().map(|warning| warning.code).collect(),
        };
        idempotency::write(write_tx, writes, idempotent, kept).await?;
        Ok(Some(Updated { view: CustomerView::new(customer, Some(link)), warnings, replayed: false }))
    }
}

impl CustomerChanges {
    /// The same for two requests exactly if they ask for the same: what is left out is not what is removed.
    fn canonical_form(&self) -> String {
        fn state<T>(data: &mut Map<String, Value>, name: &str, value: &ActiveValue<T>, json: impl Fn(&T) -> Value)
        where
            T: Into<sea_orm::Value>,
        {
            if let Set(value) = value {
                data.insert(name.to_owned(), json(value));
            }
        }
        let mut data = Map::new();
        state(&mut data, "email", &self.email, |email| json!(email.as_str()));
        state(&mut data, "phone", &self.phone, |phone| json!(phone.as_ref().map(PhoneNumber::as_str)));
        state(&mut data, "firstName", &self.first_name, |name| json!(name.as_ref().map(PersonName::as_str)));
        state(&mut data, "lastName", &self.last_name, |name| json!(name.as_ref().map(PersonName::as_str)));
        state(&mut data, "address", &self.address, |address| json!(address));
        let customer = self.customer.as_ref().map(|customer| match customer {
            OwnCustomerRef::Id(id) => json!({ "id": id.to_string() }),
            OwnCustomerRef::ExternalCustomerId(id) => json!({ "externalCustomerId": id.as_str() }),
        });
        let expected_version = self.expected_version;
        json!({ "updateCustomer": { "customer": customer, "expectedVersion": expected_version, "data": data } })
            .to_string()
    }
}

/// Sets a column to the value that the request has for it, if that is another one.
fn change<T: Clone + PartialEq + Into<sea_orm::Value>>(column: &mut ActiveValue<T>, given: &ActiveValue<T>) {
    if let Set(value) = given {
        column.set_ne(value.clone());
    }
}
