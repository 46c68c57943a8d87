//! API keys: creates, finds, lists and revokes keys.

use std::collections::HashMap;

use chrono::{DateTime, SubsecRound, Utc};
use entity::admin_event::EventType;
use entity::api_key::{Access, ActiveModel, Column, Entity, Model};
use entity::deployment::Environment;
use entity::operator;
use entity::value::{ApiKeyId, DisplayName, OperatorId};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Set, Unchanged,
};
use secrecy::SecretString;

use super::audit::{self, Subject};
use super::{Authenticator, Caller, Origin, RequestInfo, check_year, key_format, now};
use crate::database::{Database, Transaction, TransactionError, is_one_of};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::request::count_query;

/// Creates, lists and revokes the API keys of operators.
#[derive(Clone)]
pub struct ApiKeys {
    database: Database,
    environment: Environment,
    authenticator: Authenticator,
}

/// The properties of a key to create.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: DisplayName,
    pub access: Access,
    /// `None` if the key does not expire.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Checks the time at which a new key expires.
pub fn check_expiry(expires_at: Option<DateTime<Utc>>) -> Result<(), Violation> {
    let Some(expires_at) = expires_at else { return Ok(()) };
    if expires_at.trunc_subsecs(6) <= now() {
        let note = "`expiresAt` must be in the future, for example 2100-01-31T00:00:00Z.";
        return Err(Violation::argument(InputField::ExpiresAt, note));
    }
    check_year(expires_at, InputField::ExpiresAt).map(drop)
}

/// A key that was just created. The secret is not stored, so it can only be shown now.
#[derive(Clone)]
pub struct ApiKeyWithSecret {
    pub row: Model,
    pub secret: SecretString,
}

impl ApiKeys {
    pub fn new(database: Database, environment: Environment, authenticator: Authenticator) -> Self {
        Self { database, environment, authenticator }
    }

    /// Returns the keys with these ids that the caller may see, by id. An operator sees only its own keys.
    pub async fn find_by_ids(&self, caller: &Caller, ids: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, Model>, Error> {
        let query = Entity::find()
            .filter(is_one_of(self.database.reader(), Column::Id, ids.iter().copied()))
            .apply_if(caller.operator(), |keys, own| keys.filter(Column::OperatorId.eq(own)));
        let keys = query.all(self.database.reader()).await?;
        count_query(keys.len());
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }

    /// Creates a key. Platform only. Fails with `OPERATOR_NOT_FOUND` for an unknown operator, and with
    /// `INVALID_ARGUMENT` if the key has expired already, or expires after the year 9999.
    pub async fn create(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        operator: OperatorId,
        key: NewApiKey,
    ) -> Result<ApiKeyWithSecret, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        // PostgreSQL would round to microseconds, and SQLite would store nanoseconds.
        let key = NewApiKey { expires_at: key.expires_at.map(|time| time.trunc_subsecs(6)), ..key };
        check_expiry(key.expires_at)?;
        let create = || async {
            let transaction = self.database.begin_write().await?;
            check_operator(&transaction, operator).await?;
            let created = self.insert(&transaction, origin, operator, key.clone()).await?;
            transaction.commit().await?;
            Ok(created)
        };
        self.database.with_retry("key.create", create).await
    }

