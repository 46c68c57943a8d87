//! Writes objects as JSON text, without the boxed futures and the hash maps of async-graphql.
//!
//! async-graphql resolves each field with a boxed future, collects the values in hash maps, and serializes these maps.
//! For a page of customers, these steps take half of the server's processor time. Most resolvers do not wait, because
//! their rows are in memory. If this is true for all selected fields of an object, this module writes the object, field
//! by field. For most fields, the resolver is polled once and its value is written. For some fields, the type of the
//! object has a writer ([`WriteJson::field_writer`]) that is used instead of the resolver, because the resolver may
//! wait, or because it copies a value that a page has many times. The text of the object becomes one value of
//! async-graphql (`Value::Binary`), and [`write_value`] copies the text into the response.
//!
//! async-graphql still resolves an object if
//!
//! - the resolver of a selected field may wait ([`WriteJson::MAY_WAIT`]), for example for `history`, or
//! - rows that the object needs are not in memory. If this is true for one item of a list, async-graphql resolves the
//!   whole list. This module may still write the lists inside its items.
//!
//! async-graphql could not merge the texts of two fields with the same response key. No document has two such fields
//! that are objects: see `document::normalise`.
//!
//! Both ways return the same text; tests compare them. `docs/benchmarks.md` has the gain.

use std::borrow::Borrow;
use std::fmt::Display;
use std::io::Write;

use async_graphql::futures_util::FutureExt;
use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::resolver_utils::ContainerType;
use async_graphql::{ContextSelectionSet, InputType, Positioned, Value};

/// The reason why this module cannot write an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CannotWriteJson {
    /// async-graphql must resolve the object.
    MustResolve,
    /// The text is longer than [`JsonText::limit`].
    TooLong,
}

/// Writes the value of one field of a `T`.
pub type FieldWriter<'q, T> = Box<dyn Fn(&T, &mut JsonText) -> Result<(), CannotWriteJson> + Send + Sync + 'q>;

/// A type whose objects this module can write.
pub trait WriteJson: ContainerType + Sized + 'static {
    /// The names of all fields whose resolver may wait or add an error. This includes the selected fields inside the
    /// value of the field. If the value is an object that has such fields, use [`object`](SelectedField::object) in
    /// [`field_writer`](Self::field_writer) instead, which asks the type of this object for its writers. In debug
    /// builds, the resolver of a field that is not listed panics if it waits. In release builds, async-graphql then
    /// resolves the object.
    const MAY_WAIT: &'static [&'static str] = &[];

    /// Returns the writer of a selected field. The default writer calls the resolver.
    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        field.resolver()
    }
}

/// A selected field. `context` belongs to the outermost object or list that this module writes. The path of `context`
/// therefore ends there: it has no indexes and fields inside this object or list.
pub struct SelectedField<'q> {
    pub context: &'q ContextSelectionSet<'q>,
    field: &'q Positioned<Field>,
}

