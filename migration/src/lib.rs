//! The history of the tables. It knows no entity: history does not change when an entity does.

pub use sea_orm_migration::prelude::*;

mod m20261123_000001_customers;
mod m20261123_000002_phone_lookup;
mod m20261123_000003_history;
mod m20261123_000004_keys;
mod m20261124_000005_words;
mod m20261124_000006_revisions;

pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_customers::Migration),
            Box::new(m20261123_000002_phone_lookup::Migration),
            Box::new(m20261123_000003_history::Migration),
            Box::new(m20261123_000004_keys::Migration),
            Box::new(m20261124_000005_words::Migration),
            Box::new(m20261124_000006_revisions::Migration),
        ]
    }
}
