//! The query plans of PostgreSQL for an operator with half a million customers: every list uses an index, and the last
//! page costs about as much as the first page.
//!
//! Also the plans of the deliveries of webhooks, with a large feed and many endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use entity::api_key::Access;
use entity::customer_word;
use entity::deployment::Environment;
use entity::operator::Status;
use entity::value::{
    ApiKeyId, CustomerId, DisplayName, EmailAddress, ExternalCustomerId, OperatorId, PersonName, PhoneNumber, RequestId,
};
use futures::future::join_all;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, Statement};
use serde_json::{Value, json};
use uuid::Uuid;
use vivamo::database::Database;
use vivamo::graphql::ApiChangeRenderer;
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::customers::{CustomerChanges, CustomerDraft, CustomerPatch, CustomerRef};
use vivamo::service::operators::OperatorChanges;
use vivamo::service::webhooks::addresses::AddressFilter;
use vivamo::service::webhooks::delivery::{Deliveries, DeliverySettings, set_gauges};
use vivamo::service::webhooks::sender::{Sender, SenderSettings};
use vivamo::service::{Caller, RequestInfo, ServiceSettings, Services, now};

use crate::servers::Servers;
use support::postgres::{self, own_cluster};
use support::process::{Running, vivamo};
use support::receiver::{Receiver, insert_endpoint};
use support::{Backend, PLATFORM_KEY};

const CUSTOMERS: usize = 1_000_000;
/// The size of a page.
const PAGE_SIZE: usize = 50;
/// The number of runs of each request. The result of the last run counts.
const RUNS: usize = 7;
/// The largest number of 8 KiB blocks that a page may touch. The tables and indexes have hundreds of thousands of
/// blocks.
const MAX_BLOCKS: u64 = 10_000;
/// The largest number of blocks that a page and a count may touch if each checks 10,000 customers one by one. Checking
/// all customers of the large operator would touch many millions.
const MAX_BLOCKS_OF_SCAN: u64 = 500_000;

const LIST: &str = "query ($id: ID, $filter: CustomerFilter, $orderBy: CustomerOrder, \
    $first: Int, $after: String, $last: Int) { \
    operator(id: $id) { list: customers(filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last) { \
    edges { cursor node { email } } pageInfo { hasNextPage startCursor } } } }";
const ALL_CUSTOMERS: &str = "query ($filter: CustomerFilter, $first: Int, $after: String, $last: Int) { \
    list: customers(filter: $filter, first: $first, after: $after, last: $last) { \
    edges { cursor node { email } } pageInfo { hasNextPage startCursor } } }";
const EVENTS: &str = "query ($customerId: ID, $requestId: String, $apiKeyId: ID, \
    $first: Int, $after: String, $last: Int) { \
    list: customerEvents(customerId: $customerId, requestId: $requestId, apiKeyId: $apiKeyId, \
    first: $first, after: $after, last: $last) { \
    edges { cursor node { type } } pageInfo { hasNextPage startCursor } } }";

/// Defines, for PostgreSQL, the SQLite functions that seed.sql uses.
const FUNCTIONS: &str = "
    CREATE FUNCTION unhex(text) RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT $1::uuid';
    CREATE FUNCTION strftime(text, bigint, text) RETURNS timestamptz IMMUTABLE LANGUAGE sql
        AS 'SELECT to_timestamp($2)';
    SET session_replication_role = replica; SET maintenance_work_mem = '512MB'; SET work_mem = '256MB';";

/// Creates an entry in the history for each link. The id of the customer is used as the request id, and the id of the
/// operator is used as the key id.
const SEED_EVENTS: &str = "
    INSERT INTO customer_event
        (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at)
    SELECT gen_random_uuid(), customer_id, operator_id, operator_id, customer_id, 'connected', 1, '{}', '{}', connected_at
    FROM customer_operator;";

