//! Keyed hashes: HMAC-SHA256 under the deployment's secret (`VIVAMO_KEY_SECRET`).
//!
//! API keys, idempotency keys and looked-up phone numbers are stored as keyed hashes, because the service only compares
//! these values, and nobody must be able to read them in the database. Cursors are signed with a keyed hash. Without
//! the secret, nobody can compute a hash, or test guesses against a stolen hash. The purpose is part of the input, so
//! that hashes of different purposes never match.

use std::sync::Arc;

use ring::hmac;

/// The secret, ready for hashing.
#[derive(Clone)]
pub struct KeyedHash(Arc<hmac::Key>);

impl KeyedHash {
    pub fn new(secret: &str) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// Returns the 32-byte hash of the parts, in this order.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            // The length separates the parts: "ab", "c" and "a", "bc" must have different hashes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }
}
