//! The documents that clients have sent lately, so that one that comes again is neither measured, parsed nor validated
//! again: clients send a few texts with ever new variables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Name, Variables};
use moka::sync::Cache;

use super::document_limits::{self, Refusal};
use super::variables;

/// Bytes of text that are kept. Parsed, a text takes some fifty times as much.
const MAX_BYTES: u64 = 256 * 1024;

/// A document as it is executed: what was missing among a request's variables is taken out.
pub struct Document {
    pub parsed: ExecutableDocument,
    is_valid: AtomicBool,
}

#[derive(Clone)]
pub struct DocumentCache(Cache<(Arc<str>, Vec<Name>), Arc<Document>>);

impl DocumentCache {
    pub fn new() -> Self {
        let weigh =
            |(text, _): &(Arc<str>, Vec<Name>), _: &Arc<Document>| u32::try_from(text.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weigh).max_capacity(MAX_BYTES).build())
    }

    /// The document of a request, if it is one that may be executed with these variables.
    pub fn read(&self, text: &str, operation_name: Option<&str>, given: &Variables) -> Result<Arc<Document>, Refusal> {
        let whole = self.keep(text, Vec::new(), || document_limits::parse(text))?;
        let missing = variables::check(&whole.parsed, operation_name, given)?;
        if missing.is_empty() {
            return Ok(whole);
        }
        self.keep(text, missing.clone(), || Ok(variables::without(whole.parsed.clone(), &missing)))
    }

    fn keep(
        &self,
        text: &str,
        missing: Vec<Name>,
        read: impl FnOnce() -> Result<ExecutableDocument, Refusal>,
    ) -> Result<Arc<Document>, Refusal> {
        let key = (Arc::from(text), missing);
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let parsed = read()?;
        let new = Arc::new(Document { parsed, is_valid: AtomicBool::new(false) });
        self.0.insert(key, new.clone());
        Ok(new)
    }
}

impl Document {
    pub fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// The document has passed validation. With other values of its variables it might not: what is wrong with those by
    /// their own types is found before, and anything else when an argument is read.
    pub fn found_valid(&self) {
        self.is_valid.store(true, Ordering::Relaxed);
    }
}
