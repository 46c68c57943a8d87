//! The summary of an operation, by which the service charges, logs and executes a request.

use async_graphql::Variables;
use async_graphql::parser::types::{OperationType, Selection};

use super::cost_estimate::{CostEstimate, estimate_cost};
use super::fields::collect_executed_fields;
use super::normalise::NormalisedOperation;

/// Names of operations are logged, and quoted in messages, up to this length.
pub const MAX_NAME: usize = 64;

/// The facts about the operation of a request that do not depend on its execution.
#[derive(Clone, Debug)]
pub struct OperationSummary {
    pub is_mutation: bool,
    /// The first [`MAX_NAME`] characters of the name.
    pub name: Option<String>,
    pub cost: CostEstimate,
    /// If true, at most one root field is executed at a time.
    pub is_sequential: bool,
    /// True if the operation selects `__schema` or `__type`.
    pub introspects: bool,
}

pub fn summarise(operation: &NormalisedOperation, variables: &Variables) -> OperationSummary {
    let (name, definition) = (operation.name(), operation.definition());
    let is_mutation = definition.ty == OperationType::Mutation;
    let name = name.map(|name| name.chars().take(MAX_NAME).collect());
    let set = &definition.selection_set.node;
    let has_one_field = matches!(set.items.as_slice(), [one] if matches!(one.node, Selection::Field(_)));
    let is_sequential = is_mutation || has_one_field;
    let mut fields = Vec::new();
    collect_executed_fields(set, &mut fields);
    let cost = estimate_cost(definition, fields.len(), variables);
    let introspects = fields.iter().any(|field| ["__schema", "__type"].contains(&field.name.node.as_str()));
    OperationSummary { is_mutation, name, cost, is_sequential, introspects }
}
