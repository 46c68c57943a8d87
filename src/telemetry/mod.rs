//! Logs on standard error: text in sandbox, JSON in production. The logs hold no personal data of customers and no SQL
//! values.
//!
//! A thread writes the lines ([`log_writer`]), at most 100 ms late.
//!
//! `RUST_LOG` sets the level, also per module, for example `RUST_LOG=warn,vivamo=debug`. Dependencies log at most at
//! `info`, because some dependencies trace phone numbers, URLs or headers. The span of a request costs time, so it is
//! made only at level `debug`, or with the feature `otlp`. With this feature, spans go to the OpenTelemetry collector
//! that `OTEL_EXPORTER_OTLP_ENDPOINT` names.

mod log_writer;

use std::panic::PanicHookInfo;
use std::time::Duration;

use entity::deployment::Environment;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use log_writer::LogWriter;

/// The maximum time that the end of the program waits for the program that reads the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of the program. When this value is dropped, the lines that are not written yet are written.
#[must_use = "the last lines of the log are lost if this value is dropped too early, or not at all"]
pub struct Log(LogWriter);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// Starts logging at the level of `RUST_LOG`, by default `info`. If the program panics, logs only the place of the
/// panic. Returns a message if `RUST_LOG` or the endpoint for traces is invalid, or if the thread cannot be started.
pub fn start(environment: Environment) -> Result<Log, String> {
    let setting = std::env::var_os("RUST_LOG").filter(|setting| !setting.is_empty());
    let filter = filter(&setting.map_or_else(|| "info".into(), |setting| setting.to_string_lossy().into_owned()))?;
    let writer = LogWriter::start(std::io::stderr()).map_err(|cause| format!("cannot start the log: {cause}"))?;
    log_to(writer.clone(), filter, environment)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(writer))
}

/// The target of the service. All other targets are dependencies.
const OWN_TARGET: &str = "vivamo";

/// The most verbose level of a dependency.
const MAX_OF_DEPENDENCIES: LevelFilter = LevelFilter::INFO;

/// Parses `RUST_LOG`: levels and `TARGET=LEVEL` pairs, separated by commas. Returns a message if a part is invalid.
pub fn filter(setting: &str) -> Result<Targets, String> {
    let mut default = LevelFilter::OFF;
    let mut levels = Vec::new();
    for part in setting.split(',').map(str::trim) {
        let (target, name) = part.split_once('=').unwrap_or(("", part));
        // An empty name would count as `error`.
        let level = Some(name).filter(|name| !name.is_empty()).and_then(|name| name.parse().ok());
        let level = level.ok_or_else(|| {
            format!(
                "RUST_LOG has an invalid part: `{part}`. Write a level (off, error, warn, info, debug or trace) or \
                 TARGET=LEVEL, separated by commas, for example RUST_LOG=warn,vivamo=debug"
            )
        })?;
        if target.is_empty() {
            default = level;
        } else {
            levels.push((target, level));
        }
    }
    // At `info` sqlx logs PostgreSQL's notices, such as "relation already exists, skipping" several times in each run
    // of the migrations, and sea_orm_migration logs two lines for each migration.
    let quiet = ["sqlx", "sea_orm_migration"].map(|target| (target, default.min(LevelFilter::WARN)));
    let allowed = |(target, level): (&str, LevelFilter)| {
        let is_own = target.starts_with(OWN_TARGET);
        (target.to_owned(), if is_own { level } else { level.min(MAX_OF_DEPENDENCIES) })
    };
    let filter = Targets::new().with_default(default.min(MAX_OF_DEPENDENCIES)).with_target(OWN_TARGET, default);
    Ok(filter.with_targets(quiet).with_targets(levels.into_iter().map(allowed)))
}

/// Starts logging to `writer`. Must be called at most once in a process. Returns a message if the endpoint for traces
/// is invalid.
pub fn log_to<W>(writer: W, filter: Targets, environment: Environment) -> Result<(), String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logs = fmt::layer().with_ansi(false).with_writer(writer);
    let logs = match environment {
        Environment::Sandbox => logs.boxed(),
        Environment::Production => logs.json().flatten_event(true).boxed(),
    };
    #[cfg(feature = "otlp")]
    tracing_subscriber::registry().with(logs.with_filter(filter)).with(traces()?).init();
    #[cfg(not(feature = "otlp"))]
    tracing_subscriber::registry().with(logs).with(filter).init();
    Ok(())
}

#[cfg(feature = "otlp")]
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Sends spans to the OpenTelemetry collector. Returns `None` if [`OTLP_ENDPOINT`] is not set or empty.
#[cfg(feature = "otlp")]
fn traces<S>() -> Result<Option<impl Layer<S>>, String>
where
    S: tracing::Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
{
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::filter::filter_fn;
    if std::env::var_os(OTLP_ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let exporter = exporter.map_err(|cause| format!("cannot send traces to {OTLP_ENDPOINT}: {cause}"))?;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = provider.tracer("vivamo");
    opentelemetry::global::set_tracer_provider(provider);
    let spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(OWN_TARGET));
    let spans = spans.with_max_level_hint(LevelFilter::DEBUG);
    Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(spans)))
}

/// Logs the place of a panic. Does not log the message, because the message may quote personal data.
pub fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn dependencies_log_at_most_at_info() {
        let enabled = |setting: &str, target: &str| {
            let filter = filter(setting).unwrap();
            let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
            levels.into_iter().filter(|level| filter.would_enable(target, level)).count()
        };
        for (setting, own, hyper, sqlx) in [
            ("info", 3, 3, 2),
            ("trace", 5, 3, 2),
            ("error", 1, 1, 1),
            ("off", 0, 0, 0),
            ("vivamo=debug", 4, 0, 0),
            ("warn, vivamo=debug", 4, 2, 2),
            ("vivamo::service=trace,warn", 5, 2, 2),
            ("info,hyper=trace,hyper::proto=trace,sqlx=debug", 3, 3, 3),
        ] {
            let levels = ["vivamo::service", "hyper::proto", "sqlx::query"].map(|target| enabled(setting, target));
            assert_eq!(levels, [own, hyper, sqlx], "{setting}");
        }
        for setting in ["loud", "info,", "vivamo", "vivamo=", "vivamo=loud"] {
            assert!(filter(setting).unwrap_err().starts_with("RUST_LOG has an invalid part: `"), "{setting}");
        }
    }
}
