//! The document of a request: its text, its limits, the checks of its arguments and variables, its cache, and the
//! estimate of its cost.

mod arguments;
mod cache;
mod cost_estimate;
mod fields;
mod limit;
mod limits;
mod operation;
mod rewrite;
mod size;
mod text;
mod variables;

pub use cache::{Document, DocumentCache};
pub use operation::{Operation, describe_operation};
