//! Checks that each variable of an operation is defined once and used.
//!
//! async-graphql has these rules too. But it sees only the variant of the document that is executed, without the
//! arguments whose variables are missing (see `variant`). A document would be valid or not depending on its variables.

use std::collections::HashSet;

use async_graphql::parser::types::{Directive, OperationDefinition, Selection, SelectionSet};
use async_graphql::{Name, Positioned, ServerError, ServerResult};
use async_graphql_value::Value;

use super::normalise::Normalised;

/// Checks the names of the variables of a document.
pub fn check_variable_names(document: &Normalised) -> ServerResult<()> {
    for (_, Positioned { node: operation, .. }) in document.operations().iter() {
        let used = used_variables(operation);
        let mut defined = HashSet::new();
        for Positioned { node: definition, pos } in &operation.variable_definitions {
            let name = &definition.name.node;
            let fault = match (defined.insert(name), used.contains(name)) {
                (false, _) => "is defined twice",
                (true, false) => "is not used",
                (true, true) => continue,
            };
            return Err(ServerError::new(format!("The variable `${name}` {fault}."), Some(*pos)));
        }
    }
    Ok(())
}

fn used_variables(operation: &OperationDefinition) -> HashSet<&Name> {
    let mut used = HashSet::new();
    add_of_directives(&operation.directives, &mut used);
    add_of_selections(&operation.selection_set.node, &mut used);
    used
}

fn add_of_selections<'d>(set: &'d SelectionSet, used: &mut HashSet<&'d Name>) {
    for Positioned { node: selection, .. } in &set.items {
        add_of_directives(selection.directives(), used);
        match selection {
            Selection::Field(Positioned { node: field, .. }) => {
                field.arguments.iter().for_each(|(_, value)| add_of_value(&value.node, used));
                add_of_selections(&field.selection_set.node, used);
            }
            Selection::InlineFragment(inline) => add_of_selections(&inline.node.selection_set.node, used),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn add_of_directives<'d>(directives: &'d [Positioned<Directive>], used: &mut HashSet<&'d Name>) {
    let arguments = directives.iter().flat_map(|directive| &directive.node.arguments);
    arguments.for_each(|(_, value)| add_of_value(&value.node, used));
}

fn add_of_value<'d>(value: &'d Value, used: &mut HashSet<&'d Name>) {
    match value {
        Value::Variable(name) => {
            used.insert(name);
        }
        Value::List(items) => items.iter().for_each(|item| add_of_value(item, used)),
        Value::Object(fields) => fields.values().for_each(|field| add_of_value(field, used)),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) => {}
    }
}
