//! The document of a request: its text, its limits, the checks of its arguments and variables, its cache, and the
//! estimate of its cost.

mod arguments;
mod cache;
mod conflicts;
mod cost_estimate;
mod fields;
mod limit;
mod limits;
mod normalise;
mod operation;
mod size;
mod text;
mod variable_names;
mod variables;
mod variant;

pub use cache::{Document, DocumentCache};
pub use operation::{Operation, describe_operation};
