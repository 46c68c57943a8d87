//! Objects and lists of objects that `json_writer` writes if possible.
//!
//! The size of each item of a list, and of each object that `json_writer` writes, is added to the size of the response.
//! Other objects need not be counted, because only lists and errors can make a response large. `errors.rs` counts
//! errors.

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::resolver_utils::resolve_list;
use async_graphql::{ContextSelectionSet, OutputType, Positioned, ServerError, ServerResult, Value};

use super::context::request_data;
use super::json_writer::{CannotWriteJson, JsonText, ObjectWriter, WriteJson, count_values};
use crate::error::Error;
use crate::request::{ResponseSize, SizeError, Work, count_work};

/// A single object outside a list, which `json_writer` writes if possible. Used for customers, which most requests for
/// a single object ask for.
pub struct Single<T>(pub T);

impl<T: WriteJson> OutputType for Single<T> {
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
        match write_json(context, |writer, json| writer.write(&self.0, json)).await {
            Ok(Some(text)) => Ok(text),
            // A response that is too large must not lose the object: the payload of a mutation, whose change is
            // committed, cannot be null. The lists inside the object are counted, and can be null.
            Ok(None) | Err(_) => self.0.resolve(context, field).await,
        }
    }
}

/// A list of objects, which `json_writer` writes if possible. The items are values of the type `T`, or references to
/// such values.
pub struct Items<T, R = T>(Vec<R>, PhantomData<T>);

impl<T, R> FromIterator<R> for Items<T, R> {
    fn from_iter<I: IntoIterator<Item = R>>(items: I) -> Self {
        Self(items.into_iter().collect(), PhantomData)
    }
}

impl<T: WriteJson, R: OutputType + Borrow<T>> OutputType for Items<T, R> {
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
        response_size(context).ensure_memory().await.map_err(|error| fail(context, field, error))?;
        let write =
            |writer: &ObjectWriter<'_, T>, json: &mut JsonText| writer.write_list(self.0.iter().map(R::borrow), json);
        match write_json(context, write).await {
            Ok(Some(text)) => return Ok(text),
            Ok(None) => {}
            Err(error) => return Err(fail(context, field, error)),
        }
        let progress = Progress::default();
        let items = self.0.iter().map(|item| Counted { item, progress: &progress });
        match resolve_list(context, field, items, Some(self.0.len())).await {
            Ok(list) => Ok(list),
            Err(error) => {
                // The response does not contain the values of the items that were resolved before the error.
                count_work(Work::Value, progress.values.load(Ordering::Relaxed));
                let size_error = progress.size_error.get();
                Err(size_error.map_or(error, |size_error| fail(context, field, *size_error)))
            }
        }
    }
}

/// The progress of a list that async-graphql resolves.
#[derive(Default)]
struct Progress {
    /// The number of values of the complete items.
    values: AtomicU64,
    /// The error that stopped the list.
    size_error: OnceLock<SizeError>,
}

/// An item of a list that async-graphql resolves. Adds its own size to the size of the response when it is complete, so
/// that the list stops when the response is too large. The items can be much larger than the rows that were read,
/// because a document can select a long value many times.
struct Counted<'a, R> {
    item: &'a R,
    progress: &'a Progress,
}

impl<R: OutputType> OutputType for Counted<'_, R> {
    fn type_name() -> Cow<'static, str> {
        R::type_name()
    }

    fn qualified_type_name() -> String {
        R::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        R::create_type_info(registry)
    }

    async fn resolve(&self, context: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let size = response_size(context);
        let stop = |error| fail(context, field, *self.progress.size_error.get_or_init(|| error));
        // All items are polled together. Without this wait, all of them would be built while the first one waits.
        size.ensure_memory().await.map_err(stop)?;
        let value = self.item.resolve(context, field).await?;
        self.progress.values.fetch_add(count_values(&value), Ordering::Relaxed);
        size.add(json_size(&value)).map_err(stop)?;
        size.ensure_memory().await.map_err(stop)?;
        Ok(value)
    }
}

/// Writes the selected fields of objects of one type, and counts the text. If the text is longer than a small response,
/// discards it, waits until there is memory for a large response, and writes the text again. Returns `None` if
/// async-graphql must resolve the objects.
async fn write_json<T: WriteJson>(
    context: &ContextSelectionSet<'_>,
    write: impl Fn(&ObjectWriter<'_, T>, &mut JsonText) -> Result<(), CannotWriteJson>,
) -> Result<Option<Value>, SizeError> {
    if !request_data(context).writes_json {
        return Ok(None);
    }
    let size = response_size(context);
    loop {
        let (limit, may_wait) = (size.limit(), !size.has_reservation());
        match write_text(context, limit, &write) {
            Ok(JsonText { text, values, .. }) => {
                count_work(Work::Value, values);
                size.add(text.len())?;
                return Ok(Some(Value::Binary(text.into())));
            }
            Err(CannotWriteJson::TooLong) if may_wait => size.wait_for_memory().await?,
            // If the text is too long for any response, async-graphql resolves the list. Each list inside it is then
            // counted on its own, and the errors have the paths of the lists that do not fit.
            Err(CannotWriteJson::TooLong | CannotWriteJson::MustResolve) => return Ok(None),
        }
    }
}

fn write_text<T: WriteJson>(
    context: &ContextSelectionSet<'_>,
    limit: usize,
    write: impl Fn(&ObjectWriter<'_, T>, &mut JsonText) -> Result<(), CannotWriteJson>,
) -> Result<JsonText, CannotWriteJson> {
    let mut json = JsonText { text: Vec::new(), limit, values: 0 };
    write(&ObjectWriter::new(context, &context.item.node)?, &mut json)?;
    Ok(json)
}

fn response_size<'c>(context: &ContextSelectionSet<'c>) -> &'c ResponseSize {
    &request_data(context).response_size
}

fn fail(context: &ContextSelectionSet<'_>, field: &Positioned<Field>, error: SizeError) -> ServerError {
    context.set_error_path(async_graphql::Error::from(Error::from(error)).into_server_error(field.pos))
}

/// Returns the approximate number of bytes of a value in JSON. Leaves out the items of lists of objects, and texts of
/// `json_writer`: they were counted when they were complete.
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