/// Drops the indexes, fills the tables, and creates the indexes again. This is much faster than to fill tables with
/// indexes.
async fn seed(url: &str) {
    let connection = sea_orm::Database::connect(url).await.unwrap();
    let indexes =
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'";
    let indexes = connection.query_all_raw(Statement::from_string(connection.get_database_backend(), indexes)).await;
    let (mut drop, mut create) = (String::new(), String::new());
    for index in indexes.unwrap() {
        drop += &format!("DROP INDEX {};", index.try_get::<String>("", "indexname").unwrap());
        create += &format!("{};", index.try_get::<String>("", "indexdef").unwrap());
    }
    connection.close().await.unwrap();
    let seed = include_str!("../../benches/service/seed.sql").replace("{customers}", &CUSTOMERS.to_string());
    postgres::execute(url, &format!("{FUNCTIONS} {drop} {seed} {SEED_EVENTS} {create}")).await.unwrap();
    postgres::execute(url, "VACUUM (FREEZE, ANALYZE)").await.unwrap();
}

/// The id that seed.sql gives to the customer, and to the operator, with this number.
fn seeded_id(number: usize) -> Uuid {
    Uuid::parse_str(&format!("018{number:09}70008000000000000000")).unwrap()
}

/// Creates a key of the operator that has half of the customers.
fn create_key(folder: &Path, url: &str) -> String {
    let operator = OperatorId::from(seeded_id(1)).to_string();
    let mut create = vivamo(folder, &["key", "create", &operator, "--name", "plans", "--json"]);
    let output = create.env("DATABASE_URL", url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let created: Value = serde_json::from_slice(&output.stdout).unwrap();
    created["key"].as_str().unwrap().to_owned()
}

/// The plans that auto_explain wrote to the log.
fn logged_plans(log: &str) -> Vec<Value> {
    let plans = log.split("plan:\n").skip(1).map(|entry| {
        let lines = entry.lines().take_while(|line| line.starts_with('\t'));
        serde_json::from_str(&lines.collect::<String>()).unwrap()
    });
    plans.collect()
}

/// The tables of customers and webhooks that a plan reads sequentially.
fn sequential_scans(plan: &Value) -> Vec<String> {
    let is_large = |table: &str| table.starts_with("customer") || table == "webhook";
    let is_large_table = plan["Relation Name"].as_str().is_some_and(is_large);
    let is_scan = plan["Node Type"].as_str().is_some_and(|node| node.ends_with("Seq Scan"));
    let own = (is_scan && is_large_table).then(|| plan["Relation Name"].to_string());
    let inner = plan["Plans"].as_array().into_iter().flatten().flat_map(sequential_scans);
    own.into_iter().chain(inner).collect()
}

/// Returns the number of blocks that statements touched. Reads only the statements that are logged after the first
/// `offset` bytes, and asserts that none of these statements scans a large table.
fn count_blocks(log: &Path, offset: usize) -> u64 {
    blocks_of_statements(log, offset).iter().map(|(_, blocks)| blocks).sum()
}

/// Returns the SQL of each statement and the number of blocks that the statement touched. Reads and asserts the same as
/// [`count_blocks`].
fn blocks_of_statements(log: &Path, offset: usize) -> Vec<(String, u64)> {
    let log = std::fs::read(log).unwrap();
    let plans = logged_plans(&String::from_utf8_lossy(&log[offset..]));
    assert!(!plans.is_empty(), "no plan was logged");
    let count = |plan: &Value| {
        assert_eq!(sequential_scans(&plan["Plan"]), [""; 0], "{plan:#}");
        let buffers = |kind: &str| plan["Plan"][kind].as_u64().unwrap();
        let blocks = buffers("Shared Hit Blocks") + buffers("Shared Read Blocks");
        (plan["Query Text"].as_str().unwrap().to_owned(), blocks)
    };
    plans.iter().map(count).collect()
}

/// Adds the search words of a few customers, as after an interrupted `vivamo migrate`. Most links have their words, but
/// no statement examines all links.
async fn add_missing_words(url: &str, log: &Path) {
    const LOST: usize = 1_000;
    let database = Database::connect(url, None).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new("any")));
    let connection = sea_orm::Database::connect(url).await.unwrap();
    let of_lost = customer_word::Column::CustomerId.gte(seeded_id(CUSTOMERS - LOST));
    let words = async || customer_word::Entity::find().filter(of_lost.clone()).count(&connection).await.unwrap();
    let complete = words().await;
    customer_word::Entity::delete_many().filter(of_lost.clone()).exec(&connection).await.unwrap();
    assert_eq!(words().await, 0);
    let offset = std::fs::metadata(log).unwrap().len() as usize;
    services.customers.add_missing_words(&Caller::Platform).await.unwrap();
    let most = blocks_of_statements(log, offset).into_iter().map(|(_, blocks)| blocks).max().unwrap();
    println!("{:<28}{most:>16}", "most blocks of a statement that adds missing words");
    assert!(most < 200_000, "{most} blocks");
    assert_eq!(words().await, complete);
    connection.close().await.unwrap();
    database.close().await;
}

