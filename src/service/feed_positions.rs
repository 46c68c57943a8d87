//! Positions in the change feed (`entity::customer_change`).
//!
//! A reader remembers the position of the last change that it has seen, and asks for the changes after this position.
//! If a change with a smaller position became visible later, the reader would miss the change. Numbers of a PostgreSQL
//! sequence would have this problem: a transaction takes a number before it commits, and the transaction with the next
//! number may commit first.
//!
//! - **PostgreSQL**: the position is the id of the writing transaction plus `deployment.feed_base`. Readers see only
//!   positions below the [`horizon`], which is made from the id of the oldest transaction that has not ended. No change
//!   below the horizon can become visible later. A long transaction that has written something, even in another
//!   database of the same server, delays the feed, but no change is lost. Transactions that only read have no id.
//! - **SQLite**: transactions that write run one after the other. The position is one more than the last stored
//!   position. To find the last position, only the rows of the platform's feed are read, because this feed has a row
//!   for each change. The platform's last row is never deleted, so no position is used twice.
//!
//! The positions of one customer must also be in the order of its versions. On SQLite, the positions are always in this
//! order. PostgreSQL gives a transaction its id when it locks or writes its first row. Later the transaction may find
//! rows that a transaction with a larger id has changed in the meantime. The condition [`keeps_version_order`] prevents
//! a write to such a row.
//!
//! A dump does not contain the transaction ids of its server. After a restore on a server with smaller transaction ids,
//! new positions would be below the stored positions. [`stored_positions_are_ahead`] detects this, and [`raise_base`]
//! lets new positions continue after the stored ones.

use entity::{customer_change, deployment};
use sea_orm::sea_query::{Expr, ExprTrait, Func, Query, SimpleExpr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, DbErr};
use uuid::Uuid;

use crate::database::pages::{HasPosition, Position, SortKey};
use crate::database::{Database, subquery};

/// A position in the feed of a reader. The changes of one transaction may have the same number. They are ordered by
/// their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedPosition {
    /// The column `position`.
    pub number: i64,
    /// The id of the change.
    pub id: Uuid,
}

impl FeedPosition {
    /// The position before all changes.
    pub const START: Self = Self { number: 0, id: Uuid::nil() };
}

impl From<&customer_change::Model> for FeedPosition {
    fn from(change: &customer_change::Model) -> Self {
        Self { number: change.position, id: *change.id.as_uuid() }
    }
}

impl From<FeedPosition> for Position {
    fn from(FeedPosition { number, id }: FeedPosition) -> Self {
        Self::by_number(number, id)
    }
}

impl TryFrom<Position> for FeedPosition {
    type Error = NotInFeed;

    fn try_from(position: Position) -> Result<Self, NotInFeed> {
        match position.sort_key {
            SortKey::Number(number) => Ok(Self { number, id: position.id }),
            SortKey::First | SortKey::OnlyId | SortKey::Time(_) | SortKey::Text(_) => Err(NotInFeed),
        }
    }
}

/// The error for a position in a list that is not ordered by a number, as the feed is.
#[derive(Clone, Copy, Debug)]
pub struct NotInFeed;

impl From<NotInFeed> for DbErr {
    fn from(_: NotInFeed) -> Self {
        Self::Type("the position is not a position in the feed".to_owned())
    }
}

impl HasPosition for customer_change::Model {
    fn position(&self) -> Position {
        FeedPosition::from(self).into()
    }
}

/// The SQL that reads `deployment.feed_base`.
const BASE: &str = "COALESCE((SELECT feed_base FROM deployment WHERE id = 1), 0)";

/// One more than the largest id of a transaction that had ended when the statement began.
const NEXT: &str = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// The position of the changes that the current statement writes.
pub fn new_position(backend: DbBackend) -> SimpleExpr {
    if backend == DbBackend::Postgres {
        return Expr::cust(format!("pg_current_xact_id()::text::bigint + {BASE}"));
    }
    last_position(backend).add(1)
}

