//! Updates a customer.

use entity::customer;
use entity::customer_event::EventType;
use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, PhoneNumber, RequestId};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryTrait};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::rows::{self, has_email_or_phone, of_operator};
use super::{CustomerField, CustomerRef, CustomerView, Customers, changes, given_phone, history};
use crate::database::{OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::{self, Attempt, IdempotentRequest};
use crate::service::restrictions::Findings;
use crate::service::{Actor, Origin};

/// A request to update a customer, as far as its values are valid. `faults` lists the others.
#[derive(Clone, Debug, Default)]
pub struct ChangesDraft {
    pub changes: CustomerChanges,
    pub faults: Vec<Violation>,
}

/// A request to update a customer.
#[derive(Clone, Debug, Default)]
pub struct CustomerChanges {
    /// `None` for a malformed id: no customer has it.
    pub customer: Option<OwnCustomerRef>,
    pub expected_version: Option<i32>,
    /// The new values. Only the columns of [`CustomerField`] count: `NotSet` leaves one as it is, `Set(None)` clears it.
    pub values: customer::ActiveModel,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// A reference to one of the operator's own customers, to write to it.
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

/// The result of [`Customers::update`].
#[derive(Clone)]
pub struct Updated {
    pub view: CustomerView,
    /// Restrictions that production would enforce.
    pub warnings: Vec<Violation>,
    /// True if this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// The part of [`Updated`] that is stored under an idempotency key. It holds no data of a person.
#[derive(Serialize, Deserialize)]
struct StoredOutcome {
    customer: uuid::Uuid,
    warnings: Vec<ErrorCode>,
}

impl Customers {
    /// Updates a customer of the caller's operator.
    pub async fn update(&self, actor: &Actor, request: RequestId, draft: ChangesDraft) -> Result<Updated, Error> {
        let origin = actor.origin(request)?;
        let ChangesDraft { changes, faults } = draft;
        if !faults.is_empty() {
            let refusals = self.refusals_of_update(&origin, &changes).await?;
            return Err(Error::Rejected([faults, refusals].concat()));
        }
        let (email, phone) = (changes.values.email.try_as_ref(), given_phone(&changes.values));
        let values = u32::from(email.is_some()) + u32::from(phone.is_some());
        let mut disclosures = self.limits.reserve_disclosures(&origin, values)?;
        let idempotent =
            self.idempotent_request(&origin, changes.idempotency_key.as_ref(), || changes.canonical_json());
        let (origin, idempotent, changes) = (&origin, idempotent.as_ref(), &changes);
        let attempt =
            |write_tx, is_phone_checked| self.try_update(write_tx, origin, idempotent, changes, is_phone_checked);
        let replay = |stored| self.replay_update(origin, stored);
        let updated = self.run_write("customer.update", phone, idempotent, attempt, replay).await;
        if let Err(error) = &updated {
            let disclosed = self.taken_by_other_operators(origin, error, email, phone).await?;
            disclosures.disclosed("taken on update", disclosed);
        }
        updated
    }

    /// Restrictions that the valid values of a faulty request violate. Empty if there is no such customer.
    async fn refusals_of_update(&self, origin: &Origin, changes: &CustomerChanges) -> Result<Vec<Violation>, Error> {
        let Some(customer) = &changes.customer else { return Ok(Vec::new()) };
        let found = self.find_own(origin.operator, &customer.into()).await?;
        Ok(found.map_or_else(Vec::new, |(_, current)| {
            let changed = changes.applied_to(&current);
            self.restrictions.check(changed_email(&current, &changed), changed_phone(&current, &changed)).refusals
        }))
    }

    /// Counts the values that are taken, according to `error`, by customers of other operators alone.
    async fn taken_by_other_operators(
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
        let query = of_operator(origin.operator).filter(has_email_or_phone(email, phone)).into_query();
        let own = rows::own_customers(self.database.reader(), &query).await?;
        let is_own_email = own.iter().any(|(_, customer)| Some(&customer.email) == email);
        let is_own_phone = own.iter().any(|(_, customer)| customer.phone.as_ref() == phone);
        Ok(u32::from(email.is_some() && !is_own_email) + u32::from(phone.is_some() && !is_own_phone))
    }

    async fn try_update(
        &self,
        write_tx: OptimisticWrite,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
        changes: &CustomerChanges,
        is_phone_checked: bool,
    ) -> Result<Attempt<Updated>, TransactionError> {
        let found = match &changes.customer {
            Some(customer) => self.find_own_for_update(&write_tx, origin.operator, &customer.into()).await?,
            None => None,
        };
        let Some((link, current)) = found else {
            return Err(Error::from(Violation::of(ErrorCode::CustomerNotFound, InputField::Customer)).into());
        };

        let changed = changes.applied_to(&current);
        let (email, phone) = (changed_email(&current, &changed), changed_phone(&current, &changed));
        let Findings { refusals, warnings } = self.restrictions.check(email, phone);
        if !refusals.is_empty() {
            return Err(Error::Rejected(refusals).into());
        }

        let mut faults = Vec::new();
        if changes.expected_version.is_some_and(|version| version != current.version) {
            faults.push(Violation::of(ErrorCode::VersionConflict, InputField::ExpectedVersion));
        }
        if email.is_some() || phone.is_some() {
            let others = customer::Entity::find()
                .filter(has_email_or_phone(email, phone))
                .filter(customer::Column::Id.ne(current.id));
            let others = rows::customers(&write_tx, &others.into_query()).await?;
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
            return Ok(Attempt::NeedsPhoneCheck);
        }

        let mut writes = WriteSet::new(origin.operator);
        let customer = if changed == current {
            current
        } else {
            let customer = changes::replace(&mut writes, &current, changed);
            history::record(&mut writes, origin, EventType::Updated, Some(&current), &customer);
            customer
        };
        let stored = || StoredOutcome {
            customer: *customer.id.as_uuid(),
            warnings: warnings.iter().map(|warning| warning.code).collect(),
        };
        idempotency::write(write_tx, writes, idempotent, stored).await?;
        Ok(Attempt::Done(Updated { view: CustomerView::new(customer, Some(link)), warnings, replayed: false }))
    }

    async fn replay_update(&self, origin: &Origin, stored: StoredOutcome) -> Result<Updated, TransactionError> {
        let StoredOutcome { customer, warnings } = stored;
        let view = self.reload(origin, customer.into()).await?;
        Ok(Updated { view, warnings: self.restrictions.warnings_from_codes(&warnings), replayed: true })
    }
}

impl CustomerChanges {
    fn applied_to(&self, current: &customer::Model) -> customer::Model {
        let mut changed = current.clone();
        for field in CustomerField::all() {
            field.apply(&self.values, &mut changed);
        }
        changed
    }

    /// JSON of the request: equal for two requests exactly if they ask for the same. A field that is cleared is null in
    /// `data`, one that stays as it is is not there.
    fn canonical_json(&self) -> String {
        let Self { customer, expected_version, values, idempotency_key: _ } = self;
        let customer = customer.as_ref().map(|customer| match customer {
            OwnCustomerRef::Id(id) => json!({ "id": id.to_string() }),
            OwnCustomerRef::ExternalCustomerId(id) => json!({ "externalCustomerId": id.as_str() }),
        });
        let given = CustomerField::all().filter_map(|field| Some((field.name().to_owned(), field.given_json(values)?)));
        let data: Map<_, _> = given.collect();
        json!({ "updateCustomer": { "customer": customer, "expectedVersion": expected_version, "data": data } })
            .to_string()
    }
}

fn changed_email<'c>(current: &customer::Model, changed: &'c customer::Model) -> Option<&'c EmailAddress> {
    (changed.email != current.email).then_some(&changed.email)
}

fn changed_phone<'c>(current: &customer::Model, changed: &'c customer::Model) -> Option<&'c PhoneNumber> {
    changed.phone.as_ref().filter(|phone| current.phone.as_ref() != Some(phone))
}

