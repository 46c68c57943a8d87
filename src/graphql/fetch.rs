//! Reads rows for the fields of objects. There are three ways:
//!
//! - From memory, if the rows were read before: no statement, no wait.
//! - With a direct call of the service, for a page of customers that is not inside another list. Few requests have
//!   several such pages that could share a statement, and the loader would delay the call by a round (see
//!   `load_rounds`).
//! - With the loader, in all other cases. One statement then reads the rows for all items of a list, so the number of
//!   statements depends on the query and not on the number of items.
//!
//! Some fields never occur inside a list. They call the service themselves and do not use this module: single objects
//! in `Query` and `Mutation`, `Viewer.operator`, `Viewer.changesCursor`, `OperatorConnection.totalCount`, and the lists
//! `operators`, `adminEvents`, `erasures`, `webhooks` and `changes` of `Query`.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter;
use std::sync::Arc;

use async_graphql::dataloader::{self, DataLoader};
use async_graphql::{Context, InputType, QueryPathSegment, Value};
use chrono::{DateTime, Utc};
use entity::value::{ApiKeyId, CustomerId, OperatorId};
use entity::{api_key, customer_operator, operator};

use super::context::{caller, services};
use super::pagination::PageArguments;
use crate::database::pages::{Count, Page, PageRequest};
use crate::error::Error;
use crate::service::customers::{
    CustomerList, CustomerPage, CustomerPageRequest, CustomerView, HistoryEntry, HistoryList, SearchPlan,
};
use crate::service::feed_positions::FeedPosition;
use crate::service::{Caller, Services};

/// Returns a page of a list of customers. If the caller is the platform and the request selects one page of operators
/// for each customer, without a cursor, also reads the links to these operators. The links then need no statement
/// later.
pub async fn customers(
    context: &Context<'_>,
    list: Arc<CustomerList>,
    page: PageRequest,
) -> Result<CustomerPage, Error> {
    let request = CustomerPageRequest { list, page, links: operators_selected_for_each_customer(context) };
    if is_inside_a_list(context) {
        return load(context, request).await;
    }
    let mut pages = services(context).customers.pages(caller(context), &[request]).await?;
    pages.pop().ok_or_else(|| Error::internal("a page is missing"))
}

/// Returns a page of the links between a customer and its operators.
pub async fn links_of_customer(
    context: &Context<'_>,
    view: &CustomerView,
    request: PageRequest,
) -> Result<Page<Arc<customer_operator::Model>>, Error> {
    match view.links_in_memory(caller(context), &request) {
        Some(page) => Ok(page.into_owned()),
        None => load(context, LinksOfCustomer { customer: view.customer.id, page: request }).await,
    }
}

/// Returns the operators with these ids, in the order of `ids`. Operators are cached, so most are in memory.
pub async fn operators(
    context: &Context<'_>,
    ids: impl Iterator<Item = OperatorId> + Clone,
) -> Result<Vec<Arc<operator::Model>>, Error> {
    if let Some(operators) = services(context).operators.cached(caller(context), ids.clone()) {
        return Ok(operators);
    }
    let by_id = loader(context).load_many(ids.clone()).await?;
    ids.map(|id| by_id.get(&id).cloned()).collect::<Option<_>>().ok_or_else(missing_row)
}

/// Loads the value of a key. A key without a value is an internal error.
pub async fn load<K>(context: &Context<'_>, key: K) -> Result<<Loader as dataloader::Loader<K>>::Value, Error>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    Loader: dataloader::Loader<K, Error = Error>,
{
    loader(context).load_one(key).await?.ok_or_else(missing_row)
}

/// The error if a row refers to a missing row, for example if the operator of a history entry was deleted by SQL.
fn missing_row() -> Error {
    Error::internal("a row refers to a row that does not exist")
}

/// Returns true if the current field belongs to an item of a list. Such a field may occur once per item.
fn is_inside_a_list(context: &Context<'_>) -> bool {
    let path = context.path_node.iter().flat_map(|node| iter::once(node).chain(node.parents()));
    path.into_iter().any(|node| matches!(node.segment, QueryPathSegment::Index(_)))
}

/// Returns the page of `Customer.operators` that the current field selects for each of its customers. `None` if
///
/// - the field selects no such page, or more than one (even if the pages are the same);
/// - the page has a cursor, which is valid for one customer only;
/// - the caller is an operator, whose own link is read with the customer.
fn operators_selected_for_each_customer(context: &Context<'_>) -> Option<PageRequest> {
    if caller(context).operator().is_some() {
        return None;
    }
    let selected = context.look_ahead();
    let by_edges = selected.field("edges").field("node").field("operators").selection_fields();
    let by_nodes = selected.field("nodes").field("operators").selection_fields();
    let [field] = [by_edges, by_nodes].concat()[..] else { return None };
    let arguments = field.arguments().ok()?;
    let arguments: PageArguments = InputType::parse(Some(Value::Object(arguments.into_iter().collect()))).ok()?;
    arguments.parse(None).ok()
}

/// The loader of this request.
pub fn loader<'c>(context: &Context<'c>) -> &'c DataLoader<Loader> {
    context.data_unchecked::<DataLoader<Loader>>()
}

/// Loads the values of up to 1,000 waiting keys of one kind with one service call. A key identifies a value to load,
/// for example [`VisibleCustomer`]. The loader clones a value for each field that waits for it, so the values share
/// their large rows (`Arc`): thousands of fields may wait for one page. A loader belongs to one request and one caller,
/// so a row that one caller loads never reaches another caller.
pub struct Loader {
    pub caller: Caller,
    pub services: Arc<Services>,
}

