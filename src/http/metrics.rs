//! Metrics for Prometheus at `/metrics`. The metrics have a separate address, because clients must not see them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics::{Counter, Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sea_orm::Iterable;

use super::{Probes, endpoint};
use crate::database::{Database, PoolSize};
use crate::service::limits::{DisclosureKind, Limit};
use crate::service::phone_lookup::LookupOutcome;
use crate::service::webhooks::delivery::{DeliveryOutcome, DisableReason};

/// Upper bounds of the histogram of request durations, in seconds. The bounds range from the time of one index lookup
/// to the timeout of an execution.
const DURATION_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Starts to record metrics, and returns the router that serves the metrics and the probes. Panics if it is called
/// twice in a process.
pub fn metrics_router(database: Database, probes: &Arc<Probes>) -> Router {
    let recorder = install_recorder();
    describe_metrics();
    register_counters();
    tokio::spawn(run_upkeep(recorder.clone()));
    let handler = get(async move || {
        record_connections(&database);
        ([("content-type", "text/plain; version=0.0.4")], recorder.render())
    });
    Router::new().route("/metrics", handler).merge(probes.routes())
}

/// Makes all metrics of the process go to the returned recorder.
fn install_recorder() -> PrometheusHandle {
    let duration = Matcher::Full("vivamo_request_duration_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(duration, &DURATION_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .expect("one recorder in a process")
}

/// Sums the new durations up from time to time, so that they do not take more and more memory. Never returns.
async fn run_upkeep(recorder: PrometheusHandle) {
    const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        recorder.run_upkeep();
    }
}

/// Records the numbers of connections to the database.
fn record_connections(database: &Database) {
    let PoolSize { open, idle } = database.connections();
    gauge!("vivamo_database_connections", "state" => "idle").set(idle as f64);
    gauge!("vivamo_database_connections", "state" => "busy").set((open - idle) as f64);
    gauge!("vivamo_database_waiting").set(database.waiting() as f64);
}

/// Sets the help texts of the metrics.
fn describe_metrics() {
    describe_counter!(
        "vivamo_requests_total",
        "GraphQL requests, by kind of operation and first error code. If there is no error, the code is `OK`."
    );
    describe_histogram!(
        "vivamo_request_duration_seconds",
        Unit::Seconds,
        "Duration of GraphQL requests, by kind of operation."
    );
    describe_counter!(
        "vivamo_retries_total",
        "Retries of transactions, reads and openings of connections after a conflict, by operation."
    );
    describe_counter!("vivamo_cost_total", "Cost of the executed GraphQL requests, by kind of operation.");
    describe_counter!("vivamo_rate_limited_total", "Requests that a rate limit rejected, by limit.");
    describe_counter!(
        "vivamo_disclosures_total",
        "Disclosures: emails and phones that matched customers that are not connected to the operator, by kind."
    );
    describe_counter!(
        "vivamo_phone_lookups_total",
        "Carrier lookups, by outcome. A lookup sends up to three requests to Twilio. `busy` means that it was not made."
    );
    describe_counter!("vivamo_webhook_deliveries_total", "Attempts to deliver webhooks, by outcome.");
    describe_counter!("vivamo_webhooks_disabled_total", "Webhook endpoints that the service disabled, by reason.");
    describe_gauge!("vivamo_webhooks_disabled", "Webhook endpoints that the service or their operators have disabled.");
    describe_gauge!(
        "vivamo_webhook_lag_seconds",
        Unit::Seconds,
        "Age of the oldest change that waits for its delivery to a webhook endpoint. Endpoints that are failing do not count."
    );
    describe_gauge!("vivamo_database_connections", "Open connections to the database, by state.");
    describe_gauge!(
        "vivamo_feed_lag_seconds",
        Unit::Seconds,
        "Age of the oldest change that the feed does not show yet. 0 if it shows all changes."
    );
    describe_gauge!(
        "vivamo_unread_response_bytes",
        Unit::Bytes,
        "Total size of the responses that clients have not read completely."
    );
    describe_gauge!("vivamo_http_connections", "Open connections of clients to the API.");
    describe_gauge!("vivamo_requests_waiting", "Requests that wait because their key has too many in flight.");
    describe_gauge!(
        "vivamo_database_waiting",
        "Statements and transactions that wait for a connection to the database."
    );
}

/// Registers all counters that have a label.
fn register_counters() {
    endpoint::register_counters();
    register(Limit::counter);
    register(DisclosureKind::counter);
    register(LookupOutcome::counter);
    register(DeliveryOutcome::counter);
    register(DisableReason::counter);
}

/// Registers a counter for each value of its label, so that its series start with the value 0. The `increase` function
/// of Prometheus does not count the first event of a series that starts with the value 1.
fn register<Label: Iterable>(counter: impl Fn(Label) -> Counter) {
    for label in Label::iter() {
        counter(label).increment(0);
    }
}
