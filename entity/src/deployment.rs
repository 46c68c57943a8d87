//! Table `deployment`: a single row with the facts that a server compares with its own settings when it starts.
//!
//! `service::deployment` writes the row at the first start. The row prevents a server with sandbox settings from using a
//! production database, and a server from using another secret. The migrations raise `required_migration`.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment")]
pub struct Model {
    /// Always [`ONLY_ROW_ID`].
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub environment: Environment,
    /// A migration that a server must know in order to write. `None` if any server may write.
    pub required_migration: Option<String>,
    /// The newest migration of the search words after which all words were written again. `None` if words may be missing.
    pub words_migration: Option<String>,
    /// A keyed hash of a constant. It differs if the server has another `VIVAMO_KEY_SECRET`. `None` until a version that
    /// stores this hash has started for the first time.
    pub key_fingerprint: Option<Vec<u8>>,
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
