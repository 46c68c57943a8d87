//! Estimates the cost of an operation from its document.

use async_graphql::parser::types::{Field, OperationDefinition, OperationType};
use async_graphql::{Name, Variables};
use async_graphql_value::{ConstValue, Value};

use super::fields::for_each_executed_field;
use crate::graphql::pagination::{MAX_PAGE_SIZE, page_size};
use crate::service::cost::{MUTATION_COST, VALIDATION_COST, weights};

/// The cost of an operation, estimated from its document and its variables.
#[derive(Clone, Copy, Debug)]
pub struct CostEstimate {
    /// The number of fields.
    pub fields: u64,
    /// The minimum cost, even if the operation does less work.
    pub minimum: u32,
    /// The cost to reserve before the execution.
    pub estimated: u32,
}

/// Estimates the cost of an operation of a normalised document. `root_fields` is the number of fields at its root. The
/// estimate counts each list of the document once, even if the list is inside another list. If the operation does more
/// work than estimated, the request pays the difference after the execution.
pub fn estimate_cost(operation: &OperationDefinition, root_fields: usize, variables: &Variables) -> CostEstimate {
    let (mut fields, mut validations, mut work_of_fields) = (0, 0_u32, 0);
    for_each_executed_field(&operation.selection_set.node, &mut |field| {
        fields += 1;
        validations += u32::from(field.name.node == "validateCustomer");
        work_of_fields += work_of_field(field, variables);
    });
    if operation.ty == OperationType::Mutation {
        let cost = MUTATION_COST.saturating_mul(u32::try_from(root_fields).unwrap_or(u32::MAX)).max(1);
        return CostEstimate { fields, minimum: cost, estimated: cost };
    }
    let minimum = VALIDATION_COST.saturating_mul(validations).max(1);
    let work = weights::REQUEST + fields * weights::FIELD + root_fields as u64 * weights::QUERY + work_of_fields;
    CostEstimate { fields, minimum, estimated: weights::cost_of_work(work).max(minimum) }
}

/// The fields that are lists with pages of 20 items by default.
const LISTS: [&str; 7] = ["customers", "operators", "history", "customerEvents", "erasures", "adminEvents", "webhooks"];

/// The conditions of `CustomerFilter` that have an index. `connectedAt` uses its index only in the order
/// `CONNECTED_AT`, but the estimate ignores the order. For the other conditions, the service may check customers one by
/// one.
const INDEXED: [&str; 4] = ["email", "phone", "externalCustomerId", "connectedAt"];

/// Estimates the work for a list, a search or a count. For other fields the estimate is zero, because the rows of most
/// of them are already read.
fn work_of_field(field: &Field, variables: &Variables) -> u64 {
    let argument = |name| argument(field, name, variables);
    let size = |name| argument(name)?.int();
    match field.name.node.as_str() {
        name if LISTS.contains(&name) => {
            let items = page_size(size("first").or(size("last"))) as u64;
            let filter = argument("filter").filter(|_| name == "customers");
            weights::list(items, filter.is_some_and(|filter| filter.has_other_field(&INDEXED)))
        }
        "changes" => {
            let is_filtered = argument("types").is_some_and(|types| !types.is_null());
            weights::list(page_size(size("first").or(Some(MAX_PAGE_SIZE))) as u64, is_filtered)
        }
        "totalCount" | "totalCountAtLeast" => weights::SCAN,
        _ => 0,
    }
}

/// The value of an argument: a literal, or the value of a variable. Borrowed, because a large value of a variable may
/// be used by many fields.
enum Argument<'a> {
    Literal(&'a Value),
    Variable(&'a ConstValue),
}

impl Argument<'_> {
    fn int(&self) -> Option<i32> {
        let (Self::Literal(Value::Number(number)) | Self::Variable(ConstValue::Number(number))) = self else {
            return None;
        };
        number.as_i64().and_then(|number| i32::try_from(number).ok())
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Literal(Value::Null) | Self::Variable(ConstValue::Null))
    }

    /// Returns true if the value is an object with a field that is not in `names`.
    fn has_other_field(&self, names: &[&str]) -> bool {
        let is_other = |name: &Name| !names.contains(&name.as_str());
        match self {
            Self::Literal(Value::Object(fields)) => fields.keys().any(is_other),
            Self::Variable(ConstValue::Object(fields)) => fields.keys().any(is_other),
            Self::Literal(_) | Self::Variable(_) => false,
        }
    }
}

fn argument<'a>(field: &'a Field, name: &str, variables: &'a Variables) -> Option<Argument<'a>> {
    let (_, value) = field.arguments.iter().find(|(argument, _)| argument.node == name)?;
    if let Value::Variable(name) = &value.node {
        variables.get(name).map(Argument::Variable)
    } else {
        Some(Argument::Literal(&value.node))
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::parser::types::{ServiceDocument, TypeKind, TypeSystemDefinition};

    use super::*;

    fn schema() -> ServiceDocument {
        async_graphql::parser::parse_schema(include_str!("../../../schema.graphql")).expect("a schema")
    }

    fn types(schema: &ServiceDocument) -> impl Iterator<Item = (&str, &TypeKind)> {
        schema.definitions.iter().filter_map(|definition| {
            let TypeSystemDefinition::Type(ty) = definition else { return None };
            Some((ty.node.name.node.as_str(), &ty.node.kind))
        })
    }

    fn estimated(query: &str) -> u32 {
        let document = parse_query(query).expect("a document");
        let (_, operation) = document.operations.iter().next().expect("an operation");
        estimate_cost(&operation.node, 1, &Variables::default()).estimated
    }

    #[test]
    fn every_list_of_the_schema_has_an_estimate() {
        let schema = schema();
        let fields = types(&schema).filter_map(|(_, kind)| {
            let TypeKind::Object(object) = kind else { return None };
            Some(&object.fields)
        });
        let has_pages = |field: &async_graphql::parser::types::FieldDefinition| {
            field.arguments.iter().any(|argument| argument.node.name.node == "first")
        };
        let lists: Vec<_> = fields.flatten().filter(|field| has_pages(&field.node)).collect();
        assert!(lists.len() >= 10);
        for list in lists {
            let name = &list.node.name.node;
            assert_eq!(estimated(&format!("{{ {name}(first: 100) {{ x }} }}")), 11, "{name}");
        }
    }

    #[test]
    fn a_condition_without_an_index_is_expensive() {
        let schema = schema();
        let filter = types(&schema).find(|(name, _)| *name == "CustomerFilter");
        let Some((_, TypeKind::InputObject(filter))) = filter else { panic!("no filter") };
        for condition in &filter.fields {
            let description = condition.node.description.as_ref().map_or("", |text| text.node.as_str());
            let is_scanned = description.contains("has no index") || condition.node.name.node == "search";
            let query = format!("{{ customers(first: 1, filter: {{ {}: 1 }}) {{ x }} }}", condition.node.name.node);
            assert_eq!(estimated(&query), if is_scanned { 2 } else { 1 }, "{query}");
        }
    }
}
