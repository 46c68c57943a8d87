//! Creates a customer, or connects an existing one to the caller's operator.

use async_graphql::Enum;
use entity::customer;
use entity::customer_event::EventType;
use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rows::Link;
use super::{CustomerField, CustomerView, Customers, changes, given_phone, history, search};
use crate::database::{OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::{self, Attempt, IdempotentRequest};
use crate::service::restrictions::{Findings, Restrictions};
use crate::service::{Actor, Origin, now};

/// A request to create a customer, as far as its values are valid. `faults` lists the others.
#[derive(Clone, Debug, Default)]
pub struct CustomerDraft {
    pub external_customer_id: Option<ExternalCustomerId>,
    pub email: Option<EmailAddress>,
    /// The other fields of the customer. Only the columns of [`CustomerField`] count.
    pub optional: customer::ActiveModel,
    pub idempotency_key: Option<IdempotencyKey>,
    pub faults: Vec<Violation>,
}

/// A request to create a customer, with all required values and without faults.
struct NewCustomer {
    external_customer_id: ExternalCustomerId,
    email: EmailAddress,
    optional: customer::ActiveModel,
    idempotency_key: Option<IdempotencyKey>,
}

/// The outcome of `createCustomer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[graphql(name = "CreateCustomerOutcome")]
pub enum Outcome {
    /// The customer is new on the platform.
    Created,
    /// The platform already knew the person. The existing customer is now connected to your operator.
    Connected,
}

/// A value by which `createCustomer` recognises an existing customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize, Deserialize)]
pub enum MatchKey {
    /// Email address.
    Email,
    /// Phone number.
    Phone,
}

/// The result of [`Customers::create`].
#[derive(Clone)]
pub struct Created {
    pub view: CustomerView,
    pub outcome: Outcome,
    pub matched_by: Vec<MatchKey>,
    /// Fields whose stored value differs from the given one. They were not changed.
    pub unapplied_fields: Vec<CustomerField>,
    /// Restrictions that production would enforce.
    pub warnings: Vec<Violation>,
    /// True if this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// The part of [`Created`] that is stored under an idempotency key. It holds no data of a person.
#[derive(Serialize, Deserialize)]
struct StoredOutcome {
    customer: uuid::Uuid,
    outcome: Outcome,
    matched_by: Vec<MatchKey>,
    unapplied_fields: Vec<CustomerField>,
    warnings: Vec<ErrorCode>,
}

impl Customers {
    /// Creates a customer, or connects the one that has the email or the phone to the caller's operator.
    pub async fn create(&self, actor: &Actor, request: RequestId, draft: CustomerDraft) -> Result<Created, Error> {
        let origin = actor.origin(request)?;
        let new = draft.complete(&self.restrictions).map_err(Error::Rejected)?;
        let phone = given_phone(&new.optional);
        let mut disclosures = self.limits.reserve_disclosures(&origin, 1 + u32::from(phone.is_some()))?;
        let idempotent = self.idempotent_request(&origin, new.idempotency_key.as_ref(), || new.canonical_json());
        let (origin, idempotent, new) = (&origin, idempotent.as_ref(), &new);
        let attempt = |write_tx, is_phone_checked| self.try_create(write_tx, origin, idempotent, new, is_phone_checked);
        let replay = |stored| self.replay_create(origin, stored);
        let created = self.run_write("customer.create", phone, idempotent, attempt, replay).await;
        match &created {
            Ok(Created { outcome: Outcome::Connected, replayed: false, matched_by, .. }) => {
                disclosures.disclosed("connected", matched_by.len() as u32);
            }
            Err(error) if error.has(ErrorCode::IdentityConflict) => disclosures.disclosed("identity conflict", 2),
            Ok(_) | Err(_) => {}
        }
        created
    }

    async fn try_create(
        &self,
        write_tx: OptimisticWrite,
        origin: &Origin,
        idempotent: Option<&IdempotentRequest>,
        new: &NewCustomer,
        is_phone_checked: bool,
    ) -> Result<Attempt<Created>, TransactionError> {
        let NewCustomer { external_customer_id, email, optional, idempotency_key: _ } = new;
        let phone = given_phone(optional);
        let Findings { refusals, warnings } = self.restrictions.check(Some(email), phone);
        if !refusals.is_empty() {
            return Err(Error::Rejected(refusals).into());
        }

        let existing = self.find_existing(&write_tx, origin.operator, external_customer_id, email, phone).await?;
        let taken = existing.taken(email, phone);
        if !taken.is_empty() {
            return Err(Error::Rejected(taken).into());
        }

        let holders = || existing.holders.iter().map(|holder| &holder.customer);
        let by_email = holders().find(|customer| customer.email == *email);
        let by_phone = holders().find(|customer| phone.is_some() && customer.phone.as_ref() == phone);
        if let (Some(one), Some(other)) = (by_email, by_phone)
            && one.id != other.id
        {
            let conflict = |field| Violation::of(ErrorCode::IdentityConflict, field);
            return Err(Error::Rejected(vec![conflict(InputField::Email), conflict(InputField::Phone)]).into());
        }
        let current = by_email.or(by_phone);
        let stores_phone = phone.is_some() && current.is_none_or(|current| current.phone.is_none());
        if stores_phone && !is_phone_checked {
            return Ok(Attempt::NeedsPhoneCheck);
        }

        let mut writes = WriteSet::new(origin.operator);
        let given = new.row();
        let (customer, outcome, unapplied_fields) = match current {
            Some(current) => {
                let customer = changes::replace(&mut writes, current, filled(current, optional));
                history::record(&mut writes, origin, EventType::Connected, Some(current), &customer);
                let unapplied_fields = unapplied_fields(&given, &customer);
                (customer, Outcome::Connected, unapplied_fields)
            }
            None => {
                writes.insert([given.clone()]);
                history::record(&mut writes, origin, EventType::Created, None, &given);
                (given, Outcome::Created, Vec::new())
            }
        };
        let link = Link {
            operator_id: origin.operator,
            customer_id: customer.id,
            external_customer_id: external_customer_id.clone(),
            connected_at: now(),
        };
        writes.insert([link.clone()]);
        search::add(&mut writes, &link, &customer);
        let matched_by = [by_email.map(|_| MatchKey::Email), by_phone.map(|_| MatchKey::Phone)];
        let created = Created {
            view: CustomerView::new(customer, Some(link)),
            outcome,
            matched_by: matched_by.into_iter().flatten().collect(),
            unapplied_fields,
            warnings,
            replayed: false,
        };
        idempotency::write(write_tx, writes, idempotent, || StoredOutcome::from(&created)).await?;
        Ok(Attempt::Done(created))
    }

    async fn replay_create(&self, origin: &Origin, stored: StoredOutcome) -> Result<Created, TransactionError> {
        let StoredOutcome { customer, outcome, matched_by, unapplied_fields, warnings } = stored;
        Ok(Created {
            view: self.reload(origin, customer.into()).await?,
            outcome,
            matched_by,
            unapplied_fields,
            warnings: self.restrictions.warnings_from_codes(&warnings),
            replayed: true,
        })
    }
}

impl CustomerDraft {
    /// Returns the complete request, or its faults: first the invalid values, then the restrictions on the valid ones.
    fn complete(self, restrictions: &Restrictions) -> Result<NewCustomer, Vec<Violation>> {
        match self {
            Self {
                external_customer_id: Some(external_customer_id),
                email: Some(email),
                optional,
                idempotency_key,
                faults,
            } if faults.is_empty() => Ok(NewCustomer { external_customer_id, email, optional, idempotency_key }),
            Self { external_customer_id: _, email, optional, idempotency_key: _, faults } => {
                let refusals = restrictions.check(email.as_ref(), given_phone(&optional)).refusals;
                Err([faults, refusals].concat())
            }
        }
    }
}

impl NewCustomer {
    /// JSON of the request: equal for two requests exactly if they ask for the same.
    fn canonical_json(&self) -> String {
        let Self { external_customer_id, email, optional, idempotency_key: _ } = self;
        let mut data = json!({
            "externalCustomerId": external_customer_id.as_str(),
            "email": email,
            // Null if they are not given. Fields of later versions are left out instead, because a key must still match
            // after an upgrade.
            "phone": null, "firstName": null, "lastName": null, "address": null,
        });
        for field in CustomerField::all() {
            if let Some(value) = field.given_json(optional).filter(|value| !value.is_null()) {
                data[field.name()] = value;
            }
        }
        json!({ "createCustomer": data }).to_string()
    }

    /// The row to insert if the platform does not know the person, with a new id.
    fn row(&self) -> customer::Model {
        let now = now();
        let mut customer = customer::Model {
            id: CustomerId::new(),
            email: self.email.clone(),
            phone: None,
            first_name: None,
            last_name: None,
            address: None,
            version: 1,
            created_at: now,
            updated_at: now,
            revision: 1,
        };
        for field in CustomerField::all() {
            field.apply(&self.optional, &mut customer);
        }
        customer
    }
}

/// Returns the customer with the given values in its empty fields.
fn filled(current: &customer::Model, given: &customer::ActiveModel) -> customer::Model {
    let mut customer = current.clone();
    for field in CustomerField::all().filter(|field| field.is_missing(current)) {
        field.apply(given, &mut customer);
    }
    customer
}

/// Returns the given fields that have another value in the connected customer.
fn unapplied_fields(given: &customer::Model, connected: &customer::Model) -> Vec<CustomerField> {
    let differs = |field: &CustomerField| field.json_of(given) != field.json_of(connected);
    CustomerField::all().filter(|field| !field.is_missing(given)).filter(differs).collect()
}

impl From<&Created> for StoredOutcome {
    fn from(created: &Created) -> Self {
        Self {
            customer: *created.view.customer.id.as_uuid(),
            outcome: created.outcome,
            matched_by: created.matched_by.clone(),
            unapplied_fields: created.unapplied_fields.clone(),
            warnings: created.warnings.iter().map(|warning| warning.code).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use entity::value::{Address, AddressParts, PersonName, PhoneNumber};
    use sea_orm::ActiveValue::Set;

    use super::*;

    #[test]
    fn the_fingerprint_of_a_create_does_not_change() {
        let mut new = NewCustomer {
            external_customer_id: ExternalCustomerId::parse("user-1").expect("an id"),
            email: EmailAddress::parse("ada@example.com").expect("an email"),
            optional: customer::ActiveModel::default(),
            idempotency_key: None,
        };
        let required = r#"{"createCustomer":{"address":null,"email":"ada@example.com","externalCustomerId":"user-1","firstName":null,"lastName":null,"phone":null}}"#;
        assert_eq!(new.canonical_json(), required);
        for column in [&mut new.optional.first_name, &mut new.optional.last_name] {
            *column = Set(None);
        }
        assert_eq!(new.canonical_json(), required);
        let parts = AddressParts {
            line1: "1 Main St".into(),
            line2: None,
            city: "Springfield".into(),
            region: Some("OR".into()),
            postal_code: Some("97477".into()),
            country: "US".into(),
        };
        new.optional = customer::ActiveModel {
            phone: Set(PhoneNumber::parse("+14155552671").ok()),
            first_name: Set(PersonName::parse("Ada").ok()),
            last_name: Set(PersonName::parse("Lovelace").ok()),
            address: Set(Address::parse(parts).ok()),
            ..Default::default()
        };
        let all = r#"{"createCustomer":{"address":{"city":"Springfield","country":"US","line1":"1 Main St","line2":null,"postal_code":"97477","region":"OR"},"email":"ada@example.com","externalCustomerId":"user-1","firstName":"Ada","lastName":"Lovelace","phone":"+14155552671"}}"#;
        assert_eq!(new.canonical_json(), all);
    }
}
