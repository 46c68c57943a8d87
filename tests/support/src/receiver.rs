//! A receiver of webhooks on a local port. It accepts deliveries, or fails in one of many ways.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use entity::value::{OperatorId, WebhookId, WebhookUrl};
use entity::webhook;
use reqwest::header::{HeaderMap, HeaderName};
use sea_orm::{ActiveModelTrait, IntoActiveModel};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Duration, interval, timeout};
use uuid::Uuid;
use vivamo::database::Database;
use vivamo::service::now;

use crate::wait::WAIT_LIMIT;

/// A receiver. Accepts a delivery with 204 unless another [`Reply`] was planned.
pub struct Receiver {
    /// `http://127.0.0.1:PORT/hook`, with a token that must not be logged.
    pub url: String,
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    replies: Mutex<VecDeque<Reply>>,
    arrived: Notify,
}

/// The reaction to a delivery.
pub enum Reply {
    /// A response with this status and these header lines, and without a body.
    Status(u16, String),
    /// A response when the notification comes.
    After(Arc<Notify>, u16),
    /// No response.
    Hang,
    /// The connection is closed.
    Drop,
    /// The bytes of the head of a response, one at a time, without an end.
    SlowHead,
    /// Status 200, and a body without an end.
    EndlessBody,
}

/// The part of the URL that must not be logged.
pub const URL_TOKEN: &str = "secret-token-of-the-receiver";

/// A delivery that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub id: String,
    /// Seconds since 1970.
    pub timestamp: i64,
    pub signatures: Vec<String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The changes in the body.
    pub fn changes(&self) -> Vec<Value> {
        self.json()["data"]["changes"].as_array().unwrap().clone()
    }

    /// True if one signature equals the signature that the library `standardwebhooks` makes with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let expected = Webhook::new(secret).unwrap().sign(&self.id, self.timestamp, &self.body).unwrap();
        self.signatures.contains(&expected)
    }
}

/// Stores an endpoint whose cursor is before the first change.
pub async fn insert_endpoint(database: &Database, operator: OperatorId, url: &str) -> WebhookId {
    let now = now();
    let row = webhook::Model {
        id: WebhookId::new(),
        operator_id: operator,
        url: WebhookUrl::parse(url).unwrap(),
        types: None,
        secret_version: 1,
        secret_created_at: now,
        previous_secret_until: None,
        delivered_position: 0,
        delivered_id: Uuid::nil(),
        sending_position: None,
        sending_id: None,
        failed_attempts: 0,
        failing_since: None,
        // This time is earlier than the clock of every process of the test, so the endpoint is due.
        next_attempt_at: now - TimeDelta::hours(1),
        lease_until: None,
        last_attempt_at: None,
        last_status: None,
        last_failure: None,
        disabled_at: None,
        paused_at: None,
        created_at: now,
    };
    let transaction = database.begin_write().await.unwrap();
    let row = row.into_active_model().insert(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    row.id
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}/hook?token={URL_TOKEN}"), port, state }
    }

    /// The URL with another host and without the token.
    pub fn url_at(&self, host: &str) -> String {
        format!("http://{host}:{}/hook", self.port)
    }

    /// Plans the reaction to the next delivery that has no planned reaction yet.
    pub fn plan(&self, reply: Reply) {
        self.state.replies.lock().unwrap().push_back(reply);
    }

    /// Returns the deliveries since the last call.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.state.received.lock().unwrap())
    }

    /// Waits until this many deliveries have arrived since the last [`take`](Self::take). Panics after [`WAIT_LIMIT`].
    pub async fn wait_for(&self, count: usize) {
        let received = || self.state.received.lock().unwrap().len();
        let all = async {
            loop {
                let arrived = self.state.arrived.notified();
                if received() >= count {
                    return;
                }
                arrived.await;
            }
        };
        let waited = timeout(WAIT_LIMIT, all).await;
        assert!(waited.is_ok(), "{} deliveries instead of {count} after {WAIT_LIMIT:?}", received());
    }
}

/// Reads the requests of a connection and reacts to them.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    while let Some(received) = read(&mut stream).await {
        // Takes the reply before the test learns of the delivery. A reply that the test plans later is therefore for
        // the next delivery.
        let reply = state.replies.lock().unwrap().pop_front();
        state.received.lock().unwrap().push(received);
        state.arrived.notify_waiters();
        let (status, headers) = match reply {
            None => (204, String::new()),
            Some(Reply::Status(status, headers)) => (status, headers),
            Some(Reply::After(notification, status)) => {
                notification.notified().await;
                (status, String::new())
            }
            Some(Reply::Hang) => std::future::pending().await,
            Some(Reply::Drop) => return,
            Some(Reply::SlowHead) => return trickle(stream, "", "HTTP/1.1 200 OK\r\nX-Long: ").await,
            Some(Reply::EndlessBody) => {
                return trickle(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n").await;
            }
        };
        let length = if status == 204 { "" } else { "Content-Length: 0\r\n" };
        let response = format!("HTTP/1.1 {status} X\r\n{headers}{length}\r\n");
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: HeaderMap = lines
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let mut body = vec![0; header("content-length").parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        signatures: header("webhook-signature").split(' ').map(str::to_owned).collect(),
        headers,
        body,
    })
}

/// Sends `first`, then the bytes of `rest` one at a time, again and again until the connection is closed.
async fn trickle(mut stream: BufReader<TcpStream>, first: &str, rest: &str) {
    let mut pace = interval(Duration::from_millis(20));
    let mut sent = stream.write_all(first.as_bytes()).await;
    for byte in rest.bytes().cycle() {
        if sent.is_err() {
            return;
        }
        pace.tick().await;
        sent = stream.write_all(&[byte]).await;
    }
}
