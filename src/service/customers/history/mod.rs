//! The history of customers: one entry for each change, written in the same transaction as the change.
//!
//! An entry holds the changed fields with their values before and after. For example, an update of the first name has
//! `before: {"firstName": null}` and `after: {"firstName": "Ada"}`. The platform reads all entries. An operator reads
//! only entries since its own connection: the entries of its own changes, and the entries of other callers that changed
//! or verified values. In entries of other callers, the operator sees no values.
//!
//! `entries.rs` builds the entries of a change. This file reads entries, and decides which entries a caller sees.

mod entries;

pub(super) use entries::{entry_of_disconnect, entry_of_external_id, entry_of_values, entry_without_values};

use std::sync::Arc;

use chrono::{DateTime, Utc};
use entity::customer_event::{Column, Entity, EventType, Model, VerifiableField};
use entity::customer_operator;
use entity::value::{ApiKeyId, CustomerEventId, CustomerId, RequestId};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Order, Query, SimpleExpr};
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, DbErr, EntityTrait, FromQueryResult, Iterable, QueryFilter, QueryResult,
    QueryTrait, Select,
};

use super::{CustomerField, Customers};
use crate::database::pages::{self, ListPart, ListRequest, Page, PageRequest, Position};
use crate::database::subquery;
use crate::error::Error;
use crate::request::count_query;
use crate::service::Caller;

/// The order of the entries of a customer. Ids come from the clocks of several servers, so ids alone do not order the
/// entries. The entries of one version are ordered by id.
pub(super) const HISTORY_ORDER: [Column; 2] = [Column::Version, Column::Id];

/// A list of history entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HistoryList {
    /// The entries of a customer, in [`HISTORY_ORDER`]. The other lists are ordered by id.
    OfCustomer(CustomerId),
    /// The entries that a request, or the run of a command, wrote.
    OfRequest(RequestId),
    /// The entries that all requests with this API key wrote.
    OfApiKey(ApiKeyId),
}

impl HistoryList {
    /// Returns the position of an entry in this list.
    pub fn position(&self, entry: &HistoryEntry) -> Position {
        let id = *entry.id.as_uuid();
        match self {
            Self::OfCustomer(_) => Position::by_number(entry.version.into(), id),
            Self::OfRequest(_) | Self::OfApiKey(_) => Position::by_id(id),
        }
    }
}

/// An entry of a history, as a caller sees it.
#[derive(Clone)]
pub struct HistoryEntry {
    pub id: CustomerEventId,
    pub customer_id: CustomerId,
    pub r#type: EventType,
    pub occurred_at: DateTime<Utc>,
    pub version: i32,
    pub changed_fields: Vec<CustomerField>,
    /// The field that a `Verified` entry is about.
    pub verified_field: Option<VerifiableField>,
    /// True if the caller's operator made the change. If the caller is the platform: true if the platform made the
    /// change.
    pub own: bool,
    /// The whole entry, with the author and the values. `None` if the caller is an operator that did not make the
    /// change.
    pub details: Option<Model>,
}

impl HistoryEntry {
    /// Returns `None` if the caller may not see the entry.
    fn new(caller: &Caller, event: Model) -> Option<Self> {
        let own = event.operator_id == caller.operator();
        let sees_all = own || caller.operator().is_none();
        let r#type = if sees_all { event.r#type } else { type_for_others(&event)? };
        Some(Self {
            id: event.id,
            customer_id: event.customer_id,
            r#type,
            occurred_at: event.occurred_at,
            version: event.version,
            changed_fields: CustomerField::changed_by(&event).collect(),
            verified_field: event.verified_field,
            own,
            details: sees_all.then_some(event),
        })
    }
}

/// The form in which operators see a change that another caller made, in the history and in the feed. In the feed, the
/// operator that made the change also sees it in this form, unless the change concerns its own link.
#[derive(Clone, Copy)]
enum Visibility {
    /// Operators do not see the change.
    Hidden,
    /// Operators see a change of this type.
    Shown(EventType),
    /// Operators see a change of this type, but only if values of the customer changed.
    ShownIfValuesChanged(EventType),
}

/// Returns the form in which operators see changes of this type that other callers make. No form reveals that the
/// customer has other operators. An operator also gets a row in the feed if the change is about its own link
/// ([`is_about_links`]).
fn visibility_to_others(r#type: EventType) -> Visibility {
    match r#type {
        EventType::Updated | EventType::Verified => Visibility::Shown(r#type),
        // The type `Connected` would reveal that the customer has another operator.
        EventType::Connected => Visibility::ShownIfValuesChanged(EventType::Updated),
        EventType::Created | EventType::Disconnected | EventType::Erased | EventType::ExternalCustomerIdChanged => {
            Visibility::Hidden
        }
    }
}

/// Returns true if changes of this type are about the links that they insert, change or delete. The operators of these
/// links see the change in the feed under its own type.
pub(super) fn is_about_links(r#type: EventType) -> bool {
    match r#type {
        EventType::Created
        | EventType::Connected
        | EventType::Disconnected
        | EventType::Erased
        | EventType::ExternalCustomerIdChanged => true,
        EventType::Updated | EventType::Verified => false,
    }
}

