//! API keys: made, listed, revoked, and recognised by their idempotent hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use entity::api_key::{Access, ActiveModel, Column, Entity, Model};
use entity::deployment::Environment;
use entity::operator;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use moka::sync::Cache;
use rand::distr::{Alphanumeric, SampleString};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryTrait, Set, Unchanged,
};
use secrecy::{ExposeSecret, SecretString};

use super::{Actor, now};
use crate::database::{Database, Transaction, TransactionError, with_retry};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::KeyedHash;

#[derive(Clone)]
pub struct ApiKeys {
    database: Database,
    environment: Environment,
    hash: KeyedHash,
    platform: Option<PlatformKey>,
    /// By their hashes, the keys that were seen lately. A key that is revoked elsewhere is forgotten as soon.
    seen: Cache<Vec<u8>, Model>,
    /// When keys were used last, as far as the database does not know it yet.
    uses: Arc<Mutex<HashMap<ApiKeyId, DateTime<Utc>>>>,
}

/// The hash of the platform's own key.
#[derive(Clone)]
struct PlatformKey(Vec<u8>);

/// A key to make.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    pub name: DisplayName,
    pub access: Access,
    /// `None`: it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key that was just made, with the secret that is shown this once.
#[derive(Clone)]
pub struct NewApiKey {
    pub row: Model,
    pub secret: SecretString,
}

impl ApiKeys {
    pub fn new(
        database: Database,
        environment: Environment,
        hash: KeyedHash,
        platform_key: Option<&SecretString>,
    ) -> Self {
        let platform = platform_key.map(|key| PlatformKey(hash.of(PURPOSE, &[key.expose_secret().as_bytes()])));
        let seen = Cache::builder().max_capacity(SEEN_KEYS).time_to_live(REVOCATION_TAKES).build();
        Self { database, environment, hash, platform, seen, uses: Arc::default() }
    }

    /// Who holds this key, if it was seen just now. Keys are compared by their hashes, so how long it takes tells nothing of
    /// a key.
    pub fn recognise(&self, key: &str) -> Option<Actor> {
        let hash = self.hash.of(PURPOSE, &[key.as_bytes()]);
        if self.platform.as_ref().is_some_and(|platform| platform.0 == hash) {
            return Some(Actor::Platform);
        }
        self.holder(&self.seen.get(&hash)?)
    }

    /// Looks up who holds a key that is not [recognised](Self::recognise).
    pub async fn authenticate(&self, key: &str) -> Result<Actor, Error> {
        // Most of what is not a key, or is one of the other environment, is known without a look.
        if !is_well_formed(key, self.environment) {
            return Err(ErrorCode::Unauthenticated.into());
        }
        let hash = self.hash.of(PURPOSE, &[key.as_bytes()]);
        let row = Entity::find().filter(Column::Hash.eq(hash.clone())).one(self.database.reader()).await?;
        let row = row.ok_or(ErrorCode::Unauthenticated)?;
        self.seen.insert(hash, row.clone());
        self.holder(&row).ok_or_else(|| ErrorCode::Unauthenticated.into())
    }

