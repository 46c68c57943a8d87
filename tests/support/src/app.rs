//! A running service for one test, on its own database, with helpers that send requests to it.

use std::panic::Location;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{DisplayName, OperatorId};
use sea_orm::{ConnectionTrait, DbBackend};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vivamo::app::{App, AppSettings};
use vivamo::config::{HttpSettings, HttpTimeouts, RateLimitSettings};
use vivamo::database::{Database, DatabaseTimeouts};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::open::{DatabaseSettings, PendingMigrations};
use vivamo::service::api_keys::NewApiKey;
use vivamo::service::{Caller, RequestInfo, ServiceSettings, Services};

use crate::database::POLL_INTERVAL;
use crate::invariants::Exchange;
use crate::{Answer, Backend, TestDatabase, logs, postgres};

pub const PLATFORM_KEY: &str = "the-platform-key-of-the-tests-0123456789";
pub const KEY_SECRET: &str = "the-key-secret-of-the-tests-0123456789";

pub struct TestApp {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    pub database: Database,
    pub services: Arc<Services>,
    pub http: reqwest::Client,
    test_database: TestDatabase,
    /// The SQL that was sent to the database, without values.
    statements: Arc<Mutex<Vec<String>>>,
    /// All requests of operators to this server and its replicas, for the invariants.
    exchanges: Arc<Mutex<Vec<Exchange>>>,
    /// The length of the log at the start of this server.
    log_start: u64,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// The time limits of a service under test.
#[derive(Clone, Copy, Default)]
pub struct Timeouts {
    pub database: DatabaseTimeouts,
    pub http: HttpTimeouts,
}

impl Timeouts {
    /// The defaults of the deployed service, for tests of the limits.
    pub fn deployed() -> Self {
        Self::default()
    }

    /// Limits that no test reaches, even on a slow machine. They are longer than `wait_until_blocked` waits, so that
    /// no transaction stops waiting for a lock before all of them wait.
    pub fn long() -> Self {
        const LONG: Duration = Duration::from_secs(120);
        let database = DatabaseTimeouts {
            wait: LONG,
            lock: LONG,
            statement: LONG,
            idle_in_transaction: LONG,
            ..DatabaseTimeouts::default()
        };
        let http =
            HttpTimeouts { idle: LONG, response: LONG, rejected_body: LONG, slot: LONG, request: LONG, work: 2 * LONG };
        Self { database, http }
    }

    /// Long limits, but a client may take only two seconds to send the head of a request. The client of the tests may
    /// lose a connection that was idle for so long.
    pub fn with_short_heads() -> Self {
        let long = Self::long();
        Self { http: HttpTimeouts { idle: Duration::from_secs(2), ..long.http }, ..long }
    }

    /// Long limits, but a client may take only two seconds to read a response.
    pub fn with_short_responses() -> Self {
        let long = Self::long();
        Self { http: HttpTimeouts { response: Duration::from_secs(2), ..long.http }, ..long }
    }

    /// Long limits, but a statement waits for a lock only for as long as in the deployed service. Then the transaction
    /// starts again, and gives its connection to others.
    pub fn with_short_locks() -> Self {
        let long = Self::long();
        Self { database: DatabaseTimeouts { lock: DatabaseTimeouts::default().lock, ..long.database }, ..long }
    }
}

/// An API key and its operator.
#[derive(Clone, Debug)]
pub struct TestCaller {
    /// Id of the operator. Empty for the platform key.
    pub operator: String,
    pub key: String,
}

/// Builds an HTTP client.
pub fn http_client() -> reqwest::Client {
    // reqwest panics without a default provider, even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        // This timeout is shorter than every idle timeout of the service, so that no request is sent on a connection
        // that is being closed.
        .pool_idle_timeout(Duration::from_millis(500))
        // The services of the tests use no TLS, so the certificates of the system are not parsed for each test.
        .tls_certs_only([])
        .build()
        .unwrap()
}

fn default_settings(environment: Environment) -> ServiceSettings {
    let platform_key = Some(SecretString::from(PLATFORM_KEY));
    ServiceSettings { platform_key, ..ServiceSettings::new(environment, KeyedHasher::new(KEY_SECRET)) }
}

impl TestApp {
    /// Starts the service. Returns `None` if `backend` is PostgreSQL and PostgreSQL is not installed.
    pub async fn start(backend: Backend, environment: Environment) -> Option<Self> {
        Self::start_with(backend, default_settings(environment)).await
    }

