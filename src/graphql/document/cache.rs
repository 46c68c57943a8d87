//! Cache of parsed documents.
//!
//! Clients send few different documents, with many different values of the variables. A cached document is not parsed
//! or checked by `limits` again. After a document was valid, its complexity is checked again only if the size of a page
//! is a variable, and its validation is repeated only if it introspects. The cache saves a quarter to a third of the
//! processor time of a read (`docs/benchmarks.md`).
//!
//! A document with several operations is cached once per requested operation, without the other operations. Otherwise
//! async-graphql would check their arguments against variables that belong to the requested operation.
//!
//! A document is executed without the arguments that use a missing variable, and with the values of the variables in
//! `@include` and `@skip` (see `variant`). It is therefore cached once for each set of missing variables and of these
//! values. For example, with the variables `{"name": null}` the mutation below is
//! executed as it is, and clears the first name. With the variables `{}` it is executed without `firstName`, and keeps
//! the first name:
//!
//! ```graphql
//! mutation ($name: String) {
//!   updateCustomer(input: { customer: { id: "…" }, data: { firstName: $name } }) { replayed }
//! }
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::parser::types::DocumentOperations;
use async_graphql::registry::Registry;
use async_graphql::{Name, ServerError, ServerResult, Variables};
use entity::value::OperatorId;
use moka::sync::Cache;

use super::normalise::Normalised;
use super::variant::{self, Replaced};
use super::{arguments, fields, limits, normalise, size, variable_names, variables};

/// Total weight of the cached documents, in bytes of text. A parsed document takes about fifty times the memory of its
/// text, or about 200 bytes for each selection.
const MAX_BYTES: u64 = 256 * 1024;

/// The weight of a selection or a value of an argument, in bytes of text. Short names and expanded fragments make a
/// document take more memory than the length of its text suggests.
const BYTES_PER_ITEM: usize = 4;

/// The weight of a document in addition to its text. The smallest document takes about a kilobyte of memory.
const FIXED_BYTES: usize = 20;

/// A parsed document, or a variant of it for requests with certain variables (see [`variant`]).
pub struct Document {
    pub parsed: Normalised,
    pub has_variable_page_size: bool,
    /// The variables in the conditions of `@include` and `@skip`.
    conditions: Vec<Name>,
    /// The variables that must not be null: see [`arguments::required_variables`].
    required: HashSet<Name>,
    /// The number of stored selections and values of arguments, with all fragments expanded.
    items: usize,
    is_valid: AtomicBool,
}

/// Identifies a cached document.
#[derive(Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    /// The owner of a document with strings. Such documents are cached for each owner: the cost and the time of a
    /// request show if its document was in the cache, and a string may be an email. An operator could otherwise find
    /// out if another operator has asked for it.
    owner: Option<OperatorId>,
    text: Arc<str>,
    /// The requested operation, if the document has several.
    operation: Option<Name>,
    /// The variables that the variant does not have.
    replaced: Replaced,
}

pub struct DocumentCache {
    documents: Cache<CacheKey, Arc<Document>>,
    types: Registry,
}

