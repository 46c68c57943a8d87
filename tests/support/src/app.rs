//! The service as its clients meet it: a server of its own on a database of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{DisplayName, EmailAddress, OperatorId, PhoneNumber, SearchWord};
use entity::{customer, customer_event, customer_operator, customer_word};
use futures::FutureExt;
use reqwest::header::HeaderMap;
use sea_orm::{ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, Statement};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vivamo::app::{App, AppSettings, DatabaseSettings};
use vivamo::database::Database;
use vivamo::graphql;
use vivamo::http::HttpSettings;
use vivamo::keyed_hash::KeyedHash;
use vivamo::service::api_keys::KeyRequest;
use vivamo::service::{Actor, LimitSettings, ServiceSettings, Services};

use crate::{logs, postgres};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

pub const PLATFORM_KEY: &str = "the-platform-key-of-the-tests-0123456789";
pub const KEY_SECRET: &str = "the-key-secret-of-the-tests-0123456789";

/// Where a test keeps its rows.
pub struct TestDatabase {
    pub url: String,
    home: Home,
}

enum Home {
    File(#[expect(dead_code, reason = "removes the folder when it is dropped")] TempDir),
    Postgres {
        server: String,
        name: String,
    },
    /// Somebody else removes it.
    Elsewhere,
}

impl TestDatabase {
    /// A new, empty database; `None` where there is no such server.
    pub async fn create(backend: Backend) -> Option<Self> {
        match backend {
            Backend::Sqlite => {
                let folder = TempDir::with_prefix("vivamo-test-").unwrap();
                let url = format!("sqlite://{}", folder.path().join("vivamo.db").display());
                Some(Self { url, home: Home::File(folder) })
            }
            Backend::Postgres => {
                let isolation = std::env::var("VIVAMO_TEST_ISOLATION").ok();
                Some(Self::create_at(postgres::server().await?, isolation.as_deref()).await)
            }
        }
    }

    /// A new database on this PostgreSQL, with this isolation by default.
    pub async fn create_at(server: &str, isolation: Option<&str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vivamo_test_{}_{number}", std::process::id());
        let execute = async |sql: &str| postgres::execute(&format!("{server}/postgres"), sql).await.unwrap();
        execute(&format!("CREATE DATABASE {name}")).await;
        if let Some(isolation) = isolation {
            execute(&format!("ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")).await;
        }
        Self { url: format!("{server}/{name}"), home: Home::Postgres { server: server.to_owned(), name } }
    }

    /// A database that is there already.
    pub fn elsewhere(url: String) -> Self {
        Self { url, home: Home::Elsewhere }
    }

    pub async fn remove(self) {
        if let Home::Postgres { server, name } = self.home {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            postgres::execute(&format!("{server}/postgres"), &drop).await.unwrap();
        }
    }
}

pub struct TestApp {
    pub url: String,
    pub database: Database,
    pub services: Arc<Services>,
    pub http: reqwest::Client,
    home: TestDatabase,
    statements: Arc<Mutex<Vec<String>>>,
    /// What operators asked and were answered.
    told: Mutex<Vec<(String, String, String)>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// An operator with a key.
#[derive(Clone, Debug)]
pub struct Caller {
    pub operator: String,
    pub key: String,
}

/// A client of the service. The process needs a provider of cryptography before it can have one, TLS or not.
pub fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // It lets go of a connection before the service does.
    reqwest::Client::builder().pool_idle_timeout(Duration::from_millis(500)).build().unwrap()
}

/// Runs a test in an async runtime of its own: [`both`](crate::both) calls this.
pub fn run_blocking(backend: Backend, environment: Environment, test: impl AsyncFnOnce(&TestApp)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(backend, environment, test));
}

/// Runs a test on its own server and database, and then checks the invariants of the rows that it left.
pub async fn run(backend: Backend, environment: Environment, test: impl AsyncFnOnce(&TestApp)) {
    let Some(app) = TestApp::start(backend, environment).await else { return };
    run_on(app, test).await;
}