/// Connects, creates and updates customers of one operator, in batches. Each batch contains only one kind of operation.
async fn write_batches(database: &str, log: &Path) {
    const BATCH: usize = 8;
    let database = Database::connect(database, None).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new("any")));
    let name = DisplayName::parse("Batches").unwrap();
    let (operator, key) =
        services.operators.create(&Caller::Platform, &RequestInfo::command_line(), name).await.unwrap();
    let caller =
        Caller::Operator { id: operator.id, key: key.row.id, access: Access::ReadWrite, disclosures_per_hour: None };
    let request = RequestId::new().into();
    println!("{:<28}{:>16}", format!("batches of {BATCH}"), "blocks per write");
    let id = |number: usize| Some(ExternalCustomerId::parse(&number.to_string()).unwrap());
    for (operation, email) in [("connect", "person#@example.com"), ("create", "new#@example.com"), ("update", "")] {
        let mut blocks = 0;
        for run in 0..RUNS {
            let offset = std::fs::metadata(log).unwrap().len() as usize;
            let numbers =
                (0..BATCH).map(|number| (run * BATCH + number) * 1000 + 1 + usize::from(operation == "create"));
            if email.is_empty() {
                let updates = numbers.map(|number| CustomerChanges {
                    customer: id(number).map(CustomerRef::ExternalCustomerId),
                    values: CustomerPatch {
                        first_name: Some(PersonName::parse("Another Name").ok()),
                        ..Default::default()
                    },
                    ..Default::default()
                });
                let updates = updates.map(|changes| services.customers.update(&caller, &request, changes));
                assert!(join_all(updates).await.iter().all(Result::is_ok));
            } else {
                let creates =
                    numbers.map(|number| CustomerDraft {
                        external_customer_id: id(number),
                        email: Some(EmailAddress::parse(&email.replace('#', &number.to_string())).unwrap()),
                        optional_values: CustomerPatch {
                            phone: Some((operation == "create").then(|| {
                                PhoneNumber::parse(&format!("+1415{:07}", 5_550_000 + number % 9999)).unwrap()
                            })),
                            first_name: Some(PersonName::parse("Any Name").ok()),
                            ..Default::default()
                        },
                        ..Default::default()
                    });
                let creates = creates.map(|new| services.customers.create(&caller, &request, new));
                assert!(join_all(creates).await.iter().all(Result::is_ok));
            }
            blocks = count_blocks(log, offset) / BATCH as u64;
        }
        println!("{operation:<28}{blocks:>16}");
        assert!(blocks < 1000, "{operation}: {blocks} blocks");
    }
    database.close().await;
}

/// Disconnects two batches of the customers of the large operator: the first ones, and some of the last ones.
async fn remove_customers(database: &str, log: &Path) {
    const MAX_BLOCKS_OF_STATEMENT: u64 = 5_000;
    let database = Database::connect(database, None).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new("any")));
    let (operator, request) = (OperatorId::from(seeded_id(1)), RequestInfo::command_line());
    let suspended = OperatorChanges { status: Some(Status::Suspended), ..Default::default() };
    services.operators.update(&Caller::Platform, &request, operator, suspended).await.unwrap();
    for (batch, after) in [("first", None), ("last", Some(CustomerId::from(seeded_id(CUSTOMERS - 1_000))))] {
        let offset = std::fs::metadata(log).unwrap().len() as usize;
        let removed = services.customers.remove_customer_batch(&Caller::Platform, &request, operator, after).await;
        assert_eq!(removed.unwrap().len(), 100);
        let most = blocks_of_statements(log, offset).into_iter().map(|(_, blocks)| blocks).max().unwrap();
        println!("{:<28}{most:>16}", format!("{batch} batch of a removal"));
        assert!(most < MAX_BLOCKS_OF_STATEMENT, "{batch}: {most} blocks");
    }
    database.close().await;
}

