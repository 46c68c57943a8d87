//! Checks the variables and the literals of a request as the GraphQL specification requires. This module implements
//! six rules of the specification that async-graphql does not follow:
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
//! - If a literal has the wrong type, or an `Int` has more than 32 bits, nothing is executed. async-graphql would find
//!   some of these errors only when it executes the field, after earlier mutations of the request.
//! - A variable must have a type that is allowed where it is used. async-graphql has this rule, but does not run it.
//!   A variable that may be null may be used where null is not allowed if the variable, the argument or the input field
//!   has a default; the request then fails if the variable is null. Two exceptions are for the convenience of clients:
//!   in input objects, the types `ID` and `String` are interchangeable; and a variable that may be null may be used in
//!   an input object that needs exactly one field. If the variable is missing, its field counts as omitted.

use std::collections::HashMap;
use std::convert::Infallible;

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{Selection, SelectionSet, VariableDefinition};
use async_graphql::registry::{MetaInputValue, MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Number, Positioned, ServerError, ServerResult, Variables};
use async_graphql_value::{ConstValue, Value};

use super::operation::selected_operation;
use super::rewrite::{Normalised, root_type};
use super::time;

/// Names of unknown input fields are quoted in messages up to this length.
const MAX_QUOTED_NAME: usize = 64;

/// Lists in arguments are lists of enum values, so longer lists repeat values. async-graphql copies a list each time
/// that a field uses it.
const MAX_LIST_ITEMS: usize = 100;

/// The longest string that a field accepts is the URL of a webhook, with 2,000 characters. async-graphql copies a
/// string each time that a field uses it, so one string could be copied thousands of times.
const MAX_STRING_BYTES: usize = 8_000;

/// Variables that must not be null if the request has them, although their type may allow null: they are used where
/// null is not allowed, or in an input object that needs exactly one field.
#[derive(Default)]
pub struct RequiredVariables(Vec<Name>);

impl RequiredVariables {
    /// Finds these variables in the arguments of a document.
    pub fn of(document: &Normalised, types: &Registry) -> Self {
        let mut required = Self::default();
        for (_, Positioned { node: operation, .. }) in document.operations().iter() {
            let root = root_type(operation.ty);
            let add = &mut |value: &Positioned<Value>, location: Location<'_>| {
                required.add(&value.node, location.type_name, types);
                Ok(())
            };
            // `add` never fails. The walk fails at an unknown argument, and then `check_literals` has rejected the
            // document.
            let _ = for_each_argument(&operation.selection_set.node, root, types, add);
        }
        required
    }

    fn add(&mut self, value: &Value, type_name: &str, types: &Registry) {
        match (MetaTypeName::create(type_name), value) {
            (MetaTypeName::NonNull(_), Value::Variable(name)) => self.0.push(name.clone()),
            (MetaTypeName::NonNull(inner), _) => self.add(value, inner, types),
            (MetaTypeName::List(item_type), Value::List(items)) => {
                items.iter().for_each(|item| self.add(item, item_type, types));
            }
            (MetaTypeName::List(item_type), Value::Object(_)) => self.add(value, item_type, types),
            (MetaTypeName::Named(name), Value::Object(values)) => {
                let Some(MetaType::InputObject { input_fields, oneof, .. }) = types.types.get(name) else { return };
                for (name, value) in values {
                    match (input_fields.get(name.as_str()), value) {
                        (Some(_), Value::Variable(name)) if *oneof => self.0.push(name.clone()),
                        (Some(field), _) => self.add(value, &field.ty, types),
                        (None, _) => {}
                    }
                }
            }
            (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => {}
        }
    }
}

