//! The environment that a database belongs to.

use entity::deployment::{ActiveModel, Entity, Environment, ONLY_ROW_ID};
use sea_orm::{ActiveModelTrait, EntityTrait, Set};

use crate::database::{Database, TransactionError, with_retry};
use crate::error::Error;

/// The environment that a database belongs to, if any claimed it.
pub async fn owner(database: &Database) -> Result<Option<Environment>, Error> {
    Ok(Entity::find_by_id(ONLY_ROW_ID).one(database.reader()).await?.map(|row| row.environment))
}

/// Gives a database that belongs to no environment yet to this one, and answers which one it belongs to.
pub async fn claim(database: &Database, environment: Environment) -> Result<Environment, Error> {
    if let Some(owner) = owner(database).await? {
        return Ok(owner);
    }
    with_retry("deployment.claim", || try_claim(database, environment)).await
}

async fn try_claim(database: &Database, environment: Environment) -> Result<Environment, TransactionError> {
    let transaction = database.begin_write().await?;
    let owner = match Entity::find_by_id(ONLY_ROW_ID).one(&transaction).await? {
        Some(row) => row.environment,
        None => {
            let row = ActiveModel { id: Set(ONLY_ROW_ID), environment: Set(environment) };
            row.insert(&transaction).await?.environment
        }
    };
    transaction.commit().await?;
    Ok(owner)
}
