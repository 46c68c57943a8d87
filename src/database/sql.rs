//! Statements that are more than what the query builder builds.

use std::fmt::{Arguments, Write};

use sea_orm::sea_query::{
    PostgresQueryBuilder, QueryBuilder, QueryStatementBuilder, SqlWriterValues, SqliteQueryBuilder,
};
use sea_orm::{DbBackend, Statement};

/// Text by hand around statements that are built, with all their values.
pub struct Sql {
    backend: DbBackend,
    written: SqlWriterValues,
}

impl Sql {
    pub fn new(backend: DbBackend) -> Self {
        let (placeholder, numbered) = if backend == DbBackend::Postgres {
            PostgresQueryBuilder.placeholder()
        } else {
            SqliteQueryBuilder.placeholder()
        };
        Self { backend, written: SqlWriterValues::new(placeholder, numbered) }
    }

    pub fn text(&mut self, text: Arguments<'_>) {
        let _ = self.written.write_fmt(text);
    }

    pub fn statement(&mut self, statement: &impl QueryStatementBuilder) {
        if self.backend == DbBackend::Postgres {
            statement.build_collect_any_into(&PostgresQueryBuilder, &mut self.written);
        } else {
            statement.build_collect_any_into(&SqliteQueryBuilder, &mut self.written);
        }
    }
}

impl From<Sql> for Statement {
    fn from(Sql { backend, written }: Sql) -> Self {
        let (sql, values) = written.into_parts();
        Self { sql, values: Some(values), db_backend: backend }
    }
}
