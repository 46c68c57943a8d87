//! Operators: who they are, and the list of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use entity::api_key::Access;
use entity::operator::{ActiveModel, Column, Entity, Model};
use entity::value::{DisplayName, OperatorId};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, FromQueryResult, PaginatorTrait, QueryFilter, QueryResult,
    QueryTrait, Select, Set,
};

use super::api_keys::{KeyRequest, NewApiKey};
use super::{Actor, ApiKeys, now};
use crate::database::pages::{self, Key, List, Page, PageRequest, Position, Positioned};
use crate::database::{Database, Transaction, TransactionError, with_retry};
use crate::error::{Error, ErrorCode};

#[derive(Clone)]
pub struct Operators {
    database: Database,
    /// Those that were looked up lately; all are forgotten where they become too many. An operator never changes.
    known: Arc<RwLock<HashMap<OperatorId, Arc<Model>>>>,
}

impl Operators {
    const MAX_KNOWN: usize = 10_000;

    pub fn new(database: Database) -> Self {
        Self { database, known: Arc::default() }
    }

    /// The operators with these ids that the caller may see.
    pub async fn find(&self, actor: &Actor, ids: &[OperatorId]) -> Result<HashMap<OperatorId, Arc<Model>>, Error> {
        let visible = || ids.iter().copied().filter(|id| actor.sees(*id));
        if let Some(known) = self.known(actor, visible()) {
            return Ok(visible().zip(known).collect());
        }
        let rows = Entity::find().filter(Column::Id.is_in(visible())).all(self.database.reader()).await?;
        let found: HashMap<_, _> = rows.into_iter().map(|operator| (operator.id, Arc::new(operator))).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.len() > Self::MAX_KNOWN {
            known.clear();
        }
        known.extend(found.iter().map(|(id, operator)| (*id, operator.clone())));
        Ok(found)
    }

    /// The operators with these ids, if the caller may see all of them, and if all of them were looked up lately.
    pub fn known(&self, actor: &Actor, ids: impl IntoIterator<Item = OperatorId>) -> Option<Vec<Arc<Model>>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        ids.into_iter().map(|id| known.get(&id).filter(|_| actor.sees(id)).cloned()).collect()
    }

    /// The operators that the caller may see, oldest first.
    pub async fn page(&self, actor: &Actor, request: PageRequest) -> Result<Page<Model>, Error> {
        let columns = vec![Column::Id.into_expr()];
        let list = List { rows: visible(actor).into_query(), columns, descending: false, beside: None };
        let read = |row: &QueryResult| Model::from_query_result(row, "");
        let position = |_, row: &Model| row.position();
        let pages = pages::pages(self.database.reader(), vec![(list, request)], read, position).await?;
        pages.into_iter().next().ok_or_else(|| ErrorCode::Internal.into())
    }

    /// How many operators the caller may see.
    pub async fn count(&self, actor: &Actor) -> Result<u64, Error> {
        Ok(visible(actor).count(self.database.reader()).await?)
    }

    /// A new operator with its first key, whose secret is nowhere but in the answer.
    pub async fn create(&self, actor: &Actor, keys: &ApiKeys, name: DisplayName) -> Result<(Model, NewApiKey), Error> {
        actor.require_platform()?;
        with_retry("operator.create", || self.try_create(keys, &name)).await
    }

    /// As [`create`](Self::create), but only where there is no operator at all.
    pub async fn create_first(
        &self,
        actor: &Actor,
        keys: &ApiKeys,
        name: DisplayName,
    ) -> Result<Option<(Model, NewApiKey)>, Error> {
        actor.require_platform()?;
        with_retry("operator.create_first", || self.try_create_first(keys, &name)).await
    }

    async fn try_create(&self, keys: &ApiKeys, name: &DisplayName) -> Result<(Model, NewApiKey), TransactionError> {
        let transaction = self.database.begin_write().await?;
        let created = insert(&transaction, keys, name).await?;
        transaction.commit().await?;
        Ok(created)
    }

    async fn try_create_first(
        &self,
        keys: &ApiKeys,
        name: &DisplayName,
    ) -> Result<Option<(Model, NewApiKey)>, TransactionError> {
        let transaction = self.database.begin_write().await?;
        if Entity::find().one(&transaction).await?.is_some() {
            return Ok(None);
        }
        let created = insert(&transaction, keys, name).await?;
        transaction.commit().await?;
        Ok(Some(created))
    }
}

async fn insert(transaction: &Transaction, keys: &ApiKeys, name: &DisplayName) -> Result<(Model, NewApiKey), DbErr> {
    let operator = ActiveModel { id: Set(OperatorId::new()), name: Set(name.clone()), created_at: Set(now()) };
    let operator = operator.insert(transaction).await?;
    let name = DisplayName::parse("First key").expect("a name");
    let first = KeyRequest { name, access: Access::ReadWrite, expires_at: None };
    let key = keys.insert(transaction, operator.id, first).await?;
    Ok((operator, key))
}

fn visible(actor: &Actor) -> Select<Entity> {
    Entity::find().apply_if(actor.operator(), |operators, own| operators.filter(Column::Id.eq(own)))
}

impl Positioned for Model {
    fn position(&self) -> Position {
        Position { key: Key::None, id: *self.id.as_uuid() }
    }
}
