//! Counts of the rows of lists and queries, each up to a limit.

use std::cmp;
use std::iter::Sum;

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbErr};

use super::branches::{Branch, ROW, limit, rows_by_branch};
use super::list::ListPart;
use super::scan::{MAX_SCAN, record_sort};
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
    let branches: Vec<_> = queries.into_iter().map(|(query, bound)| Branch::count(query, None, limit(bound))).collect();
    let counts = counts_of_branches(&reader.for_reads(kind), &branches).await?;
    count_work(Work::Entry, counts.iter().sum());
    Ok(counts)
}

/// Counts the rows of each list, which has one or more parts. Of each part it counts up to [`MAX_COUNT`] rows, or the
/// rows among the first [`MAX_SCAN`] rows of a scan, in the order of the list. A scan that may be longer is counted
/// twice: once without filters, to learn whether it is longer.
pub async fn list_counts(reader: &Reader, lists: Vec<Vec<ListPart>>) -> Result<Vec<Count>, DbErr> {
    let mut branches = Vec::new();
    let mut counted = |(number, part)| CountedPart::new(part, number > 0, &mut branches);
    let lists: Vec<Vec<_>> =
        lists.into_iter().map(|parts| parts.into_iter().enumerate().map(&mut counted).collect()).collect();
    let counts = counts_of_branches(&reader.for_reads(ReadKind::Long), &branches).await?;
    Ok(lists.iter().map(|parts| parts.iter().map(|part| part.count(&counts)).sum()).collect())
}

/// A part of a list that [`list_counts`] counts, with the indexes of its branches.
struct CountedPart {
    /// The count includes at most this many rows.
    bound: u64,
    /// See [`Scan::max_rows`](super::Scan::max_rows).
    max_rows: u64,
    /// The number of filters of the scan.
    filter_count: u64,
    /// The branch that counts the rows without filters. `None` if `max_rows` makes it unnecessary.
    all: Option<usize>,
    /// The branch that counts the rows that match the filters. `None` if there are no filters.
    matching: Option<usize>,
}

impl CountedPart {
    /// Adds the branches that count a part of a list. `with_previous` is true for a part that is not the first one.
    fn new(part: ListPart, with_previous: bool, branches: &mut Vec<Branch>) -> Self {
        let ListPart { mut query, position_columns, order, scan, joined: _ } = part;
        let bound = if scan.is_some() { MAX_SCAN } else { MAX_COUNT };
        let scan = scan.unwrap_or_default();
        let is_bounded = scan.is_bounded();
        let filters: Vec<_> = scan.filters.iter().cloned().chain(scan.not_in_previous.clone()).collect();
        let is_counted_twice = !filters.is_empty() && !is_bounded;
        record_sort(&scan, if is_counted_twice { 2 } else { 1 });
        let mut counted = Self {
            bound: bound as u64,
            max_rows: scan.max_rows,
            filter_count: filters.len() as u64,
            all: None,
            matching: None,
        };
        if filters.is_empty() || is_counted_twice {
            counted.all = Some(branches.len());
            branches.push(Branch { with_previous, ..Branch::count(query.clone(), None, limit(bound + 1)) });
        }
        if !filters.is_empty() {
            counted.matching = Some(branches.len());
            for column in position_columns {
                query.order_by_expr(column, order.into());
            }
            let with_previous = with_previous || is_counted_twice;
            branches.push(Branch { with_previous, ..Branch::count(query, Some(filters), String::new()) });
        }
        counted
    }

    /// Returns the count of the part, and records its work. `counts` are the counts of all branches.
    fn count(&self, counts: &[u64]) -> Count {
        let of_branch = |index: usize| counts.get(index).copied().unwrap_or_default();
        let rows = self.all.map_or(self.max_rows, of_branch);
        let found = match self.matching {
            Some(index) => {
                count_work(Work::Check, cmp::min(rows, self.bound) * self.filter_count);
                of_branch(index)
            }
            None => {
                count_work(Work::Entry, rows);
                cmp::min(rows, self.bound)
            }
        };
        if rows > self.bound { Count::AtLeast(found) } else { Count::Exactly(found) }
    }
}

async fn counts_of_branches(connection: &impl ConnectionTrait, branches: &[Branch]) -> Result<Vec<u64>, DbErr> {
    let rows = rows_by_branch(connection, branches).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}