/// Reads the first and the last page of a history with many entries that the operator does not see, and many of its own
/// entries that other operators do not see.
async fn read_long_history(measured: &Measured<'_>, database: &str, key: &str) {
    const ENTRIES: usize = 300_000;
    /// The number of updates by another operator at the start of the history, and at its end.
    const UPDATES: usize = 10;
    const MAX_BLOCKS: u64 = 200;
    let number = 777_777;
    let entry = |operator: usize, r#type: &str, version: &str, count: usize| {
        format!(
            "INSERT INTO customer_event
                (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at)
             SELECT gen_random_uuid(), '{customer}', '{operator}', '{operator}', gen_random_uuid(), '{type}', {version},
                '{{\"firstName\": null}}', '{{\"firstName\": \"Ada\"}}', now()
             FROM generate_series(1, {count}) AS n;",
            customer = seeded_id(number),
            operator = seeded_id(operator),
            r#type = r#type,
        )
    };
    let changes = [1, 2].map(|operator| entry(operator, "external_customer_id_changed", "1 + n", ENTRIES));
    let updates = [entry(2, "updated", "1 + n", UPDATES), entry(2, "updated", &format!("{ENTRIES} + 1 + n"), UPDATES)];
    let sql = [&["SET session_replication_role = replica;".to_owned()][..], &changes, &updates].concat().concat();
    postgres::execute(database, &sql).await.unwrap();
    postgres::execute(database, "VACUUM (ANALYZE) customer_event").await.unwrap();
    let query = "query ($id: ID!, $first: Int, $last: Int) { operator: customer(by: { id: $id }) { \
                 list: history(first: $first, last: $last) { nodes { type own } } } }";
    let id = CustomerId::from(seeded_id(number)).to_string();
    for name in ["first", "last"] {
        let (page, blocks) = measured.send_repeatedly(key, query, &json!({ "id": id, name: PAGE_SIZE })).await;
        println!("{:<28}{blocks:>6}", format!("{name} page of a history"));
        let nodes = page["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), PAGE_SIZE, "{name}");
        assert_eq!(nodes.iter().filter(|node| node["own"] == false).count(), UPDATES, "{name}");
        assert!(blocks < MAX_BLOCKS, "{name}: {blocks} blocks");
    }
}

/// The number of operators with an endpoint that has received all changes.
const IDLE_ENDPOINTS: usize = 1_000;
/// The largest numbers of blocks that a statement of the deliveries may touch. The first limit is for the statement
/// that looks for new work ("poll"). The second limit is for the statement that selects the endpoints that are due
/// ("claim"), and for the statement that computes the metrics ("gauges"). Both look up the next change of each
/// endpoint. The third limit is for a statement that reads a page or changes a row.
const MAX_BLOCKS_OF_POLL: u64 = 50;
const MAX_BLOCKS_OF_ENDPOINTS: u64 = 8 * IDLE_ENDPOINTS as u64;
const MAX_BLOCKS_OF_DELIVERY: u64 = 1_000;