impl<'q> SelectedField<'q> {
    pub fn name(&self) -> &'q str {
        self.field.node.name.node.as_str()
    }

    /// Returns the value of an argument. Fails if the value is not valid, so that async-graphql reports the error.
    pub fn argument<A: InputType>(&self, name: &str) -> Result<A, CannotWriteJson> {
        let argument = self.context.with_field(self.field).param_value(name, None);
        argument.map(|(_, value)| value).map_err(|_| CannotWriteJson::MustResolve)
    }

    /// Returns a writer that calls the resolver of the field. Fails if the resolver may wait ([`WriteJson::MAY_WAIT`]).
    pub fn resolver<T: WriteJson>(&self) -> Result<FieldWriter<'q, T>, CannotWriteJson> {
        if T::MAY_WAIT.contains(&self.name()) {
            return Err(CannotWriteJson::MustResolve);
        }
        let context = self.context.with_field(self.field);
        Ok(Box::new(move |object, json| {
            let resolved = object.resolve_field(&context).now_or_never();
            debug_assert!(resolved.is_some(), "the resolver of {} waits", context.item.node.name);
            match resolved {
                Some(Ok(value)) => json.write(&value.unwrap_or_default()),
                Some(Err(_)) | None => Err(CannotWriteJson::MustResolve),
            }
        }))
    }

    /// Returns a writer for a field that is an id. Unlike the resolver of the field, it does not allocate a string.
    pub fn id<T, I: Display>(
        &self,
        get: impl Fn(&T) -> I + Send + Sync + 'q,
    ) -> Result<FieldWriter<'q, T>, CannotWriteJson> {
        Ok(Box::new(move |object, json| json.write_id(get(object))))
    }

    /// Returns a writer for a field that is a string inside the object, or null. `get` returns this string. Unlike the
    /// resolver of the field, the writer does not copy the string before it writes the string.
    pub fn string<T>(
        &self,
        get: impl Fn(&T) -> Option<&str> + Send + Sync + 'q,
    ) -> Result<FieldWriter<'q, T>, CannotWriteJson> {
        Ok(Box::new(move |object, json| json.write_string(get(object))))
    }

    /// Returns a writer for a field whose value is an object inside its parent. `get` returns this object.
    pub fn object<T, O: WriteJson>(
        &self,
        get: impl Fn(&T) -> &O + Send + Sync + 'q,
    ) -> Result<FieldWriter<'q, T>, CannotWriteJson> {
        let writer = self.object_writer()?;
        Ok(Box::new(move |object, json| writer.write(get(object), json)))
    }

    /// Returns the writer of the objects in this field.
    pub fn object_writer<T: WriteJson>(&self) -> Result<ObjectWriter<'q, T>, CannotWriteJson> {
        ObjectWriter::new(self.context, &self.field.node.selection_set.node)
    }
}

/// Writes objects of a type: has the writers of the selected fields, in the order of the response.
pub struct ObjectWriter<'q, T> {
    /// The fields with their response keys.
    fields: Vec<(&'q str, FieldWriter<'q, T>)>,
}

impl<'q, T: WriteJson> ObjectWriter<'q, T> {
    pub fn new(context: &'q ContextSelectionSet<'q>, set: &'q SelectionSet) -> Result<Self, CannotWriteJson> {
        let mut writer = Self { fields: Vec::with_capacity(set.items.len()) };
        writer.add(context, set)?;
        Ok(writer)
    }

    /// Adds the fields of a selection set. Skips fragments on other types. Validation allows such fragments inside a
    /// fragment on an interface.
    fn add(&mut self, context: &'q ContextSelectionSet<'q>, set: &'q SelectionSet) -> Result<(), CannotWriteJson> {
        for selection in &set.items {
            let (condition, set) = match &selection.node {
                Selection::Field(field) => {
                    self.add_field(SelectedField { context, field })?;
                    continue;
                }
                Selection::InlineFragment(Positioned { node: inline, .. }) => {
                    (inline.type_condition.as_ref(), &inline.selection_set)
                }
                // A normalised document has no fragment spreads.
                Selection::FragmentSpread(_) => return Err(CannotWriteJson::MustResolve),
            };
            let name = T::type_name();
            let interfaces = context.schema_env.registry.implements.get(name.as_ref());
            let applies = |condition: &str| name == condition || interfaces.is_some_and(|all| all.contains(condition));
            if condition.is_none_or(|condition| applies(&condition.node.on.node)) {
                self.add(context, &set.node)?;
            }
        }
        Ok(())
    }

    fn add_field(&mut self, field: SelectedField<'q>) -> Result<(), CannotWriteJson> {
        let key = field.field.node.response_key().node.as_str();
        // Only `id` and `__typename` can be here twice, in a fragment on `Node` and outside.
        if !self.fields.iter().any(|(known, _)| *known == key) {
            let writer = if field.name() == "__typename" {
                let name = Value::from(T::type_name());
                Box::new(move |_: &T, json: &mut JsonText| json.write(&name))
            } else {
                T::field_writer(&field)?
            };
            self.fields.push((key, writer));
        }
        Ok(())
    }

