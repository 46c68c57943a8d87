//! Checks the variables and the literals of a request as the GraphQL specification requires. This module implements
//! seven rules of the specification that async-graphql does not follow:
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
//!   some of these faults only when it executes the field, after earlier mutations of the request.
//! - A variable must have the type of each argument where it is used, also if the variable is missing and validation
//!   therefore does not see it.
//! - A variable of the type `[T!]!` may be used where `[T!]` is expected. A variable that may be null may be used where
//!   null is not allowed if that argument or input field has a default.

use std::collections::HashMap;
use std::convert::Infallible;

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{
    BaseType, Directive, ExecutableDocument, Selection, SelectionSet, VariableDefinition,
};
use async_graphql::registry::{MetaInputValue, MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Number, Positioned, ServerError, ServerResult, Variables};
use async_graphql_value::{ConstValue, Value};

use super::document_limits::selected_operation;
use super::{rewrite, time};

/// Names of unknown input fields are quoted in messages up to this length.
const MAX_QUOTED_NAME: usize = 64;

/// Lists in arguments are lists of enum values, so longer lists repeat values. async-graphql copies a list each time
/// that a field uses it.
const MAX_LIST_ITEMS: usize = 100;

/// The variables of a request that affect how its document is executed.
#[derive(Default)]
pub struct Checked {
    /// The missing variables that may be null and have no default.
    pub missing: Vec<Name>,
    /// True if a variable is null.
    pub has_null: bool,
    /// True if a variable that has a default is null.
    pub replaces_default: bool,
}

/// Variables at positions where async-graphql rejects a type that the specification allows.
#[derive(Default)]
pub struct Uses {
    /// Variables at positions of a list type that allows null. async-graphql would reject the type `[T!]!` there.
    as_nullable_list: Vec<Name>,
    /// Variables at positions that do not allow null and have a default. async-graphql would reject a type that allows
    /// null there.
    with_default: Vec<Name>,
}

impl Uses {
    /// Finds the uses in the arguments of a normalised document.
    pub fn of(document: &ExecutableDocument, types: &Registry) -> Self {
        let mut uses = Self::default();
        for (_, Positioned { node: operation, .. }) in document.operations.iter() {
            let root = rewrite::root_type(operation.ty);
            let add = &mut |value: &Positioned<Value>, argument: &MetaInputValue| {
                uses.add(&value.node, &argument.ty, argument.default_value.is_some(), types);
                Ok(())
            };
            // `add` never fails. The walk fails at an unknown argument, and then `check_literals` has rejected the
            // document.
            let _ = for_each_argument(&operation.selection_set.node, root, types, add);
        }
        uses
    }

