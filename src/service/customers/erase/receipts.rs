//! Reads the receipts of erasures. Platform only.

use entity::erasure::{Column, Entity, Model};
use entity::value::ErasureId;
use sea_orm::{ColumnTrait, EntityTrait, QueryTrait};

use crate::database::pages::{self, HasPosition, ListPart, Page, PageRequest, Position};
use crate::error::Error;
use crate::request::count_query;
use crate::service::Caller;
use crate::service::customers::Customers;

impl Customers {
    /// Finds a receipt. Returns `None` if the caller may not see it: only the platform sees receipts.
    pub async fn find_erasure(&self, caller: &Caller, id: ErasureId) -> Result<Option<Model>, Error> {
        if caller.require_platform().is_err() {
            return Ok(None);
        }
        let found = Entity::find_by_id(id).one(self.database.reader()).await?;
        count_query(usize::from(found.is_some()));
        Ok(found)
    }

    /// Loads a page of the receipts, oldest first. Platform only.
    pub async fn erasures(&self, caller: &Caller, request: PageRequest) -> Result<Page<Model>, Error> {
        caller.require_platform()?;
        let list = ListPart::new(Entity::find().into_query(), vec![Column::Id.into_expr()]);
        Ok(pages::page(self.database.reader(), list, request).await?)
    }
}

impl HasPosition for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}