impl DocumentCache {
    /// `types` must contain the input types of the schema.
    pub fn new(types: Registry) -> Self {
        let weigher = |key: &CacheKey, document: &Arc<Document>| {
            let weight = FIXED_BYTES + key.text.len().max(document.items * BYTES_PER_ITEM);
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        Self { documents: Cache::builder().weigher(weigher).max_capacity(MAX_BYTES).build(), types }
    }

    /// Returns the parsed document of a request of `owner`, after checking the document against the limits, and the
    /// arguments and the variables against their types ([`arguments::check_arguments`], [`variables::check`]). Also
    /// returns true if the document was in the cache.
    pub fn get_or_parse(
        &self,
        owner: OperatorId,
        text: &str,
        operation_name: Option<&str>,
        variables: &mut Variables,
    ) -> ServerResult<(Arc<Document>, bool)> {
        let owner = text.contains('"').then_some(owner);
        let mut key = CacheKey { owner, text: text.into(), operation: None, replaced: Vec::new() };
        let mut was_cached = true;
        let mut document = self.get_or_insert(key.clone(), || {
            was_cached = false;
            let parsed = normalise::normalise(limits::parse(text)?, &self.types)?;
            arguments::check_arguments(&parsed, &self.types)?;
            variable_names::check_variable_names(&parsed)?;
            Ok(parsed)
        })?;
        if let Some(operation) = one_of_several(&document.parsed, operation_name) {
            let parse = || {
                was_cached = false;
                Ok(document.parsed.clone().without_other_operations(&operation))
            };
            key.operation = Some(operation.clone());
            document = self.get_or_insert(key.clone(), parse)?;
        }
        let missing = variables::check(&document.parsed, operation_name, &document.required, variables, &self.types)?;
        let replaced = variant::replaced(missing, &document.conditions, variables);
        if !replaced.is_empty() {
            let parse = || {
                was_cached = false;
                variant::with_replaced(document.parsed.clone(), &replaced, &self.types)
            };
            key.replaced.clone_from(&replaced);
            document = self.get_or_insert(key, parse)?;
        }
        Ok((document, was_cached))
    }

    fn get_or_insert(
        &self,
        key: CacheKey,
        parse: impl FnOnce() -> ServerResult<Normalised>,
    ) -> ServerResult<Arc<Document>> {
        let parse = || {
            let parsed = parse()?;
            let conditions = variant::variables_in_conditions(&parsed);
            let has_variable_page_size = fields::has_variable_page_size(&parsed);
            let items = size::stored_items(&parsed);
            let is_valid = AtomicBool::new(false);
            let required = arguments::required_variables(&parsed, &self.types);
            let document = Document { parsed, conditions, has_variable_page_size, required, items, is_valid };
            Ok::<_, ServerError>(Arc::new(document))
        };
        self.documents.try_get_with(key, parse).map_err(Arc::unwrap_or_clone)
    }
}

/// Returns the requested operation if the document has several operations.
fn one_of_several(document: &Normalised, operation_name: Option<&str>) -> Option<Name> {
    let DocumentOperations::Multiple(operations) = document.operations() else { return None };
    let (name, _) = operations.get_key_value(operation_name?)?;
    (operations.len() > 1).then(|| name.clone())
}

impl Document {
    /// Returns true if the document has passed validation before.
    pub fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// Marks the document as valid. The values of the variables do not matter for this mark, because they are checked
    /// on every request.
    pub fn mark_valid(&self) {
        self.is_valid.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::InputType;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_weighs_as_much_as_its_expanded_fragments() {
        let operations: String = ('A'..='B').map(|name| format!("query {name} {{ ...G }} ")).collect();
        let fields: String = (0..47).map(|number| format!("b{number} ")).collect();
        let spreads: String = (0..10).map(|number| format!("a{number} {{ ...F }} ")).collect();
        let text = format!("{operations} fragment G on Query {{ {spreads} }} fragment F on T {{ {fields} }}");
        let cache = DocumentCache::new(Registry::default());
        let (document, _) =
            cache.get_or_parse(OperatorId::new(), &text, Some("A"), &mut Variables::default()).expect("a document");
        assert_eq!(document.items, 10 * (1 + 1 + 47));
        cache.documents.run_pending_tasks();
        // The whole document, with 490 selections in each of its two operations, and the document with one operation.
        assert_eq!(cache.documents.weighted_size(), (2 + 1) * 490 * 4 + 2 * FIXED_BYTES as u64);
    }

    #[test]
    fn a_document_is_cached_for_each_operation_and_each_set_of_missing_variables() {
        let mut types = Registry::default();
        bool::create_type_info(&mut types);
        let cache = DocumentCache::new(types);
        let text = "query A ($a: Boolean) { b(c: $a) } query B { d }";
        let was_cached = |text: &str, operation, variables: serde_json::Value| {
            let mut variables = Variables::from_json(variables);
            cache.get_or_parse(OperatorId::new(), text, Some(operation), &mut variables).expect("a document").1
        };
        for (operation, variables) in [("A", json!({ "a": true })), ("A", json!({})), ("B", json!({}))] {
            assert!(!was_cached(text, operation, variables.clone()), "{operation} {variables}");
            assert!(was_cached(text, operation, variables.clone()), "{operation} {variables}");
        }
        assert!(was_cached(text, "A", json!({ "a": false })));
        assert!(!was_cached(&format!("{text} # 2"), "B", json!({})));
    }

    #[test]
    fn owners_do_not_share_documents_with_strings() {
        let cache = DocumentCache::new(Registry::default());
        let [one, other] = [OperatorId::new(), OperatorId::new()];
        let was_cached =
            |owner, text| cache.get_or_parse(owner, text, None, &mut Variables::default()).expect("a document").1;
        let (with_string, without) = (r#"{ a(b: "ada@example.com") }"#, "{ a(b: 1) }");
        assert!(!was_cached(one, with_string) && was_cached(one, with_string) && !was_cached(other, with_string));
        assert!(!was_cached(one, without) && was_cached(other, without));
    }
}
