//! The GraphQL schema: objects, inputs, resolvers, and the execution of documents.
//!
//! Fields that can fail alone return `Option<Result<T, Error>>`: async-graphql then sets the field to null and reports the
//! error. `Result<Option<T>, Error>` would set the parent object to null.
//!
//! Files import each other in one direction only: there are no cycles.

mod context;
mod cursor;
mod customer_input;
mod document_cache;
mod document_limits;
mod errors;
mod fetch;
mod load_rounds;
mod objects;
mod pagination;
mod resolvers;
mod schema;
mod time;
mod variables;

pub use document_limits::Operation;
pub use errors::{ErrorExtensions, Rendered, render};
pub use schema::{Schema, introspection, sdl};
