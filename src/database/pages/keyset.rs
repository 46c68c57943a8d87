//! Positions in a list, and pages of rows between two positions.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Order;
use uuid::Uuid;

/// A row's position in a list. Rows are ordered by sort key, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub sort_key: SortKey,
    pub id: Uuid,
}

/// The part of a position before the id. `First` must be the first variant, because the order of the sort keys is
/// derived.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SortKey {
    /// The sort key of the rows of [`Section::First`]. Rows with this key are in the order of their ids.
    First,
    /// No sort key: the list is ordered by id only.
    OnlyId,
    Time(DateTime<Utc>),
    Number(i64),
    /// A string that is unique in the list.
    Text(String),
}

/// Hides the key, because it may be an external customer id.
impl fmt::Debug for SortKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SortKey(***)")
    }
}

/// The sections of a list of customers. Each section is in the order of the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The rows that come first in some lists with a search, for example the customer whose email was searched.
    First,
    /// All other rows of the list.
    Others,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The first rows between the two positions of the request.
    Forward,
    /// The last rows between the two positions of the request.
    Backward,
}

/// The order of the rows of a list, by their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SortOrder {
    #[default]
    Ascending,
    Descending,
}

/// A page to read: up to `size` rows between two positions, both exclusive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PageRequest {
    pub direction: Direction,
    pub size: usize,
    pub after: Option<Position>,
    pub before: Option<Position>,
}

/// The rows of a page, in the list's order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub direction: Direction,
    pub rows: Vec<T>,
    pub has_previous: bool,
    pub has_next: bool,
    /// The position at which the next page in the direction of the request starts. Set if a scan ended here before the
    /// page was full, or if the rows of a [merged](PageRequest::merge) page are known only up to here. If it is not
    /// set, the next page starts at the last row of this page, or at the first row if the direction is backward.
    pub scanned_to: Option<Position>,
}

/// The positions at the two ends of a page. `None` if the page has no rows, unless a scan ended there.
pub struct PageEnds {
    /// The previous page ends before this position.
    pub start: Option<Position>,
    /// The next page starts after this position.
    pub end: Option<Position>,
}

/// A row that has a position in the list that it is read from.
pub trait HasPosition {
    fn position(&self) -> Position;
}

impl<T: HasPosition> HasPosition for Arc<T> {
    fn position(&self) -> Position {
        (**self).position()
    }
}

impl SortOrder {
    fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

impl From<SortOrder> for Order {
    fn from(order: SortOrder) -> Self {
        match order {
            SortOrder::Ascending => Self::Asc,
            SortOrder::Descending => Self::Desc,
        }
    }
}

impl Position {
    /// A position in a list that is ordered by id.
    pub fn by_id(id: Uuid) -> Self {
        Self { sort_key: SortKey::OnlyId, id }
    }

    /// A position in a list that is ordered by a number.
    pub fn by_number(number: i64, id: Uuid) -> Self {
        Self { sort_key: SortKey::Number(number), id }
    }
}

impl<T> Page<T> {
    /// Returns true if the list has more rows in the direction of the request.
    pub fn has_more(&self) -> bool {
        match self.direction {
            Direction::Forward => self.has_next,
            Direction::Backward => self.has_previous,
        }
    }

    /// Applies a function to each row.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        let Self { direction, rows, has_previous, has_next, scanned_to } = self;
        Page { direction, rows: rows.into_iter().map(change).collect(), has_previous, has_next, scanned_to }
    }

    /// Sets that the list may have more rows in the direction of the request.
    pub fn set_has_more(&mut self) {
        match self.direction {
            Direction::Forward => self.has_next = true,
            Direction::Backward => self.has_previous = true,
        }
    }

    /// Returns the positions at the two ends of the page.
    pub fn ends(&self, position: impl Fn(&T) -> Position) -> PageEnds {
        let scanned_to = |direction| self.scanned_to.clone().filter(|_| self.direction == direction);
        PageEnds {
            start: scanned_to(Direction::Backward).or_else(|| self.rows.first().map(&position)),
            end: scanned_to(Direction::Forward).or_else(|| self.rows.last().map(&position)),
        }
    }
}

impl PageRequest {
    /// The first `size` rows of a list.
    pub fn first(size: usize) -> Self {
        Self { direction: Direction::Forward, size, after: None, before: None }
    }

