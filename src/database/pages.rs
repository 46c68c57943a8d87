//! Pages of a list by keyset: a position is the sort key of a row, so a page starts where the last one ended, however
//! many rows came or went before it.

use std::collections::HashMap;
use std::hash::Hash;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{
    Alias, Asterisk, Expr, ExprTrait, Order, OverStatement, Query, SelectStatement, SimpleExpr, WindowStatement,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};
use uuid::Uuid;

use crate::database::Sql;

/// A row's place in a list: by a key and then by id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub key: Key,
    pub id: Uuid,
}

/// What a list is sorted by, before the id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The id alone, where ids are given in the order of the list.
    None,
    Time(DateTime<Utc>),
    /// A text that no two rows of the list share.
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The first rows, after a position if one is given.
    Forward,
    /// The last rows, before a position if one is given.
    Backward,
}

/// Which rows of a list, in the list's order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PageRequest {
    pub direction: Direction,
    pub size: usize,
    pub after: Option<Position>,
    pub before: Option<Position>,
}

/// A list as the database has it: its rows, and the columns of their [`Position`].
pub struct List {
    pub rows: SelectStatement,
    pub columns: Vec<SimpleExpr>,
    pub descending: bool,
    /// What is read beside each row, once it is known which rows are of the page.
    pub beside: Option<JoinedTable>,
}

/// All columns of the row of a table whose id stands in a column of a list.
pub struct JoinedTable {
    pub table: &'static str,
    pub columns: Vec<&'static str>,
    pub id: &'static str,
}

/// A row that knows its place in the list that it is read from.
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

impl PageRequest {
    /// The rows of a list that this page begins with, and one row more that tells whether the list goes on.
    fn of(&self, list: List) -> Arm {
        let List { rows: mut query, columns, descending, beside } = list;
        for (position, is_after) in [(&self.after, true), (&self.before, false)] {
            let Some(Position { key, id }) = position else { continue };
            // One column is compared as it is: a tuple of one is not SQL.
            let (row, bound) = match (columns.as_slice(), key) {
                ([at, row_id], Key::Time(time)) => {
                    (Expr::tuple([at.clone(), row_id.clone()]), Expr::tuple([Expr::val(*time), Expr::val(*id)]))
                }
                ([text], Key::Text(bound)) => (text.clone(), Expr::val(bound.as_str())),
                ([.., row_id], _) => (row_id.clone(), Expr::val(*id)),
                ([], _) => continue,
            };
            query.and_where(if is_after != descending { row.gt(bound) } else { row.lt(bound) });
        }
        for column in columns {
            query.order_by_expr(column, self.order(descending));
        }
        Arm { query, most: Some(self.size + 1), tells: beside.map_or(Projection::Rows, Projection::RowsBeside) }
    }

    /// In which order a list is read for this page.
    fn order(&self, descending: bool) -> Order {
        match (self.direction, descending) {
            (Direction::Forward, false) | (Direction::Backward, true) => Order::Asc,
            (Direction::Backward, false) | (Direction::Forward, true) => Order::Desc,
        }
    }

    /// Whether the page is at an end of the list.
    pub fn is_at_an_end(&self) -> bool {
        self.after.is_none() && self.before.is_none()
    }

    /// The page of a list that has this row alone.
    pub fn of_one<T: Positioned>(&self, row: T) -> Page<T> {
        let position = row.position();
        let is_within = self.after.as_ref().is_none_or(|after| position > *after)
            && self.before.as_ref().is_none_or(|before| position < *before);
        self.page(if is_within { vec![row] } else { Vec::new() })
    }

    /// The page that rows in the list's order make, one more than asked for if the list goes on.
    pub fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
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

/// The first column of a list's own rows in what [`pages`] reads.
pub const ROW: usize = 1;

/// LoadRounds the pages of several lists in one statement, or as few as the database takes: each list is walked by its own
/// index, to its own limit.
pub async fn pages<T>(
    connection: &impl ConnectionTrait,
    lists: Vec<(List, PageRequest)>,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
    position: impl Fn(usize, &T) -> Position,
) -> Result<Vec<Page<T>>, DbErr> {
    let requests: Vec<_> = lists.iter().map(|(list, request)| (list.descending, request.clone())).collect();
    let arms = lists.into_iter().map(|(list, request)| request.of(list));
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
            // A union promises no order.
            rows.sort_by_cached_key(|row| position(number, row));
            if *descending {
                rows.reverse();
            }
            request.page(rows)
        })
        .collect())
}