/// Runs a test on a server that is already started, and then checks the invariants.
pub async fn run_on(app: TestApp, test: impl AsyncFnOnce(&TestApp)) {
    let outcome = AssertUnwindSafe(test(&app)).catch_unwind().await;
    let invariants = AssertUnwindSafe(app.assert_invariants(outcome.is_ok())).catch_unwind().await;
    app.end().await;
    for outcome in [outcome, invariants] {
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    }
}

fn setup(environment: Environment) -> ServiceSettings {
    let platform_key = Some(SecretString::from(PLATFORM_KEY));
    ServiceSettings { platform_key, ..ServiceSettings::new(environment, KeyedHash::new(KEY_SECRET)) }
}

impl TestApp {
    async fn start(backend: Backend, environment: Environment) -> Option<Self> {
        Self::start_with(backend, setup(environment)).await
    }

    pub async fn start_with(backend: Backend, setup: ServiceSettings) -> Option<Self> {
        Some(Self::start_on(TestDatabase::create(backend).await?, setup).await)
    }

    /// Another replica of the service, which reaches the same database by this URL.
    pub async fn replica(&self, database_url: String) -> Self {
        self.replica_with(database_url, LimitSettings::OFF).await
    }

    /// The same with limits.
    pub async fn replica_with(&self, database_url: String, limits: LimitSettings) -> Self {
        let setup = ServiceSettings { limits, ..setup(self.services.environment) };
        Self::start_on(TestDatabase::elsewhere(database_url), setup).await
    }

