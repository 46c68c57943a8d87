//! Table `erasure`: the receipts of erasures, one row for each erased customer.
//!
//! A row holds no data of the person, and is never changed or deleted. Rows are inserted by `service::customers::erase`
//! in the transaction of the erasure.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{CustomerId, ErasureId, ErasureReference, RequestId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "erasure")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ErasureId,
    #[sea_orm(unique)]
    pub customer_id: CustomerId,
    pub erased_at: DateTime<Utc>,
    /// The platform's own reference, for example the number of the support ticket.
    pub reference: ErasureReference,
    pub request_id: RequestId,
    /// The number of operators that the customer was connected to when it was erased.
    pub operators: i32,
    /// The number of history entries whose values were set to null.
    pub entries: i32,
}

impl ActiveModelBehavior for ActiveModel {}
