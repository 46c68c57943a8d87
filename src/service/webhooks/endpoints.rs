//! The endpoints of operators: creates, changes, lists and deletes them, and derives their secrets.

use chrono::{DateTime, TimeDelta, Utc};
use entity::admin_event::EventType;
use entity::deployment::Environment;
use entity::operator;
use entity::value::{OperatorId, Reason, WebhookId, WebhookUrl};
use entity::webhook::{ChangeTypes, Column, Entity, Model};
use reqwest::Url;
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, ModelTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, Set,
};
use secrecy::SecretString;

use super::addresses::AddressFilter;
use super::signature::SigningSecret;
use crate::database::pages::{self, HasPosition, ListPart, Page, PageRequest, Position};
use crate::database::{Database, Transaction, TransactionError};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::KeyedHasher;
use crate::request::count_query;
use crate::service::audit::{self, Subject};
use crate::service::feed::{FeedRequest, start_expired};
use crate::service::feed_positions::FeedPosition;
use crate::service::{Caller, Feed, Origin, RequestInfo, check_year, now};

/// The maximum number of endpoints of an operator.
pub(super) const MAX_ENDPOINTS_PER_OPERATOR: u64 = 5;

/// The longest time for which deliveries are also signed with the previous secret: one week.
const MAX_OVERLAP_HOURS: i32 = 168;

/// Manages the webhook endpoints of operators.
pub struct Webhooks {
    database: Database,
    environment: Environment,
    hasher: KeyedHasher,
    addresses: AddressFilter,
    feed: Feed,
}

/// The properties of an endpoint to create.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// The operator of the endpoint, if the platform sends the request.
    pub operator: Option<OperatorId>,
    pub url: WebhookUrl,
    /// `None` stands for all types.
    pub types: Option<ChangeTypes>,
    /// `None` stands for the end of the feed.
    pub deliver_from: Option<StartOfDeliveries>,
}

/// The position in the feed at which deliveries start or continue.
#[derive(Clone, Debug)]
pub enum StartOfDeliveries {
    /// After this position of the operator's feed. The platform cannot use this variant, because the platform's cursors
    /// belong to the feed of all customers.
    After(FeedPosition),
    /// With the changes from this time on.
    From(DateTime<Utc>),
}

/// The new values of an endpoint. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct EndpointChanges {
    pub url: Option<WebhookUrl>,
    /// `Some(None)` stands for all types.
    pub types: Option<Option<ChangeTypes>>,
    pub is_enabled: Option<bool>,
    pub deliver_from: Option<StartOfDeliveries>,
}

/// An endpoint with its new secret, which is shown only once.
#[derive(Clone)]
pub struct EndpointWithSecret {
    pub row: Model,
    pub secret: SecretString,
}

impl Webhooks {
    pub fn new(
        database: Database,
        environment: Environment,
        hasher: KeyedHasher,
        addresses: AddressFilter,
        feed: Feed,
    ) -> Self {
        Self { database, environment, hasher, addresses, feed }
    }

    /// Returns the endpoint, or `None` if the caller may not see it. An operator sees its own endpoints. The platform
    /// sees all endpoints.
    pub async fn find(&self, caller: &Caller, id: WebhookId) -> Result<Option<Model>, Error> {
        let found = visible(caller).filter(Column::Id.eq(id)).one(self.database.reader()).await?;
        count_query(usize::from(found.is_some()));
        Ok(found)
    }

    /// Returns a page of the endpoints that the caller may see, oldest first.
    pub async fn page(&self, caller: &Caller, request: PageRequest) -> Result<Page<Model>, Error> {
        let list = ListPart::new(visible(caller).into_query(), vec![Column::Id.into_expr()]);
        Ok(pages::page(self.database.reader(), list, request).await?)
    }

