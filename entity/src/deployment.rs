//! Table `deployment`: a single row with the environment that the database belongs to.
//!
//! The row is written once by `service::deployment` at the first start, and compared at each later start, so that
//! sandbox settings never run against a production database.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    /// Always [`ONLY_ROW_ID`].
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub environment: Environment,
}

pub const ONLY_ROW_ID: i32 = 1;

/// The environment of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Environment {
    /// Emails and phones that production would reject are accepted, with a warning.
    Sandbox,
    /// Restricted emails and phones are rejected.
    Production,
}

impl ActiveModelBehavior for ActiveModel {}
