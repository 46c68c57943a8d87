//! The fields of `Query` and `Mutation`, by topic. A resolver parses its input, makes at most one service call and
//! wraps the result.

pub mod audit;
pub mod changes;
pub mod customers;
pub mod erasures;
pub mod history;
pub mod node;
pub mod operators;
pub mod verification;
pub mod viewer;
pub mod webhooks;
