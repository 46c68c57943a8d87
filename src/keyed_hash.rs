//! Hashes that nobody can make, or try values against, without the secret of this deployment.

use std::sync::Arc;

use ring::hmac;

/// HMAC-SHA256 under the deployment's secret, separated by purpose.
#[derive(Clone)]
pub struct KeyedHash(Arc<hmac::Key>);

impl KeyedHash {
    pub fn new(secret: &str) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// The hash of these parts, in this order; no other parts have it.
    pub fn of(&self, purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
        self.context(purpose, parts).sign().as_ref().to_vec()
    }

    fn context(&self, purpose: &str, parts: &[&[u8]]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            // The length keeps "ab", "c" apart from "a", "bc".
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context
    }
}
