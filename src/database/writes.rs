//! What is to be written, all or none, when all is known.

use sea_orm::sea_query::{
    Alias, CommonTableExpression, Expr, ExprTrait, InsertStatement, Query, SubQueryStatement, UpdateStatement,
    WithClause,
};
use sea_orm::{DbBackend, DbErr, ExecResult, RuntimeErr, Statement, sqlx};

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
    fn as_one(self) -> Option<Statement> {
        if self.is_empty() {
            return None;
        }
        let mut with = WithClause::new();
        let mut won = Expr::cust("1");
        for (number, Write { what, is_decisive }) in self.0.into_iter().enumerate() {
            let name = Alias::new(format!("write_{number}"));
            if is_decisive {
                let rows = Query::select().expr(Expr::cust("COUNT(*)")).from(name.clone()).take();
                won = won.div(Expr::from(rows));
            }
            with.cte(CommonTableExpression::new().table_name(name).query(what.returning(is_decisive)).to_owned());
        }
        Some(DbBackend::Postgres.build(&with.query(Query::select().expr(won).take())))
    }
}

impl What {
    fn returning(self, returns: bool) -> SubQueryStatement {
        let one = || Query::returning().expr(Expr::cust("1"));
        match self {
            Self::Insert(mut statement) if returns => statement.returning(one()).take().into(),
            Self::Insert(statement) => statement.into(),
            Self::Update(mut statement) if returns => statement.returning(one()).take().into(),
            Self::Update(statement) => statement.into(),
        }
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
