//! What is to be written, all or none, when all is known.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use entity::value::OperatorId;
use sea_orm::sea_query::{
    Alias, Expr, InsertStatement, PostgresQueryBuilder, Query, SelectStatement, SqliteQueryBuilder, UpdateStatement,
    Value, Values,
};
use sea_orm::{
    DbBackend, DbErr, EntityTrait, ExecResult, IdenStatic, Iterable, ModelTrait, RuntimeErr, Statement, sqlx,
};
use uuid::Uuid;

use super::arrays::lists;

/// What is to be written. No statement sees what the others write.
#[derive(Clone)]
pub struct WriteBatch {
    owner: OperatorId,
    all: Vec<Write>,
}

#[derive(Clone)]
struct Write {
    command: WriteStatement,
    rows: Vec<Vec<Value>>,
}

/// How rows are written: by a statement that finds them in a table.
#[derive(Clone, Copy)]
pub struct WriteStatement {
    /// Projection it from all others.
    pub name: &'static str,
    /// The columns of the table that it finds the rows in.
    pub columns: fn() -> Vec<&'static str>,
    /// WriteBatch what is in the table of this name.
    pub statement: fn(&Alias) -> Dml,
    /// Whether the race is lost, and nothing may be written at all, where it leaves out a row.
    pub must_write_all: bool,
}

/// One, and until the end of the transaction no lock is waited for any longer, which is less than it takes PostgreSQL to look
/// for a deadlock. What several requests write divides this, so that it comes first: were one of them kept waiting, so would
/// be the others.
const BRIEFLY: &str = "(SELECT 1 FROM set_config('lock_timeout', '100ms', true))";

pub enum Dml {
    Insert(InsertStatement),
    Update(UpdateStatement),
}

/// Whose writes they are, and how they are written.
pub(in crate::database) type BatchKey = (OperatorId, Vec<&'static str>);

pub(in crate::database) struct Prepared {
    pub(in crate::database) statement: Statement,
    /// How many rows it must write, or else the race is lost.
    pub(in crate::database) decisive: Option<u64>,
}

impl WriteStatement {
    /// Inserts rows with all their columns.
    pub fn insert<E: EntityTrait>() -> Self {
        fn columns<E: EntityTrait>() -> Vec<&'static str> {
            E::Column::iter().map(|column| column.as_str()).collect()
        }
        fn statement<E: EntityTrait>(new: &Alias) -> Dml {
            let rows = Query::select().exprs(E::Column::iter().map(Expr::col)).from(new.clone()).take();
            Dml::Insert(insert_from_select::<E>(rows))
        }
        let name = E::default().table_name();
        Self { name, columns: columns::<E>, statement: statement::<E>, must_write_all: false }
    }
}

