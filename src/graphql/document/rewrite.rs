//! Rewrites documents where async-graphql would not treat them as the specification requires.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition, InlineFragment, OperationDefinition,
    OperationType, Selection, SelectionSet, TypeCondition,
};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Positioned, ServerError, ServerResult};
use async_graphql_value::Value;

pub type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

/// A document in the form of [`normalise`]. It has no fragment definitions. A fragment spread that is left names a
/// fragment that does not exist, so validation rejects the document.
#[derive(Clone)]
pub struct Normalised(ExecutableDocument);

impl Normalised {
    pub fn operations(&self) -> &DocumentOperations {
        &self.0.operations
    }

    /// Returns a copy of the document, for async-graphql.
    pub fn to_executable(&self) -> ExecutableDocument {
        self.0.clone()
    }
}

/// Removes all other operations.
pub fn without_other_operations(mut document: Normalised, operation: &Name) -> Normalised {
    if let DocumentOperations::Multiple(operations) = &mut document.0.operations {
        operations.retain(|name, _| name == operation);
    }
    document
}

/// Removes these variables, and the arguments and input fields that use them. Fails in the same cases as [`normalise`].
pub fn without_variables(document: Normalised, missing: &[Name], types: &Registry) -> ServerResult<Normalised> {
    let Normalised(mut document) = document;
    let missing = &missing.iter().collect::<HashSet<_>>();
    for Positioned { node: operation, .. } in operations_mut(&mut document.operations) {
        operation.variable_definitions.retain(|definition| !missing.contains(&definition.node.name.node));
        remove_from_directives(&mut operation.directives, missing);
        remove_from_selections(&mut operation.selection_set.node, missing);
    }
    // Without the arguments, more fields may be the same.
    normalise(document, types)
}

fn remove_from_selections(set: &mut SelectionSet, missing: &HashSet<&Name>) {
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

fn remove_from_directives(directives: &mut [Positioned<Directive>], missing: &HashSet<&Name>) {
    for directive in directives {
        remove_from_arguments(&mut directive.node.arguments, missing);
    }
}

fn remove_from_arguments(arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>, missing: &HashSet<&Name>) {
    arguments.retain_mut(|(_, value)| retain(&mut value.node, missing));
}

/// Inside a value, removes each input field whose variable is missing, and sets each list item whose variable is
/// missing to null. Returns false if the value itself is a missing variable.
fn retain(value: &mut Value, missing: &HashSet<&Name>) -> bool {
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

fn operations_mut(operations: &mut DocumentOperations) -> Vec<&mut Positioned<OperationDefinition>> {
    match operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    }
}

/// The type whose fields an operation selects.
pub fn root_type(operation: OperationType) -> &'static str {
    match operation {
        OperationType::Query => "Query",
        OperationType::Mutation => "Mutation",
        OperationType::Subscription => "Subscription",
    }
}

/// Brings the operations of a document into a form with the same meaning, and removes the fragments. The document must
/// have passed `limits::parse`, so its fragments are all used and do not contain themselves.
///
/// - Fragment spreads become inline fragments. async-graphql's complexity rule ignores the type of a fragment spread,
///   so below an interface it does not multiply by the sizes of the pages.
/// - An inline fragment on the type of its parent is replaced by its fields. If it has directives, it stays, with this
///   type as its condition: without a condition, async-graphql would report a conflict between the fields of two such
///   fragments, although their parents are different types.
/// - Directives of `__typename` move to an inline fragment around the field, because async-graphql does not find
///   variables in them.
/// - Fields with the same response key, name and arguments are merged, unless they have directives. async-graphql would
///   resolve both fields and merge the results. The second one could read other rows, so a list could mix the values of
///   two customers.
///
/// Fails if two fields that cannot be merged have the same response key, or if `__typename` has arguments or fields.
/// async-graphql's validation finds only some of these conflicts.
pub fn normalise(document: ExecutableDocument, types: &Registry) -> ServerResult<Normalised> {
    let ExecutableDocument { mut operations, fragments } = document;
    let normaliser = Normaliser { fragments: &fragments, types };
    for Positioned { node: operation, .. } in operations_mut(&mut operations) {
        let (root, set) = (root_type(operation.ty), &mut operation.selection_set.node);
        normaliser.normalise(set, root);
        check_each_set(set)?;
        check_conflicts(&[(root, set)], types)?;
    }
    Ok(Normalised(ExecutableDocument { operations, fragments: Fragments::new() }))
}

struct Normaliser<'d> {
    fragments: &'d Fragments,
    types: &'d Registry,
}

