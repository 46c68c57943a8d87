//! Logs on standard error: text in sandbox, JSON in production. The logs hold no personal data and no SQL values.
//!
//! `RUST_LOG` sets the level, also per module, for example `RUST_LOG=warn,vivamo=debug`. With the feature `otlp`, spans go to
//! the OpenTelemetry collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use entity::deployment::Environment;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at the level of `RUST_LOG`, by default `info`. If the program panics, logs only the place of the
/// panic.
pub fn start(environment: Environment) {
    let setting = std::env::var("RUST_LOG").ok().filter(|setting| !setting.is_empty());
    let filter = setting.and_then(|setting| setting.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    // At `info` sqlx logs PostgreSQL's notices, such as "relation already exists, skipping" for each migration, and
    // sea_orm_migration logs two lines for each migration.
    let filter = filter.with_target("sqlx", LevelFilter::WARN).with_target("sea_orm_migration", LevelFilter::WARN);
    log_to(std::io::stderr, std::io::stderr().is_terminal(), filter, environment);
    std::panic::set_hook(Box::new(log_panic));
}

/// Starts logging to `writer`, once in a process.
pub fn log_to<W>(writer: W, is_terminal: bool, filter: Targets, environment: Environment)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logs = fmt::layer().with_ansi(is_terminal).with_writer(writer);
    let logs = match environment {
        Environment::Sandbox => logs.boxed(),
        Environment::Production => logs.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(logs);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(traces());
    subscriber.with(filter).init();
}

/// Sends spans to the OpenTelemetry collector. `None` if `OTEL_EXPORTER_OTLP_ENDPOINT` is not set.
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

/// Logs the place of a panic. Does not log the message, because the message may quote personal data.
pub fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}
