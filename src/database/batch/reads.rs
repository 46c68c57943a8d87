//! Looks of many requests, made as one.

use std::sync::OnceLock;

use sea_orm::sea_query::{Alias, Expr, SelectStatement, SimpleExpr, Value, Values};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::Batcher;
use super::arrays::lists;
use crate::database::{Reader, Sql};

/// Finds rows by some values, with a statement that is always the same.
///
/// Most of what a small statement costs is its way to the database and back. What requests look for at the same moment is
/// therefore looked for together, where the database takes lists of values; each is told its own rows alone.
pub struct BatchedQuery<const N: usize> {
    /// Texts of statements, which take longer to build than to send.
    alone: OnceLock<String>,
    together: OnceLock<String>,
    looks: Batcher<(), [Value; N], Found>,
}

type Found = Result<Vec<QueryResult>, DbErr>;

impl<const N: usize> BatchedQuery<N> {
    /// The rows that the statement finds with these values.
    pub async fn run(
        &self,
        reads: &Reader,
        values: [Value; N],
        statement: impl Fn([SimpleExpr; N]) -> SelectStatement,
    ) -> Found {
        if reads.get_database_backend() != DbBackend::Postgres {
            return self.run_one(reads, values, statement).await;
        }
        let all = async |looks: Vec<[Value; N]>| {
            let number = looks.len();
            match self.run_batch(reads, looks, &statement).await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => (0..number).map(|_| Err(error.clone())).collect(),
            }
        };
        match self.looks.submit((), values.clone(), all).await {
            Some(found) => found,
            None => self.run_one(reads, values, statement).await,
        }
    }

    async fn run_one(
        &self,
        reads: &Reader,
        values: [Value; N],
        statement: impl Fn([SimpleExpr; N]) -> SelectStatement,
    ) -> Found {
        let backend = reads.get_database_backend();
        let sign = if backend == DbBackend::Postgres { '$' } else { '?' };
        let holders = || std::array::from_fn(|number| Expr::cust(format!("{sign}{}", number + 1)));
        let sql = self.alone.get_or_init(|| backend.build(&statement(holders())).sql).clone();
        reads.query_all_raw(Statement { sql, values: Some(Values(values.into())), db_backend: backend }).await
    }

    /// The rows of each look.
    async fn run_batch(
        &self,
        reads: &Reader,
        looks: Vec<[Value; N]>,
        statement: impl Fn([SimpleExpr; N]) -> SelectStatement,
    ) -> Result<Vec<Vec<QueryResult>>, DbErr> {
        let looks = match <[_; 1]>::try_from(looks) {
            Ok([values]) => return Ok(vec![self.run_one(reads, values, statement).await?]),
            Err(looks) => looks,
        };
        let sql = self.together.get_or_init(|| together(statement)).clone();
        let mut found: Vec<_> = looks.iter().map(|_| Vec::new()).collect();
        let values = Some(Values(lists(looks)));
        for row in reads.query_all_raw(Statement { sql, values, db_backend: DbBackend::Postgres }).await? {
            let number: i64 = row.try_get("", NUMBER)?;
            if let Some(found) = usize::try_from(number - 1).ok().and_then(|number| found.get_mut(number)) {
                found.push(row);
            }
        }
        Ok(found)
    }
}

impl<const N: usize> Default for BatchedQuery<N> {
    fn default() -> Self {
        Self { alone: OnceLock::new(), together: OnceLock::new(), looks: Batcher::default() }
    }
}

/// The column of a row with the place of its values among all.
const NUMBER: &str = "number";

/// The same statement for lists of values.
fn together<const N: usize>(statement: impl Fn([SimpleExpr; N]) -> SelectStatement) -> String {
    let columns: [_; N] = std::array::from_fn(|number| format!("value_{number}"));
    let lists: Vec<_> = (1..=N).map(|number| format!("${number}")).collect();
    let mut sql = Sql::new(DbBackend::Postgres);
    sql.text(format_args!(
        "SELECT found.*, {NUMBER} FROM unnest({}) WITH ORDINALITY AS each ({}, {NUMBER}) CROSS JOIN LATERAL (",
        lists.join(", "),
        columns.join(", "),
    ));
    sql.statement(&statement(columns.map(|column| Expr::col((Alias::new("each"), Alias::new(column))))));
    sql.text(format_args!(") AS found"));
    Statement::from(sql).sql
}
