//! The document of a request: its limits, its checks, its cache, and the estimate of its cost. `cache.rs` runs these
//! steps in order:
//!
//! 1. `text.rs` limits the text and parses it. `limits.rs` limits the parsed document.
//! 2. `normalise.rs` expands the fragments and merges equal fields. `conflicts.rs` rejects different fields with one
//!    response key. `limits.rs` limits the fields at the root.
//! 3. `arguments.rs` checks the names of fields and arguments, and the types of arguments and variables.
//!    `variable_names.rs` checks that each variable is defined once and used.
//! 4. Of the requested operation, `variables.rs` checks the values of the variables, and finds the missing ones.
//! 5. `variant.rs` removes the missing variables, and replaces those in conditions by their values. Step 2 follows
//!    again, for this operation.
//!
//! Steps 1 to 3 and step 5 are skipped if their result is cached. `summary.rs` then summarises the operation, and
//! `cost_estimate.rs` estimates its cost.

mod arguments;
mod cache;
mod conflicts;
mod cost_estimate;
mod fields;
mod limit;
mod limits;
mod normalise;
mod size;
mod summary;
mod text;
mod variable_names;
mod variables;
mod variant;

pub use cache::{DocumentCache, ExecutableOperation};
pub use summary::{OperationSummary, summarise};
