//! Reads rows for the fields of objects, and decides how: from memory, with a direct service call, or with the loader.
//!
//! - From memory, if the rows were read before: no statement, no wait.
//! - With a direct call, for a page of customers that is not inside another list: no other page can share the statement,
//!   and the loader would only postpone it by a round (see `load_rounds`).
//! - With the loader otherwise. All rows of a list share one statement, so the number of statements depends on the query
//!   and not on the number of rows.
//!
//! Fields of `Query` and `Mutation` that return a single object call the service themselves.

use std::iter;
use std::sync::Arc;

use async_graphql::{Context, InputType, QueryPathSegment};
use entity::value::{ApiKeyId, CustomerId, OperatorId};
use entity::{api_key, customer_event, customer_operator, operator};

use super::context::{actor, loader, services};
use super::loader::{ApiKeysOfOperator, HistoryOfCustomer, OperatorsOfCustomer};
use super::pagination::PageArguments;
use crate::database::pages::{Page, PageRequest};
use crate::error::{Error, ErrorCode};
use crate::service::customers::{CustomerList, CustomerPage, CustomerView};

/// Returns a page of a list of customers. For the platform, the service also reads the page of operators that the request
/// selects for each customer, so that the customers need no further round.
pub async fn customers(
    context: &Context<'_>,
    list: Arc<CustomerList>,
    request: PageRequest,
) -> Result<Page<CustomerView>, Error> {
    let page = CustomerPage { list, request, operators: operators_selected_for_each_customer(context) };
    let page = if is_inside_a_list(context) {
        loader(context).load_one(page).await?
    } else {
        services(context).customers.pages(actor(context), &[page]).await?.pop()
    };
    page.ok_or_else(|| ErrorCode::Internal.into())
}

/// Returns the length of a list of customers.
pub async fn customer_count(context: &Context<'_>, list: Arc<CustomerList>) -> Result<u64, Error> {
    loader(context).load_one(list).await?.ok_or_else(|| ErrorCode::Internal.into())
}

/// Returns a page of the links between a customer and its operators.
pub async fn operators_of_customer(
    context: &Context<'_>,
    view: &CustomerView,
    request: PageRequest,
) -> Result<Page<customer_operator::Model>, Error> {
    if let (Some(link), Some(_)) = (&view.link, actor(context).operator()) {
        // An operator sees no other link than its own, which was read with the customer.
        return Ok(request.of_one(link.clone()));
    }
    match &view.operators {
        Some((read_request, page)) if *read_request == request => Ok(page.clone()),
        _ => {
            let page = loader(context).load_one(OperatorsOfCustomer(view.customer.id, request)).await?;
            page.ok_or_else(|| ErrorCode::Internal.into())
        }
    }
}

/// Returns the operators with these ids, in the order of the ids. Operators never change, so most are in memory.
pub async fn operators(
    context: &Context<'_>,
    ids: impl Iterator<Item = OperatorId> + Clone,
) -> Result<Vec<Arc<operator::Model>>, Error> {
    if let Some(operators) = services(context).operators.cached(actor(context), ids.clone()) {
        return Ok(operators);
    }
    let by_id = loader(context).load_many(ids.clone()).await?;
    ids.map(|id| by_id.get(&id).cloned()).collect::<Option<_>>().ok_or_else(|| ErrorCode::Internal.into())
}

pub async fn operator(context: &Context<'_>, id: OperatorId) -> Result<Arc<operator::Model>, Error> {
    loader(context).load_one(id).await?.ok_or_else(|| ErrorCode::Internal.into())
}

/// Returns a page of a customer's history.
pub async fn history_of_customer(
    context: &Context<'_>,
    customer: CustomerId,
    request: PageRequest,
) -> Result<Page<customer_event::Model>, Error> {
    let page = loader(context).load_one(HistoryOfCustomer(customer, request)).await?;
    page.ok_or_else(|| ErrorCode::Internal.into())
}

/// Returns an API key, or `None` if the caller may not see it.
pub async fn api_key(context: &Context<'_>, id: ApiKeyId) -> Result<Option<api_key::Model>, Error> {
    loader(context).load_one(id).await
}

/// Returns all API keys of an operator.
pub async fn api_keys_of_operator(context: &Context<'_>, id: OperatorId) -> Result<Vec<api_key::Model>, Error> {
    Ok(loader(context).load_one(ApiKeysOfOperator(id)).await?.unwrap_or_default())
}

/// Returns whether the current field belongs to an item of a list, and so may occur once per item.
fn is_inside_a_list(context: &Context<'_>) -> bool {
    let path = context.path_node.iter().flat_map(|node| iter::once(node).chain(node.parents()));
    path.into_iter().any(|node| matches!(node.segment, QueryPathSegment::Index(_)))
}

/// Returns the page of `Customer.operators` that the current field selects for each of its customers. `None` if it selects
/// none or several different ones, if a cursor is given, which is valid for one customer only, or if the caller is an
/// operator, whose own link is read anyway.
fn operators_selected_for_each_customer(context: &Context<'_>) -> Option<PageRequest> {
    if actor(context).operator().is_some() {
        return None;
    }
    let selected = context.look_ahead();
    let by_edges = selected.field("edges").field("node").field("operators").selection_fields();
    let by_nodes = selected.field("nodes").field("operators").selection_fields();
    let [field] = [by_edges, by_nodes].concat()[..] else { return None };
    let arguments = field.arguments().ok()?;
    let argument = |name| arguments.iter().find(|(own_name, _)| own_name == name).map(|(_, value)| value.clone());
    let arguments = PageArguments {
        first: InputType::parse(argument("first")).ok()?,
        after: InputType::parse(argument("after")).ok()?,
        last: InputType::parse(argument("last")).ok()?,
        before: InputType::parse(argument("before")).ok()?,
    };
    arguments.parse_without_cursors()
}
