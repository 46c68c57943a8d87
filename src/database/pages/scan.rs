//! Scans: lists whose rows are checked one by one, and the work that this takes.

use std::cmp;

use sea_orm::sea_query::SelectStatement;

use super::keyset::Position;
use crate::request::{Work, count_work};

/// A scan checks the rows of a list one by one, in the order of the list.
pub struct Scan {
    /// Subqueries that refer to the checked row as [`SCAN`]. A row matches if no subquery is null. Each subquery
    /// selects one column of at most one row. The filters are not joins, because PostgreSQL would reorder joins and
    /// start from all customers that match a condition.
    pub filters: Vec<SelectStatement>,
    /// The number of rows of the list, counted by an earlier statement, or an upper bound. `u64::MAX` if the number is
    /// unknown.
    pub max_rows: u64,
    /// The number of index entries that the database sorts before it checks the first row. 0 if the rows come from an
    /// index in the order of the list.
    pub sorted_entries: u64,
    /// A filter that leaves out the rows which the part of the list before this one also has. Only counts need it:
    /// pages leave out repeated rows (see [`PageRequest::merge`](super::PageRequest::merge)).
    pub not_in_previous: Option<SelectStatement>,
}

impl Default for Scan {
    /// A scan through a list of unknown length, without filters.
    fn default() -> Self {
        Self { filters: Vec::new(), max_rows: u64::MAX, sorted_entries: 0, not_in_previous: None }
    }
}

impl Scan {
    /// Returns the row numbers of the milestones, for example 100 for the 100th row of the scan. The statement of a
    /// page also reads these rows, to measure how far the scan has come. The last milestone is row [`MAX_SCAN`], at
    /// which a scan ends if the page is not full. The next page starts there.
    pub(super) fn milestones(&self) -> &'static [usize] {
        // Without filters, every row matches, so the page is full, or the list has ended, before row `MAX_SCAN`.
        if self.filters.is_empty() || self.is_bounded() {
            &[]
        } else if self.sorted_entries > 0 {
            // The database sorts the entries again for each milestone, so only the necessary one is read.
            &[MAX_SCAN]
        } else {
            &[100, 400, 2_000, MAX_SCAN]
        }
    }

    /// Returns true if the list is so short that a scan can reach its end.
    pub(super) fn is_bounded(&self) -> bool {
        self.max_rows <= MAX_BOUNDED_SCAN
    }

    /// Returns the number of rows that the database may check for a page, plus the number of index entries of one sort.
    pub(super) fn max_work(&self) -> u64 {
        let checked = if self.filters.is_empty() { 0 } else { cmp::min(self.max_rows, MAX_SCAN as u64) };
        checked + self.sorted_entries
    }
}

/// The maximum number of rows that a scan checks. Checking that many rows takes 15 to 40 ms on both databases.
pub(super) const MAX_SCAN: usize = 10_000;

/// The maximum number of rows of a list that a scan checks to its end. It is lower than [`MAX_SCAN`], because rows may
/// have been added after the rows were counted.
pub const MAX_BOUNDED_SCAN: u64 = MAX_SCAN as u64 - 1_000;

/// The statements of one call of [`pages`](super::pages()) are long reads if all their scans together may check and
/// sort more rows than this.
pub(super) const MAX_SHORT_SCAN: u64 = 2_000;

/// The SQL alias of the checked row in the filters of a [`Scan`].
pub const SCAN: &str = "scan";

/// The facts about a [`Scan`] from which its work is computed after its statement has run.
#[derive(Clone, Copy)]
pub(super) struct ScanWork {
    /// The row numbers of the milestones.
    pub(super) milestones: &'static [usize],
    max_rows: u64,
    filter_count: u64,
}

impl ScanWork {
    pub(super) fn new(scan: &Scan) -> Self {
        Self { milestones: scan.milestones(), max_rows: scan.max_rows, filter_count: scan.filters.len() as u64 }
    }

    /// Counts the checked rows, and the index entries that were read to find the milestones. `found` is the number of
    /// rows that the scan has found, and `is_full` is true if they are more than the size of the page. `milestones` has
    /// the position of each milestone, or `None` if the list has fewer rows. `is_passed` returns true if the scan has
    /// passed the position.
    pub(super) fn count(
        self,
        found: u64,
        is_full: bool,
        milestones: &[Option<Position>],
        is_passed: impl Fn(&Position) -> bool,
    ) {
        let (mut min_rows, mut max_rows) = (found + 1, cmp::min(self.max_rows, MAX_SCAN as u64));
        // The database reads all index entries before a milestone, even if the page is full earlier.
        let (mut entries, mut is_reached) = (0, true);
        for (number, milestone) in self.milestones.iter().zip(milestones) {
            let number = *number as u64;
            entries += if is_reached { number } else { 0 };
            is_reached = milestone.is_some();
            if milestone.as_ref().is_some_and(&is_passed) {
                min_rows = number;
            } else {
                max_rows = cmp::min(max_rows, number);
            }
        }
        // The scan ended between the rows `min_rows` and `max_rows`. `min_rows` is the last milestone that the scan has
        // passed, or else the number of found rows plus 1. `max_rows` is the first milestone that the scan has not
        // passed, or else the maximum number of rows of the scan. The geometric mean of `min_rows` and `max_rows`
        // estimates the number of checked rows. After the first milestone, the error is at most a factor of 2.3. If the
        // page is not full and there is at most one milestone, `max_rows` rows count as checked, although a page after
        // a cursor checks fewer.
        let checked = if milestones.len() <= 1 && !is_full { max_rows } else { (min_rows * max_rows).isqrt() };
        count_work(Work::Check, checked * self.filter_count);
        count_work(Work::Entry, entries);
    }
}

/// The work to sort an index entry, as a multiple of the work to count an entry.
const ENTRIES_PER_SORTED_ENTRY: u64 = 4;

/// Counts the work of a statement that sorts the entries of a scan this number of times.
pub(super) fn count_sort_work(scan: &Scan, times: usize) {
    count_work(Work::Entry, scan.sorted_entries * ENTRIES_PER_SORTED_ENTRY * times as u64);
}
