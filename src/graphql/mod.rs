//! The GraphQL schema: objects, inputs, resolvers, and the execution of documents.
//!
//! | files | purpose |
//! | --- | --- |
//! | `schema` | checks a request and executes it |
//! | `document` | parses a document, limits its size, checks its arguments and variables, and estimates its cost |
//! | `resolvers`, `inputs`, `objects` | the fields of queries and mutations, their arguments, and the types of results |
//! | `context`, `fetch`, `load_rounds` | give resolvers the caller and the services, and load rows of many fields together |
//! | `pagination`, `cursor` | pages of lists, and signed cursors |
//! | `items`, `json_writer` | write objects as JSON without async-graphql if all their rows are in memory |
//! | `errors`, `event_enums`, `time` | values that several types share |
//! | `webhook_body` | writes the body of a webhook delivery with the types of the schema |
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

pub use document::OperationSummary;
pub use errors::{ErrorExtensions, RenderedResponse, render_errors};
pub use json_writer::{count_values, write_value};
pub use schema::{CheckedRequest, Schema, introspection, sdl};
pub use webhook_body::ApiChangeRenderer;
