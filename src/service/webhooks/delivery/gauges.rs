//! Measures the endpoints.

use chrono::{DateTime, TimeDelta, Utc};
use entity::customer_change;
use entity::webhook::{Column, Entity};
use sea_orm::sea_query::{Func, Order, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr};

use super::queries::{is_active, undelivered_changes};
use crate::database::{Database, subquery};
use crate::service::now;

/// Sets `vivamo_webhook_lag_seconds` and `vivamo_webhooks_disabled`. Each process measures the endpoints of the whole
/// database, so all processes report the same values.
pub async fn set_gauges(database: &Database) -> Result<(), DbErr> {
    let reader = database.reader();
    let count =
        Query::select().expr(Column::Id.count()).from(Entity).and_where(Column::DisabledAt.is_not_null()).take();
    let mut first = undelivered_changes(reader.get_database_backend(), customer_change::Column::OccurredAt.into_expr());
    let first = first
        .order_by(customer_change::Column::Position, Order::Asc)
        .order_by(customer_change::Column::Id, Order::Asc)
        .limit(1)
        .take();
    // An endpoint that is failing waits because of its receiver.
    let waiting = is_active().add(Column::FailingSince.is_null());
    let oldest = Query::select().expr(Func::min(subquery(first))).from(Entity).cond_where(waiting).take();
    let gauges = Query::select().expr_as(subquery(count), "disabled").expr_as(subquery(oldest), "oldest").take();
    let Some(row) = reader.query_one(&gauges).await? else { return Ok(()) };
    let oldest: Option<DateTime<Utc>> = row.try_get("", "oldest")?;
    let lag = oldest.map_or(TimeDelta::zero(), |oldest| now() - oldest);
    metrics::gauge!("vivamo_webhook_lag_seconds").set(lag.num_milliseconds() as f64 / 1000.0);
    metrics::gauge!("vivamo_webhooks_disabled").set(row.try_get::<i64>("", "disabled")? as f64);
    Ok(())
}
