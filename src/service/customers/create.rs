//! Creates a customer, or connects an existing one to the caller's operator.

use async_graphql::Enum;
use chrono::{DateTime, Utc};
use entity::customer;
use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, PhoneNumber};
use sea_orm::{EnumIter, Iterable};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::existing::UniqueValues;
use super::row_reads::Link;
use super::{
    CustomerField, CustomerPatch, CustomerView, Customers, FoundOrReplay, Prepared, Written, added_phone, change_rows,
};
use crate::database::{OptimisticWrite, TransactionError};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::limits::{DisclosureKind, DisclosureReservation};
use crate::service::restrictions::{Restriction, Restrictions};
use crate::service::{Caller, Origin, RequestInfo, now};

/// The valid values of a request to create a customer. `violations` lists the invalid values, so it is not empty if a
/// required value is `None`.
#[derive(Clone, Debug, Default)]
pub struct CustomerDraft {
    pub external_customer_id: Option<ExternalCustomerId>,
    pub email: Option<EmailAddress>,
    /// The values of the other fields. The email is not set.
    pub optional_values: CustomerPatch,
    pub connect_by: ConnectBy,
    pub idempotency_key: Option<IdempotencyKey>,
    pub violations: Vec<Violation>,
}

/// The values by which `createCustomer` may connect an existing customer. By default, all values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectBy(Vec<MatchKey>);

impl ConnectBy {
    /// Order and repetitions of `keys` have no effect.
    pub fn new(keys: &[MatchKey]) -> Self {
        Self(MatchKey::iter().filter(|key| keys.contains(key)).collect())
    }
}

impl Default for ConnectBy {
    fn default() -> Self {
        Self(MatchKey::iter().collect())
    }
}

/// A request to create a customer, with all required values and without violations.
struct NewCustomer {
    external_customer_id: ExternalCustomerId,
    email: EmailAddress,
    optional_values: CustomerPatch,
    connect_by: ConnectBy,
    idempotency_key: Option<IdempotencyKey>,
}

/// The outcome of `createCustomer`. Values may be added, so keep a default case.
// The names of the variants are stored with the results of idempotency keys, so do not rename them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[graphql(name = "CreateCustomerOutcome")]
pub enum CreateOutcome {
    /// A new customer record was created.
    Created,
    /// The platform already knew the person. The existing customer is now connected to your operator.
    Connected,
}

/// A value by which `createCustomer` recognises an existing customer. Values may be added, so keep a default case.
// The names of the variants are stored with the results of idempotency keys, so do not rename them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, EnumIter, Serialize, Deserialize)]
pub enum MatchKey {
    /// Email address.
    Email,
    /// Phone number.
    Phone,
}

impl MatchKey {
    /// Returns the violation for a match by this key. Called only if `connectBy` does not allow the connection.
    fn not_allowed(self) -> Violation {
        let (field, message) = match self {
            Self::Email => (
                InputField::Email,
                "The email belongs to a customer of the platform, and `connectBy` does not list EMAIL, so nothing was \
                 connected. Add EMAIL to `connectBy`, or contact the platform.",
            ),
            Self::Phone => (
                InputField::Phone,
                "The phone belongs to a customer of the platform, and `connectBy` does not list PHONE, so nothing was \
                 connected. Omit the phone, add PHONE to `connectBy`, or contact the platform.",
            ),
        };
        Violation::of(ErrorCode::IdentityConflict, field).with_message(message)
    }
}

/// The result of [`Customers::create`].
pub type Created = Written<CreateDetails>;

/// The details of a created or connected customer, as they are stored under an idempotency key.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreateDetails {
    pub outcome: CreateOutcome,
    pub matched_by: Vec<MatchKey>,
    /// Fields whose stored value differs from the given value. These fields were not changed.
    pub unapplied_fields: Vec<CustomerField>,
}

impl Customers {
    /// Creates a customer. If a customer that is not connected to the caller's operator has the email or the phone,
    /// connects that customer instead, if `connect_by` allows this.
    pub async fn create(&self, caller: &Caller, request: &RequestInfo, draft: CustomerDraft) -> Result<Created, Error> {
        let origin = &caller.authorize_write(request)?;
        caller.require_operator()?;
        let new = &draft.complete(&self.restrictions).map_err(Error::Rejected)?;
        let phone = new.optional_values.given_phone();
        let idempotent = &IdempotentRequest::new(&self.hasher, origin, &new.idempotency_key, || new.canonical_json());
        // A rejected request may be the repetition of an earlier one, which must get the stored result.
        let warnings = &match self.restrictions.check_without_carrier(Some(&new.email), phone).into_warnings() {
            Ok(warnings) => warnings,
            Err(error) => return self.find_replay(origin, idempotent).await?.ok_or(error),
        };
        let disclosures = 1 + u32::from(phone.is_some());
        let reservation = match self.limits.reserve_disclosures(origin, disclosures).await {
            Ok(reservation) => reservation,
            Err(rejected) => {
                return self.find_replay(origin, idempotent).await?.ok_or_else(|| rejected.record_rejection().into());
            }
        };
        let prepare = |attempt| self.prepare_create(attempt, origin, idempotent, new, warnings, &reservation);
        let created = self.run_write("customer.create", origin, idempotent, prepare).await;
        match &created {
            // A carrier lookup that failed does not count, because the client repeats the request.
            Err(error) if error.has(ErrorCode::PhoneLookupUnavailable) => reservation.release(),
            created => record_disclosed(reservation, created),
        }
        created
    }