    async fn start_on(home: TestDatabase, setup: ServiceSettings) -> Self {
        logs::start();
        let statements = Arc::new(Mutex::new(Vec::new()));
        let seen = statements.clone();
        let observer = Arc::new(move |sql: &str| seen.lock().unwrap().push(sql.to_owned()));
        let app = App::start(AppSettings {
            database: DatabaseSettings { url: home.url.clone(), migrate: true, observer: Some(observer) },
            services: setup,
            http: HttpSettings {
                idle: Duration::from_secs(2),
                trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
                origins: vec![axum::http::HeaderValue::from_static("https://dashboard.example")],
            },
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: None,
            graphiql: false,
            // Their statements would be counted as those of a request.
            jobs: false,
        });
        let app = app.await.unwrap();
        let (url, database, services) = (format!("http://{}", app.address), app.database.clone(), app.services.clone());
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move { app.run_until(async { drop(stopped.await) }).await.unwrap() });
        let http = http_client();
        Self { url, database, services, http, home, statements, told: Mutex::default(), stop, server }
    }

    pub async fn end(self) {
        let Self { home, http, stop, server, .. } = self;
        drop(http);
        drop(stop);
        server.await.unwrap();
        home.remove().await;
    }

    pub fn database_url(&self) -> &str {
        &self.home.url
    }

    /// What must hold after whatever was done.
    async fn assert_invariants(&self, has_tables: bool) {
        if !has_tables {
            return;
        }
        for (what, sql) in [
            (
                "a customer without a link",
                "SELECT COUNT(*) AS n FROM customer c WHERE NOT EXISTS \
                 (SELECT 1 FROM customer_operator l WHERE l.customer_id = c.id)",
            ),
            ("two customers with one email", "SELECT COUNT(*) - COUNT(DISTINCT email) AS n FROM customer"),
            ("two customers with one phone", "SELECT COUNT(phone) - COUNT(DISTINCT phone) AS n FROM customer"),
            (
                "a version that the history does not explain",
                "SELECT COUNT(*) AS n FROM customer c WHERE c.version <> \
                 (SELECT MAX(e.version) FROM customer_event e WHERE e.customer_id = c.id)",
            ),
            (
                "a customer whose history does not begin with its creation",
                "SELECT COUNT(*) AS n FROM customer c WHERE 1 <> \
                 (SELECT COUNT(*) FROM customer_event e WHERE e.customer_id = c.id AND e.type = 'created')",
            ),
            (
                "a link that no event explains",
                "SELECT COUNT(*) AS n FROM customer_operator l WHERE 1 <> (SELECT COUNT(*) FROM customer_event e \
                 WHERE e.customer_id = l.customer_id AND e.operator_id = l.operator_id AND e.type <> 'updated')",
            ),
            (
                "work that was done, and whose key does not know what became of it",
                "SELECT COUNT(*) AS n FROM idempotency_key WHERE result IS NULL",
            ),
            ("a version below 1", "SELECT COUNT(*) AS n FROM customer WHERE version < 1"),
        ] {
            assert_eq!(self.number(sql).await, 0, "{what}");
        }
        self.assert_that_words_are_those_of_the_values().await;
        self.assert_that_nobody_was_told_of_strangers().await;
        logs::assert_clean();
    }

    /// What customers are found by is what the rows say of them.
    async fn assert_that_words_are_those_of_the_values(&self) {
        let reads = self.database.reader();
        let links = customer_operator::Entity::find().find_also_related(customer::Entity).all(reads).await.unwrap();
        let mut expected = BTreeSet::new();
        for (link, customer) in links {
            let customer = customer.unwrap();
            let phone = customer.phone.as_ref().map_or(["", ""], |phone| phone.international_and_national_digits());
            let names =
                [&customer.first_name, &customer.last_name].map(|name| name.as_ref().map_or("", |name| name.as_str()));
            let (local, domain) = customer.email.as_str().rsplit_once('@').unwrap();
            let in_unicode = idna::domain_to_unicode(domain).0;
            let of_email = [local, domain, &in_unicode];
            for value in
                [link.external_customer_id.as_str(), names[0], names[1], phone[0], phone[1]].into_iter().chain(of_email)
            {
                for word in SearchWord::tokenize(value) {
                    expected.insert((link.operator_id.to_string(), link.customer_id.to_string(), word));
                }
            }
        }
        let words = customer_word::Entity::find().all(reads).await.unwrap();
        let words: BTreeSet<_> = words
            .into_iter()
            .filter_map(|row| Some((row.operator_id.to_string(), row.customer_id.to_string(), row.word?)))
            .collect();
        assert!(words == expected, "words that no value has, or values whose words are missing");
    }

    /// After rows were written past the service.
    pub async fn write_words_anew(&self) {
        postgres::execute(self.database_url(), "DELETE FROM customer_word").await.unwrap();
        self.services.customers.add_missing_words(&Actor::Platform).await.unwrap();
    }

    /// Emails and phones in the answers to an operator are those that it sent, or those of its own customers.
    async fn assert_that_nobody_was_told_of_strangers(&self) {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        for (operator, asked, _) in &told {
            let known = known.entry(operator).or_default();
            known.push_str(&asked.to_lowercase());
            for word in asked.split('"') {
                let email = EmailAddress::parse(word).map(|email| email.as_str().to_owned());
                let phone = PhoneNumber::parse(word).map(|phone| phone.as_str().to_owned());
                known.extend([email, phone].into_iter().flatten());
            }
        }
        for (operator, known) in &mut known {
            let own = customer_operator::Column::OperatorId.eq(OperatorId::parse(operator).unwrap());
            let reads = self.database.reader();
            let links = customer_operator::Entity::find().filter(own).all(reads).await.unwrap();
            let ids: Vec<_> = links.iter().map(|link| link.customer_id).collect();
            let customers = customer::Entity::find().filter(customer::Column::Id.is_in(ids.clone()));
            for customer in customers.all(reads).await.unwrap() {
                *known +=
                    &format!(" {} {:?}", customer.email.as_str(), customer.phone.as_ref().map(|phone| phone.as_str()));
            }
            let events = customer_event::Entity::find().filter(customer_event::Column::CustomerId.is_in(ids));
            for event in events.all(reads).await.unwrap() {
                *known += &format!(" {}", json!([event.before, event.after]));
            }
        }
        for (operator, asked, answered) in &told {
            let is_value = |word: &str| word.contains('@') || (word.starts_with('+') && word.len() > 7);
            // The form of an email in words, and the examples of the documentation, are nobody's.
            let answered = answered.replace("local@domain.tld", "");
            let is_documentation = answered.contains("__schema");
            for word in answered.split(['"', ' ', '\\']).filter(|word| is_value(word) && !is_documentation) {
                assert!(known[operator.as_str()].contains(word), "{word} is a stranger's: {answered}, asked {asked}");
            }
        }
    }

    /// The number that a statement with a column `n` selects.
    pub async fn number(&self, sql: &str) -> i64 {
        let reads = self.database.reader();
        let statement = Statement::from_string(reads.get_database_backend(), sql);
        let row = reads.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get("", "n").unwrap()
    }

    pub fn is_postgres(&self) -> bool {
        self.database.reader().get_database_backend() == DbBackend::Postgres
    }

    /// Until transactions wait for one that this test holds. On SQLite a transaction that cannot have its turn yet
    /// has not looked at anything, so there is nothing to wait for.
    pub async fn until_so_many_wait_for_a_lock(&self, transactions: usize) {
        let waiting = "SELECT COUNT(*) AS n FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let transactions = i64::try_from(transactions).unwrap();
        while self.is_postgres() && self.number(waiting).await < transactions {
            tokio::task::yield_now().await;
        }
    }

    /// A new operator with a key that reads and writes.
    pub async fn operator(&self, name: &str) -> Caller {
        let name = DisplayName::parse(name).unwrap();
        let (operator, key) =
            self.services.operators.create(&Actor::Platform, &self.services.api_keys, name).await.unwrap();
        Caller { operator: operator.id.to_string(), key: key.secret.expose_secret().to_owned() }
    }

    /// One more key of an operator.
    pub async fn key(&self, caller: &Caller, access: Access) -> Caller {
        let operator = entity::value::OperatorId::parse(&caller.operator).unwrap();
        let name = DisplayName::parse("another key").unwrap();
        let request = KeyRequest { name, access, expires_at: None };
        let key = self.services.api_keys.create(&Actor::Platform, operator, request).await.unwrap();
        Caller { key: key.secret.expose_secret().to_owned(), ..caller.clone() }
    }

    pub fn platform(&self) -> Caller {
        Caller { operator: String::new(), key: PLATFORM_KEY.to_owned() }
    }

    /// The SQL that something runs, without its values.
    pub async fn all_statements_of<T>(&self, something: impl Future<Output = T>) -> (T, Vec<String>) {
        self.statements.lock().unwrap().clear();
        let done = something.await;
        let statements = std::mem::take(&mut *self.statements.lock().unwrap());
        (done, statements)
    }

    /// The same but for the look at the key, which comes before and belongs to no request.
    pub async fn statements_of<T>(&self, something: impl Future<Output = T>) -> (T, Vec<String>) {
        let (done, mut statements) = self.all_statements_of(something).await;
        statements.retain(|sql| !looks_up_a_key(sql));
        (done, statements)
    }

    pub async fn graphql(&self, caller: &Caller, query: &str, variables: Value) -> Answer {
        let request = self
            .http
            .post(format!("{}/graphql", self.url))
            .bearer_auth(&caller.key)
            .json(&json!({ "query": query, "variables": variables }));
        let answer = Answer::read(request.send().await.unwrap()).await;
        if !caller.operator.is_empty() {
            let told = (caller.operator.clone(), format!("{query} {variables}"), answer.body.to_string());
            self.told.lock().unwrap().push(told);
        }
        answer
    }

    /// A query that must succeed.
    pub async fn query(&self, caller: &Caller, query: &str) -> Value {
        let answer = self.graphql(caller, query, json!({})).await;
        assert_eq!(answer.body.get("errors"), None, "{query}");
        answer.body["data"].clone()
    }

    pub async fn create(&self, caller: &Caller, external_customer_id: &str, data: Value) -> Answer {
        let input = json!({ "externalCustomerId": external_customer_id, "data": data });
        self.graphql(caller, &CREATE, json!({ "input": input })).await
    }

    /// A create that must succeed: its payload.
    pub async fn created(&self, caller: &Caller, external_customer_id: &str, data: Value) -> Value {
        self.create(caller, external_customer_id, data).await.payload("createCustomer")
    }

    pub async fn update(&self, caller: &Caller, customer: Value, data: Value) -> Answer {
        self.graphql(caller, &UPDATE, json!({ "input": { "customer": customer, "data": data } })).await
    }

    /// An update that must succeed: its payload.
    pub async fn updated(&self, caller: &Caller, customer: Value, data: Value) -> Value {
        self.update(caller, customer, data).await.payload("updateCustomer")
    }

    /// The customer so named, as the caller sees it.
    pub async fn customer(&self, caller: &Caller, by: Value) -> Value {
        let query = format!("query ($by: CustomerRef!) {{ customer(by: $by) {FIELDS} }}");
        let answer = self.graphql(caller, &query, json!({ "by": by })).await;
        assert_eq!(answer.body.get("errors"), None);
        answer.body["data"]["customer"].clone()
    }
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

