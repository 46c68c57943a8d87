//! Reads the change feed, and deletes old changes.
//!
//! `customers::feed_rows` writes the rows. A reader remembers a position, and asks for the changes after this position.
//! The position is the start of the feed, or the position of one of the reader's rows. A position without a row would
//! be unsafe: after a failover of PostgreSQL or a restore, a later change can get a position below the reader's
//! position, and the reader would skip this change.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use entity::customer_change::{ActiveModel, Column, Entity, Model};
use entity::customer_event::EventType;
use entity::operator;
use entity::value::OperatorId;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, FromQueryResult, IdenStatic, QueryFilter,
    QueryOrder, QueryResult, QuerySelect, QueryTrait, Select, Set, Unchanged,
};

use super::feed_positions::{self, FeedPosition};
use super::{Caller, now};
use crate::database::pages::{
    self, BRANCH_ROWS, HasPosition, JoinedTable, ListPart, ListRequest, Page, PageRequest, SCAN, Scan,
};
use crate::database::{BatchedQuery, Database, TransactionError, subquery};
use crate::error::{Error, ErrorCode, InputField, Violation};

/// Reads the change feed, and deletes old changes.
#[derive(Clone)]
pub struct Feed {
    database: Database,
    /// Reads the last row of a reader. Most polls find nothing new and run only this query. On PostgreSQL, concurrent
    /// polls share one statement.
    last_query: Arc<BatchedQuery<1>>,
}

/// A part of a feed to read.
#[derive(Clone, Debug)]
pub struct FeedRequest {
    /// The maximum number of changes.
    pub size: usize,
    /// The position after which the changes come. `None` starts at the oldest change that is stored.
    pub after: Option<FeedPosition>,
    /// The types of changes to read. `None` stands for all types.
    pub types: Option<Vec<EventType>>,
}

/// The result of [`Feed::sweep`].
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The number of deleted rows.
    pub deleted: u64,
    /// True if there may be more changes that are old enough.
    pub has_more: bool,
}

/// The number of rows after which a sweep ends. It takes a few seconds to delete that many rows.
const MAX_SWEPT: u64 = 50_000;

/// The changes that a request has found, oldest first.
#[derive(Clone, Debug)]
pub struct FeedPage {
    pub changes: Vec<Model>,
    /// The position at which the next request continues.
    pub end: FeedPosition,
    /// True if there may be changes after `end`.
    pub has_more: bool,
}

/// The treatment of the row with `swept`, which stands for deleted changes, in a list of a reader's rows.
#[derive(Clone, Copy)]
enum SweptRow {
    /// The list has the row. If the row comes after a reader's position, changes after this position were deleted.
    Include,
    /// The list does not have the row: it starts at the oldest change that is stored.
    LeaveOut,
}

impl Feed {
    pub fn new(database: Database) -> Self {
        let backend = database.reader().get_database_backend();
        let last_query = BatchedQuery::new(move |[reader_id]| {
            let rows = visible_to(backend, reader_id).order_by_desc(Column::Position).order_by_desc(Column::Id);
            rows.limit(1).into_query()
        });
        Self { database, last_query: Arc::new(last_query) }
    }

    /// Reads changes of the caller's feed. If the position is the end of the feed, returns an empty page after one
    /// cheap query. Otherwise reads a page as [`read_page`](Self::read_page) does. Fails with `CURSOR_EXPIRED` if
    /// changes after the position were deleted, or if there is no change at the position. After a restore of an older
    /// backup, the change at a cursor can be missing. New changes can then have positions below the cursor.
    pub async fn poll(&self, caller: &Caller, request: FeedRequest) -> Result<FeedPage, Error> {
        // Most polls find nothing new.
        if let Some(after) = request.after
            && after == self.end_for_caller(caller).await?
        {
            return Ok(FeedPage { changes: Vec::new(), end: after, has_more: false });
        }
        self.read_page(caller.owner(), request).await
    }

