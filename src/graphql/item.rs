//! Items of lists, whose size is counted.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, OutputType, Positioned, ServerResult, Value};

use crate::database::{ResponseSize, SizeError};
use crate::error::Error;

/// An item of a list. Adds its size to the size of the response.
///
/// Only lists can make a response large, so counting their items is enough, and costs less than counting every field.
pub struct Item<T>(pub T);

impl<T: OutputType> OutputType for Item<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, context: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let fail = |error: SizeError| async_graphql::Error::from(Error::from(error)).into_server_error(field.pos);
        let size = context.data_unchecked::<Arc<ResponseSize>>();
        size.before_growth().await.map_err(fail)?;
        let value = self.0.resolve(context, field).await?;
        size.add(json_size(&value)).map_err(fail)?;
        Ok(value)
    }
}

/// Returns about the number of bytes of a value in JSON. Leaves out lists of objects, whose items are counted themselves.
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
