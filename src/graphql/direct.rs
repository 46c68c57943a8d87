//! Writes objects as JSON text, without a future and a value for each field.
//!
//! async-graphql resolves each field with a boxed future, collects the values in hash maps, and serializes these maps.
//! For a page of customers, these steps take half of the server's processor time. Most fields need no future, because
//! their rows are in memory. If this is true for all selected fields of an object, the object is written directly. Its
//! text becomes one value of async-graphql (`Value::Binary`), and [`write_value`] copies the text into the response.
//!
//! async-graphql still resolves an object if
//!
//! - its type has no writer for a selected field ([`DirectObject::writer`]), for example for `history`;
//! - the rows of a selected field are not in memory;
//! - the document selects any object twice with the same response key. async-graphql merges the values of both
//!   selections, and it cannot merge texts.
//!
//! Both ways return the same text; tests compare them. `docs/benchmarks.md` has the gain.

use std::borrow::Borrow;
use std::collections::HashSet;

use async_graphql::futures_util::FutureExt;
use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::resolver_utils::ContainerType;
use async_graphql::{ContextSelectionSet, InputType, Positioned, Value};

use super::cost::{Fragments, answer_size};
use crate::database::MAX_RESPONSE_BYTES;

/// The object cannot be written directly.
pub struct NotDirect;

/// Writes the value of one field of a `T`.
pub type Writer<'q, T> = Box<dyn Fn(&T, &mut Json) -> Result<(), NotDirect> + Send + Sync + 'q>;

/// A type whose objects can be written directly.
pub trait DirectObject: ContainerType + Sized + 'static {
    /// Returns the writer of a selected field. Fails if the resolver of the field may have to wait for rows.
    fn writer<'q>(field: &SelectedField<'q>) -> Result<Writer<'q, Self>, NotDirect> {
        Ok(field.resolver())
    }
}

/// True if the document of the request selects an object twice with the same response key ([`merges_objects`]).
pub struct MergesObjects(pub bool);

/// A field of a document, and the context of its request.
pub struct SelectedField<'q> {
    pub context: &'q ContextSelectionSet<'q>,
    field: &'q Positioned<Field>,
}

impl<'q> SelectedField<'q> {
    pub fn name(&self) -> &'q str {
        self.field.node.name.node.as_str()
    }

    /// Returns the value of an argument. Fails if the value is not valid, so that async-graphql reports the error.
    pub fn argument<A: InputType>(&self, name: &str) -> Result<A, NotDirect> {
        let argument = self.context.with_field(self.field).param_value(name, None);
        argument.map(|(_, value)| value).map_err(|_| NotDirect)
    }

    /// Writes the field with its resolver, which must not wait.
    pub fn resolver<T: DirectObject>(&self) -> Writer<'q, T> {
        let context = self.context.with_field(self.field);
        Box::new(move |object, json| {
            let resolved = object.resolve_field(&context).now_or_never();
            debug_assert!(resolved.is_some(), "the resolver of {} waits", context.item.node.name);
            match resolved {
                Some(Ok(value)) => json.write(&value.unwrap_or_default()),
                Some(Err(_)) | None => Err(NotDirect),
            }
        })
    }

    /// Writes an object that is a part of another object.
    pub fn object<T, O: DirectObject>(
        &self,
        get: impl Fn(&T) -> &O + Send + Sync + 'q,
    ) -> Result<Writer<'q, T>, NotDirect> {
        let plan = self.plan()?;
        Ok(Box::new(move |object, json| plan.write(get(object), json)))
    }

    /// Returns the plan for the objects in this field.
    pub fn plan<T: DirectObject>(&self) -> Result<Plan<'q, T>, NotDirect> {
        Plan::new(self.context, &self.field.node.selection_set.node)
    }
}

/// The writers of the selected fields of a type, in the order of the response.
pub struct Plan<'q, T> {
    /// The fields with their response keys.
    fields: Vec<(&'q str, Writer<'q, T>)>,
}

