//! Authenticates requests by their API keys.
//!
//! The database has only the keyed hash and the first characters of a key. A request looks its key up in a cache that
//! keeps keys for 800 ms ([`Authenticator::cached_caller`]), then in the database ([`Authenticator::authenticate`]).
//! The times of last use are collected in memory and written about once a minute.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use entity::api_key::{ActiveModel, Column, Entity, Model};
use entity::deployment::Environment;
use entity::operator;
use entity::value::ApiKeyId;
use moka::sync::Cache;
use parking_lot::Mutex;
use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnAcquireErr, DbErr, EntityTrait, Iterable, QueryFilter, QueryOrder,
    QuerySelect, Set, Unchanged,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use super::key_format::is_well_formed;
use super::{Caller, now};
use crate::database::{Database, is_one_of};
use crate::error::{Error, ErrorCode, Violation};
use crate::keyed_hash::{KeyedHasher, PerSecret};

/// Finds the caller of a request by its API key. Clones share their state.
#[derive(Clone)]
pub struct Authenticator {
    database: Database,
    environment: Environment,
    hasher: KeyedHasher,
    /// The hash of the platform key. `None` if platform access is disabled.
    platform_hash: Option<Vec<u8>>,
    /// Recently used keys that were valid at their last lookup, by hash.
    cache: Cache<Vec<u8>, CachedKey>,
    /// Hashes of keys that were valid at their last lookup. The lookups of these keys are never delayed.
    seen: Cache<Vec<u8>, ()>,
    /// Lookups for clients that have used up the allowed authentication failures, by address or network.
    delayed: Cache<IpAddr, Arc<DelayedLookups>>,
    /// Times of last use that are not written to the database yet.
    last_used: Arc<Mutex<HashMap<ApiKeyId, DateTime<Utc>>>>,
}

/// A key that was valid at its last lookup.
#[derive(Clone, Copy)]
struct CachedKey {
    caller: Caller,
    expires_at: Option<DateTime<Utc>>,
    read_at: Instant,
}

/// A key and its operator.
type FoundKey = (Model, operator::Model);

/// The accepted hashes of a key, and the channel to its request.
type WaitingKey = (PerSecret<Vec<u8>>, oneshot::Sender<Result<Option<FoundKey>, DbErr>>);

/// Keys of one suspect client that wait for a lookup (see `authenticate`). These lookups are not a
/// [`BatchedQuery`](crate::database::BatchedQuery), because its leader does not pause, all clients share its batches,
/// and SQLite has no batches.
#[derive(Default)]
struct DelayedLookups {
    waiting: Mutex<Vec<WaitingKey>>,
    /// Held by the request that looks up the keys.
    leader: tokio::sync::Mutex<()>,
}

/// The reason why a request has no caller.
#[derive(Debug)]
pub enum AuthenticationError {
    /// The key is not valid. The code is `UNAUTHENTICATED`.
    Rejected(Violation),
    /// The key could not be looked up.
    Failed(DbErr),
}

impl From<Violation> for AuthenticationError {
    fn from(violation: Violation) -> Self {
        Self::Rejected(violation)
    }
}

impl From<DbErr> for AuthenticationError {
    fn from(error: DbErr) -> Self {
        Self::Failed(error)
    }
}

/// The purpose of the keyed hash. The purpose is part of the stored hashes, so a change makes all keys invalid.
const PURPOSE: &str = "api key";

/// The time for which a process caches a key or an operator. A key that another process has revoked still works for up
/// to this time. The documented limit is one second; the remaining 200 ms are for requests in progress.
pub(super) const CACHE_TTL: Duration = Duration::from_millis(800);
const MAX_CACHED_KEYS: u64 = 10_000;

/// The pause during which the keys of a suspect client are collected for one lookup. The pause is short, because one of
/// these keys may be valid.
const LOOKUP_DELAY: Duration = Duration::from_millis(50);
const MAX_SUSPECTS: u64 = 10_000;

/// The error of a lookup whose task was cancelled.
const CANCELLED: DbErr = DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);

const OTHER_ENVIRONMENT: &str =
    "This API key belongs to the other environment. Sandbox and production have separate keys and URLs.";

impl Authenticator {
    /// `platform_key` is the key of the platform. `None` disables platform access.
    pub fn new(
        database: Database,
        environment: Environment,
        hasher: KeyedHasher,
        platform_key: Option<&SecretString>,
    ) -> Self {
        let platform_hash = platform_key.map(|key| hasher.digest(PURPOSE, &[key.expose_secret().as_bytes()]));
        let cache = Cache::builder().max_capacity(MAX_CACHED_KEYS).time_to_live(CACHE_TTL).build();
        let seen = Cache::builder().max_capacity(MAX_CACHED_KEYS).build();
        let delayed = Cache::builder().max_capacity(MAX_SUSPECTS).time_to_idle(Duration::from_secs(60)).build();
        Self { database, environment, hasher, platform_hash, cache, seen, delayed, last_used: Arc::default() }
    }

