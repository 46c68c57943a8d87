//! Limits on parsed documents.
//!
//! The operations of dashboards and other clients stay well below the limits. The standard introspection query is
//! larger than these operations, but stays below the limits too: it has 1.6 KiB and 229 fields. It has 15 levels of
//! fields, the most that `schema` allows.
//!
//! Selections are counted before validation, because async-graphql's validation visits a fragment once per spread: if
//! each of 31 fragments spreads the next fragment twice, the validation makes 2^31 visits. Here each fragment is
//! counted once.

use std::collections::{HashMap, HashSet};
use std::num::Saturating;

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet};
use async_graphql::{Name, Positioned, ServerResult};

use super::fields::collect_executed_fields;
use super::limit::{Limit, reject};
use super::normalise::Fragments;
use super::size::{values_in_arguments, values_of_directives};
use super::text;

const OPERATIONS: Limit = Limit::new(10, "The document has more than", "operations");
const FRAGMENTS: Limit = Limit::new(50, "The document has more than", "fragments");
/// Fields, fragment spreads and inline fragments of an operation, with all spreads expanded.
const SELECTIONS: Limit = Limit::new(500, "The operation has more than", "fields and fragments");
/// The selections of all operations together. All of them are checked, but a request pays only for those of the
/// operation that it executes.
const ALL_SELECTIONS: Limit = Limit::new(1000, "The operations have more than", "fields and fragments");
/// Nested selection sets of an operation, with all spreads expanded. async-graphql has the same limit, but checks it
/// later. A deeper document could exhaust the stack, because many functions visit a document recursively.
const LEVELS: Limit = Limit::new(32, "The operation nests more than", "levels of fields and fragments");
const ALIASES: Limit = Limit::new(30, "The operation has more than", "aliases");
const DIRECTIVES: Limit = Limit::new(20, "The operation has more than", "directives");
/// Values in the arguments of all operations and of their directives, with all fragments expanded. A fragment that is
/// spread often copies its arguments.
const ALL_VALUES: Limit = Limit::new(2000, "The operations have more than", "values in arguments");
/// Nesting of the introspection fields in `FIELDS_TO_TYPES`. The standard introspection query has a depth of 1.
const INTROSPECTION_DEPTH: Limit = Limit::new(3, "The introspection nests more than", "levels of types");
/// Aliases of `__typename` in a selection set. This field has no complexity, so its number in a response has no other
/// limit.
const TYPE_NAME_ALIASES: Limit = Limit::new(3, "A selection set has more than", "aliases of `__typename`");
const QUERY_ROOT_FIELDS: Limit = Limit::new(10, "The operation has more than", "root fields");
const MUTATION_ROOT_FIELDS: Limit = Limit::new(5, "The operation has more than", "root fields");

/// Parses a document and checks it against the limits, also those of [`text`].
pub fn parse(text: &str) -> ServerResult<ExecutableDocument> {
    let document = text::parse(text)?;
    check_operations(&document)?;
    Ok(document)
}

/// Checks the number of operations and fragments, and the selections of each operation.
fn check_operations(document: &ExecutableDocument) -> ServerResult<()> {
    OPERATIONS.check(document.operations.iter().count())?;
    FRAGMENTS.check(document.fragments.len())?;
    let mut counter = SizeCounter { fragments: &document.fragments, counted: HashMap::new() };
    let (mut all_selections, mut all_values) = (Saturating(0), Saturating(0));
    for (_, Positioned { node: operation, .. }) in document.operations.iter() {
        let mut size = counter.selection_set(&operation.selection_set.node)?;
        size.directives += operation.directives.len();
        // async-graphql does not validate these directives, and the schema has no directive for this place.
        if operation.variable_definitions.iter().any(|variable| !variable.node.directives.is_empty()) {
            return reject("The definition of a variable has a directive. No directive may be used there.");
        }
        SELECTIONS.check(size.selections.0)?;
        all_selections += size.selections;
        ALL_SELECTIONS.check(all_selections.0)?;
        all_values += size.values;
        ALL_VALUES.check(all_values.0)?;
        LEVELS.check(size.levels)?;
        ALIASES.check(size.aliases.0)?;
        TYPE_NAME_ALIASES.check(size.max_type_name_aliases.0)?;
        DIRECTIVES.check(size.directives.0)?;
        INTROSPECTION_DEPTH.check(size.introspection_depth)?;
    }
    // Validation would visit unused fragments, although they are not part of any count above.
    if document.fragments.values().any(|fragment| !fragment.node.directives.is_empty()) {
        return reject("A fragment definition has a directive. No directive may be used there.");
    }
    if let Some(unused) = document.fragments.keys().filter(|name| !counter.counted.contains_key(*name)).min() {
        return reject(format!("The fragment {unused} is not used."));
    }
    Ok(())
}

