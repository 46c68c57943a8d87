//! Figures for Prometheus, at an address of their own: how much is going on is not for clients to see.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use super::{HttpSettings, connections};
use crate::database::Database;

/// Seconds; from a look at an index to the time limit of a request.
const LATENCIES: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The figures of this process.
pub struct Metrics {
    listener: TcpListener,
    figures: PrometheusHandle,
}

impl Metrics {
    /// Begins to count, and is bound to its address. There can be one in a process.
    pub async fn bind(listen: SocketAddr) -> std::io::Result<Self> {
        let latency = Matcher::Full("vivamo_request_duration_seconds".to_owned());
        let figures = PrometheusBuilder::new()
            .set_buckets_for_metric(latency, &LATENCIES)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(std::io::Error::other)?;
        describe_counter!(
            "vivamo_requests_total",
            "Requests, by kind of operation and first error code, OK without one."
        );
        describe_histogram!(
            "vivamo_request_duration_seconds",
            Unit::Seconds,
            "How long requests took, by kind of operation."
        );
        describe_counter!("vivamo_retries_total", "Transactions and reads that began anew, by what they did.");
        describe_counter!("vivamo_rate_limited_total", "What was refused, by limit.");
        describe_counter!("vivamo_disclosures_total", "What operators were told of people outside them.");
        describe_counter!("vivamo_phone_lookups_total", "Questions to carriers, by outcome.");
        describe_gauge!("vivamo_database_connections", "Connections to the database, by state.");
        Ok(Self { listener: TcpListener::bind(listen).await?, figures })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `/metrics`, for as long as the process lives.
    pub async fn serve(self, database: Database) {
        const UPKEEP_EVERY: Duration = Duration::from_secs(5);
        let Self { listener, figures } = self;
        let shown = figures.clone();
        let show = get(async move || {
            let (size, idle) = database.connections();
            gauge!("vivamo_database_connections", "state" => "idle").set(idle as f64);
            gauge!("vivamo_database_connections", "state" => "busy").set((size - idle) as f64);
            ([("content-type", "text/plain; version=0.0.4")], shown.render())
        });
        let upkeep = async {
            let mut turns = tokio::time::interval(UPKEEP_EVERY);
            loop {
                turns.tick().await;
                figures.run_upkeep();
            }
        };
        let router = Router::new().route("/metrics", show);
        tokio::select! {
            () = connections::serve(listener, router, HttpSettings::IDLE, pending()) => {}
            () = upkeep => {}
        }
    }
}
