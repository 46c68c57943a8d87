//! Keyset pagination: pages of lists, read in few statements.
//!
//! A [`Position`] is the sort key of a row. A page therefore starts where the previous page ended, even if earlier rows
//! were inserted or deleted meanwhile. One `UNION ALL` reads several lists. Each part of the `UNION ALL`, an *arm*, has
//! its own limit:
//!
//! ```sql
//! SELECT 0 AS "arm", "arm_rows".*
//! FROM (SELECT … WHERE (connected_at, customer_id) > ($1, $2) ORDER BY … LIMIT 21) AS "arm_rows"
//! UNION ALL SELECT 1 AS "arm", "arm_rows".* FROM (…) AS "arm_rows"
//! ```
//!
//! Each of these arms reads one row more than the size of the page. The additional row shows that there are more rows.
//!
//! Some conditions have no index. A [`Walk`] reads a list with such conditions, and the results of most searches: it
//! checks the rows one by one in the order of the list, and stops after [`MAX_WALK`] rows. Further arms of the same
//! statement read certain rows of the walk, its *milestones*. The last milestone is the row at which the walk ends. The
//! example shows only this milestone. All arms are in one statement so that they see the same rows:
//!
//! ```sql
//! SELECT 0 AS "arm", "customer_operator".*, "customer".*
//! FROM (SELECT * FROM (SELECT connected_at, customer_id, operator_id … WHERE (connected_at, customer_id) > ($1, $2)
//!                      ORDER BY … LIMIT 10000) AS "walk"
//!       WHERE (SELECT 1 FROM … WHERE … customer_id = "walk"."customer_id" …) IS NOT NULL ORDER BY 1, 2 LIMIT 21) AS "arm_rows"
//! INNER JOIN "customer_operator" ON … INNER JOIN "customer" ON …
//! UNION ALL SELECT 1 AS "arm", "customer_operator".*, "customer".*
//! FROM (SELECT connected_at, customer_id, operator_id … LIMIT 1 OFFSET 9999) AS "arm_rows" INNER JOIN … INNER JOIN …
//! ```

use std::cmp;
use std::collections::HashMap;
use std::hash::Hash;
use std::iter::{self, Sum};

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{
    Alias, Asterisk, Expr, ExprTrait, Order, OverStatement, Query, SelectStatement, SimpleExpr, WindowStatement,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult, IdenStatic, Iterable,
    QueryResult, Statement, Value,
};
use uuid::Uuid;

use super::{ReadKind, Reader, Sql, Work, record};

/// A row's position in a list: the key, then the id of the row. Both together are the sort key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub key: Key,
    pub id: Uuid,
}

/// The part of the sort key before the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The key of a row that comes first in a list regardless of its id, for example the customer whose email was
    /// searched. The other rows follow in the order of their ids.
    First,
    /// No key: the list is ordered by id only.
    None,
    Time(DateTime<Utc>),
    Number(i64),
    /// A text that is unique in the list.
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The first rows of the list.
    Forward,
    /// The last rows of the list.
    Backward,
}

/// A page to read: up to `size` rows between two positions, both exclusive.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PageRequest {
    pub direction: Direction,
    pub size: usize,
    pub after: Option<Position>,
    pub before: Option<Position>,
}

/// A list to read pages of.
pub struct List {
    pub rows: SelectStatement,
    /// The columns of a row's [`Position`]: the key and the id, or only one of them if it is unique in the list.
    pub columns: Vec<SimpleExpr>,
    pub descending: bool,
    /// Tables to join to the rows of the page after the limit has been applied.
    pub joined: Vec<JoinedTable>,
    /// Conditions that are checked row by row. With a walk, `rows` selects the columns of the position first, and
    /// perhaps other columns after them. A row of the page then has only the columns of the joined tables.
    pub walk: Option<Walk>,
    /// True if this list and the list before it in [`pages`] are parts of one list (see [`PageRequest::merge`]). One
    /// statement reads both, so that they see the same rows.
    pub continues: bool,
}

