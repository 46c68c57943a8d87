//! What PostgreSQL makes of the lists of an operator that has half of a million customers: each is read by an index, and its
//! last page costs what its first one does.

use std::path::Path;

use entity::api_key::Access;
use entity::customer;
use entity::deployment::Environment;
use entity::value::{DisplayName, EmailAddress, ExternalCustomerId, OperatorId, PersonName, PhoneNumber, RequestId};
use futures::future::join_all;
use sea_orm::ActiveValue::Set;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use uuid::Uuid;
use vivamo::database::Database;
use vivamo::keyed_hash::KeyedHash;
use vivamo::service::customers::{ChangesDraft, CustomerChanges, CustomerDraft, OwnCustomerRef};
use vivamo::service::{Actor, ServiceSettings, Services};

use support::PLATFORM_KEY;
use support::postgres::{self, Cluster, skip};
use support::process::{Running, vivamo};

const CUSTOMERS: usize = 1_000_000;
/// In a page.
const SIZE: usize = 50;
/// PostgreSQL plans a statement without its values only after it has run five times.
const RUNS: usize = 7;
/// In pages of 8 KiB. The tables and indexes have hundreds of thousands.
const MAX_BLOCKS: u64 = 10_000;

const LIST: &str = "query ($id: ID, $filter: CustomerFilter, $orderBy: CustomerOrder, $first: Int, $after: String, $last: Int) { \
    operator(id: $id) { customers(filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last) { \
    edges { cursor node { email } } pageInfo { hasNextPage startCursor } } } }";
const ALL: &str = "query ($filter: CustomerFilter, $first: Int, $after: String, $last: Int) { \
    customers(filter: $filter, first: $first, after: $after, last: $last) { \
    edges { cursor node { email } } pageInfo { hasNextPage startCursor } } }";

/// What the generator of customers takes from SQLite and PostgreSQL has not.
const FUNCTIONS: &str = "
    CREATE FUNCTION unhex(text) RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT $1::uuid';
    CREATE FUNCTION strftime(text, bigint, text) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS 'SELECT to_timestamp($2)';
    SET session_replication_role = replica; SET maintenance_work_mem = '512MB'; SET work_mem = '256MB';";

/// Fills the tables. Indexes are made when all rows are there, which takes far less time.
async fn fill(url: &str) {
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
    postgres::execute(url, &format!("{FUNCTIONS} {drop} {seed} {create}")).await.unwrap();
    postgres::execute(url, "VACUUM (FREEZE, ANALYZE)").await.unwrap();
}

