//! Keyset pagination: pages of lists, read in few statements.
//!
//! A [`Position`] is the sort key of a row, so a page starts where the previous one ended, however many rows were inserted
//! or deleted before it. Several lists are read by one `UNION ALL`, each with its own limit:
//!
//! ```sql
//! SELECT 0 AS "arm", * FROM (SELECT … WHERE (connected_at, customer_id) > ($1, $2) ORDER BY … LIMIT 21) AS "arm_rows"
//! UNION ALL SELECT 1 AS "arm", * FROM (…) AS "arm_rows"
//! ```
//!
//! Each arm reads one row more than the page has, which tells whether the list goes on.

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
    /// The list is ordered by id alone.
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
    /// The columns of a row's [`Position`]: key and id, or one of them if it is unique.
    pub columns: Vec<SimpleExpr>,
    pub descending: bool,
    /// A table to join to the rows of the page, after its limit.
    pub joined: Option<JoinedTable>,
}

/// A table to join by its `id`, with all its columns.
pub struct JoinedTable {
    table: &'static str,
    columns: Vec<&'static str>,
    /// The column of the list that has the id.
    id: &'static str,
}

/// A row with a position in the list that it is read from.
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
        let columns = E::Column::iter().map(|column| column.as_str()).collect();
        Self { table: E::default().table_name(), columns, id: id.as_str() }
    }
}

impl PageRequest {
    fn arm(&self, list: List) -> Arm {
        let List { rows: mut query, columns, descending, joined } = list;
        for (position, is_after) in [(&self.after, true), (&self.before, false)] {
            let Some(Position { key, id }) = position else { continue };
            // A tuple of one column is not valid SQL.
            let (row, bound) = match (columns.as_slice(), key) {
                ([row_time, row_id], Key::Time(time)) => {
                    (Expr::tuple([row_time.clone(), row_id.clone()]), Expr::tuple([Expr::val(*time), Expr::val(*id)]))
                }
                ([row_text], Key::Text(text)) => (row_text.clone(), Expr::val(text.as_str())),
                ([.., row_id], _) => (row_id.clone(), Expr::val(*id)),
                ([], _) => continue,
            };
            query.and_where(if is_after != descending { row.gt(bound) } else { row.lt(bound) });
        }
        for column in columns {
            query.order_by_expr(column, self.order(descending));
        }
        Arm { query, limit: Some(self.size + 1), projection: joined.map_or(Projection::Rows, Projection::JoinedRows) }
    }

    fn order(&self, descending: bool) -> Order {
        match (self.direction, descending) {
            (Direction::Forward, false) | (Direction::Backward, true) => Order::Asc,
            (Direction::Backward, false) | (Direction::Forward, true) => Order::Desc,
        }
    }

    /// The page starts or ends the list, as no position is given.
    fn is_unbounded(&self) -> bool {
        self.after.is_none() && self.before.is_none()
    }

    /// The page of a list that consists of this row.
    pub fn of_one<T: Positioned>(&self, row: T) -> Page<T> {
        let position = row.position();
        let is_within = self.after.as_ref().is_none_or(|after| position > *after)
            && self.before.as_ref().is_none_or(|before| position < *before);
        self.page(if is_within { vec![row] } else { Vec::new() })
    }

    /// Makes a page of rows in the list's order. One row more than `size` means that the list goes on.
    fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let goes_on = rows.len() > self.size;
        match self.direction {
            Direction::Forward => {
                rows.truncate(self.size);
                Page { rows, has_previous: self.after.is_some(), has_next: goes_on }
            }
            Direction::Backward => {
                rows.drain(..rows.len().saturating_sub(self.size));
                Page { rows, has_previous: goes_on, has_next: self.before.is_some() }
            }
        }
    }
}

/// Position of the first column of a list's rows in the results of [`pages`].
pub const ROW: usize = 1;

