//! Logs, on standard error: lines for people in sandbox, JSON in production. Nothing in them says who a customer is.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use entity::deployment::Environment;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
#[cfg(not(feature = "otlp"))]
use tracing_subscriber::layer::Identity;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the logs; `RUST_LOG` sets what they tell, by default `info`.
pub fn start(environment: Environment) {
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let wanted: Option<Targets> = wanted.and_then(|wanted| wanted.parse().ok());
    // PostgreSQL's notices that a table is there already.
    let filter =
        wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO)).with_target("sqlx", LevelFilter::WARN);
    log_to(std::io::stderr, std::io::stderr().is_terminal(), filter, environment);
    std::panic::set_hook(Box::new(log_panic));
}

/// Starts the logs of this process.
pub fn log_to<W>(writer: W, is_terminal: bool, filter: Targets, environment: Environment)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logs = fmt::layer().with_ansi(is_terminal).with_writer(writer);
    let logs = match environment {
        Environment::Sandbox => logs.boxed(),
        Environment::Production => logs.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(logs).with(traces()).with(filter).init();
}

#[cfg(not(feature = "otlp"))]
fn traces() -> Identity {
    Identity::new()
}

/// Sends traces where OpenTelemetry's own variable says, if it does.
#[cfg(feature = "otlp")]
fn traces<S>() -> Option<impl Layer<S>>
where
    S: tracing::Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
{
    use opentelemetry::trace::TracerProvider;
    std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build().ok()?;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = provider.tracer("vivamo");
    opentelemetry::global::set_tracer_provider(provider);
    Some(tracing_opentelemetry::layer().with_tracer(tracer))
}

/// Projection where a panic was, not what it said: its message may quote what it could not handle.
pub fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}
