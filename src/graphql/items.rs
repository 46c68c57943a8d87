//! Objects and lists of objects. They are written directly if possible (see `direct`), and their size is added to the
//! size of the response.

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, OutputType, Positioned, ServerResult, Value};

use super::direct::{DirectObject, Json, MergesObjects, NotDirect, Plan};
use crate::database::{ResponseSize, SizeError, Work, record};
use crate::error::Error;

/// An object that is not an item of a list. Written directly if possible.
pub struct Item<T>(pub T);

impl<T: DirectObject> OutputType for Item<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn qualified_type_name() -> String {
        T::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, context: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        match direct(context, |plan, json| plan.write(&self.0, json)) {
            Ok(json) => finish(context, field, json),
            Err(NotDirect) => self.0.resolve(context, field).await,
        }
    }
}

/// A list of objects. Written directly if possible.
///
/// Adds the size of its items to the size of the response. Other objects need not be counted, because only lists can
/// make a response large. A list is counted when it is complete. A large response is still stopped early, because a page
/// has at most 100 items, and the lists inside the items are counted separately.
///
/// The items are values of the type `T`, or references to such values.
pub struct Items<T, R = T>(Vec<R>, PhantomData<T>);

impl<T, R> FromIterator<R> for Items<T, R> {
    fn from_iter<I: IntoIterator<Item = R>>(items: I) -> Self {
        Self(items.into_iter().collect(), PhantomData)
    }
}

impl<T: DirectObject, R: OutputType + Borrow<T>> OutputType for Items<T, R> {
    fn type_name() -> Cow<'static, str> {
        Vec::<R>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<R>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<R>::create_type_info(registry)
    }

    async fn resolve(&self, context: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        size(context).before_growth().await.map_err(|error| fail(error, field))?;
        if let Ok(json) =
            direct(context, |plan: &Plan<'_, T>, json| plan.write_list(self.0.iter().map(R::borrow), json))
        {
            return finish(context, field, json);
        }
        let list = self.0.resolve(context, field).await?;
        if let Value::List(items) = &list {
            size(context).add(items.iter().map(json_size).sum()).map_err(|error| fail(error, field))?;
        }
        Ok(list)
    }
}

/// Writes the selected fields of objects of one type.
fn direct<'q, T: DirectObject>(
    context: &'q ContextSelectionSet<'q>,
    write: impl FnOnce(&Plan<'q, T>, &mut Json) -> Result<(), NotDirect>,
) -> Result<Json, NotDirect> {
    if context.data_unchecked::<MergesObjects>().0 {
        return Err(NotDirect);
    }
    let mut json = Json::default();
    write(&Plan::new(context, &context.item.node)?, &mut json)?;
    Ok(json)
}

/// Counts a text that was written directly, and returns it as a value.
fn finish(context: &ContextSelectionSet<'_>, field: &Positioned<Field>, json: Json) -> ServerResult<Value> {
    size(context).add(json.text.len()).map_err(|error| fail(error, field))?;
    record(Work::Value, json.values);
    Ok(Value::Binary(json.text.into()))
}

fn size<'c>(context: &ContextSelectionSet<'c>) -> &'c ResponseSize {
    context.data_unchecked::<Arc<ResponseSize>>()
}

fn fail(error: SizeError, field: &Positioned<Field>) -> async_graphql::ServerError {
    async_graphql::Error::from(Error::from(error)).into_server_error(field.pos)
}

/// Returns the approximate number of bytes of a value in JSON. Leaves out lists of objects, and what was written
/// directly, which are counted separately.
fn json_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Boolean(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Enum(name) => name.len() + 2,
        Value::Binary(_) => 0,
        Value::List(items) if matches!(items.first(), Some(Value::Object(_))) => 2,
        Value::List(items) => items.iter().map(|item| json_size(item) + 1).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + 4 + json_size(value)).sum(),
    }
}