    /// Starts the service with other settings. Returns `None` under the same condition as [`start`](Self::start).
    pub async fn start_with(backend: Backend, settings: ServiceSettings) -> Option<Self> {
        Self::start_with_timeouts(backend, settings, Timeouts::long()).await
    }

    /// Starts the service with other settings and with these time limits. Returns `None` under the same condition as
    /// [`start`](Self::start).
    pub async fn start_with_timeouts(backend: Backend, settings: ServiceSettings, timeouts: Timeouts) -> Option<Self> {
        Some(Self::start_on(TestDatabase::create(backend).await?, settings, timeouts, Arc::default(), true).await)
    }

    /// Starts another server on the same database, without limits. `database_url` leads to the database, directly or
    /// through a proxy.
    pub async fn replica(&self, database_url: String) -> Self {
        self.replica_with(database_url, RateLimitSettings::OFF).await
    }

    /// Starts another server on the same database, with limits.
    pub async fn replica_with(&self, database_url: String, limits: RateLimitSettings) -> Self {
        let settings = ServiceSettings { limits, ..default_settings(self.services.environment) };
        let test_database = TestDatabase::existing(database_url);
        Self::start_on(test_database, settings, Timeouts::long(), self.exchanges.clone(), true).await
    }

    /// Starts another server on the same database, in which async-graphql resolves all objects.
    pub async fn replica_without_json_writer(&self) -> Self {
        let test_database = TestDatabase::existing(self.database_url().to_owned());
        let settings = default_settings(self.services.environment);
        Self::start_on(test_database, settings, Timeouts::long(), self.exchanges.clone(), false).await
    }

    /// Starts another server on the same database, without rate limits, and with these time limits.
    pub async fn replica_with_timeouts(&self, timeouts: Timeouts) -> Self {
        let test_database = TestDatabase::existing(self.database_url().to_owned());
        let settings = default_settings(self.services.environment);
        Self::start_on(test_database, settings, timeouts, self.exchanges.clone(), true).await
    }

    async fn start_on(
        test_database: TestDatabase,
        settings: ServiceSettings,
        timeouts: Timeouts,
        exchanges: Arc<Mutex<Vec<Exchange>>>,
        writes_json: bool,
    ) -> Self {
        logs::start();
        let log_start = logs::length();
        let statements = Arc::new(Mutex::new(Vec::new()));
        let observed = statements.clone();
        let observer = Arc::new(move |sql: &str| observed.lock().unwrap().push(sql.to_owned()));
        let app = App::start(AppSettings {
            database: DatabaseSettings {
                url: test_database.url.clone(),
                pending_migrations: PendingMigrations::Apply,
                startup_wait: Duration::ZERO,
                timeouts: timeouts.database,
                observer: Some(observer),
            },
            services: settings,
            listen: "127.0.0.1:0".parse().unwrap(),
            http: HttpSettings {
                metrics: None,
                graphiql: Some(true),
                timeouts: timeouts.http,
                trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
                cors_origins: vec![HeaderValue::from_static("https://dashboard.example")],
            },
            // Background jobs are disabled, because their statements would be counted as statements of a request.
            jobs: None,
            writes_json,
        });
        let app = app.await.unwrap();
        let (url, database, services) = (format!("http://{}", app.address), app.database.clone(), app.services.clone());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move { app.run_until(async { drop(stopped.await) }).await });
        let http = http_client();
        Self { url, database, services, http, test_database, statements, exchanges, log_start, stop, server }
    }

    /// Stops the service, and removes the database if it was created for this service.
    pub async fn stop(self) {
        let Self { test_database, http, stop, server, .. } = self;
        drop(http);
        drop(stop);
        server.await.unwrap();
        test_database.remove().await;
    }

    pub fn database_url(&self) -> &str {
        &self.test_database.url
    }

    /// Returns the services on the same database of a server with this environment and key secret.
    pub fn services_with(&self, environment: Environment, key_secret: &str) -> Arc<Services> {
        Services::new(&self.database, ServiceSettings::new(environment, KeyedHasher::new(key_secret)))
    }

    /// Rebuilds the search words, for tests that change customers by SQL.
    pub async fn rebuild_search_words(&self) {
        self.execute("DELETE FROM customer_word").await;
        self.services.customers.add_missing_words(&Caller::Platform).await.unwrap();
    }

