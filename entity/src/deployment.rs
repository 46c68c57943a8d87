//! Table `deployment`: a single row with facts about the whole database. A server compares some of them with its own
//! settings when it starts.
//!
//! `service::deployment` writes the row when the database is opened for the first time. Because of this row, a server
//! rejects a database of the other environment, and a database whose key secret the server does not know. The
//! migrations update `required_migration`, and `service::feed_positions` updates `feed_base`.

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
    /// The name of the migration whose rules the stored search words follow: the value that `migration::SEARCH_WORDS`
    /// had when the words of all customers were last written. `None` if words may be missing.
    pub words_migration: Option<String>,
    /// The keyed hash of a constant, made with `VIVAMO_KEY_SECRET`. A server compares this hash with the hash that is
    /// made with its own secret. `None` if only versions without this column have opened the database.
    pub key_fingerprint: Option<Vec<u8>>,
    /// The number that is added to PostgreSQL's transaction ids in positions of the feed: see
    /// `service::feed_positions`.
    pub feed_base: i64,
}

pub const ONLY_ROW_ID: i32 = 1;

/// The environment of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Environment {
    /// Restricted emails and phones are accepted, with a warning.
    Sandbox,
    /// Restricted emails and phones are rejected.
    Production,
}

impl ActiveModelBehavior for ActiveModel {}
