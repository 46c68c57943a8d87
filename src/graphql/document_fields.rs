//! The fields of a document and their arguments: fields that must be merged, and arguments that have variables.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::{Name, Positioned};
use async_graphql_value::Value;

use super::pagination::PAGE_SIZE_ARGUMENTS;
use super::rewrite::Fragments;

/// Returns true if a selection set of the document, with its fragments expanded, has several fields with the same
/// response key. A repeated field that has no arguments and no selections does not count, because its repetition
/// changes nothing.
pub fn merges_fields(document: &ExecutableDocument) -> bool {
    let mut sets = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    sets.any(|set| has_merged_fields(set, &document.fragments))
}

fn has_merged_fields(set: &SelectionSet, fragments: &Fragments) -> bool {
    let mut fields = Vec::new();
    collect_fields(set, fragments, &mut fields);
    let mut keys = HashMap::new();
    fields.into_iter().any(|field| {
        let Field { name, arguments, selection_set: set, .. } = field;
        let is_plain = arguments.is_empty() && set.node.items.is_empty();
        let other = keys.insert(&field.response_key().node, (is_plain, &name.node));
        other.is_some_and(|other| other != (true, &name.node) || !is_plain) || has_merged_fields(&set.node, fragments)
    })
}

/// Returns true if a variable sets the size of a page. Then the variables decide how complex the document is.
pub fn has_variable_page_size(document: &ExecutableDocument) -> bool {
    fn selects(set: &SelectionSet) -> bool {
        set.items.iter().any(|selection| match &selection.node {
            Selection::Field(Positioned { node: Field { arguments, selection_set, .. }, .. }) => {
                let is_such = |(name, value): &(Positioned<Name>, Positioned<Value>)| {
                    PAGE_SIZE_ARGUMENTS.contains(&name.node.as_str()) && matches!(value.node, Value::Variable(_))
                };
                arguments.iter().any(is_such) || selects(&selection_set.node)
            }
            Selection::InlineFragment(inline) => selects(&inline.node.selection_set.node),
            Selection::FragmentSpread(_) => false,
        })
    }
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).any(selects)
}

/// Adds the fields of a selection set, with its fragments expanded. The fragments must not contain themselves.
pub fn collect_fields<'d>(set: &'d SelectionSet, fragments: &'d Fragments, fields: &mut Vec<&'d Field>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(inline) => collect_fields(&inline.node.selection_set.node, fragments, fields),
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    collect_fields(&fragment.node.selection_set.node, fragments, fields);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn a_page_size_may_be_a_variable() {
        for (text, expected) in [
            ("{ a(first: 10) { b(last: 5) } }", false),
            ("query ($x: ID) { a(id: $x, first: 10) { b(input: { first: $x }) } }", false),
            ("query ($n: Int) { a(first: $n) { b } }", true),
            ("query ($n: Int) { a { b { c(last: $n) } } }", true),
            ("query ($n: Int) { a { ... { b(first: $n) } } }", true),
            ("query ($n: Int) { ...A } fragment A on B { c(first: $n) }", true),
            ("query A { a } query B ($n: Int) { a(first: $n) }", true),
        ] {
            assert_eq!(has_variable_page_size(&parse_query(text).unwrap()), expected, "{text}");
        }
    }
}
