//! The query `changes`.

use async_graphql::{Context, Object};

use crate::error::Error;
use crate::graphql::objects::{ChangeFeed, ChangeType};
use crate::graphql::pagination::{MAX_PAGE_SIZE, list_complexity};

#[derive(Default)]
pub struct ChangeQuery;

#[Object]
impl ChangeQuery {
    /// The change feed: the changes to your customers, oldest change first, including changes that other callers made.
    /// With the platform key: the changes to all customers. To start, read `viewer { changesCursor }`, then read all
    /// customers. Then call `changes` repeatedly. Pass the `changesCursor` as `after` in the first call, and the
    /// `cursor` of the last response in each further call. This way you miss no change, and you get the changes of one
    /// customer in the order of their versions. Changes are kept for 90 days, unless the platform has set another time.
    #[graphql(complexity = "list_complexity(Some(first), None, child_complexity)")]
    async fn changes(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "MAX_PAGE_SIZE", desc = "Maximum number of changes, 1 to 100. Default: 100.")]
        first: i32,
        #[graphql(
            desc = "Return the changes after this cursor. Null starts at the oldest change that is kept. You can change `types` and keep the cursor."
        )]
        after: Option<String>,
        #[graphql(
            desc = "Types of changes to return. Default: all types. A response may have fewer changes than `first`, or none, even if `hasMore` is true. In this case, continue with the `cursor` of the response."
        )]
        types: Option<Vec<ChangeType>>,
    ) -> Option<Result<ChangeFeed, Error>> {
        Some(ChangeFeed::load(context, first, after, types).await)
    }
}
