//! Statements that are more than what the query builder builds.

use std::fmt::{Arguments, Write};
use std::sync::OnceLock;

use sea_orm::sea_query::{
    PostgresQueryBuilder, QueryBuilder, QueryStatementBuilder, SelectStatement, SqlWriterValues, SqliteQueryBuilder,
    Value, Values,
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

/// The text of a statement that differs in its values alone: it takes longer to build than to send.
#[derive(Default)]
pub struct Text(OnceLock<String>);

impl Text {
    /// The statement with these values, in the order in which they stand in it.
    pub fn with<const N: usize>(
        &self,
        backend: DbBackend,
        values: [Value; N],
        build: impl FnOnce() -> SelectStatement,
    ) -> Statement {
        let sql = self.0.get_or_init(|| backend.build(&build()).sql).clone();
        Statement { sql, values: Some(Values(values.into())), db_backend: backend }
    }
}