impl WriteBatch {
    /// What is to be written for this operator. Others never wait for it, nor fail with it.
    pub fn new(owner: OperatorId) -> Self {
        Self { owner, all: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Inserts rows of which everything is known.
    pub fn insert<M: ModelTrait>(&mut self, rows: impl IntoIterator<Item = M>) {
        self.push(WriteStatement::insert::<M::Entity>(), rows.into_iter().map(|row| row_values(&row)).collect());
    }

    /// WriteBatch rows with the columns of the command.
    pub fn push(&mut self, command: WriteStatement, rows: Vec<Vec<Value>>) {
        if !rows.is_empty() {
            self.all.push(Write { command, rows });
        }
    }

    pub(in crate::database) fn kind(&self) -> BatchKey {
        (self.owner, self.all.iter().map(|write| write.command.name).collect())
    }

    /// All that is to be written of the same kind.
    pub(in crate::database) fn together(several: &[Self]) -> Self {
        let mut several: Vec<_> = several.iter().collect();
        // In the same order everywhere, so that two who write the same rows do not wait for each other.
        several.sort_by_key(|writes| match writes.all.first().and_then(|write| write.rows.first()?.first()) {
            Some(Value::Uuid(id)) => *id,
            _ => None,
        });
        let both = |mut one: Self, other: Self| {
            for (write, other) in one.all.iter_mut().zip(other.all) {
                write.rows.extend(other.rows);
            }
            one
        };
        several.into_iter().cloned().reduce(both).unwrap_or_else(|| Self::new(Uuid::nil().into()))
    }

    /// The statements that write it, to be sent one after the other; if they are several, in a transaction.
    pub(in crate::database) fn build(self, backend: DbBackend) -> Vec<Prepared> {
        if backend == DbBackend::Postgres {
            return if self.is_empty() { Vec::new() } else { vec![self.into_one()] };
        }
        let build = |Write { command, rows }: Write| {
            let decisive = command.must_write_all.then_some(rows.len() as u64);
            let sql = cached_sql(backend, vec![(command.name, rows.len())], || command.for_sqlite(rows.len()));
            let values = Some(Values(rows.into_iter().flatten().collect()));
            Prepared { statement: Statement { sql, values, db_backend: backend }, decisive }
        };
        self.all.into_iter().map(build).collect()
    }

    /// All of it as one statement of PostgreSQL, since most of what a small one costs is its way there and back. It divides
    /// by whether the decisive ones wrote all their rows, so that it fails as a whole where one of them did not. Its text
    /// does not depend on how many rows there are, so that it is prepared once.
    fn into_one(self) -> Prepared {
        let parts: Vec<_> = self.all.iter().map(|write| (write.command.name, write.rows.len().min(2))).collect();
        let sql = cached_sql(DbBackend::Postgres, parts, || self.text());
        let mut values = Vec::new();
        for Write { mut rows, .. } in self.all {
            match rows.as_mut_slice() {
                [row] => values.append(row),
                _ => values.append(&mut lists(rows)),
            }
        }
        let statement = Statement { sql, values: Some(Values(values)), db_backend: DbBackend::Postgres };
        Prepared { statement, decisive: None }
    }

    fn text(&self) -> String {
        let is_shared = self.all.first().is_some_and(|write| write.rows.len() > 1);
        let (mut sql, mut won, mut holders) = (String::new(), if is_shared { BRIEFLY } else { "1" }.to_owned(), 1..);
        for (number, Write { command, rows }) in self.all.iter().enumerate() {
            let new = format!("new_{number}");
            let columns = quoted((command.columns)());
            let first = holders.start;
            let values: Vec<_> = holders.by_ref().take(columns.len()).map(|holder| format!("${holder}")).collect();
            let (values, columns) = (values.join(", "), columns.join(", "));
            let (source, rows) = match rows.as_slice() {
                [_] => (format!("VALUES ({values})"), "1".to_owned()),
                _ => (format!("SELECT * FROM unnest({values})"), format!("cardinality(${first})")),
            };
            let change = (command.statement)(&Alias::new(&new)).to_sql(DbBackend::Postgres);
            let with = if number == 0 { "WITH" } else { "," };
            let returning = if command.must_write_all { " RETURNING 1" } else { "" };
            let _ = write!(sql, "{with} {new} ({columns}) AS ({source}), write_{number} AS ({change}{returning})");
            if command.must_write_all {
                let _ = write!(won, " / ((SELECT COUNT(*) FROM write_{number}) = {rows})::int");
            }
        }
        sql + " SELECT " + &won
    }
}

/// The values of a row, in the order of its columns.
pub fn row_values<M: ModelTrait>(row: &M) -> Vec<Value> {
    <M::Entity as EntityTrait>::Column::iter().map(|column| row.get(column)).collect()
}

/// Inserts rows that have all columns of the entity, in their order. Where it goes on with `ON CONFLICT` they need a `WHERE`:
/// SQLite would take the `ON` for that of a join.
pub fn insert_from_select<E: EntityTrait>(rows: SelectStatement) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table(E::default().table_ref()).columns(E::Column::iter());
    let inserted = insert.select_from(rows).map(|_| ());
    debug_assert_eq!(inserted, Ok(()), "as many columns as the entity has");
    insert
}

impl WriteStatement {
    fn for_sqlite(&self, rows: usize) -> String {
        let columns = quoted((self.columns)());
        let row = format!("({})", vec!["?"; columns.len()].join(", "));
        let change = (self.statement)(&Alias::new("new")).to_sql(DbBackend::Sqlite);
        format!("WITH new ({}) AS (VALUES {}) {change}", columns.join(", "), vec![row; rows].join(", "))
    }
}

impl Dml {
    /// Its text, in which there are no values but those of the program.
    fn to_sql(&self, backend: DbBackend) -> String {
        match (self, backend) {
            (Self::Insert(statement), DbBackend::Postgres) => statement.to_string(PostgresQueryBuilder),
            (Self::Update(statement), DbBackend::Postgres) => statement.to_string(PostgresQueryBuilder),
            (Self::Insert(statement), _) => statement.to_string(SqliteQueryBuilder),
            (Self::Update(statement), _) => statement.to_string(SqliteQueryBuilder),
        }
    }
}

impl Prepared {
    /// What became of it: a lost race is [`DbErr::RecordNotUpdated`].
    pub(in crate::database) fn check(decisive: Option<u64>, sent: Result<ExecResult, DbErr>) -> Result<(), DbErr> {
        match sent {
            Ok(written) if decisive.is_some_and(|rows| written.rows_affected() < rows) => Err(DbErr::RecordNotUpdated),
            Err(error) if is_division_by_zero(&error) => Err(DbErr::RecordNotUpdated),
            sent => sent.map(drop),
        }
    }
}

/// The text of a statement that writes with these commands, each so many rows, which takes longer to build than to send.
fn cached_sql(backend: DbBackend, parts: Vec<(&'static str, usize)>, build: impl FnOnce() -> String) -> String {
    type Texts = HashMap<(bool, Vec<(&'static str, usize)>), String>;
    static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.entry((backend == DbBackend::Postgres, parts)).or_insert_with(build).clone()
}

fn quoted(columns: Vec<&'static str>) -> Vec<String> {
    columns.into_iter().map(|column| format!("\"{column}\"")).collect()
}

fn is_division_by_zero(error: &DbErr) -> bool {
    matches!(error, DbErr::Exec(RuntimeErr::SqlxError(error))
        if matches!(&**error, sqlx::Error::Database(error) if error.code().as_deref() == Some("22012")))
}
