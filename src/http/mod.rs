//! The HTTP server.
//!
//! | path | module |
//! | --- | --- |
//! | `/graphql` | `graphql` |
//! | `/graphiql` | `graphiql`, if it is switched on |
//! | `/healthz`, `/readyz` | `health` |
//! | `/metrics`, at an address of its own | `metrics` |
//!
//! `connections` accepts the connections of both addresses.

mod connections;
mod graphiql;
mod graphql;
mod health;
mod metrics;

pub use metrics::Metrics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::routing::{any, get};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::database::Database;
use crate::graphql::Schema;
use crate::service::Services;

/// A server that is bound to its address and not serving yet.
pub struct Server {
    listener: TcpListener,
    router: Router,
    idle_timeout: Duration,
}

/// Settings of the server that depend on the network around it.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The time a connection may take to send the head of its next request, or to take some of a response.
    pub idle_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that may call the API from a browser, for example `https://dashboard.example.com`.
    pub cors_origins: Vec<HeaderValue>,
}

impl HttpSettings {
    /// The idle timeout in production. Tests use a shorter one.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
}

/// The state that all handlers share.
type State = Arc<Shared>;

struct Shared {
    database: Database,
    services: Arc<Services>,
    schema: Schema,
    trusted_proxies: Vec<IpNet>,
}

impl Server {
    /// Builds the server of a bound address. Serves GraphiQL if `graphiql_introspection` is the result of its
    /// introspection query.
    pub fn new(
        listener: TcpListener,
        settings: HttpSettings,
        database: Database,
        services: Arc<Services>,
        schema: Schema,
        graphiql_introspection: Option<String>,
    ) -> Self {
        let HttpSettings { idle_timeout, trusted_proxies, cors_origins } = settings;
        let state = Arc::new(Shared { database, services, schema, trusted_proxies });
        let graphql = any(graphql::handle);
        let graphql = if cors_origins.is_empty() { graphql } else { graphql.layer(cors(cors_origins)) };
        let mut router = Router::new()
            .route("/graphql", graphql)
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz));
        if let Some(introspection) = graphiql_introspection {
            router = router.merge(graphiql::routes(introspection));
        }
        let router = router.with_state(state).layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ));
        Self { listener, router, idle_timeout }
    }

    /// Serves until `stop` completes, then finishes the requests under way.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        connections::serve(self.listener, self.router, self.idle_timeout, stop).await;
    }
}

/// Lets pages of these origins, and no others, call from a browser.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([graphql::REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}
