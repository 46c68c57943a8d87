//! Looks of many requests for a row each, made as one.

use std::mem::{self, ManuallyDrop};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sea_orm::sea_query::{Alias, ArrayType, Expr, SelectStatement, SimpleExpr, Value, Values};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement};
use tokio::sync::oneshot;
use tokio::task;

use super::connection::count_statement;
use super::{Reads, Sql};

/// Finds a row by two values, with a statement that is always the same.
///
/// Most of what a small statement costs is its way to the database and back. What requests look for at the same moment is
/// therefore looked for together, where the database takes lists of values; each is told its own row alone.
#[derive(Default)]
pub struct Finder {
    /// Texts of statements, which take longer to build than to send.
    alone: OnceLock<String>,
    together: OnceLock<String>,
    waiting: Mutex<Vec<Look>>,
}

struct Look {
    values: [Value; 2],
    tell: oneshot::Sender<Found>,
}

type Found = Result<Option<QueryResult>, DbErr>;

/// Looks that somebody is about to make. Should that one give up, those who ask are told nothing.
struct Gathering<'a>(&'a Mutex<Vec<Look>>);

impl Finder {
    /// The one row, if any, that the statement finds with these values.
    pub async fn find(
        &self,
        reads: &Reads,
        values: [Value; 2],
        statement: impl Fn([SimpleExpr; 2]) -> SelectStatement,
    ) -> Result<Option<QueryResult>, DbErr> {
        if reads.get_database_backend() != DbBackend::Postgres {
            return self.find_alone(reads, values, statement).await;
        }
        let (tell, told) = oneshot::channel();
        if self.ask(Look { values: values.clone(), tell }) {
            let gathering = Gathering(&self.waiting);
            // Whoever can go on meanwhile does, and may ask as well.
            task::yield_now().await;
            let (values, asking) = gathering.end().into_iter().map(|look| (look.values, look.tell)).unzip();
            tell_each(asking, self.find_together(reads, values, &statement).await);
        } else {
            count_statement();
        }
        match told.await {
            Ok(found) => found,
            Err(_) => self.find_alone(reads, values, statement).await,
        }
    }

    /// Whether it is the first of those that wait.
    fn ask(&self, look: Look) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.push(look);
        waiting.len() == 1
    }

    async fn find_alone(
        &self,
        reads: &Reads,
        values: [Value; 2],
        statement: impl Fn([SimpleExpr; 2]) -> SelectStatement,
    ) -> Result<Option<QueryResult>, DbErr> {
        let backend = reads.get_database_backend();
        let sql =
            self.alone.get_or_init(|| backend.build(&statement(values.clone().map(SimpleExpr::from))).sql).clone();
        reads.query_one_raw(Statement { sql, values: Some(Values(values.into())), db_backend: backend }).await
    }

    /// The rows, each with the number of the values that it was found with.
    async fn find_together(
        &self,
        reads: &Reads,
        values: Vec<[Value; 2]>,
        statement: impl Fn([SimpleExpr; 2]) -> SelectStatement,
    ) -> Result<Vec<(usize, QueryResult)>, DbErr> {
        let values = match <[_; 1]>::try_from(values) {
            Ok([values]) => {
                let row = self.find_alone(reads, values, statement).await?;
                return Ok(row.map(|row| (0, row)).into_iter().collect());
            }
            Err(values) => values,
        };
        let sql = self.together.get_or_init(|| together(statement)).clone();
        let (first, second) = values.into_iter().map(|[first, second]| (first, second)).unzip();
        let values = Some(Values(vec![list(first), list(second)]));
        let rows = reads.query_all_raw(Statement { sql, values, db_backend: DbBackend::Postgres }).await?;
        let numbered = |row: QueryResult| {
            let number: i64 = row.try_get("", NUMBER)?;
            Ok((usize::try_from(number - 1).unwrap_or(usize::MAX), row))
        };
        rows.into_iter().map(numbered).collect()
    }
}

impl Gathering<'_> {
    /// Those who ask until now. Whoever comes next is the first of others.
    fn end(self) -> Vec<Look> {
        let gathering = ManuallyDrop::new(self);
        mem::take(&mut *lock(gathering.0))
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        lock(self.0).clear();
    }
}

/// Tells each of those who asked what was found for it.
fn tell_each(asking: Vec<oneshot::Sender<Found>>, found: Result<Vec<(usize, QueryResult)>, DbErr>) {
    let mut asking: Vec<_> = asking.into_iter().map(Some).collect();
    let (rows, others) = match found {
        Ok(rows) => (rows, Ok(())),
        Err(error) => (Vec::new(), Err(error)),
    };
    for (number, row) in rows {
        if let Some(tell) = asking.get_mut(number).and_then(Option::take) {
            let _ = tell.send(Ok(Some(row)));
        }
    }
    for tell in asking.into_iter().flatten() {
        let _ = tell.send(others.clone().map(|()| None));
    }
}

/// The column of a row with the place of its values among all.
const NUMBER: &str = "number";

/// The same statement for lists of values.
fn together(statement: impl Fn([SimpleExpr; 2]) -> SelectStatement) -> String {
    let each = ["first", "second"].map(|value| Expr::col((Alias::new("each"), Alias::new(value))));
    let mut sql = Sql::new(DbBackend::Postgres);
    sql.text(format_args!(
        "SELECT found.*, {NUMBER} FROM unnest($1, $2) WITH ORDINALITY AS each (first, second, {NUMBER}) CROSS JOIN LATERAL ("
    ));
    sql.statement(&statement(each));
    sql.text(format_args!(") AS found"));
    Statement::from(sql).sql
}

/// A list of values of one kind.
fn list(values: Vec<Value>) -> Value {
    let kind = values.first().map_or(ArrayType::String, Value::array_type);
    Value::Array(kind, Some(Box::new(values)))
}

fn lock(waiting: &Mutex<Vec<Look>>) -> MutexGuard<'_, Vec<Look>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
