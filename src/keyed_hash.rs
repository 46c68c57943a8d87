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

/// Makes keyed hashes with the secret. Knows a second secret while the secret is being changed.
#[derive(Clone)]
pub struct KeyedHasher {
    secret: Arc<hmac::Key>,
    /// The other secret whose hashes are accepted. `None` unless the secret is being changed.
    other: Option<OtherSecret>,
}

#[derive(Clone)]
enum OtherSecret {
    /// The secret that was in use before. Stored hashes of this secret must be replaced.
    Older(Arc<hmac::Key>),
    /// The secret that will be in use after the change.
    Newer(Arc<hmac::Key>),
}

impl OtherSecret {
    fn key(&self) -> &Arc<hmac::Key> {
        let (Self::Older(key) | Self::Newer(key)) = self;
        key
    }
}

/// A value for each accepted secret, for example the hashes of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerSecret<T> {
    /// The value for the secret that makes new hashes.
    pub current: T,
    /// The value for the other secret. `None` unless the secret is being changed.
    pub other: Option<T>,
}

impl<T> PerSecret<T> {
    /// Returns the values, with the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.current).chain(&self.other)
    }

    pub fn contains(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        self.iter().any(|accepted| accepted == value)
    }

    pub fn map<U>(self, convert: impl Fn(T) -> U) -> PerSecret<U> {
        PerSecret { current: convert(self.current), other: self.other.map(convert) }
    }

    /// Pairs the values for the same secret. Both arguments must come from the same [`KeyedHasher`].
    pub fn zip<U>(self, with: PerSecret<U>) -> PerSecret<(T, U)> {
        PerSecret { current: (self.current, with.current), other: self.other.zip(with.other) }
    }
}

impl<T> IntoIterator for PerSecret<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::iter::Once<T>, std::option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.current).chain(self.other)
    }
}

impl KeyedHasher {
    pub fn new(secret: &str) -> Self {
        Self { secret: key(secret), other: None }
    }

    /// Also accepts the hashes of an older secret.
    #[must_use]
    pub fn with_old(self, old: &str) -> Self {
        Self { other: Some(OtherSecret::Older(key(old))), ..self }
    }

    /// Returns the 32-byte hash of the parts, in this order.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
        digest(&self.secret, purpose, parts)
    }

    /// Returns the hash of the parts under each accepted secret. The current hash is the result of
    /// [`digest`](Self::digest).
    pub fn accepted_digests(&self, purpose: &str, parts: &[&[u8]]) -> PerSecret<Vec<u8>> {
        let other = self.other.as_ref().map(OtherSecret::key);
        PerSecret { current: &self.secret, other }.map(|secret| digest(secret, purpose, parts))
    }

    /// Returns true if hashes of an older secret are accepted. Stored hashes of the older secret must be replaced by
    /// hashes of this secret.
    pub fn has_older(&self) -> bool {
        matches!(self.other, Some(OtherSecret::Older(_)))
    }

    /// Returns the hash of a constant. The database stores this fingerprint in order to recognise another secret.
    pub fn fingerprint(&self) -> Vec<u8> {
        self.digest(FINGERPRINT, &[])
    }

    /// Returns a `KeyedHasher` that makes new hashes with the secret that has this fingerprint. Returns `None` if no
    /// configured secret has this fingerprint.
    ///
    /// The older secret stays in use until `vivamo rotate-key-secret` stores the fingerprint of the newer secret and
    /// the server is restarted. Before the command has run, all servers use the older secret, so a server that does not
    /// know the newer secret yet recognises all hashes.
    pub fn with_fingerprint(self, fingerprint: &[u8]) -> Option<Self> {
        if self.fingerprint() == fingerprint {
            return Some(self);
        }
        let Self { secret, other } = self;
        let swapped = match other? {
            OtherSecret::Older(older) => Self { secret: older, other: Some(OtherSecret::Newer(secret)) },
            OtherSecret::Newer(newer) => Self { secret: newer, other: Some(OtherSecret::Older(secret)) },
        };
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