    /// Reads changes of a reader's feed, even if the position is the end of the feed. Fails as [`poll`](Self::poll)
    /// does.
    pub(super) async fn read_page(&self, reader_id: OperatorId, request: FeedRequest) -> Result<FeedPage, Error> {
        let FeedRequest { size, after, types } = request;
        let swept_row = if after.is_none() { SweptRow::LeaveOut } else { SweptRow::Include };
        let list = self.list(reader_id, swept_row, types);
        let page = ListRequest::new(list, PageRequest { after: after.map(Into::into), ..PageRequest::first(size) });
        let pages = vec![page, self.last(reader_id), self.at(reader_id, after.unwrap_or(FeedPosition::START))];
        let [page, last, at] = array(self.pages(pages).await?)?;
        let last = last.rows.last().map_or(FeedPosition::START, FeedPosition::from);
        // In each reader's feed, deleted changes leave one row with `swept`, which comes before all rows that are
        // shown. If the page begins with this row, changes after the position were deleted.
        let is_swept = page.rows.first().is_some_and(|change| change.swept);
        let is_missing = at.rows.is_empty() && after.is_some_and(|after| after != FeedPosition::START);
        if is_swept || is_missing {
            return Err(Violation::of(ErrorCode::CursorExpired, InputField::After).into());
        }
        let next = page.ends(HasPosition::position).end;
        // If there are no more changes of the requested types, all rows were checked, so the next request starts after
        // the last row of any type.
        let end = match next.filter(|_| page.has_next) {
            Some(next) => FeedPosition::try_from(next).map_err(DbErr::from)?,
            None => last,
        };
        Ok(FeedPage { changes: page.rows, end, has_more: page.has_next })
    }

    /// Returns the position of the last change in the caller's feed.
    pub async fn end_for_caller(&self, caller: &Caller) -> Result<FeedPosition, Error> {
        self.end_of_reader(caller.owner()).await
    }

    /// Returns the position of the last change in a reader's feed.
    pub(super) async fn end_of_reader(&self, reader_id: OperatorId) -> Result<FeedPosition, Error> {
        Ok(self.last_row(reader_id).await?.as_ref().map_or(FeedPosition::START, FeedPosition::from))
    }

    /// Returns a position after which a reader finds all changes from this time on, and perhaps some earlier ones.
    ///
    /// Uses a binary search, because no index has the times of changes. The times are nearly in the order of the
    /// positions: if one change has a smaller position than another, its time is at most 30 seconds later. Fails with
    /// `CURSOR_EXPIRED` if changes of this time may have been deleted.
    pub(super) async fn position_before(
        &self,
        reader_id: OperatorId,
        time: DateTime<Utc>,
    ) -> Result<FeedPosition, Error> {
        let start_time = time - TimeDelta::seconds(30);
        let is_earlier = |change: &Model| change.swept || change.occurred_at < start_time;
        let (mut found, mut low) = (None, 0);
        // All changes below `low` occurred before `time`: the change in `found` occurred before `start_time` (unless it
        // is swept), and a change with a smaller position occurred at most 30 seconds later. The first change at or
        // above `high`, if there is one, is not earlier than `start_time`.
        let mut high = self.last_row(reader_id).await?.map_or(0, |change| change.position + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let before_middle = FeedPosition { number: middle, ..FeedPosition::START };
            let [page] = array(self.pages(vec![self.first_after(reader_id, before_middle)]).await?)?;
            match page.rows.first() {
                Some(change) if is_earlier(change) => (found, low) = (Some(change.clone()), change.position + 1),
                Some(_) | None => high = middle,
            }
        }
        if found.as_ref().is_some_and(|change| change.swept && change.occurred_at >= start_time) {
            return Err(start_expired(InputField::DeliverFromTime).into());
        }
        Ok(found.as_ref().map_or(FeedPosition::START, FeedPosition::from))
    }

    /// For each given position, returns the time of the first change after it in the feed of its reader, in the order
    /// of `positions`. `None` if there is no change after the position.
    pub(super) async fn times_after(
        &self,
        positions: Vec<(OperatorId, FeedPosition)>,
    ) -> Result<Vec<Option<DateTime<Utc>>>, Error> {
        let pages = positions.into_iter().map(|(reader_id, position)| self.first_after(reader_id, position)).collect();
        let pages = self.pages(pages).await?;
        Ok(pages.iter().map(|page| page.rows.first().map(|change| change.occurred_at)).collect())
    }