    fn add(&mut self, value: &Value, type_name: &str, has_default: bool, types: &Registry) {
        match (MetaTypeName::create(type_name), value) {
            (MetaTypeName::List(_), Value::Variable(name)) => self.as_nullable_list.push(name.clone()),
            (MetaTypeName::NonNull(_), Value::Variable(name)) if has_default => self.with_default.push(name.clone()),
            (MetaTypeName::NonNull(inner), _) => self.add(value, inner, false, types),
            (MetaTypeName::Named(name), Value::Object(values)) => {
                let Some(MetaType::InputObject { input_fields, .. }) = types.types.get(name) else { return };
                for (name, value) in values {
                    if let Some(field) = input_fields.get(name.as_str()) {
                        self.add(value, &field.ty, field.default_value.is_some(), types);
                    }
                }
            }
            (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => {}
        }
    }

    /// Changes the types of these variables to types that async-graphql accepts. [`check`] has checked the values
    /// against the original types.
    pub fn adapt_types(&self, document: &mut ExecutableDocument) {
        let operations = rewrite::operations_mut(&mut document.operations);
        for definition in operations.into_iter().flat_map(|operation| &mut operation.node.variable_definitions) {
            let VariableDefinition { name, var_type, .. } = &mut definition.node;
            if self.as_nullable_list.contains(&name.node) && matches!(var_type.node.base, BaseType::List(_)) {
                var_type.node.nullable = true;
            } else if self.with_default.contains(&name.node) {
                var_type.node.nullable = false;
            }
        }
    }
}

/// Checks the variables of a request against their types. Adds the defaults of missing variables, and converts numbers
/// of the type `Int` that are written as `1.0` to integers.
pub fn check(
    document: &ExecutableDocument,
    operation_name: Option<&str>,
    uses: &Uses,
    variables: &mut Variables,
    types: &Registry,
) -> ServerResult<Checked> {
    let mut checked = Checked::default();
    let Some((_, operation)) = selected_operation(document, operation_name) else { return Ok(checked) };
    for definition in &operation.node.variable_definitions {
        let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
        if let (Some(default), None) = (default_value, variables.get(&name.node)) {
            variables.insert(name.node.clone(), default.node.clone());
        }
        let result = match variables.get_mut(&name.node) {
            Some(ConstValue::Null) if uses.with_default.contains(&name.node) => problem("must not be null."),
            Some(value) => {
                let is_null = *value == ConstValue::Null;
                checked.has_null |= is_null;
                checked.replaces_default |= is_null && default_value.is_some();
                check_value(value, &var_type.node.to_string(), types)
            }
            None if var_type.node.nullable => {
                checked.missing.push(name.node.clone());
                Ok(())
            }
            None => problem("required variable is missing."),
        };
        let error = |problem| ServerError::new(format!("${}{problem}", name.node), Some(definition.pos));
        result.map_err(error)?;
    }
    Ok(checked)
}

/// Checks the types of variables, the names of arguments, and the literals and variables in the arguments of fields.
/// Ignores unknown fields, which validation rejects. The document must be normalised.
pub fn check_literals(document: &ExecutableDocument, types: &Registry) -> ServerResult<()> {
    for (_, Positioned { node: operation, .. }) in document.operations.iter() {
        let mut variables = HashMap::new();
        for definition in &operation.variable_definitions {
            let type_name = definition.node.var_type.node.to_string();
            let name = MetaTypeName::concrete_typename(&type_name);
            if !types.types.get(name).is_some_and(MetaType::is_input) {
                return Err(ServerError::new(format!("Unknown input type \"{name}\"."), Some(definition.pos)));
            }
            variables.insert(&definition.node.name.node, type_name);
        }
        let check = &mut |value: &Positioned<Value>, argument: &MetaInputValue| {
            let error = |problem| ServerError::new(format!("{}{problem}", argument.name), Some(value.pos));
            check_literal(&value.node, &argument.ty, types).map_err(error)?;
            let error = |message| ServerError::new(message, Some(value.pos));
            check_type_of_variable(&value.node, &argument.ty, &variables).map_err(error)
        };
        for_each_argument(&operation.selection_set.node, rewrite::root_type(operation.ty), types, check)?;
    }
    Ok(())
}

/// Checks that a variable in an argument has the type of the argument. Types that differ only in whether they allow
/// null are accepted here. Validation checks them, but it does not see a variable that is missing in the request.
/// Ignores variables inside input objects, as validation does: clients use an `ID` for a `String` there.
fn check_type_of_variable(value: &Value, type_name: &str, variables: &HashMap<&Name, String>) -> Result<(), String> {
    let without_null = |type_name: &str| type_name.replace('!', "");
    match (MetaTypeName::create(type_name), value) {
        (_, Value::Variable(name)) => match variables.get(name) {
            Some(own) if without_null(own) != without_null(type_name) => {
                Err(format!("Variable \"{name}\" of type \"{own}\" used in position expecting type \"{type_name}\""))
            }
            // Validation rejects unknown variables.
            Some(_) | None => Ok(()),
        },
        (MetaTypeName::NonNull(inner), _) => check_type_of_variable(value, inner, variables),
        (MetaTypeName::List(item_type), Value::List(items)) => {
            items.iter().try_for_each(|item| check_type_of_variable(item, item_type, variables))
        }
        (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => Ok(()),
    }
}

/// Calls `visit` for each argument in the selections of an object type. Fails if `visit` fails, or if an argument is
/// unknown.
fn for_each_argument(
    set: &SelectionSet,
    object_type: &str,
    types: &Registry,
    visit: &mut impl FnMut(&Positioned<Value>, &MetaInputValue) -> ServerResult<()>,
) -> ServerResult<()> {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(Positioned { node: field, .. }) => {
                let meta = types.types.get(object_type).and_then(|object| object.field_by_name(&field.name.node));
                let Some(meta) = meta else { continue };
                for (name, value) in &field.arguments {
                    // An unknown argument would be removed unseen if it uses a missing variable.
                    let Some(argument) = meta.args.get(name.node.as_str()) else {
                        let similar = meta.args.keys().find(|known| is_similar(known, &name.node));
                        let tip = similar.map(|known| format!(" Did you mean `{known}`?")).unwrap_or_default();
                        let (argument, field) = (&name.node, &field.name.node);
                        let message = format!(
                            "Unknown argument \"{argument}\" on field \"{field}\" of type \"{object_type}\".{tip}"
                        );
                        return Err(ServerError::new(message, Some(name.pos)));
                    };
                    visit(value, argument)?;
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
        (MetaTypeName::Named(name), _) => match types.types.get(name) {
            Some(MetaType::Scalar { is_valid: Some(is_valid), .. }) if !is_valid(value) => match name {
                "DateTime" => problem(&format!("must be of type DateTime. {}", time::FORMAT)),
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
        let similar = fields.keys().find(|field| is_similar(field, &unknown));
        let suggestion = similar.map(|field| format!(" Did you mean `{field}`?")).unwrap_or_default();
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

/// Returns true if a name is probably a mistyped name of this field. The two names may differ by one edit per three
/// characters.
fn is_similar(field: &str, name: &str) -> bool {
    strsim::osa_distance(field, name) * 3 <= field.len()
}

fn names<V>(values: &IndexMap<String, V>) -> String {
    values.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Removes these variables, and the arguments and input fields that use them, from a normalised document.
pub fn remove(mut document: ExecutableDocument, missing: &[Name]) -> ExecutableDocument {
    for Positioned { node: operation, .. } in rewrite::operations_mut(&mut document.operations) {
        operation.variable_definitions.retain(|definition| !missing.contains(&definition.node.name.node));
        remove_from_directives(&mut operation.directives, missing);
        remove_from_selections(&mut operation.selection_set.node, missing);
    }
    document
}

fn remove_from_selections(set: &mut SelectionSet, missing: &[Name]) {
    for selection in &mut set.items {
        remove_from_directives(selection.node.directives_mut(), missing);
        match &mut selection.node {
            Selection::Field(Positioned { node: field, .. }) => {
                remove_from_arguments(&mut field.arguments, missing);
                remove_from_selections(&mut field.selection_set.node, missing);
            }
            Selection::InlineFragment(inline) => remove_from_selections(&mut inline.node.selection_set.node, missing),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn remove_from_directives(directives: &mut [Positioned<Directive>], missing: &[Name]) {
    for directive in directives {
        remove_from_arguments(&mut directive.node.arguments, missing);
    }
}

fn remove_from_arguments(arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>, missing: &[Name]) {
    arguments.retain_mut(|(_, value)| retain(&mut value.node, missing));
}

/// Inside a value, removes each input field whose variable is missing, and sets each list item whose variable is
/// missing to null. Returns false if the value itself is a missing variable.
fn retain(value: &mut Value, missing: &[Name]) -> bool {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| retain(field, missing));
    } else if let Value::List(items) = value {
        for item in items {
            if !retain(item, missing) {
                // In a list, the specification requires null in place of a missing variable.
                *item = Value::Null;
            }
        }
    }
    !matches!(value, Value::Variable(name) if missing.contains(name))
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
