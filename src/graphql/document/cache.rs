//! Cache of checked documents.
//!
//! Clients send few different documents, with many different values of the variables. A cached document is not parsed
//! or checked by `limits` again. After an operation was valid, its complexity is checked again only if the size of a
//! page is a variable, and its validation is repeated only if it introspects. The cache saves a quarter to a third of
//! the processor time of a read (`docs/benchmarks.md`).
//!
//! An operation is executed without the arguments that use a missing variable, and with the values of the variables in
//! `@include` and `@skip` (see `variant`). For each set of missing variables and of these values, a variant of the
//! operation is cached. For example, with the variables `{"name": null}` the mutation below is executed as it is, and
//! clears the first name. With the variables `{}` it is executed without `firstName`, and keeps the first name:
//!
//! ```graphql
//! mutation ($name: String) {
//!   updateCustomer(input: { customer: { id: "…" }, data: { firstName: $name } }) { replayed }
//! }
//! ```

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_graphql::registry::Registry;
use async_graphql::{Name, ServerError, ServerResult, Variables};
use entity::value::OperatorId;
use moka::sync::Cache;

use super::normalise::NormalisedOperation;
use super::summary::MAX_NAME;
use super::variant::{self, Replaced};
use super::{arguments, fields, limits, normalise, size, variable_names, variables};

/// Total weight of each of the two caches, in bytes of text. A parsed document takes about fifty times the memory of
/// its text, or about 200 bytes for each selection.
const MAX_BYTES: u64 = 256 * 1024;

/// The weight of a selection or a value of an argument, in bytes of text. Short names and expanded fragments make a
/// document take more memory than the length of its text suggests.
const BYTES_PER_ITEM: usize = 4;

/// The weight of a document in addition to its text. The smallest document takes about a kilobyte of memory.
const FIXED_BYTES: usize = 20;

/// An operation as a request executes it.
pub struct ExecutableOperation {
    pub normalised: NormalisedOperation,
    pub has_variable_page_size: bool,
    is_valid: AtomicBool,
}

/// An operation of a document that was checked.
struct CheckedOperation {
    /// The operation with all its variables.
    complete: Arc<ExecutableOperation>,
    /// The variables in the conditions of `@include` and `@skip`.
    conditions: Vec<Name>,
    /// The variables that must not be null: see [`arguments::required_variables`].
    required: HashSet<Name>,
}

/// Identifies a document.
#[derive(Clone, PartialEq, Eq, Hash)]
struct DocumentKey {
    /// The owner of a document with strings. Such documents are cached for each owner: the cost and the time of a
    /// request show if its document was in the cache, and a string may be an email. An operator could otherwise find
    /// out if another operator has asked for it.
    owner: Option<OperatorId>,
    text: Arc<str>,
}

/// Identifies a variant of an operation.
#[derive(Clone, PartialEq, Eq, Hash)]
struct VariantKey {
    document: DocumentKey,
    operation: Option<Name>,
    /// The variables that the variant does not have.
    replaced: Replaced,
}

pub struct DocumentCache {
    /// The operations of each document.
    documents: Cache<DocumentKey, Arc<Vec<CheckedOperation>>>,
    variants: Cache<VariantKey, Arc<ExecutableOperation>>,
    types: Registry,
}

impl DocumentCache {
    /// `types` must contain the input types of the schema.
    pub fn new(types: Registry) -> Self {
        let document_weight = |key: &DocumentKey, operations: &Arc<Vec<CheckedOperation>>| {
            weight(key, operations.iter().map(|operation| operation.complete.items()).sum())
        };
        let variant_weight =
            |key: &VariantKey, variant: &Arc<ExecutableOperation>| weight(&key.document, variant.items());
        Self {
            documents: Cache::builder().weigher(document_weight).max_capacity(MAX_BYTES).build(),
            variants: Cache::builder().weigher(variant_weight).max_capacity(MAX_BYTES).build(),
            types,
        }
    }

    /// Returns the operation that a request of `owner` executes, after checking the document against the limits, and
    /// the arguments and the variables against their types ([`arguments::check_arguments`], [`variables::check`]). Also
    /// returns true if the operation was in the cache.
    pub fn checked_operation(
        &self,
        owner: OperatorId,
        text: &str,
        operation_name: Option<&str>,
        variables: &mut Variables,
    ) -> ServerResult<(Arc<ExecutableOperation>, bool)> {
        let key = DocumentKey { owner: text.contains('"').then_some(owner), text: text.into() };
        let mut was_cached = true;
        let operations = get_or_insert(&self.documents, key.clone(), || {
            was_cached = false;
            let operations = normalise::normalise(limits::parse(text)?, &self.types)?.into_iter();
            operations.map(|operation| self.check(operation)).collect::<ServerResult<_>>()
        })?;
        let CheckedOperation { complete, conditions, required } = selected(&operations, operation_name)?;
        let missing = variables::check(complete.normalised.definition(), required, variables, &self.types)?;
        let replaced = variant::replaced(missing, conditions, variables);
        if replaced.is_empty() {
            return Ok((complete.clone(), was_cached));
        }
        let operation = complete.normalised.name().cloned();
        let key = VariantKey { document: key, operation, replaced: replaced.clone() };
        let variant = get_or_insert(&self.variants, key, || {
            was_cached = false;
            let variant = variant::with_replaced(complete.normalised.clone(), &replaced, &self.types)?;
            Ok(ExecutableOperation::new(variant))
        })?;
        Ok((variant, was_cached))
    }