/// A walk checks the rows of a list one by one, in the order of the list.
pub struct Walk {
    /// A row matches if each of these subqueries finds something. The subqueries refer to the row as [`WALK`]. The
    /// filters are not joins, because PostgreSQL would reorder joins and start from all customers that match a
    /// condition.
    pub filters: Vec<SelectStatement>,
    /// The number of rows of the list, counted by an earlier statement, or an upper bound. `u64::MAX` if the number is
    /// unknown.
    pub max_rows: u64,
    /// The number of index entries that the database sorts before it checks the first row. 0 if the rows come from an
    /// index in the order of the list.
    pub sorted_entries: u64,
    /// A filter that leaves out the rows which the list before this one also has. Only counts need it: pages leave out
    /// repeated rows (see [`PageRequest::merge`]).
    pub not_in_previous: Option<SelectStatement>,
}

impl Default for Walk {
    /// A walk through a list of unknown length, without filters.
    fn default() -> Self {
        Self { filters: Vec::new(), max_rows: u64::MAX, sorted_entries: 0, not_in_previous: None }
    }
}

impl Walk {
    /// Returns the row numbers of the milestones, for example 100 for the 100th row of the walk. The statement of a page
    /// also reads these rows, to measure how far the walk has come. The last milestone is row [`MAX_WALK`], at which the
    /// walk ends.
    fn milestones(&self) -> &'static [usize] {
        // Without filters, every row matches, so the page is full long before the end of the walk.
        if self.filters.is_empty() || self.is_bounded() {
            &[]
        } else if self.sorted_entries > 0 {
            // The database sorts the entries again for each milestone.
            &[MAX_WALK]
        } else {
            &[100, 400, 2_000, MAX_WALK]
        }
    }

    /// Returns true if the list is so short that the walk checks all its rows.
    fn is_bounded(&self) -> bool {
        self.max_rows <= MAX_BOUNDED_WALK
    }

    /// Returns the number of rows that the database may check, plus the number of index entries that it sorts.
    fn max_work(&self) -> u64 {
        let checked = if self.filters.is_empty() { 0 } else { cmp::min(self.max_rows, MAX_WALK as u64) };
        checked + self.sorted_entries
    }
}

/// The maximum number of rows that a walk checks. Checking so many rows takes 15 to 40 ms on both databases.
pub const MAX_WALK: usize = 10_000;

/// The maximum number of rows of a list that a walk checks to its end. It is lower than [`MAX_WALK`], because rows may
/// have been added after the rows were counted.
pub const MAX_BOUNDED_WALK: u64 = MAX_WALK as u64 - 1_000;

/// A statement of [`pages`] is a long read if its walks may check or sort more rows than this.
const MAX_USUAL_WALK: u64 = 2_000;

/// A statement of [`counts`] is a long read if it may count more index entries than this. Counting so many entries
/// takes about 2 ms.
const MAX_USUAL_COUNT: usize = 20_000;

/// The maximum number of index entries that the count of one list includes. PostgreSQL counts a million in 0.1 s.
const MAX_COUNT: usize = 1_000_000;

/// The SQL alias of the checked row in the filters of a [`Walk`].
pub const WALK: &str = "walk";

/// The SQL alias of the rows of a page, for [`JoinedTable::new`].
pub const ARM_ROWS: &str = "arm_rows";

/// A table to join, with all its columns.
pub struct JoinedTable {
    /// The columns of the table, each after a comma.
    columns: String,
    join: String,
}

/// A row that has a position in the list that it is read from.
pub trait Positioned {
    fn position(&self) -> Position;
}

/// The rows of a page, in the list's order.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub direction: Direction,
    pub rows: Vec<T>,
    pub has_previous: bool,
    pub has_next: bool,
    /// The position at which the next page in the direction of the request starts, if this is not the last row of this
    /// page: a walk ended here before it had found one row more than the size of the page, or the rows of a
    /// [merged](PageRequest::merge) page are known only up to here.
    pub walked_to: Option<Position>,
}

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