/// What came back over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// Reads an answer, and sees that every error in it has the one shape and says nothing that it must not.
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        for secret in [
            "SELECT",
            "INSERT",
            "sqlx",
            "SQLSTATE",
            "SQLite",
            "constraint",
            "customer_operator",
            "panicked",
            "src/",
            ".rs",
        ] {
            assert!(!text.contains(secret), "an answer holds {secret:?}: {text}");
        }
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        for error in body["errors"].as_array().into_iter().flatten() {
            assert_shape(error, &headers);
        }
        Self { status, headers, body }
    }

    /// The payload of a mutation that must have succeeded.
    pub fn payload(&self, mutation: &str) -> Value {
        assert_eq!(self.body.get("errors"), None);
        self.body["data"][mutation].clone()
    }

    /// The codes and input paths of a refused mutation, whose field must be null.
    pub fn refusals(&self, field: &str) -> Vec<(String, String)> {
        assert_eq!(self.status, 200);
        assert_eq!(self.body["data"], json!({ field: null }), "{}", self.body);
        self.faults()
    }

    /// Code and input path of each error, in a fixed order.
    pub fn faults(&self) -> Vec<(String, String)> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let mut faults: Vec<_> = errors
            .iter()
            .map(|error| {
                let path = error["extensions"]["inputPath"].as_array().cloned().unwrap_or_default();
                let path: Vec<_> = path.iter().map(|part| part.as_str().unwrap().to_owned()).collect();
                (error["extensions"]["code"].as_str().unwrap().to_owned(), path.join("."))
            })
            .collect();
        faults.sort();
        faults
    }

    pub fn codes(&self) -> Vec<String> {
        self.faults().into_iter().map(|(code, _)| code).collect()
    }

    pub fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap()
    }
}