    /// Returns all keys, oldest first, including revoked and expired ones. Platform only.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Model>, Error> {
        caller.require_platform()?;
        Ok(Entity::find().order_by_asc(Column::Id).all(self.database.reader()).await?)
    }

    /// Returns the keys of these operators, oldest first. Operators that the caller may not see are left out.
    pub async fn list_by_operators(
        &self,
        caller: &Caller,
        operators: &[OperatorId],
    ) -> Result<HashMap<OperatorId, Vec<Model>>, Error> {
        let visible: Vec<_> = operators.iter().copied().filter(|id| caller.sees(*id)).collect();
        let mut keys_by_operator: HashMap<_, _> = visible.iter().map(|id| (*id, Vec::new())).collect();
        let is_visible = is_one_of(self.database.reader(), Column::OperatorId, visible);
        let query = Entity::find().filter(is_visible).order_by_asc(Column::Id);
        let keys = query.all(self.database.reader()).await?;
        count_query(keys.len());
        for key in keys {
            keys_by_operator.entry(key.operator_id).or_default().push(key);
        }
        Ok(keys_by_operator)
    }

    /// Revokes a key permanently and returns its row. Platform only. Other processes reject the key within a second.
    /// Revoking a revoked key changes nothing.
    pub async fn revoke(&self, caller: &Caller, request: &RequestInfo, id: ApiKeyId) -> Result<Model, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let revoke = || async {
            let transaction = self.database.begin_write().await?;
            let found = Entity::find_by_id(id).lock(LockType::NoKeyUpdate).one(&transaction).await?;
            let key = found.ok_or_else(|| Violation::of(ErrorCode::ApiKeyNotFound, InputField::Id))?;
            if key.revoked_at.is_some() {
                return Ok(key);
            }
            let revoked = ActiveModel { id: Unchanged(id), revoked_at: Set(Some(now())), ..Default::default() };
            let key = revoked.update(&transaction).await?;
            add_entry(&transaction, origin, EventType::ApiKeyRevoked, &key).await?;
            transaction.commit().await?;
            self.authenticator.clear_cache();
            Ok(key)
        };
        self.database.with_retry("key.revoke", revoke).await
    }

    /// Revokes all keys of an operator permanently. Returns the rows of the keys that were not revoked before, oldest
    /// first. Platform only. Other processes reject the keys within a second.
    pub async fn revoke_all(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        operator: OperatorId,
    ) -> Result<Vec<Model>, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let revoke_all = || async {
            let transaction = self.database.begin_write().await?;
            check_operator(&transaction, operator).await?;
            let revoked = Entity::update_many()
                .col_expr(Column::RevokedAt, now().into())
                .filter(Column::OperatorId.eq(operator))
                .filter(Column::RevokedAt.is_null());
            let mut keys = revoked.exec_with_returning(&transaction).await?;
            keys.sort_by_key(|key| key.id);
            for key in &keys {
                add_entry(&transaction, origin, EventType::ApiKeyRevoked, key).await?;
            }
            transaction.commit().await?;
            self.authenticator.clear_cache();
            Ok(keys)
        };
        self.database.with_retry("key.revoke_all", revoke_all).await
    }

    /// Inserts a new key within a transaction.
    pub(super) async fn insert(
        &self,
        transaction: &Transaction,
        origin: &Origin,
        operator: OperatorId,
        key: NewApiKey,
    ) -> Result<ApiKeyWithSecret, DbErr> {
        let NewApiKey { name, access, expires_at } = key;
        let secret = key_format::generate(self.environment);
        let row = ActiveModel {
            id: Set(ApiKeyId::new()),
            operator_id: Set(operator),
            name: Set(name),
            prefix: Set(key_format::shown_prefix(&secret, self.environment).to_owned()),
            hash: Set(self.authenticator.digest(&secret)),
            access: Set(access),
            created_at: Set(now()),
            expires_at: Set(expires_at),
            last_used_at: Set(None),
            revoked_at: Set(None),
        };
        let row = row.insert(transaction).await?;
        add_entry(transaction, origin, EventType::ApiKeyCreated, &row).await?;
        Ok(ApiKeyWithSecret { row, secret: secret.into() })
    }
}

/// Fails with `OPERATOR_NOT_FOUND` unless the operator exists.
async fn check_operator(transaction: &Transaction, operator: OperatorId) -> Result<(), TransactionError> {
    match operator::Entity::find_by_id(operator).one(transaction).await? {
        Some(_) => Ok(()),
        None => Err(Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId).into()),
    }
}

/// Adds an entry for a change to a key to the audit log.
async fn add_entry(transaction: &Transaction, origin: &Origin, r#type: EventType, key: &Model) -> Result<(), DbErr> {
    audit::add_entry(transaction, origin, r#type, key.operator_id, Subject::ApiKey(key.id), &[]).await
}