/// Returns SQL that adds 1.5 million changes to the feed: 500,000 for the platform and one million for operators. The
/// SQL raises `feed_base`, so that readers see these changes. The SQL also adds operators whose endpoints have received
/// all changes, and endpoints of another operator that have received none. `url` is the URL of all endpoints. Some
/// endpoints of each kind are disabled or paused.
fn seed_webhooks(url: &str) -> String {
    let columns = "id, operator_id, url, secret_version, secret_created_at, delivered_position, delivered_id, \
                   failed_attempts, next_attempt_at, created_at, disabled_at, paused_at";
    let endpoint = |operator: &str, position: &str| {
        format!(
            "gen_random_uuid(), {operator}, '{url}', 1, now(), {position}, '{}', 0, now() - interval '1 hour', now()",
            Uuid::nil()
        )
    };
    let [idle, late] = [endpoint("id", "3000000"), endpoint(&format!("'{}'", seeded_id(1)), "0")];
    format!(
        "UPDATE deployment SET feed_base = 5000000; \
         INSERT INTO customer_change SELECT '{platform}', 1000000 + row_number() OVER (), gen_random_uuid(), id, NULL, \
             'created', 1, '[]', false, created_at, false FROM customer LIMIT 500000; \
         INSERT INTO customer_change SELECT operator_id, 1000000 + row_number() OVER (), gen_random_uuid(), customer_id, \
             external_customer_id, 'created', 1, '[]', true, connected_at, false FROM customer_operator LIMIT 1000000; \
         INSERT INTO operator (id, name, created_at) \
             SELECT gen_random_uuid(), 'Idle', now() FROM generate_series(1, {IDLE_ENDPOINTS}); \
         INSERT INTO webhook ({columns}) SELECT {idle}, NULL, NULL FROM operator WHERE name = 'Idle'; \
         INSERT INTO webhook ({columns}) SELECT {idle}, now(), NULL FROM operator WHERE name = 'Idle'; \
         INSERT INTO webhook ({columns}) SELECT {late}, NULL, NULL; \
         INSERT INTO webhook ({columns}) SELECT {late}, now(), NULL FROM generate_series(1, 2); \
         INSERT INTO webhook ({columns}) SELECT {late}, NULL, now() FROM generate_series(1, 2);",
        platform = Uuid::nil(),
    )
}

/// Measures the endpoints of webhooks, and delivers until the receiver has `DELIVERIES` deliveries. The settings allow
/// deliveries to loopback addresses.
async fn deliver(database: &Database, services: &Arc<Services>, receiver: &Receiver) {
    const DELIVERIES: usize = 3;
    let loopback = AddressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let settings = DeliverySettings {
        sender: Sender::new(SenderSettings::new(Environment::Sandbox, loopback)).unwrap(),
        renderer: Arc::new(ApiChangeRenderer { hasher: KeyedHasher::new("any") }),
        clock: Arc::new(now),
    };
    let deliveries = Deliveries::new(database.clone(), services.clone(), settings);
    set_gauges(database).await.unwrap();
    deliveries.run(receiver.wait_for(DELIVERIES)).await;
}

/// Delivers the changes of a large feed while there are many endpoints.
async fn deliver_webhooks(database: &str, log: &Path) {
    let receiver = Receiver::start().await;
    postgres::execute(database, &seed_webhooks(&receiver.url)).await.unwrap();
    postgres::execute(database, "VACUUM (FREEZE, ANALYZE)").await.unwrap();
    let database = Database::connect(database, None).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new("any")));
    let offset = std::fs::metadata(log).unwrap().len() as usize;
    deliver(&database, &services, &receiver).await;
    database.close().await;
    let mut largest = BTreeMap::new();
    for (sql, blocks) in blocks_of_statements(log, offset) {
        let (name, max) = match sql {
            sql if sql.contains("has_ended_backoff") => ("poll", MAX_BLOCKS_OF_POLL),
            sql if sql.contains("\"next_attempt_at\" <=") => ("claim", MAX_BLOCKS_OF_ENDPOINTS),
            sql if sql.contains("\"oldest\"") => ("gauges", MAX_BLOCKS_OF_ENDPOINTS),
            _ => ("delivery", MAX_BLOCKS_OF_DELIVERY),
        };
        assert!(blocks < max, "{name}: {blocks} blocks");
        let largest = largest.entry(name).or_insert(blocks);
        *largest = blocks.max(*largest);
    }
    println!("{:<28}{:>16}", "statement of webhooks", "blocks");
    largest.iter().for_each(|(name, blocks)| println!("{name:<28}{blocks:>16}"));
    assert_eq!(largest.into_keys().collect::<Vec<_>>(), ["claim", "delivery", "gauges", "poll"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_use_indexes_on_sqlite() {
    // A cursor consists of a position and an id. An index condition on the position alone is enough: only the changes
    // of one transaction have the same position, so the statement reads few changes that are before the cursor.
    const AFTER_POSITION: &str = "(reader_id=? AND position>?)";
    let servers = Servers::start(Backend::Sqlite, 0).await.unwrap();
    let operator = servers.operator("A").await;
    let receiver = Receiver::start().await;
    insert_endpoint(&servers.database, OperatorId::parse(&operator.operator).unwrap(), &receiver.url).await;
    let changes = "INSERT INTO customer_change WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) \
                   SELECT id, n, randomblob(16), randomblob(16), n, 'created', 1, '[]', 1, created_at, 0 FROM operator, n";
    postgres::execute(servers.url(), changes).await.unwrap();
    let statements = Arc::new(Mutex::new(BTreeSet::new()));
    let observed = statements.clone();
    let observer = Arc::new(move |sql: &str| {
        observed.lock().unwrap().insert(sql.to_owned());
    });
    let database = Database::connect(servers.url(), Some(observer)).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new("any")));
    deliver(&database, &services, &receiver).await;
    database.close().await;
    let mut plans = BTreeMap::new();
    let statements = statements.lock().unwrap().clone();
    for sql in statements.into_iter().filter(|sql| sql.contains("customer_change")) {
        let reader = servers.database.reader();
        let explain = Statement::from_string(reader.get_database_backend(), format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = reader.query_all_raw(explain).await.unwrap();
        let steps = steps.iter().map(|step| step.try_get::<String>("", "detail").unwrap());
        plans.insert(sql, steps.filter(|step| step.contains("customer_change")).collect::<Vec<_>>());
    }
    // Each statement starts at a position of one reader, or reads the last position of one reader.
    for (name, expected) in [
        // A statement that selects a maximum reads one entry of the index.
        ("has_ended_backoff", vec!["(reader_id=?)"]),
        ("\"lease_until\" IS NULL OR", vec![AFTER_POSITION]),
        ("\"oldest\"", vec![AFTER_POSITION]),
    ] {
        let found: Vec<_> = plans.iter().filter(|(sql, _)| sql.contains(name)).collect();
        assert_eq!(found.len(), 1, "{name}: {plans:#?}");
        let conditions = |step: &String| step.split_once(" (").map(|(_, conditions)| format!("({conditions}"));
        let conditions: Vec<_> = found[0].1.iter().filter_map(conditions).collect();
        assert_eq!(conditions, expected, "{found:#?}");
    }
    let is_scan = |step: &String| step.starts_with("SCAN");
    assert!(!plans.values().flatten().any(is_scan), "{plans:#?}");
    servers.stop().await;
}

/// A server and the log of its PostgreSQL.
struct Measured<'a> {
    url: &'a str,
    log: &'a Path,
}