    pub fn write(&self, object: &T, json: &mut JsonText) -> Result<(), CannotWriteJson> {
        let mut separator = b'{';
        for (key, writer) in &self.fields {
            // A name in GraphQL needs no escapes in JSON.
            json.text.extend_from_slice(&[separator, b'"']);
            json.text.extend_from_slice(key.as_bytes());
            json.text.extend_from_slice(b"\":");
            writer(object, json)?;
            separator = b',';
        }
        if self.fields.is_empty() {
            // Directives have removed all fields, or all fragments are on other types.
            json.text.push(b'{');
        }
        json.text.push(b'}');
        Ok(())
    }

    pub fn write_optional(&self, object: Option<&T>, json: &mut JsonText) -> Result<(), CannotWriteJson> {
        match object {
            Some(object) => self.write(object, json),
            None => json.write(&Value::Null),
        }
    }

    pub fn write_list(
        &self,
        objects: impl IntoIterator<Item = impl Borrow<T>>,
        json: &mut JsonText,
    ) -> Result<(), CannotWriteJson> {
        json.text.push(b'[');
        for (index, object) in objects.into_iter().enumerate() {
            if index > 0 {
                json.text.push(b',');
            }
            self.write(object.borrow(), json)?;
            if json.text.len() > json.limit {
                return Err(CannotWriteJson::TooLong);
            }
        }
        json.text.push(b']');
        Ok(())
    }
}

/// A JSON text that is being written.
pub struct JsonText {
    pub text: Vec<u8>,
    /// The maximum length of the text, checked after each item of a list.
    pub limit: usize,
    /// The number of values in the text, as [`count_values`] counts them.
    pub values: u64,
}

impl JsonText {
    fn write(&mut self, value: &Value) -> Result<(), CannotWriteJson> {
        write_value(value, &mut self.text).map_err(|_| CannotWriteJson::MustResolve)?;
        self.values += count_values(value);
        Ok(())
    }

    fn write_id(&mut self, id: impl Display) -> Result<(), CannotWriteJson> {
        // The characters of an id need no escapes in JSON.
        write!(self.text, "\"{id}\"").map_err(|_| CannotWriteJson::MustResolve)?;
        self.values += 1;
        Ok(())
    }

    fn write_string(&mut self, text: Option<&str>) -> Result<(), CannotWriteJson> {
        serde_json::to_writer(&mut self.text, &text).map_err(|_| CannotWriteJson::MustResolve)?;
        self.values += count_string(text.unwrap_or_default());
        Ok(())
    }
}

/// Counts the values of a response that are not lists or objects, and adds one for each full 100 bytes of each string.
/// Leaves out texts of [`JsonText`], whose values are counted as `Work::Value`.
pub fn count_values(value: &Value) -> u64 {
    match value {
        Value::Binary(_) => 0,
        Value::List(items) => items.iter().map(count_values).sum(),
        Value::Object(fields) => fields.values().map(count_values).sum(),
        Value::String(text) => count_string(text),
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Enum(_) => 1,
    }
}

fn count_string(text: &str) -> u64 {
    1 + text.len() as u64 / 100
}

/// Appends a value of async-graphql to a JSON text. A binary value is the text of a [`JsonText`].
pub fn write_value(value: &Value, text: &mut Vec<u8>) -> serde_json::Result<()> {
    match value {
        Value::Binary(json) => text.extend_from_slice(json),
        Value::Null | Value::Boolean(_) | Value::Number(_) | Value::String(_) | Value::Enum(_) => {
            serde_json::to_writer(text, value)?;
        }
        Value::List(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write_value(item, text)?;
            }
            text.push(b']');
        }
        Value::Object(fields) => {
            text.push(b'{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                serde_json::to_writer(&mut *text, name)?;
                text.push(b':');
                write_value(value, text)?;
            }
            text.push(b'}');
        }
    }
    Ok(())
}
