//! Records the changes of customers: adds their history entries, and the rows of these entries in the feed, to the
//! writes. Record a change before you add writes that insert, change or remove links (see [`feed_rows::add`]).

use std::{iter, slice};

use chrono::{DateTime, Utc};
use entity::customer;
use entity::customer_event::{DisconnectReason, EventType, FieldValues, Model, VerifiableField};
use entity::value::CustomerEventId;
use serde_json::{Value as Json, json};

use super::type_for_others;
use crate::database::WriteSet;
use crate::service::customers::row_reads::Link;
use crate::service::customers::{CustomerField, feed_rows};
use crate::service::{Origin, now};

/// Adds an entry, and its rows in the feed, to the writes. In the feed, the operators of `links` get a row of the type
/// of the entry. For the operators of all other links, [`type_for_others`] decides.
fn add(writes: &mut WriteSet, entry: Model, links: &[Link]) {
    feed_rows::add(writes, &entry, links, type_for_others(&entry));
    writes.insert([entry]);
}

/// Adds the entry of a new customer to the writes, with all its values.
pub(in crate::service::customers) fn record_created(
    writes: &mut WriteSet,
    origin: &Origin,
    customer: &customer::Model,
    link: &Link,
) {
    let entry = entry_of_change(origin, EventType::Created, None, customer);
    add(writes, entry, slice::from_ref(link));
}

/// Adds the entry of a new link of an existing customer to the writes, with the values that were filled in.
pub(in crate::service::customers) fn record_connected(
    writes: &mut WriteSet,
    origin: &Origin,
    before: &customer::Model,
    after: &customer::Model,
    link: &Link,
) {
    let entry = entry_of_change(origin, EventType::Connected, Some(before), after);
    add(writes, entry, slice::from_ref(link));
}

/// Adds the entry of changed values to the writes.
pub(in crate::service::customers) fn record_updated(
    writes: &mut WriteSet,
    origin: &Origin,
    before: &customer::Model,
    after: &customer::Model,
) {
    let entry = entry_of_change(origin, EventType::Updated, Some(before), after);
    add(writes, entry, &[]);
}

/// Adds the entry of the verification of a field to the writes, with the values that differ between `before` and
/// `after`.
pub(in crate::service::customers) fn record_verified(
    writes: &mut WriteSet,
    origin: &Origin,
    field: VerifiableField,
    before: &customer::Model,
    after: &customer::Model,
) {
    let entry = entry_of_change(origin, EventType::Verified, Some(before), after);
    let entry = Model { verified_field: Some(field), ..entry };
    add(writes, entry, &[]);
}

/// Adds an entry without values for an erased customer. `links` are the links that the customer had.
pub(in crate::service::customers) fn record_erased(
    writes: &mut WriteSet,
    origin: &Origin,
    customer: &customer::Model,
    erased_at: DateTime<Utc>,
    links: &[Link],
) {
    let entry = Model { occurred_at: erased_at, ..entry(origin, EventType::Erased, customer) };
    add(writes, entry, links);
}

fn entry_of_change(
    origin: &Origin,
    r#type: EventType,
    before: Option<&customer::Model>,
    after: &customer::Model,
) -> Model {
    let mut entry = entry(origin, r#type, after);
    for field in CustomerField::all() {
        let old = before.map_or(Json::Null, |customer| field.json_of(customer));
        let new = field.json_of(after);
        if new != old {
            entry.before.0.insert(field.name().to_owned(), old);
            entry.after.0.insert(field.name().to_owned(), new);
        }
    }
    entry
}

/// Adds the entry of a disconnect to the writes, with the external id that the link had.
pub(in crate::service::customers) fn record_disconnected(
    writes: &mut WriteSet,
    origin: &Origin,
    customer: &customer::Model,
    link: &Link,
    reason: DisconnectReason,
) {
    let entry = Model {
        before: external_id(json!(link.external_customer_id.as_str())),
        after: external_id(Json::Null),
        disconnected_operator_id: Some(link.operator_id),
        reason: Some(reason),
        ..entry(origin, EventType::Disconnected, customer)
    };
    add(writes, entry, slice::from_ref(link));
}

/// Adds the entry of a changed external id to the writes.
pub(in crate::service::customers) fn record_external_id_changed(
    writes: &mut WriteSet,
    origin: &Origin,
    customer: &customer::Model,
    before: &Link,
    after: &Link,
) {
    let entry = Model {
        before: external_id(json!(before.external_customer_id.as_str())),
        after: external_id(json!(after.external_customer_id.as_str())),
        ..entry(origin, EventType::ExternalCustomerIdChanged, customer)
    };
    add(writes, entry, slice::from_ref(after));
}

/// Returns the values of an entry that has only an external customer id.
fn external_id(id: Json) -> FieldValues {
    FieldValues(iter::once(("externalCustomerId".to_owned(), id)).collect())
}

/// A new entry without values.
fn entry(origin: &Origin, r#type: EventType, customer: &customer::Model) -> Model {
    Model {
        id: CustomerEventId::new(),
        customer_id: customer.id,
        operator_id: origin.caller().operator(),
        api_key_id: origin.caller().key(),
        request_id: origin.request().id,
        actor: origin.request().actor.clone(),
        r#type,
        version: customer.version,
        before: FieldValues::default(),
        after: FieldValues::default(),
        occurred_at: now(),
        disconnected_operator_id: None,
        reason: None,
        verified_field: None,
    }
}
