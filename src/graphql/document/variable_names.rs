//! Checks that each variable of an operation is defined once and used.
//!
//! async-graphql has these rules too. But it sees only the variant of the document that is executed, without the
//! arguments whose variables are missing (see `variant`). A document would be valid or not depending on its variables.

use std::collections::HashSet;

use async_graphql::parser::types::OperationDefinition;
use async_graphql::{Name, Positioned, ServerError, ServerResult};
use async_graphql_value::Value;

use super::fields::{for_each_directive, for_each_field};

/// Checks the names of the variables of an operation.
pub fn check_variable_names(operation: &OperationDefinition) -> ServerResult<()> {
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
    Ok(())
}

fn used_variables(operation: &OperationDefinition) -> HashSet<&Name> {
    let (set, mut arguments) = (&operation.selection_set.node, Vec::new());
    operation.directives.iter().for_each(|directive| arguments.extend(&directive.node.arguments));
    for_each_directive(set, &mut |directive| arguments.extend(&directive.arguments));
    for_each_field(set, &mut |field| arguments.extend(&field.arguments));
    let mut used = HashSet::new();
    arguments.into_iter().for_each(|(_, value)| add_of_value(&value.node, &mut used));
    used
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