/// Returns the type under which other operators see the entry, or `None` if they do not see it.
pub(super) fn type_for_others(entry: &Model) -> Option<EventType> {
    match visibility_to_others(entry.r#type) {
        Visibility::Hidden => None,
        Visibility::Shown(r#type) => Some(r#type),
        Visibility::ShownIfValuesChanged(r#type) => (entry.before != entry.after).then_some(r#type),
    }
}

impl Customers {
    /// Loads pages of lists of history entries. The lists of a request and of an API key are only for the platform.
    pub async fn history_pages(
        &self,
        caller: &Caller,
        requests: &[(HistoryList, PageRequest)],
    ) -> Result<Vec<Page<Arc<HistoryEntry>>>, Error> {
        // An operator must not learn which other requests and keys wrote an entry.
        if requests.iter().any(|(list, _)| !matches!(list, HistoryList::OfCustomer(_))) {
            caller.require_platform()?;
        }
        let parts = visible_parts(caller);
        let pages = requests.iter().map(|(list, request)| {
            let any_customer = Column::CustomerId.into_expr();
            let (customer, condition, order) = match *list {
                HistoryList::OfCustomer(id) => (id.into(), Column::CustomerId.eq(id), &HISTORY_ORDER[..]),
                HistoryList::OfRequest(id) => (any_customer, Column::RequestId.eq(id), &[Column::Id][..]),
                HistoryList::OfApiKey(id) => (any_customer, Column::ApiKeyId.eq(id), &[Column::Id][..]),
            };
            let events = since_connection(caller, customer, Entity::find()).filter(condition);
            let part = |part: &Condition| {
                let order = order.iter().map(|column| column.into_expr()).collect();
                ListPart::new(events.clone().filter(part.clone()).into_query(), order)
            };
            ListRequest { parts: parts.iter().map(part).collect(), request: request.clone() }
        });
        let read = |row: &QueryResult| {
            let entry = HistoryEntry::new(caller, Model::from_query_result(row, "")?);
            // `visible_parts` leaves out the entries that the caller may not see.
            entry.map(Arc::new).ok_or_else(|| DbErr::Custom("the query found a hidden history entry".to_owned()))
        };
        let position = |page: usize, entry: &Arc<HistoryEntry>| requests[page].0.position(entry);
        Ok(pages::pages(self.database.reader(), pages.collect(), read, position).await?)
    }

    /// Finds an entry of a history. Returns `None` if the caller may not see it.
    pub async fn find_history_entry(
        &self,
        caller: &Caller,
        id: CustomerEventId,
    ) -> Result<Option<HistoryEntry>, Error> {
        let visible = visible_parts(caller).into_iter().fold(Condition::any(), Condition::add);
        let events = since_connection(caller, Column::CustomerId.into_expr(), Entity::find_by_id(id)).filter(visible);
        let found = events.one(self.database.reader()).await?;
        count_query(usize::from(found.is_some()));
        Ok(found.and_then(|event| HistoryEntry::new(caller, event)))
    }
}

/// Returns the conditions of the parts of a history that the caller may see. An operator sees its own entries, and
/// those entries of other callers that changed or verified values. It does not see the links and external ids of other
/// operators.
///
/// An operator's history has two parts with an index each: the entries that all operators see, and those of the other
/// entries that are its own. A page of a part reads only entries of the part, regardless of how many entries the
/// operator does not see.
fn visible_parts(caller: &Caller) -> Vec<Condition> {
    let Some(operator) = caller.operator() else { return vec![Condition::all()] };
    let types = |is_included: fn(Visibility) -> bool| {
        let types = EventType::iter().filter(|r#type| is_included(visibility_to_others(*r#type)));
        types.map(|r#type| format!("'{}'", r#type.to_value())).collect::<Vec<_>>().join(", ")
    };
    let shown = types(|visibility| matches!(visibility, Visibility::Shown(_)));
    let shown_if_changed = types(|visibility| matches!(visibility, Visibility::ShownIfValuesChanged(_)));
    // Literals, because the conditions must be those of the partial indexes `customer_event_shown_idx` and
    // `customer_event_hidden_idx`.
    let is_shown = format!(r#"("type" IN ({shown}) OR ("type" IN ({shown_if_changed}) AND "before" <> "after"))"#);
    let is_hidden = Expr::cust(format!("NOT {is_shown}"));
    vec![Expr::cust(is_shown).into(), Column::OperatorId.eq(operator).and(is_hidden).into()]
}

/// Restricts entries of `customer`, an id or a column, to the entries since the current link of the caller was made.
/// The platform gets all entries.
///
/// Entries are compared in the [order of the history](HISTORY_ORDER). Entries of one version are ordered by the clocks
/// of their servers. If these clocks differ, an operator may see an entry from shortly before its connection, or not
/// see one from shortly after it.
fn since_connection(caller: &Caller, customer: SimpleExpr, events: Select<Entity>) -> Select<Entity> {
    let Some(operator) = caller.operator() else { return events };
    let connecting = Alias::new("connecting");
    let column = |column: Column| Expr::col((connecting.clone(), column));
    let start = Query::select()
        .exprs(HISTORY_ORDER.map(column))
        .from_as(Entity, connecting.clone())
        .and_where(column(Column::CustomerId).eq(customer.clone()))
        .and_where(column(Column::OperatorId).eq(operator))
        // A literal, because the condition must be the one of the partial index `customer_event_connecting_idx`.
        .and_where(Expr::cust(r#""connecting"."type" IN ('created', 'connected')"#))
        .order_by((connecting.clone(), Column::Version), Order::Desc)
        .order_by((connecting.clone(), Column::Id), Order::Desc)
        .limit(1)
        .take();
    let is_since_start = Expr::tuple(HISTORY_ORDER.map(|column| column.into_expr())).gte(subquery(start));
    let link = customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(customer_operator::Column::CustomerId.into_expr().eq(customer))
        .into_query();
    events.filter(Expr::exists(link)).filter(is_since_start)
}
