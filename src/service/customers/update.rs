//! Updates a customer.

use entity::value::{EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryTrait};
use serde_json::{Map, json};

use super::existing::{email_taken, external_id_taken, phone_taken};
use super::row_reads::{self, Link, has_email_or_phone, of_operator};
use super::{
    CustomerField, CustomerPatch, CustomerRef, CustomerView, Customers, FoundOrReplay, Prepared, Written, added_phone,
    change_rows,
};
use crate::database::{OptimisticWrite, TransactionError, WriteSet};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::limits::{DisclosureKind, RejectedReservation};
use crate::service::{Caller, Origin, RequestInfo, now};

/// The valid values of a request to update a customer. `violations` lists what is wrong with the input.
#[derive(Clone, Debug, Default)]
pub struct CustomerChanges {
    /// `None` if it is not valid. `violations` is then not empty.
    pub customer: Option<CustomerRef>,
    /// The operator's new id for the customer. `None` keeps the current id.
    pub external_customer_id: Option<ExternalCustomerId>,
    pub expected_version: Option<i32>,
    pub values: CustomerPatch,
    pub idempotency_key: Option<IdempotencyKey>,
    pub violations: Vec<Violation>,
}

/// The result of [`Customers::update`].
pub type Updated = Written<()>;

impl Customers {
    /// Updates a customer of the caller's operator. The platform may update any customer.
    pub async fn update(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        changes: CustomerChanges,
    ) -> Result<Updated, Error> {
        let origin = &caller.authorize_write(request)?;
        let Some(customer) = changes.customer.as_ref().filter(|_| changes.violations.is_empty()) else {
            debug_assert!(!changes.violations.is_empty(), "a missing customer is a violation");
            let of_restrictions = self.violated_restrictions(origin, &changes).await?;
            return Err(Error::Rejected([changes.violations, of_restrictions].concat()));
        };
        let (email, phone) = (changes.values.email.as_ref(), changes.values.given_phone());
        let idempotent =
            &IdempotentRequest::new(&self.hasher, origin, &changes.idempotency_key, || changes.canonical_json());
        let reserved = self.limits.reserve_disclosures(origin, count(email, phone)).await;
        let rejected = reserved.as_ref().err();
        let prepare = |attempt| self.prepare_update(attempt, origin, idempotent, customer, &changes, rejected);
        let updated = self.run_write("customer.update", origin, idempotent, prepare).await;
        if let (Err(error), Ok(reservation)) = (&updated, reserved) {
            reservation.record_matches(count_disclosed(error));
            reservation.record_disclosed(DisclosureKind::TakenOnUpdate);
        }
        updated
    }

    /// Returns the restrictions that the valid values of an invalid request violate. The list is empty if the customer
    /// does not exist.
    async fn violated_restrictions(&self, origin: &Origin, changes: &CustomerChanges) -> Result<Vec<Violation>, Error> {
        let Some(customer) = &changes.customer else { return Ok(Vec::new()) };
        // Without this check, an invalid request would need the database.
        let (email, phone) = (changes.values.email.as_ref(), changes.values.given_phone());
        if self.restrictions.check_without_carrier(email, phone).violations.is_empty() {
            return Ok(Vec::new());
        }
        let Some(view) = self.find(origin.caller(), customer).await? else { return Ok(Vec::new()) };
        let changed = changes.applied_to(&view.customer);
        let (email, phone) = changed_values(&view.customer, &changed);
        Ok(self.restrictions.check_without_carrier(email, phone).violations)
    }

    /// Reads the rows and prepares the writes of one attempt. `rejected` is given if no disclosures could be reserved.
    /// The request is then rejected, unless it fails for an earlier reason, repeats a stored request, or changes
    /// neither the email nor the phone.
    async fn prepare_update(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        customer: &CustomerRef,
        changes: &CustomerChanges,
        rejected: Option<&RejectedReservation>,
    ) -> Result<Prepared<Updated>, TransactionError> {
        let found = match self.find_or_replay(&attempt, origin.caller(), idempotent, customer).await? {
            FoundOrReplay::Found(found) => found,
            FoundOrReplay::Replay(stored) => return Ok(Prepared::Replay(stored)),
        };
        let check_budget = || rejected.map_or(Ok(()), |rejected| Err(rejected.record_rejection()));
        let Some(CustomerView { customer: current, link, .. }) = found else {
            check_budget()?;
            return Err(Violation::of(ErrorCode::CustomerNotFound, InputField::Customer).into());
        };
        let changed = changes.applied_to(&current);
        let (email, phone) = changed_values(&current, &changed);
        let new_phone = phone.cloned();
        let warnings = self.restrictions.check_without_carrier(email, phone).into_warnings()?;
        if email.is_some() || phone.is_some() {
            check_budget()?;
        }

        let mut violations = Vec::new();
        if changes.expected_version.is_some_and(|version| version != current.version) {
            violations.push(Violation::of(ErrorCode::VersionConflict, InputField::ExpectedVersion));
        }
        let new_link = link.as_ref().and_then(|link| changes.with_new_external_id(link));
        violations
            .extend(find_taken(&attempt, origin.caller().operator(), &current, &changed, new_link.as_ref()).await?);
        Error::reject_if_any(violations)?;

        let (customer, writes) = if CustomerField::any_differs(&current, &changed) || new_link.is_some() {
            let time = now();
            let customer = change_rows::next_row(&current, changed, time);
            let links = link.as_ref().zip(new_link.as_ref());
            let writes = change_rows::updated(origin, &current, &customer, links, time);
            (customer, writes)
        } else {
            let writes = WriteSet::new(origin.owner(), current.id);
            (current, writes)
        };
        let view = CustomerView::new(customer, new_link.or(link));
        let result = Written { view, warnings, replayed: false, details: () };
        Ok(Prepared::Write { attempt, writes, new_phone, result })
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

    /// Returns the link with the new external id. `None` if the id does not change.
    fn with_new_external_id(&self, link: &Link) -> Option<Link> {
        let id = self.external_customer_id.clone().filter(|id| *id != link.external_customer_id)?;
        Some(Link { external_customer_id: id, ..link.clone() })
    }

    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    /// A cleared field is null in `data`. A field that the request does not set is omitted.
    fn canonical_json(&self) -> String {
        let Self { customer, external_customer_id, expected_version, values, idempotency_key: _, violations: _ } = self;
        let customer = customer.as_ref().map(CustomerRef::canonical_json);
        let new_value = |field: CustomerField| Some((field.name().to_owned(), field.patch_json(values)?));
        let data: Map<_, _> = CustomerField::all().filter_map(new_value).collect();
        let mut request = json!({ "customer": customer, "expectedVersion": expected_version, "data": data });
        // The new external id is added only if it is set. Requests without a new external id then have the same hashes
        // as in earlier versions of this service.
        if let Some(id) = external_customer_id {
            request["externalCustomerId"] = json!(id.as_str());
        }
        json!({ "updateCustomer": request }).to_string()
    }
}

/// Returns the email and the phone, each only if it has changed to another value.
fn changed_values<'c>(
    current: &customer::Model,
    changed: &'c customer::Model,
) -> (Option<&'c EmailAddress>, Option<&'c PhoneNumber>) {
    let email = (changed.email != current.email).then_some(&changed.email);
    (email, added_phone(Some(current), changed))
}

