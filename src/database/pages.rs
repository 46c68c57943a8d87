//! Keyset pagination: pages of lists, read in few statements.
//!
//! A [`Position`] is the sort key of a row, so a page starts where the previous page ended, even if rows were inserted or
//! deleted before it. Several lists are read by one `UNION ALL`, each with its own limit:
//!
//! ```sql
//! SELECT 0 AS "arm", "arm_rows".*
//! FROM (SELECT … WHERE (connected_at, customer_id) > ($1, $2) ORDER BY … LIMIT 21) AS "arm_rows"
//! UNION ALL SELECT 1 AS "arm", "arm_rows".* FROM (…) AS "arm_rows"
//! ```
//!
//! Each arm reads one row more than the size of the page, which tells whether there are more rows.

use std::collections::HashMap;
use std::hash::Hash;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{
    Alias, Asterisk, Expr, ExprTrait, Order, OverStatement, Query, SelectStatement, SimpleExpr, WindowStatement,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, IdenStatic, Iterable, QueryResult,
    Statement, Value,
};
use uuid::Uuid;

use super::Sql;

/// A row's position in a list: its sort key, then its id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub key: Key,
    pub id: Uuid,
}

/// The part of the sort key before the id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The key of the row that comes before all other rows in a list that is ordered by id.
    First,
    /// No key: the list is ordered by id only.
    None,
    Time(DateTime<Utc>),
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
    /// A table to join to the rows of the page after the limit has been applied.
    pub joined: Option<JoinedTable>,
}

/// A table to join by its `id`, with all its columns.
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
    pub rows: Vec<T>,
    pub has_previous: bool,
    pub has_next: bool,
}

impl Position {
    /// A position in a list that is ordered by id.
    pub fn by_id(id: Uuid) -> Self {
        Self { key: Key::None, id }
    }
}

impl List {
    /// A list in ascending order of the columns.
    pub fn new(rows: SelectStatement, columns: Vec<SimpleExpr>) -> Self {
        Self { rows, columns, descending: false, joined: None }
    }
}

impl JoinedTable {
    /// Joins the table of `E` by the id in the given column of the list.
    pub fn new<E: EntityTrait>(id: impl IdenStatic) -> Self {
        let (table, id) = (E::default().table_name(), id.as_str());
        let columns = E::Column::iter().map(|column| format!(", \"{table}\".\"{}\"", column.as_str())).collect();
        Self { columns, join: format!(" INNER JOIN \"{table}\" ON \"{table}\".\"id\" = \"arm_rows\".\"{id}\"") }
    }
}

impl PageRequest {
    fn arm(&self, list: List) -> Arm {
        let List { rows: mut query, columns, descending, joined } = list;
        for (position, is_after) in [(&self.after, true), (&self.before, false)] {
            let Some(Position { key, id }) = position else { continue };
            // A cursor is valid for one list only, so its key fits the columns. A single column is compared without a
            // tuple, because a tuple of one column is not valid SQL.
            let (row, bound) = match key {
                // The query does not return the first row, and all other rows come after the first row.
                Key::First if is_after => continue,
                Key::First => (Expr::val(1), Expr::val(1)),
                Key::None => (columns[0].clone(), Expr::val(*id)),
                Key::Time(time) => (Expr::tuple(columns.clone()), Expr::tuple([Expr::val(*time), Expr::val(*id)])),
                Key::Text(text) => (columns[0].clone(), Expr::val(text.as_str())),
            };
            query.and_where(if is_after != descending { row.gt(bound) } else { row.lt(bound) });
        }
        for column in columns {
            query.order_by_expr(column, self.order(descending));
        }
        Arm { select: ROWS, query, limit: Some(self.size + 1), joined }
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

    /// Adds `row`, which comes before all other rows of the list, to a page of the other rows. Does not add the row if
    /// the page does not reach back to the start of the list.
    pub fn add_first<T>(&self, page: &mut Page<T>, position: Position, row: T) {
        if self.after.is_some() || self.before.as_ref() == Some(&position) {
            return;
        }
        let is_full = page.rows.len() == self.size;
        if is_full && self.direction == Direction::Backward {
            page.has_previous = true;
            return;
        }
        page.has_next |= is_full;
        page.rows.insert(0, row);
        page.rows.truncate(self.size);
    }

    /// Makes a page of rows in the list's order. If there is one row more than `size`, the list has more rows.
    fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let has_more = rows.len() > self.size;
        match self.direction {
            Direction::Forward => {
                rows.truncate(self.size);
                Page { rows, has_previous: self.after.is_some(), has_next: has_more }
            }
            Direction::Backward => {
                rows.drain(..rows.len().saturating_sub(self.size));
                Page { rows, has_previous: has_more, has_next: self.before.is_some() }
            }
        }
    }
}

/// The index of the first column of a list's rows in the results of [`pages`].
pub const ROW: usize = 1;

/// Loads a page of each list, in as few statements as the database allows.
///
/// `position` receives the index of a list, and a row of that list.
pub async fn pages<T>(
    connection: &impl ConnectionTrait,
    lists: Vec<(List, PageRequest)>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let requests: Vec<_> = lists.iter().map(|(list, request)| (list.descending, request.clone())).collect();
    let arms: Vec<_> = lists.into_iter().map(|(list, request)| request.arm(list)).collect();
    let rows_by_list = rows_by_arm(connection, &arms).await?;
    let mut pages = Vec::new();
    for (index, (rows, (descending, request))) in rows_by_list.iter().zip(&requests).enumerate() {
        let mut rows = rows.iter().map(&read).collect::<Result<Vec<_>, _>>()?;
        // UNION ALL does not keep the order of its arms' rows.
        rows.sort_by_cached_key(|row| position(index, row));
        if *descending {
            rows.reverse();
        }
        pages.push(request.page(rows));
    }
    Ok(pages)
}

