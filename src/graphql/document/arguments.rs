//! Checks the arguments of fields and directives as the GraphQL specification requires. This module implements three
//! rules of the specification:
//!
//! - If a literal has the wrong type, for example if an enum value is in quotation marks, or if an `Int` has more than
//!   32 bits, nothing is executed. async-graphql would find some of these errors only when it executes the field, after
//!   earlier mutations of the request.
//! - A variable must have a type that is allowed where it is used. async-graphql has this rule, but does not run it. A
//!   variable that may be null may be used where null is not allowed if the variable, the argument or the input field
//!   has a default; the request then fails if the variable is null. Two exceptions are for the convenience of clients:
//!   in input objects, the types `ID` and `String` are interchangeable; and a variable that may be null may be used in
//!   an input object that needs exactly one field. If the variable is missing, its field counts as omitted.
//! - A field or an argument must be known. async-graphql would compare each unknown field with all fields of its type,
//!   and an unknown argument would be silently removed if it uses a missing variable.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{Directive, Field, OperationDefinition, Selection, SelectionSet};
use async_graphql::registry::{MetaField, MetaInputValue, MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Pos, Positioned, ServerError, ServerResult};
use async_graphql_value::{ConstValue, Value};

use super::normalise::root_type;
use super::variables::{Problem, Source, check_value, suggestion};

/// Checks the types and the defaults of variables, the names of fields and arguments, and the literals and variables in
/// arguments.
pub fn check_arguments(operation: &OperationDefinition, types: &Registry) -> ServerResult<()> {
    let mut variables = HashMap::new();
    for definition in &operation.variable_definitions {
        let type_name = definition.node.var_type.node.to_string();
        let name = MetaTypeName::concrete_typename(&type_name);
        if !types.types.get(name).is_some_and(MetaType::is_input) {
            return Err(ServerError::new(format!("Unknown input type \"{name}\"."), Some(definition.pos)));
        }
        let default = definition.node.default_value.as_ref();
        if let Some(default) = default {
            let error = |problem| {
                let name = &definition.node.name.node;
                ServerError::new(format!("${name}{problem}"), Some(default.pos))
            };
            check_value(&mut default.node.clone(), &type_name, Source::Document, types).map_err(error)?;
        }
        let has_default = default.is_some_and(|default| default.node != ConstValue::Null);
        variables.insert(&definition.node.name.node, VariableType { type_name, has_default });
    }
    let check = &mut |value: &Positioned<Value>, location: Location<'_>| {
        let error = |problem| ServerError::new(format!("{}{problem}", location.name), Some(value.pos));
        check_literal(&value.node, location.type_name, types).map_err(error)?;
        let error = |message| ServerError::new(message, Some(value.pos));
        check_types_of_variables(&value.node, location, &variables, types).map_err(error)
    };
    for_each_argument(&operation.selection_set.node, root_type(operation.ty), types, check)
}

/// Returns the variables that must not be null if the request has them, although their type may allow null: they are
/// used where null is not allowed, or in an input object that needs exactly one field.
pub fn required_variables(operation: &OperationDefinition, types: &Registry) -> HashSet<Name> {
    let mut required = HashSet::new();
    let add = &mut |value: &Positioned<Value>, location: Location<'_>| {
        add_required(&mut required, &value.node, location.type_name, types);
        Ok(())
    };
    // `add` never fails. The walk fails at an unknown field or argument, and then `check_arguments` has rejected the
    // operation.
    let _ = for_each_argument(&operation.selection_set.node, root_type(operation.ty), types, add);
    required
}

