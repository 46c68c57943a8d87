//! Connections: how many there may be, how long they may keep us waiting, and how they end.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::Service;

/// Each costs a descriptor and some memory, whoever opens it.
const MAX_CONNECTIONS: usize = 4096;

/// Of the URL and headers of a request, as well as of what is read ahead of its body.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long a server that stops waits for the requests that it has taken; a client that stalls is not waited for.
const DRAIN: Duration = Duration::from_secs(15);

/// Who is at the other end of the connection.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Serves until `stop` is done, then answers what was taken and ends. A connection that sends no whole head of a request, or
/// takes nothing of an answer, for as long as `idle` is closed.
pub async fn serve(listener: TcpListener, router: Router, idle: Duration, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(MAX_HEAD_BYTES);
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: others have to end first.
            #[expect(clippy::disallowed_methods, reason = "nothing tells when a descriptor is free")]
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Answers are written whole; there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // A client that does not read its answer would keep its place for ever.
        stream.set_write_timeout(Some(idle));
        let router = router.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip()));
            router.clone().call(request)
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("stopped without some clients, who did not finish their requests");
    }
}
