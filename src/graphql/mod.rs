//! The GraphQL schema: objects, inputs, resolvers, and the execution of documents.
//!
//! A field that can fail without its parent object returns `Option<Result<T, Error>>`. If the field fails,
//! async-graphql sets it to null and reports the error. `Result<Option<T>, Error>` would set the parent object to null.
//!
//! Files import each other in one direction only: there are no cycles.

mod context;
mod cost;
mod cursor;
mod customer_input;
mod document_cache;
mod document_limits;
mod errors;
mod fetch;
mod items;
mod load_rounds;
mod objects;
mod pagination;
mod resolvers;
mod schema;
mod time;
mod variables;
mod webhooks;

pub use cost::answer_size;
pub use document_limits::Operation;
pub use errors::{ErrorExtensions, Rendered, render};
pub use schema::{Schema, introspection, sdl};
pub use webhooks::WebhookRender;
