//! Reads pages of lists.

use sea_orm::{DbErr, FromQueryResult, QueryResult};

use super::branches::rows_by_branch;
use super::keyset::{Direction, Page, PageRequest, Position, Positioned};
use super::list::List;
use super::scan::{MAX_SHORT_SCAN, Measure, Scan, record_sort};
use crate::database::{ReadKind, Reader};

/// Loads a page of each list, in one statement for up to 400 branches.
///
/// `position` receives the index of a list, and a row of that list.
pub async fn pages<T>(
    reader: &Reader,
    lists: Vec<(List, PageRequest)>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let (mut requests, mut branches) = (Vec::new(), Vec::new());
    let work: u64 = lists.iter().filter_map(|(list, _)| list.scan.as_ref()).map(Scan::max_work).sum();
    let kind = if work > MAX_SHORT_SCAN { ReadKind::Long } else { ReadKind::Short };
    for (list, request) in lists {
        let measure = list.scan.as_ref().map(|scan| {
            record_sort(scan, 1 + scan.milestones().len());
            Measure::new(scan)
        });
        requests.push((list.descending, measure, request.clone()));
        branches.extend(list.branches(&request));
    }
    let mut rows_by_branch = rows_by_branch(&reader.for_reads(kind), &branches).await?.into_iter();
    let mut pages = Vec::new();
    for (index, (descending, measure, request)) in requests.iter().enumerate() {
        let mut next_branch = || read_all(&rows_by_branch.next().unwrap_or_default(), &read);
        let mut rows = next_branch()?;
        // UNION ALL does not keep the order of its branches' rows.
        rows.sort_by_cached_key(|row| position(index, row));
        if *descending {
            rows.reverse();
        }
        let Some(measure) = *measure else {
            pages.push(request.page(rows));
            continue;
        };
        let mut milestones = Vec::new();
        for _ in measure.milestones {
            milestones.push(next_branch()?.first().map(|row| position(index, row).in_scan()));
        }
        let is_full = rows.len() > request.size;
        let last = if request.direction == Direction::Forward { rows.last() } else { rows.first() };
        let last = last.filter(|_| is_full).map(|row| position(index, row));
        let is_ascending = (request.direction == Direction::Forward) != *descending;
        let is_before = |one: &Position, other: &Position| if is_ascending { one < other } else { one > other };
        let is_passed = |milestone: &Position| last.as_ref().is_none_or(|last| is_before(milestone, last));
        measure.record_work(rows.len() as u64, is_full, &milestones, is_passed);
        pages.push(request.page_of_scan(rows, milestones.pop().flatten()));
    }
    Ok(pages)
}

/// Reads all rows. Unlike `collect`, it knows the number of rows, so it allocates once.
fn read_all<T>(rows: &[QueryResult], read: impl Fn(&QueryResult) -> Result<T, DbErr>) -> Result<Vec<T>, DbErr> {
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        values.push(read(row)?);
    }
    Ok(values)
}

/// Loads a page of one list. The rows of the list are rows of an entity.
pub async fn page<M: FromQueryResult + Positioned>(
    reader: &Reader,
    list: List,
    request: PageRequest,
) -> Result<Page<M>, DbErr> {
    let read = |row: &QueryResult| M::from_query_result(row, "");
    let mut pages = pages(reader, vec![(list, request)], read, |_, row: &M| row.position()).await?;
    pages.pop().ok_or_else(|| DbErr::RecordNotFound("the page".to_owned()))
}