    /// The last `size` rows of a list.
    pub fn last(size: usize) -> Self {
        Self { direction: Direction::Backward, size, after: None, before: None }
    }

    /// The order of the rows in the statement that reads the page. `order` is the order of the list: a backward page
    /// reads the list from its end.
    pub(super) fn order(&self, order: SortOrder) -> SortOrder {
        match self.direction {
            Direction::Forward => order,
            Direction::Backward => order.reversed(),
        }
    }

    /// Returns the page of a list whose only row is this one.
    pub fn of_one<T: HasPosition>(&self, row: T) -> Page<T> {
        let position = row.position();
        let is_within = self.after.as_ref().is_none_or(|after| position > *after)
            && self.before.as_ref().is_none_or(|before| position < *before);
        self.page(if is_within { vec![row] } else { Vec::new() })
    }

    /// The request for the page of a section of the list, which is ordered by id. Returns `None` if no row of the
    /// section is between the two positions of this request.
    pub fn request_of_section(&self, section: Section) -> Option<Self> {
        let is_first = |position: &&Position| position.sort_key == SortKey::First;
        let (after, before) = (self.after.as_ref(), self.before.as_ref());
        let (after, before) = match section {
            Section::First if after.is_some_and(|after| !is_first(&after)) => return None,
            Section::First => (after, before.filter(is_first)),
            Section::Others if before.as_ref().is_some_and(is_first) => return None,
            Section::Others => (after.filter(|after| !is_first(after)), before),
        };
        Some(Self { after: after.cloned(), before: before.cloned(), ..*self })
    }

    /// Makes the page of a list from the pages of its sections, which are in the order of the list.
    pub fn join_sections<T>(&self, mut sections: Vec<Page<T>>) -> Page<T> {
        if self.direction == Direction::Backward {
            sections.reverse();
        }
        let (mut rows, mut has_more, mut scanned_to) = (Vec::new(), false, None);
        for section in sections {
            // The rows that the previous section has more are between its page and this section.
            if has_more {
                break;
            }
            has_more = section.has_more();
            scanned_to = section.scanned_to;
            match self.direction {
                Direction::Forward => rows.extend(section.rows),
                Direction::Backward => drop(rows.splice(..0, section.rows)),
            }
        }
        self.page_up_to(rows, has_more, scanned_to)
    }

    /// Makes the page of a list from the pages of its parts. A row that is in several parts is on the page once. A list
    /// with several parts must be in ascending order.
    pub(super) fn merge<T>(&self, parts: Vec<Page<T>>, position: impl Fn(&T) -> Position) -> Page<T> {
        let merged = parts.into_iter().reduce(|page, part| self.merge_two(page, part, &position));
        merged.unwrap_or_else(|| self.page(Vec::new()))
    }

    fn merge_two<T>(&self, first: Page<T>, second: Page<T>, position: impl Fn(&T) -> Position) -> Page<T> {
        let is_backward = self.direction == Direction::Backward;
        let is_beyond = |one: &Position, other: &Position| if is_backward { one < other } else { one > other };
        // If a part has more rows, its rows are known only up to the end of its page. So the rows of the list are known
        // only up to the first of these ends.
        let end_of = |page: &Page<T>| {
            let PageEnds { start, end } = page.ends(&position);
            if is_backward { start } else { end }
        };
        let parts = [first, second];
        let ends = parts.iter().filter(|page| page.has_more()).filter_map(end_of);
        let end = ends.reduce(|end, other| if is_beyond(&end, &other) { other } else { end });
        let has_more = parts.iter().any(Page::has_more);
        let mut rows: Vec<_> = parts.into_iter().flat_map(|page| page.rows).collect();
        rows.retain(|row| end.as_ref().is_none_or(|end| !is_beyond(&position(row), end)));
        rows.sort_by_cached_key(&position);
        rows.dedup_by_key(|row| position(row));
        self.page_up_to(rows, has_more, end)
    }