/// A key of the operator that has half of the customers.
fn new_key(folder: &Path, url: &str) -> String {
    let operator = OperatorId::from(Uuid::parse_str("01800000000170008000000000000000").unwrap()).to_string();
    let mut create = vivamo(folder, &["key", "create", &operator, "--name", "plans", "--json"]);
    let made = create.env("DATABASE_URL", url).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

/// The plans in a log, each with what it took.
fn plans(log: &str) -> Vec<Value> {
    let plans = log.split("plan:\n").skip(1).map(|entry| {
        let lines = entry.lines().take_while(|line| line.starts_with('\t'));
        serde_json::from_str(&lines.collect::<String>()).unwrap()
    });
    plans.collect()
}

/// The nodes of a plan that read a whole table of customers.
fn scans(plan: &Value) -> Vec<String> {
    let is_of_customers = plan["Relation Name"].as_str().is_some_and(|table| table.starts_with("customer"));
    let is_scan = plan["Node Type"].as_str().is_some_and(|node| node.ends_with("Seq Scan"));
    let own = (is_scan && is_of_customers).then(|| plan["Relation Name"].to_string());
    let inner = plan["Plans"].as_array().into_iter().flatten().flat_map(scans);
    own.into_iter().chain(inner).collect()
}

/// How many blocks the statements touched that are in a log from this place on.
fn blocks(log: &Path, logged: usize) -> u64 {
    let log = std::fs::read(log).unwrap();
    let plans = plans(&String::from_utf8_lossy(&log[logged..]));
    assert!(!plans.is_empty(), "no plan was logged");
    let blocks_of = |plan: &Value| {
        assert_eq!(scans(&plan["Plan"]), [""; 0], "{plan:#}");
        let touched = |kind: &str| plan["Plan"][kind].as_u64().unwrap();
        touched("Shared Hit Blocks") + touched("Shared Read Blocks")
    };
    plans.iter().map(blocks_of).sum()
}

/// Has an operator connect customers, create others and change them all, each time several in one turn.
async fn write_several_at_once(database: &str, log: &Path) {
    const SEVERAL: usize = 8;
    let database = Database::connect(database, None).await.unwrap();
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, KeyedHash::new("any")));
    let name = DisplayName::parse("Several").unwrap();
    let (operator, key) = services.operators.create(&Actor::Platform, &services.api_keys, name).await.unwrap();
    let actor = Actor::Operator { id: operator.id, key: key.row.id, access: Access::ReadWrite };
    println!("{:<28}{:>14}", format!("{SEVERAL} at once"), "blocks of each");
    let id = |number: usize| Some(ExternalCustomerId::parse(&number.to_string()).unwrap());
    for (what, email) in [("connect", "person#@example.com"), ("create", "new#@example.com"), ("update", "")] {
        let mut touched = 0;
        for run in 0..RUNS {
            let logged = std::fs::metadata(log).unwrap().len() as usize;
            let numbers =
                (0..SEVERAL).map(|number| (run * SEVERAL + number) * 1000 + 1 + usize::from(what == "create"));
            if email.is_empty() {
                let updates = numbers.map(|number| CustomerChanges {
                    customer: id(number).map(OwnCustomerRef::ExternalCustomerId),
                    values: customer::ActiveModel {
                        first_name: Set(Some(PersonName::parse("Another Name").unwrap())),
                        ..Default::default()
                    },
                    ..Default::default()
                });
                let updates = updates.map(|changes| {
                    let draft = ChangesDraft { changes, faults: Vec::new() };
                    services.customers.update(&actor, RequestId::new(), draft)
                });
                assert!(join_all(updates).await.iter().all(Result::is_ok));
            } else {
                let creates = numbers.map(|number| CustomerDraft {
                    external_customer_id: id(number),
                    email: Some(EmailAddress::parse(&email.replace('#', &number.to_string())).unwrap()),
                    optional: customer::ActiveModel {
                        phone: Set((what == "create")
                            .then(|| PhoneNumber::parse(&format!("+1415{:07}", 5_550_000 + number % 9999)).unwrap())),
                        first_name: Set(Some(PersonName::parse("Any Name").unwrap())),
                        ..Default::default()
                    },
                    ..Default::default()
                });
                let creates = creates.map(|new| services.customers.create(&actor, RequestId::new(), new));
                assert!(join_all(creates).await.iter().all(Result::is_ok));
            }
            touched = blocks(log, logged) / SEVERAL as u64;
        }
        println!("{what:<28}{touched:>14}");
        assert!(touched < 1000, "{what}: {touched} blocks");
    }
    database.close().await.unwrap();
}

struct Asked<'a> {
    url: &'a str,
    log: &'a Path,
}

