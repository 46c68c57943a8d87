//! The change feed while transactions commit in another order than they began, servers are killed, PostgreSQL fails
//! over, and a dump is restored. A reader that follows its cursor gets each change once, and the changes of a customer
//! in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use entity::customer_event;
use entity::customer_event::EventType;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sea_orm::{ActiveEnum, ConnectionTrait, DbBackend, EntityTrait, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;
use vivamo::database::Database;

use crate::servers::{Servers, codes};
use support::postgres::{self, Cluster, own_cluster};
use support::process::vivamo;
use support::proxy::Proxy;
use support::{Backend, KEY_SECRET, TestCaller, TestDatabase, wait_until};

const OPERATORS: usize = 3;
const WRITERS: usize = 8;
/// The numbers of people and phones. The numbers are so small that most transactions wait for another transaction.
const PEOPLE: usize = 6;
const PHONES: usize = 3;
/// At least this many requests are answered in a round before the service is disturbed, and again after the
/// disturbance.
const REQUESTS: usize = 300;

/// The longest time in which [`REQUESTS`] are answered. It is much longer than a failover.
const ROUND_LIMIT: Duration = Duration::from_secs(180);
/// The longest time in which a reader reads to the end of its feed.
const READ_LIMIT: Duration = Duration::from_secs(60);

const CHANGES: &str = "query ($after: String) { changes(first: 20, after: $after) { cursor hasMore \
    changes { id type version own customerId } } }";
const CREATE: &str =
    "mutation ($input: CreateCustomerInput!) { result: createCustomer(input: $input) { customer { id } } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { result: updateCustomer(input: $input) { replayed } }";
const VERIFY: &str =
    "mutation ($input: RecordVerificationInput!) { result: recordVerification(input: $input) { replayed } }";
const DISCONNECT: &str =
    "mutation ($input: DisconnectCustomerInput!) { result: disconnectCustomer(input: $input) { replayed } }";
const ERASE: &str = "mutation ($input: EraseCustomerInput!) { result: eraseCustomer(input: $input) { replayed } }";

/// Makes each transaction that writes history pause before its commit. Most pauses are short.
const PAUSES: &str = "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS \
    'BEGIN PERFORM pg_sleep(0.05 * random() ^ 4); RETURN NULL; END'; \
    CREATE CONSTRAINT TRIGGER pause AFTER INSERT ON customer_event DEFERRABLE INITIALLY DEFERRED \
    FOR EACH ROW EXECUTE FUNCTION pause()";

/// A reader of the feed.
struct Follower {
    caller: TestCaller,
    cursor: Value,
    changes: Vec<Value>,
}

impl Follower {
    /// Reads a page, unless the process does not answer. Returns false if the feed has no more changes at this moment.
    async fn read(&mut self, servers: &Servers) -> bool {
        let variables = json!({ "after": self.cursor });
        let Ok((_, answer)) = servers.send_until_available(&self.caller, CHANGES, &variables).await else {
            return true;
        };
        let page = &answer["data"]["changes"];
        self.changes.extend(page["changes"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().cloned());
        self.cursor = page["cursor"].clone();
        page["hasMore"] == true
    }
}

/// The servers, and what is kept from round to round.
struct Fire {
    servers: Servers,
    followers: Vec<Follower>,
    /// Ids of customers from responses.
    customers: Mutex<Vec<Value>>,
    /// The number of requests that the service accepted or rejected.
    answered: watch::Sender<usize>,
}

impl Fire {
    async fn new(servers: Servers) -> Self {
        let mut callers = Vec::new();
        for number in 0..OPERATORS {
            callers.push(servers.operator(&number.to_string()).await);
        }
        callers.push(servers.platform());
        let followers = callers.into_iter().map(|caller| Follower { caller, cursor: json!(null), changes: Vec::new() });
        let followers = followers.collect();
        Self { servers, followers, customers: Mutex::default(), answered: watch::Sender::default() }
    }

    /// Sends requests that write, and follows the feeds. Calls `disturb` under load, and then continues for a while.
    async fn round(&mut self, disturb: impl AsyncFnOnce(&Servers)) {
        let Self { servers, followers, customers, answered } = self;
        let (servers, customers, is_over) = (&*servers, &*customers, AtomicBool::new(false));
        let callers: Vec<_> = followers.iter().map(|follower| follower.caller.clone()).collect();
        let start = *answered.borrow();
        let writer = async |number: usize| {
            let mut random = StdRng::seed_from_u64((start * WRITERS + number) as u64);
            while !is_over.load(Ordering::Relaxed) {
                let (caller, query, input) = random_request(&mut random, &customers.lock().unwrap());
                let answer = send_until_answered(servers, &callers[caller], query, &json!({ "input": input })).await;
                let customer = &answer["data"]["result"]["customer"]["id"];
                if customer.is_string() {
                    customers.lock().unwrap().push(customer.clone());
                }
                answered.send_modify(|count| *count += 1);
            }
        };
        let follow = async |follower: &mut Follower| {
            while !is_over.load(Ordering::Relaxed) {
                follower.read(servers).await;
            }
        };
        let control = async {
            wait_for(answered, start + REQUESTS).await;
            disturb(servers).await;
            let disturbed = *answered.borrow();
            wait_for(answered, disturbed + REQUESTS).await;
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(join_all((0..WRITERS).map(writer)), join_all(followers.iter_mut().map(follow)), control);
    }

    /// Kills a process under load, and replaces it after the round.
    async fn kill(&mut self) {
        self.round(async |servers| servers.processes[0].0.kill()).await;
        self.servers.processes.remove(0);
        self.servers.add_process();
    }

    /// Reads the feeds to their ends, and compares them with the history.
    async fn compare(&mut self) {
        let database = Database::connect(self.servers.url(), None).await.unwrap();
        wait_until_idle(&database).await;
        let events = customer_event::Entity::find().all(database.reader()).await.unwrap();
        for follower in &mut self.followers {
            let read = async { while follower.read(&self.servers).await {} };
            timeout(READ_LIMIT, read).await.expect("the feed has an end");
            let mut changes: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for change in &follower.changes {
                let of_customer = changes.entry(change["customerId"].as_str().unwrap()).or_default();
                of_customer.push(json!([change["id"], change["type"], change["version"], change["own"]]));
            }
            let expected = predict(&events, &follower.caller.operator);
            println!("{} changes of {} customers", follower.changes.len(), expected.len());
            assert_eq!(changes.keys().copied().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (customer, expected) in &expected {
                assert_eq!(&changes[customer.as_str()], expected, "the changes of {customer}");
            }
        }
        database.close().await;
    }
}

/// Waits until this number of requests is answered.
async fn wait_for(answered: &watch::Sender<usize>, count: usize) {
    let mut answered = answered.subscribe();
    let wait = answered.wait_for(|answered| *answered >= count);
    timeout(ROUND_LIMIT, wait).await.expect("the requests of a round are answered").unwrap();
}

/// Waits until no transaction has an id. A killed process may have left a transaction that continues.
async fn wait_until_idle(database: &Database) {
    let backend = database.reader().get_database_backend();
    let running = "SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
    let running = || Statement::from_string(backend, running);
    let is_idle = async || {
        let is_idle =
            backend == DbBackend::Sqlite || database.reader().query_all_raw(running()).await.unwrap().is_empty();
        is_idle.then_some(())
    };
    wait_until("no transaction has an id", is_idle).await;
}

/// Returns a random request: the index of its caller, then its query, then its input.
fn random_request(random: &mut StdRng, customers: &[Value]) -> (usize, &'static str, Value) {
    let person = random.random_range(0..PEOPLE);
    let phone = format!("+1415555267{}", random.random_range(0..PHONES));
    let mut caller = random.random_range(0..OPERATORS);
    let customer = json!({ "externalCustomerId": format!("{person}") });
    let known = (!customers.is_empty())
        .then(|| customers[customers.len() - 1 - random.random_range(0..customers.len().min(PEOPLE))].clone());
    let (query, mut input) = match (random.random_range(0..100), known) {
        (0..40, Some(id)) => {
            caller = OPERATORS;
            let verified_at = format!("2026-11-20T12:{:02}:{:02}Z", customers.len() / 60 % 60, customers.len() % 60);
            (VERIFY, json!({ "id": id, "field": "PHONE", "value": phone, "verifiedAt": verified_at, "takeOver": true }))
        }
        (40..42, Some(id)) => {
            caller = OPERATORS;
            (ERASE, json!({ "id": id, "reference": "x" }))
        }
        (42..75, _) => {
            let name = ["Ada", "Grace", "Alan"][random.random_range(0..3)];
            let data = if random.random_bool(0.3) { json!({ "phone": phone }) } else { json!({ "firstName": name }) };
            (UPDATE, json!({ "customer": customer, "data": data }))
        }
        (75..80, _) => (DISCONNECT, json!({ "customer": customer, "reason": "ENDED" })),
        _ => {
            let data = json!({ "email": format!("{person}@example.com"), "lastName": "Lovelace" });
            (CREATE, json!({ "externalCustomerId": format!("{person}"), "data": data }))
        }
    };
    input["idempotencyKey"] = json!(format!("{:x}", random.random::<u64>()));
    (caller, query, input)
}

/// Repeats a request until the service accepts or rejects it.
async fn send_until_answered(servers: &Servers, caller: &TestCaller, query: &str, variables: &Value) -> Value {
    let send = async || servers.send_until_available(caller, query, variables).await.ok();
    wait_until("a process answers the request", send).await.1
}

/// Returns the changes that `reader` must see, in their order, by customer. `reader` is the id of an operator, or empty
/// for the platform.
fn predict(events: &[customer_event::Model], reader: &str) -> BTreeMap<String, Vec<Value>> {
    let mut events: Vec<_> = events.iter().collect();
    // A change reads the customer after the previous change of this customer was committed, and sets its own time after
    // this read. The times of a customer's changes are therefore in the order of the changes.
    events.sort_by_key(|event| (event.customer_id, event.version, event.occurred_at));
    let (mut linked, mut predicted) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
    let is_platform = reader.is_empty();
    for event in events {
        let own = event.operator_id.map_or(is_platform, |author| author.to_string() == reader);
        let is_disconnected = event.disconnected_operator_id.is_some_and(|operator| operator.to_string() == reader);
        let is_linked = linked.contains(&event.customer_id);
        let visible = match event.r#type {
            EventType::Connected if own => {
                linked.insert(event.customer_id);
                Some(EventType::Connected)
            }
            EventType::Connected => (is_linked && !event.after.0.is_empty()).then_some(EventType::Updated),
            EventType::Created => own.then_some(EventType::Created),
            EventType::Disconnected => is_disconnected.then_some(EventType::Disconnected),
            EventType::ExternalCustomerIdChanged => own.then_some(event.r#type),
            EventType::Updated | EventType::Verified | EventType::Erased => is_linked.then_some(event.r#type),
        };
        if event.r#type == EventType::Created && own {
            linked.insert(event.customer_id);
        }
        if is_disconnected {
            linked.remove(&event.customer_id);
        }
        if let Some(r#type) = if is_platform { Some(event.r#type) } else { visible } {
            let change = json!([event.id.to_string(), r#type.to_value().to_uppercase(), event.version, own]);
            predicted.entry(event.customer_id.to_string()).or_default().push(change);
        }
    }
    predicted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_sqlite_miss_nothing() {
    let Some(servers) = Servers::start(Backend::Sqlite, 2).await else { return };
    let mut fire = Fire::new(servers).await;
    for _ in 0..4 {
        fire.kill().await;
    }
    fire.compare().await;
    fire.servers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_postgres_miss_nothing() {
    let (Some(primary), Some(standby), Some(young)) = (own_cluster(), own_cluster(), own_cluster()) else { return };
    let (primary, standby, young) = (&primary.cluster, &standby.cluster, &young.cluster);
    primary.initialise().unwrap();
    primary.set_next_transaction(1 << 20).unwrap();
    primary.start_with_standby(standby).await.unwrap();
    let test_database = TestDatabase::create_on(&primary.url(), None).await;
    let database_url = test_database.url.clone();
    let (proxy, url) = Proxy::before(&database_url).await;
    let mut fire = Fire::new(Servers::start_on(test_database, url.into(), 2).await).await;
    postgres::execute(&database_url, PAUSES).await.unwrap();
    fire.kill().await;
    fire.round(async |_| {
        block_in_place(|| primary.stop("immediate")).unwrap();
        block_in_place(|| standby.promote()).unwrap();
        proxy.redirect_to(standby.port);
    })
    .await;
    fire.kill().await;
    fire.servers.processes.clear();
    young.initialise().unwrap();
    young.start("").unwrap();
    restore(&database_url.replace(&primary.url(), &standby.url()), young).await;
    proxy.redirect_to(young.port);
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = vivamo(folder.path(), arguments);
        command.env("DATABASE_URL", fire.servers.url()).env("VIVAMO_KEY_SECRET", KEY_SECRET).output().unwrap()
    };
    let checked = block_in_place(|| run(&["migrate", "--check"]));
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.code() == Some(1) && text.contains("positions in the change feed"), "{text}");
    assert!(block_in_place(|| run(&["migrate"])).status.success());
    for _ in 0..2 {
        fire.servers.add_process();
    }
    fire.kill().await;
    fire.compare().await;
}

/// Restores a dump of the database at `url` into another cluster, under the same name.
async fn restore(url: &str, cluster: &Cluster) {
    let database = Database::connect(url, None).await.unwrap();
    wait_until_idle(&database).await;
    database.close().await;
    let name = url.rsplit('/').next().unwrap();
    postgres::execute(&format!("{}/postgres", cluster.url()), &format!("CREATE DATABASE {name}")).await.unwrap();
    let copy = "pg_dump --format=custom \"$0\" | pg_restore --exit-on-error --dbname=\"$1\"";
    let new_url = format!("{}/{name}", cluster.url());
    let copied = block_in_place(|| Command::new("sh").args(["-c", copy, url, &new_url]).status());
    assert!(copied.unwrap().success());
}

/// Tests that a customer can be changed if its row was written more than 2^31 transactions ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_change_after_two_billion_transactions() {
    const CREATE: &str = "mutation ($input: CreateCustomerInput!) { result: createCustomer(input: $input) { \
        outcome customer { id } } }";
    const UPDATE: &str =
        "mutation ($input: UpdateCustomerInput!) { result: updateCustomer(input: $input) { replayed } }";
    const ERASE: &str = "mutation ($input: EraseCustomerInput!) { result: eraseCustomer(input: $input) { replayed } }";
    let Some(own) = own_cluster() else { return };
    let cluster = &own.cluster;
    cluster.initialise().unwrap();
    cluster.start("").unwrap();
    let test_database = TestDatabase::create_on(&cluster.url(), None).await;
    let url = test_database.url.clone();
    let mut servers = Servers::start_on(test_database, url.clone(), 1).await;
    let (a, b, platform) = (servers.operator("A").await, servers.operator("B").await, servers.platform());
    let data = |id: &str| json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
    let input = |id: &str| json!({ "input": { "externalCustomerId": id, "data": data(id) } });
    let mut customers = Vec::new();
    for id in ["updated", "connected", "erased"] {
        let (_, answer) = servers.send(&a, CREATE, &input(id)).await.unwrap();
        customers.push(answer["data"]["result"]["customer"]["id"].clone());
    }
    servers.processes.pop().unwrap().0.stop();
    postgres::execute(&url, "VACUUM (FREEZE)").await.unwrap();
    cluster.stop("fast").unwrap();
    cluster.set_next_transaction(2386 << 20).unwrap();
    cluster.start("").unwrap();
    servers.add_process();

    let update = json!({ "input": { "customer": { "id": customers[0] }, "data": { "firstName": "Grace" } } });
    let mut connect = input("connected");
    connect["input"]["data"]["lastName"] = json!("Lovelace");
    let erase = json!({ "input": { "id": customers[2], "reference": "x" } });
    for (caller, query, variables) in [(&a, UPDATE, update), (&b, CREATE, connect), (&platform, ERASE, erase)] {
        let (_, answer) = servers.send(caller, query, &variables).await.unwrap();
        assert_eq!(codes(&answer), Vec::<String>::new(), "{answer}");
    }
    servers.processes.pop().unwrap().0.stop();
}