impl<'q, T: DirectObject> Plan<'q, T> {
    pub fn new(context: &'q ContextSelectionSet<'q>, set: &'q SelectionSet) -> Result<Self, NotDirect> {
        let mut plan = Self { fields: Vec::with_capacity(set.items.len()) };
        plan.add(context, set)?;
        Ok(plan)
    }

    /// Adds the fields of a selection set. Validation ensures that all fragments in it apply to the type.
    fn add(&mut self, context: &'q ContextSelectionSet<'q>, set: &'q SelectionSet) -> Result<(), NotDirect> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => self.add_field(SelectedField { context, field })?,
                Selection::InlineFragment(inline) => self.add(context, &inline.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => {
                    let fragment = context.query_env.fragments.get(&spread.node.fragment_name.node);
                    self.add(context, &fragment.ok_or(NotDirect)?.node.selection_set.node)?;
                }
            }
        }
        Ok(())
    }

    fn add_field(&mut self, field: SelectedField<'q>) -> Result<(), NotDirect> {
        let key = field.field.node.response_key().node.as_str();
        if !self.fields.iter().any(|(known, _)| *known == key) {
            let writer = if field.name() == "__typename" {
                let name = Value::from(T::type_name());
                Box::new(move |_: &T, json: &mut Json| json.write(&name))
            } else {
                T::writer(&field)?
            };
            self.fields.push((key, writer));
        }
        Ok(())
    }

    pub fn write(&self, object: &T, json: &mut Json) -> Result<(), NotDirect> {
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
            json.text.push(b'{');
        }
        json.text.push(b'}');
        Ok(())
    }

    pub fn write_optional(&self, object: Option<&T>, json: &mut Json) -> Result<(), NotDirect> {
        match object {
            Some(object) => self.write(object, json),
            None => json.write(&Value::Null),
        }
    }

    pub fn write_list(
        &self,
        objects: impl IntoIterator<Item = impl Borrow<T>>,
        json: &mut Json,
    ) -> Result<(), NotDirect> {
        json.text.push(b'[');
        for (index, object) in objects.into_iter().enumerate() {
            if index > 0 {
                json.text.push(b',');
            }
            self.write(object.borrow(), json)?;
            if json.text.len() > MAX_RESPONSE_BYTES {
                return Err(NotDirect);
            }
        }
        json.text.push(b']');
        Ok(())
    }
}

/// A JSON text that is being written.
#[derive(Default)]
pub struct Json {
    pub text: Vec<u8>,
    /// The number of values in the text, as [`answer_size`](super::answer_size) counts them.
    pub values: u64,
}

impl Json {
    fn write(&mut self, value: &Value) -> Result<(), NotDirect> {
        write_value(value, &mut self.text).map_err(|_| NotDirect)?;
        self.values += answer_size(value);
        Ok(())
    }
}

/// Returns true if a selection set of the document, with its fragments expanded, has two fields with selections and the
/// same response key.
pub fn merges_objects(document: &ExecutableDocument) -> bool {
    let mut sets = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    sets.any(|set| has_merged_fields(set, &document.fragments))
}

fn has_merged_fields(set: &SelectionSet, fragments: &Fragments) -> bool {
    let mut fields = Vec::new();
    collect_fields(set, fragments, &mut fields);
    fields.retain(|field| !field.selection_set.node.items.is_empty());
    let keys: HashSet<_> = fields.iter().map(|field| &field.response_key().node).collect();
    keys.len() < fields.len() || fields.iter().any(|field| has_merged_fields(&field.selection_set.node, fragments))
}

fn collect_fields<'d>(set: &'d SelectionSet, fragments: &'d Fragments, fields: &mut Vec<&'d Field>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(inline) => collect_fields(&inline.node.selection_set.node, fragments, fields),
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    collect_fields(&fragment.node.selection_set.node, fragments, fields);
                }
            }
        }
    }
}

/// Appends a value of async-graphql to a JSON text. A binary value is a text that was written directly.
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
