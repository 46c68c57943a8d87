//! The `changes` query.

use async_graphql::{Context, Object};

use crate::error::Error;
use crate::graphql::objects::{ChangeFeed, ChangeType};
use crate::graphql::pagination::{MAX_PAGE_SIZE, list_complexity};

#[derive(Default)]
pub struct ChangeQuery;

#[Object]
impl ChangeQuery {
    /// The change feed: changes to your customers, oldest first, including changes made by other callers. With the
    /// platform key: changes to all customers. To start, read `viewer { changesCursor }`, then read all customers. Then
    /// call `changes` repeatedly: first with `changesCursor` as `after`, then always with the `cursor` of the last
    /// response. You miss no change, and get the changes of each customer in version order. Changes are kept for 90
    /// days, unless the platform has configured another period.
    #[graphql(complexity = "list_complexity(Some(first), None, child_complexity)")]
    async fn changes(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "MAX_PAGE_SIZE", desc = "Number of changes: 1 to 100. Default: 100.")] first: i32,
        #[graphql(
            desc = "Return changes after this cursor. Null: from the oldest stored change. The cursor stays valid if `types` changes."
        )]
        after: Option<String>,
        #[graphql(
            desc = "Types of changes to return. Default: all. An empty list returns no changes. A page can be short or empty although `hasMore` is true."
        )]
        types: Option<Vec<ChangeType>>,
    ) -> Option<Result<ChangeFeed, Error>> {
        Some(ChangeFeed::load(context, first, after, types).await)
    }
}