impl Position {
    /// A position in a list that is ordered by id.
    pub fn by_id(id: Uuid) -> Self {
        Self { key: Key::None, id }
    }

    /// A position in a list that is ordered by a number.
    pub fn by_number(number: i64, id: Uuid) -> Self {
        Self { key: Key::Number(number), id }
    }

    /// Returns the number and the id. The number is 0 if the list is not ordered by a number.
    pub fn number_and_id(&self) -> (i64, Uuid) {
        let number = if let Key::Number(number) = self.key { number } else { 0 };
        (number, self.id)
    }
}

impl<T> Page<T> {
    /// Returns two positions: the previous page ends before the first position, and the next page starts after the
    /// second position.
    pub fn ends(&self, position: impl Fn(&T) -> Position) -> [Option<Position>; 2] {
        let walked_to = |direction| self.walked_to.clone().filter(|_| self.direction == direction);
        let start = walked_to(Direction::Backward).or_else(|| self.rows.first().map(&position));
        [start, walked_to(Direction::Forward).or_else(|| self.rows.last().map(&position))]
    }
}

impl List {
    /// A list in ascending order of the columns.
    pub fn new(rows: SelectStatement, columns: Vec<SimpleExpr>) -> Self {
        Self { rows, columns, descending: false, joined: Vec::new(), walk: None, continues: false }
    }
}

impl JoinedTable {
    /// Joins the table of `E`. Each item of `on` is a column of `E`, another table, and the column of that table which
    /// must have the same value.
    pub fn new<E: EntityTrait>(on: &[(E::Column, &str, &str)]) -> Self {
        let table = E::default().table_name();
        let columns = E::Column::iter().map(|column| format!(", \"{table}\".\"{}\"", column.as_str())).collect();
        let is_equal = |(column, other_table, other): &(E::Column, &str, &str)| {
            format!("\"{table}\".\"{}\" = \"{other_table}\".\"{other}\"", column.as_str())
        };
        let on: Vec<_> = on.iter().map(is_equal).collect();
        Self { columns, join: format!(" INNER JOIN \"{table}\" ON {}", on.join(" AND ")) }
    }
}

impl PageRequest {
    /// Returns the arm that reads the page, then one arm for each milestone of a walk.
    fn arms(&self, list: List) -> Vec<Arm> {
        let List { rows: mut query, columns, descending, joined, walk, continues } = list;
        for (position, is_after) in [(&self.after, true), (&self.before, false)] {
            let Some(Position { key, id }) = position else { continue };
            // A cursor is valid for one list only, so its key fits the columns. A single column is compared without a
            // tuple.
            let (row, bound) = match key {
                // The list leaves out the row with this key (see `add_first`). All rows of the list come after that
                // row, so a page after it needs no condition, and a page before it is empty (1 < 1).
                Key::First if is_after => continue,
                Key::First => (Expr::val(1), Expr::val(1)),
                Key::None => (columns[0].clone(), Expr::val(*id)),
                Key::Time(time) => (Expr::tuple(columns.clone()), Expr::tuple([Expr::val(*time), Expr::val(*id)])),
                Key::Number(number) => {
                    (Expr::tuple(columns.clone()), Expr::tuple([Expr::val(*number), Expr::val(*id)]))
                }
                Key::Text(text) => (columns[0].clone(), Expr::val(text.as_str())),
            };
            query.and_where(if is_after != descending { row.gt(bound) } else { row.lt(bound) });
        }
        let order = self.order(descending);
        let direction = if order == Order::Desc { "DESC" } else { "ASC" };
        let walk_order: Vec<_> = (1..=columns.len()).map(|column| format!("{column} {direction}")).collect();
        for column in columns {
            query.order_by_expr(column, order.clone());
        }
        let (columns, join) =
            joined.iter().map(|joined| (joined.columns.as_str(), joined.join.as_str())).unzip::<_, _, String, String>();
        let select = if walk.is_some() { columns } else { ROWS.to_owned() + &columns };
        let arm = |filters, limit| Arm {
            select: select.clone(),
            query: query.clone(),
            filters,
            limit,
            join: join.clone(),
            continues,
        };
        let Some(walk) = walk else {
            return vec![arm(None, limit(self.size + 1))];
        };
        let milestones = walk.milestones();
        let page = arm(Some(walk.filters), format!(" ORDER BY {}{}", walk_order.join(", "), limit(self.size + 1)));
        let milestones = milestones
            .iter()
            .map(|number| Arm { continues: true, ..arm(None, format!(" LIMIT 1 OFFSET {}", number - 1)) });
        iter::once(page).chain(milestones).collect()
    }

