//! Logs, on standard error: lines for people in sandbox, JSON in production. Nothing in them says who a customer is.

use std::io::IsTerminal;

use entity::deployment::Environment;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts the logs; `RUST_LOG` sets what they tell, by default `info`.
pub fn start(environment: Environment) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // PostgreSQL's notices that a table is there already.
    let filter = match "sqlx=warn".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match environment {
        Environment::Sandbox => logs.init(),
        Environment::Production => logs.json().flatten_event(true).init(),
    }
    // A panic's message may quote what it could not handle: tell where it was, not what it said.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
}