/// Returns a violation for each new value that another customer has: the email and the phone of `changed`, and the
/// external id of `new_link`. `operator` is the caller, unless the platform calls.
async fn find_taken(
    attempt: &OptimisticWrite,
    operator: Option<OperatorId>,
    current: &customer::Model,
    changed: &customer::Model,
    new_link: Option<&Link>,
) -> Result<Vec<Violation>, DbErr> {
    let is_other = || customer::Column::Id.ne(current.id);
    let (email, phone) = changed_values(current, changed);
    let mut violations = Vec::new();
    if email.is_some() || phone.is_some() {
        let others = customer::Entity::find().filter(has_email_or_phone(email, phone)).filter(is_other());
        let others = row_reads::read_with_ownership(attempt, others, operator).await?;
        let with_email = others.iter().filter(|(other, _)| Some(&other.email) == email);
        violations.extend(with_email.map(|(other, is_own)| email_taken(is_own.then_some(other.id))));
        let with_phone = others.iter().filter(|(other, _)| phone.is_some() && other.phone.as_ref() == phone);
        violations.extend(with_phone.map(|(other, is_own)| phone_taken(is_own.then_some(other.id))));
    }
    if let Some(Link { operator_id, external_customer_id, .. }) = new_link {
        let has_id = customer_operator::Column::ExternalCustomerId.eq(external_customer_id.clone());
        // The link was read by an earlier statement. Meanwhile another request may have given this customer the id.
        let others = of_operator(*operator_id).filter(has_id).filter(is_other());
        let others = row_reads::read_own_customers(attempt, &others.into_query()).await?;
        violations.extend(others.iter().map(|other| external_id_taken(other.customer.id)));
    }
    Ok(violations)
}

/// Counts the emails and phones that `error` reports as taken by customers that are not the caller's own.
fn count_disclosed(error: &Error) -> u32 {
    let Error::Rejected(violations) = error else { return 0 };
    let is_disclosed = |violation: &&Violation| {
        matches!(violation.code, ErrorCode::EmailTaken | ErrorCode::PhoneTaken) && violation.own_customer.is_none()
    };
    violations.iter().filter(is_disclosed).count() as u32
}

fn count(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> u32 {
    u32::from(email.is_some()) + u32::from(phone.is_some())
}

#[cfg(test)]
mod tests {
    use entity::value::{Address, AddressParts, CustomerId, ExternalCustomerId, PersonName};

    use super::*;

    #[test]
    fn the_canonical_json_of_an_update_does_not_change() {
        let mut changes = CustomerChanges::default();
        let nobody = r#"{"updateCustomer":{"customer":null,"data":{},"expectedVersion":null}}"#;
        assert_eq!(changes.canonical_json(), nobody);
        changes.customer = ExternalCustomerId::parse("user-1").ok().map(CustomerRef::ExternalCustomerId);
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
            customer: CustomerId::parse("cus_01h455vb4pex5vsknk084sn02q").map(CustomerRef::Id),
            expected_version: Some(3),
            values: CustomerPatch {
                email: EmailAddress::parse("ada@example.com").ok(),
                phone: Some(PhoneNumber::parse("+14155552671").ok()),
                first_name: Some(PersonName::parse("Ada").ok()),
                last_name: Some(None),
                address: Some(Address::parse(parts).ok()),
            },
            ..Default::default()
        };
        let all = r#"{"updateCustomer":{"customer":{"id":"cus_01h455vb4pex5vsknk084sn02q"},"data":{"address":{"city":"Springfield","country":"US","line1":"1 Main St","line2":null,"postal_code":"97477","region":"OR"},"email":"ada@example.com","firstName":"Ada","lastName":null,"phone":"+14155552671"},"expectedVersion":3}}"#;
        assert_eq!(changes.canonical_json(), all);
        changes.external_customer_id = ExternalCustomerId::parse("user-2").ok();
        let with_id = all.replace("3}}", r#"3,"externalCustomerId":"user-2"}}"#);
        assert_eq!(changes.canonical_json(), with_id);
    }
}
