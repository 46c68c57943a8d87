//! What happened to customers, kept in the transaction in which it happened.

use entity::customer;
use entity::customer_event::{Column, Entity, EventType, Model, Values};
use entity::value::{CustomerEventId, CustomerId};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryResult, QueryTrait};
use serde_json::Value as Json;

use super::customers::CustomerField;
use super::{Actor, Origin, now};
use crate::database::pages::{self, List, Page, PageRequest, Position, Positioned};
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
            (List::new(events.into_query(), vec![Column::Id.into_expr()]), request.clone())
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
        Position::by_id(*self.id.as_uuid())
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
    let (mut values_before, mut values_after) = (Values::default(), Values::default());
    for field in CustomerField::all() {
        let old = before.map_or(Json::Null, |customer| field.json_of(customer));
        let new = field.json_of(after);
        if new != old {
            values_before.0.insert(field.name().to_owned(), old);
            values_after.0.insert(field.name().to_owned(), new);
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
        before: values_before,
        after: values_after,
        occurred_at: now(),
    }]);
}
