//! Table `operator`: the businesses on the platform.
//!
//! Rows are inserted and changed by `service::operators`, and never deleted.

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
    pub status: Status,
    /// The operator's disclosure budget, at least 1. `None` stands for the default.
    pub disclosures_per_hour: Option<i32>,
}

/// The status of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Status {
    /// The keys of the operator work.
    Active,
    /// All keys of the operator are rejected.
    Suspended,
}

impl ActiveModelBehavior for ActiveModel {}
