//! Finds fields of a normalised document that have the same response key but cannot be merged.
//!
//! The two checks are a part of the rule "Field Selection Merging" of the GraphQL specification:
//!
//! | check | compares |
//! | --- | --- |
//! | [`check_each_set`] | the fields of one selection set that have the same innermost type condition |
//! | [`check_conflicts`] | fields that meet in one object, also through nested selection sets and interfaces |
//!
//! async-graphql's validation compares only the fields that `check_each_set` compares. The types of fields of different
//! object types, which never meet in one object, are not compared: the tools of clients compare them.

use std::collections::{BTreeSet, HashMap};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Positioned, ServerError, ServerResult};

/// The field that returns the name of the type of its object.
pub const TYPE_NAME: &str = "__typename";

/// Returns the name of the type of a field without its list and non-null markers, or an empty name if the field is
/// unknown.
pub fn type_of_field<'r>(parent: &str, field: &Field, types: &'r Registry) -> &'r str {
    let meta = types.types.get(parent).and_then(|parent| parent.field_by_name(&field.name.node));
    meta.map_or("", |meta| MetaTypeName::concrete_typename(&meta.ty))
}

/// Returns true if two fields have the same name and the same arguments.
pub fn is_same(one: &Field, other: &Field) -> bool {
    let value_in_other = |name: &Name| other.get_argument(name).map(|value| &value.node);
    one.name.node == other.name.node
        && one.arguments.len() == other.arguments.len()
        && one.arguments.iter().all(|(name, value)| value_in_other(&name.node) == Some(&value.node))
}

/// Checks the fields of a normalised selection set and of all sets below it. Rejects the first two fields that
/// async-graphql's validation would report as a conflict. async-graphql compares the fields of nested inline fragments
/// again at each level, and reports every conflict and every different argument: five million errors for a document of
/// 2 KB. Also rejects arguments and selections of `__typename`, which async-graphql ignores.
///
/// Compares only fields with the same innermost type condition, like async-graphql, and needs no type. So this check
/// includes the fields of unknown types and of introspection, and visits each selection once.
pub fn check_each_set(set: &SelectionSet) -> ServerResult<()> {
    fn check<'d>(
        set: &'d SelectionSet,
        condition: Option<&'d str>,
        first: &mut HashMap<(Option<&'d str>, &'d Name), &'d Field>,
    ) -> ServerResult<()> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    if !is_same(first.entry((condition, key)).or_insert(&field.node), &field.node) {
                        return Err(conflict(key, field));
                    }
                    let is_plain = field.node.arguments.is_empty() && field.node.selection_set.node.items.is_empty();
                    if field.node.name.node == TYPE_NAME && !is_plain {
                        let message = format!("`{TYPE_NAME}` has no arguments and no fields.");
                        return Err(ServerError::new(message, Some(field.pos)));
                    }
                    check_each_set(&field.node.selection_set.node)?;
                }
                Selection::InlineFragment(Positioned { node: inline, .. }) => {
                    let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.as_str());
                    check(&inline.selection_set.node, condition, first)?;
                }
                Selection::FragmentSpread(_) => {}
            }
        }
        Ok(())
    }
    check(set, None, &mut HashMap::new())
}

fn conflict(key: &Name, field: &Positioned<Field>) -> ServerError {
    let message = format!("Different fields have the response key `{key}`. Give each of them its own alias.");
    ServerError::new(message, Some(field.pos))
}

/// Checks that the fields of selection sets, whose results async-graphql merges, agree where they have the same
/// response key. Fields of two different object types never meet in one object. Each set comes with the type of its
/// fields.
///
/// Skips the fields of unknown types, which validation rejects, and of introspection. Also skips the selections of
/// fields without fields, for example of an `ID`, which validation rejects too. So each set is visited once, as long as
/// no interface has a field with fields: such a field would meet the fields of several object types, and each level of
/// nesting would multiply the visits. A document of 2 KB would take hours.
pub fn check_conflicts(sets: &[(&str, &SelectionSet)], types: &Registry) -> ServerResult<()> {
    let is_object = |name: &str| matches!(types.types.get(name), Some(MetaType::Object { .. }));
    let mut fields = IndexMap::new();
    sets.iter().for_each(|(parent, set)| collect(set, parent, &mut fields));
    for fields in fields.values_mut() {
        fields.retain(|(parent, _)| {
            matches!(types.types.get(*parent), Some(MetaType::Object { .. } | MetaType::Interface { .. }))
        });
    }
    for (key, fields) in fields {
        let objects: BTreeSet<&str> = fields.iter().map(|(parent, _)| *parent).filter(|name| is_object(name)).collect();
        let all = objects.is_empty().then_some(None);
        for object in objects.into_iter().map(Some).chain(all) {
            let meets = |parent: &str| object.is_none_or(|object| parent == object || !is_object(parent));
            let meeting: Vec<_> = fields.iter().filter(|(parent, _)| meets(parent)).collect();
            let differs = |(_, field): &&&(&str, &Positioned<Field>)| !is_same(&meeting[0].1.node, &field.node);
            if let Some((_, other)) = meeting.iter().find(differs) {
                return Err(conflict(key, other));
            }
            let inner: Vec<_> = meeting
                .into_iter()
                .map(|(parent, field)| (type_of_field(parent, &field.node, types), &field.node.selection_set.node))
                .filter(|(inner, _)| types.types.get(*inner).is_some_and(MetaType::is_composite))
                .collect();
            check_conflicts(&inner, types)?;
        }
    }
    Ok(())
}

/// The fields of selection sets by response key, each with its parent type.
type FieldsByKey<'d> = IndexMap<&'d Name, Vec<(&'d str, &'d Positioned<Field>)>>;

fn collect<'d>(set: &'d SelectionSet, parent: &'d str, fields: &mut FieldsByKey<'d>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => {
                fields.entry(&field.node.response_key().node).or_default().push((parent, field));
            }
            Selection::InlineFragment(Positioned { node: inline, .. }) => {
                let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.as_str());
                collect(&inline.selection_set.node, condition.unwrap_or(parent), fields);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
}
