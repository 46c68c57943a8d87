//! What the database remembers of the deployment that it belongs to: a single row.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub environment: Environment,
}

/// The id of the only row.
pub const ONLY: i32 = 1;

/// Where a deployment stands: in `Production` the restrictions on emails and phones refuse, in `Sandbox` they warn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Environment {
    Sandbox,
    Production,
}

impl ActiveModelBehavior for ActiveModel {}