    async fn prepare_create(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        new: &NewCustomer,
        warnings: &[Restriction],
        reservation: &DisclosureReservation,
    ) -> Result<Prepared<Created>, TransactionError> {
        let NewCustomer { external_customer_id, email, optional_values, connect_by, idempotency_key: _ } = new;
        let (operator, phone) = (origin.owner(), optional_values.given_phone());
        let values = UniqueValues { operator, external_customer_id, email, phone };
        let existing = match self.find_existing(&attempt, idempotent, values).await? {
            FoundOrReplay::Found(existing) => existing,
            FoundOrReplay::Replay(stored) => return Ok(Prepared::Replay(stored)),
        };
        Error::reject_if_any(existing.own.violations())?;

        let Recognised { customer: current, matched_by } =
            recognise(&existing.others, email, phone, connect_by).map_err(Error::Rejected)?;
        reservation.record_matches(matched_by.len() as u32);

        let time = now();
        let new_row = new.row(time);
        let link_to = |customer: &customer::Model| Link {
            operator_id: operator,
            customer_id: customer.id,
            external_customer_id: external_customer_id.clone(),
            connected_at: time,
        };
        let (customer, link, writes, outcome, unapplied_fields) = match current {
            Some(current) => {
                let customer = change_rows::next_row(current, filled(current, optional_values), time);
                let link = link_to(&customer);
                let writes = change_rows::connected(origin, current, &customer, &link);
                let unapplied_fields = unapplied_fields(&new_row, &customer);
                (customer, link, writes, CreateOutcome::Connected, unapplied_fields)
            }
            None => {
                let link = link_to(&new_row);
                let writes = change_rows::created(origin, &new_row, &link);
                (new_row, link, writes, CreateOutcome::Created, Vec::new())
            }
        };
        let new_phone = added_phone(current, &customer).cloned();
        let details = CreateDetails { outcome, matched_by, unapplied_fields };
        let view = CustomerView::new(customer, Some(link));
        let result = Written { view, warnings: warnings.to_vec(), replayed: false, details };
        Ok(Prepared::Write { attempt, writes, new_phone, result })
    }
}

/// Records the matches that a request with this result has disclosed.
fn record_disclosed(reservation: DisclosureReservation, created: &Result<Created, Error>) {
    let kind = match created {
        // A new customer has no matches, so nothing is used. A replayed result counts too if this request found the
        // match before: its own commit may have succeeded although the connection was lost. A request that is repeated
        // later finds the stored result first, so it has no matches.
        Ok(_) => DisclosureKind::Connected,
        Err(error @ Error::Rejected(violations)) if error.has(ErrorCode::IdentityConflict) => {
            reservation.record_matches(violations.len() as u32);
            DisclosureKind::IdentityConflict
        }
        // The match was found before the carrier rejected the phone, before another request took a value, or before the
        // service waited for a locked customer for too long. The response hides the match, but its time may not. If the
        // connection was lost, the customer may even be connected.
        Err(_) => DisclosureKind::RejectedCreate,
    };
    reservation.record_disclosed(kind);
}

/// The customer of the platform that a new customer turns out to be.
struct Recognised<'e> {
    /// The customer to connect. `None` if the platform does not know the person.
    customer: Option<&'e customer::Model>,
    /// The values that this customer shares with the new customer.
    matched_by: Vec<MatchKey>,
}

/// Decides if one of `others`, the customers with the email or the phone, is the person. Returns violations if the
/// email and the phone belong to two customers, or if `connect_by` lists none of the values that match.
fn recognise<'e>(
    others: &'e [customer::Model],
    email: &EmailAddress,
    phone: Option<&PhoneNumber>,
    connect_by: &ConnectBy,
) -> Result<Recognised<'e>, Vec<Violation>> {
    let by_email = others.iter().find(|customer| customer.email == *email);
    let by_phone = others.iter().find(|customer| phone.is_some() && customer.phone.as_ref() == phone);
    if let (Some(one), Some(other)) = (by_email, by_phone)
        && one.id != other.id
    {
        let conflict = |field| Violation::of(ErrorCode::IdentityConflict, field);
        return Err(vec![conflict(InputField::Email), conflict(InputField::Phone)]);
    }
    let matched_by = [by_email.map(|_| MatchKey::Email), by_phone.map(|_| MatchKey::Phone)];
    let matched_by: Vec<_> = matched_by.into_iter().flatten().collect();
    if !matched_by.is_empty() && !matched_by.iter().any(|key| connect_by.0.contains(key)) {
        return Err(matched_by.into_iter().map(MatchKey::not_allowed).collect());
    }
    Ok(Recognised { customer: by_email.or(by_phone), matched_by })
}

