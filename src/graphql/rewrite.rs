//! Rewrites documents before execution where async-graphql would not treat them as the specification requires.

use std::collections::HashSet;

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, Field, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned};

use super::cost::Fragments;

/// Removes all other operations from a document, and the fragments that this operation does not use.
pub fn without_other_operations(mut document: ExecutableDocument, operation: &Name) -> ExecutableDocument {
    if let DocumentOperations::Multiple(operations) = &mut document.operations {
        operations.retain(|name, _| name == operation);
    }
    remove_unused_fragments(&mut document);
    document
}

/// Merges the root fields of queries that have the same response key, name and arguments and no directives, also if
/// they are in fragments. async-graphql would execute both fields, and merge their results. The second execution could
/// see other rows, so a list could mix the values of two customers.
pub fn merge_root_fields(mut document: ExecutableDocument) -> ExecutableDocument {
    let ExecutableDocument { operations, fragments } = &mut document;
    let operations: Vec<_> = match operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    let mut is_merged = false;
    for Positioned { node: operation, .. } in operations {
        let mut expanded = Vec::new();
        expand(&operation.selection_set.node, fragments, &mut expanded);
        let (number, merged) = (expanded.len(), merge(expanded));
        if operation.ty == OperationType::Query && merged.len() < number {
            operation.selection_set.node.items = merged;
            is_merged = true;
        }
    }
    if is_merged {
        remove_unused_fragments(&mut document);
    }
    document
}

/// Adds the selections of a query, with the fragments on `Query` expanded. Fragments with directives stay as they are.
fn expand(set: &SelectionSet, fragments: &Fragments, expanded: &mut Vec<Positioned<Selection>>) {
    for selection in &set.items {
        let fragment = match &selection.node {
            Selection::InlineFragment(Positioned { node: inline, .. }) if inline.directives.is_empty() => {
                let condition = inline.type_condition.as_ref().map_or("Query", |condition| &condition.node.on.node);
                Some((condition, &inline.selection_set.node))
            }
            Selection::FragmentSpread(Positioned { node: spread, .. }) if spread.directives.is_empty() => {
                let fragment = fragments.get(&spread.fragment_name.node).map(|fragment| &fragment.node);
                let fragment = fragment.filter(|fragment| fragment.directives.is_empty());
                fragment.map(|fragment| (fragment.type_condition.node.on.node.as_str(), &fragment.selection_set.node))
            }
            Selection::Field(_) | Selection::InlineFragment(_) | Selection::FragmentSpread(_) => None,
        };
        match fragment {
            Some(("Query", set)) => expand(set, fragments, expanded),
            Some(_) | None => expanded.push(selection.clone()),
        }
    }
}

/// Appends the selections of a field to an earlier field with the same response key, name and arguments.
fn merge(selections: Vec<Positioned<Selection>>) -> Vec<Positioned<Selection>> {
    let mut merged: Vec<Positioned<Selection>> = Vec::new();
    for selection in selections {
        let earlier = merged.iter_mut().find_map(|earlier| match (&mut earlier.node, &selection.node) {
            (Selection::Field(earlier), Selection::Field(field)) if is_same(&earlier.node, &field.node) => {
                Some((earlier, field))
            }
            _ => None,
        });
        match earlier {
            Some((earlier, field)) => {
                earlier.node.selection_set.node.items.extend(field.node.selection_set.node.items.iter().cloned());
            }
            None => merged.push(selection),
        }
    }
    for selection in &mut merged {
        if let Selection::Field(field) = &mut selection.node {
            field.node.selection_set.node.items.shrink_to_fit();
        }
    }
    merged
}

fn is_same(one: &Field, other: &Field) -> bool {
    let value_in_other = |name: &Name| other.get_argument(name).map(|value| &value.node);
    one.response_key().node == other.response_key().node
        && one.name.node == other.name.node
        && one.selection_set.node.items.is_empty() == other.selection_set.node.items.is_empty()
        && one.directives.is_empty()
        && other.directives.is_empty()
        && one.arguments.len() == other.arguments.len()
        && one.arguments.iter().all(|(name, value)| value_in_other(&name.node) == Some(&value.node))
}

/// Returns the number of selections in the operations and fragments of a document. Fragments are not expanded.
pub fn stored_selections(document: &ExecutableDocument) -> usize {
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).map(selections_in).sum()
}

fn selections_in(set: &SelectionSet) -> usize {
    let number = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(field) => 1 + selections_in(&field.node.selection_set.node),
        Selection::InlineFragment(inline) => 1 + selections_in(&inline.node.selection_set.node),
        Selection::FragmentSpread(_) => 1,
    };
    set.items.iter().map(number).sum()
}

fn remove_unused_fragments(document: &mut ExecutableDocument) {
    let mut used = HashSet::new();
    for (_, operation) in document.operations.iter() {
        collect_fragments(&operation.node.selection_set.node, &document.fragments, &mut used);
    }
    document.fragments.retain(|name, _| used.contains(name));
}

/// Adds the names of the fragments that a selection set uses.
fn collect_fragments(set: &SelectionSet, fragments: &Fragments, used: &mut HashSet<Name>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => collect_fragments(&field.node.selection_set.node, fragments, used),
            Selection::InlineFragment(inline) => collect_fragments(&inline.node.selection_set.node, fragments, used),
            Selection::FragmentSpread(spread) => {
                let name = &spread.node.fragment_name.node;
                if used.insert(name.clone())
                    && let Some(fragment) = fragments.get(name)
                {
                    collect_fragments(&fragment.node.selection_set.node, fragments, used);
                }
            }
        }
    }
}
