//! Reads the parts of a customer's history that its erasure redacts.

use std::collections::BTreeSet;

use entity::value::{CustomerEventId, CustomerId};
use entity::{customer_change, customer_event};
use sea_orm::sea_query::{BinOper, Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, QueryTrait,
};

use crate::database::OptimisticWrite;
use crate::service::customers::CustomerField;
use crate::service::customers::history::HISTORY_ORDER;

/// The facts about a customer's history from which an erasure makes its statements.
#[derive(Default)]
pub(super) struct HistoryToRedact {
    /// All phones that the customer has had.
    pub(super) phones: BTreeSet<String>,
    /// The number of entries.
    pub(super) entries: usize,
    /// The first and the last entry of each range of at most [`MAX_ROWS`] entries, by version and id.
    pub(super) entry_ranges: Vec<[(i32, CustomerEventId); 2]>,
    /// Ranges of entries that have about [`MAX_ROWS`] rows in the feed, by id. An entry has a row for each operator.
    pub(super) feed_ranges: Vec<[CustomerEventId; 2]>,
}

/// The maximum number of rows that one statement reads or changes. With many more rows, a statement could exceed its
/// time limit of 5 seconds.
pub(super) const MAX_ROWS: u64 = 10_000;

impl HistoryToRedact {
    /// Reads the history of a customer, in statements of at most [`MAX_ROWS`] rows.
    pub(super) async fn read(attempt: &OptimisticWrite, customer: CustomerId) -> Result<Self, DbErr> {
        use customer_event::Column::{After, Before, CustomerId};
        let phone_in = |column: customer_event::Column| {
            column.into_expr().binary(BinOper::Custom("->>"), CustomerField::Phone.name())
        };
        let mut history = Self { feed_ranges: feed_ranges(attempt, customer).await?, ..Self::default() };
        loop {
            let position = Expr::tuple(HISTORY_ORDER.map(|column| column.into_expr()));
            let last = history.entry_ranges.last().map(|[_, (version, id)]| [Expr::val(*version), Expr::val(*id)]);
            let entries = customer_event::Entity::find()
                .select_only()
                .columns(HISTORY_ORDER)
                .exprs([Before, After].map(phone_in))
                .filter(CustomerId.eq(customer))
                .apply_if(last, |entries, last| entries.filter(position.gt(Expr::tuple(last))));
            let entries = HISTORY_ORDER.into_iter().fold(entries, QueryOrder::order_by_asc).limit(MAX_ROWS);
            let rows = attempt.query_all(&entries.into_query()).await?;
            let position = |row: &QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
            history.entry_ranges.extend(ends(&rows, position)?);
            history.entries += rows.len();
            for row in &rows {
                let phones: [Option<String>; 2] = [row.try_get_by_index(2)?, row.try_get_by_index(3)?];
                history.phones.extend(phones.into_iter().flatten());
            }
            if (rows.len() as u64) < MAX_ROWS {
                return Ok(history);
            }
        }
    }
}

async fn feed_ranges(attempt: &OptimisticWrite, customer: CustomerId) -> Result<Vec<[CustomerEventId; 2]>, DbErr> {
    use customer_change::Column::{CustomerId, ExternalCustomerId, Id};
    let mut ranges: Vec<[CustomerEventId; 2]> = Vec::new();
    loop {
        let last = ranges.last().map(|[_, last]| *last);
        let changes = customer_change::Entity::find()
            .select_only()
            .column(Id)
            .filter(CustomerId.eq(customer))
            .filter(ExternalCustomerId.is_not_null())
            // Further rows of the last entry of a range belong to the range.
            .apply_if(last, |changes, last| changes.filter(Id.gt(last)))
            .order_by_asc(Id)
            .limit(MAX_ROWS);
        let rows = attempt.query_all(&changes.into_query()).await?;
        ranges.extend(ends(&rows, |row| row.try_get_by_index(0))?);
        if (rows.len() as u64) < MAX_ROWS {
            return Ok(ranges);
        }
    }
}

/// The values of the first and the last row.
fn ends<T>(rows: &[QueryResult], read: impl Fn(&QueryResult) -> Result<T, DbErr>) -> Result<Option<[T; 2]>, DbErr> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    Ok(Some([read(first)?, read(last)?]))
}