/// Checks the variables of a request against their types, and that no [required variable](RequiredVariables) is null.
/// Adds the defaults of missing variables. Converts numbers of the type `Int` that are written as `1.0` to integers,
/// and numbers of the type `ID` to strings.
///
/// Returns the missing variables that may be null and have no default.
pub fn check(
    document: &Normalised,
    operation_name: Option<&str>,
    required: &RequiredVariables,
    variables: &mut Variables,
    types: &Registry,
) -> ServerResult<Vec<Name>> {
    let mut missing = Vec::new();
    let Some((_, operation)) = selected_operation(document, operation_name) else { return Ok(missing) };
    for definition in &operation.node.variable_definitions {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        if let (Some(default), None) = (default_value, variables.get(&name.node)) {
            variables.insert(name.node.clone(), default.node.clone());
        }
        let result = match variables.get_mut(&name.node) {
            Some(ConstValue::Null) if required.0.contains(&name.node) => problem("must not be null."),
            Some(value) => check_value(value, &var_type.node.to_string(), types),
            None if var_type.node.nullable => {
                missing.push(name.node.clone());
                Ok(())
            }
            None => problem("required variable is missing."),
        };
        let error = |problem| ServerError::new(format!("${}{problem}", name.node), Some(definition.pos));
        result.map_err(error)?;
    }
    Ok(missing)
}

/// Checks the types of variables, the names of arguments, and the literals and variables in arguments. Ignores unknown
/// fields, which validation rejects.
pub fn check_literals(document: &Normalised, types: &Registry) -> ServerResult<()> {
    for (_, Positioned { node: operation, .. }) in document.operations().iter() {
        let mut variables = HashMap::new();
        for definition in &operation.variable_definitions {
            let type_name = definition.node.var_type.node.to_string();
            let name = MetaTypeName::concrete_typename(&type_name);
            if !types.types.get(name).is_some_and(MetaType::is_input) {
                return Err(ServerError::new(format!("Unknown input type \"{name}\"."), Some(definition.pos)));
            }
            let default = definition.node.default_value.as_ref();
            let has_default = default.is_some_and(|default| default.node != ConstValue::Null);
            variables.insert(&definition.node.name.node, VariableType { type_name, has_default });
        }
        let check = &mut |value: &Positioned<Value>, location: Location<'_>| {
            let error = |problem| ServerError::new(format!("{}{problem}", location.name), Some(value.pos));
            check_literal(&value.node, location.type_name, types).map_err(error)?;
            let error = |message| ServerError::new(message, Some(value.pos));
            check_types_of_variables(&value.node, location, &variables, types).map_err(error)
        };
        for_each_argument(&operation.selection_set.node, root_type(operation.ty), types, check)?;
    }
    Ok(())
}

/// An argument or an input field.
#[derive(Clone, Copy)]
struct Location<'t> {
    name: &'t str,
    type_name: &'t str,
    has_default: bool,
    is_in_object: bool,
}

impl<'t> Location<'t> {
    fn of(value: &'t MetaInputValue, is_in_object: bool) -> Self {
        Self { name: &value.name, type_name: &value.ty, has_default: value.default_value.is_some(), is_in_object }
    }
}

struct VariableType {
    type_name: String,
    /// True if the variable has a default other than null.
    has_default: bool,
}

