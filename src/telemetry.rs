//! Logs, on standard error: lines for people in sandbox, JSON in production. Nothing in them says who a customer is.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use entity::deployment::Environment;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts the logs; `RUST_LOG` sets what they tell, by default `info`.
pub fn start(environment: Environment) {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // PostgreSQL's notices that a table is there already.
    let filter = match "sqlx=warn".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    log_to(std::io::stderr, std::io::stderr().is_terminal(), filter, environment);
    std::panic::set_hook(Box::new(log_panic));
}

/// Starts the logs of this process.
pub fn log_to<W>(writer: W, is_terminal: bool, filter: EnvFilter, environment: Environment)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(writer);
    match environment {
        Environment::Sandbox => logs.init(),
        Environment::Production => logs.json().flatten_event(true).init(),
    }
}

/// Tells where a panic was, not what it said: its message may quote what it could not handle.
pub fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}
