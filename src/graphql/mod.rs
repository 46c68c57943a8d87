//! The GraphQL schema: objects, inputs, resolvers, and the execution of documents.
//!
//! If an error of a field must not affect its parent object, the field returns `Option<Result<T, Error>>`. After an
//! error, async-graphql sets only the field to null. With `Result<Option<T>, Error>`, it would set the parent object to
//! null.

mod arguments;
mod context;
mod cost;
mod cursor;
mod customer_input;
mod customer_list_input;
mod direct;
mod document_cache;
mod document_fields;
mod document_limits;
mod document_size;
mod document_text;
mod errors;
mod event_enums;
mod fetch;
mod items;
mod load_rounds;
mod objects;
mod operation;
mod pagination;
mod resolvers;
mod rewrite;
mod schema;
mod time;
mod variables;
mod violations;
mod webhook_body;

pub use direct::{count_values, write_value};
pub use errors::{ErrorExtensions, Rendered, render};
pub use operation::Operation;
pub use schema::{Schema, introspection, sdl};
pub use webhook_body::WebhookRender;
