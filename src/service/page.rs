//! Pages of a list by keyset: a position is the sort key of a row, so a page starts where the last one ended, however
//! many rows came or went before it.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Alias, Asterisk, Expr, ExprTrait, Order, Query, SelectStatement, SimpleExpr, UnionType};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

/// A row's place in a list: by time and id, or by id alone where ids are given in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub at: Option<DateTime<Utc>>,
    pub id: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The first rows, after a position if one is given.
    Forward,
    /// The last rows, before a position if one is given.
    Backward,
}

/// Which rows of a list, in the list's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRequest {
    pub direction: Direction,
    pub size: usize,
    pub after: Option<Position>,
    pub before: Option<Position>,
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
    /// Limits a query to this page, and to one row more that tells whether the list goes on. `columns` are those of
    /// [`Position`], unique together.
    fn restrict(&self, query: &mut SelectStatement, columns: &[SimpleExpr]) {
        for (position, is_after) in [(self.after, true), (self.before, false)] {
            let Some(position) = position else { continue };
            // One column is compared as it is: a tuple of one is not SQL.
            let (row, bound) = match (columns, position.at) {
                ([at, id], Some(time)) => {
                    (Expr::tuple([at.clone(), id.clone()]), Expr::tuple([Expr::val(time), Expr::val(position.id)]))
                }
                ([.., id], _) => (id.clone(), Expr::val(position.id)),
                ([], _) => continue,
            };
            query.and_where(if is_after { row.gt(bound) } else { row.lt(bound) });
        }
        let order = match self.direction {
            Direction::Forward => Order::Asc,
            Direction::Backward => Order::Desc,
        };
        for column in columns {
            query.order_by_expr(column.clone(), order.clone());
        }
        query.limit(self.size as u64 + 1);
    }

    /// The page of a list that has this row alone.
    pub fn of_one<T: Positioned>(&self, row: T) -> Page<T> {
        let position = row.position();
        let is_within =
            self.after.is_none_or(|after| position > after) && self.before.is_none_or(|before| position < before);
        self.page(if is_within { vec![row] } else { Vec::new() })
    }

    /// The page that rows in the list's order make, one more than asked for if the list goes on.
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

/// Fetches the pages of several lists in one statement, or as few as the database takes: each list is walked by its own index, to its own limit.
pub async fn pages<T: Positioned>(
    connection: &impl ConnectionTrait,
    lists: Vec<(SelectStatement, PageRequest)>,
    columns: &[SimpleExpr],
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
) -> Result<Vec<Page<T>>, DbErr> {
    let requests: Vec<_> = lists.iter().map(|(_, request)| *request).collect();
    let arms = lists.into_iter().map(|(mut query, request)| {
        request.restrict(&mut query, columns);
        query
    });
    let mut rows: Vec<Vec<T>> = requests.iter().map(|_| Vec::new()).collect();
    for statement in unions(arms) {
        for row in connection.query_all(&statement).await? {
            rows[arm(&row)?].push(read(&row)?);
        }
    }
    Ok(rows
        .into_iter()
        .zip(&requests)
        .map(|(mut rows, request)| {
            // A union promises no order.
            rows.sort_unstable_by_key(Positioned::position);
            request.page(rows)
        })
        .collect())
}

/// Fetches the lengths of several lists in one statement.
pub async fn counts(connection: &impl ConnectionTrait, lists: Vec<SelectStatement>) -> Result<Vec<u64>, DbErr> {
    let mut counts = vec![0; lists.len()];
    let arms = lists
        .into_iter()
        .map(|query| Query::select().expr_as(Expr::col(Asterisk).count(), "count").from_subquery(query, "list").take());
    for statement in unions(arms) {
        for row in connection.query_all(&statement).await? {
            counts[arm(&row)?] = row.try_get::<i64>("", "count")?.unsigned_abs();
        }
    }
    Ok(counts)
}

/// One statement out of several, each of whose rows says which it came from; more than one only where there are so many
/// that a database would not take them. SQLite takes 500.
fn unions(arms: impl Iterator<Item = SelectStatement>) -> Vec<SelectStatement> {
    const MOST_ARMS: usize = 400;
    let arms: Vec<_> = arms
        .enumerate()
        .map(|(number, query)| {
            Query::select()
                .expr_as(Expr::cust(number.to_string()), Alias::new("arm"))
                .column(Asterisk)
                .from_subquery(query, "arm_rows")
                .take()
        })
        .collect();
    let union = |arms: &[SelectStatement]| {
        let mut arms = arms.iter().cloned();
        let first = arms.next()?;
        Some(arms.fold(first, |mut all, next| all.union(UnionType::All, next).take()))
    };
    arms.chunks(MOST_ARMS).filter_map(union).collect()
}

fn arm(row: &QueryResult) -> Result<usize, DbErr> {
    row.try_get::<i32>("", "arm").map(|number| number.unsigned_abs() as usize)
}
