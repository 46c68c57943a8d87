//! Operators: looks up, lists and creates them. Created operators never change, so they are cached.

use std::collections::HashMap;
use std::sync::Arc;

use entity::api_key::Access;
use entity::operator::{ActiveModel, Column, Entity, Model};
use entity::value::{DisplayName, OperatorId};
use parking_lot::RwLock;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, FromQueryResult, PaginatorTrait, QueryFilter, QueryOrder, QueryResult,
    QueryTrait, Select, Set,
};

use super::api_keys::{KeyRequest, NewApiKey};
use super::{Actor, ApiKeys, now};
use crate::database::pages::{self, List, Page, PageRequest, Position, Positioned};
use crate::database::{Database, Transaction, TransactionError, with_retry};
use crate::error::{Error, ErrorCode};

pub struct Operators {
    database: Database,
    api_keys: ApiKeys,
    /// Operators by id. The map is emptied when it is full. A page of customers looks up each operator of each
    /// customer. The map is not a moka cache: in a page of customers that have 20 operators each, the lookups in a moka
    /// cache took 4.5 % of the time. The map takes one read lock for all operators of a customer, and one hash lookup
    /// for each operator.
    cache: RwLock<HashMap<OperatorId, Arc<Model>>>,
}

impl Operators {
    const MAX_CACHED: usize = 10_000;

    pub fn new(database: Database, api_keys: ApiKeys) -> Self {
        Self { database, api_keys, cache: RwLock::default() }
    }

    /// Returns the operators with these ids that the caller may see, by id.
    pub async fn find(&self, actor: &Actor, ids: &[OperatorId]) -> Result<HashMap<OperatorId, Arc<Model>>, Error> {
        let visible = || ids.iter().copied().filter(|id| actor.sees(*id));
        if let Some(cached) = self.cached(actor, visible()) {
            return Ok(visible().zip(cached).collect());
        }
        let rows = Entity::find().filter(Column::Id.is_in(visible())).all(self.database.reader()).await?;
        let found: HashMap<_, _> = rows.into_iter().map(|operator| (operator.id, Arc::new(operator))).collect();
        let mut cache = self.cache.write();
        if cache.len() + found.len() > Self::MAX_CACHED {
            cache.clear();
        }
        cache.extend(found.iter().map(|(id, operator)| (*id, operator.clone())));
        Ok(found)
    }

    /// Returns the operators with these ids, in this order, if all of them are cached and visible to the caller.
    pub fn cached(&self, actor: &Actor, ids: impl IntoIterator<Item = OperatorId>) -> Option<Vec<Arc<Model>>> {
        let cache = self.cache.read();
        ids.into_iter().map(|id| cache.get(&id).filter(|_| actor.sees(id)).cloned()).collect()
    }

    /// Returns a page of the operators that the caller may see, oldest first.
    pub async fn page(&self, actor: &Actor, request: PageRequest) -> Result<Page<Model>, Error> {
        let list = List::new(visible(actor).into_query(), vec![Column::Id.into_expr()]);
        let read = |row: &QueryResult| Model::from_query_result(row, "");
        let position = |_, row: &Model| row.position();
        let pages = pages::pages(self.database.reader(), vec![(list, request)], read, position).await?;
        pages.into_iter().next().ok_or_else(|| ErrorCode::Internal.into())
    }

    /// Counts the operators that the caller may see.
    pub async fn count(&self, actor: &Actor) -> Result<u64, Error> {
        Ok(visible(actor).count(self.database.reader()).await?)
    }

    /// Returns all operators, oldest first. Platform only.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Model>, Error> {
        actor.require_platform()?;
        Ok(Entity::find().order_by_asc(Column::Id).all(self.database.reader()).await?)
    }

    /// Creates an operator and its first key, which has full access and does not expire. Platform only.
    pub async fn create(&self, actor: &Actor, name: DisplayName) -> Result<(Model, NewApiKey), Error> {
        actor.require_platform()?;
        let create = || async { self.insert(self.database.begin_write().await?, &name).await };
        with_retry("operator.create", create).await
    }

    /// Creates an operator as [`create`](Self::create) does, but only in a database without operators. Returns `None`
    /// otherwise.
    pub async fn create_first(&self, actor: &Actor, name: DisplayName) -> Result<Option<(Model, NewApiKey)>, Error> {
        actor.require_platform()?;
        let create_first = || async {
            let transaction = self.database.begin_write().await?;
            if Entity::find().one(&transaction).await?.is_some() {
                return Ok(None);
            }
            self.insert(transaction, &name).await.map(Some)
        };
        with_retry("operator.create_first", create_first).await
    }

    async fn insert(
        &self,
        transaction: Transaction,
        name: &DisplayName,
    ) -> Result<(Model, NewApiKey), TransactionError> {
        let operator = ActiveModel { id: Set(OperatorId::new()), name: Set(name.clone()), created_at: Set(now()) };
        let operator = operator.insert(&transaction).await?;
        let name = DisplayName::parse("First key").expect("a name");
        let first = KeyRequest { name, access: Access::ReadWrite, expires_at: None };
        let key = self.api_keys.insert(&transaction, operator.id, first).await?;
        transaction.commit().await?;
        Ok((operator, key))
    }
}

fn visible(actor: &Actor) -> Select<Entity> {
    Entity::find().apply_if(actor.operator(), |operators, own| operators.filter(Column::Id.eq(own)))
}

impl Positioned for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}
