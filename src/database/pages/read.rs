//! Reads pages of lists.

use sea_orm::{DbErr, FromQueryResult, QueryResult};

use super::branches::rows_by_branch;
use super::keyset::{Direction, HasPosition, Page, PageRequest, Position, SortOrder};
use super::list::{ListPart, ListRequest};
use super::scan::{MAX_SHORT_SCAN, Scan, ScanWork, count_sort_work};
use crate::database::{ReadKind, Reader};

/// Loads these pages, in as few statements as possible.
///
/// `position` receives the index of a page, and a row of its list.
pub async fn pages<T>(
    reader: &Reader,
    pages: Vec<ListRequest>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let (mut requests, mut groups) = (Vec::new(), Vec::new());
    let scans = pages.iter().flat_map(|page| &page.parts).filter_map(|part| part.scan.as_ref());
    let kind = if scans.map(Scan::max_work).sum::<u64>() > MAX_SHORT_SCAN { ReadKind::Long } else { ReadKind::Short };
    for ListRequest { parts, request } in pages {
        let (mut read_parts, mut group) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for part in parts {
            let scan_work = part.scan.as_ref().map(|scan| {
                count_sort_work(scan, 1 + scan.milestones().len());
                ScanWork::new(scan)
            });
            read_parts.push((part.order, scan_work));
            part.add_branches(&request, &mut group);
        }
        groups.push(group);
        requests.push((request, read_parts));
    }
    let mut rows_by_branch = rows_by_branch(&reader.for_reads(kind), groups).await?.into_iter();
    let mut next_branch = || read_all(&rows_by_branch.next().unwrap_or_default(), &read);
    let page = |(index, (request, read_parts)): (usize, (PageRequest, Vec<_>))| {
        let position = |row: &T| position(index, row);
        let page_of_part = |(order, scan_work)| page_of_part(&request, order, scan_work, &mut next_branch, position);
        let parts = read_parts.into_iter().map(page_of_part).collect::<Result<_, _>>()?;
        Ok(request.merge(parts, position))
    };
    requests.into_iter().enumerate().map(page).collect()
}

/// Makes the page of a part of a list, and counts the work of its scan. `next_branch` returns the rows of the next
/// branch.
fn page_of_part<T>(
    request: &PageRequest,
    order: SortOrder,
    scan_work: Option<ScanWork>,
    mut next_branch: impl FnMut() -> Result<Vec<T>, DbErr>,
    position: impl Fn(&T) -> Position,
) -> Result<Page<T>, DbErr> {
    let mut rows = next_branch()?;
    // UNION ALL does not keep the order of its branches' rows.
    rows.sort_by_cached_key(&position);
    if order == SortOrder::Descending {
        rows.reverse();
    }
    let Some(scan_work) = scan_work else { return Ok(request.page(rows)) };
    let mut milestones = Vec::new();
    for _ in scan_work.milestones {
        milestones.push(next_branch()?.first().map(&position));
    }
    let is_full = rows.len() > request.size;
    let last = if request.direction == Direction::Forward { rows.last() } else { rows.first() };
    let last = last.filter(|_| is_full).map(&position);
    let is_before = |one: &Position, other: &Position| match request.order(order) {
        SortOrder::Ascending => one < other,
        SortOrder::Descending => one > other,
    };
    let is_passed = |milestone: &Position| last.as_ref().is_none_or(|last| is_before(milestone, last));
    scan_work.count(rows.len() as u64, is_full, &milestones, is_passed);
    Ok(request.page_of_scan(rows, milestones.pop().flatten()))
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
pub async fn page<M: FromQueryResult + HasPosition>(
    reader: &Reader,
    list: ListPart,
    request: PageRequest,
) -> Result<Page<M>, DbErr> {
    let read = |row: &QueryResult| M::from_query_result(row, "");
    let mut pages = pages(reader, vec![ListRequest::new(list, request)], read, |_, row: &M| row.position()).await?;
    pages.pop().ok_or_else(|| DbErr::RecordNotFound("the page".to_owned()))
}
