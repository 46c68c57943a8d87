//! The key that a client sends to make retries safe: while its result is stored, a request that is repeated with the
//! same key is not carried out again.
//!
//! - Accepted: 1 to 255 characters of any kind.
//! - Canonical form: exactly as given.
//! - Examples: `2f1e-17` is accepted; an empty text is rejected.

use super::{Reason, masked_debug};

/// An idempotency key. Only its keyed hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    pub const MAX_CHARACTERS: usize = 255;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() {
            Err(Reason::Empty)
        } else if text.chars().count() > Self::MAX_CHARACTERS {
            Err(Reason::TooLong(Self::MAX_CHARACTERS))
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Masked, because a client may build the key from personal data.
masked_debug!(IdempotencyKey);
