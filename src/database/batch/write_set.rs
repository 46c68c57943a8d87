//! Rows to be written, and the SQL that writes them: one statement on PostgreSQL, at least one per [`WriteStatement`]
//! on SQLite.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::iter;
use std::sync::LazyLock;

use entity::value::{CustomerId, OperatorId};
use parking_lot::Mutex;
use sea_orm::sea_query::{Alias, Value, Values};
use sea_orm::{DbBackend, EntityTrait, IdenStatic, Iterable, ModelTrait, Statement, StatementBuilder};

use super::statements::insert_from_cte;
use crate::database::arrays::{fits_in_array, into_arrays};

/// The rows that one request writes: all of them, or none. A batch merges the write sets of several requests into one.
///
/// On PostgreSQL all [`WriteStatement`]s of this set become parts of one SQL statement, so none of them sees the rows
/// that another one writes. Only the sets in `earlier` are written first, each by a separate SQL statement. On SQLite
/// the statements run in the order in which they were pushed, and each statement sees the rows of the earlier
/// statements. Push the statements in an order that gives the same result on both databases.
#[derive(Clone)]
pub struct WriteSet {
    owner: OperatorId,
    /// The customer that the rows belong to. Batches write their sets in this order.
    customer: CustomerId,
    writes: Vec<Write>,
    /// The sets to write before this set, in this order: in the same transaction, but in separate statements.
    pub(in crate::database) earlier: Vec<WriteSet>,
}

#[derive(Clone)]
struct Write {
    statement: WriteStatement,
    rows: Vec<Vec<Value>>,
}

/// An `INSERT`, `UPDATE` or `DELETE` that takes its rows from a common table expression.
#[derive(Clone, Copy)]
pub struct WriteStatement {
    /// The unique name of the statement. It is part of the batch key, and of the key under which the SQL is cached.
    pub name: &'static str,
    /// The columns of the common table expression, and of each row that is pushed.
    pub columns: fn() -> Vec<&'static str>,
    /// Builds the statement. The first argument is the name of the common table expression. Literals become part of the
    /// text of the statement, so they must be constants and never input.
    pub build: fn(&Alias, DbBackend) -> Box<dyn StatementBuilder>,
    /// Aborts all writes of the request, and of its batch, if this statement affects fewer rows than it was given. Each
    /// given row must then affect at most one row: in a batch, a further row would hide the missing row of another
    /// member.
    pub must_write_all: bool,
}

