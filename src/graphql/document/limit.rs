//! A limit on the size of a document.

use async_graphql::{ServerError, ServerResult};

/// The highest number of something that a document may have, with the words of the error above it. For example,
/// `Limit::new(1500, "The document has more than", "tokens")` has the error "The document has more than 1500 tokens."
pub struct Limit {
    max: usize,
    start: &'static str,
    unit: &'static str,
}

impl Limit {
    pub const fn new(max: usize, start: &'static str, unit: &'static str) -> Self {
        Self { max, start, unit }
    }

    /// Fails if a document has more than the limit allows.
    pub fn check(&self, count: usize) -> ServerResult<()> {
        if count > self.max { reject(self.message()) } else { Ok(()) }
    }

    fn message(&self) -> String {
        format!("{} {} {}.", self.start, self.max, self.unit)
    }
}

/// Returns an error for the whole document.
pub fn reject<T>(message: impl Into<String>) -> ServerResult<T> {
    Err(ServerError::new(message, None))
}

/// Tests that `parse` accepts a document at the limit, and rejects a larger one with this message. `document` makes a
/// document of a given size.
#[cfg(test)]
pub fn test_limit<T: std::fmt::Debug>(
    limit: &Limit,
    message: &str,
    document: impl Fn(usize) -> String,
    parse: impl Fn(&str) -> ServerResult<T>,
) {
    let accepted = parse(&document(limit.max));
    assert!(accepted.is_ok(), "{message}: {accepted:?}");
    assert_eq!(parse(&document(limit.max + 1)).unwrap_err().message, message);
}
