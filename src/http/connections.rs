//! Accepts the connections of a server, limits their number, and closes slow connections.

use std::io;
use std::net::SocketAddr;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
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

/// Serves connections until `stop` completes, then waits up to `DRAIN_TIMEOUT` until the connections are closed and the
/// work of the requests in `running` has ended. Each request has the extension `ConnectInfo<SocketAddr>`, the peer
/// address. Closes the connection of a client that is slower than `timeouts` allows. Counts the open connections in
/// `open`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    timeouts: HttpTimeouts,
    open: Gauge,
    running: TaskTracker,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeouts.idle).max_buf_size(MAX_HEAD_BYTES);
    let connections = GracefulShutdown::new();
    let mut acceptor = Acceptor::new(listener);
    let mut stop = pin!(stop);
    loop {
        let (permit, stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = acceptor.accept() => accepted,
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
    drop(acceptor);
    running.close();
    let finished = async {
        connections.shutdown().await;
        running.wait().await;
    };
    if timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIMEOUT.as_secs(), "stopped before all requests were finished");
    }
}

/// Accepts connections while fewer than [`MAX_CONNECTIONS`] are open.
struct Acceptor {
    listener: TcpListener,
    /// The address of the listener, for the log.
    address: Option<String>,
    /// Has a permit for each further connection that may be open.
    permits: Arc<Semaphore>,
    limit_warning: Warning,
    accept_warning: Warning,
}

impl Acceptor {
    fn new(listener: TcpListener) -> Self {
        Self {
            address: listener.local_addr().map(|address| address.to_string()).ok(),
            listener,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            limit_warning: Warning::default(),
            accept_warning: Warning::default(),
        }
    }

    /// Accepts a connection as soon as there may be one more. Returns the connection with its permit and the address of
    /// the peer.
    async fn accept(&mut self) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
        loop {
            let permit = self.permit().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => return (permit, stream, peer),
                Err(cause) => self.pause_after_failure(&cause).await,
            }
        }
    }

    /// Waits until there may be one more connection.
    async fn permit(&mut self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return permit;
            }
            if self.limit_warning.is_due() {
                tracing::warn!(
                    address = self.address,
                    connections = MAX_CONNECTIONS,
                    "the limit of connections is reached: further connections wait until one is closed"
                );
            }
            if let Ok(Ok(permit)) = timeout(WARNING_INTERVAL, self.permits.clone().acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Pauses for a moment. Most likely the process is out of file descriptors: another connection has to end first.
    async fn pause_after_failure(&mut self, cause: &io::Error) {
        if self.accept_warning.is_due() {
            tracing::warn!(%cause, "cannot accept a connection: if too many files are open, raise the limit of open files");
        }
        #[expect(clippy::disallowed_methods, reason = "there is no event for a free file descriptor")]
        sleep(Duration::from_millis(100)).await;
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
