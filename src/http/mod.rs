//! The HTTP server.
//!
//! | file | what it does |
//! | --- | --- |
//! | `connections.rs` | accepts the connections of both addresses |
//! | `response_timeout.rs` | limits the time that a client may take to read a response |
//! | `self_wake.rs` | keeps a connection on the thread that runs it |
//! | `endpoint/` | `/graphql` |
//! | `graphiql.rs` | `/`, `/graphiql` and `/graphiql/…`, if GraphiQL is switched on |
//! | `health.rs` | `/healthz` and `/readyz`, also at the address of the metrics |
//! | `metrics.rs` | `/metrics`, at a separate address |

mod connections;
mod endpoint;
mod graphiql;
mod health;
mod metrics;
mod response_timeout;
mod self_wake;

pub use connections::serve;
pub use health::Probes;
pub use metrics::metrics_router;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::routing::any;
use entity::deployment::Environment;
use ipnet::IpNet;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowHeaders, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::config::{HttpSettings, HttpTimeouts};
use crate::graphql::{Schema, introspection};
use crate::service::Services;

/// The state that all handlers share.
type State = Arc<Shared>;

struct Shared {
    services: Arc<Services>,
    schema: Schema,
    trusted_proxies: Vec<IpNet>,
    timeouts: HttpTimeouts,
    in_flight: endpoint::InFlight,
    /// The requests whose work has not ended, also those whose client has disconnected.
    running: TaskTracker,
}

/// Returns the router of the API: all paths but `/metrics`. `running` counts the requests whose work has not ended.
pub async fn router(
    settings: HttpSettings,
    services: Arc<Services>,
    schema: Schema,
    probes: &Arc<Probes>,
    running: TaskTracker,
) -> Router {
    let HttpSettings { graphiql, trusted_proxies, cors_origins, timeouts, .. } = settings;
    let graphiql = graphiql.unwrap_or(services.environment == Environment::Sandbox);
    let state = Arc::new(Shared {
        services,
        schema,
        trusted_proxies,
        timeouts,
        in_flight: endpoint::InFlight::default(),
        running,
    });
    let endpoint = any(endpoint::handle);
    let endpoint = if cors_origins.is_empty() { endpoint } else { endpoint.layer(cors(cors_origins)) };
    let mut router = Router::new().route("/graphql", endpoint);
    if graphiql {
        router = router.merge(graphiql::routes(introspection().await));
    }
    router
        .with_state(state)
        .merge(probes.routes())
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
}

/// Allows web pages of these other origins to call the API from a browser.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        // Tracing libraries add their own headers, such as `baggage`. It is safe to allow all headers, because the API
        // uses no cookies.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([endpoint::REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}