/// LoadRounds the first pages, or the last, of so many lists that differ in their owner alone, out of the rows of them all.
/// Unlike a union the statement is one that the database has planned before.
pub async fn pages_of_owners<K: Copy + Eq + Hash, T: Positioned>(
    connection: &impl ConnectionTrait,
    owners: usize,
    List { rows: all, columns, descending, .. }: List,
    owner: SimpleExpr,
    request: &PageRequest,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<HashMap<K, Page<T>>, DbErr> {
    let backend = connection.get_database_backend();
    /// Rows that are read in vain at most.
    const FEW: usize = 1000;
    // To number the rows costs as much as to read them, and only long lists need it.
    let most = FEW.max(owners * (request.size + 1));
    let arm = Arm { query: all.clone(), most: Some(most), tells: Projection::Rows };
    let mut rows = connection.query_all_raw(union(backend, 0, &[arm])).await?;
    if rows.len() == most {
        let arm =
            Arm { query: numbered(all, columns, descending, owner, request), most: None, tells: Projection::Rows };
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

/// The rows with which each owner's list begins, in the order of the request.
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

/// The values, and the last of them again and again until there is a power of two: so that statements are few, and the
/// database has planned them.
pub fn padded<T: Copy>(mut values: Vec<T>) -> Vec<T> {
    if let Some(last) = values.last().copied() {
        values.resize(values.len().next_power_of_two(), last);
    }
    values
}

/// LoadRounds the lengths of several lists in one statement, each up to a bound if it has one.
pub async fn counts(
    connection: &impl ConnectionTrait,
    lists: Vec<(SelectStatement, Option<usize>)>,
) -> Result<Vec<u64>, DbErr> {
    let mut counts = Vec::new();
    let arms = lists.into_iter().map(|(query, most)| Arm { query, most, tells: Projection::Number });
    for statement in unions(connection.get_database_backend(), arms) {
        for row in connection.query_all_raw(statement).await? {
            counts.push((arm(&row)?, row.try_get_by_index::<i64>(ROW)?.unsigned_abs()));
        }
    }
    counts.sort_unstable();
    Ok(counts.into_iter().map(|(_, count)| count).collect())
}

/// A part of a union.
struct Arm {
    query: SelectStatement,
    /// So many rows of it at most.
    most: Option<usize>,
    tells: Projection,
}

enum Projection {
    Rows,
    RowsBeside(JoinedTable),
    /// How many rows there are.
    Number,
}

/// One statement out of several, each of whose rows says which it came from; more than one only where there are so many
/// that a database would not take them. SQLite takes 500.
fn unions(backend: DbBackend, arms: impl Iterator<Item = Arm>) -> Vec<Statement> {
    const MAX_ARMS: usize = 400;
    let arms: Vec<_> = arms.collect();
    (0..).step_by(MAX_ARMS).zip(arms.chunks(MAX_ARMS)).map(|(first, arms)| union(backend, first, arms)).collect()
}

/// The rows of all arms, each after the number of its arm. The limits stand in the text: PostgreSQL plans anew each time
/// what it is to limit to a number that it is yet to be told.
fn union(backend: DbBackend, first: usize, arms: &[Arm]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Arm { query, most, tells }) in (first..).zip(arms) {
        let all = if number == first { "" } else { " UNION ALL " };
        sql.text(format_args!("{all}SELECT {number} AS \"arm\", "));
        match tells {
            Projection::Rows => sql.text(format_args!("*")),
            Projection::Number => sql.text(format_args!("COUNT(*)")),
            Projection::RowsBeside(JoinedTable { table, columns, .. }) => {
                sql.text(format_args!("\"arm_rows\".*"));
                for column in columns {
                    sql.text(format_args!(", \"{table}\".\"{column}\""));
                }
            }
        }
        sql.text(format_args!(" FROM ("));
        sql.statement(query);
        if let Some(most) = most {
            sql.text(format_args!(" LIMIT {most}"));
        }
        sql.text(format_args!(") AS \"arm_rows\""));
        if let Projection::RowsBeside(JoinedTable { table, id, .. }) = tells {
            sql.text(format_args!(" INNER JOIN \"{table}\" ON \"{table}\".\"id\" = \"arm_rows\".\"{id}\""));
        }
    }
    sql.into()
}

fn arm(row: &QueryResult) -> Result<usize, DbErr> {
    row.try_get_by_index::<i32>(0).map(|number| number.unsigned_abs() as usize)
}
