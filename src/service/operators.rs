//! Looks up, lists, creates and changes operators. Operators rarely change, so they are cached for a moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use entity::admin_event::EventType;
use entity::api_key::Access;
use entity::operator::{ActiveModel, Column, Entity, Model, Status};
use entity::value::{DisplayName, OperatorId};
use parking_lot::RwLock;
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    Select, Set,
};

use super::api_keys::{ApiKeyWithSecret, NewApiKey};
use super::audit::{self, Subject};
use super::authentication::CACHE_TTL;
use super::webhooks::endpoints;
use super::{ApiKeys, Authenticator, Caller, Origin, RequestInfo, deployment, now};
use crate::database::pages::{self, Count, HasPosition, ListPart, Page, PageRequest, Position};
use crate::database::{Database, Transaction, TransactionError, is_one_of};
use crate::error::{Error, ErrorCode, InputField, Violation};

/// Looks up, lists, creates and changes operators.
pub struct Operators {
    database: Database,
    api_keys: ApiKeys,
    authenticator: Authenticator,
    /// A plain map, cleared when full. It takes one read lock per customer. With 20 operators per customer, lookups in
    /// a moka cache took 4.5% of the time of a page.
    cache: RwLock<OperatorCache>,
}

struct OperatorCache {
    operators: HashMap<OperatorId, Arc<Model>>,
    /// The time at which the cached operators expire, because another process may have changed them.
    expires_at: Instant,
}

/// The new values of an operator. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct OperatorChanges {
    pub name: Option<DisplayName>,
    pub status: Option<Status>,
    /// The disclosure budget, at least 1. `Some(None)` stands for the default.
    pub disclosures_per_hour: Option<Option<i32>>,
}

impl Operators {
    const MAX_CACHED: usize = 10_000;

    pub fn new(database: Database, api_keys: ApiKeys, authenticator: Authenticator) -> Self {
        let cache = OperatorCache { operators: HashMap::new(), expires_at: Instant::now() };
        Self { database, api_keys, authenticator, cache: cache.into() }
    }

    /// Returns the operators with these ids that the caller may see, by id.
    pub async fn find_by_ids(
        &self,
        caller: &Caller,
        ids: &[OperatorId],
    ) -> Result<HashMap<OperatorId, Arc<Model>>, Error> {
        let visible_ids = || ids.iter().copied().filter(|id| caller.sees(*id));
        if let Some(cached) = self.cached(caller, visible_ids()) {
            return Ok(visible_ids().zip(cached).collect());
        }
        // Before the query: the rows are as old as the query, even if its result arrives late.
        let expires_at = Instant::now() + CACHE_TTL;
        let is_visible = is_one_of(self.database.reader(), Column::Id, visible_ids());
        let rows = Entity::find().filter(is_visible).all(self.database.reader()).await?;
        let found: HashMap<_, _> = rows.into_iter().map(|operator| (operator.id, Arc::new(operator))).collect();
        let now = Instant::now();
        if expires_at <= now {
            return Ok(found);
        }
        let mut cache = self.cache.write();
        if cache.expires_at <= now || cache.operators.len() + found.len() > Self::MAX_CACHED {
            *cache = OperatorCache { operators: HashMap::new(), expires_at };
        }
        cache.expires_at = cache.expires_at.min(expires_at);
        cache.operators.extend(found.iter().map(|(id, operator)| (*id, operator.clone())));
        Ok(found)
    }

    /// Returns the operators with these ids, in this order, if all of them are cached and visible to the caller.
    pub fn cached(&self, caller: &Caller, ids: impl IntoIterator<Item = OperatorId>) -> Option<Vec<Arc<Model>>> {
        let cache = self.cache.read();
        if cache.expires_at <= Instant::now() {
            return None;
        }
        ids.into_iter().map(|id| cache.operators.get(&id).filter(|_| caller.sees(id)).cloned()).collect()
    }

    /// Returns a page of the operators that the caller may see, oldest first.
    pub async fn page(&self, caller: &Caller, request: PageRequest) -> Result<Page<Model>, Error> {
        Ok(pages::page(self.database.reader(), visible_list(caller), request).await?)
    }

    /// Counts the operators that the caller may see.
    pub async fn count(&self, caller: &Caller) -> Result<Count, Error> {
        let counts = pages::list_counts(self.database.reader(), vec![vec![visible_list(caller)]]).await?;
        Ok(counts.into_iter().sum())
    }