/// Loads a page of each list, in as few statements as the database allows.
///
/// `position` gets the index of the list and a row of it.
pub async fn pages<T>(
    connection: &impl ConnectionTrait,
    lists: Vec<(List, PageRequest)>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let requests: Vec<_> = lists.iter().map(|(list, request)| (list.descending, request.clone())).collect();
    let arms = lists.into_iter().map(|(list, request)| request.arm(list));
    let mut rows: Vec<Vec<T>> = requests.iter().map(|_| Vec::new()).collect();
    for statement in unions(connection.get_database_backend(), arms) {
        for row in connection.query_all_raw(statement).await? {
            rows[arm(&row)?].push(read(&row)?);
        }
    }
    Ok(rows
        .into_iter()
        .zip(&requests)
        .enumerate()
        .map(|(number, (mut rows, (descending, request)))| {
            // UNION ALL does not keep the order of its arms' rows.
            rows.sort_by_cached_key(|row| position(number, row));
            if *descending {
                rows.reverse();
            }
            request.page(rows)
        })
        .collect())
}

/// Loads a page of the list of each owner. `list` selects the rows for a condition on their owner, and `read` returns a
/// row's owner and the row.
///
/// A union has a text of its own for each number of owners, and PostgreSQL plans it each time. The usual request, for the
/// first or last page of all owners alike, is therefore a statement whose text hardly varies.
pub async fn pages_by_owner<K: Copy + Eq + Hash + Into<Value>, T: Positioned>(
    connection: &impl ConnectionTrait,
    requests: &[(K, PageRequest)],
    owner: impl ColumnTrait,
    list: impl Fn(Condition) -> List,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<Vec<Page<T>>, DbErr> {
    if let [(_, request), ..] = requests
        && request.is_unbounded()
        && requests.iter().all(|(_, other)| other == request)
    {
        let owners = padded(requests.iter().map(|(owner, _)| *owner).collect());
        let rows = list(owner.is_in(owners.iter().copied()).into());
        let mut pages = same_page_of_owners(connection, owners.len(), rows, owner.into_expr(), request, read).await?;
        let page = |(owner, _): &(K, _)| pages.remove(owner).unwrap_or_else(|| request.page(Vec::new()));
        return Ok(requests.iter().map(page).collect());
    }
    let lists = requests.iter().map(|(key, request)| (list(owner.eq(*key).into()), request.clone()));
    pages(connection, lists.collect(), |row| read(row).map(|(_, row)| row), |_, row| row.position()).await
}

/// Loads the same page of the list of each owner, out of the rows of all.
async fn same_page_of_owners<K: Copy + Eq + Hash, T: Positioned>(
    connection: &impl ConnectionTrait,
    owners: usize,
    List { rows: all, columns, descending, .. }: List,
    owner: SimpleExpr,
    request: &PageRequest,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<HashMap<K, Page<T>>, DbErr> {
    let backend = connection.get_database_backend();
    /// Rows to read even if fewer are needed.
    const MIN_ROWS: usize = 1000;
    // Numbering the rows costs as much as reading them, and only long lists need it.
    let limit = MIN_ROWS.max(owners * (request.size + 1));
    let arm = Arm { query: all.clone(), limit: Some(limit), projection: Projection::Rows };
    let mut rows = connection.query_all_raw(union(backend, 0, &[arm])).await?;
    if rows.len() == limit {
        let query = numbered(all, columns, descending, owner, request);
        let arm = Arm { query, limit: None, projection: Projection::Rows };
        rows = connection.query_all_raw(union(backend, 0, &[arm])).await?;
    }
    let mut lists: HashMap<K, Vec<T>> = HashMap::new();
    for row in &rows {
        let (owner, row) = read(row)?;
        lists.entry(owner).or_default().push(row);
    }
    let page = |(owner, mut rows): (K, Vec<T>)| {
        rows.sort_by_cached_key(Positioned::position);
        (owner, request.page(rows))
    };
    Ok(lists.into_iter().map(page).collect())
}

/// Selects the rows of the page of each owner.
fn numbered(
    mut all: SelectStatement,
    columns: Vec<SimpleExpr>,
    descending: bool,
    owner: SimpleExpr,
    request: &PageRequest,
) -> SelectStatement {
    let mut window = WindowStatement::new();
    window.add_partition_by(owner);
    for column in columns {
        window.order_by_expr(column, request.order(descending));
    }
    all.expr_window_as(Expr::cust("ROW_NUMBER()"), window, "number");
    let is_of_page = Expr::col(Alias::new("number")).lte(Expr::cust((request.size + 1).to_string()));
    Query::select().column(Asterisk).from_subquery(all, "numbered").and_where(is_of_page).take()
}

/// Repeats the last value until their number is a power of two, so that there are few different statements to prepare.
fn padded<T: Copy>(mut values: Vec<T>) -> Vec<T> {
    if let Some(last) = values.last().copied() {
        values.resize(values.len().next_power_of_two(), last);
    }
    values
}

/// Counts the rows of each list, up to its bound if it has one.
pub async fn counts(
    connection: &impl ConnectionTrait,
    lists: Vec<(SelectStatement, Option<usize>)>,
) -> Result<Vec<u64>, DbErr> {
    let mut counts = Vec::new();
    let arms = lists.into_iter().map(|(query, limit)| Arm { query, limit, projection: Projection::Count });
    for statement in unions(connection.get_database_backend(), arms) {
        for row in connection.query_all_raw(statement).await? {
            counts.push((arm(&row)?, row.try_get_by_index::<i64>(ROW)?.unsigned_abs()));
        }
    }
    counts.sort_unstable();
    Ok(counts.into_iter().map(|(_, count)| count).collect())
}

/// A part of a `UNION ALL`.
struct Arm {
    query: SelectStatement,
    limit: Option<usize>,
    projection: Projection,
}

enum Projection {
    Rows,
    JoinedRows(JoinedTable),
    Count,
}

/// One statement for all arms; several if there are more arms than a database takes (SQLite takes 500).
fn unions(backend: DbBackend, arms: impl Iterator<Item = Arm>) -> Vec<Statement> {
    const MAX_ARMS: usize = 400;
    let arms: Vec<_> = arms.collect();
    (0..).step_by(MAX_ARMS).zip(arms.chunks(MAX_ARMS)).map(|(first, arms)| union(backend, first, arms)).collect()
}

/// Selects the rows of all arms, each with the number of its arm before it.
fn union(backend: DbBackend, first: usize, arms: &[Arm]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Arm { query, limit, projection }) in (first..).zip(arms) {
        let all = if number == first { "" } else { " UNION ALL " };
        sql.text(format_args!("{all}SELECT {number} AS \"arm\", "));
        match projection {
            Projection::Rows => sql.text(format_args!("*")),
            Projection::Count => sql.text(format_args!("COUNT(*)")),
            Projection::JoinedRows(JoinedTable { table, columns, .. }) => {
                sql.text(format_args!("\"arm_rows\".*"));
                for column in columns {
                    sql.text(format_args!(", \"{table}\".\"{column}\""));
                }
            }
        }
        sql.text(format_args!(" FROM ("));
        sql.statement(query);
        if let Some(limit) = limit {
            // In the text, as PostgreSQL makes no reusable plan for a limit that is a parameter.
            sql.text(format_args!(" LIMIT {limit}"));
        }
        sql.text(format_args!(") AS \"arm_rows\""));
        if let Projection::JoinedRows(JoinedTable { table, id, .. }) = projection {
            sql.text(format_args!(" INNER JOIN \"{table}\" ON \"{table}\".\"id\" = \"arm_rows\".\"{id}\""));
        }
    }
    sql.into()
}

fn arm(row: &QueryResult) -> Result<usize, DbErr> {
    row.try_get_by_index::<i32>(0).map(|number| number.unsigned_abs() as usize)
}