    fn order(&self, descending: bool) -> Order {
        if (self.direction == Direction::Forward) == descending { Order::Desc } else { Order::Asc }
    }

    /// Returns the page of a list whose only row is this one.
    pub fn of_one<T: Positioned>(&self, row: T) -> Page<T> {
        let position = row.position();
        let is_within = self.after.as_ref().is_none_or(|after| position > *after)
            && self.before.as_ref().is_none_or(|before| position < *before);
        self.page(if is_within { vec![row] } else { Vec::new() })
    }

    /// Adds `row`, which comes before all other rows of the list, to a page of the other rows. Adds the row only if the
    /// page begins at the start of the list.
    pub fn add_first<T>(&self, page: &mut Page<T>, position: Position, row: T) {
        if self.after.is_some() || self.before.as_ref() == Some(&position) {
            return;
        }
        let is_full = page.rows.len() == self.size;
        if self.direction == Direction::Backward && (is_full || page.walked_to.is_some()) {
            page.has_previous = true;
            return;
        }
        if is_full {
            page.has_next = true;
            page.walked_to = None;
        }
        page.rows.insert(0, row);
        page.rows.truncate(self.size);
    }

    /// Makes the page of a list from the pages of its parts. A row of several parts is on the page once. A list with
    /// several parts must be in ascending order.
    pub fn merge<T>(&self, parts: Vec<Page<T>>, position: impl Fn(&T) -> Position) -> Page<T> {
        let merged = parts.into_iter().reduce(|page, part| self.merge_two(page, part, &position));
        merged.unwrap_or_else(|| self.page(Vec::new()))
    }

    fn merge_two<T>(&self, first: Page<T>, second: Page<T>, position: impl Fn(&T) -> Position) -> Page<T> {
        let is_backward = self.direction == Direction::Backward;
        let is_beyond = |one: &Position, other: &Position| if is_backward { one < other } else { one > other };
        let has_more = |page: &Page<T>| if is_backward { page.has_previous } else { page.has_next };
        // If a part has more rows, its rows are known only up to the end of its page. So the rows of the list are known
        // only up to the first of these ends.
        let end_of = |page: &Page<T>| {
            let [start, end] = page.ends(&position);
            if is_backward { start } else { end }
        };
        let parts = [first, second];
        let ends = parts.iter().filter(|page| has_more(page)).filter_map(end_of);
        let end = ends.reduce(|end, other| if is_beyond(&end, &other) { other } else { end });
        let has_more = parts.iter().any(has_more);
        let mut rows: Vec<_> = parts.into_iter().flat_map(|page| page.rows).collect();
        rows.retain(|row| end.as_ref().is_none_or(|end| !is_beyond(&position(row), end)));
        rows.sort_by_cached_key(&position);
        rows.dedup_by_key(|row| position(row));
        let is_cut = rows.len() > self.size;
        let mut page = self.page(rows);
        if is_backward {
            page.has_previous |= has_more;
        } else {
            page.has_next |= has_more;
        }
        page.walked_to = end.filter(|_| !is_cut);
        page
    }