    /// Returns all operators, oldest first. Platform only.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Model>, Error> {
        caller.require_platform()?;
        Ok(Entity::find().order_by_asc(Column::Id).all(self.database.reader()).await?)
    }

    /// Creates an operator and its first key, which has full access and does not expire. Platform only.
    pub async fn create(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        name: DisplayName,
    ) -> Result<(Model, ApiKeyWithSecret), Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let create = || async { self.insert(self.database.begin_write().await?, origin, &name).await };
        self.database.with_retry("operator.create", create).await
    }

    /// Creates an operator as [`create`](Self::create) does, but only in a database without operators. Returns `None`
    /// otherwise.
    pub async fn create_first(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        name: DisplayName,
    ) -> Result<Option<(Model, ApiKeyWithSecret)>, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let create_first = || async {
            let transaction = self.database.begin_write().await?;
            // If several servers start on a new database, the others wait here until the first one has committed.
            deployment::lock(&transaction).await?;
            if Entity::find().one(&transaction).await?.is_some() {
                return Ok(None);
            }
            self.insert(transaction, origin, &name).await.map(Some)
        };
        self.database.with_retry("operator.create_first", create_first).await
    }

    /// Changes an operator and returns its row. Platform only. Within a second, all servers reject the keys of a
    /// suspended operator, and accept the keys of a resumed operator. Deliveries to the webhook endpoints of a
    /// suspended operator pause. A request that changes nothing adds no entry to the audit log.
    pub async fn update(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        id: OperatorId,
        changes: OperatorChanges,
    ) -> Result<Model, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        changes.check()?;
        let update = || async {
            let transaction = self.database.begin_write().await?;
            // The lock is not FOR UPDATE, because FOR UPDATE waits for every transaction that connects a customer to
            // the operator.
            let current = Entity::find_by_id(id).lock(LockType::NoKeyUpdate).one(&transaction).await?;
            let current = current.ok_or_else(|| Violation::of(ErrorCode::OperatorNotFound, InputField::Id))?;
            let changed = changes.applied_to(&current);
            if changed == current {
                return Ok(current);
            }
            let changed = changed.into_active_model().reset_all().update(&transaction).await?;
            match changed.status {
                status if status == current.status => (),
                Status::Suspended => endpoints::pause(&transaction, id).await?,
                Status::Active => endpoints::resume(&transaction, id).await?,
            }
            let (r#type, fields) = (type_of_change(&current, &changed), changed_fields(&current, &changed));
            audit::add_entry(&transaction, origin, r#type, id, Subject::Operator, &fields).await?;
            transaction.commit().await?;
            self.cache.write().operators.remove(&id);
            self.authenticator.clear_cache();
            Ok(changed)
        };
        self.database.with_retry("operator.update", update).await
    }

    async fn insert(
        &self,
        transaction: Transaction,
        origin: &Origin,
        name: &DisplayName,
    ) -> Result<(Model, ApiKeyWithSecret), TransactionError> {
        let operator = ActiveModel {
            id: Set(OperatorId::new()),
            name: Set(name.clone()),
            created_at: Set(now()),
            status: Set(Status::Active),
            disclosures_per_hour: Set(None),
        };
        let operator = operator.insert(&transaction).await?;
        let created = EventType::OperatorCreated;
        audit::add_entry(&transaction, origin, created, operator.id, Subject::Operator, &[]).await?;
        let name = DisplayName::parse("First key").expect("a name");
        let first = NewApiKey { name, access: Access::ReadWrite, expires_at: None };
        let key = self.api_keys.insert(&transaction, origin, operator.id, first).await?;
        transaction.commit().await?;
        Ok((operator, key))
    }
}

impl OperatorChanges {
    /// Checks the disclosure budget.
    pub fn check(&self) -> Result<(), Violation> {
        if self.disclosures_per_hour.flatten().is_some_and(|budget| budget < 1) {
            let note = "`disclosuresPerHour` must be at least 1, or null for the default.";
            return Err(Violation::argument(InputField::DisclosuresPerHour, note));
        }
        Ok(())
    }

    fn applied_to(&self, current: &Model) -> Model {
        let Self { name, status, disclosures_per_hour } = self.clone();
        Model {
            id: current.id,
            name: name.unwrap_or_else(|| current.name.clone()),
            created_at: current.created_at,
            status: status.unwrap_or(current.status),
            disclosures_per_hour: disclosures_per_hour.unwrap_or(current.disclosures_per_hour),
        }
    }
}

fn type_of_change(before: &Model, after: &Model) -> EventType {
    match after.status {
        _ if before.status == after.status => EventType::OperatorUpdated,
        Status::Active => EventType::OperatorResumed,
        Status::Suspended => EventType::OperatorSuspended,
    }
}

/// The names of the changed fields in the schema.
fn changed_fields(before: &Model, after: &Model) -> Vec<&'static str> {
    let Model { id: _, name, created_at: _, status, disclosures_per_hour } = after;
    let fields = [
        ("name", before.name != *name),
        ("status", before.status != *status),
        ("disclosuresPerHour", before.disclosures_per_hour != *disclosures_per_hour),
    ];
    fields.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect()
}

fn visible(caller: &Caller) -> Select<Entity> {
    Entity::find().apply_if(caller.operator(), |operators, own| operators.filter(Column::Id.eq(own)))
}

fn visible_list(caller: &Caller) -> ListPart {
    ListPart::new(visible(caller).into_query(), vec![Column::Id.into_expr()])
}

impl HasPosition for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}