    /// Makes a page of rows that are already in the list's order. `has_more` says if the list has more rows after
    /// these. `end` is the position up to which these are all rows of the list, if it is not the position of the last
    /// row.
    fn page_up_to<T>(&self, rows: Vec<T>, has_more: bool, end: Option<Position>) -> Page<T> {
        let is_cut = rows.len() > self.size;
        let mut page = self.page(rows);
        if has_more {
            page.set_has_more();
        }
        page.scanned_to = end.filter(|_| !is_cut);
        page
    }

    /// Makes a page of rows that are already in the list's order. If there are more than `size` rows, the list has more
    /// rows.
    pub(super) fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let has_more = rows.len() > self.size;
        let direction = self.direction;
        match direction {
            Direction::Forward => {
                rows.truncate(self.size);
                Page { direction, rows, has_previous: self.after.is_some(), has_next: has_more, scanned_to: None }
            }
            Direction::Backward => {
                rows.drain(..rows.len().saturating_sub(self.size));
                Page { direction, rows, has_previous: has_more, has_next: self.before.is_some(), scanned_to: None }
            }
        }
    }

    /// Makes a page of the rows that a scan has found. `end` is the position of the last milestone of the scan. It is
    /// `None` if the list ends before that row, or if the scan has no milestones. If `end` is given and the scan has
    /// not found more than `size` rows, the scan ended at `end`, and the list may have more rows after `end`.
    pub(super) fn page_of_scan<T>(&self, rows: Vec<T>, end: Option<Position>) -> Page<T> {
        self.page_up_to(rows, end.is_some(), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_page_ends_where_a_part_is_no_longer_known() {
        use Direction::{Backward, Forward};
        let position = |number: &u128| Position::by_id(Uuid::from_u128(*number));
        // The rows of a part, whether it has more rows in the direction, and where its scan ended.
        type Part<'r> = (&'r [u128], bool, Option<u128>);
        let cases: [(Direction, usize, Part<'_>, Part<'_>, Part<'_>); 13] = [
            (Forward, 5, (&[1, 4], false, None), (&[2], false, None), (&[1, 2, 4], false, None)),
            (Forward, 3, (&[1, 4], false, None), (&[2], false, None), (&[1, 2, 4], false, None)),
            (Forward, 2, (&[1, 4], false, None), (&[2], false, None), (&[1, 2], true, None)),
            (Forward, 2, (&[1, 3], true, None), (&[2, 4], false, None), (&[1, 2], true, None)),
            (Forward, 3, (&[1, 2], false, None), (&[1, 2, 3], false, None), (&[1, 2, 3], false, None)),
            (Forward, 2, (&[1, 2], true, None), (&[1, 2], true, None), (&[1, 2], true, Some(2))),
            (Forward, 2, (&[1, 3], true, None), (&[1, 2], true, None), (&[1, 2], true, Some(2))),
            (Forward, 2, (&[1, 2], true, None), (&[5], false, None), (&[1, 2], true, Some(2))),
            (Forward, 5, (&[1], true, Some(3)), (&[2, 9], false, None), (&[1, 2], true, Some(3))),
            (Forward, 5, (&[1], true, Some(5)), (&[2], true, Some(3)), (&[1, 2], true, Some(3))),
            (Forward, 2, (&[], true, Some(7)), (&[], false, None), (&[], true, Some(7))),
            (Backward, 2, (&[8, 9], true, None), (&[7, 10], false, None), (&[9, 10], true, None)),
            (Backward, 5, (&[9], true, Some(7)), (&[6, 8], false, None), (&[8, 9], true, Some(7))),
        ];
        for (number, (direction, size, first, second, merged)) in cases.into_iter().enumerate() {
            let request = PageRequest { direction, size, after: None, before: None };
            let page = |(rows, has_more, scanned_to): Part<'_>| Page {
                direction,
                rows: rows.to_vec(),
                has_previous: has_more && direction == Backward,
                has_next: has_more && direction == Forward,
                scanned_to: scanned_to.as_ref().map(position),
            };
            for parts in [[first, second], [second, first]] {
                let page_of_parts = request.merge(parts.map(page).to_vec(), position);
                let expected = page(merged);
                assert_eq!(
                    (page_of_parts.rows, page_of_parts.has_previous, page_of_parts.has_next, page_of_parts.scanned_to),
                    (expected.rows, expected.has_previous, expected.has_next, expected.scanned_to),
                    "case {number}"
                );
            }
        }
    }
}