/// Checks the number of fields at the root of a normalised operation.
pub fn check_root_fields(operation: &OperationDefinition) -> ServerResult<()> {
    let is_mutation = operation.ty == OperationType::Mutation;
    let limit = if is_mutation { MUTATION_ROOT_FIELDS } else { QUERY_ROOT_FIELDS };
    let mut fields = Vec::new();
    collect_executed_fields(&operation.selection_set.node, &mut fields);
    limit.check(fields.len())
}

/// Size of a selection set, with all fragment spreads expanded.
#[derive(Clone, Copy, Default)]
struct SelectionSize {
    selections: Saturating<usize>,
    levels: usize,
    aliases: Saturating<usize>,
    /// Aliases of `__typename` among the fields of the set, and the largest such number in this set and the sets below.
    type_name_aliases: Saturating<usize>,
    max_type_name_aliases: Saturating<usize>,
    directives: Saturating<usize>,
    values: Saturating<usize>,
    introspection_depth: usize,
}

/// Computes the size of selection sets. Visits each fragment only once.
struct SizeCounter<'d> {
    fragments: &'d Fragments,
    /// Sizes of fragments. `None` while a fragment is being counted, to detect fragments that contain themselves.
    counted: HashMap<&'d Name, Option<SelectionSize>>,
}

/// Introspection fields that lead from one type to several other types. Each field returns a list of types, or a list
/// of items that have types.
const FIELDS_TO_TYPES: [&str; 4] = ["fields", "inputFields", "interfaces", "possibleTypes"];

impl<'d> SizeCounter<'d> {
    fn selection_set(&mut self, set: &'d SelectionSet) -> ServerResult<SelectionSize> {
        let mut sum = SelectionSize::default();
        for Positioned { node: selection, .. } in &set.items {
            let mut inner = match selection {
                Selection::Field(Positioned { node: field, .. }) => {
                    if has_repeated_name(field.arguments.iter().map(|(name, _)| name)) {
                        return reject(format!("The field {} has the same argument twice.", field.name.node));
                    }
                    let mut inner = self.selection_set(&field.selection_set.node)?;
                    inner.aliases += usize::from(field.alias.is_some());
                    let is_type_name = field.name.node == "__typename";
                    inner.type_name_aliases = Saturating(usize::from(is_type_name && field.alias.is_some()));
                    inner.values += values_in_arguments(&field.arguments);
                    inner.introspection_depth += usize::from(FIELDS_TO_TYPES.contains(&field.name.node.as_str()));
                    inner
                }
                Selection::InlineFragment(fragment) => self.selection_set(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node)?,
            };
            // Directives without an effect, and arguments with missing variables, are removed before validation.
            if has_repeated_name(selection.directives().iter().map(|directive| &directive.node.name)) {
                return reject("A directive is repeated at the same place.");
            }
            inner.directives += selection.directives().len();
            inner.values += values_of_directives(selection.directives());
            sum.selections += inner.selections + Saturating(1);
            sum.levels = sum.levels.max(1 + inner.levels);
            sum.aliases += inner.aliases;
            sum.type_name_aliases += inner.type_name_aliases;
            sum.max_type_name_aliases = sum.max_type_name_aliases.max(inner.max_type_name_aliases);
            sum.directives += inner.directives;
            sum.values += inner.values;
            sum.introspection_depth = sum.introspection_depth.max(inner.introspection_depth);
        }
        sum.max_type_name_aliases = sum.max_type_name_aliases.max(sum.type_name_aliases);
        Ok(sum)
    }

    fn fragment(&mut self, name: &Name) -> ServerResult<SelectionSize> {
        // Validation reports a fragment that does not exist.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return Ok(SelectionSize::default()) };
        match self.counted.get(name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return reject(format!("The fragment {name} contains itself.")),
            None => self.counted.insert(name, None),
        };
        let size = self.selection_set(&fragment.node.selection_set.node)?;
        self.counted.insert(name, Some(size));
        Ok(size)
    }
}

fn has_repeated_name<'d>(names: impl Iterator<Item = &'d Positioned<Name>>) -> bool {
    let mut known = HashSet::new();
    names.into_iter().any(|name| !known.insert(&name.node))
}

#[cfg(test)]
mod tests {
    use async_graphql::registry::Registry;

    use super::super::limit::test_limit;
    use super::super::normalise::normalise;
    use super::*;

    fn rejection(text: &str) -> String {
        parse(text).map(drop).unwrap_err().message
    }

