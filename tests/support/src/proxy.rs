//! What stands between the service and its database when the network fails.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The database is not told to commit.
    BeforeCommit,
    /// The database commits; nobody hears of it.
    AfterCommit,
}

/// A proxy that hands on what it is sent, until it is told otherwise.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// The port of the database.
    target: AtomicU16,
    /// How many statements were sent through it.
    statements: AtomicUsize,
    trap: [AtomicBool; 2],
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<()>,
    /// Changes when all connections are to fall silent.
    silence: watch::Sender<()>,
}

impl State {
    fn trap(&self, cut: Cut) -> &AtomicBool {
        &self.trap[usize::from(cut == Cut::AfterCommit)]
    }

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
            statements: AtomicUsize::new(0),
            trap: Default::default(),
            cuts: watch::channel(()).0,
            silence: watch::channel(()).0,
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// One before a database, and the URL that leads through it.
    pub async fn before(database_url: &str) -> (Self, Url) {
        let mut url = Url::parse(database_url).unwrap();
        let proxy = Self::start(url.port().unwrap_or(5432)).await;
        url.set_ip_host(proxy.address.ip()).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        // What is encrypted cannot be watched for a commit.
        url.set_query(Some("sslmode=disable"));
        (proxy, url)
    }

    /// How many statements were sent so far, beginnings and ends of transactions among them.
    pub fn statements(&self) -> usize {
        self.state.statements.load(Ordering::SeqCst)
    }

    /// Cuts all connections; new ones go to another database.
    pub fn lead_to(&self, target: u16) {
        self.state.target.store(target, Ordering::SeqCst);
        self.state.cuts.send_replace(());
    }

    /// Carries nothing more on the connections that there are, and does not close them: their host is gone.
    pub fn fall_silent(&self) {
        self.state.silence.send_replace(());
    }

    /// Cuts the next connection that commits.
    pub fn set_trap(&self, cut: Cut) {
        self.state.trap(cut).store(true, Ordering::SeqCst);
    }

    /// Whether a trap is still waiting.
    pub fn is_set(&self, cut: Cut) -> bool {
        self.state.trap(cut).load(Ordering::SeqCst)
    }
}

/// Hands on what both sides of a connection send, until one of them ends or the connection is cut.
async fn carry(mut client: TcpStream, state: Arc<State>) -> Option<()> {
    let (mut cuts, mut silence) = (state.cuts.subscribe(), state.silence.subscribe());
    let mut server = TcpStream::connect(("127.0.0.1", state.target.load(Ordering::SeqCst))).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    let mut messages = Messages::default();
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let asked = &asked[..read.ok().filter(|read| *read > 0)?];
                let Sent { statements, commits } = messages.sent_by(asked);
                state.statements.fetch_add(statements, Ordering::SeqCst);
                if commits && state.springs(Cut::BeforeCommit) {
                    return None;
                }
                server.write_all(asked).await.ok()?;
                if commits && state.springs(Cut::AfterCommit) {
                    server.readable().await.ok()?;
                    return None;
                }
            }
            read = server.read(&mut answered) => {
                client.write_all(&answered[..read.ok().filter(|read| *read > 0)?]).await.ok()?;
            }
            _ = cuts.changed() => return None,
            _ = silence.changed() => {
                cuts.changed().await.ok()?;
                return None;
            }
        }
    }
}

/// What a client of PostgreSQL sends, message by message: the first is its length and content, all others begin with their
/// type.
#[derive(Default)]
struct Messages {
    received: Vec<u8>,
    has_started: bool,
    /// The names of prepared statements that write.
    writing: HashSet<Vec<u8>>,
}

/// What some bytes complete.
#[derive(Default)]
struct Sent {
    /// Texts to run, and executions of what was prepared.
    statements: usize,
    /// Whether one of them makes last what was written.
    commits: bool,
}

impl Messages {
    fn sent_by(&mut self, bytes: &[u8]) -> Sent {
        self.received.extend_from_slice(bytes);
        let mut sent = Sent::default();
        loop {
            let type_bytes = usize::from(self.has_started);
            let Some(length) = self.received.get(type_bytes..type_bytes + 4) else { return sent };
            let end = type_bytes + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.received.len() < end {
                return sent;
            }
            let message: Vec<_> = self.received.drain(..end).collect();
            if !std::mem::replace(&mut self.has_started, true) {
                continue;
            }
            let (r#type, mut texts) = (message[0], message[5..].split(|byte| *byte == 0));
            let mut text = || texts.next().unwrap_or_default();
            match r#type {
                // A connection is set up once.
                b'Q' if message[5..].starts_with(b"SET ") => {}
                b'Q' => {
                    sent.statements += 1;
                    sent.commits |= text() == b"COMMIT";
                }
                b'E' => sent.statements += 1,
                // To prepare: the name and the text.
                b'P' => {
                    let (name, sql) = (text(), text());
                    if sql.starts_with(b"WITH new_") {
                        self.writing.insert(name.to_vec());
                    }
                }
                // To bind: a name for what comes of it, and that of the statement, which commits as it ends.
                b'B' => {
                    sent.commits |= self.writing.contains({
                        text();
                        text()
                    })
                }
                _ => {}
            }
        }
    }
}
