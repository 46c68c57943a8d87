//! Removes the values of erased customers from a SQLite file. SQLite does not overwrite deleted content.

use entity::erasure::Entity;
use sea_orm::{EntityTrait, PaginatorTrait};

use crate::error::Error;
use crate::service::Caller;
use crate::service::customers::Customers;

impl Customers {
    /// If customers were erased since the last call, rewrites the SQLite file, so that the file contains none of their
    /// values any more. Returns true if the file was rewritten. Does nothing on PostgreSQL.
    pub async fn purge_erased(&self, caller: &Caller) -> Result<bool, Error> {
        caller.require_platform()?;
        let Some(purged) = self.database.sqlite_user_version().await? else { return Ok(false) };
        // The erasures are counted before the file is rewritten. If a customer is erased later, the next call rewrites
        // the file again.
        let erasures = Entity::find().count(self.database.reader()).await?;
        if erasures <= purged {
            return Ok(false);
        }
        self.database.vacuum_sqlite(erasures).await?;
        Ok(true)
    }
}