#[cfg(test)]
mod tests {
    use entity::value::{Address, AddressParts, PersonName};
    use sea_orm::ActiveValue::Set;

    use super::*;

    #[test]
    fn the_fingerprint_of_an_update_does_not_change() {
        let mut changes = CustomerChanges::default();
        let nobody = r#"{"updateCustomer":{"customer":null,"data":{},"expectedVersion":null}}"#;
        assert_eq!(changes.canonical_json(), nobody);
        changes.customer = ExternalCustomerId::parse("user-1").ok().map(OwnCustomerRef::ExternalCustomerId);
        let nothing =
            r#"{"updateCustomer":{"customer":{"externalCustomerId":"user-1"},"data":{},"expectedVersion":null}}"#;
        assert_eq!(changes.canonical_json(), nothing);
        let parts = AddressParts {
            line1: "1 Main St".into(),
            line2: None,
            city: "Springfield".into(),
            region: Some("OR".into()),
            postal_code: Some("97477".into()),
            country: "US".into(),
        };
        changes = CustomerChanges {
            customer: CustomerId::parse("cus_01h455vb4pex5vsknk084sn02q").map(OwnCustomerRef::Id),
            expected_version: Some(3),
            values: customer::ActiveModel {
                email: Set(EmailAddress::parse("ada@example.com").expect("an email")),
                phone: Set(PhoneNumber::parse("+14155552671").ok()),
                first_name: Set(PersonName::parse("Ada").ok()),
                last_name: Set(None),
                address: Set(Address::parse(parts).ok()),
                ..Default::default()
            },
            idempotency_key: None,
        };
        let all = r#"{"updateCustomer":{"customer":{"id":"cus_01h455vb4pex5vsknk084sn02q"},"data":{"address":{"city":"Springfield","country":"US","line1":"1 Main St","line2":null,"postal_code":"97477","region":"OR"},"email":"ada@example.com","firstName":"Ada","lastName":null,"phone":"+14155552671"},"expectedVersion":3}}"#;
        assert_eq!(changes.canonical_json(), all);
    }
}
