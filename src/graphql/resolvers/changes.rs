//! The query `changes`.

use async_graphql::{Context, Object};

use crate::error::Error;
use crate::graphql::objects::{ChangeFeed, ChangeType};
use crate::graphql::pagination::{MAX_PAGE_SIZE, list_complexity};

#[derive(Default)]
pub struct ChangeQuery;

#[Object]
impl ChangeQuery {
    /// The feed of changes: all changes of your customers, made by any caller, oldest change first. With the platform
    /// key: the changes of all customers. Read the feed repeatedly and pass the `cursor` of the last response as
    /// `after`: no change is missed, and the changes of one customer come in the order of their versions. Changes are
    /// kept for 90 days, unless the platform has set another time. To start, take `viewer { changesCursor }`, read all
    /// customers, and then follow the feed from the cursor.
    #[graphql(complexity = "list_complexity(Some(first), None, child_complexity)")]
    async fn changes(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "MAX_PAGE_SIZE", desc = "Maximum number of changes, 1 to 100. Default: 100.")]
        first: i32,
        #[graphql(
            desc = "Return the changes after this cursor. Null starts at the oldest change that is kept. The cursor stays valid with other `types`."
        )]
        after: Option<String>,
        #[graphql(
            desc = "Types of changes to return. Default: all types. A response may have fewer changes than `first`, or none, although `hasMore` is true: continue with its `cursor`."
        )]
        types: Option<Vec<ChangeType>>,
    ) -> Option<Result<ChangeFeed, Error>> {
        Some(ChangeFeed::load(context, first, after, types).await)
    }
}
