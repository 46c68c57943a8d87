//! The history of customers: one entry for each change, written in the same transaction as the change.
//!
//! An entry holds the changed fields with their values before and after. For example, an update of the first name has
//! `before: {"firstName": null}` and `after: {"firstName": "Ada"}`. An operator reads the entries that it caused; the
//! platform reads all entries.

use entity::customer;
use entity::customer_event::{Column, Entity, EventType, Model, Values};
use entity::value::{CustomerEventId, CustomerId};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryResult, QueryTrait, Select};
use serde_json::Value as Json;

use super::{CustomerField, Customers};
use crate::database::WriteSet;
use crate::database::pages::{self, List, Page, PageRequest, Position, Positioned};
use crate::error::Error;
use crate::service::{Actor, Origin, now};

impl Customers {
    /// Loads pages of the histories of customers, oldest entry first.
    pub async fn histories(
        &self,
        actor: &Actor,
        requests: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<Model>>, Error> {
        let lists = requests.iter().map(|(customer, request)| {
            let events = visible_to(actor, Entity::find()).filter(Column::CustomerId.eq(*customer));
            (List::new(events.into_query(), vec![Column::Id.into_expr()]), request.clone())
        });
        let read = |row: &QueryResult| Model::from_query_result(row, "");
        let pages = pages::pages(self.database.reader(), lists.collect(), read, |_, event| event.position());
        Ok(pages.await?)
    }

    /// Finds an entry of a history. Returns `None` if the caller may not see it.
    pub async fn find_event(&self, actor: &Actor, id: CustomerEventId) -> Result<Option<Model>, Error> {
        Ok(visible_to(actor, Entity::find_by_id(id)).one(self.database.reader()).await?)
    }
}

/// Limits entries to the entries that the caller may see.
fn visible_to(actor: &Actor, events: Select<Entity>) -> Select<Entity> {
    events.apply_if(actor.operator(), |events, operator| events.filter(Column::OperatorId.eq(operator)))
}

impl Positioned for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}

/// Adds an entry to the writes, with the values that differ. `before` is `None` for a new customer.
pub(super) fn record(
    writes: &mut WriteSet,
    origin: &Origin,
    r#type: EventType,
    before: Option<&customer::Model>,
    after: &customer::Model,
) {
    let mut entry = entry(origin, r#type, after);
    for field in CustomerField::all() {
        let old = before.map_or(Json::Null, |customer| field.json_of(customer));
        let new = field.json_of(after);
        if new != old {
            entry.before.0.insert(field.name().to_owned(), old);
            entry.after.0.insert(field.name().to_owned(), new);
        }
    }
    writes.insert([entry]);
}

/// A new entry without values.
fn entry(origin: &Origin, r#type: EventType, customer: &customer::Model) -> Model {
    Model {
        id: CustomerEventId::new(),
        customer_id: customer.id,
        operator_id: origin.actor.operator(),
        api_key_id: origin.actor.key(),
        request_id: origin.request.id,
        actor: origin.request.actor.clone(),
        r#type,
        version: customer.version,
        before: Values::default(),
        after: Values::default(),
        occurred_at: now(),
        disconnected_operator_id: None,
        reason: None,
    }
}
