//! Lists of objects. The size of a list is added to the size of the response.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, OutputType, Positioned, ServerResult, Value};

use crate::database::{ResponseSize, SizeError};
use crate::error::Error;

/// A list of objects. Adds the size of its items to the size of the response.
///
/// Only lists are counted, because only lists can make a response large. A list is counted when it is complete. A large
/// response is still stopped early, because a page has at most 100 items, and the lists inside the items are counted
/// separately.
pub struct Items<L>(pub L);

impl<L: OutputType> OutputType for Items<L> {
    fn type_name() -> Cow<'static, str> {
        L::type_name()
    }

    fn qualified_type_name() -> String {
        L::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        L::create_type_info(registry)
    }

    async fn resolve(&self, context: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let fail = |error: SizeError| async_graphql::Error::from(Error::from(error)).into_server_error(field.pos);
        let size = context.data_unchecked::<Arc<ResponseSize>>();
        size.before_growth().await.map_err(fail)?;
        let list = self.0.resolve(context, field).await?;
        if let Value::List(items) = &list {
            size.add(items.iter().map(json_size).sum()).map_err(fail)?;
        }
        Ok(list)
    }
}

/// Returns the approximate number of bytes of a value in JSON. Leaves out lists of objects, which are counted
/// separately.
fn json_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Boolean(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Enum(name) => name.len() + 2,
        Value::Binary(bytes) => bytes.len(),
        Value::List(items) if matches!(items.first(), Some(Value::Object(_))) => 2,
        Value::List(items) => items.iter().map(|item| json_size(item) + 1).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + 4 + json_size(value)).sum(),
    }
}