pub fn looks_up_a_key(sql: &str) -> bool {
    sql.contains(r#"FROM "api_key""#)
}

/// Faults as [`Answer::refusals`] has them.
pub fn faults<const N: usize>(faults: [(&str, &str); N]) -> Vec<(String, String)> {
    let mut faults = faults.map(|(code, path)| (code.to_owned(), path.to_owned())).to_vec();
    faults.sort();
    faults
}

fn assert_shape(error: &Value, headers: &HeaderMap) {
    static CODES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let sdl = graphql::sdl();
        let values = sdl.split("enum ErrorCode {").nth(1).unwrap().split('}').next().unwrap();
        let is_value = |line: &&str| !line.is_empty() && line.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        values.lines().map(str::trim).filter(is_value).map(str::to_owned).collect()
    });
    let extensions = error["extensions"].as_object().unwrap_or_else(|| panic!("no extensions: {error}"));
    for name in extensions.keys() {
        assert!(["code", "inputPath", "retryable", "retryAfterMs", "requestId"].contains(&name.as_str()), "{error}");
    }
    assert!(CODES.contains(extensions["code"].as_str().unwrap()), "an unknown code: {error}");
    assert!(extensions["retryable"].is_boolean(), "{error}");
    assert_eq!(extensions["requestId"].as_str(), headers.get("x-request-id").map(|id| id.to_str().unwrap()), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.len() < 1000, "{error}");
}
