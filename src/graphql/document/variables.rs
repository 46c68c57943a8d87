//! Checks the variables of a request as the GraphQL specification requires. This module implements four rules of the
//! specification that async-graphql does not follow:
//!
//! - If a required variable is missing, or a value has the wrong type, the request fails and nothing is executed. The
//!   message names the field and contains no value, for example "$input.data.emial: unknown field of CustomerDataInput.
//!   Did you mean `email`?"
//! - If an optional variable without a default is missing, the arguments and input fields that use this variable are
//!   removed. async-graphql would pass null instead. For example, null clears a field of a customer, but an omitted
//!   field stays unchanged.
//! - If a variable with a default is missing, the default is its value everywhere. async-graphql would ignore the
//!   default in `@include` and `@skip`.
//! - An integral number is an `Int`, even if the number is written as `1.0`, because many JSON encoders know only
//!   floating-point numbers.

use std::collections::HashSet;

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{OperationDefinition, VariableDefinition};
use async_graphql::registry::{MetaInputValue, MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Number, ServerError, ServerResult, Variables};
use async_graphql_value::ConstValue;

use crate::graphql::time;

/// Names of unknown input fields are quoted in messages up to this length.
const MAX_QUOTED_NAME: usize = 64;

/// Lists in arguments are lists of enum values, so longer lists repeat values. async-graphql copies a list each time
/// that a field uses it.
const MAX_LIST_ITEMS: usize = 100;

/// The longest string that a field accepts is the URL of a webhook, with 2,000 characters. async-graphql copies a
/// string each time that a field uses it, so one string could be copied thousands of times.
const MAX_STRING_BYTES: usize = 8_000;

/// Checks the variables of a request against their types, and that no variable in `required` is null. Adds the defaults
/// of missing variables. Converts numbers of the type `Int` that are written as `1.0` to integers, and numbers of the
/// type `ID` to strings. Removes the variables that the operation does not declare.
///
/// Returns the missing variables that may be null and have no default.
pub fn check(
    operation: &OperationDefinition,
    required: &HashSet<Name>,
    variables: &mut Variables,
    types: &Registry,
) -> ServerResult<Vec<Name>> {
    let (mut missing, mut declared) = (Vec::new(), 0);
    for definition in &operation.variable_definitions {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        if let (Some(default), None) = (default_value, variables.get(&name.node)) {
            variables.insert(name.node.clone(), default.node.clone());
        }
        let value = variables.get_mut(&name.node);
        declared += usize::from(value.is_some());
        let result = match value {
            Some(ConstValue::Null) if required.contains(&name.node) => problem("must not be null."),
            // Defaults are already checked (`arguments`), but their numbers are converted here.
            Some(value) => check_value(value, &var_type.node.to_string(), Source::Variables, types),
            None if var_type.node.nullable => {
                missing.push(name.node.clone());
                Ok(())
            }
            None => problem("required variable is missing."),
        };
        let error = |problem| ServerError::new(format!("${}{problem}", name.node), Some(definition.pos));
        result.map_err(error)?;
    }
    if declared < variables.len() {
        remove_undeclared(variables, operation);
    }
    Ok(missing)
}

/// Removes the variables that the operation does not declare. The execution does not use them, and would keep several
/// megabytes in memory for 64 KiB of JSON.
fn remove_undeclared(variables: &mut Variables, operation: &OperationDefinition) {
    let names = operation.variable_definitions.iter().map(|definition| &definition.node.name.node);
    **variables = names.filter_map(|name| variables.remove_entry(name)).collect();
}

/// The source of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The document, in which an enum value has no quotation marks.
    Document,
    /// The variables of the request: JSON, in which an enum value is a string.
    Variables,
}

/// A type error in the value of a variable or an argument: the path from the variable or the argument to the value at
/// fault, and the message. For example `.data.email: must not be null.`
pub type Problem = String;

fn problem(message: &str) -> Result<(), Problem> {
    Err(format!(": {message}"))
}

