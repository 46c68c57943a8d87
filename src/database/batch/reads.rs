//! Batched reads: one prepared query, run for the values of several requests together.

use std::sync::OnceLock;

use sea_orm::sea_query::{Alias, Expr, SelectStatement, SimpleExpr, Value, Values};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};

use super::Batcher;
use crate::database::arrays::{fits_in_array, into_arrays};
use crate::database::error::log_shared_failure;
use crate::database::sql::with_literals;
use crate::database::{ReadKind, Reader};
use crate::request::count_query;

/// A query with `N` parameters that concurrent requests run as one batch on PostgreSQL.
///
/// The SQL of the query is built once and cached.
pub struct BatchedQuery<const N: usize> {
    select: Box<Select<N>>,
    sql_for_one: OnceLock<String>,
    sql_for_batch: OnceLock<String>,
    batcher: Batcher<(), [Value; N], Rows>,
}

/// Builds a query. Receives an expression for each parameter.
type Select<const N: usize> = dyn Fn([SimpleExpr; N]) -> SelectStatement + Send + Sync;

type Rows = Result<Vec<QueryResult>, DbErr>;

/// Counts the rows as work of the current request: only the rows of this request, not all rows of its batch.
fn counted(rows: Rows) -> Rows {
    count_query(rows.as_ref().map_or(0, Vec::len));
    rows
}

impl<const N: usize> BatchedQuery<N> {
    /// Creates a query. `select` receives an expression for each parameter: a placeholder or, in a batch, a column of
    /// the SQL table `request`, which has one row for each request of the batch. Constants in `select`, for example its
    /// limit, become part of the cached SQL.
    pub fn new(select: impl Fn([SimpleExpr; N]) -> SelectStatement + Send + Sync + 'static) -> Self {
        Self {
            select: Box::new(select),
            sql_for_one: OnceLock::new(),
            sql_for_batch: OnceLock::new(),
            batcher: Batcher::default(),
        }
    }

    /// Returns the query with these values, to run it inside a transaction.
    pub fn with_values(&self, values: [Value; N]) -> SelectStatement {
        (self.select)(values.map(SimpleExpr::from))
    }

    /// Returns the rows that the query finds for these values.
    pub async fn run(&self, reader: &Reader, values: [Value; N]) -> Rows {
        debug_assert!(values.iter().all(fits_in_array), "a value has a type that `add_for` does not encode");
        if reader.get_database_backend() != DbBackend::Postgres {
            return counted(self.run_one(reader, values).await);
        }
        let run_batch = async |requests: Vec<[Value; N]>| {
            let count = requests.len();
            match self.run_batch(reader, requests).await {
                Ok(rows) => rows.into_iter().map(Ok).collect(),
                Err(error) if count > 1 => {
                    let error = log_shared_failure(&error, count);
                    (0..count).map(|_| Err(error.clone())).collect()
                }
                Err(error) => vec![Err(error)],
            }
        };
        let rows = match self.batcher.submit((), values.clone(), run_batch).await {
            Some(rows) => rows,
            None => self.run_one(reader, values).await,
        };
        counted(rows)
    }

    async fn run_one(&self, reader: &Reader, values: [Value; N]) -> Rows {
        let backend = reader.get_database_backend();
        let sign = if backend == DbBackend::Postgres { '$' } else { '?' };
        let placeholders = || std::array::from_fn(|index| Expr::cust(format!("{sign}{}", index + 1)));
        let sql = self.sql_for_one.get_or_init(|| with_literals(backend, &(self.select)(placeholders()))).clone();
        reader.query_all_raw(Statement { sql, values: Some(Values(values.into())), db_backend: backend }).await
    }

    /// Returns the rows of each request, in the order of the requests.
    async fn run_batch(&self, reader: &Reader, requests: Vec<[Value; N]>) -> Result<Vec<Vec<QueryResult>>, DbErr> {
        let requests = match <[_; 1]>::try_from(requests) {
            Ok([values]) => return Ok(vec![self.run_one(reader, values).await?]),
            Err(requests) => requests,
        };
        let sql = self.sql_for_batch.get_or_init(|| batch_sql(&self.select)).clone();
        let mut rows_by_request: Vec<_> = requests.iter().map(|_| Vec::new()).collect();
        // A batch of several requests uses the tenant `BatchedReads`. Under the leader's tenant, a batch would wait
        // while that tenant holds its maximum number of connections.
        let reader = reader.for_reads(ReadKind::Batched);
        let values = Some(Values(into_arrays(requests)));
        for row in reader.query_all_raw(Statement { sql, values, db_backend: DbBackend::Postgres }).await? {
            let number: i64 = row.try_get("", NUMBER)?;
            rows_by_request[(number - 1).unsigned_abs() as usize].push(row);
        }
        Ok(rows_by_request)
    }
}

/// The column with the number of the request that a row belongs to. The first request has the number 1.
const NUMBER: &str = "number";

/// Builds the query whose parameters are arrays. The module docs of `batch` show an example.
fn batch_sql<const N: usize>(select: impl Fn([SimpleExpr; N]) -> SelectStatement) -> String {
    let columns: [_; N] = std::array::from_fn(|index| format!("value_{index}"));
    let arrays: Vec<_> = (1..=N).map(|number| format!("${number}")).collect();
    let query = select(columns.clone().map(|column| Expr::col((Alias::new("request"), Alias::new(column)))));
    format!(
        "SELECT found.*, {NUMBER} FROM unnest({}) WITH ORDINALITY AS request ({}, {NUMBER}) CROSS JOIN LATERAL ({}) AS found",
        arrays.join(", "),
        columns.join(", "),
        with_literals(DbBackend::Postgres, &query),
    )
}

#[cfg(test)]
mod tests {
    use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SimpleExpr};

    use super::batch_sql;

    #[test]
    fn a_batched_query_takes_arrays_and_numbers_its_rows() {
        let column = |name: &'static str| Expr::col(Alias::new(name));
        let select = |[operator, email]: [SimpleExpr; 2]| {
            let mut select = Query::select();
            select.column(Alias::new("id")).from(Alias::new("customer"));
            select.and_where(column("operator_id").eq(operator)).and_where(column("email").eq(email)).take()
        };
        assert_eq!(
            batch_sql(select),
            "SELECT found.*, number FROM unnest($1, $2) WITH ORDINALITY AS request (value_0, value_1, number) \
             CROSS JOIN LATERAL (SELECT \"id\" FROM \"customer\" WHERE \"operator_id\" = \"request\".\"value_0\" \
             AND \"email\" = \"request\".\"value_1\") AS found"
        );
    }
}
