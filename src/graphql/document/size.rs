//! The size of parsed documents: the number of their selections, and of the values in their arguments.

use async_graphql::parser::types::{Directive, Selection, SelectionSet};
use async_graphql::{Name, Positioned};
use async_graphql_value::Value;

/// Returns the number of selections in a selection set and all sets below it, and of the values in their arguments.
pub fn items_in(set: &SelectionSet) -> usize {
    let number = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(Positioned { node: field, .. }) => {
            let values = values_in_arguments(&field.arguments) + values_of_directives(&field.directives);
            1 + values + items_in(&field.selection_set.node)
        }
        Selection::InlineFragment(Positioned { node: inline, .. }) => {
            1 + values_of_directives(&inline.directives) + items_in(&inline.selection_set.node)
        }
        Selection::FragmentSpread(_) => 1,
    };
    set.items.iter().map(number).sum()
}

/// Returns the number of values in the arguments of directives, as [`values_in_arguments`] counts them.
pub fn values_of_directives(directives: &[Positioned<Directive>]) -> usize {
    directives.iter().map(|directive| values_in_arguments(&directive.node.arguments)).sum()
}

/// Returns the number of values in arguments. A long string counts as several values.
pub fn values_in_arguments(arguments: &[(Positioned<Name>, Positioned<Value>)]) -> usize {
    arguments.iter().map(|(_, value)| values_in(&value.node)).sum()
}

fn values_in(value: &Value) -> usize {
    /// The memory of a value.
    const BYTES_PER_VALUE: usize = 64;
    match value {
        Value::List(items) => 1 + items.iter().map(values_in).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(values_in).sum::<usize>(),
        Value::String(text) => 1 + text.len() / BYTES_PER_VALUE,
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) | Value::Variable(_) => {
            1
        }
    }
}
