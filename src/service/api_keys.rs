//! API keys: made, listed, revoked, and recognised by their keyed hash.

use std::collections::HashMap;

use entity::api_key::{Access, ActiveModel, Column, Entity, Model};
use entity::deployment::Environment;
use entity::operator;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use rand::distr::{Alphanumeric, SampleString};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryTrait, Set,
    Unchanged,
};
use secrecy::{ExposeSecret, SecretString};

use super::{Actor, now};
use crate::database::{Aborted, Database, with_retry};
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;

#[derive(Clone)]
pub struct ApiKeys {
    database: Database,
    environment: Environment,
    hash: KeyedHash,
    platform: Option<PlatformKey>,
}

/// The hash of the platform's own key.
#[derive(Clone)]
struct PlatformKey(Vec<u8>);

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
        Self { database, environment, hash, platform }
    }

    /// Who holds this key. Keys are compared by their hash, so how long it takes tells nothing of a key.
    pub async fn authenticate(&self, key: &str) -> Result<Actor, Error> {
        let hash = self.hash.of(PURPOSE, &[key.as_bytes()]);
        if self.platform.as_ref().is_some_and(|platform| platform.0 == hash) {
            return Ok(Actor::Platform);
        }
        // Most of what is not a key, or is one of the other environment, is known without a look.
        if !is_well_formed(key, self.environment) {
            return Err(ErrorCode::Unauthenticated.into());
        }
        let row = Entity::find()
            .filter(Column::Hash.eq(hash))
            .filter(Column::RevokedAt.is_null())
            .one(self.database.reads())
            .await?
            .ok_or(ErrorCode::Unauthenticated)?;
        Ok(Actor::Operator { id: row.operator_id, key: row.id, access: row.access })
    }

    /// The keys with these ids that the caller may see: an operator its own.
    pub async fn find(&self, actor: &Actor, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, Model>, Error> {
        let keys = Entity::find()
            .filter(Column::Id.is_in(ids.iter().copied()))
            .apply_if(actor.operator(), |keys, own| keys.filter(Column::OperatorId.eq(own)));
        let keys = keys.all(self.database.reads()).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }

    pub async fn create(
        &self,
        actor: &Actor,
        operator: OperatorId,
        name: DisplayName,
        access: Access,
    ) -> Result<NewApiKey, Error> {
        actor.as_platform()?;
        with_retry("api_key.create", || self.try_create(operator, &name, access)).await
    }

    async fn try_create(&self, operator: OperatorId, name: &DisplayName, access: Access) -> Result<NewApiKey, Aborted> {
        let transaction = self.database.begin_write().await?;
        if operator::Entity::find_by_id(operator).one(&transaction).await?.is_none() {
            return Err(Error::from(ErrorCode::OperatorNotFound).into());
        }
        let key = self.insert(&transaction, operator, name.clone(), access).await?;
        transaction.commit().await?;
        Ok(key)
    }

    /// The keys of an operator, or of all, oldest first, the revoked ones included.
    pub async fn list(&self, actor: &Actor, operator: Option<OperatorId>) -> Result<Vec<Model>, Error> {
        actor.as_platform()?;
        let mut keys = Entity::find().order_by_asc(Column::Id);
        if let Some(operator) = operator {
            keys = keys.filter(Column::OperatorId.eq(operator));
        }
        Ok(keys.all(self.database.reads()).await?)
    }

    /// Ends a key, at once and for good. A key that was revoked before stays as it is.
    pub async fn revoke(&self, actor: &Actor, id: ApiKeyId) -> Result<Model, Error> {
        actor.as_platform()?;
        with_retry("api_key.revoke", || self.try_revoke(id)).await
    }

    async fn try_revoke(&self, id: ApiKeyId) -> Result<Model, Aborted> {
        let transaction = self.database.begin_write().await?;
        let key = Entity::find_by_id(id).one(&transaction).await?;
        let key = key.ok_or(Error::from(ErrorCode::ApiKeyNotFound))?;
        if key.revoked_at.is_some() {
            return Ok(key);
        }
        let revoked = ActiveModel { id: Unchanged(id), revoked_at: Set(Some(now())), ..Default::default() };
        let key = revoked.update(&transaction).await?;
        transaction.commit().await?;
        Ok(key)
    }

    pub(super) async fn insert(
        &self,
        transaction: &DatabaseTransaction,
        operator: OperatorId,
        name: DisplayName,
        access: Access,
    ) -> Result<NewApiKey, DbErr> {
        let secret = generate(self.environment);
        let row = ActiveModel {
            id: Set(ApiKeyId::new()),
            operator_id: Set(operator),
            name: Set(name),
            prefix: Set(secret[..beginning(self.environment).len() + SHOWN_CHARACTERS].to_owned()),
            hash: Set(self.hash.of(PURPOSE, &[secret.as_bytes()])),
            access: Set(access),
            created_at: Set(now()),
            revoked_at: Set(None),
        };
        Ok(NewApiKey { row: row.insert(transaction).await?, secret: secret.into() })
    }
}

const PURPOSE: &str = "api key";

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

/// Tells a mistyped key from a real one without a look at the database.
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