    /// Runs statements on a new connection to the database, without the service.
    pub async fn execute(&self, sql: &str) {
        postgres::execute(self.database_url(), sql).await.unwrap();
    }

    /// Reads what was logged since the start of this server, by this test and by the tests that run at the same time.
    pub fn log(&self) -> String {
        logs::read_after(self.log_start)
    }

    /// Selects a number. The statement names its column `n`.
    pub async fn select_number(&self, sql: &str) -> i64 {
        crate::database::select_number(&self.database, sql).await
    }

    /// Counts the rows of a table.
    pub async fn count_rows(&self, table: &str) -> i64 {
        self.select_number(&format!("SELECT COUNT(*) AS n FROM {table}")).await
    }

    pub fn is_postgres(&self) -> bool {
        self.database.reader().get_database_backend() == DbBackend::Postgres
    }

    /// An SQL expression for a time in the past, for rows that must have expired.
    pub fn past(&self) -> &'static str {
        if self.is_postgres() { "now() - interval '1 second'" } else { "'2020-01-01 00:00:00+00:00'" }
    }

    /// Waits until this many transactions wait: on PostgreSQL for a lock, on SQLite for the connection that writes.
    pub async fn wait_until_blocked(&self, transactions: usize) {
        let blocked = "SELECT COUNT(*) AS n FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let started = Instant::now();
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        loop {
            interval.tick().await;
            assert!(started.elapsed() < Duration::from_secs(60), "fewer than {transactions} transactions wait");
            let waiting = if self.is_postgres() {
                usize::try_from(self.select_number(blocked).await).unwrap()
            } else {
                self.database.waiting()
            };
            if waiting >= transactions {
                return;
            }
        }
    }

    /// Waits until the feed shows all committed changes.
    pub async fn wait_for_feed(&self) {
        crate::wait_for_feed(&self.database).await;
    }

    /// Waits until the service sends such a statement.
    pub async fn wait_for_statement(&self, is_wanted: impl Fn(&str) -> bool) {
        let started = Instant::now();
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        while !self.statements.lock().unwrap().iter().any(|sql| is_wanted(sql)) {
            assert!(started.elapsed() < Duration::from_secs(60), "the service does not send the statement");
            interval.tick().await;
        }
    }

    /// Creates an operator with a key that reads and writes.
    pub async fn operator(&self, name: &str) -> TestCaller {
        let name = DisplayName::parse(name).unwrap();
        let (operator, key) =
            self.services.operators.create(&Caller::Platform, &RequestInfo::command_line(), name).await.unwrap();
        TestCaller { operator: operator.id.to_string(), key: key.secret.expose_secret().to_owned() }
    }

    /// Creates another key of the caller's operator.
    pub async fn key(&self, caller: &TestCaller, access: Access) -> TestCaller {
        let operator = OperatorId::parse(&caller.operator).unwrap();
        let name = DisplayName::parse("another key").unwrap();
        let request = NewApiKey { name, access, expires_at: None };
        let key = self
            .services
            .api_keys
            .create(&Caller::Platform, &RequestInfo::command_line(), operator, request)
            .await
            .unwrap();
        TestCaller { key: key.secret.expose_secret().to_owned(), ..caller.clone() }
    }

    /// The platform key.
    pub fn platform(&self) -> TestCaller {
        TestCaller { operator: String::new(), key: PLATFORM_KEY.to_owned() }
    }

    /// Awaits a future and returns its output with the SQL that ran in the meantime.
    pub async fn all_statements_of<T>(&self, future: impl Future<Output = T>) -> (T, Vec<String>) {
        self.statements.lock().unwrap().clear();
        let output = future.await;
        let statements = std::mem::take(&mut *self.statements.lock().unwrap());
        (output, statements)
    }

    /// Like [`all_statements_of`](Self::all_statements_of), but leaves out the lookup of the API key and one lookup of
    /// operators by their ids. Both are sometimes cached.
    pub async fn statements_of<T>(&self, future: impl Future<Output = T>) -> (T, Vec<String>) {
        let (output, mut statements) = self.all_statements_of(future).await;
        statements.retain(|sql| !is_key_lookup(sql));
        if let Some(lookup) = statements.iter().position(|sql| is_operator_lookup(sql)) {
            statements.remove(lookup);
        }
        (output, statements)
    }

    /// Sends a GraphQL request.
    #[track_caller]
    pub fn graphql(&self, caller: &TestCaller, query: &str, variables: Value) -> impl Future<Output = Answer> {
        let sent_at = Location::caller();
        async move {
            let request = self
                .http
                .post(format!("{}/graphql", self.url))
                .bearer_auth(&caller.key)
                .json(&json!({ "query": query, "variables": variables }));
            let context = format!("{sent_at}: {variables}");
            let answer = Answer::read_with_context(context, request.send().await.unwrap()).await;
            if !caller.operator.is_empty() {
                let (operator, request) = (caller.operator.clone(), format!("{query} {variables}"));
                let exchange = Exchange { operator, request, answer: answer.body.to_string() };
                self.exchanges.lock().unwrap().push(exchange);
            }
            answer
        }
    }

    /// Sends a query that must succeed, and returns `data`.
    #[track_caller]
    pub fn query(&self, caller: &TestCaller, query: &str) -> impl Future<Output = Value> {
        let answer = self.graphql(caller, query, json!({}));
        async { answer.await.data().clone() }
    }

    /// Sends a `createCustomer`.
    #[track_caller]
    pub fn create(&self, caller: &TestCaller, external_customer_id: &str, data: Value) -> impl Future<Output = Answer> {
        let input = json!({ "externalCustomerId": external_customer_id, "data": data });
        self.graphql(caller, &CREATE, json!({ "input": input }))
    }

    /// Sends a `createCustomer` that must succeed, and returns its payload.
    #[track_caller]
    pub fn created(&self, caller: &TestCaller, external_customer_id: &str, data: Value) -> impl Future<Output = Value> {
        let answer = self.create(caller, external_customer_id, data);
        async { answer.await.payload("createCustomer") }
    }

    /// Sends an `updateCustomer`. `customer` is its `input.customer`, for example `{"id": "cus_…"}`.
    #[track_caller]
    pub fn update(&self, caller: &TestCaller, customer: Value, data: Value) -> impl Future<Output = Answer> {
        self.graphql(caller, &UPDATE, json!({ "input": { "customer": customer, "data": data } }))
    }

    /// Sends an `updateCustomer` that must succeed, and returns its payload.
    #[track_caller]
    pub fn updated(&self, caller: &TestCaller, customer: Value, data: Value) -> impl Future<Output = Value> {
        let answer = self.update(caller, customer, data);
        async { answer.await.payload("updateCustomer") }
    }

    /// Queries one customer, as the caller sees it. `by` is a `CustomerRef`, for example `{"email":
    /// "ada@example.com"}`.
    #[track_caller]
    pub fn customer(&self, caller: &TestCaller, by: Value) -> impl Future<Output = Value> {
        let answer = self.graphql(caller, &CUSTOMER, json!({ "by": by }));
        async { answer.await.data()["customer"].clone() }
    }

    pub(crate) fn take_exchanges(&self) -> Vec<Exchange> {
        std::mem::take(&mut *self.exchanges.lock().unwrap())
    }
}

/// Recognizes the statement that authenticates a request.
pub fn is_key_lookup(sql: &str) -> bool {
    sql.contains(r#"FROM "api_key""#)
}

/// Recognizes a lookup of operators by their ids.
pub fn is_operator_lookup(sql: &str) -> bool {
    [" IN", " = ANY"].iter().any(|list| sql.contains(&format!(r#"FROM "operator" WHERE "operator"."id"{list}"#)))
}

const FIELDS: &str = "{ id externalCustomerId email phone firstName lastName \
    address { line1 line2 city region postalCode country } missingFields version createdAt updatedAt }";

static CREATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "mutation ($input: CreateCustomerInput!) {{ createCustomer(input: $input) {{ \
         outcome matchedBy unappliedFields warnings {{ code message inputPath }} customer {FIELDS} }} }}"
    )
});
static UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "mutation ($input: UpdateCustomerInput!) {{ updateCustomer(input: $input) {{ \
         warnings {{ code message inputPath }} customer {FIELDS} }} }}"
    )
});
static CUSTOMER: LazyLock<String> =
    LazyLock::new(|| format!("query ($by: CustomerRef!) {{ customer(by: $by) {FIELDS} }}"));