    /// Returns the caller for a key that is cached and valid, or for the platform key. Returns `None` for any other
    /// key, which must be looked up with [`authenticate`](Self::authenticate). Compares keyed hashes, so the response
    /// time reveals nothing about a key.
    pub fn cached_caller(&self, key: &str) -> Option<Caller> {
        let hash = self.digest(key);
        if self.platform_hash.as_ref() == Some(&hash) {
            return Some(Caller::Platform);
        }
        let CachedKey { caller, expires_at, read_at } = self.cache.get(&hash)?;
        if is_expired(expires_at) || read_at.elapsed() >= CACHE_TTL {
            return None;
        }
        self.record_use(&caller);
        Some(caller)
    }

    /// Looks up an operator's key in the database. Fails with `UNAUTHENTICATED` if the key is unknown, revoked, expired
    /// or of the other environment, or if its operator is suspended. The message names the reason, unless the key is
    /// unknown.
    ///
    /// `suspect` is the network of a client that has used up the allowed authentication failures. The keys of such a
    /// client are collected for [`LOOKUP_DELAY`] and looked up in one statement. A key that was valid at its last
    /// lookup is looked up without this delay.
    pub async fn authenticate(&self, key: &str, suspect: Option<IpAddr>) -> Result<Caller, AuthenticationError> {
        // Rejects mistyped keys, and keys of the other environment, without a query.
        if !is_well_formed(key, self.environment) {
            let is_of_other = Environment::iter().any(|other| is_well_formed(key, other));
            return Err(if is_of_other { unauthenticated(OTHER_ENVIRONMENT) } else { unknown() }.into());
        }
        let hashes = self.hasher.accepted_digests(PURPOSE, &[key.as_bytes()]);
        let hash = hashes.current.clone();
        // Before the query: the row is as old as the query, even if its result arrives late.
        let read_at = Instant::now();
        let found = match suspect.filter(|_| !self.seen.contains_key(&hash)) {
            Some(network) => self.find_delayed(network, hashes).await?,
            None => self.find_by_hashes(hashes).await?.pop(),
        };
        let (row, operator) = found.ok_or_else(unknown)?;
        let caller = caller_of(&row, &operator).inspect_err(|_| {
            self.cache.invalidate(&hash);
            self.seen.invalidate(&hash);
        })?;
        self.record_use(&caller);
        // Before the hash is replaced, which may take seconds: a key that is revoked meanwhile must not get into the
        // cache after it was removed from it.
        if read_at.elapsed() < CACHE_TTL {
            self.cache.insert(hash.clone(), CachedKey { caller, expires_at: row.expires_at, read_at });
        }
        self.seen.insert(hash.clone(), ());
        if row.hash != hash && self.hasher.has_older() {
            self.replace_hash(&row, &hash).await;
        }
        Ok(caller)
    }

    /// Records that the caller has used its key now. Does nothing for the platform.
    fn record_use(&self, caller: &Caller) {
        self.last_used.lock().extend(caller.key().map(|key| (key, now())));
    }

    /// Finds a key together with other keys from the same network. The request that locks `leader` pauses, and then
    /// looks up the keys of all requests that are waiting at that time.
    async fn find_delayed(&self, network: IpAddr, hashes: PerSecret<Vec<u8>>) -> Result<Option<FoundKey>, DbErr> {
        let lookups = self.delayed.get_with(network, Arc::default);
        let (sender, mut found) = oneshot::channel();
        lookups.waiting.lock().push((hashes, sender));
        tokio::select! {
            biased;
            found = &mut found => return found.unwrap_or(Err(CANCELLED)),
            _leader = lookups.leader.lock() => {
                #[expect(clippy::disallowed_methods, reason = "the delay")]
                tokio::time::sleep(LOOKUP_DELAY).await;
                let waiting = mem::take(&mut *lookups.waiting.lock());
                let keys = self.find_by_hashes(waiting.iter().flat_map(|(hashes, _)| hashes.iter()).cloned()).await;
                for (hashes, sender) in waiting {
                    let is_found = |(key, _): &&FoundKey| hashes.contains(&key.hash);
                    let found = keys.as_ref().map(|keys| keys.iter().find(is_found).cloned());
                    let _ = sender.send(found.map_err(Clone::clone));
                }
            }
        }
        found.await.unwrap_or(Err(CANCELLED))
    }

