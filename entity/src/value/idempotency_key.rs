use super::{Reason, masked_debug};

/// The key by which a caller tells that two requests are one: 1 to 255 characters, as given.
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

// Whatever callers make it of.
masked_debug!(IdempotencyKey);
