//! Variables as the specification has them, where async-graphql differs: one that is required and missing is an error of
//! the request, before anything of it is done; one that may be missing, and is, leaves out what it stands for, and is not
//! null. In a patch the difference is a value that is kept, and a value that is removed.

use std::collections::HashSet;

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Variables};
use async_graphql_value::{ConstValue, Value};

use super::guard::Refusal;

type Arguments = Vec<(Positioned<Name>, Positioned<Value>)>;

/// Takes the variables that are missing out of the document.
pub fn settle(
    document: &mut ExecutableDocument,
    operation_name: Option<&str>,
    variables: &Variables,
) -> Result<(), Refusal> {
    let mut operations = document.operations.iter();
    let selected = match operation_name {
        Some(wanted) => operations.find(|(name, _)| name.is_some_and(|name| name == wanted)),
        // More than one, and none named, is for the execution to refuse.
        None => operations.next(),
    };
    let Some((_, operation)) = selected else { return Ok(()) };
    let missing = missing(&operation.node, variables)?;
    if missing.is_empty() {
        return Ok(());
    }
    let operations = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![&mut operation.node],
        DocumentOperations::Multiple(operations) => {
            operations.values_mut().map(|operation| &mut operation.node).collect()
        }
    };
    for operation in operations {
        operation.variable_definitions.retain(|definition| !missing.contains(&definition.node.name.node));
        in_directives(&mut operation.directives, &missing);
        in_selections(&mut operation.selection_set.node, &missing);
    }
    for fragment in document.fragments.values_mut() {
        in_directives(&mut fragment.node.directives, &missing);
        in_selections(&mut fragment.node.selection_set.node, &missing);
    }
    Ok(())
}

fn missing(operation: &OperationDefinition, variables: &Variables) -> Result<HashSet<Name>, Refusal> {
    let mut missing = HashSet::new();
    for definition in &operation.variable_definitions {
        let name = &definition.node.name.node;
        let given = variables.get(name);
        if definition.node.default_value.is_none() && given.is_none() {
            missing.insert(name.clone());
        }
        let is_null = given == Some(&ConstValue::Null);
        if !definition.node.var_type.node.nullable && (missing.contains(name) || is_null) {
            let message = format!("The variable ${name} is required.");
            return Err(Refusal { message, at: Some(definition.pos) });
        }
    }
    Ok(missing)
}

fn in_selections(set: &mut SelectionSet, missing: &HashSet<Name>) {
    for selection in &mut set.items {
        match &mut selection.node {
            Selection::Field(field) => {
                in_arguments(&mut field.node.arguments, missing);
                in_directives(&mut field.node.directives, missing);
                in_selections(&mut field.node.selection_set.node, missing);
            }
            Selection::InlineFragment(fragment) => {
                in_directives(&mut fragment.node.directives, missing);
                in_selections(&mut fragment.node.selection_set.node, missing);
            }
            Selection::FragmentSpread(spread) => in_directives(&mut spread.node.directives, missing),
        }
    }
}

fn in_directives(directives: &mut [Positioned<Directive>], missing: &HashSet<Name>) {
    for directive in directives {
        in_arguments(&mut directive.node.arguments, missing);
    }
}

fn in_arguments(arguments: &mut Arguments, missing: &HashSet<Name>) {
    arguments.retain(|(_, value)| !is_missing(&value.node, missing));
    for (_, value) in arguments {
        in_value(&mut value.node, missing);
    }
}

fn in_value(value: &mut Value, missing: &HashSet<Name>) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !is_missing(value, missing));
            fields.values_mut().for_each(|value| in_value(value, missing));
        }
        Value::List(items) => {
            for item in items {
                // A list keeps its length.
                if is_missing(item, missing) {
                    *item = Value::Null;
                } else {
                    in_value(item, missing);
                }
            }
        }
        Value::Variable(_)
        | Value::Null
        | Value::Number(_)
        | Value::String(_)
        | Value::Boolean(_)
        | Value::Binary(_)
        | Value::Enum(_) => {}
    }
}

fn is_missing(value: &Value, missing: &HashSet<Name>) -> bool {
    matches!(value, Value::Variable(name) if missing.contains(name))
}