/// Checks that the variables in a value have types that are allowed there.
fn check_types_of_variables(
    value: &Value,
    location: Location<'_>,
    variables: &HashMap<&Name, VariableType>,
    types: &Registry,
) -> Result<(), String> {
    let inner = |type_name| Location { type_name, has_default: false, ..location };
    match (MetaTypeName::create(location.type_name), value) {
        (_, Value::Variable(name)) => match variables.get(name) {
            Some(variable) if !is_allowed(variable, location) => Err(format!(
                "Variable \"{name}\" of type \"{}\" used in position expecting type \"{}\"",
                variable.type_name, location.type_name
            )),
            // Validation rejects unknown variables.
            Some(_) | None => Ok(()),
        },
        (MetaTypeName::NonNull(inner_type), _) => check_types_of_variables(value, inner(inner_type), variables, types),
        (MetaTypeName::List(item_type), Value::List(items)) => {
            items.iter().try_for_each(|item| check_types_of_variables(item, inner(item_type), variables, types))
        }
        (MetaTypeName::List(item_type), Value::Object(_)) => {
            check_types_of_variables(value, inner(item_type), variables, types)
        }
        (MetaTypeName::Named(name), Value::Object(values)) => {
            let Some(MetaType::InputObject { input_fields, .. }) = types.types.get(name) else { return Ok(()) };
            values.iter().try_for_each(|(name, value)| match input_fields.get(name.as_str()) {
                Some(field) => check_types_of_variables(value, Location::of(field, true), variables, types),
                None => Ok(()),
            })
        }
        (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => Ok(()),
    }
}

/// Returns true if the variable is allowed in this position: `IsVariableUsageAllowed` of the specification, with the
/// exceptions of this module.
fn is_allowed(variable: &VariableType, location: Location<'_>) -> bool {
    let allows_null = !variable.type_name.ends_with('!');
    let type_name = match MetaTypeName::create(location.type_name) {
        MetaTypeName::NonNull(inner) if allows_null && (variable.has_default || location.has_default) => inner,
        MetaTypeName::NonNull(_) | MetaTypeName::List(_) | MetaTypeName::Named(_) => location.type_name,
    };
    is_subtype(&variable.type_name, type_name, location.is_in_object)
}

fn is_subtype(own: &str, expected: &str, is_in_object: bool) -> bool {
    match (MetaTypeName::create(own), MetaTypeName::create(expected)) {
        (MetaTypeName::NonNull(own), MetaTypeName::NonNull(expected))
        | (MetaTypeName::List(own), MetaTypeName::List(expected)) => is_subtype(own, expected, is_in_object),
        (MetaTypeName::NonNull(own), MetaTypeName::List(_) | MetaTypeName::Named(_)) => {
            is_subtype(own, expected, is_in_object)
        }
        (MetaTypeName::Named(own), MetaTypeName::Named(expected)) => {
            let is_string = |name| ["ID", "String"].contains(&name);
            own == expected || is_in_object && is_string(own) && is_string(expected)
        }
        (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => false,
    }
}

/// Calls `visit` for each argument in the selections of an object type, including the conditions of `@include` and
/// `@skip`. Fails if `visit` fails, or if a field or an argument is unknown. In unknown types and in introspection,
/// visits only the conditions and the name in `__type`.
fn for_each_argument(
    set: &SelectionSet,
    object_type: &str,
    types: &Registry,
    visit: &mut impl FnMut(&Positioned<Value>, Location<'_>) -> ServerResult<()>,
) -> ServerResult<()> {
    const CONDITION: Location<'_> =
        Location { name: "if", type_name: "Boolean!", has_default: false, is_in_object: false };
    const TYPE: Location<'_> = Location { name: "name", type_name: "String!", ..CONDITION };
    for selection in &set.items {
        for Positioned { node: directive, .. } in selection.node.directives() {
            for (name, value) in &directive.arguments {
                if name.node != CONDITION.name {
                    let (name, directive) = (&name.node, &directive.name.node);
                    let message = format!("Unknown argument \"{name}\" on directive \"{directive}\".");
                    return Err(ServerError::new(message, Some(value.pos)));
                }
                visit(value, CONDITION)?;
            }
        }
        match &selection.node {
            Selection::Field(Positioned { node: field, pos }) => {
                let fields = types.types.get(object_type).and_then(MetaType::fields);
                let Some(meta) = fields.and_then(|fields| fields.get(field.name.node.as_str())) else {
                    // async-graphql would compare each unknown name with all fields of the type.
                    if let Some(fields) = fields
                        && !field.name.node.starts_with("__")
                    {
                        let name = &field.name.node;
                        let suggestion = suggestion(fields.keys(), name);
                        let message = format!("Unknown field \"{name}\" on type \"{object_type}\".{suggestion}");
                        return Err(ServerError::new(message, Some(*pos)));
                    }
                    if let Some(name) = field.get_argument(TYPE.name).filter(|_| field.name.node == "__type") {
                        visit(name, TYPE)?;
                    }
                    for_each_argument(&field.selection_set.node, "", types, visit)?;
                    continue;
                };
                for (name, value) in &field.arguments {
                    // An unknown argument would be removed unseen if it uses a missing variable.
                    let Some(argument) = meta.args.get(name.node.as_str()) else {
                        let suggestion = suggestion(meta.args.keys(), &name.node);
                        let (argument, field) = (&name.node, &field.name.node);
                        let message = format!(
                            "Unknown argument \"{argument}\" on field \"{field}\" of type \"{object_type}\".{suggestion}"
                        );
                        return Err(ServerError::new(message, Some(name.pos)));
                    };
                    visit(value, Location::of(argument, false))?;
                }
                let inner = MetaTypeName::concrete_typename(&meta.ty);
                for_each_argument(&field.selection_set.node, inner, types, visit)?;
            }
            Selection::InlineFragment(Positioned { node: inline, .. }) => {
                let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.as_str());
                for_each_argument(&inline.selection_set.node, condition.unwrap_or(object_type), types, visit)?;
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

fn check_literal(value: &Value, type_name: &str, types: &Registry) -> Result<(), Problem> {
    let in_place_of_variable = |_| Ok::<_, Infallible>(ConstValue::Binary(Default::default()));
    let Ok(mut value) = value.clone().into_const_with(in_place_of_variable);
    check_value(&mut value, type_name, types)
}

/// A type error in the value of a variable: the path from the variable to the value at fault, and the message. For
/// example `.data.email: must not be null.`
type Problem = String;

fn problem(message: &str) -> Result<(), Problem> {
    Err(format!(": {message}"))
}

/// Checks a value against a type such as `[CustomerField!]`. Accepts any value, except a forbidden null, if the type is
/// not an input type, because validation rejects such a variable. Accepts binary values, which only [`check_literal`]
/// makes.
fn check_value(value: &mut ConstValue, type_name: &str, types: &Registry) -> Result<(), Problem> {
    match (MetaTypeName::create(type_name), &mut *value) {
        (_, ConstValue::Binary(_)) => Ok(()),
        (MetaTypeName::NonNull(_), ConstValue::Null) => problem("must not be null."),
        (MetaTypeName::List(_) | MetaTypeName::Named(_), ConstValue::Null) => Ok(()),
        (MetaTypeName::List(_), ConstValue::List(items)) if items.len() > MAX_LIST_ITEMS => {
            problem(&format!("must have at most {MAX_LIST_ITEMS} items."))
        }
        (MetaTypeName::List(item_type), ConstValue::List(items)) => {
            items.iter_mut().enumerate().try_for_each(|(index, item)| {
                check_value(item, item_type, types).map_err(|problem| format!("[{index}]{problem}"))
            })
        }
        // For a list type, a single value stands for a list of one item.
        (MetaTypeName::NonNull(inner) | MetaTypeName::List(inner), _) => check_value(value, inner, types),
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
                let is_value = matches!(value, ConstValue::String(value) if enum_values.contains_key(value))
                    || matches!(value, ConstValue::Enum(value) if enum_values.contains_key(value.as_str()));
                if is_value { Ok(()) } else { problem(&format!("must be one of {}.", names(enum_values))) }
            }
            Some(MetaType::InputObject { input_fields, oneof, .. }) => {
                let ConstValue::Object(values) = value else { return problem(&format!("must be of type {name}.")) };
                check_input_object(values, name, input_fields, *oneof, types)
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
            Some(value) => check_value(value, &field.ty, types),
            None if field.ty.ends_with('!') && field.default_value.is_none() => problem("required field is missing."),
            None => Ok(()),
        };
        checked.map_err(|problem| format!(".{name}{problem}"))
    })
}

/// Returns a sentence that names the known name that was probably meant, or nothing.
fn suggestion<'k>(mut known: impl Iterator<Item = &'k String>, name: &str) -> String {
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
    use super::is_similar;

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
