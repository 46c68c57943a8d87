//! Brings documents into a form that async-graphql executes as the GraphQL specification requires.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition, InlineFragment, OperationDefinition,
    OperationType, Selection, SelectionSet, TypeCondition,
};
use async_graphql::registry::Registry;
use async_graphql::{Name, Positioned, ServerResult};
use async_graphql_value::Value;

use super::conflicts::{TYPE_NAME, check_conflicts, check_each_set, is_same, type_of_field};

pub type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

/// An operation in the form of [`normalise`]. It has no fragment definitions. A fragment spread that is left names a
/// fragment that does not exist, so validation rejects the operation.
#[derive(Clone)]
pub struct NormalisedOperation {
    name: Option<Name>,
    operation: Positioned<OperationDefinition>,
}

impl NormalisedOperation {
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub fn definition(&self) -> &OperationDefinition {
        &self.operation.node
    }

    /// Returns a document with this operation, for async-graphql.
    pub fn to_document(&self) -> ExecutableDocument {
        let operation = self.operation.clone();
        let operations = match self.name.clone() {
            Some(name) => DocumentOperations::Multiple([(name, operation)].into()),
            None => DocumentOperations::Single(operation),
        };
        ExecutableDocument { operations, fragments: Fragments::new() }
    }

    /// Changes the operation, and normalises it again.
    pub fn change(mut self, change: impl FnOnce(&mut OperationDefinition), types: &Registry) -> ServerResult<Self> {
        change(&mut self.operation.node);
        normalise_operation(&mut self.operation.node, &Fragments::new(), types)?;
        Ok(self)
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

/// Brings the operations of a document into a form with the same meaning, without the fragments. The document must have
/// passed `limits::parse`, so its fragments are all used and do not contain themselves.
///
/// - Fragment spreads become inline fragments. async-graphql's complexity rule ignores the type of a fragment spread,
///   so below an interface it does not multiply by the sizes of the pages.
/// - An inline fragment on the type of its parent is replaced by its selections, also if it is in a fragment on an
///   interface of this type. If it has directives, it stays, with a type as its condition: without a condition,
///   async-graphql would report a conflict between the fields of two such fragments, although their parents are
///   different types.
/// - `@include(if: true)` and `@skip(if: false)` are removed.
/// - Directives of `__typename` move to an inline fragment around the field, because async-graphql does not find
///   variables in them.
/// - Fields with the same response key, name and arguments are merged, unless they have directives. async-graphql would
///   resolve both fields and merge the results. The second one could read other rows, so a list could mix the values of
///   two customers, or a cursor could belong to another list. `variant` replaces variables in directives before the
///   document is executed, so each field with fields is resolved at most once, except in introspection.
///
/// Fails if two fields that cannot be merged have the same response key, or if `__typename` has arguments or fields.
pub fn normalise(document: ExecutableDocument, types: &Registry) -> ServerResult<Vec<NormalisedOperation>> {
    let ExecutableDocument { operations, fragments } = document;
    let operations = match operations {
        DocumentOperations::Single(operation) => vec![(None, operation)],
        DocumentOperations::Multiple(operations) => {
            operations.into_iter().map(|(name, operation)| (Some(name), operation)).collect()
        }
    };
    let normalised = operations.into_iter().map(|(name, mut operation)| {
        normalise_operation(&mut operation.node, &fragments, types)?;
        Ok(NormalisedOperation { name, operation })
    });
    normalised.collect()
}

fn normalise_operation(
    operation: &mut OperationDefinition,
    fragments: &Fragments,
    types: &Registry,
) -> ServerResult<()> {
    let (root, set) = (root_type(operation.ty), &mut operation.selection_set.node);
    Normaliser { fragments, types }.normalise(set, root);
    check_each_set(set)?;
    check_conflicts(&[(root, set)], types)
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
            selection.node.directives_mut().retain(|directive| literal_condition(&directive.node) != Some(true));
            if let Selection::Field(field) = &mut selection.node
                && field.node.name.node == TYPE_NAME
                && !field.node.directives.is_empty()
            {
                selection.node = with_directives_outside(field.clone());
            }
            if let Selection::InlineFragment(Positioned { node: inline, .. }) = &mut selection.node {
                let items = std::mem::take(&mut inline.selection_set.node.items);
                let condition = inline.type_condition.as_ref().map(|condition| condition.node.on.node.clone());
                let condition = condition.as_deref().unwrap_or(parent);
                let is_always_included = inline.directives.is_empty();
                if is_always_included && condition == parent {
                    self.flatten(items, parent, flat);
                    continue;
                }
                if inline.type_condition.is_none() && self.types.types.contains_key(parent) {
                    let on = Positioned::new(Name::new(parent), selection.pos);
                    inline.type_condition = Some(Positioned::new(TypeCondition { on }, selection.pos));
                }
                let mut inner = Vec::new();
                self.flatten(items, condition, &mut inner);
                if is_always_included && self.has_type(parent, condition) {
                    self.expand_in_interface(inline, inner, parent, flat);
                    continue;
                }
                inline.selection_set.node.items = inner;
            }
            flat.push(selection);
        }
    }

    /// Returns true if each object of the type `parent` has the type `condition`: if they are the same, or if
    /// `condition` is an interface of `parent`.
    fn has_type(&self, parent: &str, condition: &str) -> bool {
        parent == condition || self.types.implements.get(parent).is_some_and(|all| all.contains(condition))
    }

