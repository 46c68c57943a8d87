//! The `customerEvents` query, which finds history entries. Platform key only.

use async_graphql::{Context, ID, Object};
use entity::value::{ApiKeyId, CustomerId, RequestId};

use crate::error::{Error, ErrorCode, Violation};
use crate::graphql::context::require_platform;
use crate::graphql::objects::CustomerEventConnection;
use crate::graphql::pagination::{PageArguments, list_complexity};
use crate::service::customers::HistoryList;

#[derive(Default)]
pub struct HistoryQuery;

#[expect(clippy::too_many_arguments, reason = "an argument of a field is an argument of its method")]
#[Object]
impl HistoryQuery {
    /// History entries of one customer, in the order of `version`, or of one request or one API key, oldest first.
    /// Requires exactly one of `customerId`, `requestId` and `apiKeyId`. If a customer was erased, the values in its
    /// entries are null. The list is empty for an unknown id. Platform key only.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn customer_events(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Id that the customer has or had.")] customer_id: Option<ID>,
        #[graphql(
            desc = "Id of a request (`x-request-id` response header) or of a command run (`AdminEvent.requestId`)."
        )]
        request_id: Option<String>,
        #[graphql(desc = "Id of the API key that made the changes. The key may have been revoked.")] api_key_id: Option<
            ID,
        >,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<CustomerEventConnection, Error>> {
        let list = match history_list(context, customer_id, request_id, api_key_id) {
            Ok(list) => list,
            Err(error) => return Some(Err(error)),
        };
        Some(CustomerEventConnection::load(context, list, PageArguments { first, after, last, before }).await)
    }
}

/// Parses the arguments of `customerEvents` that select the entries.
fn history_list(
    context: &Context<'_>,
    customer: Option<ID>,
    request: Option<String>,
    key: Option<ID>,
) -> Result<HistoryList, Error> {
    require_platform(context)?;
    match (customer, request, key) {
        (Some(id), None, None) => Ok(HistoryList::OfCustomer(CustomerId::parse_or_unknown(&id))),
        (None, Some(id), None) => Ok(HistoryList::OfRequest(RequestId::parse_or_unknown(&id))),
        (None, None, Some(id)) => Ok(HistoryList::OfApiKey(ApiKeyId::parse_or_unknown(&id))),
        _ => {
            let message = "Set exactly one of `customerId`, `requestId` and `apiKeyId`.";
            Err(Violation::new(ErrorCode::InvalidArgument).with_message(message).into())
        }
    }
}
