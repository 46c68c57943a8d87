//! The customer records of the Vivamo payments platform. docs/architecture.md explains the layers, and the words that
//! the code uses.

pub mod app;
pub mod cli;
pub mod config;
pub mod database;
pub mod error;
pub mod fatal_error;
pub mod graphql;
pub mod http;
pub mod jobs;
pub mod keyed_hash;
pub mod open;
pub mod request;
pub mod service;
pub mod telemetry;
