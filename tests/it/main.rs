//! The promises of the service, each through real HTTP and on both databases.

mod app;
mod postgres;

mod cli;
mod create;
mod databases;
mod errors;
mod floors;
mod guide;
mod http;
mod keys;
mod pages;
mod races;
mod schema;
mod update;
mod visibility;
