//! The API keys of callers, which are compared as text, or looked up by their keyed hash.

use std::env::var;
use std::time::Duration;

use deadpool_postgres::Pool;
use moka::sync::Cache;
use ring::hmac;
use uuid::Uuid;

/// The caller of a request. With hashed keys, the platform key has the nil operator.
#[derive(Clone, Copy)]
pub struct TestCaller {
    pub operator: Uuid,
    pub key: Uuid,
}

pub enum Keys {
    /// The values of the `Authorization` header. All callers write for one operator.
    Plain(Vec<String>, TestCaller),
    Hashed(HashedKeys),
}

/// The keys, found by their HMAC-SHA256, which the service stores. A key that was found is trusted for 800 ms.
pub struct HashedKeys {
    secret: hmac::Key,
    platform: [u8; 32],
    cache: Cache<[u8; 32], TestCaller>,
    pool: Pool,
}

impl Keys {
    pub fn plain() -> Self {
        let operator = var("OPERATOR").unwrap().parse().unwrap();
        let keys = var("KEYS").unwrap().split(',').map(|key| format!("Bearer {key}")).collect();
        Self::Plain(keys, TestCaller { operator, key: Uuid::nil() })
    }

    pub fn hashed(pool: Pool) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, var("VIVAMO_KEY_SECRET").unwrap().as_bytes());
        let platform = digest(&secret, &var("VIVAMO_PLATFORM_KEY").unwrap());
        let cache = Cache::builder().max_capacity(10_000).time_to_live(Duration::from_millis(800)).build();
        Self::Hashed(HashedKeys { secret, platform, cache, pool })
    }

    /// Returns the caller for a value of the `Authorization` header.
    pub async fn caller(&self, header: &str) -> Option<TestCaller> {
        match self {
            Self::Plain(keys, caller) => keys.iter().any(|key| key == header).then_some(*caller),
            Self::Hashed(keys) => keys.caller(header.strip_prefix("Bearer ")?).await,
        }
    }
}

impl HashedKeys {
    async fn caller(&self, key: &str) -> Option<TestCaller> {
        let hash = digest(&self.secret, key);
        if hash == self.platform {
            return Some(TestCaller { operator: Uuid::nil(), key: Uuid::nil() });
        }
        if let Some(caller) = self.cache.get(&hash) {
            return Some(caller);
        }
        let sql = "SELECT operator_id, api_key.id FROM api_key JOIN operator ON operator.id = operator_id \
                   WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) \
                   AND status = 'active'";
        let client = self.pool.get().await.ok()?;
        let statement = client.prepare_cached(sql).await.ok()?;
        let row = client.query_opt(&statement, &[&&hash[..]]).await.ok()??;
        let caller = TestCaller { operator: row.get(0), key: row.get(1) };
        self.cache.insert(hash, caller);
        Some(caller)
    }
}

/// Returns the hash of a key as the service computes it. The input is the purpose `api key` and the key, each after its
/// length.
fn digest(secret: &hmac::Key, key: &str) -> [u8; 32] {
    let mut context = hmac::Context::with_key(secret);
    for part in ["api key", key] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.sign().as_ref().try_into().unwrap()
}
