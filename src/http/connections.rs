//! Accepts the connections of a server, limits their number, and closes slow connections.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metrics::Gauge;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tower::Service;

use super::response_timeout::ResponseTimeout;
use super::self_wake::poll_again_if_woken;
use crate::config::HttpTimeouts;

/// The maximum number of open connections. Each connection costs a file descriptor and some memory, even if the client
/// sends nothing.
const MAX_CONNECTIONS: usize = 4096;

/// The maximum size of the URL and the headers of a request, and the maximum size of the read buffer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The shortest time between two warnings for the same reason.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum time that running requests have to finish when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves connections until `stop` completes, then waits up to `DRAIN_TIMEOUT` for the running requests. Each request
/// has the extension `ConnectInfo<SocketAddr>`, the peer address. Closes the connection of a client that is slower than
/// `timeouts` allows. Counts the open connections in `open`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    timeouts: HttpTimeouts,
    open: Gauge,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeouts.idle).max_buf_size(MAX_HEAD_BYTES);
    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let address = listener.local_addr().map(|address| address.to_string()).ok();
    let mut stop = pin!(stop);
    let (mut accept_warning, mut limit_warning) = <(Warning, Warning)>::default();
    loop {
        let accept = async {
            let permit = loop {
                if let Ok(permit) = permits.clone().try_acquire_owned() {
                    break permit;
                }
                if limit_warning.is_due() {
                    tracing::warn!(
                        address,
                        connections = MAX_CONNECTIONS,
                        "the limit of connections is reached: further connections wait until one is closed"
                    );
                }
                if let Ok(Ok(permit)) = timeout(WARNING_INTERVAL, permits.clone().acquire_owned()).await {
                    break permit;
                }
            };
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accept => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                // Most likely the process is out of file descriptors: another connection has to end first.
                if accept_warning.is_due() {
                    tracing::warn!(%cause, "cannot accept a connection: if too many files are open, raise the limit of open files");
                }
                #[expect(clippy::disallowed_methods, reason = "there is no event for a free file descriptor")]
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // A response is written in one piece, so Nagle's algorithm would only delay its last packet.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(ResponseTimeout::new(stream, timeouts.response));
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().call(request)
        });
        let connection = connections.watch(http.serve_connection(stream, service));
        let counted = OpenConnection::new(permit, open.clone());
        tokio::spawn(async move {
            // A broken connection is not an error of the service.
            let _ = poll_again_if_woken(connection).await;
            drop(counted);
        });
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIMEOUT.as_secs(), "stopped before all requests were finished");
    }
}

/// An open connection. It is no longer counted when this value is dropped.
struct OpenConnection {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(permit: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.increment(1);
        Self { open, _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.decrement(1);
    }
}

/// A warning that is logged at most once in [`WARNING_INTERVAL`].
#[derive(Default)]
struct Warning {
    last: Option<Instant>,
}

impl Warning {
    /// Returns true if the warning is due. The caller then logs it.
    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}
