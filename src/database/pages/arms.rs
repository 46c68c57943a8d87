//! Arms: the parts of a `UNION ALL`. One statement reads the rows of up to 400 arms.

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::walk::{MAX_WALK, WALK};
use crate::database::{Sql, Work, record};

/// A part of a `UNION ALL`.
pub(super) struct Arm {
    /// The columns, with a comma before each column.
    pub(super) select: String,
    pub(super) query: SelectStatement,
    /// The filters of a [`Walk`](super::Walk) over the first [`MAX_WALK`] rows of the query.
    pub(super) filters: Option<Vec<SelectStatement>>,
    /// The text after the query, such as the limit. The limit is a literal, because PostgreSQL plans as if it
    /// had to read many rows if the limit is a parameter.
    pub(super) limit: String,
    pub(super) join: String,
    /// True if this arm and the arm before it must see the same rows, so they must be in one statement.
    pub(super) continues: bool,
}

impl Arm {
    /// An arm that selects all columns of a query.
    pub(super) fn rows(query: SelectStatement, limit: String) -> Self {
        Self { select: ROWS.to_owned(), query, filters: None, limit, join: String::new(), continues: false }
    }

    /// An arm that selects the number of rows of a query. The limit applies to the rows.
    pub(super) fn count(query: SelectStatement, filters: Option<Vec<SelectStatement>>, limit: String) -> Self {
        Self { select: ", COUNT(*)".to_owned(), query, filters, limit, join: String::new(), continues: false }
    }
}

/// The SQL alias of the rows of a page, for [`JoinedTable::new`](super::JoinedTable::new).
pub const ARM_ROWS: &str = "arm_rows";

/// The index of the first column of a list's rows in the results of [`pages`](super::pages()).
pub const ROW: usize = 1;

/// Selects all columns of an arm.
pub(super) const ROWS: &str = ", \"arm_rows\".*";

pub(super) fn limit(rows: usize) -> String {
    format!(" LIMIT {rows}")
}

/// SQLite accepts at most 500 arms in a statement.
const MAX_ARMS: usize = 400;

/// Returns the rows of each arm. Runs one statement for up to [`MAX_ARMS`] arms, and several statements for more arms.
pub(super) async fn rows_by_arm(
    connection: &impl ConnectionTrait,
    arms: &[Arm],
) -> Result<Vec<Vec<QueryResult>>, DbErr> {
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
    use sea_orm::sea_query::Query;

    use super::*;

    #[test]
    fn the_arms_of_a_walk_stay_in_one_statement() {
        // Each group of six arms has a list without a walk, a walk, and the four milestones of this walk.
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
