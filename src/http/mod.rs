//! The server: which paths there are, and how it starts and stops.

mod graphiql;
mod graphql;
mod health;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::database::Database;
use crate::graphql::Schema;
use crate::service::Services;

/// How long a server that stops waits for the requests that it has taken; a client that stalls is not waited for.
const DRAIN: Duration = Duration::from_secs(15);

/// A server that is bound to its address and not serving yet.
pub struct Server {
    listener: TcpListener,
    router: Router,
}

/// What handlers share.
#[derive(Clone)]
struct State {
    database: Database,
    services: Services,
    schema: Schema,
}

impl Server {
    /// GraphiQL is served if there is an introspection result for it.
    pub async fn bind(
        listen: SocketAddr,
        database: Database,
        services: Services,
        schema: Schema,
        graphiql_introspection: Option<String>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let state = State { database, services, schema };
        let mut router = Router::new()
            .route("/graphql", any(graphql::handle))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz));
        if let Some(introspection) = graphiql_introspection {
            router = router.merge(graphiql::routes(introspection));
        }
        let router = router.with_state(state).layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ));
        Ok(Self { listener, router })
    }

    /// The address it is bound to.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then answers what it has taken and ends.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let (stopping, stopped) = oneshot::channel::<()>();
        let stop = async {
            stop.await;
            drop(stopping);
        };
        let given_up = async {
            let _ = stopped.await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = axum::serve(self.listener, self.router).with_graceful_shutdown(stop) => served,
            () = given_up => {
                tracing::warn!("stopped without some clients, who did not finish their requests");
                Ok(())
            }
        }
    }
}
