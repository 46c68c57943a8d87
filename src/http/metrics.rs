//! Metrics for Prometheus at `/metrics`. They have an address of their own: clients must not see how much is going on.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use super::{HttpSettings, connections};
use crate::database::Database;

/// Upper bounds of the histogram of request durations, in seconds: from one index lookup to the timeout of a request.
const DURATION_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The metrics of this process, bound to their address and not served yet.
pub struct Metrics {
    listener: TcpListener,
    recorder: PrometheusHandle,
}

impl Metrics {
    /// Starts to record metrics. Panics the second time in a process.
    pub fn new(listener: TcpListener) -> Self {
        let duration = Matcher::Full("vivamo_request_duration_seconds".to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(duration, &DURATION_BUCKETS)
            .and_then(PrometheusBuilder::install_recorder)
            .expect("one recorder in a process");
        describe_counter!(
            "vivamo_requests_total",
            "GraphQL requests, by kind of operation and first error code. The code is OK without an error."
        );
        describe_histogram!(
            "vivamo_request_duration_seconds",
            Unit::Seconds,
            "Duration of GraphQL requests, by kind of operation."
        );
        describe_counter!(
            "vivamo_retries_total",
            "Transactions and reads that were repeated after a conflict, by operation."
        );
        describe_counter!("vivamo_rate_limited_total", "Requests that a rate limit refused, by limit.");
        describe_counter!(
            "vivamo_disclosures_total",
            "Emails and phones that were revealed to belong to customers of other operators, by kind."
        );
        describe_counter!("vivamo_phone_lookups_total", "Requests to the carrier lookup, by outcome.");
        describe_gauge!("vivamo_database_connections", "Open connections to the database, by state.");
        Self { listener, recorder }
    }

    /// Serves `/metrics` until the process ends.
    pub async fn serve(self, database: Database) {
        const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
        let Self { listener, recorder } = self;
        let handle = recorder.clone();
        let handler = get(async move || {
            let (size, idle) = database.connections();
            gauge!("vivamo_database_connections", "state" => "idle").set(idle as f64);
            gauge!("vivamo_database_connections", "state" => "busy").set((size - idle) as f64);
            ([("content-type", "text/plain; version=0.0.4")], handle.render())
        });
        let upkeep = async {
            let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
            loop {
                interval.tick().await;
                recorder.run_upkeep();
            }
        };
        let router = Router::new().route("/metrics", handler);
        tokio::select! {
            () = connections::serve(listener, router, HttpSettings::IDLE_TIMEOUT, pending()) => {}
            () = upkeep => {}
        }
    }
}