impl Normaliser<'_> {
    /// `parent` is the type of the selected fields, or empty if it is unknown.
    fn normalise(&self, set: &mut SelectionSet, parent: &str) {
        let mut flat = Vec::new();
        self.flatten(std::mem::take(&mut set.items), parent, &mut flat);
        set.items = merge(flat);
        set.items.shrink_to_fit();
        for selection in &mut set.items {
            match &mut selection.node {
                Selection::Field(Positioned { node: field, .. }) => {
                    let inner = type_of_field(parent, field, self.types);
                    self.normalise(&mut field.selection_set.node, inner);
                }
                Selection::InlineFragment(Positioned { node: inline, .. }) => {
                    let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.clone());
                    self.normalise(&mut inline.selection_set.node, condition.as_deref().unwrap_or(parent));
                }
                // The fragment does not exist, so validation rejects the document.
                Selection::FragmentSpread(_) => {}
            }
        }
    }

    /// Appends selections, with the fragment spreads and the inline fragments on the parent's type expanded.
    fn flatten(&self, items: Vec<Positioned<Selection>>, parent: &str, flat: &mut Vec<Positioned<Selection>>) {
        for mut selection in items {
            if let Selection::FragmentSpread(spread) = &selection.node
                && let Some(inline) = self.expanded(&spread.node.fragment_name.node, &spread.node.directives)
            {
                selection.node = Selection::InlineFragment(Positioned::new(inline, selection.pos));
            }
            if let Selection::Field(field) = &mut selection.node
                && field.node.name.node == TYPE_NAME
                && !field.node.directives.is_empty()
            {
                selection.node = with_directives_outside(field.clone());
            }
            if let Selection::InlineFragment(Positioned { node: inline, .. }) = &mut selection.node {
                let condition = &mut inline.type_condition;
                let is_on_parent = condition.as_ref().is_none_or(|condition| condition.node.on.node == parent);
                if is_on_parent && inline.directives.is_empty() {
                    self.flatten(std::mem::take(&mut inline.selection_set.node.items), parent, flat);
                    continue;
                }
                if condition.is_none() && self.types.types.contains_key(parent) {
                    let on = Positioned::new(Name::new(parent), selection.pos);
                    *condition = Some(Positioned::new(TypeCondition { on }, selection.pos));
                }
            }
            flat.push(selection);
        }
    }

    fn expanded(&self, name: &Name, directives: &[Positioned<Directive>]) -> Option<InlineFragment> {
        let fragment = &self.fragments.get(name)?.node;
        Some(InlineFragment {
            type_condition: Some(fragment.type_condition.clone()),
            directives: directives.to_vec(),
            selection_set: fragment.selection_set.clone(),
        })
    }
}

const TYPE_NAME: &str = "__typename";

/// Returns an inline fragment that has the directives of the field and contains the field without them.
fn with_directives_outside(mut field: Positioned<Field>) -> Selection {
    let (directives, pos) = (std::mem::take(&mut field.node.directives), field.pos);
    let items = vec![Positioned::new(Selection::Field(field), pos)];
    let selection_set = Positioned::new(SelectionSet { items }, pos);
    Selection::InlineFragment(Positioned::new(InlineFragment { type_condition: None, directives, selection_set }, pos))
}

/// Returns the name of the type of a field without its list and non-null markers, or an empty name if the field is
/// unknown.
fn type_of_field<'r>(parent: &str, field: &Field, types: &'r Registry) -> &'r str {
    let meta = types.types.get(parent).and_then(|parent| parent.field_by_name(&field.name.node));
    meta.map_or("", |meta| MetaTypeName::concrete_typename(&meta.ty))
}

/// Merges fields with the same response key, name and arguments into the first of them.
///
/// Compares a field only with the first field that has its response key. If this field is different, [`normalise`]
/// fails. A document with two operations of 500 different fields would otherwise need 250,000 comparisons.
fn merge(selections: Vec<Positioned<Selection>>) -> Vec<Positioned<Selection>> {
    let mut merged: Vec<Positioned<Selection>> = Vec::new();
    let mut first = HashMap::new();
    for mut selection in selections {
        if let Selection::Field(Positioned { node: field, .. }) = &mut selection.node
            && field.directives.is_empty()
        {
            let has_selections = !field.selection_set.node.items.is_empty();
            let index = *first.entry((field.response_key().node.clone(), has_selections)).or_insert(merged.len());
            if let Some(Positioned { node: Selection::Field(earlier), .. }) = merged.get_mut(index)
                && is_same(&earlier.node, field)
            {
                earlier.node.selection_set.node.items.append(&mut field.selection_set.node.items);
                continue;
            }
        }
        merged.push(selection);
    }
    merged
}

/// Returns true if two fields have the same name and the same arguments.
fn is_same(one: &Field, other: &Field) -> bool {
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
fn check_each_set(set: &SelectionSet) -> ServerResult<()> {
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
fn check_conflicts(sets: &[(&str, &SelectionSet)], types: &Registry) -> ServerResult<()> {
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
