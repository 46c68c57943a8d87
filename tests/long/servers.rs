//! Processes of the service that share one database.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entity::deployment::Environment;
use serde_json::{Value, json};
use tempfile::TempDir;
use vivamo::database::{self, Database};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::{ServiceSettings, Services, deployment};

use support::process::{Running, vivamo};
use support::{Backend, KEY_SECRET, PLATFORM_KEY, TestCaller, TestDatabase, http_client, wait_until};

/// The longest time in which a running process answers. It is longer than all time limits of a request together, and
/// shorter than the limit of `wait_until`.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

pub struct Servers {
    test_database: TestDatabase,
    /// The URL through which the processes reach the database, for example the URL of a proxy.
    url: String,
    pub database: Database,
    pub services: Arc<Services>,
    /// The processes, each with its URL.
    pub processes: Vec<(Running, String)>,
    folder: TempDir,
    http: reqwest::Client,
    /// The number of requests so far, which selects the process for the next request.
    requests: AtomicUsize,
}

impl Servers {
    /// Starts this many processes on a new database. Returns `None` if PostgreSQL is needed and not installed.
    pub async fn start(backend: Backend, count: usize) -> Option<Self> {
        let test_database = TestDatabase::create(backend).await?;
        let url = test_database.url.clone();
        Some(Self::start_on(test_database, url, count).await)
    }

    /// Starts processes that reach the database through `url`.
    pub async fn start_on(test_database: TestDatabase, url: String, count: usize) -> Self {
        database::migrate(&test_database.url).await.unwrap();
        let database = Database::connect(&test_database.url, None).await.unwrap();
        let hasher = KeyedHasher::new(KEY_SECRET);
        deployment::claim(&database, Environment::Sandbox, &hasher.fingerprint()).await.unwrap();
        let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, hasher));
        let folder = TempDir::new().unwrap();
        let (http, requests) = (http_client(), AtomicUsize::new(0));
        let mut servers =
            Self { test_database, url, database, services, processes: Vec::new(), folder, http, requests };
        for _ in 0..count {
            servers.add_process();
        }
        servers
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts another process.
    pub fn add_process(&mut self) {
        let command = vivamo(self.folder.path(), &["serve"]);
        self.add_process_with(command);
    }

    /// Starts another process with this command.
    pub fn add_process_with(&mut self, mut command: Command) {
        command
            .env("DATABASE_URL", &self.url)
            .env("VIVAMO_KEY_SECRET", KEY_SECRET)
            .env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY);
        for limit in ["VIVAMO_COST_PER_SECOND", "VIVAMO_AUTH_FAILURES_PER_MINUTE", "VIVAMO_DISCLOSURES_PER_HOUR"] {
            command.env(limit, "0");
        }
        self.processes.push(Running::start(&mut command));
    }

    /// Requests a path of the first process. Returns the HTTP status, or `None` if the process does not answer.
    pub async fn status(&self, path: &str) -> Option<u16> {
        let url = format!("{}{path}", self.processes[0].1);
        // The request uses a new client, because the test checks whether the process accepts new connections.
        let answer = http_client().get(url).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    }

    /// Creates an operator with a key that reads and writes.
    pub async fn operator(&self, name: &str) -> TestCaller {
        let name = entity::value::DisplayName::parse(name).unwrap();
        let (operator, key) = self
            .services
            .operators
            .create(&vivamo::service::Caller::Platform, &vivamo::service::RequestInfo::command_line(), name)
            .await
            .unwrap();
        let key = secrecy::ExposeSecret::expose_secret(&key.secret).to_owned();
        TestCaller { operator: operator.id.to_string(), key }
    }

    /// The platform key.
    pub fn platform(&self) -> TestCaller {
        TestCaller { operator: String::new(), key: PLATFORM_KEY.to_owned() }
    }

    /// Sends a request to the next process, round robin. Returns the request id and the answer, or the error of the
    /// connection. Fails the test if a running process does not answer.
    pub async fn send(
        &self,
        caller: &TestCaller,
        query: &str,
        variables: &Value,
    ) -> Result<(String, Value), reqwest::Error> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (_, url) = &self.processes[request % self.processes.len()];
        let request = self.http.post(format!("{url}/graphql")).bearer_auth(&caller.key).timeout(ANSWER_LIMIT);
        let request = request.json(&json!({ "query": query, "variables": variables }));
        let sent = async {
            let answer = request.send().await?;
            let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
            Ok::<_, reqwest::Error>((request_id, answer.json().await?))
        }
        .await;
        if sent.as_ref().is_err_and(reqwest::Error::is_timeout) {
            // The HTTP client can lose a request without an error if the process is killed while the client sends it.
            let alive = http_client().get(format!("{url}/healthz")).timeout(Duration::from_secs(10)).send().await;
            assert!(
                alive.is_err_and(|error| error.is_connect()),
                "{url} is running, but has not answered a request for {ANSWER_LIMIT:?}"
            );
        }
        sent
    }

    /// Sends a request, and sends it again while the answer is `UNAVAILABLE`, as clients do: on a busy machine, a write
    /// may wait too long for a lock. Returns the request id and the answer of the last attempt, or the error of the
    /// connection.
    pub async fn send_until_available(
        &self,
        caller: &TestCaller,
        query: &str,
        variables: &Value,
    ) -> Result<(String, Value), reqwest::Error> {
        let attempts = self.attempts_until_available(caller, query, variables).await?;
        Ok(attempts.into_iter().next_back().unwrap())
    }

    /// Like [`send_until_available`](Self::send_until_available), but returns all attempts.
    pub async fn attempts_until_available(
        &self,
        caller: &TestCaller,
        query: &str,
        variables: &Value,
    ) -> Result<Vec<(String, Value)>, reqwest::Error> {
        let mut attempts = Vec::new();
        let send = async || {
            let sent = self.send(caller, query, variables).await;
            let is_unavailable = matches!(&sent, Ok((_, answer)) if codes(answer) == ["UNAVAILABLE"]);
            let sent = sent.map(|attempt| attempts.push(attempt));
            (!is_unavailable).then_some(sent)
        };
        wait_until("a request is not answered with UNAVAILABLE", send).await?;
        Ok(attempts)
    }

    /// Stops the processes and removes the database.
    pub async fn stop(self) {
        for (process, _) in self.processes {
            process.stop();
        }
        self.database.close().await;
        self.test_database.remove().await;
    }
}

/// The error codes of an answer.
pub fn codes(answer: &Value) -> Vec<String> {
    let errors = answer["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap().to_owned()).collect()
}
