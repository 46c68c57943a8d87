//! The customer records of the Vivamo payments platform. README.md explains the floors of this code.

pub mod cli;
pub mod config;
pub mod database;
pub mod error;
pub mod graphql;
pub mod http;
pub mod keyed_hash;
pub mod service;
pub mod telemetry;