/// Key of a customer. A customer that the caller may not see has no value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VisibleCustomer(pub CustomerId);

/// Key of a page of the links between a customer and its operators.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LinksOfCustomer {
    customer: CustomerId,
    page: PageRequest,
}

/// Key of a page of history entries.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HistoryPageKey {
    pub list: HistoryList,
    pub page: PageRequest,
}

/// Key of the number of customers in a list.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CustomerCountKey {
    pub list: Arc<CustomerList>,
    /// The plan of the list's search, if the search has a plan.
    pub plan: Option<SearchPlan>,
}

/// Key of all API keys of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeysOfOperator(pub OperatorId);

/// Key of `Webhook.undeliveredSince`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UndeliveredSince {
    /// The operator of the endpoint.
    pub operator: OperatorId,
    /// The cursor of the endpoint.
    pub cursor: FeedPosition,
}

impl dataloader::Loader<UndeliveredSince> for Loader {
    type Value = Option<DateTime<Utc>>;
    type Error = Error;

    async fn load(&self, keys: &[UndeliveredSince]) -> Result<HashMap<UndeliveredSince, Self::Value>, Error> {
        let endpoints: Vec<_> = keys.iter().map(|key| (key.operator, key.cursor)).collect();
        by_key(keys, self.services.webhooks.undelivered_since(&self.caller, &endpoints).await?)
    }
}

impl dataloader::Loader<OperatorId> for Loader {
    type Value = Arc<operator::Model>;
    type Error = Error;

    async fn load(&self, keys: &[OperatorId]) -> Result<HashMap<OperatorId, Self::Value>, Error> {
        self.services.operators.find_by_ids(&self.caller, keys).await
    }
}

impl dataloader::Loader<VisibleCustomer> for Loader {
    type Value = Arc<CustomerView>;
    type Error = Error;

    async fn load(&self, keys: &[VisibleCustomer]) -> Result<HashMap<VisibleCustomer, Arc<CustomerView>>, Error> {
        let ids = keys.iter().map(|key| key.0).collect();
        let found = self.services.customers.find_by_ids(&self.caller, ids).await?;
        Ok(found.into_iter().map(|view| (VisibleCustomer(view.customer.id), view)).collect())
    }
}

impl dataloader::Loader<CustomerPageRequest> for Loader {
    type Value = CustomerPage;
    type Error = Error;

    async fn load(&self, keys: &[CustomerPageRequest]) -> Result<HashMap<CustomerPageRequest, CustomerPage>, Error> {
        by_key(keys, self.services.customers.pages(&self.caller, keys).await?)
    }
}

impl dataloader::Loader<CustomerCountKey> for Loader {
    type Value = Count;
    type Error = Error;

    async fn load(&self, keys: &[CustomerCountKey]) -> Result<HashMap<CustomerCountKey, Count>, Error> {
        let lists: Vec<_> = keys.iter().map(|key| (key.list.clone(), key.plan.clone())).collect();
        by_key(keys, self.services.customers.counts(&self.caller, &lists).await?)
    }
}

impl dataloader::Loader<LinksOfCustomer> for Loader {
    type Value = Page<Arc<customer_operator::Model>>;
    type Error = Error;

    async fn load(&self, keys: &[LinksOfCustomer]) -> Result<HashMap<LinksOfCustomer, Self::Value>, Error> {
        let lists: Vec<_> = keys.iter().map(|key| (key.customer, key.page.clone())).collect();
        by_key(keys, self.services.customers.link_pages(&self.caller, &lists).await?)
    }
}

impl dataloader::Loader<HistoryPageKey> for Loader {
    type Value = Page<Arc<HistoryEntry>>;
    type Error = Error;

    async fn load(&self, keys: &[HistoryPageKey]) -> Result<HashMap<HistoryPageKey, Self::Value>, Error> {
        let lists: Vec<_> = keys.iter().map(|key| (key.list, key.page.clone())).collect();
        by_key(keys, self.services.customers.history_pages(&self.caller, &lists).await?)
    }
}

impl dataloader::Loader<ApiKeyId> for Loader {
    type Value = api_key::Model;
    type Error = Error;

    async fn load(&self, keys: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, api_key::Model>, Error> {
        self.services.api_keys.find_by_ids(&self.caller, keys).await
    }
}

impl dataloader::Loader<ApiKeysOfOperator> for Loader {
    type Value = Vec<api_key::Model>;
    type Error = Error;

    async fn load(&self, keys: &[ApiKeysOfOperator]) -> Result<HashMap<ApiKeysOfOperator, Self::Value>, Error> {
        let operators: Vec<_> = keys.iter().map(|key| key.0).collect();
        let keys_by_operator = self.services.api_keys.list_by_operators(&self.caller, &operators).await?;
        Ok(keys_by_operator.into_iter().map(|(operator, keys)| (ApiKeysOfOperator(operator), keys)).collect())
    }
}

/// Pairs each key with its value. Keys and values must have the same order.
fn by_key<K: Clone + Eq + Hash, V>(keys: &[K], values: Vec<V>) -> Result<HashMap<K, V>, Error> {
    if keys.len() != values.len() {
        return Err(Error::internal("the number of values is not the number of keys"));
    }
    Ok(keys.iter().cloned().zip(values).collect())
}
