//! `vivamo webhook`: receives deliveries on the machine of a developer.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::Subcommand;
use metrics::Gauge;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;
use tokio_util::task::TaskTracker;

use super::print;
use crate::config::{HttpTimeouts, WebhookListenSettings};
use crate::fatal_error::FatalError;
use crate::http;
use crate::service::now;
use crate::service::webhooks::signature::{ID_HEADER, SIGNATURE_HEADER, SigningSecret, TIMESTAMP_HEADER};

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Receive deliveries on a local port. Verify the signature of each delivery, and print the delivery. Ctrl-C ends
    /// the command
    Listen(WebhookListenSettings),
}

pub async fn run(command: WebhookCommand) -> Result<(), FatalError> {
    let WebhookCommand::Listen(settings) = command;
    let port = settings.port;
    let secret = settings.read_secret().map_err(FatalError::Usage)?;
    let secret =
        SigningSecret::parse(secret.expose_secret()).ok_or_else(|| FatalError::Usage(NOT_A_SECRET.to_owned()))?;
    let address = ([127, 0, 0, 1], port).into();
    let failed = |cause| FatalError::Listen(address, cause, "--port");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    print::text(&format!("Waiting for deliveries on http://{address}/\n"))?;
    let receive = async move |headers: HeaderMap, body: Bytes| {
        let (status, text) = receive(&secret, &headers, &body);
        // A delivery is received even if its text cannot be printed.
        let _ = print::text(&text);
        status
    };
    let router = Router::new().fallback(post(receive));
    let stop = async { drop(ctrl_c().await) };
    http::serve(listener, router, HttpTimeouts::default(), Gauge::noop(), TaskTracker::new(), stop).await;
    Ok(())
}

const NOT_A_SECRET: &str = "VIVAMO_WEBHOOK_SECRET (--secret) is not the secret of an endpoint: expected whsec_ and 44 characters, as \
                            `createWebhook` and `rotateWebhookSecret` return it.";

/// Verifies a delivery. Returns the status of the response, and a string for the terminal.
fn receive(secret: &SigningSecret, headers: &HeaderMap, body: &[u8]) -> (StatusCode, String) {
    let time = now().format("%H:%M:%S");
    match verify(secret, headers, body) {
        Err(reason) => (StatusCode::BAD_REQUEST, format!("{time}  rejected  {reason}\n")),
        Ok(id) => {
            let text = match serde_json::from_slice::<Value>(body) {
                Ok(json) => format!("{json:#}"),
                Err(_) => String::from_utf8_lossy(body).into_owned(),
            };
            (StatusCode::NO_CONTENT, format!("{time}  verified  {id}\n{text}\n"))
        }
    }
}

/// Returns the id of a delivery. The error says why the delivery cannot be trusted.
fn verify<'h>(secret: &SigningSecret, headers: &'h HeaderMap, body: &[u8]) -> Result<&'h str, String> {
    let header = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("the `{name}` header is missing"))
    };
    let (id, timestamp, signatures) = (header(ID_HEADER)?, header(TIMESTAMP_HEADER)?, header(SIGNATURE_HEADER)?);
    secret.verify(id, timestamp, signatures, body, now()).map_err(|reason| format!("{id}: {reason}"))?;
    Ok(id)
}
