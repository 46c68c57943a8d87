//! Counts of the rows of lists and queries, each up to a limit.

use std::cmp;
use std::iter::Sum;

use sea_orm::sea_query::{Order, SelectStatement};
use sea_orm::{ConnectionTrait, DbErr};

use super::branches::{Branch, ROW, limit, rows_by_branch};
use super::list::List;
use super::scan::{MAX_SCAN, record_sort};
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
const MAX_SHORT_COUNT: usize = 20_000;

/// The maximum number of index entries that the count of one list includes. PostgreSQL counts a million in 0.1 s.
const MAX_COUNT: usize = 1_000_000;

/// Counts the rows of each query. Each count stops at the limit that is given with the query.
pub async fn counts(reader: &Reader, queries: Vec<(SelectStatement, usize)>) -> Result<Vec<u64>, DbErr> {
    let bounds = queries.iter().map(|(_, bound)| bound).sum::<usize>();
    let kind = if bounds > MAX_SHORT_COUNT { ReadKind::Long } else { ReadKind::Short };
    let branches: Vec<_> = queries.into_iter().map(|(query, bound)| Branch::count(query, None, limit(bound))).collect();
    let counts = counts_of_branches(&reader.for_reads(kind), &branches).await?;
    record(Work::Entry, counts.iter().sum());
    Ok(counts)
}

/// Counts the rows of each list: up to [`MAX_COUNT`], or among the first [`MAX_SCAN`] rows of a scan, in the
/// order of the list. A scan that may be longer is counted twice: once without filters, to learn if it is longer.
pub async fn list_counts(reader: &Reader, lists: Vec<List>) -> Result<Vec<Count>, DbErr> {
    let (mut branches, mut scans) = (Vec::new(), Vec::new());
    for List { mut rows, columns, descending, scan, continues, .. } in lists {
        let bound = if scan.is_some() { MAX_SCAN } else { MAX_COUNT };
        let scan = scan.unwrap_or_default();
        let is_bounded = scan.is_bounded();
        let filters: Vec<_> = scan.filters.iter().cloned().chain(scan.not_in_previous.clone()).collect();
        scans.push((bound as u64, filters.len() as u64, is_bounded.then_some(scan.max_rows)));
        let is_counted_twice = !filters.is_empty() && !is_bounded;
        record_sort(&scan, if is_counted_twice { 2 } else { 1 });
        if filters.is_empty() || is_counted_twice {
            branches.push(Branch { continues, ..Branch::count(rows.clone(), None, limit(bound + 1)) });
        }
        if !filters.is_empty() {
            for column in columns {
                rows.order_by_expr(column, if descending { Order::Desc } else { Order::Asc });
            }
            let continues = continues || is_counted_twice;
            branches.push(Branch { continues, ..Branch::count(rows, Some(filters), String::new()) });
        }
    }
    let mut counts = counts_of_branches(&reader.for_reads(ReadKind::Long), &branches).await?.into_iter();
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
    Ok(scans.into_iter().map(count).collect())
}

async fn counts_of_branches(connection: &impl ConnectionTrait, branches: &[Branch]) -> Result<Vec<u64>, DbErr> {
    let rows = rows_by_branch(connection, branches).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}