impl Measured<'_> {
    /// Sends a request. Returns `list` of the answer and the number of blocks that its statements touched.
    async fn send(&self, key: &str, query: &str, variables: &Value) -> (Value, u64) {
        let offset = std::fs::metadata(self.log).unwrap().len() as usize;
        let request = support::http_client().post(format!("{}/graphql", self.url)).bearer_auth(key);
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{variables}");
        let data = &answer["data"];
        (data.get("operator").unwrap_or(data)["list"].clone(), count_blocks(self.log, offset))
    }

    /// Sends a request `RUNS` times, and returns the last result.
    async fn send_repeatedly(&self, key: &str, query: &str, variables: &Value) -> (Value, u64) {
        let mut result = self.send(key, query, variables).await;
        for _ in 1..RUNS {
            result = self.send(key, query, variables).await;
        }
        result
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_uses_an_index_and_its_last_page_costs_as_much_as_its_first() {
    let Some(stopped_at_end) = own_cluster() else { return };
    let (cluster, folder) = (&stopped_at_end.cluster, postgres::folder());
    cluster.initialise().unwrap();
    cluster.start("-c shared_buffers=1GB -c max_wal_size=16GB -c fsync=off -c autovacuum=off").unwrap();
    postgres::execute(&format!("{}/postgres", cluster.url()), "CREATE DATABASE plans").await.unwrap();
    let database = format!("{}/plans", cluster.url());
    // The database is still empty here, so `vivamo migrate` has no links to check for missing search words.
    let migrated = vivamo(folder.path(), &["migrate"]).env("DATABASE_URL", &database).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    seed(&database).await;
    // Gives many customers of the large operator the same first and last name.
    let common_names = "INSERT INTO customer_word (operator_id, customer_id, place, word) \
         SELECT operator_id, customer_id, place, word FROM (SELECT operator_id, customer_id FROM customer_operator \
             WHERE operator_id = (SELECT id FROM operator WHERE name = 'Operator 1') LIMIT 20000) AS link \
         CROSS JOIN (VALUES (2001::smallint, 'common'), (3001, 'name'), (5001, '&common name')) AS words (place, word)";
    postgres::execute(&database, common_names).await.unwrap();
    postgres::execute(&database, "VACUUM (ANALYZE) customer_word").await.unwrap();
    let own = create_key(folder.path(), &database);
    let own = own.as_str();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
    ] {
        postgres::execute(&database, &format!("ALTER DATABASE plans SET {setting}")).await.unwrap();
    }
    let (server, url) = Running::start(
        vivamo(folder.path(), &["serve"])
            .env("DATABASE_URL", &database)
            .env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY)
            .env("VIVAMO_COST_PER_SECOND", "0"),
    );
    let measured = Measured { url: &url, log: &cluster.log() };

    // Customers with odd numbers belong to the large operator.
    let number = 777_777;
    let order = |field: &str, direction: &str| json!({ "field": field, "direction": direction });
    let operator_lists = [
        ("email", json!({ "filter": { "email": format!("person{number}@example.com") } })),
        ("phone", json!({ "filter": { "phone": format!("+1{}", 2_000_000_000 + number) } })),
        ("external id", json!({ "filter": { "externalCustomerId": format!("ext-1-{number}") } })),
        ("connected after", json!({ "filter": { "connectedAt": { "from": "2023-11-20T00:00:00Z" } } })),
        ("oldest first", json!({})),
        ("newest first", json!({ "orderBy": order("CONNECTED_AT", "DESC") })),
        ("by external id", json!({ "orderBy": order("EXTERNAL_CUSTOMER_ID", "ASC") })),
        ("by external id, descending", json!({ "orderBy": order("EXTERNAL_CUSTOMER_ID", "DESC") })),
        ("a rare word", json!({ "filter": { "search": format!("person{number}") } })),
        ("an email", json!({ "filter": { "search": format!("person{number}@example.com") } })),
        ("the end of a phone", json!({ "filter": { "search": format!("{:04}", number % 10_000) } })),
        ("a phone", json!({ "filter": { "search": format!("+1 {}", 2_000_000_000 + number) } })),
        ("a rare and a common word", json!({ "filter": { "search": "example last42" } })),
        ("a first and a last name", json!({ "filter": { "search": "first43 last43" } })),
        ("names that many have", json!({ "filter": { "search": "common name" } })),
        ("two words of medium frequency", json!({ "filter": { "search": "first4 last1" } })),
        ("a common word", json!({ "filter": { "search": "per" } })),
        ("a word that all have", json!({ "filter": { "search": "example" } })),
        ("common words", json!({ "filter": { "search": "example ext" } })),
        ("no match", json!({ "filter": { "search": "nobody example" } })),
    ];
    let all_customer_lists = [
        ("all customers, email", json!({ "filter": { "email": format!("person{number}@example.com") } })),
        ("all customers, oldest first", json!({})),
    ];
    let operator_lists = operator_lists.map(|list| (own, LIST, list));
    let all_customer_lists = all_customer_lists.map(|list| (PLATFORM_KEY, ALL_CUSTOMERS, list));
    let customer = seeded_id(number);
    let event_lists = [
        ("history of a customer", json!({ "customerId": CustomerId::from(customer).to_string() })),
        ("entries of a request", json!({ "requestId": RequestId::from(customer).to_string() })),
        ("entries of an API key", json!({ "apiKeyId": ApiKeyId::from(seeded_id(1)).to_string() })),
    ];
    let event_lists = event_lists.map(|list| (PLATFORM_KEY, EVENTS, list));
    println!("{:<28}{:>6}{:>14}{:>14}", "list", "rows", "first page", "last page");
    for (key, query, (name, list)) in operator_lists.into_iter().chain(all_customer_lists).chain(event_lists) {
        let page = |arguments: Value| {
            let mut list = list.clone();
            list.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            list
        };
        let (first, blocks) = measured.send_repeatedly(key, query, &page(json!({ "first": PAGE_SIZE }))).await;
        let rows = first["edges"].as_array().unwrap().len();
        assert_eq!(rows == 0, name == "no match", "{name}");
        assert!(blocks < MAX_BLOCKS, "{name}: {blocks} blocks");
        if first["pageInfo"]["hasNextPage"] == json!(false) {
            println!("{name:<28}{rows:>6}{blocks:>14}{:>14}", "-");
            continue;
        }
        // Reads backwards from the end to find the cursor before the last page.
        let (last, _) = measured.send(key, query, &page(json!({ "last": PAGE_SIZE + 1 }))).await;
        let after = &last["pageInfo"]["startCursor"];
        let (last, last_blocks) =
            measured.send_repeatedly(key, query, &page(json!({ "first": PAGE_SIZE, "after": after }))).await;
        assert_eq!(last["edges"].as_array().unwrap().len(), PAGE_SIZE, "{name}");
        println!("{name:<28}{rows:>6}{blocks:>14}{last_blocks:>14}");
        // The last page may touch 1.5 times as many blocks as the first page, plus 50. PostgreSQL computes its
        // statistics from a sample, so its plans vary. A sequential scan would touch a hundred times as many blocks.
        assert!(
            last_blocks < blocks + blocks / 2 + 50,
            "{name}: {blocks} blocks for the first page, {last_blocks} for the last page"
        );
    }
    let scans = [
        ("created before", json!({ "filter": { "createdAt": { "before": "2020-01-01T00:00:00Z" } } })),
        ("missing phone", json!({ "filter": { "missing": ["PHONE"] } })),
        (
            "missing phone, newest first",
            json!({ "filter": { "missing": ["PHONE"] }, "orderBy": order("CONNECTED_AT", "DESC") }),
        ),
        (
            "missing phone, by external id",
            json!({ "filter": { "missing": ["PHONE"] }, "orderBy": order("EXTERNAL_CUSTOMER_ID", "ASC") }),
        ),
        (
            "connected before, by ext. id",
            json!({
                "filter": { "connectedAt": { "before": "2020-01-01T00:00:00Z" } },
                "orderBy": order("EXTERNAL_CUSTOMER_ID", "ASC"),
            }),
        ),
        ("common word, missing phone", json!({ "filter": { "search": "example", "missing": ["PHONE"] } })),
        ("common words, missing phone", json!({ "filter": { "search": "example ext", "missing": ["PHONE"] } })),
        ("medium words, missing phone", json!({ "filter": { "search": "first1 last1", "missing": ["PHONE"] } })),
    ];
    let with_count = |query: &str| query.replace("pageInfo", "totalCountAtLeast pageInfo");
    let (operator_scan, all_customers_scan) = (with_count(LIST), with_count(ALL_CUSTOMERS));
    let all_customer_scans = scans[..2].iter().map(|list| (PLATFORM_KEY, &all_customers_scan, list.clone()));
    let scans = scans.iter().map(|list| (own, &operator_scan, list.clone())).chain(all_customer_scans);
    for (key, query, (name, list)) in scans {
        let page = |arguments: Value| {
            let mut list = list.clone();
            list.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            list
        };
        let (first, blocks) = measured.send_repeatedly(key, query, &page(json!({ "first": PAGE_SIZE }))).await;
        assert_eq!((&first["edges"], &first["totalCountAtLeast"]), (&json!([]), &json!(0)), "{name}");
        assert_eq!(first["pageInfo"]["hasNextPage"], true, "{name}");
        // This page checks the last 10,000 customers, backwards from the end. Its `startCursor` is the place where the
        // check stopped.
        let (last, _) = measured.send(key, query, &page(json!({ "last": PAGE_SIZE }))).await;
        let after = &last["pageInfo"]["startCursor"];
        let (last, last_blocks) =
            measured.send_repeatedly(key, query, &page(json!({ "first": PAGE_SIZE, "after": after }))).await;
        assert_eq!(last["edges"], json!([]), "{name}");
        println!("{name:<28}{:>6}{blocks:>14}{last_blocks:>14}", 0);
        assert!(blocks.max(last_blocks) < MAX_BLOCKS_OF_SCAN, "{name}: {blocks}, {last_blocks} blocks");
    }
    read_long_history(&measured, &database, own).await;
    server.stop();
    add_missing_words(&database, measured.log).await;
    write_batches(&database, measured.log).await;
    deliver_webhooks(&database, measured.log).await;
    remove_customers(&database, measured.log).await;
}
