//! A proxy between the service and PostgreSQL. The proxy can cut a connection at a commit, cut all connections at the
//! same time, or freeze the traffic.
//!
//! The proxy parses the messages of the client to recognize a commit. See [`Proxy::set_trap`].

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The moment at which a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the commit reaches the database.
    BeforeCommit,
    /// After the database has committed, before the client receives the response.
    AfterCommit,
}

pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// The port of the database.
    target: AtomicU16,
    /// The number of connections that were opened.
    connections: AtomicUsize,
    /// The number of statements that were sent.
    statements: AtomicUsize,
    /// For each [`Cut`], true if the proxy cuts the next commit.
    traps: [AtomicBool; 2],
    /// Changes when all connections must be cut.
    cuts: watch::Sender<()>,
    /// Changes when all connections must stop carrying data.
    freezes: watch::Sender<()>,
}

impl State {
    fn trap(&self, cut: Cut) -> &AtomicBool {
        &self.traps[usize::from(cut == Cut::AfterCommit)]
    }

    /// Unsets the trap, and returns true if it was set.
    fn springs(&self, cut: Cut) -> bool {
        self.trap(cut).swap(false, Ordering::SeqCst)
    }
}

impl Proxy {
    async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: target.into(),
            connections: AtomicUsize::new(0),
            statements: AtomicUsize::new(0),
            traps: Default::default(),
            cuts: watch::channel(()).0,
            freezes: watch::channel(()).0,
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(forward(client, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// Starts a proxy for a database. Returns the proxy and the URL that leads through the proxy.
    pub async fn before(database_url: &str) -> (Self, Url) {
        let mut url = Url::parse(database_url).unwrap();
        let proxy = Self::start(url.port().unwrap_or(5432)).await;
        url.set_ip_host(proxy.address.ip()).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        // The proxy cannot parse encrypted messages.
        url.set_query(Some("sslmode=disable"));
        (proxy, url)
    }

    /// The number of connections that were opened so far.
    pub fn connection_count(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The number of statements that were sent so far, including `BEGIN` and `COMMIT`.
    pub fn statement_count(&self) -> usize {
        self.state.statements.load(Ordering::SeqCst)
    }

    /// Cuts all connections, and sends new ones to another port.
    pub fn redirect_to(&self, target: u16) {
        self.state.target.store(target, Ordering::SeqCst);
        self.state.cuts.send_replace(());
    }

    /// Stops carrying data on all existing connections without closing them, as if the host of the database were gone.
    pub fn freeze(&self) {
        self.state.freezes.send_replace(());
    }

    /// Cuts the next connection that commits.
    pub fn set_trap(&self, cut: Cut) {
        self.state.trap(cut).store(true, Ordering::SeqCst);
    }

    /// True if the trap is still set: no commit has passed since the trap was set.
    pub fn is_set(&self, cut: Cut) -> bool {
        self.state.trap(cut).load(Ordering::SeqCst)
    }
}

/// Forwards both directions of a connection until one side closes the connection or the proxy cuts it.
async fn forward(mut client: TcpStream, state: Arc<State>) -> Option<()> {
    let (mut cuts, mut freezes) = (state.cuts.subscribe(), state.freezes.subscribe());
    let mut server = TcpStream::connect(("127.0.0.1", state.target.load(Ordering::SeqCst))).await.ok()?;
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    let mut messages = Messages::default();
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let sent = &from_client[..read.ok().filter(|read| *read > 0)?];
                let Completed { statements, commits } = messages.read(sent);
                state.statements.fetch_add(statements, Ordering::SeqCst);
                if commits && state.springs(Cut::BeforeCommit) {
                    return None;
                }
                server.write_all(sent).await.ok()?;
                if commits && state.springs(Cut::AfterCommit) {
                    server.readable().await.ok()?;
                    return None;
                }
            }
            read = server.read(&mut from_server) => {
                client.write_all(&from_server[..read.ok().filter(|read| *read > 0)?]).await.ok()?;
            }
            _ = cuts.changed() => return None,
            _ = freezes.changed() => {
                cuts.changed().await.ok()?;
                return None;
            }
        }
    }
}

/// The messages that a client sends to PostgreSQL. The first message is a length and content. All other messages start
/// with a byte for their type.
#[derive(Default)]
struct Messages {
    /// Bytes of an incomplete message.
    received: Vec<u8>,
    has_started: bool,
    /// The names of prepared statements that write the rows of a `WriteSet`.
    writing_statements: HashSet<Vec<u8>>,
}

/// The messages that are complete after more bytes were received.
#[derive(Default)]
struct Completed {
    /// The number of simple queries, except `SET`, and of executions of prepared statements.
    statements: usize,
    /// True if one of these messages commits.
    commits: bool,
}

impl Messages {
    fn read(&mut self, bytes: &[u8]) -> Completed {
        self.received.extend_from_slice(bytes);
        let mut completed = Completed::default();
        loop {
            let type_bytes = usize::from(self.has_started);
            let Some(length) = self.received.get(type_bytes..type_bytes + 4) else { return completed };
            let end = type_bytes + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.received.len() < end {
                return completed;
            }
            let message: Vec<_> = self.received.drain(..end).collect();
            if !std::mem::replace(&mut self.has_started, true) {
                continue;
            }
            let (r#type, mut texts) = (message[0], message[5..].split(|byte| *byte == 0));
            let mut text = || texts.next().unwrap_or_default();
            match r#type {
                // `SET` statements are part of setting up the connection.
                b'Q' if message[5..].starts_with(b"SET ") => {}
                b'Q' => {
                    completed.statements += 1;
                    completed.commits |= text() == b"COMMIT";
                }
                b'E' => completed.statements += 1,
                // Parse: the name and the text of a prepared statement.
                b'P' => {
                    let (name, sql) = (text(), text());
                    if sql.starts_with(b"WITH new_") {
                        self.writing_statements.insert(name.to_vec());
                    }
                }
                // Bind: the names of the portal and of the statement. A writing statement counts as a commit: it is
                // usually sent without `BEGIN`, and PostgreSQL then commits the statement at its end.
                b'B' => {
                    completed.commits |= self.writing_statements.contains({
                        text();
                        text()
                    })
                }
                _ => {}
            }
        }
    }
}
