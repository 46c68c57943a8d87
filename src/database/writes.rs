//! What is to be written, all or none, when all is known.

use sea_orm::sea_query::{InsertStatement, UpdateStatement};
use sea_orm::{DbBackend, DbErr, ExecResult, RuntimeErr, Statement, sqlx};

use super::Sql;

/// What is to be written. No statement sees what the others write.
#[derive(Default)]
pub struct Writes(Vec<Write>);

struct Write {
    what: What,
    /// Whether the race is lost, and nothing may be written at all, if this finds no row to write.
    is_decisive: bool,
}

pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) is_decisive: bool,
}

enum What {
    Insert(InsertStatement),
    Update(UpdateStatement),
}

impl Writes {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, statement: InsertStatement) {
        self.0.push(Write { what: What::Insert(statement), is_decisive: false });
    }

    /// Inserts a row unless another was faster.
    pub fn insert_first(&mut self, statement: InsertStatement) {
        self.0.push(Write { what: What::Insert(statement), is_decisive: true });
    }

    /// Updates a row unless another was faster.
    pub fn update_first(&mut self, statement: UpdateStatement) {
        self.0.push(Write { what: What::Update(statement), is_decisive: true });
    }

    /// The statements that write it, to be sent one after the other; if they are several, in a transaction.
    pub(super) fn build(self, backend: DbBackend) -> Vec<Prepared> {
        if backend == DbBackend::Postgres {
            return self.as_one().map(|statement| Prepared { statement, is_decisive: false }).into_iter().collect();
        }
        let build = |Write { what, is_decisive }| {
            let statement = match &what {
                What::Insert(statement) => backend.build(statement),
                What::Update(statement) => backend.build(statement),
            };
            Prepared { statement, is_decisive }
        };
        self.0.into_iter().map(build).collect()
    }

    /// All of it as one statement of PostgreSQL, since most of what a small one costs is its way there and back. It divides
    /// by how many rows the decisive ones found, so that it fails as a whole where one of them found none.
    fn as_one(&self) -> Option<Statement> {
        if self.is_empty() {
            return None;
        }
        let mut sql = Sql::new(DbBackend::Postgres);
        let mut won = "1".to_owned();
        for (number, Write { what, is_decisive }) in self.0.iter().enumerate() {
            let with = if number == 0 { "WITH" } else { ", " };
            sql.text(format_args!("{with} write_{number} AS ("));
            match what {
                What::Insert(statement) => sql.statement(statement),
                What::Update(statement) => sql.statement(statement),
            }
            if *is_decisive {
                sql.text(format_args!(" RETURNING 1"));
                won += &format!(" / (SELECT COUNT(*) FROM write_{number})");
            }
            sql.text(format_args!(")"));
        }
        sql.text(format_args!(" SELECT {won}"));
        Some(sql.into())
    }
}

impl Prepared {
    /// What became of it: a lost race is [`DbErr::RecordNotUpdated`].
    pub(super) fn judge(is_decisive: bool, sent: Result<ExecResult, DbErr>) -> Result<(), DbErr> {
        match sent {
            Ok(written) if is_decisive && written.rows_affected() == 0 => Err(DbErr::RecordNotUpdated),
            Err(error) if is_division_by_zero(&error) => Err(DbErr::RecordNotUpdated),
            sent => sent.map(drop),
        }
    }
}

fn is_division_by_zero(error: &DbErr) -> bool {
    matches!(error, DbErr::Exec(RuntimeErr::SqlxError(error))
        if matches!(&**error, sqlx::Error::Database(error) if error.code().as_deref() == Some("22012")))
}
