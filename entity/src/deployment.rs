//! Table `deployment`: a single row with what a server compares at its start.
//!
//! `service::deployment` writes it at the first start, so that sandbox settings never run against a production database, and
//! another secret is noticed. The migrations raise `required_migration`.

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
    /// The newest migration of the search words after which all words were written. `None` if they may be incomplete.
    pub words_migration: Option<String>,
    /// A hash of a constant under `VIVAMO_KEY_SECRET`, by which another secret is recognised. `None` before the first start
    /// of a version that stores it.
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