/// Checks a value against a type such as `[CustomerField!]`. Accepts any value, except a forbidden null, if the type is
/// not an input type, because validation rejects such a variable. Accepts binary values, which stand for variables: no
/// other value is binary.
pub fn check_value(value: &mut ConstValue, type_name: &str, source: Source, types: &Registry) -> Result<(), Problem> {
    match (MetaTypeName::create(type_name), &mut *value) {
        (_, ConstValue::Binary(_)) => Ok(()),
        (MetaTypeName::NonNull(_), ConstValue::Null) => problem("must not be null."),
        (MetaTypeName::List(_) | MetaTypeName::Named(_), ConstValue::Null) => Ok(()),
        (MetaTypeName::List(_), ConstValue::List(items)) if items.len() > MAX_LIST_ITEMS => {
            problem(&format!("must have at most {MAX_LIST_ITEMS} items."))
        }
        (MetaTypeName::List(item_type), ConstValue::List(items)) => {
            items.iter_mut().enumerate().try_for_each(|(index, item)| {
                check_value(item, item_type, source, types).map_err(|problem| format!("[{index}]{problem}"))
            })
        }
        // For a list type, a single value stands for a list of one item.
        (MetaTypeName::NonNull(inner) | MetaTypeName::List(inner), _) => check_value(value, inner, source, types),
        (MetaTypeName::Named("Int"), ConstValue::Number(number)) if let Some(integer) = integral(number) => {
            *number = integer.into();
            let is_int = i32::try_from(integer).is_ok();
            if is_int { Ok(()) } else { problem("must be a 32-bit integer (Int).") }
        }
        (MetaTypeName::Named("ID"), ConstValue::Number(number)) if number.is_i64() || number.is_u64() => {
            *value = ConstValue::String(number.to_string());
            Ok(())
        }
        (MetaTypeName::Named(_), ConstValue::String(text)) if text.len() > MAX_STRING_BYTES => {
            problem(&format!("must have at most {MAX_STRING_BYTES} bytes."))
        }
        (MetaTypeName::Named(name), _) => match types.types.get(name) {
            Some(MetaType::Scalar { is_valid: Some(is_valid), .. }) if !is_valid(value) => match name {
                "DateTime" => problem(&format!("must be of type DateTime. {}", time::FORMAT_HINT)),
                _ => problem(&format!("must be of type {name}.")),
            },
            Some(MetaType::Enum { enum_values, .. }) => {
                let is_quoted = source == Source::Document && matches!(value, ConstValue::String(_));
                let is_value = matches!(value, ConstValue::Enum(value) if enum_values.contains_key(value.as_str()))
                    || matches!(value, ConstValue::String(value) if !is_quoted && enum_values.contains_key(value));
                let hint = if is_quoted { ", without quotation marks" } else { "" };
                if is_value { Ok(()) } else { problem(&format!("must be one of {}{hint}.", names(enum_values))) }
            }
            Some(MetaType::InputObject { input_fields, oneof, .. }) => {
                let ConstValue::Object(values) = value else { return problem(&format!("must be of type {name}.")) };
                check_input_object(values, name, input_fields, *oneof, source, types)
            }
            _ => Ok(()),
        },
    }
}

/// Returns the value of an integer, or of a floating-point number without a fraction. Returns `None` for other numbers,
/// and for floating-point numbers above 2^53, which may have lost digits.
fn integral(number: &Number) -> Option<i64> {
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    let is_exact = |float: &f64| float.fract() == 0.0 && float.abs() <= MAX_EXACT;
    number.as_i64().or_else(|| number.as_f64().filter(is_exact).map(|float| float as i64))
}

fn check_input_object(
    values: &mut IndexMap<Name, ConstValue>,
    type_name: &str,
    fields: &IndexMap<String, MetaInputValue>,
    is_one_of: bool,
    source: Source,
    types: &Registry,
) -> Result<(), Problem> {
    if let Some(unknown) = values.keys().find(|name| !fields.contains_key(name.as_str())) {
        let unknown: String = unknown.chars().take(MAX_QUOTED_NAME).collect();
        let suggestion = suggestion(fields.keys(), &unknown);
        return Err(format!(".{unknown}: unknown field of {type_name}.{suggestion}"));
    }
    // Several fields with variables are accepted here, because a missing variable is removed together with its field.
    let has_variable = values.values().any(|value| matches!(value, ConstValue::Binary(_)));
    if is_one_of && !has_variable && (values.len() != 1 || values.values().any(|value| *value == ConstValue::Null)) {
        return problem(&format!("must have exactly one of the fields {}.", names(fields)));
    }
    fields.iter().try_for_each(|(name, field)| {
        let checked = match values.get_mut(name.as_str()) {
            Some(value) => check_value(value, &field.ty, source, types),
            None if field.ty.ends_with('!') && field.default_value.is_none() => problem("required field is missing."),
            None => Ok(()),
        };
        checked.map_err(|problem| format!(".{name}{problem}"))
    })
}

/// Returns a sentence that names the known name that was probably meant, or nothing.
pub fn suggestion<'k>(mut known: impl Iterator<Item = &'k String>, name: &str) -> String {
    known.find(|known| is_similar(known, name)).map(|known| format!(" Did you mean `{known}`?")).unwrap_or_default()
}

/// Returns true if a name is probably a mistyped name of this field. The two names may differ by one edit per three
/// characters.
fn is_similar(field: &str, name: &str) -> bool {
    strsim::osa_distance(field, name) * 3 <= field.len()
}

fn names<V>(values: &IndexMap<String, V>) -> String {
    values.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;
    use crate::graphql::document::normalise::normalise;

    #[test]
    fn variables_that_the_operation_does_not_declare_are_removed() {
        let types = Registry::default();
        for (text, expected) in [
            ("query ($a: A, $b: B = 2, $d: D) { e }", json!({ "a": 1, "b": 2 })),
            ("query ($a: A) { e }", json!({ "a": 1 })),
            ("query ($a: A, $c: C) { e }", json!({ "a": 1, "c": [[]] })),
            ("{ e }", json!({})),
        ] {
            let operations = normalise(parse_query(text).unwrap(), &types).unwrap();
            let mut variables = Variables::from_json(json!({ "a": 1, "c": [[]] }));
            check(operations[0].definition(), &HashSet::new(), &mut variables, &types).unwrap();
            assert_eq!(variables, Variables::from_json(expected), "{text}");
        }
    }

    #[test]
    fn a_typing_error_is_similar_and_another_word_is_not() {
        for (field, name) in [("email", "emial"), ("firstName", "firstname"), ("firstName", "first_name")] {
            assert!(is_similar(field, name), "{name}");
        }
        for (field, name) in [("id", "x"), ("email", "phone"), ("phone", "phoneNumber"), ("email", "")] {
            assert!(!is_similar(field, name), "{name}");
        }
    }
}
