//! Estimates the cost of an operation from its document, and measures the size of the response.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Field, FragmentDefinition, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Variables};
use async_graphql_value::ConstValue;

use super::pagination::{MAX_PAGE_SIZE, page_size};
use crate::service::limits::{MUTATION_COST, weights};

pub type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

/// The cost of an operation, estimated from its document.
#[derive(Clone, Copy, Debug)]
pub struct DocumentCost {
    /// The number of fields, with all fragments expanded.
    pub selections: u64,
    /// The minimum cost, even if the operation does less work.
    pub least: u32,
    /// The cost to reserve before the execution.
    pub estimated: u32,
}

/// Estimates the cost of an operation. The estimate counts each list of the document once, even if the list is inside another
/// list. If the operation does more work than estimated, the request pays the difference after the execution.
pub fn estimate(operation: &OperationDefinition, fragments: &Fragments, variables: &Variables) -> DocumentCost {
    let set = &operation.selection_set.node;
    let selections = sum(set, fragments, &|_| 1);
    let fields = root_fields(set, fragments);
    if operation.ty == OperationType::Mutation {
        let cost = MUTATION_COST * u32::try_from(fields).unwrap_or(u32::MAX);
        return DocumentCost { selections, least: cost, estimated: cost };
    }
    let work = weights::REQUEST
        + selections * weights::SELECTION
        + fields as u64 * weights::QUERY
        + sum(set, fragments, &|field| work_of_field(field, variables));
    DocumentCost { selections, least: 1, estimated: weights::cost(work) }
}

fn root_fields(set: &SelectionSet, fragments: &Fragments) -> usize {
    let fields = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(_) => 1,
        Selection::InlineFragment(inline) => root_fields(&inline.node.selection_set.node, fragments),
        Selection::FragmentSpread(spread) => fragments
            .get(&spread.node.fragment_name.node)
            .map_or(0, |fragment| root_fields(&fragment.node.selection_set.node, fragments)),
    };
    set.items.iter().map(fields).sum()
}

/// Returns the sum of `of_field` over all fields, with all fragments expanded.
fn sum(set: &SelectionSet, fragments: &Fragments, of_field: &impl Fn(&Field) -> u64) -> u64 {
    let figure = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(field) => of_field(&field.node) + sum(&field.node.selection_set.node, fragments, of_field),
        Selection::InlineFragment(inline) => sum(&inline.node.selection_set.node, fragments, of_field),
        Selection::FragmentSpread(spread) => fragments
            .get(&spread.node.fragment_name.node)
            .map_or(0, |fragment| sum(&fragment.node.selection_set.node, fragments, of_field)),
    };
    set.items.iter().map(figure).sum()
}

/// Estimates the work for a list, a search or a count. Other fields need no work of their own, because their row is already
/// read.
fn work_of_field(field: &Field, variables: &Variables) -> u64 {
    let size = |name| {
        let Some(ConstValue::Number(size)) = argument(field, name, variables) else { return None };
        size.as_i64().and_then(|size| i32::try_from(size).ok())
    };
    match field.name.node.as_str() {
        "customers" | "operators" | "history" => {
            let items = page_size(size("first").or(size("last"))) as u64;
            let filter = argument(field, "filter", variables);
            let is_given =
                |name: &str| matches!(&filter, Some(ConstValue::Object(filter)) if filter.contains_key(name));
            let is_walked = ["search", "missing", "createdAt"].into_iter().any(is_given);
            weights::list(items, is_walked)
        }
        "changes" => {
            let is_filtered = argument(field, "types", variables).is_some_and(|types| types != ConstValue::Null);
            weights::list(page_size(size("first").or(Some(MAX_PAGE_SIZE))) as u64, is_filtered)
        }
        "totalCount" | "totalCountAtLeast" => weights::WALK,
        _ => 0,
    }
}

fn argument(field: &Field, name: &str, variables: &Variables) -> Option<ConstValue> {
    let (_, value) = field.arguments.iter().find(|(argument, _)| argument.node == name)?;
    value.node.clone().into_const_with(|name| variables.get(&name).cloned().ok_or(())).ok()
}

/// Returns the size of a response: the number of its values, plus one for each 100 bytes of text.
pub fn answer_size(value: &ConstValue) -> u64 {
    match value {
        ConstValue::List(items) => items.iter().map(answer_size).sum(),
        ConstValue::Object(fields) => fields.values().map(answer_size).sum(),
        ConstValue::String(text) => 1 + text.len() as u64 / 100,
        ConstValue::Null
        | ConstValue::Number(_)
        | ConstValue::Boolean(_)
        | ConstValue::Enum(_)
        | ConstValue::Binary(_) => 1,
    }
}
