//! SQL that the query builder does not build, or builds only in a long form, and a column that SeaORM reads only
//! slowly.

use std::fmt::{Arguments, Write};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{
    Expr, ExprTrait, PostgresQueryBuilder, QueryStatementBuilder, SelectStatement, SimpleExpr, SqlWriterValues,
    SqliteQueryBuilder, Value, ValueType,
};
use sea_orm::sqlx::Row;
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, DbErr, QueryResult, RuntimeErr, Statement};

/// Builds a [`Statement`] from text and built statements. Numbers the placeholders on PostgreSQL, and collects the
/// values.
pub struct Sql {
    backend: DbBackend,
    writer: SqlWriterValues,
}

impl Sql {
    pub fn new(backend: DbBackend) -> Self {
        let (placeholder, is_numbered) = if backend == DbBackend::Postgres { ("$", true) } else { ("?", false) };
        Self { backend, writer: SqlWriterValues::new(placeholder, is_numbered) }
    }

    /// Appends text as it is. Never pass text that a caller has sent.
    pub fn text(&mut self, text: Arguments<'_>) {
        let _ = self.writer.write_fmt(text);
    }

    /// Appends a built statement with placeholders for its values.
    pub fn statement(&mut self, statement: &impl QueryStatementBuilder) {
        if self.backend == DbBackend::Postgres {
            statement.build_collect_any_into(&PostgresQueryBuilder, &mut self.writer);
        } else {
            statement.build_collect_any_into(&SqliteQueryBuilder, &mut self.writer);
        }
    }
}

/// Returns the value that `select` finds, or null if it finds no row: `(SELECT …)`.
pub fn subquery(select: SelectStatement) -> SimpleExpr {
    SimpleExpr::SubQuery(None, Box::new(select.into()))
}

/// Matches the rows that have one of these values in `column`. PostgreSQL receives one array, and SQLite a list.
///
/// The list has a length that is a power of two: its last value is repeated. Each length is another SQL statement, and
/// a connection caches only some prepared statements.
pub fn is_one_of<V: ValueType + Into<Value>>(
    connection: &impl ConnectionTrait,
    column: impl ColumnTrait,
    values: impl IntoIterator<Item = V>,
) -> SimpleExpr {
    let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
    if connection.get_database_backend() == DbBackend::Postgres {
        let array = Value::Array(V::array_type(), Some(Box::new(values)));
        return column.into_expr().eq(PgFunc::any(Expr::val(array)));
    }
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    column.is_in(values)
}

/// Builds a query whose values become part of its text, so the values must be constants and never input.
pub fn with_literals(backend: DbBackend, query: &SelectStatement) -> String {
    if backend == DbBackend::Postgres {
        query.to_string(PostgresQueryBuilder)
    } else {
        query.to_string(SqliteQueryBuilder)
    }
}

/// Reads a time that is null in most rows. `QueryResult::try_get_by_index` formats an error for each null, which takes
/// several times as long.
pub fn try_get_time(row: &QueryResult, column: usize) -> Result<Option<DateTime<Utc>>, DbErr> {
    let time = match (row.try_as_pg_row(), row.try_as_sqlite_row()) {
        (Some(row), _) => row.try_get(column),
        (None, Some(row)) => row.try_get(column),
        (None, None) => return row.try_get_by_index(column),
    };
    time.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))
}

impl From<Sql> for Statement {
    fn from(Sql { backend, writer }: Sql) -> Self {
        let (sql, values) = writer.into_parts();
        Self { sql, values: Some(values), db_backend: backend }
    }
}
