//! The `adminEvents` query, which lists the administrative audit log. Platform key only.

use async_graphql::{Context, Object};

use crate::error::Error;
use crate::graphql::objects::{AdminEventConnection, AdminEventFilterInput};
use crate::graphql::pagination::{PageArguments, list_complexity};

#[derive(Default)]
pub struct AuditQuery;

#[Object]
impl AuditQuery {
    /// The administrative audit log, oldest entry first: changes to operators, API keys and webhook endpoints by
    /// requests and commands, and the start of each run of `vivamo operator remove-customers` that found customers.
    /// Platform key only.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn admin_events(
        &self,
        context: &Context<'_>,
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
        #[graphql(desc = "Conditions that the entries must match.")] filter: Option<AdminEventFilterInput>,
    ) -> Option<Result<AdminEventConnection, Error>> {
        Some(AdminEventConnection::load(context, filter, PageArguments { first, after, last, before }).await)
    }
}
