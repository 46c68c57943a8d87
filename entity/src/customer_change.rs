//! Table `customer_change`: the change feed, with separate rows for each reader.
//!
//! A reader is an operator, or the platform. A change to a customer adds a row for the platform and a row for each
//! operator that may know of the change. `service::customers::feed_rows` inserts the rows in the transaction of the
//! change. A row has the names of the changed fields, but not their values. `service::feed` deletes old rows. A row
//! stays until this deletion, even if its customer is erased.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::customer_event::EventType;
use crate::value::{ChangedFields, CustomerEventId, CustomerId, ExternalCustomerId, OperatorId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_change")]
pub struct Model {
    /// The operator that reads the row, or [`OperatorId::PLATFORM`]. The column is part of the primary key, so it
    /// cannot be null.
    #[sea_orm(primary_key, auto_increment = false)]
    pub reader_id: OperatorId,
    /// The position in the feed: see `service::feed_positions`. The changes of one transaction may have the same
    /// position. In this case they are ordered by their ids.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// The id of the history entry of the change.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CustomerEventId,
    pub customer_id: CustomerId,
    /// The reader's own id for the customer at the time of the change. `None` for the platform, and in a row whose
    /// `swept` is true. An erasure sets this id to `None` in all earlier rows of the customer. The rows of the erasure
    /// itself keep the id.
    pub external_customer_id: Option<ExternalCustomerId>,
    pub r#type: EventType,
    /// The version of the customer after the change.
    pub version: i32,
    pub changed_fields: ChangedFields,
    /// True if the reader made the change.
    pub own: bool,
    pub occurred_at: DateTime<Utc>,
    /// True for the marker row: all earlier rows of the reader were deleted. Readers do not see this row.
    pub swept: bool,
}

impl ActiveModelBehavior for ActiveModel {}
