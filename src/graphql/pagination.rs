//! The arguments of a connection.

use std::sync::Arc;

use async_graphql::SimpleObject;

use super::cursor::{Cursor, Cursors};
use crate::database::pages::{Direction, Page, PageRequest, Position, Positioned};
use crate::error::{Error, ErrorCode, InputField, Violation};

const LEAST: i32 = 1;
const MOST: i32 = 100;
const DEFAULT: usize = 20;

/// The four arguments of every connection.
pub struct PageArguments {
    pub first: Option<i32>,
    pub after: Option<String>,
    pub last: Option<i32>,
    pub before: Option<String>,
}

impl PageArguments {
    pub fn parse(&self, cursors: &Cursors) -> Result<PageRequest, Error> {
        self.read(|cursor| cursors.decode(cursor))
    }

    /// Of a list whose arguments are these, whichever list it is; `None`: they are for one list alone.
    pub fn of_any_list(&self) -> Option<PageRequest> {
        self.read(|_| None).ok()
    }

    fn read(&self, decode: impl Fn(&str) -> Option<Position>) -> Result<PageRequest, Error> {
        let mut faults = Vec::new();
        let mut fault = |field, note| faults.push(Violation::of(ErrorCode::InvalidArgument, field).with_note(note));
        for (field, size) in [(InputField::First, self.first), (InputField::Last, self.last)] {
            if size.is_some_and(|size| !(LEAST..=MOST).contains(&size)) {
                fault(field, "A page has 1 to 100 entries.");
            }
        }
        if self.first.is_some() && self.last.is_some() {
            fault(InputField::Last, "Ask for the first or the last entries, not for both.");
        }
        let mut position = |field, cursor: &Option<String>| {
            let cursor = cursor.as_ref()?;
            let position = decode(cursor);
            if position.is_none() {
                fault(field, "Use a cursor of this very list: of the same operator, filter and order, and unchanged.");
            }
            position
        };
        let after = position(InputField::After, &self.after);
        let before = position(InputField::Before, &self.before);
        if !faults.is_empty() {
            return Err(Error::Rejected(faults));
        }
        let (direction, size) = match (self.first, self.last) {
            (None, Some(last)) => (Direction::Backward, Some(last)),
            (first, _) => (Direction::Forward, first),
        };
        let size = size.map_or(DEFAULT, |size| size.unsigned_abs() as usize);
        Ok(PageRequest { direction, size, after, before })
    }
}

/// How to get to the pages before and after a page.
#[derive(SimpleObject)]
pub struct PageInfo {
    /// Whether there are entries before this page, down to `after` if that is given. Paging forwards, it says that `after` was given.
    has_previous_page: bool,
    /// Whether there are entries after this page, up to `before` if that is given. Paging backwards, it says that `before` was given.
    has_next_page: bool,
    /// The cursor of the first entry, for `before`. Null if the page is empty.
    start_cursor: Option<Cursor>,
    /// The cursor of the last entry, for `after`. Null if the page is empty.
    end_cursor: Option<Cursor>,
}

impl PageInfo {
    pub fn of<T: Positioned>(page: &Page<T>, cursors: &Arc<Cursors>) -> Self {
        Self::by(page, cursors, T::position)
    }

    /// The same of rows whose place depends on the order of the list.
    pub fn by<T>(page: &Page<T>, cursors: &Arc<Cursors>, position: impl Fn(&T) -> Position) -> Self {
        Self {
            has_previous_page: page.has_previous,
            has_next_page: page.has_next,
            start_cursor: page.rows.first().map(|row| cursors.at(position(row))),
            end_cursor: page.rows.last().map(|row| cursors.at(position(row))),
        }
    }
}

/// A count, as far as the schema's integers reach.
pub fn total(count: Result<u64, Error>) -> Option<Result<i32, Error>> {
    count.map(|count| i32::try_from(count).ok()).transpose()
}

/// How many fields a list comes to whose page is full.
pub fn complexity(first: Option<i32>, last: Option<i32>, of_each: usize) -> usize {
    let size = first.or(last).map_or(DEFAULT, |size| size.clamp(LEAST, MOST).unsigned_abs() as usize);
    size * of_each + 1
}