    /// Appends the selections of a fragment on an interface of the parent. Its fragments on the parent are expanded, so
    /// that their fields can be merged with other fields of the parent. Each of its other selections stays in a
    /// fragment on the interface: the parent has fields that the interface does not have, and the interface has types
    /// that the parent does not have.
    fn expand_in_interface(
        &self,
        interface: &InlineFragment,
        items: Vec<Positioned<Selection>>,
        parent: &str,
        flat: &mut Vec<Positioned<Selection>>,
    ) {
        for item in items {
            let pos = item.pos;
            if self.is_always_on(parent, &item.node) {
                self.flatten(vec![item], parent, flat);
                continue;
            }
            let selection_set = Positioned::new(SelectionSet { items: vec![item] }, pos);
            let fragment = InlineFragment { selection_set, ..interface.clone() };
            flat.push(Positioned::new(Selection::InlineFragment(Positioned::new(fragment, pos)), pos));
        }
    }

    /// Returns true for a fragment without directives on a type that each object of the type `parent` has.
    fn is_always_on(&self, parent: &str, selection: &Selection) -> bool {
        let Selection::InlineFragment(Positioned { node: inline, .. }) = selection else { return false };
        let condition = inline.type_condition.as_ref();
        inline.directives.is_empty()
            && condition.is_some_and(|condition| self.has_type(parent, &condition.node.on.node))
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

/// Returns an inline fragment that has the directives of the field and contains the field without them.
fn with_directives_outside(mut field: Positioned<Field>) -> Selection {
    let (directives, pos) = (std::mem::take(&mut field.node.directives), field.pos);
    let items = vec![Positioned::new(Selection::Field(field), pos)];
    let selection_set = Positioned::new(SelectionSet { items }, pos);
    Selection::InlineFragment(Positioned::new(InlineFragment { type_condition: None, directives, selection_set }, pos))
}

/// Returns true for `@include(if: true)` and `@skip(if: false)`, false for `@include(if: false)` and `@skip(if: true)`,
/// and `None` for a condition with a variable and for other directives.
pub fn literal_condition(directive: &Directive) -> Option<bool> {
    let includes_if = match directive.name.node.as_str() {
        "include" => true,
        "skip" => false,
        _ => return None,
    };
    let Value::Boolean(condition) = directive.get_argument("if")?.node else { return None };
    (directive.arguments.len() == 1).then_some(condition == includes_if)
}

/// Merges fields with the same response key, name and arguments into the first of them. Fields of inline fragments
/// without directives are merged with the fields of the other such fragments on the same type.
///
/// Compares a field only with the first field that has its response key. If this field is different, [`normalise`]
/// fails. A document with two operations of 500 different fields would otherwise need 250,000 comparisons.
fn merge(selections: Vec<Positioned<Selection>>) -> Vec<Positioned<Selection>> {
    let mut merged = Merged::default();
    for mut selection in selections {
        let index = merged.selections.len();
        let is_absorbed = match &mut selection.node {
            Selection::Field(field) => merged.absorb(None, &mut field.node, (index, None)),
            Selection::InlineFragment(Positioned { node: inline, .. }) if inline.directives.is_empty() => {
                let condition = inline.type_condition.as_ref().map(|condition| &condition.node.on.node);
                let (items, mut kept) = (&mut inline.selection_set.node.items, 0);
                *items = merge(std::mem::take(items));
                items.retain_mut(|item| {
                    let is_absorbed = match &mut item.node {
                        Selection::Field(field) => merged.absorb(condition, &mut field.node, (index, Some(kept))),
                        Selection::InlineFragment(_) | Selection::FragmentSpread(_) => false,
                    };
                    kept += usize::from(!is_absorbed);
                    !is_absorbed
                });
                items.is_empty()
            }
            Selection::InlineFragment(_) | Selection::FragmentSpread(_) => false,
        };
        if !is_absorbed {
            merged.selections.push(selection);
        }
    }
    merged.selections
}

/// The place of a field: the index of a selection, and, if this selection is an inline fragment, the index of the field
/// in this fragment.
type Place = (usize, Option<usize>);

/// The selections of a set whose fields are being merged.
#[derive(Default)]
struct Merged {
    selections: Vec<Positioned<Selection>>,
    /// The place of the first field with each type condition and response key. Fields with selections and fields
    /// without selections are never merged.
    first: HashMap<(Option<Name>, Name, bool), Place>,
}

impl Merged {
    /// Moves the selections of a field into the first field that is the same. Returns false if there is no such field,
    /// or if the field has directives. The field then gets the place `place`.
    fn absorb(&mut self, condition: Option<&Name>, field: &mut Field, place: Place) -> bool {
        if !field.directives.is_empty() {
            return false;
        }
        let has_selections = !field.selection_set.node.items.is_empty();
        let key = (condition.cloned(), field.response_key().node.clone(), has_selections);
        let first = *self.first.entry(key).or_insert(place);
        match self.field_at(first) {
            Some(first) if is_same(first, field) => {
                first.selection_set.node.items.append(&mut field.selection_set.node.items);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Returns the field at a place. Returns `None` for a field of the inline fragment that is being read, whose own
    /// fields are already merged.
    fn field_at(&mut self, (index, index_in_fragment): Place) -> Option<&mut Field> {
        let mut selection = &mut self.selections.get_mut(index)?.node;
        if let Selection::InlineFragment(inline) = selection {
            selection = &mut inline.node.selection_set.node.items.get_mut(index_in_fragment?)?.node;
        }
        match selection {
            Selection::Field(field) => Some(&mut field.node),
            Selection::InlineFragment(_) | Selection::FragmentSpread(_) => None,
        }
    }
}