    /// Who holds a key that is valid now.
    fn holder(&self, key: &Model) -> Option<Actor> {
        let now = now();
        if key.revoked_at.is_some() || key.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).insert(key.id, now);
        Some(Actor::Operator { id: key.operator_id, key: key.id, access: key.access })
    }

    /// WriteBatch down when keys were used last. This is for now and then, not for each request to wait for.
    pub async fn write_uses(&self) -> Result<(), Error> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let mut uses: Vec<_> = uses.into_iter().collect();
        // In one order, so that replicas do not wait for each other in a circle.
        uses.sort_unstable();
        with_retry("key.write_uses", || self.try_write_uses(&uses)).await
    }

    async fn try_write_uses(&self, uses: &[(ApiKeyId, DateTime<Utc>)]) -> Result<(), TransactionError> {
        if uses.is_empty() {
            return Ok(());
        }
        let transaction = self.database.begin_write().await?;
        for (id, used_at) in uses {
            let is_news = Condition::any().add(Column::LastUsedAt.is_null()).add(Column::LastUsedAt.lt(*used_at));
            Entity::update_many()
                .col_expr(Column::LastUsedAt, (*used_at).into())
                .filter(Column::Id.eq(*id))
                .filter(is_news)
                .exec(&transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The keys with these ids that the caller may see: an operator its own.
    pub async fn find(&self, actor: &Actor, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, Model>, Error> {
        let keys = Entity::find()
            .filter(Column::Id.is_in(ids.iter().copied()))
            .apply_if(actor.operator(), |keys, own| keys.filter(Column::OperatorId.eq(own)));
        let keys = keys.all(self.database.reader()).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }

    pub async fn create(&self, actor: &Actor, operator: OperatorId, request: KeyRequest) -> Result<NewApiKey, Error> {
        actor.require_platform()?;
        if request.expires_at.is_some_and(|end| end <= now()) {
            let note = "It must lie in the future.";
            return Err(Violation::of(ErrorCode::InvalidArgument, InputField::ExpiresAt).with_note(note).into());
        }
        with_retry("key.create", || self.try_create(operator, &request)).await
    }

    async fn try_create(&self, operator: OperatorId, request: &KeyRequest) -> Result<NewApiKey, TransactionError> {
        let transaction = self.database.begin_write().await?;
        if operator::Entity::find_by_id(operator).one(&transaction).await?.is_none() {
            return Err(Error::from(Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId)).into());
        }
        let key = self.insert(&transaction, operator, request.clone()).await?;
        transaction.commit().await?;
        Ok(key)
    }

    /// All keys, oldest first, those that are revoked or expired included.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<Model>, Error> {
        actor.require_platform()?;
        Ok(Entity::find().order_by_asc(Column::Id).all(self.database.reader()).await?)
    }

    /// The keys of each of these operators that the caller may see, oldest first.
    pub async fn by_operator(
        &self,
        actor: &Actor,
        operators: &[OperatorId],
    ) -> Result<HashMap<OperatorId, Vec<Model>>, Error> {
        let seen: Vec<_> = operators.iter().copied().filter(|id| actor.sees(*id)).collect();
        let mut of_operators: HashMap<_, _> = seen.iter().map(|id| (*id, Vec::new())).collect();
        let keys = Entity::find().filter(Column::OperatorId.is_in(seen)).order_by_asc(Column::Id);
        for key in keys.all(self.database.reader()).await? {
            of_operators.entry(key.operator_id).or_default().push(key);
        }
        Ok(of_operators)
    }

    /// Ends a key, at once and for good. A key that was revoked before stays as it is.
    pub async fn revoke(&self, actor: &Actor, id: ApiKeyId) -> Result<Model, Error> {
        actor.require_platform()?;
        with_retry("key.revoke", || self.try_revoke(id)).await
    }

    async fn try_revoke(&self, id: ApiKeyId) -> Result<Model, TransactionError> {
        let transaction = self.database.begin_write().await?;
        let key = Entity::find_by_id(id).one(&transaction).await?;
        let key = key.ok_or_else(|| Error::from(Violation::of(ErrorCode::ApiKeyNotFound, InputField::Id)))?;
        if key.revoked_at.is_some() {
            return Ok(key);
        }
        let revoked = ActiveModel { id: Unchanged(id), revoked_at: Set(Some(now())), ..Default::default() };
        let key = revoked.update(&transaction).await?;
        transaction.commit().await?;
        self.seen.invalidate(&key.hash);
        Ok(key)
    }

    pub(super) async fn insert(
        &self,
        transaction: &Transaction,
        operator: OperatorId,
        request: KeyRequest,
    ) -> Result<NewApiKey, DbErr> {
        let KeyRequest { name, access, expires_at } = request;
        let secret = generate(self.environment);
        let row = ActiveModel {
            id: Set(ApiKeyId::new()),
            operator_id: Set(operator),
            name: Set(name),
            prefix: Set(secret[..beginning(self.environment).len() + SHOWN_CHARACTERS].to_owned()),
            hash: Set(self.hash.of(PURPOSE, &[secret.as_bytes()])),
            access: Set(access),
            created_at: Set(now()),
            expires_at: Set(expires_at),
            last_used_at: Set(None),
            revoked_at: Set(None),
        };
        Ok(NewApiKey { row: row.insert(transaction).await?, secret: secret.into() })
    }
}

const PURPOSE: &str = "api key";

/// How long a key may open what it did after another process has revoked it. It is less than a second, so that the
/// request that is under way has time to end.
const REVOCATION_TAKES: Duration = Duration::from_millis(800);
const SEEN_KEYS: u64 = 10_000;

/// 30 characters of 62 are 178 bits.
const RANDOM_CHARACTERS: usize = 30;
const CHECKSUM_CHARACTERS: usize = 6;
/// Of the random part, for people to tell keys apart.
const SHOWN_CHARACTERS: usize = 4;

/// How the keys of an environment begin, for people and for scanners of leaked secrets.
fn beginning(environment: Environment) -> &'static str {
    match environment {
        Environment::Sandbox => "vivamo_sandbox_",
        Environment::Production => "vivamo_production_",
    }
}

fn generate(environment: Environment) -> String {
    let random = Alphanumeric.sample_string(&mut rand::rng(), RANDOM_CHARACTERS);
    let key = beginning(environment).to_owned() + &random;
    let checksum = checksum(&key);
    key + &checksum
}

/// Projection a mistyped key from a real one without a look at the database.
fn checksum(key: &str) -> String {
    let digits = base62::encode(crc32fast::hash(key.as_bytes()));
    format!("{digits:0>CHECKSUM_CHARACTERS$}")
}

fn is_well_formed(key: &str, environment: Environment) -> bool {
    key.is_ascii()
        && key.len() == beginning(environment).len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
        && key.starts_with(beginning(environment))
        && checksum(&key[..key.len() - CHECKSUM_CHARACTERS]) == key[key.len() - CHECKSUM_CHARACTERS..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_well_formed_in_its_own_environment_alone() {
        for (own, other) in
            [(Environment::Sandbox, Environment::Production), (Environment::Production, Environment::Sandbox)]
        {
            let key = generate(own);
            assert!(is_well_formed(&key, own));
            assert!(!is_well_formed(&key, other));
            assert_ne!(key, generate(own));
        }
    }

    #[test]
    fn a_mistyped_key_is_not_well_formed() {
        let key = generate(Environment::Sandbox);
        for position in "vivamo_sandbox_".len()..key.len() {
            let mut mistyped = key.clone().into_bytes();
            mistyped[position] = if mistyped[position] == b'x' { b'y' } else { b'x' };
            let mistyped = String::from_utf8(mistyped).expect("ASCII");
            assert!(!is_well_formed(&mistyped, Environment::Sandbox), "{mistyped}");
        }
        for other in
            ["", "vivamo_sandbox_", &key[1..], &key[..key.len() - 1], &format!("{key}0"), "é".repeat(26).as_str()]
        {
            assert!(!is_well_formed(other, Environment::Sandbox), "{other}");
        }
    }
}