    #[test]
    fn a_document_at_a_limit_is_accepted_and_a_larger_one_is_not() {
        fn repeat(count: usize, part: impl Fn(usize) -> String) -> String {
            (0..count).map(part).collect()
        }
        fn fields(count: usize) -> String {
            repeat(count, |number| format!("a{number} "))
        }
        type Case = (Limit, &'static str, fn(usize) -> String);
        let cases: [Case; 12] = [
            (OPERATIONS, "The document has more than 10 operations.", |size| {
                repeat(size, |number| format!("query Q{number} {{ a }} "))
            }),
            (FRAGMENTS, "The document has more than 50 fragments.", |size| {
                let spreads = repeat(size, |number| format!("...F{number} "));
                let fragments = repeat(size, |number| format!("fragment F{number} on T {{ a }} "));
                format!("{{ a {{ {spreads} }} }} {fragments}")
            }),
            (SELECTIONS, "The operation has more than 500 fields and fragments.", |size| {
                format!("{{ a {{ {} }} }}", fields(size - 1))
            }),
            (ALL_SELECTIONS, "The operations have more than 1000 fields and fragments.", |size| {
                let operations = repeat(2, |number| format!("query Q{number} {{ a {{ ...F }} }} "));
                let last = format!("query Q {{ a {{ {} }} }}", fields(size - 801));
                format!("{operations} {last} fragment F on T {{ {} }}", fields(398))
            }),
            (LEVELS, "The operation nests more than 32 levels of fields and fragments.", |size| {
                format!("{{ {} ...F {} }} fragment F on T {{ a }}", "a { ".repeat(size - 2), "}".repeat(size - 2))
            }),
            (ALIASES, "The operation has more than 30 aliases.", |size| {
                format!("{{ a {{ {} }} }}", repeat(size, |number| format!("b{number}: c ")))
            }),
            (TYPE_NAME_ALIASES, "A selection set has more than 3 aliases of `__typename`.", |size| {
                format!("{{ a {{ {} }} }}", repeat(size, |number| format!("b{number}: __typename ")))
            }),
            (DIRECTIVES, "The operation has more than 20 directives.", |size| {
                format!("query @x {{ a {} }}", repeat(size - 1, |number| format!("@x{number} ")))
            }),
            (INTROSPECTION_DEPTH, "The introspection nests more than 3 levels of types.", |size| {
                format!("{{ __schema {}a{} }}", "{ fields ".repeat(size) + "{ ", " }".repeat(size + 1))
            }),
            (ALL_VALUES, "The operations have more than 2000 values in arguments.", |size| {
                let (spreads, rest) = ("...F ".repeat(8), "1 ".repeat(size - 1999));
                let operations = format!("query A {{ a {{ {spreads} b(c: [{rest}]) }} }} query B {{ ...F }}");
                format!("{operations} fragment F on T {{ x(y: [{}]) }}", "1 ".repeat(221))
            }),
            (QUERY_ROOT_FIELDS, "The operation has more than 10 root fields.", |size| {
                format!("{{ {} }}", fields(size))
            }),
            (MUTATION_ROOT_FIELDS, "The operation has more than 5 root fields.", |size| {
                format!("mutation {{ {} }}", fields(size))
            }),
        ];
        for (limit, message, document) in cases {
            let check = |text: &str| {
                let operations = normalise(parse(text)?, &Registry::default())?;
                operations.iter().try_for_each(|operation| check_root_fields(operation.definition()))
            };
            test_limit(&limit, message, document, check);
        }
    }

    #[test]
    fn definitions_of_variables_and_fragments_have_no_directives() {
        for document in ["query ($a: Int @x) { a(b: $a) }", "{ ...f } fragment f on T @x { a }"] {
            assert!(rejection(document).ends_with("No directive may be used there."), "{document}");
        }
    }

    #[test]
    fn arguments_and_directives_are_not_repeated() {
        for (document, is_accepted) in [
            ("{ a @skip(if: false) @skip(if: false) }", false),
            ("{ ... @include(if: true) @include(if: true) { a } }", false),
            ("{ a @skip(if: false) @include(if: true) b @skip(if: false) }", true),
            ("{ a(b: 1, b: 1) }", false),
            ("{ a(b: 1) { a(b: 1) } }", true),
        ] {
            assert_eq!(parse(document).is_ok(), is_accepted, "{document}");
        }
    }

    #[test]
    fn ordinary_documents_are_within_the_limits() {
        assert!(parse(include_str!("../introspection.graphql")).is_ok());
        assert!(
            parse("query ($a: Int = 1) @x { a: b(c: [1, {d: $a}]) { ...f } } fragment f on T { __typename }").is_ok()
        );
    }
}
