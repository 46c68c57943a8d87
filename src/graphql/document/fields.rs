//! Visits the fields and the directives of a document.

use async_graphql::Positioned;
use async_graphql::parser::types::{Directive, Field, OperationDefinition, Selection, SelectionSet};
use async_graphql_value::Value;

use super::normalise::literal_condition;
use crate::graphql::pagination::PAGE_SIZE_ARGUMENTS;

/// Returns true if a variable sets the size of a page. Then the variables decide how complex the operation is.
pub fn has_variable_page_size(operation: &OperationDefinition) -> bool {
    let has_variable_size = |field: &Field| {
        field.arguments.iter().any(|(name, value)| {
            PAGE_SIZE_ARGUMENTS.contains(&name.node.as_str()) && matches!(value.node, Value::Variable(_))
        })
    };
    let mut is_variable = false;
    for_each_field(&operation.selection_set.node, &mut |field| is_variable |= has_variable_size(field));
    is_variable
}

/// Calls `visit` with each field of a selection set of a normalised document, and with each field below these fields.
pub fn for_each_field<'d>(set: &'d SelectionSet, visit: &mut impl FnMut(&'d Field)) {
    visit_fields(set, |_| true, visit);
}

/// Like [`for_each_field`], but only with fields that [may be executed](may_be_executed).
pub fn for_each_executed_field<'d>(set: &'d SelectionSet, visit: &mut impl FnMut(&'d Field)) {
    visit_fields(set, may_be_executed, visit);
}

fn visit_fields<'d>(set: &'d SelectionSet, includes: fn(&Selection) -> bool, visit: &mut impl FnMut(&'d Field)) {
    for selection in set.items.iter().map(|selection| &selection.node).filter(|selection| includes(selection)) {
        match selection {
            Selection::Field(field) => {
                visit(&field.node);
                visit_fields(&field.node.selection_set.node, includes, visit);
            }
            Selection::InlineFragment(inline) => visit_fields(&inline.node.selection_set.node, includes, visit),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Adds the fields of a selection set of a normalised document, and the fields of its inline fragments, that [may be
/// executed](may_be_executed).
pub fn collect_executed_fields<'d>(set: &'d SelectionSet, fields: &mut Vec<&'d Field>) {
    for selection in set.items.iter().map(|selection| &selection.node).filter(|selection| may_be_executed(selection)) {
        match selection {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(inline) => collect_executed_fields(&inline.node.selection_set.node, fields),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Returns false for a selection with `@include(if: false)` or `@skip(if: true)`. It is checked like other selections,
/// but never executed.
fn may_be_executed(selection: &Selection) -> bool {
    selection.directives().iter().all(|directive| literal_condition(&directive.node) != Some(false))
}

/// Calls `visit` with each directive in a selection set of a normalised document.
pub fn for_each_directive<'d>(set: &'d SelectionSet, visit: &mut impl FnMut(&'d Directive)) {
    for Positioned { node: selection, .. } in &set.items {
        selection.directives().iter().for_each(|directive| visit(&directive.node));
        match selection {
            Selection::Field(field) => for_each_directive(&field.node.selection_set.node, visit),
            Selection::InlineFragment(inline) => for_each_directive(&inline.node.selection_set.node, visit),
            Selection::FragmentSpread(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::registry::Registry;

    use super::*;
    use crate::graphql::document::normalise::normalise;

    #[test]
    fn a_page_size_may_be_a_variable() {
        for (text, expected) in [
            ("{ a(first: 10) { b(last: 5) } }", false),
            ("query ($x: ID) { a(id: $x, first: 10) { b(input: { first: $x }) } }", false),
            ("query ($n: Int) { a(first: $n) { b } }", true),
            ("query ($n: Int) { a { b { c(last: $n) } } }", true),
            ("query ($n: Int) { a { ... { b(first: $n) } } }", true),
            ("query ($n: Int) { ...A } fragment A on B { c(first: $n) }", true),
        ] {
            let operations = normalise(parse_query(text).unwrap(), &Registry::default()).unwrap();
            assert_eq!(has_variable_page_size(operations[0].definition()), expected, "{text}");
        }
    }
}
