//! The environment that a database belongs to. The first process that opens a database claims it for its environment.
//! Afterwards, no process of the other environment opens the database, because a sandbox process must not change
//! production data.

use entity::deployment::{ActiveModel, Entity, Environment, ONLY_ROW_ID};
use sea_orm::{ActiveModelTrait, EntityTrait, Set};

use crate::database::{Database, with_retry};
use crate::error::Error;

/// Returns the environment that has claimed the database, or `None` if the database is new.
pub async fn owner(database: &Database) -> Result<Option<Environment>, Error> {
    Ok(Entity::find_by_id(ONLY_ROW_ID).one(database.reader()).await?.map(|row| row.environment))
}

/// Claims the database for this environment, unless the database is already claimed. Returns the environment that the
/// database belongs to.
pub async fn claim(database: &Database, environment: Environment) -> Result<Environment, Error> {
    if let Some(owner) = owner(database).await? {
        return Ok(owner);
    }
    let claim = || async {
        let transaction = database.begin_write().await?;
        // Another process may have claimed the database meanwhile.
        if let Some(row) = Entity::find_by_id(ONLY_ROW_ID).one(&transaction).await? {
            return Ok(row.environment);
        }
        let row = ActiveModel { id: Set(ONLY_ROW_ID), environment: Set(environment) };
        row.insert(&transaction).await?;
        transaction.commit().await?;
        Ok(environment)
    };
    with_retry("deployment.claim", claim).await
}
