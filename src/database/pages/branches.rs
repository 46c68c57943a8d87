//! Branches: the parts of a `UNION ALL`. One statement reads the rows of up to 400 branches.

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::scan::{MAX_SCAN, SCAN};
use crate::database::Sql;
use crate::request::{Work, count_work};

/// A part of a `UNION ALL`.
pub(super) struct Branch {
    /// The columns, with a comma before each column.
    pub(super) select: String,
    pub(super) query: SelectStatement,
    /// The filters of a [`Scan`](super::Scan) over the first [`MAX_SCAN`] rows of the query.
    pub(super) filters: Option<Vec<SelectStatement>>,
    /// The SQL after the query and its filters, for example ` ORDER BY 1 ASC LIMIT 21`, ` LIMIT 1 OFFSET 9999` or
    /// nothing. The numbers are literals, because PostgreSQL plans as if it had to read many rows if the limit is a
    /// parameter.
    pub(super) suffix: String,
    pub(super) join: String,
    /// True if this branch must be in the statement of the branch before it, because both must see the same rows.
    pub(super) with_previous: bool,
}

impl Branch {
    /// A branch that selects all columns of a query.
    pub(super) fn rows(query: SelectStatement, suffix: String) -> Self {
        Self { select: ROWS.to_owned(), query, filters: None, suffix, join: String::new(), with_previous: false }
    }

    /// A branch that selects the number of rows of a query. A limit in the suffix applies to the rows.
    pub(super) fn count(query: SelectStatement, filters: Option<Vec<SelectStatement>>, suffix: String) -> Self {
        Self { select: ", COUNT(*)".to_owned(), query, filters, suffix, join: String::new(), with_previous: false }
    }
}

/// The SQL alias of the rows of a page, for [`JoinedTable::new`](super::JoinedTable::new).
pub const BRANCH_ROWS: &str = "branch_rows";

/// The index of the first column of a list's rows in the results of [`pages`](super::pages()).
pub const ROW: usize = 1;

/// Selects all columns of a branch.
pub(super) const ROWS: &str = ", \"branch_rows\".*";

pub(super) fn limit(rows: usize) -> String {
    format!(" LIMIT {rows}")
}

/// SQLite accepts at most 500 branches in a statement.
const MAX_BRANCHES: usize = 400;

/// Returns the rows of each branch. Runs one statement for up to [`MAX_BRANCHES`] branches, and several statements for
/// more branches.
pub(super) async fn rows_by_branch(
    connection: &impl ConnectionTrait,
    branches: &[Branch],
) -> Result<Vec<Vec<QueryResult>>, DbErr> {
    let mut rows_by_branch = Vec::new();
    for branches in statements(branches) {
        count_work(Work::Query, 1);
        let rows = connection.query_all_raw(union(connection.get_database_backend(), branches)).await?;
        count_work(Work::Row, rows.len() as u64);
        // All rows belong to the only branch, so their numbers need not be read.
        if let [_] = branches {
            rows_by_branch.push(rows);
            continue;
        }
        let first = rows_by_branch.len();
        rows_by_branch.resize_with(first + branches.len(), Vec::new);
        for row in rows {
            let number: i32 = row.try_get_by_index(0)?;
            rows_by_branch[first + number.unsigned_abs() as usize].push(row);
        }
    }
    Ok(rows_by_branch)
}

/// Divides branches into statements of at most [`MAX_BRANCHES`] branches.
fn statements(mut branches: &[Branch]) -> Vec<&[Branch]> {
    let mut statements = Vec::new();
    while branches.len() > MAX_BRANCHES {
        let begins_list = |index: &usize| !branches[*index].with_previous;
        let (statement, rest) = branches.split_at((1..=MAX_BRANCHES).rev().find(begins_list).unwrap_or(MAX_BRANCHES));
        statements.push(statement);
        branches = rest;
    }
    if !branches.is_empty() {
        statements.push(branches);
    }
    statements
}

/// Selects the rows of all branches, with the number of the branch as the first column.
fn union(backend: DbBackend, branches: &[Branch]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Branch { select, query, filters, suffix, join, with_previous: _ }) in branches.iter().enumerate() {
        let union = if number == 0 { "" } else { " UNION ALL " };
        sql.text(format_args!("{union}SELECT {number} AS \"branch\"{select} FROM ("));
        if let Some(filters) = filters {
            sql.text(format_args!("SELECT * FROM ("));
            sql.statement(query);
            sql.text(format_args!(" LIMIT {MAX_SCAN}) AS \"{SCAN}\""));
            for (number, filter) in filters.iter().enumerate() {
                sql.text(format_args!("{}", if number == 0 { " WHERE (" } else { " AND (" }));
                sql.statement(filter);
                sql.text(format_args!(") IS NOT NULL"));
            }
        } else {
            sql.statement(query);
        }
        sql.text(format_args!("{suffix}) AS \"{BRANCH_ROWS}\"{join}"));
    }
    sql.into()
}

#[cfg(test)]
mod tests {
    use sea_orm::sea_query::Query;

    use super::*;

    #[test]
    fn the_branches_of_a_scan_stay_in_one_statement() {
        // Each group of six branches has a list without a scan, a scan, and the four milestones of this scan.
        let branch =
            |number: usize| Branch { with_previous: number % 6 > 1, ..Branch::count(Query::select(), None, limit(1)) };
        let lengths = |branches: usize| {
            let branches: Vec<_> = (0..branches).map(branch).collect();
            let statements = statements(&branches);
            assert!(statements.iter().all(|statement| statement.first().is_none_or(|first| !first.with_previous)));
            statements.iter().map(|statement| statement.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(0), [0; 0]);
        assert_eq!(lengths(400), [400]);
        assert_eq!(lengths(600), [397, 203]);
        assert_eq!(lengths(1200), [397, 396, 396, 11]);
    }
}