fn add_required(required: &mut HashSet<Name>, value: &Value, type_name: &str, types: &Registry) {
    match (MetaTypeName::create(type_name), value) {
        (MetaTypeName::NonNull(_), Value::Variable(name)) => {
            required.insert(name.clone());
        }
        (MetaTypeName::NonNull(inner), _) => add_required(required, value, inner, types),
        (MetaTypeName::List(item_type), Value::List(items)) => {
            items.iter().for_each(|item| add_required(required, item, item_type, types));
        }
        (MetaTypeName::List(item_type), Value::Object(_)) => add_required(required, value, item_type, types),
        (MetaTypeName::Named(name), Value::Object(values)) => {
            let Some(MetaType::InputObject { input_fields, oneof, .. }) = types.types.get(name) else { return };
            for (name, value) in values {
                match (input_fields.get(name.as_str()), value) {
                    (Some(_), Value::Variable(name)) if *oneof => {
                        required.insert(name.clone());
                    }
                    (Some(field), _) => add_required(required, value, &field.ty, types),
                    (None, _) => {}
                }
            }
        }
        (MetaTypeName::List(_) | MetaTypeName::Named(_), _) => {}
    }
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

/// The argument of `@include` and `@skip`.
const CONDITION: Location<'_> = Location { name: "if", type_name: "Boolean!", has_default: false, is_in_object: false };

/// The argument of `__type`.
const TYPE: Location<'_> = Location { name: "name", type_name: "String!", ..CONDITION };

/// Calls `visit` for each argument in the selections of an object type, including the conditions of `@include` and
/// `@skip`. Fails if `visit` fails, or if a field or an argument is unknown. In unknown types and in introspection,
/// visits only the conditions and the name in `__type`.
fn for_each_argument(
    set: &SelectionSet,
    object_type: &str,
    types: &Registry,
    visit: &mut impl FnMut(&Positioned<Value>, Location<'_>) -> ServerResult<()>,
) -> ServerResult<()> {
    for selection in &set.items {
        for directive in selection.node.directives() {
            for (name, value) in &directive.node.arguments {
                if name.node != CONDITION.name {
                    return Err(unknown_argument_of_directive(&name.node, &directive.node, value.pos));
                }
                visit(value, CONDITION)?;
            }
        }
        match &selection.node {
            Selection::Field(field) => for_each_argument_of_field(field, object_type, types, visit)?,
            Selection::InlineFragment(Positioned { node: inline, .. }) => {
                let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.as_str());
                for_each_argument(&inline.selection_set.node, condition.unwrap_or(object_type), types, visit)?;
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

/// Calls `visit` for each argument of a field of an object type and of the selections in this field.
fn for_each_argument_of_field(
    Positioned { node: field, pos }: &Positioned<Field>,
    object_type: &str,
    types: &Registry,
    visit: &mut impl FnMut(&Positioned<Value>, Location<'_>) -> ServerResult<()>,
) -> ServerResult<()> {
    let field_name = &field.name.node;
    let fields = types.types.get(object_type).and_then(MetaType::fields);
    let Some(meta) = fields.and_then(|fields| fields.get(field_name.as_str())) else {
        if let Some(fields) = fields
            && !field_name.starts_with("__")
        {
            return Err(unknown_field(field_name, object_type, fields, *pos));
        }
        if let Some(name) = field.get_argument(TYPE.name).filter(|_| field_name == "__type") {
            visit(name, TYPE)?;
        }
        return for_each_argument(&field.selection_set.node, "", types, visit);
    };
    for (name, value) in &field.arguments {
        let argument = meta.args.get(name.node.as_str());
        let argument = argument.ok_or_else(|| unknown_argument(name, meta, object_type))?;
        visit(value, Location::of(argument, false))?;
    }
    let inner = MetaTypeName::concrete_typename(&meta.ty);
    for_each_argument(&field.selection_set.node, inner, types, visit)
}

fn unknown_field(name: &Name, object_type: &str, known: &IndexMap<String, MetaField>, pos: Pos) -> ServerError {
    let suggestion = suggestion(known.keys(), name);
    ServerError::new(format!("Unknown field \"{name}\" on type \"{object_type}\".{suggestion}"), Some(pos))
}

fn unknown_argument(name: &Positioned<Name>, field: &MetaField, object_type: &str) -> ServerError {
    let suggestion = suggestion(field.args.keys(), &name.node);
    let (argument, field) = (&name.node, &field.name);
    let message =
        format!("Unknown argument \"{argument}\" on field \"{field}\" of type \"{object_type}\".{suggestion}");
    ServerError::new(message, Some(name.pos))
}

fn unknown_argument_of_directive(name: &Name, directive: &Directive, pos: Pos) -> ServerError {
    let directive = &directive.name.node;
    ServerError::new(format!("Unknown argument \"{name}\" on directive \"{directive}\"."), Some(pos))
}

fn check_literal(value: &Value, type_name: &str, types: &Registry) -> Result<(), Problem> {
    let in_place_of_variable = |_| Ok::<_, Infallible>(ConstValue::Binary(Default::default()));
    let Ok(mut value) = value.clone().into_const_with(in_place_of_variable);
    check_value(&mut value, type_name, Source::Document, types)
}
