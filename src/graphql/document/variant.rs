//! The variant of an operation that one request executes. Variants differ in the variables that the request leaves out,
//! and in the values of the variables in `@include` and `@skip`.
//!
//! - If an optional variable is missing, the arguments and input fields that use it are removed (see `variables`).
//! - A variable in `@include` or `@skip` is replaced by its value. Otherwise a field that is selected twice, once with
//!   a condition, could not be merged: async-graphql would read its rows twice, and could join the values of two
//!   different reads.

use std::collections::HashMap;

use async_graphql::parser::types::{Directive, OperationDefinition, Selection, SelectionSet};
use async_graphql::registry::Registry;
use async_graphql::{Name, Positioned, ServerResult, Variables};
use async_graphql_value::{ConstValue, Value};

use super::fields::for_each_directive;
use super::normalise::NormalisedOperation;

/// The variables that a variant does not have: the missing ones in the order of their definitions, then those in
/// conditions, with the values that replace them.
pub type Replaced = Vec<(Name, Option<bool>)>;

/// Returns the names of the variables in the conditions of `@include` and `@skip`.
pub fn variables_in_conditions(operation: &OperationDefinition) -> Vec<Name> {
    let mut names = Vec::new();
    for_each_directive(&operation.selection_set.node, &mut |directive: &Directive| {
        if let Some(Value::Variable(name)) = directive.get_argument("if").map(|condition| &condition.node)
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    });
    names
}

/// Returns the variables that a request replaces: the missing variables, and those in `conditions` that are Boolean.
pub fn replaced(missing: Vec<Name>, conditions: &[Name], variables: &Variables) -> Replaced {
    let value = |name: &Name| match variables.get(name) {
        Some(ConstValue::Boolean(value)) => Some((name.clone(), Some(*value))),
        _ => None,
    };
    missing.into_iter().map(|name| (name, None)).chain(conditions.iter().filter_map(value)).collect()
}

/// Returns the variant of an operation in which these variables are removed or replaced. Fails in the same cases as
/// `normalise`.
pub fn with_replaced(
    operation: NormalisedOperation,
    replaced: &[(Name, Option<bool>)],
    types: &Registry,
) -> ServerResult<NormalisedOperation> {
    let replaced: &ByName<'_> = &replaced.iter().map(|(name, value)| (name, *value)).collect();
    let change = |operation: &mut OperationDefinition| {
        operation.variable_definitions.retain(|definition| !replaced.contains_key(&definition.node.name.node));
        replace_in_directives(&mut operation.directives, replaced);
        replace_in_selections(&mut operation.selection_set.node, replaced);
    };
    operation.change(change, types)
}

type ByName<'a> = HashMap<&'a Name, Option<bool>>;

fn replace_in_selections(set: &mut SelectionSet, replaced: &ByName<'_>) {
    for selection in &mut set.items {
        replace_in_directives(selection.node.directives_mut(), replaced);
        match &mut selection.node {
            Selection::Field(Positioned { node: field, .. }) => {
                replace_in_arguments(&mut field.arguments, replaced);
                replace_in_selections(&mut field.selection_set.node, replaced);
            }
            Selection::InlineFragment(inline) => replace_in_selections(&mut inline.node.selection_set.node, replaced),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn replace_in_directives(directives: &mut [Positioned<Directive>], replaced: &ByName<'_>) {
    for directive in directives {
        replace_in_arguments(&mut directive.node.arguments, replaced);
    }
}

fn replace_in_arguments(arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>, replaced: &ByName<'_>) {
    arguments.retain_mut(|(_, value)| replace(&mut value.node, replaced));
}

/// Replaces variables in a value. Inside the value, removes each input field whose variable is missing, and sets each
/// list item whose variable is missing to null. Returns false if the value itself is a missing variable.
fn replace(value: &mut Value, replaced: &ByName<'_>) -> bool {
    match value {
        Value::Variable(name) => match replaced.get(name) {
            Some(Some(condition)) => *value = Value::Boolean(*condition),
            Some(None) => return false,
            None => {}
        },
        Value::Object(fields) => fields.retain(|_, field| replace(field, replaced)),
        Value::List(items) => {
            for item in items {
                if !replace(item, replaced) {
                    // In a list, the specification requires null in place of a missing variable.
                    *item = Value::Null;
                }
            }
        }
        Value::Null | Value::Number(_) | Value::String(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) => {}
    }
    true
}