impl CustomerDraft {
    /// Returns the request if it is complete and has no violations. Otherwise returns all violations, in production
    /// also those of the restrictions of its valid values.
    fn complete(self, restrictions: &Restrictions) -> Result<NewCustomer, Vec<Violation>> {
        let Self { external_customer_id, email, optional_values, connect_by, idempotency_key, violations } = self;
        match (external_customer_id, email) {
            (Some(external_customer_id), Some(email)) if violations.is_empty() => {
                Ok(NewCustomer { external_customer_id, email, optional_values, connect_by, idempotency_key })
            }
            (_, email) => {
                let of_restrictions =
                    restrictions.check_without_carrier(email.as_ref(), optional_values.given_phone()).violations;
                Err([violations, of_restrictions].concat())
            }
        }
    }
}

impl NewCustomer {
    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    fn canonical_json(&self) -> String {
        let Self { external_customer_id, email, optional_values, connect_by, idempotency_key: _ } = self;
        let mut data = json!({
            "externalCustomerId": external_customer_id.as_str(),
            "email": email,
            // These fields are null if they are not set. A field that a later version adds must be omitted from the
            // JSON if the field is not set. Hashes that were stored before the upgrade then still match.
            "phone": null, "firstName": null, "lastName": null, "address": null,
        });
        for field in CustomerField::all() {
            if let Some(value) = field.patch_json(optional_values).filter(|value| !value.is_null()) {
                data[field.name()] = value;
            }
        }
        if *connect_by != ConnectBy::default() {
            data["connectBy"] = json!(connect_by.0);
        }
        json!({ "createCustomer": data }).to_string()
    }

    /// Returns a row with a new id, to be inserted if the platform does not know the person.
    fn row(&self, created_at: DateTime<Utc>) -> customer::Model {
        let mut customer = customer::Model {
            id: CustomerId::new(),
            email: self.email.clone(),
            phone: None,
            first_name: None,
            last_name: None,
            address: None,
            version: 1,
            created_at,
            updated_at: created_at,
            revision: 1,
            email_verified_at: None,
            phone_verified_at: None,
        };
        for field in CustomerField::all() {
            field.apply(&self.optional_values, &mut customer);
        }
        customer
    }
}

/// Returns the customer with `values` in its empty fields.
fn filled(current: &customer::Model, values: &CustomerPatch) -> customer::Model {
    let mut customer = current.clone();
    for field in CustomerField::all().filter(|field| field.is_missing(current)) {
        field.apply(values, &mut customer);
    }
    customer
}

/// Returns the fields of the new row whose values differ from the values of the connected customer.
fn unapplied_fields(new_row: &customer::Model, connected: &customer::Model) -> Vec<CustomerField> {
    let is_unapplied = |field: &CustomerField| !field.is_missing(new_row) && field.differs(new_row, connected);
    CustomerField::all().filter(is_unapplied).collect()
}

#[cfg(test)]
mod tests {
    use entity::value::{Address, AddressParts, PersonName};

    use super::*;

    #[test]
    fn the_canonical_json_of_a_create_does_not_change() {
        let mut new = NewCustomer {
            external_customer_id: ExternalCustomerId::parse("user-1").expect("an id"),
            email: EmailAddress::parse("ada@example.com").expect("an email"),
            optional_values: CustomerPatch::default(),
            connect_by: ConnectBy::default(),
            idempotency_key: None,
        };
        let required = r#"{"createCustomer":{"address":null,"email":"ada@example.com","externalCustomerId":"user-1","firstName":null,"lastName":null,"phone":null}}"#;
        assert_eq!(new.canonical_json(), required);
        for column in [&mut new.optional_values.first_name, &mut new.optional_values.last_name] {
            *column = Some(None);
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
        new.optional_values = CustomerPatch {
            phone: Some(PhoneNumber::parse("+14155552671").ok()),
            first_name: Some(PersonName::parse("Ada").ok()),
            last_name: Some(PersonName::parse("Lovelace").ok()),
            address: Some(Address::parse(parts).ok()),
            ..Default::default()
        };
        let all = r#"{"createCustomer":{"address":{"city":"Springfield","country":"US","line1":"1 Main St","line2":null,"postal_code":"97477","region":"OR"},"email":"ada@example.com","externalCustomerId":"user-1","firstName":"Ada","lastName":"Lovelace","phone":"+14155552671"}}"#;
        assert_eq!(new.canonical_json(), all);
        new.connect_by = ConnectBy::new(&[MatchKey::Phone, MatchKey::Email]);
        assert_eq!(new.canonical_json(), all);
        new.connect_by = ConnectBy::new(&[MatchKey::Email]);
        let by_email = all.replace(r#""email""#, r#""connectBy":["Email"],"email""#);
        assert_eq!(new.canonical_json(), by_email);
    }
}
