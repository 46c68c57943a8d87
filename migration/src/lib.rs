//! The schema history of the database: one file for each migration, named by date and number.
//!
//! A migration that has been released must never change, because existing databases have already run it. Migrations use
//! literal table and column names instead of the entities, so that a migration does not change when an entity changes.

pub use sea_orm_migration::prelude::*;

use sea_orm_migration::sea_orm::{DbBackend, Statement};

mod m20261123_000001_customers;
mod m20261123_000002_phone_lookup;
mod m20261123_000003_history;
mod m20261123_000004_keys;
mod m20261124_000005_words;
mod m20261124_000006_revisions;
mod m20261126_000007_search_spellings;
mod m20261126_000008_deployment;
mod m20261126_000009_corrections;
mod m20261126_000010_administration;
mod m20261126_000011_verification_and_erasure;
mod m20261126_000012_event_lookups;
mod m20261126_000013_changes;
mod m20261126_000014_webhooks;
mod m20261127_000015_connecting_entries;
mod m20261128_000016_history_order;
mod m20261129_000017_visible_entries;
mod m20261130_000018_name_pairs;
mod m20261201_000019_byte_order;
mod m20261201_000020_free_space;

/// The newest migration after which older servers must not write, because they would leave out rows that newer servers
/// need. A server that does not know this migration refuses to write. A server that knows it, but not the migrations
/// after it, continues to write.
///
/// The current value is the migration that adds pairs to the search words. A server that does not know the pairs would
/// create customers without them.
pub const REQUIRED: &str = "m20261130_000018_name_pairs";

/// The newest migration that deletes search words, or changes how the words are written. After this migration,
/// `vivamo migrate` writes all words again. Older servers must not write words any more, so [`REQUIRED`] must be this
/// migration or a later one.
pub const SEARCH_WORDS: &str = "m20261130_000018_name_pairs";

/// The migration that adds the fingerprint of the key secret to the database.
pub const KEY_FINGERPRINT: &str = "m20261126_000008_deployment";

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
            Box::new(m20261126_000007_search_spellings::Migration),
            Box::new(m20261126_000008_deployment::Migration),
            Box::new(m20261126_000009_corrections::Migration),
            Box::new(m20261126_000010_administration::Migration),
            Box::new(m20261126_000011_verification_and_erasure::Migration),
            Box::new(m20261126_000012_event_lookups::Migration),
            Box::new(m20261126_000013_changes::Migration),
            Box::new(m20261126_000014_webhooks::Migration),
            Box::new(m20261127_000015_connecting_entries::Migration),
            Box::new(m20261128_000016_history_order::Migration),
            Box::new(m20261129_000017_visible_entries::Migration),
            Box::new(m20261130_000018_name_pairs::Migration),
            Box::new(m20261201_000019_byte_order::Migration),
            Box::new(m20261201_000020_free_space::Migration),
        ]
    }
}

/// Builds the indexes of tables with many rows on PostgreSQL, before the transaction of the migrations. Inside that
/// transaction, building an index would block the writes to its table. The migration that adds the index finds the
/// index and skips it.
///
/// Must not run inside a transaction. An index whose build was interrupted is dropped and built again. A table that
/// does not exist yet is skipped, because it will be empty when a migration adds the index.
pub async fn build_large_indexes(connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    use m20261126_000012_event_lookups::{INDEXES, TABLE};
    use {m20261127_000015_connecting_entries as connecting_entries, m20261128_000016_history_order as history_order};
    let lookups = INDEXES.map(|(name, columns)| (name, index(name, TABLE, &columns)));
    let others = [
        (connecting_entries::INDEX, connecting_entries::connecting_entries()),
        (history_order::INDEX, history_order::history_order()),
    ];
    let visible_entries = m20261129_000017_visible_entries::indexes();
    for (name, mut index) in lookups.into_iter().chain(others).chain(visible_entries) {
        let state = format!(
            "SELECT to_regclass('{TABLE}') IS NOT NULL AS has_table, \
             (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')) AS is_valid"
        );
        let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, state)).await?;
        let Some(row) = row.filter(|row| row.try_get("", "has_table") == Ok(true)) else { continue };
        let is_valid: Option<bool> = row.try_get("", "is_valid")?;
        if is_valid == Some(false) {
            connection.execute(Index::drop().name(name).concurrently()).await?;
        }
        if is_valid != Some(true) {
            connection.execute(index.concurrently()).await?;
        }
    }
    Ok(())
}

/// Deletes all search words, so that `vivamo migrate` writes them again from the customers. The statement reads no
/// rows: SQLite executes a DELETE without a condition by emptying the whole table.
async fn delete_search_words(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let is_postgres = manager.get_database_backend() == DbBackend::Postgres;
    let delete_all = if is_postgres { "TRUNCATE TABLE customer_word" } else { "DELETE FROM customer_word" };
    manager.get_connection().execute_unprepared(delete_all).await?;
    Ok(())
}

/// Alters the `customer` table on PostgreSQL. Does nothing on SQLite.
async fn alter_customer_on_postgres(manager: &SchemaManager<'_>, changes: &str) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Postgres {
        manager.get_connection().execute_unprepared(&format!("ALTER TABLE customer {changes}")).await?;
    }
    Ok(())
}

/// A new column of a table.
type NewColumn = (&'static str, ColumnDef);

/// Adds columns, each with a separate statement, because SQLite alters one column at a time.
async fn add_columns(
    manager: &SchemaManager<'_>,
    columns: impl IntoIterator<Item = NewColumn, IntoIter: Send>,
) -> Result<(), DbErr> {
    for (table, mut column) in columns {
        manager.alter_table(Table::alter().table(table).add_column(&mut column).to_owned()).await?;
    }
    Ok(())
}

/// Drops the columns that [`add_columns`] has added.
async fn drop_columns(
    manager: &SchemaManager<'_>,
    columns: impl IntoIterator<Item = NewColumn, IntoIter: Send>,
) -> Result<(), DbErr> {
    for (table, column) in columns {
        manager.alter_table(Table::alter().table(table).drop_column(column.get_column_name()).to_owned()).await?;
    }
    Ok(())
}

/// An index named `name` on columns of a table.
fn index(name: &str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(table).take();
    for column in columns {
        index.col(*column);
    }
    index
}

/// A foreign key named `name` from a column to the `id` of another table.
fn foreign_key(
    name: &str,
    table: &'static str,
    column: &'static str,
    referenced_table: &'static str,
) -> ForeignKeyCreateStatement {
    ForeignKey::create().name(name).from(table, column).to(referenced_table, "id").take()
}
