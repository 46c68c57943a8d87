//! Table `operator`: the businesses on the platform.
//!
//! Rows are inserted by `service::operators`, and never changed or deleted (`service::operators` caches them without
//! expiry).

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{DisplayName, OperatorId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operator")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OperatorId,
    pub name: DisplayName,
    pub created_at: DateTime<Utc>,
}

impl ActiveModelBehavior for ActiveModel {}
