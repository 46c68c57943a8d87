//! Variables as the specification has them, where async-graphql differs: one that is required and missing is an error of
//! the request, before anything of it is done; one that may be missing, and is, leaves out what it stands for, and is not
//! null. In a patch the difference is a value that is kept, and a value that is removed.

use std::sync::LazyLock;

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Selection, SelectionSet, VariableDefinition,
};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql::{Name, OutputType, Positioned, Variables};
use async_graphql_value::{ConstValue, Value};

use super::document_limits::Refusal;
use super::{Mutation, Query};

type Arguments = Vec<(Positioned<Name>, Positioned<Value>)>;

/// Judges the variables of a request, and answers which of them are missing, though they may be.
pub fn check(
    document: &ExecutableDocument,
    operation_name: Option<&str>,
    given: &Variables,
) -> Result<Vec<Name>, Refusal> {
    let mut operations = document.operations.iter();
    let selected = match operation_name {
        Some(wanted) => operations.find(|(name, _)| name.is_some_and(|name| name == wanted)),
        // More than one, and none named, is for the execution to refuse.
        None => operations.next(),
    };
    let Some((_, operation)) = selected else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    for definition in &operation.node.variable_definitions {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        let refuse = |message| Err(Refusal { message, at: Some(definition.pos) });
        match given.get(&name.node) {
            None | Some(ConstValue::Null) if !var_type.node.nullable && default_value.is_none() => {
                return refuse(format!("The variable ${} is required.", name.node));
            }
            None if default_value.is_none() => missing.push(name.node.clone()),
            None => {}
            Some(value) => {
                if let Some(fault) = fault(&var_type.node.to_string(), value) {
                    return refuse(format!("The variable ${}{fault}.", name.node));
                }
            }
        }
    }
    Ok(missing)
}

/// The document without the variables that are missing.
pub fn without(mut document: ExecutableDocument, missing: &[Name]) -> ExecutableDocument {
    let operations = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![&mut operation.node],
        DocumentOperations::Multiple(operations) => {
            operations.values_mut().map(|operation| &mut operation.node).collect()
        }
    };
    for operation in operations {
        operation.variable_definitions.retain(|definition| !missing.contains(&definition.node.name.node));
        in_directives(&mut operation.directives, missing);
        in_selections(&mut operation.selection_set.node, missing);
    }
    for fragment in document.fragments.values_mut() {
        in_directives(&mut fragment.node.directives, missing);
        in_selections(&mut fragment.node.selection_set.node, missing);
    }
    document
}

/// The types that variables can have.
static TYPES: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    Query::create_type_info(&mut registry);
    Mutation::create_type_info(&mut registry);
    registry
});

/// What keeps a value from being one of a type, as the end of a sentence: where, and why. A type that no variable can have
/// is for the validation to refuse.
fn fault(type_name: &str, value: &ConstValue) -> Option<String> {
    let fault_at = |place: String, type_name: &str, value| Some(place + &fault(type_name, value)?);
    let none_of = |type_name: &str| Some(format!(" is not of the type {type_name}"));
    match (MetaTypeName::create(type_name), value) {
        (MetaTypeName::NonNull(_), ConstValue::Null) => Some(" must not be null".to_owned()),
        (MetaTypeName::NonNull(inner), _) => fault(inner, value),
        (MetaTypeName::List(_) | MetaTypeName::Named(_), ConstValue::Null) => None,
        (MetaTypeName::List(inner), ConstValue::List(items)) => {
            (0..).zip(items).find_map(|(number, item): (usize, _)| fault_at(format!("[{number}]"), inner, item))
        }
        (MetaTypeName::List(inner), _) => fault(inner, value),
        (MetaTypeName::Named(name), _) => match TYPES.types.get(name)? {
            MetaType::Scalar { is_valid: Some(is_valid), .. } if !is_valid(value) => none_of(name),
            MetaType::Enum { enum_values, .. } => match value {
                ConstValue::String(value) if enum_values.contains_key(value) => None,
                ConstValue::Enum(value) if enum_values.contains_key(value.as_str()) => None,
                ConstValue::String(_) | ConstValue::Enum(_) => Some(format!(" is not a value of {name}")),
                ConstValue::Null
                | ConstValue::Number(_)
                | ConstValue::Boolean(_)
                | ConstValue::Binary(_)
                | ConstValue::List(_)
                | ConstValue::Object(_) => none_of(name),
            },
            MetaType::InputObject { input_fields, oneof, .. } => {
                let ConstValue::Object(values) = value else { return none_of(name) };
                if *oneof && (values.len() != 1 || values.values().any(|value| *value == ConstValue::Null)) {
                    return Some(format!(" must have exactly one of the fields of {name}"));
                }
                if values.keys().any(|key| !input_fields.contains_key(key.as_str())) {
                    return Some(format!(" has a field that {name} does not have"));
                }
                input_fields.iter().find_map(|(name, field)| match values.get(name.as_str()) {
                    Some(value) => fault_at(format!(".{name}"), &field.ty, value),
                    None if field.ty.ends_with('!') && field.default_value.is_none() => {
                        Some(format!(".{name} is required"))
                    }
                    None => None,
                })
            }
            MetaType::Scalar { .. } | MetaType::Object { .. } | MetaType::Interface { .. } | MetaType::Union { .. } => {
                None
            }
        },
    }
}

fn in_selections(set: &mut SelectionSet, missing: &[Name]) {
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

fn in_directives(directives: &mut [Positioned<Directive>], missing: &[Name]) {
    for directive in directives {
        in_arguments(&mut directive.node.arguments, missing);
    }
}

fn in_arguments(arguments: &mut Arguments, missing: &[Name]) {
    arguments.retain(|(_, value)| !is_missing(&value.node, missing));
    for (_, value) in arguments {
        in_value(&mut value.node, missing);
    }
}

fn in_value(value: &mut Value, missing: &[Name]) {
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

fn is_missing(value: &Value, missing: &[Name]) -> bool {
    matches!(value, Value::Variable(name) if missing.contains(name))
}