impl Asked<'_> {
    /// An answer, and how many blocks its statements touched.
    async fn ask(&self, key: &str, query: &str, variables: &Value) -> (Value, u64) {
        let logged = std::fs::metadata(self.log).unwrap().len() as usize;
        let request = support::http_client().post(format!("{}/graphql", self.url)).bearer_auth(key);
        let answer = request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{variables}");
        let data = &answer["data"];
        (data.get("operator").unwrap_or(data)["customers"].clone(), blocks(self.log, logged))
    }

    /// The same, of the last of several runs.
    async fn settled(&self, key: &str, query: &str, variables: &Value) -> (Value, u64) {
        let mut settled = self.ask(key, query, variables).await;
        for _ in 1..RUNS {
            settled = self.ask(key, query, variables).await;
        }
        settled
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_is_read_by_an_index_and_its_last_page_costs_what_its_first_does() {
    let folder = postgres::folder();
    let Some(cluster) = Cluster::at(folder.path().join("postgres"), postgres::free_port()) else {
        return skip("the plans of a million customers");
    };
    cluster.initialise().unwrap();
    cluster.start("-c shared_buffers=1GB -c max_wal_size=16GB -c fsync=off -c autovacuum=off").unwrap();
    postgres::execute(&format!("{}/postgres", cluster.url()), "CREATE DATABASE plans").await.unwrap();
    let database = format!("{}/plans", cluster.url());
    vivamo::database::migrate(&database).await.unwrap();
    fill(&database).await;
    let own = new_key(folder.path(), &database);
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
    let asked = Asked { url: &url, log: &folder.path().join("postgres/log") };

    // Of an odd number, so that the large operator has it.
    let exact = 777_777;
    let order = |field: &str, direction: &str| json!({ "field": field, "direction": direction });
    let of_operator = [
        ("email", json!({ "filter": { "email": format!("person{exact}@example.com") } })),
        ("phone", json!({ "filter": { "phone": format!("+1{}", 2_000_000_000 + exact) } })),
        ("external id", json!({ "filter": { "externalCustomerId": format!("ext-1-{exact}") } })),
        ("connected after", json!({ "filter": { "connectedAt": { "from": "2023-11-20T00:00:00Z" } } })),
        ("oldest first", json!({})),
        ("newest first", json!({ "orderBy": order("CONNECTED_AT", "DESC") })),
        ("by external id", json!({ "orderBy": order("EXTERNAL_CUSTOMER_ID", "ASC") })),
        ("by external id, backwards", json!({ "orderBy": order("EXTERNAL_CUSTOMER_ID", "DESC") })),
        ("a rare word", json!({ "filter": { "search": format!("person{exact}") } })),
        ("a phone", json!({ "filter": { "search": format!("+1 {}", 2_000_000_000 + exact) } })),
        ("a rare and a common word", json!({ "filter": { "search": "example last42" } })),
        ("two words of some", json!({ "filter": { "search": "first4 last1" } })),
        ("a common word", json!({ "filter": { "search": "per" } })),
        ("common words", json!({ "filter": { "search": "example ext" } })),
        ("nobody", json!({ "filter": { "search": "nobody example" } })),
    ];
    let of_all = [
        ("of all, email", json!({ "filter": { "email": format!("person{exact}@example.com") } })),
        ("of all, oldest first", json!({})),
    ];
    let of_operator = of_operator.map(|list| (own, LIST, list));
    let of_all = of_all.map(|list| (PLATFORM_KEY, ALL, list));
    println!("{:<28}{:>6}{:>14}{:>14}", "list", "rows", "first page", "last page");
    for (key, query, (what, list)) in of_operator.into_iter().chain(of_all) {
        let page = |arguments: Value| {
            let mut list = list.clone();
            list.as_object_mut().unwrap().extend(arguments.as_object().unwrap().clone());
            list
        };
        let (first, blocks) = asked.settled(key, query, &page(json!({ "first": SIZE }))).await;
        let rows = first["edges"].as_array().unwrap().len();
        assert_eq!(rows == 0, what == "nobody", "{what}");
        assert!(blocks < MAX_BLOCKS, "{what}: {blocks} blocks");
        if first["pageInfo"]["hasNextPage"] == json!(false) {
            println!("{what:<28}{rows:>6}{blocks:>14}{:>14}", "-");
            continue;
        }
        // The row before the last page, by way of the end: the last pages of half a million are the ten-thousandth.
        let (last, _) = asked.ask(key, query, &page(json!({ "last": SIZE + 1 }))).await;
        let after = &last["pageInfo"]["startCursor"];
        let (last, last_blocks) = asked.settled(key, query, &page(json!({ "first": SIZE, "after": after }))).await;
        assert_eq!(last["edges"].as_array().unwrap().len(), SIZE, "{what}");
        println!("{what:<28}{rows:>6}{blocks:>14}{last_blocks:>14}");
        // A half more, for what the planner makes of a sample; a scan would take a hundred times as many.
        assert!(last_blocks < blocks + blocks / 2 + 50, "{what}: {blocks} blocks, and {last_blocks} for the last page");
    }
    server.stop();
    write_several_at_once(&database, asked.log).await;
    cluster.stop("immediate");
}
