//! Processes of the service on one database.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use entity::deployment::Environment;
use serde_json::{Value, json};
use tempfile::TempDir;
use vivamo::database::{self, Database};
use vivamo::keyed_hash::KeyedHash;
use vivamo::service::{ServiceSettings, Services, deployment};

use support::process::{Running, vivamo};
use support::{Backend, Caller, KEY_SECRET, TestDatabase, http_client};

pub struct Servers {
    home: TestDatabase,
    /// How the processes reach it.
    url: String,
    pub database: Database,
    pub services: Arc<Services>,
    pub processes: Vec<(Running, String)>,
    folder: TempDir,
    http: reqwest::Client,
    turn: AtomicUsize,
}

impl Servers {
    pub async fn start(backend: Backend, count: usize) -> Option<Self> {
        let home = TestDatabase::create(backend).await?;
        let url = home.url.clone();
        Some(Self::start_on(home, url, count).await)
    }

    /// Processes that reach the database by a URL of their own.
    pub async fn start_on(home: TestDatabase, url: String, count: usize) -> Self {
        database::migrate(&home.url).await.unwrap();
        let database = Database::connect(&home.url, None).await.unwrap();
        deployment::claim(&database, Environment::Sandbox).await.unwrap();
        let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHash::new(KEY_SECRET)));
        let folder = TempDir::new().unwrap();
        let (http, turn) = (http_client(), AtomicUsize::new(0));
        let mut servers = Self { home, url, database, services, processes: Vec::new(), folder, http, turn };
        for _ in 0..count {
            servers.add();
        }
        servers
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts one more process.
    pub fn add(&mut self) {
        let command = vivamo(self.folder.path(), &["serve"]);
        self.add_as(command);
    }

    /// Starts one more process, by this command.
    pub fn add_as(&mut self, mut command: Command) {
        command.env("DATABASE_URL", &self.url).env("VIVAMO_KEY_SECRET", KEY_SECRET);
        for limit in ["VIVAMO_COST_PER_SECOND", "VIVAMO_AUTH_FAILURES_PER_MINUTE", "VIVAMO_DISCLOSURES_PER_HOUR"] {
            command.env(limit, "0");
        }
        self.processes.push(Running::start(&mut command));
    }

    /// The HTTP status of a path of the first process; `None` if it does not answer.
    pub async fn status(&self, path: &str) -> Option<u16> {
        let url = format!("{}{path}", self.processes[0].1);
        // A connection of its own, which tells whether new ones are taken.
        let answer = http_client().get(url).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    }

    pub async fn operator(&self, name: &str) -> Caller {
        let name = entity::value::DisplayName::parse(name).unwrap();
        let (operator, key) = self
            .services
            .operators
            .create(&vivamo::service::Actor::Platform, &self.services.api_keys, name)
            .await
            .unwrap();
        let key = secrecy::ExposeSecret::expose_secret(&key.secret).to_owned();
        Caller { operator: operator.id.to_string(), key }
    }

    /// Sends a request to the next process in turn: the request's id and the answer. An error is that of the connection.
    pub async fn send(
        &self,
        caller: &Caller,
        query: &str,
        variables: &Value,
    ) -> Result<(String, Value), reqwest::Error> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (_, url) = &self.processes[turn % self.processes.len()];
        let request = self.http.post(format!("{url}/graphql")).bearer_auth(&caller.key);
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await?;
        let request_id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        Ok((request_id, answer.json().await?))
    }

    pub async fn end(self) {
        for (process, _) in self.processes {
            process.stop();
        }
        self.database.close().await.unwrap();
        self.home.remove().await;
    }
}

/// The codes of an answer.
pub fn codes(answer: &Value) -> Vec<String> {
    let errors = answer["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap().to_owned()).collect()
}