    /// Creates an endpoint of the caller's operator. If the platform calls, creates an endpoint of the given operator.
    /// Fails with `TOO_MANY_WEBHOOKS` if the operator has the maximum number of endpoints.
    pub async fn create(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        endpoint: NewEndpoint,
    ) -> Result<EndpointWithSecret, Error> {
        let origin = &caller.authorize_write(request)?;
        let NewEndpoint { operator, url, types, deliver_from } = endpoint;
        self.check_url(&url)?;
        let operator_not_found = || Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId);
        let operator = caller.operator().or(operator).ok_or_else(operator_not_found)?;
        let position = match deliver_from {
            Some(start) => self.position_of(caller, operator, start).await?,
            None => self.feed.end_of_reader(operator).await?,
        };
        let create = || async {
            let transaction = self.database.begin_write().await?;
            // Because of the lock, concurrent requests count the endpoints one after the other.
            let owner = operator::Entity::find_by_id(operator).lock(LockType::NoKeyUpdate).one(&transaction).await?;
            let owner = owner.ok_or_else(operator_not_found)?;
            let count = Entity::find().filter(Column::OperatorId.eq(operator)).count(&transaction).await?;
            if count >= MAX_ENDPOINTS_PER_OPERATOR {
                return Err(Error::from(ErrorCode::TooManyWebhooks).into());
            }
            let now = now();
            let row = Model {
                id: WebhookId::new(),
                operator_id: operator,
                url: url.clone(),
                types: types.clone(),
                secret_version: 1,
                secret_created_at: now,
                previous_secret_until: None,
                delivered_position: position.number,
                delivered_id: position.id,
                sending_position: None,
                sending_id: None,
                failed_attempts: 0,
                failing_since: None,
                next_attempt_at: now,
                lease_until: None,
                last_attempt_at: None,
                last_status: None,
                last_failure: None,
                disabled_at: None,
                paused_at: (owner.status == operator::Status::Suspended).then_some(now),
                created_at: now,
            };
            let row = row.into_active_model().insert(&transaction).await?;
            add_entry(&transaction, origin, EventType::WebhookCreated, &row, &[]).await?;
            transaction.commit().await?;
            Ok(row)
        };
        let row = self.database.with_retry("webhook.create", create).await?;
        Ok(self.with_secret(row))
    }

    /// Returns the time of the oldest undelivered change of each endpoint, in the order of `endpoints`. A time is
    /// `None` if all changes were delivered to the endpoint.
    pub async fn undelivered_since(
        &self,
        caller: &Caller,
        endpoints: &[(OperatorId, FeedPosition)],
    ) -> Result<Vec<Option<DateTime<Utc>>>, Error> {
        if !endpoints.iter().all(|(operator, _)| caller.sees(*operator)) {
            return Err(ErrorCode::Forbidden.into());
        }
        self.feed.times_after(endpoints.to_vec()).await
    }

    /// Changes an endpoint and returns its row. An endpoint that the request enables again continues at its cursor. A
    /// new URL or position is tried immediately. A request that changes nothing leaves no entry in the audit log.
    pub async fn update(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        id: WebhookId,
        changes: EndpointChanges,
    ) -> Result<Model, Error> {
        let origin = &caller.authorize_write(request)?;
        if let Some(url) = &changes.url {
            self.check_url(url)?;
        }
        let position = match changes.deliver_from.clone() {
            Some(start) => {
                let endpoint = self.find(caller, id).await?.ok_or_else(not_found)?;
                Some(self.position_of(caller, endpoint.operator_id, start).await?)
            }
            None => None,
        };
        let update = || async {
            let transaction = self.database.begin_write().await?;
            let current = lock(&transaction, caller, id).await?;
            let changed = changes.applied_to(&current, position);
            let fields = changes.changed_fields(&current, &changed);
            if fields.is_empty() {
                return Ok(current);
            }
            let row = changed.into_active_model().reset_all().update(&transaction).await?;
            add_entry(&transaction, origin, EventType::WebhookUpdated, &row, &fields).await?;
            transaction.commit().await?;
            Ok(row)
        };
        self.database.with_retry("webhook.update", update).await
    }

    /// Gives an endpoint a new secret. Deliveries are also signed with the previous secret for `overlap_hours`. Fails
    /// with `INVALID_ARGUMENT` if `overlap_hours` is not 0 to 168 (a week).
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        id: WebhookId,
        overlap_hours: i32,
    ) -> Result<EndpointWithSecret, Error> {
        let origin = &caller.authorize_write(request)?;
        if !(0..=MAX_OVERLAP_HOURS).contains(&overlap_hours) {
            let note = "`overlapHours` must be 0 to 168 (one week).";
            return Err(Violation::argument(InputField::OverlapHours, note).into());
        }
        let rotate = || async {
            let transaction = self.database.begin_write().await?;
            let current = lock(&transaction, caller, id).await?;
            let now = now();
            let version = current.secret_version + 1;
            let mut row = current.into_active_model();
            row.secret_version = Set(version);
            row.secret_created_at = Set(now);
            row.previous_secret_until = Set(Some(now + TimeDelta::hours(overlap_hours.into())));
            let row = row.update(&transaction).await?;
            add_entry(&transaction, origin, EventType::WebhookSecretRotated, &row, &[]).await?;
            transaction.commit().await?;
            Ok(row)
        };
        let row = self.database.with_retry("webhook.rotate_secret", rotate).await?;
        Ok(self.with_secret(row))
    }

    /// Deletes an endpoint. A delivery that is in progress may still arrive.
    pub async fn delete(&self, caller: &Caller, request: &RequestInfo, id: WebhookId) -> Result<(), Error> {
        let origin = &caller.authorize_write(request)?;
        let delete = || async {
            let transaction = self.database.begin_write().await?;
            let row = lock(&transaction, caller, id).await?;
            add_entry(&transaction, origin, EventType::WebhookDeleted, &row, &[]).await?;
            row.delete(&transaction).await?;
            transaction.commit().await?;
            Ok(())
        };
        self.database.with_retry("webhook.delete", delete).await
    }

    /// Returns the secrets that sign the deliveries to an endpoint at the time `now`: the current secret, and during
    /// the overlap after a rotation also the previous secret. While `VIVAMO_KEY_SECRET` is being changed, each of these
    /// secrets is in the list in two forms: derived from the new value of `VIVAMO_KEY_SECRET`, and derived from the old
    /// value.
    pub fn secrets(&self, endpoint: &Model, now: DateTime<Utc>) -> Vec<SigningSecret> {
        let version = endpoint.secret_version;
        let has_previous = endpoint.previous_secret_until.is_some_and(|until| now < until);
        let versions = [version].into_iter().chain(has_previous.then_some(version - 1));
        versions.flat_map(|version| SigningSecret::derive(&self.hasher, *endpoint.id.as_uuid(), version)).collect()
    }

    fn with_secret(&self, row: Model) -> EndpointWithSecret {
        let secrets = SigningSecret::derive(&self.hasher, *row.id.as_uuid(), row.secret_version);
        let secret = secrets.current.to_text();
        EndpointWithSecret { row, secret }
    }

    /// Returns the position in an operator's feed that `start` stands for. Fails with `CURSOR_EXPIRED` if changes after
    /// the position may have been deleted, or if a cursor is ahead of the feed.
    async fn position_of(
        &self,
        caller: &Caller,
        operator: OperatorId,
        start: StartOfDeliveries,
    ) -> Result<FeedPosition, Error> {
        match start {
            StartOfDeliveries::From(time) => {
                self.feed.position_before(operator, check_year(time, InputField::DeliverFromTime)?).await
            }
            StartOfDeliveries::After(_) if caller.operator() != Some(operator) => {
                let note =
                    "With the platform key, use `time`: the platform's cursors belong to the feed of all customers.";
                Err(Violation::argument(InputField::DeliverFromCursor, note).into())
            }
            StartOfDeliveries::After(position) => {
                let request = FeedRequest { size: 1, after: Some(position), types: None };
                match self.feed.read_page(operator, request).await {
                    Ok(_) => Ok(position),
                    Err(error) if error.has(ErrorCode::CursorExpired) => {
                        Err(start_expired(InputField::DeliverFromCursor).into())
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Fails with `INVALID_URL` if [`AddressFilter::allows_url`] does not allow the URL. In production, also fails if
    /// the URL does not use `https`.
    pub fn check_url(&self, url: &WebhookUrl) -> Result<(), Violation> {
        let reject = |reason| Err(Violation::of(ErrorCode::InvalidUrl, InputField::Url).with_reason(reason));
        if self.environment == Environment::Production && !url.is_https() {
            return reject(Reason::NotHttps);
        }
        let is_allowed = Url::parse(url.as_str()).is_ok_and(|url| self.addresses.allows_url(&url));
        if is_allowed { Ok(()) } else { reject(Reason::HostNotPublic) }
    }
}

impl EndpointChanges {
    /// `position` is the new cursor. `None` leaves the cursor as it is.
    fn applied_to(&self, current: &Model, position: Option<FeedPosition>) -> Model {
        let Self { url, types, is_enabled, deliver_from: _ } = self;
        let mut changed = current.clone();
        let now = now();
        if let Some(url) = url {
            changed.url = url.clone();
        }
        if let Some(types) = types {
            changed.types = types.clone();
        }
        match is_enabled {
            Some(true) => changed.disabled_at = None,
            Some(false) => changed.disabled_at = current.disabled_at.or(Some(now)),
            None => (),
        }
        if let Some(FeedPosition { number, id }) = position {
            (changed.delivered_position, changed.delivered_id) = (number, id);
        }
        if changed.types != current.types || position.is_some() {
            (changed.sending_position, changed.sending_id) = (None, None);
        }
        // The failures so far were failures of another receiver, of an earlier attempt, or of other changes.
        let is_resumed = current.disabled_at.is_some() && changed.disabled_at.is_none();
        if is_resumed || position.is_some() || changed.url != current.url {
            (changed.failed_attempts, changed.failing_since, changed.next_attempt_at) = (0, None, now);
        }
        changed
    }

    /// Returns the names in the GraphQL schema of the fields that these changes have changed between the two rows.
    fn changed_fields(&self, before: &Model, after: &Model) -> Vec<&'static str> {
        // Lists all fields: if no name is returned, the request counts as one that changes nothing.
        let Self { url: _, types: _, is_enabled: _, deliver_from } = self;
        let fields = [
            ("url", before.url != after.url),
            ("types", before.types != after.types),
            ("enabled", before.disabled_at.is_some() != after.disabled_at.is_some()),
            // The cursor counts as changed even if its position is the old one, because the backoff ends.
            ("cursor", deliver_from.is_some()),
        ];
        fields.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name).collect()
    }
}

/// Pauses the deliveries to the endpoints of an operator that is being suspended.
pub(in crate::service) async fn pause(transaction: &Transaction, operator: OperatorId) -> Result<(), DbErr> {
    let endpoints = Entity::update_many().filter(Column::OperatorId.eq(operator));
    endpoints.col_expr(Column::PausedAt, now().into()).exec(transaction).await?;
    Ok(())
}

/// Resumes the deliveries to the endpoints of an operator. The time of the pause does not count as a time of failure.
pub(in crate::service) async fn resume(transaction: &Transaction, operator: OperatorId) -> Result<(), DbErr> {
    let now = now();
    let endpoints = Entity::find().filter(Column::OperatorId.eq(operator)).order_by_asc(Column::Id);
    for endpoint in endpoints.lock(LockType::NoKeyUpdate).all(transaction).await? {
        let failing_since = endpoint.failing_since.map(|since| match endpoint.paused_at {
            // An attempt that began before the pause may have failed after the start of the pause.
            Some(paused_at) => since + (now - paused_at.max(since)),
            None => since,
        });
        let next_attempt_at = endpoint.next_attempt_at.max(now);
        let mut row = endpoint.into_active_model();
        row.paused_at = Set(None);
        row.failing_since = Set(failing_since);
        // The time is not earlier than now, because a poll finds only endpoints that have become due since about the
        // previous poll.
        row.next_attempt_at = Set(next_attempt_at);
        row.update(transaction).await?;
    }
    Ok(())
}

fn visible(caller: &Caller) -> Select<Entity> {
    Entity::find().apply_if(caller.operator(), |endpoints, own| endpoints.filter(Column::OperatorId.eq(own)))
}

/// Locks an endpoint. Fails with `WEBHOOK_NOT_FOUND` if the caller may not see it.
async fn lock(transaction: &Transaction, caller: &Caller, id: WebhookId) -> Result<Model, TransactionError> {
    let endpoint = visible(caller).filter(Column::Id.eq(id)).lock(LockType::NoKeyUpdate).one(transaction).await?;
    endpoint.ok_or_else(|| not_found().into())
}

fn not_found() -> Violation {
    Violation::of(ErrorCode::WebhookNotFound, InputField::Id)
}

/// Returns the cursor of an endpoint: the position of the last change that was delivered or skipped.
pub fn cursor(endpoint: &Model) -> FeedPosition {
    FeedPosition { number: endpoint.delivered_position, id: endpoint.delivered_id }
}

/// Adds an entry for a change to an endpoint to the audit log.
async fn add_entry(
    transaction: &Transaction,
    origin: &Origin,
    r#type: EventType,
    endpoint: &Model,
    changed_fields: &[&str],
) -> Result<(), DbErr> {
    let subject = Subject::Webhook(endpoint.id);
    audit::add_entry(transaction, origin, r#type, endpoint.operator_id, subject, changed_fields).await
}

impl HasPosition for Model {
    fn position(&self) -> Position {
        Position::by_id(*self.id.as_uuid())
    }
}
