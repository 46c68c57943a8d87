//! The server: which paths there are, and how it starts and stops.

mod connections;
mod graphiql;
mod graphql;
mod health;
mod metrics;

pub use metrics::Metrics;

use std::future::Future;
use std::net::SocketAddr;
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
    idle: Duration,
}

/// What the server must know of the network that it is in.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// How long a connection may take to send the head of a request, the first as well as the next.
    pub idle: Duration,
    /// Whose word counts on where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// The web pages that may call from a browser.
    pub origins: Vec<HeaderValue>,
}

impl HttpSettings {
    pub const IDLE: Duration = Duration::from_secs(30);
}

/// What handlers share.
type State = Arc<Shared>;

struct Shared {
    database: Database,
    services: Arc<Services>,
    schema: Schema,
    trusted_proxies: Vec<IpNet>,
}

impl Server {
    /// GraphiQL is served if there is an introspection result for it.
    pub async fn bind(
        listen: SocketAddr,
        surroundings: HttpSettings,
        database: Database,
        services: Arc<Services>,
        schema: Schema,
        graphiql_introspection: Option<String>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let HttpSettings { idle, trusted_proxies, origins } = surroundings;
        let state = Arc::new(Shared { database, services, schema, trusted_proxies });
        let graphql = any(graphql::handle);
        let graphql = if origins.is_empty() { graphql } else { graphql.layer(cors(origins)) };
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
        Ok(Self { listener, router, idle })
    }

    /// The address it is bound to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then answers what it has taken and ends.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        connections::serve(self.listener, self.router, self.idle, stop).await;
    }
}

/// Browsers let pages of these origins call, and no others.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([graphql::REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}
