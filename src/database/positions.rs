//! Positions in the feed of changes (`entity::customer_change`).
//!
//! A reader remembers the position of the last change that it has seen, and asks for the changes after it. The reader
//! would miss a change with a smaller position that becomes visible later. Numbers of a sequence have this fault on
//! PostgreSQL: a transaction takes a number before it commits, and the transaction with the next number may commit
//! first.
//!
//! - **PostgreSQL**: the position is the id of the writing transaction, raised by `deployment.feed_base`. Readers see
//!   only positions below the [`horizon`]: the id of the oldest transaction that has not ended. No change below the
//!   horizon can become visible later. A long transaction, even in another database of the same server, delays the
//!   feed, but no change is lost.
//! - **SQLite**: transactions that write run one after the other. The position is one more than the platform's last position,
//!   because the platform has a row for each change. The platform's last row is never deleted, so no position is used twice.
//!
//! Positions of one customer must also be in the order of its versions. On SQLite they are. PostgreSQL gives a
//! transaction its id when it locks or writes its first row. Later the transaction may find rows that a transaction
//! with a larger id has changed meanwhile. [`is_written_before`] refuses to change such a row.

use entity::customer_change;
use sea_orm::sea_query::{Expr, ExprTrait, Func, Query, SimpleExpr};
use sea_orm::{ColumnTrait, DbBackend};

/// The SQL that reads `deployment.feed_base`.
const BASE: &str = "COALESCE((SELECT feed_base FROM deployment WHERE id = 1), 0)";

/// The position of the changes that the current statement writes.
pub fn current(backend: DbBackend) -> SimpleExpr {
    if backend == DbBackend::Postgres {
        return Expr::cust(format!("pg_current_xact_id()::text::bigint + {BASE}"));
    }
    let last = Func::coalesce([customer_change::Column::Position.max(), Expr::val(0_i64)]);
    let is_of_platform = customer_change::Column::ReaderId.into_expr().eq(platform(backend));
    let last = Query::select().expr(last).from(customer_change::Entity).and_where(is_of_platform).take();
    SimpleExpr::SubQuery(None, Box::new(last.into())).add(1)
}

/// [`OperatorId::PLATFORM`](entity::value::OperatorId::PLATFORM) as a literal. The query builder writes ids as text, and SQLite
/// stores them as bytes.
pub fn platform(backend: DbBackend) -> SimpleExpr {
    let nil = "0".repeat(32);
    Expr::cust(if backend == DbBackend::Postgres { format!("'{nil}'::uuid") } else { format!("x'{nil}'") })
}

/// Readers may see only the positions below this one. `None` if they may see all: on SQLite no transaction begins to write
/// before the previous one has ended.
pub fn horizon(backend: DbBackend) -> Option<SimpleExpr> {
    let is_postgres = backend == DbBackend::Postgres;
    is_postgres.then(|| Expr::cust(format!("pg_snapshot_xmin(pg_current_snapshot())::text::bigint + {BASE}")))
}

/// True for a row of `table` that no transaction with a larger id than the current one has written. `None` on SQLite, where
/// this is always true.
///
/// `age` counts the transaction ids from the one that wrote the row to the current one. If the current transaction has no id
/// yet, its id will be larger than all present ids.
pub fn is_written_before(backend: DbBackend, table: &str) -> Option<SimpleExpr> {
    (backend == DbBackend::Postgres).then(|| Expr::cust(format!("age(\"{table}\".\"xmin\") >= 0")))
}