    async fn find_by_hashes(&self, hashes: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<FoundKey>, DbErr> {
        let has_hash = is_one_of(self.database.reader(), Column::Hash, hashes);
        let query = Entity::find().filter(has_hash).find_also_related(operator::Entity);
        let keys = query.all(self.database.reader()).await?;
        Ok(keys.into_iter().filter_map(|(key, operator)| Some((key, operator?))).collect())
    }

    /// Replaces the stored hash of a key, which was made with the older secret, by the hash under the current secret. A
    /// failure is only logged, because the older hash is still accepted. The next lookup of the key in the database
    /// tries again.
    async fn replace_hash(&self, key: &Model, hash: &[u8]) {
        let replace = || async {
            let transaction = self.database.begin_write().await?;
            let row = ActiveModel { id: Unchanged(key.id), hash: Set(hash.to_vec()), ..Default::default() };
            row.update(&transaction).await?;
            transaction.commit().await?;
            Ok(())
        };
        if let Err(Error::Failed { cause, .. }) = self.database.with_retry("key.replace_hash", replace).await {
            tracing::warn!(key = %key.id, cause, "cannot replace the hash of a key");
        }
    }

    /// Returns the hash under which a key is stored.
    pub(super) fn digest(&self, key: &str) -> Vec<u8> {
        self.hasher.digest(PURPOSE, &[key.as_bytes()])
    }

    /// Removes all keys from the cache. Called after a key was revoked, and after an operator was changed. A revoked
    /// key is not removed alone, because while the secret is being rotated, the cache can have it under another hash.
    pub(super) fn clear_cache(&self) {
        self.cache.invalidate_all();
    }

    /// Writes the collected times of last use to the database. Called by a background task and at shutdown.
    pub async fn save_last_used(&self) -> Result<(), Error> {
        /// The number of keys that a transaction updates. Until a transaction ends, it locks its keys, so that they
        /// cannot be revoked, and delays the change feed.
        const BATCH: usize = 100;
        let mut last_used: Vec<_> = self.last_used.lock().iter().map(|(id, used_at)| (*id, *used_at)).collect();
        // All processes lock rows in the same order, which avoids deadlocks.
        last_used.sort_unstable();
        for batch in last_used.chunks(BATCH) {
            let saved = self.save_batch(batch).await?;
            // The other times stay in the map for the next attempt.
            let mut unsaved = self.last_used.lock();
            for (id, used_at) in batch.iter().filter(|(id, _)| saved.contains(id)) {
                if unsaved.get(id) == Some(used_at) {
                    unsaved.remove(id);
                }
            }
        }
        Ok(())
    }

    /// Writes the times of last use of these keys. Skips the keys whose rows are locked, so that one locked row does
    /// not stop the others. Returns the other keys.
    async fn save_batch(&self, last_used: &[(ApiKeyId, DateTime<Utc>)]) -> Result<Vec<ApiKeyId>, Error> {
        let save = || async {
            let transaction = self.database.begin_write().await?;
            let free = Entity::find()
                .select_only()
                .column(Column::Id)
                .filter(is_one_of(&transaction, Column::Id, last_used.iter().map(|(id, _)| *id)))
                .order_by_asc(Column::Id)
                .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked);
            let free: Vec<ApiKeyId> = free.into_tuple().all(&transaction).await?;
            for (id, used_at) in last_used.iter().filter(|(id, _)| free.contains(id)) {
                // Another process may have written a later use.
                let is_later = Condition::any().add(Column::LastUsedAt.is_null()).add(Column::LastUsedAt.lt(*used_at));
                Entity::update_many()
                    .col_expr(Column::LastUsedAt, (*used_at).into())
                    .filter(Column::Id.eq(*id))
                    .filter(is_later)
                    .exec(&transaction)
                    .await?;
            }
            transaction.commit().await?;
            Ok(free)
        };
        self.database.with_retry("key.save_last_used", save).await
    }
}

/// Returns the caller with this key. Fails if the key is revoked or expired, or if its operator is suspended.
fn caller_of(key: &Model, operator: &operator::Model) -> Result<Caller, Violation> {
    if key.revoked_at.is_some() {
        return Err(unauthenticated("This API key was revoked. Use another one, or ask the platform for a new one."));
    }
    if is_expired(key.expires_at) {
        return Err(unauthenticated("This API key has expired. Use another one, or ask the platform for a new one."));
    }
    if operator.status == operator::Status::Suspended {
        return Err(unauthenticated("The operator of this API key is suspended. Ask the platform to resume it."));
    }
    let disclosures_per_hour = operator.disclosures_per_hour;
    Ok(Caller::Operator { id: operator.id, key: key.id, access: key.access, disclosures_per_hour })
}

fn is_expired(expires_at: Option<DateTime<Utc>>) -> bool {
    expires_at.is_some_and(|expires_at| expires_at <= now())
}

fn unknown() -> Violation {
    Violation::new(ErrorCode::Unauthenticated)
}

fn unauthenticated(message: &str) -> Violation {
    unknown().with_message(message)
}