    /// Makes a page of rows that are already in the list's order. If there is one row more than `size`, the list has
    /// more rows.
    fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let has_more = rows.len() > self.size;
        let direction = self.direction;
        match direction {
            Direction::Forward => {
                rows.truncate(self.size);
                Page { direction, rows, has_previous: self.after.is_some(), has_next: has_more, walked_to: None }
            }
            Direction::Backward => {
                rows.drain(..rows.len().saturating_sub(self.size));
                Page { direction, rows, has_previous: has_more, has_next: self.before.is_some(), walked_to: None }
            }
        }
    }

    /// Makes a page of the rows that a walk has found. `end` is the position of row [`MAX_WALK`] of the walk, or `None`
    /// if the statement did not find such a row. If `end` is given and the walk has not found one row more than the
    /// size of the page, the walk ended at `end`, and the list may have more rows after `end`.
    fn page_of_walk<T>(&self, rows: Vec<T>, end: Option<Position>) -> Page<T> {
        let is_full = rows.len() > self.size;
        let mut page = self.page(rows);
        if end.is_some() && !is_full {
            match self.direction {
                Direction::Forward => page.has_next = true,
                Direction::Backward => page.has_previous = true,
            }
            page.walked_to = end;
        }
        page
    }
}

/// The index of the first column of a list's rows in the results of [`pages`].
pub const ROW: usize = 1;

