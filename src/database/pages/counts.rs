//! Counts of the rows of lists and queries, each up to a limit.

use std::cmp;
use std::iter::Sum;

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbErr};

use super::branches::{Branch, ROW, limit, rows_by_branch};
use super::list::ListPart;
use super::scan::{MAX_SCAN, count_sort_work};
use crate::database::{ReadKind, Reader};
use crate::request::{Work, count_work};

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
/// Counting that many entries takes about 2 ms.
const MAX_SHORT_COUNT: usize = 20_000;

/// The maximum number of index entries that the count of one list includes. PostgreSQL counts a million in 0.1 s.
const MAX_COUNT: usize = 1_000_000;

/// Counts the rows of each query. Each count stops at the limit that is given with the query.
pub async fn counts(reader: &Reader, queries: Vec<(SelectStatement, usize)>) -> Result<Vec<u64>, DbErr> {
    let bounds = queries.iter().map(|(_, bound)| bound).sum::<usize>();
    let kind = if bounds > MAX_SHORT_COUNT { ReadKind::Long } else { ReadKind::Short };
    let groups = queries.into_iter().map(|(query, bound)| vec![Branch::count(query, None, limit(bound))]).collect();
    let counts = counts_of_branches(&reader.for_reads(kind), groups).await?;
    count_work(Work::Entry, counts.iter().sum());
    Ok(counts)
}

/// Counts the rows of each list, which has one or more parts. Of each part it counts up to [`MAX_COUNT`] rows, or the
/// rows among the first [`MAX_SCAN`] rows of a scan, in the order of the list. A scan that may be longer is counted
/// twice: once without filters, to learn whether it is longer.
pub async fn list_counts(reader: &Reader, lists: Vec<Vec<ListPart>>) -> Result<Vec<Count>, DbErr> {
    let (mut counted_lists, mut groups) = (Vec::with_capacity(lists.len()), Vec::with_capacity(lists.len()));
    for parts in lists {
        let mut group = Vec::new();
        counted_lists.push(parts.into_iter().map(|part| CountedPart::new(part, &mut group)).collect::<Vec<_>>());
        groups.push(group);
    }
    let counts = counts_of_branches(&reader.for_reads(ReadKind::Long), groups).await?;
    let mut next_count = counts.into_iter();
    let count = |parts: Vec<CountedPart>| parts.iter().map(|part| part.count(&mut next_count)).sum();
    Ok(counted_lists.into_iter().map(count).collect())
}

/// A part of a list that [`list_counts`] counts.
struct CountedPart {
    /// The count includes at most this many rows.
    bound: u64,
    /// See [`Scan::max_rows`](super::Scan::max_rows).
    max_rows: u64,
    /// The number of filters of the scan.
    filter_count: u64,
    /// True if a branch counts the rows without filters. False if `max_rows` makes it unnecessary.
    counts_all: bool,
    /// True if the next branch counts the rows that match the filters. False if there are no filters.
    counts_matching: bool,
}

impl CountedPart {
    /// Adds the branches that count a part of a list to the group of the list.
    fn new(part: ListPart, group: &mut Vec<Branch>) -> Self {
        let ListPart { mut query, position_columns, order, scan, joined: _ } = part;
        let bound = if scan.is_some() { MAX_SCAN } else { MAX_COUNT };
        let scan = scan.unwrap_or_default();
        let filters: Vec<_> = scan.filters.iter().cloned().chain(scan.not_in_previous.clone()).collect();
        let counted = Self {
            bound: bound as u64,
            max_rows: scan.max_rows,
            filter_count: filters.len() as u64,
            counts_all: filters.is_empty() || !scan.is_bounded(),
            counts_matching: !filters.is_empty(),
        };
        count_sort_work(&scan, if counted.counts_all && counted.counts_matching { 2 } else { 1 });
        if counted.counts_all {
            group.push(Branch::count(query.clone(), None, limit(bound + 1)));
        }
        if counted.counts_matching {
            for column in position_columns {
                query.order_by_expr(column, order.into());
            }
            group.push(Branch::count(query, Some(filters), String::new()));
        }
        counted
    }

    /// Returns the count of the part, and counts the work. `counts` returns the counts of the branches of this part.
    fn count(&self, counts: &mut impl Iterator<Item = u64>) -> Count {
        let mut next_count = || counts.next().unwrap_or_default();
        let rows = if self.counts_all { next_count() } else { self.max_rows };
        let found = if self.counts_matching {
            count_work(Work::Check, cmp::min(rows, self.bound) * self.filter_count);
            next_count()
        } else {
            count_work(Work::Entry, rows);
            cmp::min(rows, self.bound)
        };
        if rows > self.bound { Count::AtLeast(found) } else { Count::Exactly(found) }
    }
}

async fn counts_of_branches(connection: &impl ConnectionTrait, groups: Vec<Vec<Branch>>) -> Result<Vec<u64>, DbErr> {
    let rows = rows_by_branch(connection, groups).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}
