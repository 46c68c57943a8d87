//! The row of `deployment`, which decides whether a server may use the database. The row has the environment of the
//! database, the fingerprint of the key secret, and the migration that a server must know.
//!
//! The first process stores its own environment in the row. Processes of the other environment then refuse to open the
//! database, because a sandbox process must not change production data.

use entity::deployment::{ActiveModel, Column, Entity, Environment, Model, ONLY_ROW_ID};
use sea_orm::{ActiveModelTrait, DbErr, EntityTrait, QuerySelect, Set, Unchanged};

use crate::database::{Database, Transaction};
use crate::error::Error;

/// Returns the environment that has claimed the database, or `None` if the database is new.
pub async fn environment(database: &Database) -> Result<Option<Environment>, Error> {
    // Reads only this column, because the other columns may not exist before the migrations.
    let environment = Entity::find_by_id(ONLY_ROW_ID).select_only().column(Column::Environment);
    Ok(environment.into_tuple().one(database.reader()).await?)
}

/// Returns the fingerprint of the secret that has claimed the database, or `None` if no secret has claimed it. Fails if
/// the migration [`KEY_FINGERPRINT`](migration::KEY_FINGERPRINT) is pending.
pub async fn key_fingerprint(database: &Database) -> Result<Option<Vec<u8>>, Error> {
    let fingerprint = Entity::find_by_id(ONLY_ROW_ID).select_only().column(Column::KeyFingerprint);
    let fingerprint: Option<Option<Vec<u8>>> = fingerprint.into_tuple().one(database.reader()).await?;
    Ok(fingerprint.flatten())
}

/// Claims the database for this environment and this secret, unless the database is claimed already. Returns the row.
pub async fn claim(database: &Database, environment: Environment, key_fingerprint: &[u8]) -> Result<Model, Error> {
    let is_claimed = |row: &Model| row.environment != environment || row.key_fingerprint.is_some();
    if let Some(row) = Entity::find_by_id(ONLY_ROW_ID).one(database.reader()).await?.filter(is_claimed) {
        return Ok(row);
    }
    let claim = || async {
        let transaction = database.begin_write().await?;
        let key_fingerprint = Set(Some(key_fingerprint.to_vec()));
        // Another process may have claimed the database in the meantime, or may be about to.
        let row = match Entity::find_by_id(ONLY_ROW_ID).lock_exclusive().one(&transaction).await? {
            Some(row) if is_claimed(&row) => return Ok(row),
            Some(_) => {
                let row = ActiveModel { id: Unchanged(ONLY_ROW_ID), key_fingerprint, ..Default::default() };
                row.update(&transaction).await?
            }
            None => {
                let row = ActiveModel {
                    id: Set(ONLY_ROW_ID),
                    environment: Set(environment),
                    required_migration: Set(Some(migration::REQUIRED.to_owned())),
                    words_migration: Set(None),
                    key_fingerprint,
                    feed_base: Set(0),
                };
                row.insert(&transaction).await?
            }
        };
        transaction.commit().await?;
        Ok(row)
    };
    database.with_retry("deployment.claim", claim).await
}

/// Locks the row until the transaction ends, so that another transaction that calls this function waits.
pub(super) async fn lock(transaction: &Transaction) -> Result<(), DbErr> {
    Entity::find_by_id(ONLY_ROW_ID).lock_exclusive().one(transaction).await?;
    Ok(())
}

/// Returns true if the search words of all customers were written by the rules of this version or of a newer version.
pub async fn has_all_words(database: &Database) -> Result<bool, Error> {
    let written = Entity::find_by_id(ONLY_ROW_ID).select_only().column(Column::WordsMigration);
    let written: Option<Option<String>> = written.into_tuple().one(database.reader()).await?;
    Ok(written.flatten().is_some_and(|written| written.as_str() >= migration::SEARCH_WORDS))
}

/// Records that the search words of all customers were written.
pub async fn record_all_words(database: &Database) -> Result<(), Error> {
    let words_migration = Set(Some(migration::SEARCH_WORDS.to_owned()));
    update(database, ActiveModel { words_migration, ..Default::default() }).await
}

/// Stores the fingerprint of a new key secret. Servers that start later must know the new secret.
pub async fn change_key(database: &Database, key_fingerprint: Vec<u8>) -> Result<(), Error> {
    update(database, ActiveModel { key_fingerprint: Set(Some(key_fingerprint)), ..Default::default() }).await
}

async fn update(database: &Database, changes: ActiveModel) -> Result<(), Error> {
    let changes = ActiveModel { id: Unchanged(ONLY_ROW_ID), ..changes };
    let update = || async {
        let transaction = database.begin_write().await?;
        changes.clone().update(&transaction).await?;
        transaction.commit().await?;
        Ok(())
    };
    database.with_retry("deployment.update", update).await
}