/// Loads a page of each list, in one statement for up to 400 arms.
///
/// `position` receives the index of a list, and a row of that list.
pub async fn pages<T>(
    reader: &Reader,
    lists: Vec<(List, PageRequest)>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let (mut requests, mut arms) = (Vec::new(), Vec::new());
    let work: u64 = lists.iter().filter_map(|(list, _)| list.walk.as_ref()).map(Walk::max_work).sum();
    let kind = if work > MAX_USUAL_WALK { ReadKind::Long } else { ReadKind::Usual };
    for (list, request) in lists {
        let walk = list.walk.as_ref().map(|walk| {
            let milestones = walk.milestones();
            record_sort(walk, 1 + milestones.len());
            (walk.max_rows, milestones, walk.filters.len() as u64)
        });
        requests.push((list.descending, walk, request.clone()));
        arms.extend(request.arms(list));
    }
    let mut rows_by_arm = rows_by_arm(&reader.for_reads(kind), &arms).await?.into_iter();
    let mut pages = Vec::new();
    for (index, (descending, walk, request)) in requests.iter().enumerate() {
        let mut next_arm = || rows_by_arm.next().unwrap_or_default().iter().map(&read).collect::<Result<Vec<_>, _>>();
        let mut rows = next_arm()?;
        // UNION ALL does not keep the order of its arms' rows.
        rows.sort_by_cached_key(|row| position(index, row));
        if *descending {
            rows.reverse();
        }
        let Some((max_rows, milestones, filters)) = *walk else {
            pages.push(request.page(rows));
            continue;
        };
        let is_full = rows.len() > request.size;
        let last = if request.direction == Direction::Forward { rows.last() } else { rows.first() };
        let last = last.filter(|_| is_full).map(|row| position(index, row));
        let is_ascending = (request.direction == Direction::Forward) != *descending;
        let is_before = |one: &Position, other: &Position| if is_ascending { one < other } else { one > other };
        let (mut least, mut most, mut end) = (rows.len() as u64 + 1, cmp::min(max_rows, MAX_WALK as u64), None);
        // The database reads all index entries before a milestone, even if the page is full earlier.
        let (mut entries, mut is_reached) = (0, true);
        for number in milestones {
            entries += if is_reached { *number as u64 } else { 0 };
            // A milestone may be the row with `Key::First`. The page shows this row first, but the walk passes it in
            // the order of the ids. As a milestone, the row therefore has the position of its id.
            end = next_arm()?.first().map(|row| position(index, row)).map(|position| match position.key {
                Key::First => Position::by_id(position.id),
                Key::None | Key::Time(_) | Key::Number(_) | Key::Text(_) => position,
            });
            is_reached = end.is_some();
            let is_passed = |milestone: &Position| last.as_ref().is_none_or(|last| is_before(milestone, last));
            if end.as_ref().is_some_and(is_passed) {
                least = *number as u64;
            } else {
                most = cmp::min(most, *number as u64);
            }
        }
        // The walk ended between the rows `least` and `most`. `least` is the last milestone that the walk has passed,
        // or else the number of found rows plus 1. `most` is the first milestone that the walk has not passed, or else
        // the maximum number of rows of the walk. The geometric mean of `least` and `most` estimates the number of
        // checked rows. After the first milestone, the error is at most a factor of 2.3. If the page is not full and there
        // is at most one milestone, the walk is assumed to have started at the start of the list.
        let checked = if milestones.len() <= 1 && !is_full { most } else { (least * most).isqrt() };
        record(Work::Check, checked * filters);
        record(Work::Entry, entries);
        pages.push(request.page_of_walk(rows, end));
    }
    Ok(pages)
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

/// Loads a page of the list of each owner. `list` selects the rows that match a condition on the owner, and `read`
/// returns a row's owner and the row.
///
/// - **If all owners request the same first or last page**, which is usual, one statement reads the rows of all owners
///   without order, and this function forms the pages. If that statement reaches its limit, a second statement numbers
///   the rows of each owner and reads only the rows of the pages.
/// - **Otherwise** all pages are read by a `UNION ALL`. The text of the `UNION ALL` depends on the number of owners, so
///   PostgreSQL plans it again for each number. The text of the single statement for all owners hardly varies.
pub async fn pages_by_owner<K: Copy + Eq + Hash + Into<Value>, T: Positioned>(
    reader: &Reader,
    requests: &[(K, PageRequest)],
    owner: impl ColumnTrait,
    list: impl Fn(Condition) -> List,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<Vec<Page<T>>, DbErr> {
    /// The smallest limit of the statement for all owners. This value is large, so that most requests use it as their
    /// limit. The SQL text then seldom varies, and most requests need no second statement.
    const MIN_ROWS: usize = 1000;
    let [(first, request), ..] = requests else { return Ok(Vec::new()) };
    let has_position = request.after.is_some() || request.before.is_some();
    if has_position || requests.iter().any(|(_, other)| other != request) {
        let lists = requests.iter().map(|(key, request)| (list(owner.eq(*key).into()), request.clone()));
        return pages(reader, lists.collect(), |row| read(row).map(|(_, row)| row), |_, row| row.position()).await;
    }
    let mut owners: Vec<_> = requests.iter().map(|(owner, _)| *owner).collect();
    // Repeats an owner until the number of owners is a power of two, so that there are few different statements to
    // prepare.
    owners.resize(owners.len().next_power_of_two(), *first);
    let max_rows = MIN_ROWS.max(owners.len() * (request.size + 1));
    let list = list(owner.is_in(owners).into());
    let arm = |query, limit| Arm {
        select: ROWS.to_owned(),
        query,
        filters: None,
        limit,
        join: String::new(),
        continues: false,
    };
    let mut rows = rows_by_arm(reader, &[arm(list.rows.clone(), limit(max_rows))]).await?.remove(0);
    // Numbering the rows costs as much as reading them, and only long lists need the numbers.
    if rows.len() == max_rows {
        let query = numbered(list, owner.into_expr(), request);
        rows = rows_by_arm(reader, &[arm(query, String::new())]).await?.remove(0);
    }
    let mut rows_by_owner: HashMap<K, Vec<T>> = HashMap::new();
    for row in &rows {
        let (owner, row) = read(row)?;
        rows_by_owner.entry(owner).or_default().push(row);
    }
    let page = |(owner, _): &(K, PageRequest)| {
        let mut rows = rows_by_owner.remove(owner).unwrap_or_default();
        rows.sort_by_cached_key(Positioned::position);
        request.page(rows)
    };
    Ok(requests.iter().map(page).collect())
}

/// Selects each owner's page of rows.
fn numbered(list: List, owner: SimpleExpr, request: &PageRequest) -> SelectStatement {
    let List { rows: mut all, columns, descending, .. } = list;
    let mut window = WindowStatement::new();
    window.add_partition_by(owner);
    for column in columns {
        window.order_by_expr(column, request.order(descending));
    }
    all.expr_window_as(Expr::cust("ROW_NUMBER()"), window, "number");
    let is_of_page = Expr::col(Alias::new("number")).lte(Expr::cust((request.size + 1).to_string()));
    Query::select().column(Asterisk).from_subquery(all, "numbered").and_where(is_of_page).take()
}

/// Counts the rows of each query. Each count stops at the limit that is given with the query.
pub async fn counts(reader: &Reader, queries: Vec<(SelectStatement, usize)>) -> Result<Vec<u64>, DbErr> {
    let bounds = queries.iter().map(|(_, bound)| bound).sum::<usize>();
    let kind = if bounds > MAX_USUAL_COUNT { ReadKind::Long } else { ReadKind::Usual };
    let arms: Vec<_> = queries.into_iter().map(|(query, bound)| Arm::count(query, None, limit(bound))).collect();
    let counts = counts_of_arms(&reader.for_reads(kind), &arms).await?;
    record(Work::Entry, counts.iter().sum());
    Ok(counts)
}

/// Counts the rows of each list: up to [`MAX_COUNT`], or among the first [`MAX_WALK`] rows of a walk.
pub async fn list_counts(reader: &Reader, lists: Vec<List>) -> Result<Vec<Count>, DbErr> {
    let (mut arms, mut walks) = (Vec::new(), Vec::new());
    for List { mut rows, columns, walk, continues, .. } in lists {
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
                rows.order_by_expr(column, Order::Asc);
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

/// The work to sort an index entry, as a multiple of the work to count an entry.
const ENTRIES_PER_SORTED_ENTRY: u64 = 4;

/// Records the work of a statement that sorts the entries of a walk this number of times.
fn record_sort(walk: &Walk, times: usize) {
    record(Work::Entry, walk.sorted_entries * ENTRIES_PER_SORTED_ENTRY * times as u64);
}

async fn counts_of_arms(connection: &impl ConnectionTrait, arms: &[Arm]) -> Result<Vec<u64>, DbErr> {
    let rows = rows_by_arm(connection, arms).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}

/// A part of a `UNION ALL`.
#[derive(Clone)]
struct Arm {
    /// The columns, each after a comma.
    select: String,
    query: SelectStatement,
    /// The filters of a [`Walk`] over the first [`MAX_WALK`] rows of the query.
    filters: Option<Vec<SelectStatement>>,
    /// The text after the query, such as the limit. The limit is a literal, because PostgreSQL plans for many rows if
    /// the limit is a parameter.
    limit: String,
    join: String,
    /// True if this arm and the arm before it must see the same rows, so they must be in one statement.
    continues: bool,
}

impl Arm {
    fn count(query: SelectStatement, filters: Option<Vec<SelectStatement>>, limit: String) -> Self {
        Self { select: ", COUNT(*)".to_owned(), query, filters, limit, join: String::new(), continues: false }
    }
}

/// Selects all columns of an arm.
const ROWS: &str = ", \"arm_rows\".*";

fn limit(rows: usize) -> String {
    format!(" LIMIT {rows}")
}

/// SQLite accepts at most 500 arms in a statement.
const MAX_ARMS: usize = 400;

/// Returns the rows of each arm. Runs one statement for up to [`MAX_ARMS`] arms, and several statements for more arms.
async fn rows_by_arm(connection: &impl ConnectionTrait, arms: &[Arm]) -> Result<Vec<Vec<QueryResult>>, DbErr> {
    let mut rows_by_arm = Vec::new();
    for arms in statements(arms) {
        let first = rows_by_arm.len();
        rows_by_arm.resize_with(first + arms.len(), Vec::new);
        record(Work::Query, 1);
        let rows = connection.query_all_raw(union(connection.get_database_backend(), arms)).await?;
        record(Work::Row, rows.len() as u64);
        for row in rows {
            let number: i32 = row.try_get_by_index(0)?;
            rows_by_arm[first + number.unsigned_abs() as usize].push(row);
        }
    }
    Ok(rows_by_arm)
}

/// Divides arms into statements of at most [`MAX_ARMS`] arms. An arm that continues stays with the arm before it.
fn statements(mut arms: &[Arm]) -> Vec<&[Arm]> {
    let mut statements = Vec::new();
    while arms.len() > MAX_ARMS {
        let begins_list = |index: &usize| !arms[*index].continues;
        let (statement, rest) = arms.split_at((1..=MAX_ARMS).rev().find(begins_list).unwrap_or(MAX_ARMS));
        statements.push(statement);
        arms = rest;
    }
    if !arms.is_empty() {
        statements.push(arms);
    }
    statements
}

/// Selects the rows of all arms, with the number of the arm as the first column.
fn union(backend: DbBackend, arms: &[Arm]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Arm { select, query, filters, limit, join, continues: _ }) in arms.iter().enumerate() {
        let union = if number == 0 { "" } else { " UNION ALL " };
        sql.text(format_args!("{union}SELECT {number} AS \"arm\"{select} FROM ("));
        if let Some(filters) = filters {
            sql.text(format_args!("SELECT * FROM ("));
            sql.statement(query);
            sql.text(format_args!(" LIMIT {MAX_WALK}) AS \"{WALK}\""));
            for (number, filter) in filters.iter().enumerate() {
                sql.text(format_args!("{}", if number == 0 { " WHERE (" } else { " AND (" }));
                sql.statement(filter);
                sql.text(format_args!(") IS NOT NULL"));
            }
        } else {
            sql.statement(query);
        }
        sql.text(format_args!("{limit}) AS \"{ARM_ROWS}\"{join}"));
    }
    sql.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_page_ends_where_a_part_is_no_longer_known() {
        use Direction::{Backward, Forward};
        let position = |number: &u128| Position::by_id(Uuid::from_u128(*number));
        // The rows of a part, whether it has more rows in the direction, and where its walk ended.
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
            let page = |(rows, has_more, walked_to): Part<'_>| Page {
                direction,
                rows: rows.to_vec(),
                has_previous: has_more && direction == Backward,
                has_next: has_more && direction == Forward,
                walked_to: walked_to.as_ref().map(position),
            };
            for parts in [[first, second], [second, first]] {
                let page_of_parts = request.merge(parts.map(page).to_vec(), position);
                let expected = page(merged);
                assert_eq!(
                    (page_of_parts.rows, page_of_parts.has_previous, page_of_parts.has_next, page_of_parts.walked_to),
                    (expected.rows, expected.has_previous, expected.has_next, expected.walked_to),
                    "case {number}"
                );
            }
        }
    }

    #[test]
    fn the_arms_of_a_walk_stay_in_one_statement() {
        // Of every six arms, one is a list without a walk, one is a walk, and four are the milestones of this walk.
        let arm = |number: usize| Arm { continues: number % 6 > 1, ..Arm::count(Query::select(), None, limit(1)) };
        let lengths = |arms: usize| {
            let arms: Vec<_> = (0..arms).map(arm).collect();
            let statements = statements(&arms);
            assert!(statements.iter().all(|statement| statement.first().is_none_or(|first| !first.continues)));
            statements.iter().map(|statement| statement.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(0), [0; 0]);
        assert_eq!(lengths(400), [400]);
        assert_eq!(lengths(600), [397, 203]);
        assert_eq!(lengths(1200), [397, 396, 396, 11]);
    }
}