    /// Deletes the changes that occurred before `time` from the feeds of all readers: at most about [`MAX_SWEPT`]
    /// changes. The last of a reader's old changes stays as a marker (`swept`), which readers do not see. A position
    /// before this marker is recognised as too old.
    ///
    /// If the changes of a reader cannot be deleted, continues with the next reader, and returns the error at the end.
    pub async fn sweep(&self, caller: &Caller, time: DateTime<Utc>) -> Result<Sweep, Error> {
        /// The number of readers with failed deletions after which the sweep ends. During an outage of the database,
        /// the attempt for each reader takes seconds.
        const MAX_FAILURES: usize = 3;
        caller.require_platform()?;
        let oldest = Entity::find()
            .select_only()
            .column(Column::OccurredAt)
            .filter(Column::ReaderId.into_expr().eq(operator::Column::Id.into_expr()))
            .filter(Column::Swept.eq(false))
            .order_by_asc(Column::Position)
            .order_by_asc(Column::Id)
            .limit(1)
            .into_query();
        let is_old = subquery(oldest).lt(time);
        let operators = operator::Entity::find().select_only().column(operator::Column::Id).filter(is_old);
        let operators: Vec<OperatorId> = operators.into_tuple().all(self.database.reader()).await?;
        let mut reader_ids: VecDeque<_> = operators.into_iter().chain([OperatorId::PLATFORM]).collect();
        let (mut deleted, mut failures) = (0, Vec::new());
        while deleted < MAX_SWEPT && failures.len() < MAX_FAILURES {
            let Some(reader_id) = reader_ids.pop_front() else { break };
            match self.database.with_retry("feed.sweep", || self.sweep_batch(reader_id, time)).await {
                Ok(Some(rows)) => {
                    deleted += rows;
                    // The readers take turns, so that a reader with many old changes does not use up the whole run.
                    reader_ids.push_back(reader_id);
                }
                Ok(None) => {}
                Err(error) => failures.push(error),
            }
        }
        match failures.pop() {
            Some(error) => Err(error),
            None => Ok(Sweep { deleted, has_more: !reader_ids.is_empty() }),
        }
    }

    /// Deletes a batch of a reader's oldest changes that occurred before `time`, except the last one, which becomes the
    /// marker. Returns the number of deleted rows, or `None` if no change is old enough.
    async fn sweep_batch(&self, reader_id: OperatorId, time: DateTime<Utc>) -> Result<Option<u64>, TransactionError> {
        const BATCH: u64 = 1_000;
        let transaction = self.database.begin_write().await?;
        let rows =
            visible_to(self.backend(), reader_id).order_by_asc(Column::Position).order_by_asc(Column::Id).limit(BATCH);
        let rows = rows.all(&transaction).await?;
        let old = rows.iter().take_while(|row| row.swept || row.occurred_at < time);
        let Some(last) = old.last().filter(|last| !last.swept) else { return Ok(None) };
        let end = Expr::tuple([Expr::val(last.position), Expr::val(last.id)]);
        let is_before = Expr::tuple(position_columns()).lt(end);
        let before = Entity::delete_many().filter(Column::ReaderId.eq(reader_id)).filter(is_before);
        let deleted = before.exec(&transaction).await?.rows_affected;
        let swept = ActiveModel {
            reader_id: Unchanged(reader_id),
            position: Unchanged(last.position),
            id: Unchanged(last.id),
            external_customer_id: Set(None),
            swept: Set(true),
            ..Default::default()
        };
        // If another process has deleted the row in the meantime, that process has left a later swept row.
        Entity::update_many().set(swept).filter(is_row(last.reader_id, last.into())).exec(&transaction).await?;
        transaction.commit().await?;
        Ok(Some(deleted))
    }

    /// Returns the age of the oldest change that readers do not see yet, because an older transaction has not ended.
    /// Zero if readers see all changes.
    pub async fn lag(&self) -> Result<TimeDelta, Error> {
        let Some(horizon) = feed_positions::horizon(self.backend()) else {
            return Ok(TimeDelta::zero());
        };
        let hidden = Entity::find()
            .filter(Column::ReaderId.eq(OperatorId::PLATFORM))
            .filter(Column::Position.into_expr().gte(horizon))
            .order_by_asc(Column::Position)
            .order_by_asc(Column::Id);
        let oldest = hidden.one(self.database.reader()).await?;
        Ok(oldest.map_or(TimeDelta::zero(), |change| now() - change.occurred_at))
    }

    fn backend(&self) -> DbBackend {
        self.database.reader().get_database_backend()
    }

    async fn pages(&self, pages: Vec<ListRequest>) -> Result<Vec<Page<Model>>, DbErr> {
        let read = |row: &QueryResult| Model::from_query_result(row, "");
        pages::pages(self.database.reader(), pages, read, |_, change| change.position()).await
    }

