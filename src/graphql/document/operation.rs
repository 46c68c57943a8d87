//! The operation of a document that a request executes.

use async_graphql::parser::types::{OperationDefinition, OperationType, Selection};
use async_graphql::{Name, Positioned, ServerError, ServerResult, Variables};

use super::cost_estimate::{CostEstimate, estimate_cost};
use super::fields::collect_fields;
use super::normalise::Normalised;

/// Names of operations are logged, and quoted in messages, up to this length.
const MAX_NAME: usize = 64;

/// The operation that a request executes.
#[derive(Clone, Debug)]
pub struct Operation {
    pub is_mutation: bool,
    pub name: Option<String>,
    pub cost: CostEstimate,
    /// If true, at most one root field is executed at a time.
    pub is_sequential: bool,
    /// True if the operation selects `__schema` or `__type`.
    pub introspects: bool,
}

/// Returns the operation with this name, or the only operation if no name is given. Fails if there is none.
pub fn selected_operation<'d>(
    document: &'d Normalised,
    name: Option<&str>,
) -> ServerResult<(Option<&'d Name>, &'d Positioned<OperationDefinition>)> {
    let is_named = |own_name: Option<&Name>| name.is_none_or(|name| own_name.is_some_and(|own_name| own_name == name));
    let mut operations = document.operations().iter().filter(|(own_name, _)| is_named(*own_name));
    operations.next().filter(|_| operations.next().is_none()).ok_or_else(|| {
        let message = name.map_or_else(
            || "The document has several operations. Set `operationName` to the name of one of them.".to_owned(),
            |name| {
                let name: String = name.chars().take(MAX_NAME).collect();
                format!("The document has no operation named `{name}`.")
            },
        );
        ServerError::new(message, None)
    })
}

/// Describes the [`selected_operation`] of a document.
pub fn describe_operation(document: &Normalised, name: Option<&str>, variables: &Variables) -> ServerResult<Operation> {
    let (name, operation) = selected_operation(document, name)?;
    let is_mutation = operation.node.ty == OperationType::Mutation;
    let name = name.map(|name| name.chars().take(MAX_NAME).collect());
    let has_one_field =
        matches!(operation.node.selection_set.node.items.as_slice(), [one] if matches!(one.node, Selection::Field(_)));
    let is_sequential = is_mutation || has_one_field;
    let mut fields = Vec::new();
    collect_fields(&operation.node.selection_set.node, &mut fields);
    let cost = estimate_cost(&operation.node, fields.len(), variables);
    let introspects = fields.iter().any(|field| ["__schema", "__type"].contains(&field.name.node.as_str()));
    Ok(Operation { is_mutation, name, cost, is_sequential, introspects })
}