/// The owner of a write set, and the names of its statements. Write sets with the same key can be merged.
pub(super) type BatchKey = (OperatorId, Vec<&'static str>);

impl WriteStatement {
    /// Inserts rows of an entity. Every row has all columns.
    fn insert<E: EntityTrait>() -> Self {
        Self {
            name: E::default().table_name(),
            columns: || E::Column::iter().map(|column| column.as_str()).collect(),
            build: |cte, _| Box::new(insert_from_cte::<E>(cte)),
            must_write_all: false,
        }
    }

    /// Builds the SQL of the statement itself, for rows in the common table expression `cte`.
    fn dml(&self, cte: &str, backend: DbBackend) -> Statement {
        (self.build)(&Alias::new(cte), backend).build(&backend)
    }

    /// Builds the SQL that writes `row_count` rows on SQLite.
    fn sqlite_sql(&self, row_count: usize) -> String {
        let columns = quoted((self.columns)());
        let row = format!("({})", vec!["?"; columns.len()].join(", "));
        let dml = self.dml("new", DbBackend::Sqlite);
        format!("WITH new ({}) AS (VALUES {}) {dml}", columns.join(", "), vec![row; row_count].join(", "))
    }
}

impl WriteSet {
    /// Creates an empty set for a request that changes, creates or erases this customer. `owner` is the operator of the
    /// request, or the nil id for the platform. Only sets of the same owner share a batch.
    pub fn new(owner: OperatorId, customer: CustomerId) -> Self {
        Self { owner, customer, writes: Vec::new(), earlier: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.earlier.is_empty()
    }

    /// Returns the number of rows that were pushed to this set. Some statements write one row for each operator of a
    /// customer. These rows are not counted, because the number would tell an operator how many others there are.
    pub(in crate::database) fn row_count(&self) -> u64 {
        let earlier: u64 = self.earlier.iter().map(Self::row_count).sum();
        earlier + self.writes.iter().map(|write| write.rows.len() as u64).sum::<u64>()
    }

    /// Adds a set to write before this set and after the sets that were added before, in the same transaction.
    /// Necessary if this set stores a unique value that `set` removes: PostgreSQL checks uniqueness row by row, and may
    /// execute the parts of one statement in any order. Also useful for writes that would take too long in one
    /// statement.
    pub fn add_earlier(&mut self, set: Self) {
        self.earlier.push(set);
    }

    /// Adds rows to be inserted.
    pub fn insert<M: ModelTrait>(&mut self, rows: impl IntoIterator<Item = M>) {
        self.push(WriteStatement::insert::<M::Entity>(), rows.into_iter().map(|row| row_values(&row)).collect());
    }

    /// Adds rows to be written by `statement`. Each row has one value for each column of `statement`. Does nothing if
    /// there are no rows.
    pub fn push(&mut self, statement: WriteStatement, rows: Vec<Vec<Value>>) {
        debug_assert!(
            rows.iter().all(|row| row.len() == (statement.columns)().len()),
            "a row of `{}` must have one value for each column",
            statement.name
        );
        debug_assert!(
            rows.iter().flatten().all(fits_in_array),
            "`{}` has a value of a type that `add_for` does not encode",
            statement.name
        );
        if !rows.is_empty() {
            self.writes.push(Write { statement, rows });
        }
    }

    pub(super) fn key(&self) -> BatchKey {
        (self.owner, self.writes.iter().map(|write| write.statement.name).collect())
    }

    /// Merges sets that have the same key, and no earlier sets, into one set. Returns `None` if `sets` is empty.
    pub(super) fn merge(sets: &[Self]) -> Option<Self> {
        debug_assert!(sets.iter().all(|set| set.earlier.is_empty()), "{LOST_EARLIER}");
        let mut sets: Vec<_> = sets.iter().collect();
        // Every batch writes its customers in the order of the customer ids. This avoids most deadlocks between
        // batches.
        sets.sort_by_key(|set| set.customer);
        let append = |mut merged: Self, set: Self| {
            for (write, more) in merged.writes.iter_mut().zip(set.writes) {
                write.rows.extend(more.rows);
            }
            merged
        };
        sets.into_iter().cloned().reduce(append)
    }

    /// Builds the statements for SQLite, each with the number of rows that it must affect. A write with too many values
    /// for one statement becomes several statements. The set must have no earlier sets.
    pub(in crate::database) fn into_sqlite_statements(self) -> impl Iterator<Item = (Statement, usize)> {
        debug_assert!(self.earlier.is_empty(), "{LOST_EARLIER}");
        self.writes.into_iter().flat_map(|Write { statement, rows }| {
            let max_rows = MAX_SQLITE_VALUES / (statement.columns)().len();
            let mut rows = rows.into_iter();
            iter::from_fn(move || {
                let rows: Vec<_> = rows.by_ref().take(max_rows).collect();
                let row_count = rows.len();
                let shape = Shape { is_for_postgres: false, writes: vec![(statement.name, row_count)] };
                let sql = (row_count > 0).then(|| cached_sql(shape, || statement.sqlite_sql(row_count)))?;
                let values = Some(Values(rows.into_iter().flatten().collect()));
                let must_affect = if statement.must_write_all { row_count } else { 0 };
                Some((Statement { sql, values, db_backend: DbBackend::Sqlite }, must_affect))
            })
        })
    }

    /// Builds one statement for PostgreSQL. If a write has more than [`MAX_LISTED_ROWS`] rows, the text does not depend
    /// on their number, so that few texts are prepared. The set must have no earlier sets.
    pub(in crate::database) fn into_postgres_statement(self) -> Statement {
        debug_assert!(self.earlier.is_empty(), "{LOST_EARLIER}");
        let write = |write: &Write| (write.statement.name, write.rows.len().min(MAX_LISTED_ROWS + 1));
        let shape = Shape { is_for_postgres: true, writes: self.writes.iter().map(write).collect() };
        let sql = cached_sql(shape, || self.postgres_sql());
        let mut values = Vec::new();
        for Write { rows, .. } in self.writes {
            if rows.len() <= MAX_LISTED_ROWS {
                values.extend(rows.into_iter().flatten());
            } else {
                values.append(&mut into_arrays(rows));
            }
        }
        Statement { sql, values: Some(Values(values)), db_backend: DbBackend::Postgres }
    }

    /// Builds the SQL for PostgreSQL. The module docs of `batch` show an example.
    ///
    /// The SQL ends in `SELECT 1`, followed by `/ all_rows_written::int` for each statement with `must_write_all`. If a
    /// row is missing, the divisor is 0, and the error rolls back the whole SQL statement.
    fn postgres_sql(&self) -> String {
        let mut sql = String::new();
        let mut result = "1".to_owned();
        let mut next_placeholder = 1;
        for (index, Write { statement, rows }) in self.writes.iter().enumerate() {
            let cte = format!("new_{index}");
            let columns = quoted((statement.columns)());
            let first = next_placeholder;
            let mut placeholders = || {
                let of_row = next_placeholder..next_placeholder + columns.len();
                next_placeholder = of_row.end;
                of_row.map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
            };
            let (source, row_count) = if rows.len() <= MAX_LISTED_ROWS {
                let listed: Vec<_> = rows.iter().map(|_| format!("({})", placeholders())).collect();
                (format!("VALUES {}", listed.join(", ")), rows.len().to_string())
            } else {
                (format!("SELECT * FROM unnest({})", placeholders()), format!("cardinality(${first})"))
            };
            let columns = columns.join(", ");
            let dml = statement.dml(&cte, DbBackend::Postgres);
            let with = if index == 0 { "WITH" } else { "," };
            let returning = if statement.must_write_all { " RETURNING 1" } else { "" };
            let _ = write!(sql, "{with} {cte} ({columns}) AS ({source}), write_{index} AS ({dml}{returning})");
            if statement.must_write_all {
                let _ = write!(result, " / ((SELECT COUNT(*) FROM write_{index}) = {row_count})::int");
            }
        }
        sql + " SELECT " + &result
    }
}

const LOST_EARLIER: &str = "the earlier sets must be written first, because their rows would be lost here";

/// Rows up to this number are listed in `VALUES`, which costs PostgreSQL less than one array per column: 160 instead of
/// 170 µs for the statement of an update. A create writes two rows of the feed, and many updates write one or two
/// words.
const MAX_LISTED_ROWS: usize = 2;

/// Returns the values of a row, in the order of the entity's columns.
pub fn row_values<M: ModelTrait>(row: &M) -> Vec<Value> {
    <M::Entity as EntityTrait>::Column::iter().map(|column| row.get(column)).collect()
}

/// Everything that the text of a statement depends on.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    /// False for SQLite.
    is_for_postgres: bool,
    /// The name and the number of rows of each [`WriteStatement`].
    writes: Vec<(&'static str, usize)>,
}

/// Returns the SQL of this shape. Caches the SQL, because building it takes longer than sending it. SQL for many rows
/// is not cached, because on SQLite each number of rows has its own SQL text.
fn cached_sql(shape: Shape, build: impl FnOnce() -> String) -> String {
    const MAX_ROWS: usize = 64;
    static CACHE: LazyLock<Mutex<HashMap<Shape, String>>> = LazyLock::new(Mutex::default);
    if shape.writes.iter().any(|(_, row_count)| *row_count > MAX_ROWS) {
        return build();
    }
    let cached = CACHE.lock().get(&shape).cloned();
    if let Some(sql) = cached {
        debug_assert_eq!(sql, build(), "two statements have the same name");
        return sql;
    }
    let sql = build();
    CACHE.lock().insert(shape, sql.clone());
    sql
}

/// SQLite allows at most this many values in a statement.
const MAX_SQLITE_VALUES: usize = 32_766;

fn quoted(columns: Vec<&'static str>) -> Vec<String> {
    columns.into_iter().map(|column| format!("\"{column}\"")).collect()
}

#[cfg(test)]
mod tests {
    use entity::customer_word;
    use sea_orm::sea_query::{Expr, ExprTrait, Query};
    use uuid::Uuid;

    use super::*;

    const RENAME: WriteStatement = WriteStatement {
        name: "rename",
        columns: || vec!["id", "name", "revision"],
        build: |cte, _| {
            let column = |name: &'static str| Expr::col(Alias::new(name));
            let of_cte = |name: &'static str| Expr::col((cte.clone(), Alias::new(name)));
            let update = Query::update()
                .table(Alias::new("customer"))
                .values(["name", "revision"].map(|name| (Alias::new(name), of_cte(name))))
                .from(cte.clone())
                .and_where(column("id").eq(of_cte("id")))
                .and_where(column("revision").eq(of_cte("revision").sub(1)))
                .take();
            Box::new(update)
        },
        must_write_all: true,
    };

    fn write_set(id: u128) -> WriteSet {
        let (operator_id, customer_id) = (Uuid::nil().into(), Uuid::from_u128(id).into());
        let mut set = WriteSet::new(operator_id, customer_id);
        set.push(RENAME, vec![vec![customer_id.into(), "Ada".into(), 2.into()]]);
        set.insert([customer_word::Model { operator_id, customer_id, place: 0, word: None }]);
        set
    }

    #[test]
    fn one_request_is_one_statement_of_postgres() {
        let Statement { sql, values, .. } = write_set(7).into_postgres_statement();
        assert_eq!(
            sql,
            r#"WITH new_0 ("id", "name", "revision") AS (VALUES ($1, $2, $3)), "#.to_owned()
                + r#"write_0 AS (UPDATE "customer" SET "name" = "new_0"."name", "revision" = "new_0"."revision" FROM "new_0" "#
                + r#"WHERE "id" = "new_0"."id" AND "revision" = "new_0"."revision" - 1 RETURNING 1), "#
                + r#"new_1 ("operator_id", "customer_id", "place", "word") AS (VALUES ($4, $5, $6, $7)), "#
                + r#"write_1 AS (INSERT INTO "customer_word" ("operator_id", "customer_id", "place", "word") "#
                + r#"SELECT "operator_id", "customer_id", "place", "word" FROM "new_1" WHERE TRUE) "#
                + "SELECT 1 / ((SELECT COUNT(*) FROM write_0) = 1)::int"
        );
        assert_eq!(values.unwrap().0.len(), 7);
    }

    #[test]
    fn one_or_two_rows_are_listed() {
        let sql = |count: u128| {
            let sets: Vec<_> = (1..=count).map(write_set).collect();
            let Statement { sql, values, .. } = WriteSet::merge(&sets).unwrap().into_postgres_statement();
            (sql, values.unwrap().0.len())
        };
        let (two, values) = sql(2);
        assert!(two.contains(r#"("id", "name", "revision") AS (VALUES ($1, $2, $3), ($4, $5, $6)), write_0"#), "{two}");
        assert!(two.contains("AS (VALUES ($7, $8, $9, $10), ($11, $12, $13, $14)), write_1"), "{two}");
        assert!(two.ends_with("SELECT 1 / ((SELECT COUNT(*) FROM write_0) = 2)::int"), "{two}");
        assert_eq!(values, 14);
        assert_eq!(sql(3), sql(4));
    }

    #[test]
    fn merged_requests_are_one_statement_in_the_order_of_their_customers() {
        let merged = WriteSet::merge(&[write_set(9), write_set(7), write_set(8)]).unwrap();
        let Statement { sql, values, .. } = merged.into_postgres_statement();
        // The module docs of `batch` show this statement.
        assert_eq!(
            sql,
            r#"WITH new_0 ("id", "name", "revision") AS (SELECT * FROM unnest($1, $2, $3)), "#.to_owned()
                + r#"write_0 AS (UPDATE "customer" SET "name" = "new_0"."name", "revision" = "new_0"."revision" FROM "new_0" "#
                + r#"WHERE "id" = "new_0"."id" AND "revision" = "new_0"."revision" - 1 RETURNING 1), "#
                + r#"new_1 ("operator_id", "customer_id", "place", "word") AS (SELECT * FROM unnest($4, $5, $6, $7)), "#
                + r#"write_1 AS (INSERT INTO "customer_word" ("operator_id", "customer_id", "place", "word") "#
                + r#"SELECT "operator_id", "customer_id", "place", "word" FROM "new_1" WHERE TRUE) "#
                + "SELECT 1 / ((SELECT COUNT(*) FROM write_0) = cardinality($1))::int"
        );
        let ids = [7, 8, 9].map(|id| Uuid::from_u128(id).into()).to_vec();
        assert_eq!(values.unwrap().0[0], Value::Array(sea_orm::sea_query::ArrayType::Uuid, Some(Box::new(ids))));
    }

    #[test]
    fn rows_of_a_statement_are_one_statement_of_sqlite() {
        assert_eq!(
            RENAME.sqlite_sql(2),
            r#"WITH new ("id", "name", "revision") AS (VALUES (?, ?, ?), (?, ?, ?)) "#.to_owned()
                + r#"UPDATE "customer" SET "name" = "new"."name", "revision" = "new"."revision" FROM "new" "#
                + r#"WHERE "id" = "new"."id" AND "revision" = "new"."revision" - 1"#
        );
    }
}