    /// The first row of a reader after a position.
    fn first_after(&self, reader_id: OperatorId, position: FeedPosition) -> ListRequest {
        let request = PageRequest { after: Some(position.into()), ..PageRequest::first(1) };
        ListRequest::new(self.list(reader_id, SweptRow::Include, None), request)
    }

    async fn last_row(&self, reader_id: OperatorId) -> Result<Option<Model>, DbErr> {
        let rows = self.last_query.run(self.database.reader(), [reader_id.into()]).await?;
        rows.first().map(|row| Model::from_query_result(row, "")).transpose()
    }

    /// The row of a reader at a position, or no row.
    fn at(&self, reader_id: OperatorId, position: FeedPosition) -> ListRequest {
        let row = Entity::find().filter(is_row(reader_id, position));
        ListRequest::new(ListPart::new(row.into_query(), position_columns()), PageRequest::first(1))
    }

    /// The last row of a reader.
    fn last(&self, reader_id: OperatorId) -> ListRequest {
        ListRequest::new(self.list(reader_id, SweptRow::Include, None), PageRequest::last(1))
    }

    /// The rows of a reader below the horizon, of these types.
    fn list(&self, reader_id: OperatorId, swept_row: SweptRow, types: Option<Vec<EventType>>) -> ListPart {
        let rows = visible_to(self.backend(), reader_id);
        let rows = match swept_row {
            SweptRow::Include => rows,
            SweptRow::LeaveOut => rows.filter(Column::Swept.eq(false)),
        };
        let columns = position_columns();
        let Some(types) = types else { return ListPart::new(rows.into_query(), columns) };
        let scanned = |column: Column| Expr::col((Alias::new(SCAN), column));
        let is_shown = scanned(Column::Type).is_in(types).or(scanned(Column::Swept));
        let filters = vec![Query::select().expr(Expr::cust("1")).and_where(is_shown).take()];
        let scan_columns = [Column::Position, Column::Id, Column::ReaderId, Column::Type, Column::Swept];
        let rows = rows.select_only().columns(scan_columns).into_query();
        let key = [Column::ReaderId, Column::Position, Column::Id];
        let joined = vec![JoinedTable::new::<Entity>(&key.map(|column| (column, BRANCH_ROWS, column.as_str())))];
        ListPart { joined, scan: Some(Scan { filters, ..Scan::default() }), ..ListPart::new(rows, columns) }
    }
}

/// The violation by a start of deliveries after which changes were deleted.
pub(super) fn start_expired(field: InputField) -> Violation {
    Violation::of(ErrorCode::CursorExpired, field).with_message(
        "Changes after this point are no longer stored. Set `deliverFrom` to a later point, for example to the current \
         `time`. Then read all customers, because the deleted changes are not delivered.",
    )
}

/// Selects the rows that a reader may see now. On PostgreSQL, these are its rows with positions below the horizon,
/// which is made from the oldest transaction that has not ended (see `service::feed_positions`). On SQLite, these are
/// all its rows.
pub(super) fn visible_to(backend: DbBackend, reader_id: impl Into<SimpleExpr>) -> Select<Entity> {
    Entity::find()
        .filter(Column::ReaderId.into_expr().eq(reader_id))
        .apply_if(feed_positions::horizon(backend), |rows, horizon| {
            rows.filter(Column::Position.into_expr().lt(horizon))
        })
}

/// Selects the rows after a position that a reader may see now. `position` has the two parts of the position.
pub(super) fn visible_after(
    backend: DbBackend,
    reader_id: impl Into<SimpleExpr>,
    position: [SimpleExpr; 2],
) -> Select<Entity> {
    visible_to(backend, reader_id).filter(Expr::tuple(position_columns()).gt(Expr::tuple(position)))
}

fn array<T, const N: usize>(items: Vec<T>) -> Result<[T; N], DbErr> {
    items.try_into().map_err(|_| DbErr::RecordNotFound("the pages".to_owned()))
}

/// The columns of the position of a row.
fn position_columns() -> Vec<SimpleExpr> {
    [Column::Position, Column::Id].map(|column| column.into_expr()).into()
}

/// The condition that is true for the row with this primary key only.
fn is_row(reader_id: OperatorId, FeedPosition { number, id }: FeedPosition) -> Condition {
    Condition::all().add(Column::ReaderId.eq(reader_id)).add(Column::Position.eq(number)).add(Column::Id.eq(id))
}
