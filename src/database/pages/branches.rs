//! Branches: the parts of a `UNION ALL`. One statement reads the rows of many branches.
//!
//! The branches of a group are always in the same statement, so that they see the same rows.

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::scan::{MAX_SCAN, SCAN};
use crate::database::Sql;
use crate::database::error::own_error;
use crate::request::{SizeError, Work, count_work};

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
}

impl Branch {
    /// A branch that selects all columns of a query.
    pub(super) fn rows(query: SelectStatement, suffix: String) -> Self {
        Self { select: ROWS.to_owned(), query, filters: None, suffix, join: String::new() }
    }

    /// A branch that selects the number of rows of a query. A limit in the suffix applies to the rows.
    pub(super) fn count(query: SelectStatement, filters: Option<Vec<SelectStatement>>, suffix: String) -> Self {
        Self { select: ", COUNT(*)".to_owned(), query, filters, suffix, join: String::new() }
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

/// SQLite accepts at most 500 branches and 32,766 values in a statement. A branch of a search for eight words has up to
/// about 90 values.
const MAX_BRANCHES: usize = 300;

/// Returns the rows of each branch, in the order of the groups and of their branches. Runs one statement for up to
/// [`MAX_BRANCHES`] branches, and several statements for more branches.
pub(super) async fn rows_by_branch(
    connection: &impl ConnectionTrait,
    groups: Vec<Vec<Branch>>,
) -> Result<Vec<Vec<QueryResult>>, DbErr> {
    let mut rows_by_branch = Vec::new();
    for branches in statements(groups) {
        count_work(Work::Query, 1);
        let rows = connection.query_all_raw(union(connection.get_database_backend(), &branches)).await;
        if rows.as_ref().err().and_then(own_error) == Some(SizeError::Busy) {
            // There was no memory for the rows, but the database has already checked the rows of the scans.
            let filters = branches.iter().filter_map(|branch| branch.filters.as_ref()).map(Vec::len);
            count_work(Work::Check, (filters.sum::<usize>() * MAX_SCAN) as u64);
        }
        let rows = rows?;
        count_work(Work::Row, rows.len() as u64);
        // All rows belong to the only branch, so their numbers need not be read.
        if let [_] = *branches {
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

/// Joins groups of branches into statements of at most [`MAX_BRANCHES`] branches.
fn statements(groups: Vec<Vec<Branch>>) -> Vec<Vec<Branch>> {
    let mut statements: Vec<Vec<Branch>> = Vec::new();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        match statements.last_mut() {
            Some(statement) if statement.len() + group.len() <= MAX_BRANCHES => statement.extend(group),
            _ => statements.push(group),
        }
    }
    statements
}

/// Selects the rows of all branches, with the number of the branch as the first column.
fn union(backend: DbBackend, branches: &[Branch]) -> Statement {
    let mut sql = Sql::new(backend);
    for (number, Branch { select, query, filters, suffix, join }) in branches.iter().enumerate() {
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
    fn a_group_stays_in_one_statement() {
        let lengths = |group_lengths: Vec<usize>| {
            let branch = || Branch::count(Query::select(), None, limit(1));
            let groups = group_lengths.into_iter().map(|length| (0..length).map(|_| branch()).collect()).collect();
            statements(groups).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(vec![]), [0; 0]);
        assert_eq!(lengths(vec![0, 1, 0]), [1]);
        assert_eq!(lengths(vec![1; 300]), [300]);
        assert_eq!(lengths(vec![1; 301]), [300, 1]);
        // The group of a list without a scan has one branch. The group of a scan with four milestones has five.
        assert_eq!(lengths([vec![1], vec![5; 60]].concat()), [296, 5]);
        assert_eq!(lengths([vec![1], vec![5; 120]].concat()), [296, 300, 5]);
    }
}
