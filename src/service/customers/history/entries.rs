//! Builds the history entries of changes. `time` is the time of the change.

use std::iter;

use chrono::{DateTime, Utc};
use entity::customer;
use entity::customer_event::{DisconnectReason, EventType, FieldValues, Model};
use entity::value::CustomerEventId;
use serde_json::{Value as Json, json};

use crate::service::Origin;
use crate::service::customers::CustomerField;
use crate::service::customers::row_reads::Link;

/// Returns an entry with the values that differ, if any. `before` is `None` for a new customer.
pub(in crate::service::customers) fn entry_of_values(
    origin: &Origin,
    r#type: EventType,
    before: Option<&customer::Model>,
    after: &customer::Model,
    time: DateTime<Utc>,
) -> Model {
    let mut entry = entry_without_values(origin, r#type, after, time);
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

/// Returns the entry of a disconnect, with the external id that the link had.
pub(in crate::service::customers) fn entry_of_disconnect(
    origin: &Origin,
    customer: &customer::Model,
    link: &Link,
    reason: DisconnectReason,
    time: DateTime<Utc>,
) -> Model {
    Model {
        before: external_id(json!(link.external_customer_id.as_str())),
        after: external_id(Json::Null),
        disconnected_operator_id: Some(link.operator_id),
        reason: Some(reason),
        ..entry_without_values(origin, EventType::Disconnected, customer, time)
    }
}

/// Returns the entry of a changed external id.
pub(in crate::service::customers) fn entry_of_external_id(
    origin: &Origin,
    customer: &customer::Model,
    before: &Link,
    after: &Link,
    time: DateTime<Utc>,
) -> Model {
    Model {
        before: external_id(json!(before.external_customer_id.as_str())),
        after: external_id(json!(after.external_customer_id.as_str())),
        ..entry_without_values(origin, EventType::ExternalCustomerIdChanged, customer, time)
    }
}

/// Returns the values of an entry that has only an external customer id.
fn external_id(id: Json) -> FieldValues {
    FieldValues(iter::once(("externalCustomerId".to_owned(), id)).collect())
}

/// Returns an entry without values.
pub(in crate::service::customers) fn entry_without_values(
    origin: &Origin,
    r#type: EventType,
    customer: &customer::Model,
    time: DateTime<Utc>,
) -> Model {
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
        occurred_at: time,
        disconnected_operator_id: None,
        reason: None,
        verified_field: None,
    }
}
