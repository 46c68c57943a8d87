//! Keyed hashes: HMAC-SHA256 under the deployment's secret (`VIVAMO_KEY_SECRET`).
//!
//! API keys, idempotency keys, and the phone numbers in the cache of carrier results (`phone_lookup`) are stored as
//! keyed hashes. The service only compares these values, and nobody must be able to read them in the database. Cursors
//! are signed with a keyed hash, and the secrets of webhook endpoints are keyed hashes too, which are not stored.
//! Without the secret, nobody can compute a hash, or test guesses against a stolen hash. Each hash has a purpose. The
//! purpose is part of the input, so that hashes of different purposes never match.
//!
//! While the secret is being changed, the service has two secrets. A server makes new hashes with the secret whose
//! fingerprint was in the database when the server started. Hashes of both secrets are accepted.

use std::sync::Arc;

use ring::hmac;

/// The secret, ready for hashing, and a second secret during a change.
#[derive(Clone)]
pub struct KeyedHash {
    secret: Arc<hmac::Key>,
    /// The other secret whose hashes are accepted.
    other: Option<Arc<hmac::Key>>,
    /// True if `other` is the older secret, so that its stored hashes must be replaced.
    replaces_other: bool,
}

impl KeyedHash {
    pub fn new(secret: &str) -> Self {
        Self { secret: key(secret), other: None, replaces_other: false }
    }

    /// Also accepts the hashes of an older secret.
    #[must_use]
    pub fn with_old(self, old: &str) -> Self {
        Self { other: Some(key(old)), replaces_other: true, ..self }
    }

    /// Returns the 32-byte hash of the parts, in this order.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
        digest(&self.secret, purpose, parts)
    }

    /// Returns the hash of the parts under each accepted secret. The first hash is the result of
    /// [`digest`](Self::digest).
    pub fn accepted_digests(&self, purpose: &str, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let secrets = std::iter::once(&self.secret).chain(&self.other);
        secrets.map(|secret| digest(secret, purpose, parts)).collect()
    }

    /// Returns true if stored hashes of the other secret must be replaced by hashes of this secret.
    pub fn replaces_other(&self) -> bool {
        self.replaces_other
    }

    /// Returns the hash of a constant. The database stores this fingerprint in order to recognise another secret.
    pub fn fingerprint(&self) -> Vec<u8> {
        self.digest(FINGERPRINT, &[])
    }

    /// Returns a `KeyedHash` that makes new hashes with the secret that has this fingerprint. Returns `None` if no
    /// configured secret has this fingerprint.
    ///
    /// The older secret stays in use until `vivamo change-key-secret` stores the fingerprint of the newer secret and
    /// the server is restarted. Before the command has run, all servers use the older secret, so a server that does not
    /// know the newer secret yet recognises all hashes.
    pub fn with_fingerprint(self, fingerprint: &[u8]) -> Option<Self> {
        if self.fingerprint() == fingerprint {
            return Some(self);
        }
        let Self { secret, other, .. } = self;
        let swapped = Self { secret: other?, other: Some(secret), replaces_other: false };
        (swapped.fingerprint() == fingerprint).then_some(swapped)
    }
}

/// The purpose of the fingerprint. The database stores the fingerprint, so a change of this text makes all servers
/// refuse to start.
const FINGERPRINT: &str = "key secret";

fn key(secret: &str) -> Arc<hmac::Key> {
    Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
}

fn digest(secret: &hmac::Key, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(secret);
    for part in [purpose.as_bytes()].iter().chain(parts) {
        // The length separates the parts: "ab", "c" and "a", "bc" must have different hashes.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}