/// The last stored position, or 0 if there is none. Reads only the platform's rows, because the platform has a row for
/// each change.
fn last_position(backend: DbBackend) -> SimpleExpr {
    let last = Func::coalesce([customer_change::Column::Position.max(), Expr::val(0_i64)]);
    let is_of_platform = customer_change::Column::ReaderId.into_expr().eq(platform_id_literal(backend));
    let last = Query::select().expr(last).from(customer_change::Entity).and_where(is_of_platform).take();
    subquery(last)
}

/// [`OperatorId::PLATFORM`](entity::value::OperatorId::PLATFORM) as a literal. The query builder writes ids as text,
/// and SQLite stores them as bytes.
pub fn platform_id_literal(backend: DbBackend) -> SimpleExpr {
    let nil = "0".repeat(32);
    Expr::cust(if backend == DbBackend::Postgres { format!("'{nil}'::uuid") } else { format!("x'{nil}'") })
}

/// The horizon of the feed: readers may see only positions below the horizon. `None` on SQLite, where readers may see
/// all positions, because no transaction begins to write before the previous one has ended.
pub fn horizon(backend: DbBackend) -> Option<SimpleExpr> {
    let is_postgres = backend == DbBackend::Postgres;
    is_postgres.then(|| Expr::cust(format!("pg_snapshot_xmin(pg_current_snapshot())::text::bigint + {BASE}")))
}

/// A condition that rejects a row of `table` if the row was written by a transaction whose id is larger than the id of
/// the current transaction. `None` on SQLite, where this cannot happen.
///
/// `xmin` is the id of the transaction that wrote a row, truncated to 32 bits, even after `VACUUM FREEZE`. `age()`
/// compares such ids correctly only within 2³¹ transactions, so the condition does not use it. It computes
/// `ahead = (xmin - current id) mod 2³²` and rejects the row if `1 <= ahead <= NEXT - current id`: no transaction
/// further ahead had ended when the statement began. A row that is almost a multiple of 2³² transactions old can be
/// rejected by mistake. The retry then gets a new id of at least `NEXT`, and accepts the row.
///
/// If the transaction has no id yet, all rows are accepted: its id will be larger than the ids of all transactions that
/// it sees. If a statement waits until another transaction has changed a row, the check of the revision rejects the
/// row.
pub fn keeps_version_order(backend: DbBackend, table: &str) -> Option<SimpleExpr> {
    const CURRENT: &str = "pg_current_xact_id_if_assigned()::text::bigint";
    let ahead = format!("(\"{table}\".\"xmin\"::text::bigint - {CURRENT}) & 4294967295");
    let is_later = format!("{ahead} BETWEEN 1 AND {NEXT} - {CURRENT}");
    (backend == DbBackend::Postgres).then(|| Expr::cust(format!("({is_later}) IS NOT TRUE")))
}

/// The distance between the last stored position and the first new position after [`raise_base`]. Readers may have seen
/// positions that were added after the dump. The new positions must be larger than these. The distance is therefore far
/// larger than the number of transactions between a dump and its restore.
const RESTORE_DISTANCE: i64 = 1 << 32;

/// Returns true if the last stored position is larger than or equal to the position that the next transaction will get.
/// Always false on SQLite.
pub async fn stored_positions_are_ahead(database: &Database) -> Result<bool, DbErr> {
    let backend = database.reader().get_database_backend();
    if backend != DbBackend::Postgres {
        return Ok(false);
    }
    let query = Query::select().expr_as(last_position_is_ahead(), "is_ahead").take();
    let row = database.reader().query_one(&query).await?;
    row.map_or(Ok(false), |row| row.try_get("", "is_ahead"))
}

/// Raises the base of the positions if stored positions [are ahead](stored_positions_are_ahead).
pub async fn raise_base(database: &Database) -> Result<(), DbErr> {
    let base = last_position(DbBackend::Postgres).sub(Expr::cust(NEXT)).add(RESTORE_DISTANCE);
    let mut raise = Query::update();
    raise.table(deployment::Entity).value(deployment::Column::FeedBase, base).and_where(last_position_is_ahead());
    let transaction = database.begin_write().await?;
    transaction.execute(&raise).await?;
    transaction.commit().await
}

fn last_position_is_ahead() -> SimpleExpr {
    last_position(DbBackend::Postgres).gte(Expr::cust(format!("{NEXT} + {BASE}")))
}
