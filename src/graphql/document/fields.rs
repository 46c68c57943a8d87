//! Visits the fields and the directives of a document.

use async_graphql::Positioned;
use async_graphql::parser::types::{Directive, Field, Selection, SelectionSet};
use async_graphql_value::Value;

use super::normalise::Normalised;
use crate::graphql::pagination::PAGE_SIZE_ARGUMENTS;

/// Returns true if a variable sets the size of a page. Then the variables decide how complex the document is.
pub fn has_variable_page_size(document: &Normalised) -> bool {
    let has_variable_size = |field: &Field| {
        field.arguments.iter().any(|(name, value)| {
            PAGE_SIZE_ARGUMENTS.contains(&name.node.as_str()) && matches!(value.node, Value::Variable(_))
        })
    };
    let mut is_variable = false;
    for (_, operation) in document.operations().iter() {
        for_each_field(&operation.node.selection_set.node, &mut |field| is_variable |= has_variable_size(field));
    }
    is_variable
}

/// Calls `visit` with each field of a selection set of a normalised document, and with each field below these fields.
pub fn for_each_field<'d>(set: &'d SelectionSet, visit: &mut impl FnMut(&'d Field)) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => {
                visit(&field.node);
                for_each_field(&field.node.selection_set.node, visit);
            }
            Selection::InlineFragment(inline) => for_each_field(&inline.node.selection_set.node, visit),
            Selection::FragmentSpread(_) => {}
        }
    }
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

/// Adds the fields of a selection set of a normalised document, and the fields of its inline fragments.
pub fn collect_fields<'d>(set: &'d SelectionSet, fields: &mut Vec<&'d Field>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(inline) => collect_fields(&inline.node.selection_set.node, fields),
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
            ("query A { a } query B ($n: Int) { a(first: $n) }", true),
        ] {
            let document = normalise(parse_query(text).unwrap(), &Registry::default()).unwrap();
            assert_eq!(has_variable_page_size(&document), expected, "{text}");
        }
    }
}