    /// Checks an operation whose document is within the limits.
    fn check(&self, operation: NormalisedOperation) -> ServerResult<CheckedOperation> {
        let definition = operation.definition();
        limits::check_root_fields(definition)?;
        arguments::check_arguments(definition, &self.types)?;
        variable_names::check_variable_names(definition)?;
        Ok(CheckedOperation {
            conditions: variant::variables_in_conditions(definition),
            required: arguments::required_variables(definition, &self.types),
            complete: Arc::new(ExecutableOperation::new(operation)),
        })
    }
}

fn get_or_insert<K: Eq + Hash + Send + Sync + 'static, V: Send + Sync + 'static>(
    cache: &Cache<K, Arc<V>>,
    key: K,
    value: impl FnOnce() -> ServerResult<V>,
) -> ServerResult<Arc<V>> {
    let insert = || Ok::<_, ServerError>(Arc::new(value()?));
    cache.try_get_with(key, insert).map_err(Arc::unwrap_or_clone)
}

/// Returns the weight of a cached document with a number of [items](ExecutableOperation::items).
fn weight(key: &DocumentKey, items: usize) -> u32 {
    u32::try_from(FIXED_BYTES + key.text.len().max(items * BYTES_PER_ITEM)).unwrap_or(u32::MAX)
}

/// Returns the operation with this name, or the only operation if no name is given. Fails if there is none.
fn selected<'o>(operations: &'o [CheckedOperation], name: Option<&str>) -> ServerResult<&'o CheckedOperation> {
    let is_named = |operation: &&CheckedOperation| {
        let own_name = operation.complete.normalised.name();
        name.is_none_or(|name| own_name.is_some_and(|own_name| own_name == name))
    };
    let mut named = operations.iter().filter(is_named);
    named.next().filter(|_| named.next().is_none()).ok_or_else(|| {
        let message = name.map_or_else(
            || "The document has several operations. Set `operationName` to the name of one of them.".to_owned(),
            |name| {
                let name: String = name.chars().take(MAX_NAME).collect();
                format!("The document has no operation named `{name}`.")
            },
        );
        ServerError::new(message, None)
    })
}

impl ExecutableOperation {
    fn new(normalised: NormalisedOperation) -> Self {
        let has_variable_page_size = fields::has_variable_page_size(normalised.definition());
        Self { normalised, has_variable_page_size, is_valid: AtomicBool::new(false) }
    }

    /// Counts the selections and the values of arguments.
    fn items(&self) -> usize {
        size::items_in(&self.normalised.definition().selection_set.node)
    }

    /// Returns true if the operation has passed validation before.
    pub fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// Marks the operation as valid. The values of the variables do not matter for this mark, because they are checked
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

    /// A cache for documents with Boolean variables.
    fn cache_with_booleans() -> DocumentCache {
        let mut types = Registry::default();
        bool::create_type_info(&mut types);
        DocumentCache::new(types)
    }

    #[test]
    fn a_document_weighs_as_much_as_its_expanded_fragments() {
        let operations: String = ('A'..='B').map(|name| format!("query {name} {{ ...G }} ")).collect();
        let fields: String = (0..47).map(|number| format!("b{number} ")).collect();
        let spreads: String = (0..10).map(|number| format!("a{number} {{ ...F }} ")).collect();
        let text = format!("{operations} fragment G on Query {{ {spreads} }} fragment F on T {{ {fields} }}");
        let cache = DocumentCache::new(Registry::default());
        let (operation, _) = cache
            .checked_operation(OperatorId::new(), &text, Some("A"), &mut Variables::default())
            .expect("a document");
        assert_eq!(operation.items(), 10 * (1 + 1 + 47));
        cache.documents.run_pending_tasks();
        // There are 490 selections in each of the two operations.
        assert_eq!(cache.documents.weighted_size(), 2 * 490 * 4 + FIXED_BYTES as u64);
    }

    #[test]
    fn a_document_is_cached_once_and_its_operations_for_each_set_of_missing_variables() {
        let cache = cache_with_booleans();
        let text = "query A ($a: Boolean) { b(c: $a) } query B { d }";
        let was_cached = |text: &str, operation, variables: serde_json::Value| {
            let mut variables = Variables::from_json(variables);
            cache.checked_operation(OperatorId::new(), text, Some(operation), &mut variables).expect("a document").1
        };
        for (operation, variables) in [("A", json!({ "a": true })), ("A", json!({}))] {
            assert!(!was_cached(text, operation, variables.clone()), "{operation} {variables}");
            assert!(was_cached(text, operation, variables.clone()), "{operation} {variables}");
        }
        assert!(was_cached(text, "B", json!({})));
        assert!(was_cached(text, "A", json!({ "a": false })));
        assert!(!was_cached(&format!("{text} # 2"), "B", json!({})));
    }

    #[test]
    fn operations_do_not_share_variants() {
        let cache = cache_with_booleans();
        let text = "query A ($a: Boolean) { b(c: $a) } query B ($a: Boolean) { d(c: $a) }";
        for name in ["A", "B", "A", "B"] {
            let operation = cache.checked_operation(OperatorId::new(), text, Some(name), &mut Variables::default());
            let (operation, _) = operation.expect("a document");
            assert_eq!(operation.normalised.name().map(Name::as_str), Some(name));
        }
    }

    #[test]
    fn owners_do_not_share_documents_with_strings() {
        let cache = DocumentCache::new(Registry::default());
        let [one, other] = [OperatorId::new(), OperatorId::new()];
        let was_cached =
            |owner, text| cache.checked_operation(owner, text, None, &mut Variables::default()).expect("a document").1;
        let (with_string, without) = (r#"{ a(b: "ada@example.com") }"#, "{ a(b: 1) }");
        assert!(!was_cached(one, with_string) && was_cached(one, with_string) && !was_cached(other, with_string));
        assert!(!was_cached(one, without) && was_cached(other, without));
    }
}