/// Loads a page of the list of each owner. `list` selects the rows that match a condition on the owner, and `read` returns
/// a row's owner and the row.
///
/// - **Same first or last page for all owners**, which is usual: one statement reads the rows of all owners, without order,
///   and this function forms the pages. If that statement reaches its limit, a second statement numbers the rows of each
///   owner and reads only the rows of the pages.
/// - **Otherwise** all pages are read by a `UNION ALL`. Its text depends on the number of owners, so PostgreSQL plans it
///   anew for each number, while the text of the statement above hardly varies.
pub async fn pages_by_owner<K: Copy + Eq + Hash + Into<Value>, T: Positioned>(
    connection: &impl ConnectionTrait,
    requests: &[(K, PageRequest)],
    owner: impl ColumnTrait,
    list: impl Fn(Condition) -> List,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<Vec<Page<T>>, DbErr> {
    /// The smallest limit of the statement for all owners. The limit is large, so that the text of the limit seldom
    /// varies and most requests need no second statement.
    const MIN_ROWS: usize = 1000;
    let [(first, request), ..] = requests else { return Ok(Vec::new()) };
    let has_position = request.after.is_some() || request.before.is_some();
    if has_position || requests.iter().any(|(_, other)| other != request) {
        let lists = requests.iter().map(|(key, request)| (list(owner.eq(*key).into()), request.clone()));
        return pages(connection, lists.collect(), |row| read(row).map(|(_, row)| row), |_, row| row.position()).await;
    }
    let mut owners: Vec<_> = requests.iter().map(|(owner, _)| *owner).collect();
    // Repeats an owner until the number of owners is a power of two, so that there are few different statements to
    // prepare.
    owners.resize(owners.len().next_power_of_two(), *first);
    let limit = MIN_ROWS.max(owners.len() * (request.size + 1));
    let list = list(owner.is_in(owners).into());
    let arm = Arm { select: ROWS, query: list.rows.clone(), limit: Some(limit), joined: None };
    let mut rows = rows_by_arm(connection, &[arm]).await?.remove(0);
    // Numbering the rows costs as much as reading them, and only long lists need the numbers.
    if rows.len() == limit {
        let query = numbered(list, owner.into_expr(), request);
        rows = rows_by_arm(connection, &[Arm { select: ROWS, query, limit: None, joined: None }]).await?.remove(0);
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

/// Counts the rows of each list. If a list has a bound, the count stops at the bound.
pub async fn counts(
    connection: &impl ConnectionTrait,
    lists: Vec<(SelectStatement, Option<usize>)>,
) -> Result<Vec<u64>, DbErr> {
    let arm = |(query, limit)| Arm { select: "COUNT(*)", query, limit, joined: None };
    let arms: Vec<_> = lists.into_iter().map(arm).collect();
    let rows = rows_by_arm(connection, &arms).await?;
    rows.iter().flatten().map(|row| Ok(row.try_get_by_index::<i64>(ROW)?.unsigned_abs())).collect()
}

/// A part of a `UNION ALL`.
struct Arm {
    select: &'static str,
    query: SelectStatement,
    limit: Option<usize>,
    joined: Option<JoinedTable>,
}

/// Selects all columns of an arm.
const ROWS: &str = "\"arm_rows\".*";

/// Returns the rows of each arm. Runs one statement for all arms, or several statements if there are more arms than a
/// database accepts (500 in SQLite).
async fn rows_by_arm(connection: &impl ConnectionTrait, arms: &[Arm]) -> Result<Vec<Vec<QueryResult>>, DbErr> {
    const MAX_ARMS: usize = 400;
    let mut rows_by_arm: Vec<_> = arms.iter().map(|_| Vec::new()).collect();
    for (arms, rows_by_arm) in arms.chunks(MAX_ARMS).zip(rows_by_arm.chunks_mut(MAX_ARMS)) {
        for row in connection.query_all_raw(union(connection.get_database_backend(), arms)).await? {
            let number: i32 = row.try_get_by_index(0)?;
            rows_by_arm[number.unsigned_abs() as usize].push(row);
        }
    }
    Ok(rows_by_arm)
}

/// Selects the rows of all arms, with the number of the arm as the first column.
fn union(backend: DbBackend, arms: &[Arm]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Arm { select, query, limit, joined }) in arms.iter().enumerate() {
        let union = if number == 0 { "" } else { " UNION ALL " };
        let (columns, join) = joined.as_ref().map_or(("", ""), |joined| (&joined.columns, &joined.join));
        sql.text(format_args!("{union}SELECT {number} AS \"arm\", {select}{columns} FROM ("));
        sql.statement(query);
        if let Some(limit) = limit {
            // The limit is part of the text, because PostgreSQL makes no reusable plan for a limit that is a parameter.
            sql.text(format_args!(" LIMIT {limit}"));
        }
        sql.text(format_args!(") AS \"arm_rows\"{join}"));
    }
    sql.into()
}
