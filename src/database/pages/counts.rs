//! Counts of the rows of lists and queries, each up to a limit.

use std::cmp;
use std::iter::Sum;

use sea_orm::sea_query::{Order, SelectStatement};
use sea_orm::{ConnectionTrait, DbErr};

use super::arms::{Arm, ROW, limit, rows_by_arm};
use super::list::List;
use super::walk::{MAX_WALK, record_sort};
use crate::database::{ReadKind, Reader, Work, record};

/// The number of rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Exactly(u64),
    /// The count ended at its limit, so there may be more rows.
    AtLeast(u64),
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::Exactly(0), |sum, count| match (sum, count) {
            (Self::Exactly(sum), Self::Exactly(count)) => Self::Exactly(sum + count),
            (Self::Exactly(sum) | Self::AtLeast(sum), Self::Exactly(count) | Self::AtLeast(count)) => {
                Self::AtLeast(sum + count)
            }
        })
    }
}

/// The statements of one call of [`counts`] are long reads if they may count more index entries than this in total.
/// Counting so many entries takes about 2 ms.
const MAX_USUAL_COUNT: usize = 20_000;

/// The maximum number of index entries that the count of one list includes. PostgreSQL counts a million in 0.1 s.
const MAX_COUNT: usize = 1_000_000;

/// Counts the rows of each query. Each count stops at the limit that is given with the query.
pub async fn counts(reader: &Reader, queries: Vec<(SelectStatement, usize)>) -> Result<Vec<u64>, DbErr> {
    let bounds = queries.iter().map(|(_, bound)| bound).sum::<usize>();
    let kind = if bounds > MAX_USUAL_COUNT { ReadKind::Long } else { ReadKind::Usual };
    let arms: Vec<_> = queries.into_iter().map(|(query, bound)| Arm::count(query, None, limit(bound))).collect();
    let counts = counts_of_arms(&reader.for_reads(kind), &arms).await?;
    record(Work::Entry, counts.iter().sum());
    Ok(counts)
}

/// Counts the rows of each list: up to [`MAX_COUNT`], or among the first [`MAX_WALK`] rows of a walk, in the
/// order of the list. A walk that may be longer is counted twice: once without filters, to learn if it is longer.
pub async fn list_counts(reader: &Reader, lists: Vec<List>) -> Result<Vec<Count>, DbErr> {
    let (mut arms, mut walks) = (Vec::new(), Vec::new());
    for List { mut rows, columns, descending, walk, continues, .. } in lists {
        let bound = if walk.is_some() { MAX_WALK } else { MAX_COUNT };
        let walk = walk.unwrap_or_default();
        let is_bounded = walk.is_bounded();
        let filters: Vec<_> = walk.filters.iter().cloned().chain(walk.not_in_previous.clone()).collect();
        walks.push((bound as u64, filters.len() as u64, is_bounded.then_some(walk.max_rows)));
        let is_counted_twice = !filters.is_empty() && !is_bounded;
        record_sort(&walk, if is_counted_twice { 2 } else { 1 });
        if filters.is_empty() || is_counted_twice {
            arms.push(Arm { continues, ..Arm::count(rows.clone(), None, limit(bound + 1)) });
        }
        if !filters.is_empty() {
            for column in columns {
                rows.order_by_expr(column, if descending { Order::Desc } else { Order::Asc });
            }
            let continues = continues || is_counted_twice;
            arms.push(Arm { continues, ..Arm::count(rows, Some(filters), String::new()) });
        }
    }
    let mut counts = counts_of_arms(&reader.for_reads(ReadKind::Long), &arms).await?.into_iter();
    let mut next = || counts.next().unwrap_or_default();
    let count = |(bound, filters, max_rows): (u64, u64, Option<u64>)| {
        let (rows, found) = if filters == 0 {
            let rows = next();
            record(Work::Entry, rows);
            (rows, cmp::min(rows, bound))
        } else {
            let rows = max_rows.unwrap_or_else(&mut next);
            record(Work::Check, cmp::min(rows, bound) * filters);
            (rows, next())
        };
        if rows > bound { Count::AtLeast(found) } else { Count::Exactly(found) }
    };
    Ok(walks.into_iter().map(count).collect())
}

async fn counts_of_arms(connection: &impl ConnectionTrait, arms: &[Arm]) -> Result<Vec<u64>, DbErr> {
    let rows = rows_by_arm(connection, arms).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}
