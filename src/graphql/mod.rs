//! The GraphQL schema: objects, inputs, resolvers, and the execution of documents.
//!
//! If an error of a field must not affect its parent object, the field returns `Option<Result<T, Error>>`. After an
//! error, async-graphql sets only the field to null. With `Result<Option<T>, Error>`, it would set the parent object to
//! null.

mod context;
mod cursor;
mod document;
mod errors;
mod event_enums;
mod fetch;
mod inputs;
mod items;
mod json_writer;
mod load_rounds;
mod objects;
mod pagination;
mod resolvers;
mod schema;
mod time;
mod webhook_body;

pub use document::Operation;
pub use errors::{ErrorExtensions, RenderedResponse, render_errors};
pub use json_writer::{count_values, write_value};
pub use schema::{CheckedRequest, Schema, introspection, sdl};
pub use webhook_body::ApiChangeRenderer;
