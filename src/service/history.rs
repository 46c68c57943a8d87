//! What happened to customers, kept in the transaction in which it happened.

use std::collections::HashMap;

use entity::customer;
use entity::customer_event::{Column, Entity, EventType, Model, Values};
use entity::value::{CustomerEventId, CustomerId};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryResult, QueryTrait};
use serde_json::{Value, json};

use super::{Actor, Origin, now};
use crate::database::pages::{self, Key, List, Page, PageRequest, Position, Positioned};
use crate::database::{Database, WriteBatch};
use crate::error::Error;

#[derive(Clone)]
pub struct History {
    database: Database,
}

impl History {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Pages of the histories of customers, oldest first, each as far as the caller may see it: an operator sees what it
    /// caused.
    pub async fn pages(&self, actor: &Actor, lists: &[(CustomerId, PageRequest)]) -> Result<Vec<Page<Model>>, Error> {
        let queries = lists.iter().map(|(customer, request)| {
            let events = Entity::find()
                .filter(Column::CustomerId.eq(*customer))
                .apply_if(actor.operator(), |events, own| events.filter(Column::OperatorId.eq(own)));
            let columns = vec![Column::Id.into_expr()];
            (List { rows: events.into_query(), columns, descending: false, beside: None }, request.clone())
        });
        let read = |row: &QueryResult| Model::from_query_result(row, "");
        let pages = pages::pages(self.database.reader(), queries.collect(), read, |_, row| row.position());
        Ok(pages.await?)
    }

    /// The entry with this id, if the caller may see it.
    pub async fn find(&self, actor: &Actor, id: CustomerEventId) -> Result<Option<Model>, Error> {
        let event =
            Entity::find_by_id(id).apply_if(actor.operator(), |events, own| events.filter(Column::OperatorId.eq(own)));
        Ok(event.one(self.database.reader()).await?)
    }
}

impl Positioned for Model {
    fn position(&self) -> Position {
        Position { key: Key::None, id: *self.id.as_uuid() }
    }
}

/// Notes that a customer became what it is now; `before` is `None` for a new one.
pub(super) fn record(
    writes: &mut WriteBatch,
    origin: &Origin,
    r#type: EventType,
    before: Option<&customer::Model>,
    after: &customer::Model,
) {
    let old: HashMap<_, _> = before.map(values).into_iter().flatten().collect();
    let (mut was, mut is) = (Values::default(), Values::default());
    for (name, value) in values(after) {
        let previous = old.get(name).cloned().unwrap_or_default();
        if value != previous {
            was.0.insert(name.to_owned(), previous);
            is.0.insert(name.to_owned(), value);
        }
    }
    writes.insert([Model {
        id: CustomerEventId::new(),
        customer_id: after.id,
        operator_id: origin.operator,
        api_key_id: origin.key,
        request_id: origin.request,
        r#type,
        version: after.version,
        before: was,
        after: is,
        occurred_at: now(),
    }]);
}

/// The values of a customer under their names in the schema.
fn values(customer: &customer::Model) -> [(&'static str, Value); 5] {
    [
        ("email", json!(customer.email.as_str())),
        ("firstName", json!(customer.first_name.as_ref().map(|name| name.as_str()))),
        ("lastName", json!(customer.last_name.as_ref().map(|name| name.as_str()))),
        ("phone", json!(customer.phone.as_ref().map(|phone| phone.as_str()))),
        ("address", json!(customer.address)),
    ]
}
