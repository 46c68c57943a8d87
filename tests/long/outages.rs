//! Outages under load: a stop or a failover of PostgreSQL, a PostgreSQL that does not answer, a full disk, and a stop
//! of the service. Clients receive errors that say whether to retry, every acknowledged write is stored, and the
//! service recovers by itself.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use entity::customer;
use futures::future::join_all;
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QuerySelect, Statement};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use vivamo::database::{Database, DatabaseTimeouts};

use crate::servers::{Servers, codes};
use support::postgres::{self, own_cluster};
use support::process::vivamo;
use support::proxy::Proxy;
use support::{Backend, TestCaller, TestDatabase, wait_until};

const WRITERS: usize = 8;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";

fn input(id: &str) -> Value {
    let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
    json!({ "input": { "externalCustomerId": id, "data": data, "idempotencyKey": id } })
}

/// State that the clients share: the results of their `createCustomer` requests, and a flag that stops the clients.
#[derive(Default)]
struct Load {
    /// External ids of the acknowledged creates.
    acknowledged: Mutex<Vec<String>>,
    /// The number of `UNAVAILABLE` answers.
    unavailable: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn acknowledged_count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn wait_until_acknowledged(&self, count: usize) {
        let what = format!("{count} creates are acknowledged");
        wait_until(&what, async || (self.acknowledged_count() >= count).then_some(())).await;
    }

    /// Sends creates, and repeats each create until the create is acknowledged.
    async fn write_with_retries(&self, servers: &Servers, operator: &TestCaller, writer: usize) {
        for number in 0.. {
            let id = format!("{writer}-{number}");
            wait_until("the create is acknowledged", async || {
                let (_, answer) = servers.send(operator, CREATE, &input(&id)).await.unwrap();
                match codes(&answer).as_slice() {
                    [] => return Some(()),
                    [code] if code == "UNAVAILABLE" => self.unavailable.fetch_add(1, Ordering::Relaxed),
                    _ => panic!("{answer}"),
                };
                None
            })
            .await;
            self.acknowledged.lock().unwrap().push(id);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Asserts that the database contains the acknowledged customers and no others.
    async fn assert_stored(&self, url: &str) {
        let database = Database::connect(url, None).await.unwrap();
        let emails = customer::Entity::find().select_only().column(customer::Column::Email);
        let mut emails: Vec<String> = emails.into_tuple().all(database.reader()).await.unwrap();
        let mut expected: Vec<_> =
            self.acknowledged.lock().unwrap().iter().map(|id| format!("{id}@example.com")).collect();
        emails.sort_unstable();
        expected.sort_unstable();
        assert_eq!(emails, expected);
        database.close().await;
    }
}

/// Waits until `/readyz` has this status, which may take a second, because the result of a check is used for a second.
async fn wait_until_ready_is(servers: &Servers, status: u16) {
    let what = format!("/readyz is {status}");
    wait_until(&what, async || (servers.status("/readyz").await == Some(status)).then_some(())).await;
}

/// Waits until this many statements wait for a lock of PostgreSQL.
async fn wait_until_blocked(servers: &Servers, statements: usize) {
    let blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let what = format!("{statements} statements wait for a lock");
    wait_until(&what, async || {
        let blocked = Statement::from_string(DbBackend::Postgres, blocked);
        (servers.database.reader().query_all_raw(blocked).await.unwrap().len() >= statements).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_survives_a_restart_of_postgres() {
    let Some(own) = own_cluster() else { return };
    let cluster = &own.cluster;
    cluster.initialise().unwrap();
    cluster.start("").unwrap();
    let test_database = TestDatabase::create_on(&cluster.url(), None).await;
    let url = test_database.url.clone();
    let servers = Servers::start_on(test_database, url.clone(), 2).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let outage = async {
        for mode in ["fast", "immediate"] {
            load.wait_until_acknowledged(load.acknowledged_count() + 200).await;
            let unavailable = load.unavailable.load(Ordering::Relaxed);
            block_in_place(|| cluster.stop(mode)).unwrap();
            let is_down = || load.unavailable.load(Ordering::Relaxed) >= unavailable + WRITERS;
            wait_until("the service is unavailable", async || is_down().then_some(())).await;
            assert_eq!(servers.status("/healthz").await, Some(200));
            wait_until_ready_is(&servers, 503).await;
            block_in_place(|| cluster.start("")).unwrap();
            load.wait_until_acknowledged(load.acknowledged_count() + 200).await;
            assert_eq!(servers.status("/healthz").await, Some(200));
            wait_until_ready_is(&servers, 200).await;
        }
        load.is_over.store(true, Ordering::Relaxed);
    };
    let writers = join_all((0..WRITERS).map(|writer| load.write_with_retries(&servers, &operator, writer)));
    tokio::join!(writers, outage);
    println!("{} acknowledged, {} unavailable", load.acknowledged_count(), load.unavailable.load(Ordering::Relaxed));
    load.assert_stored(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_survives_a_failover() {
    let (Some(primary), Some(standby)) = (own_cluster(), own_cluster()) else { return };
    let (primary, standby) = (&primary.cluster, &standby.cluster);
    primary.initialise().unwrap();
    primary.start_with_standby(standby).await.unwrap();
    let test_database = TestDatabase::create_on(&primary.url(), None).await;
    let (proxy, mut url) = Proxy::before(&test_database.url).await;
    let servers = Servers::start_on(test_database, url.clone().into(), 2).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let failover = async {
        load.wait_until_acknowledged(300).await;
        block_in_place(|| primary.stop("immediate")).unwrap();
        block_in_place(|| standby.promote()).unwrap();
        proxy.redirect_to(standby.port);
        let promoted = Instant::now();
        load.wait_until_acknowledged(load.acknowledged_count() + 1).await;
        let resumed = promoted.elapsed();
        load.wait_until_acknowledged(load.acknowledged_count() + 300).await;
        load.is_over.store(true, Ordering::Relaxed);
        resumed
    };
    let writers = join_all((0..WRITERS).map(|writer| load.write_with_retries(&servers, &operator, writer)));
    let (_, resumed) = tokio::join!(writers, failover);
    println!(
        "{} acknowledged, {} unavailable; writes resumed {} ms after the promotion",
        load.acknowledged_count(),
        load.unavailable.load(Ordering::Relaxed),
        resumed.as_millis()
    );
    url.set_port(Some(standby.port)).unwrap();
    load.assert_stored(url.as_str()).await;
}

/// Tests that the service recovers if all connections stay open but carry no data, as after the loss of a host. New
/// connections work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_connections_are_replaced() {
    let Some(server) = postgres::server().await else { return };
    let test_database = TestDatabase::create_on(server, None).await;
    let (proxy, url) = Proxy::before(&test_database.url).await;
    let servers = Servers::start_on(test_database, url.into(), 1).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let freeze = async {
        load.wait_until_acknowledged(300).await;
        proxy.freeze();
        load.wait_until_acknowledged(load.acknowledged_count() + 300).await;
        load.is_over.store(true, Ordering::Relaxed);
    };
    // There are more clients than database connections, so that every connection is affected.
    let writers = join_all((0..3 * WRITERS).map(|writer| load.write_with_retries(&servers, &operator, writer)));
    tokio::join!(writers, freeze);
    println!("{} acknowledged, {} unavailable", load.acknowledged_count(), load.unavailable.load(Ordering::Relaxed));
    load.assert_stored(servers.url()).await;
    servers.stop().await;
}

/// Tests that a statement of a background job, which no time limit of a request ends, does not wait for ever for the
/// answer of a lost host.
#[tokio::test]
async fn a_statement_on_a_frozen_connection_ends() {
    let Some(server) = postgres::server().await else { return };
    let test_database = TestDatabase::create_on(server, None).await;
    let (proxy, url) = Proxy::before(&test_database.url).await;
    let database = Database::connect(url.as_str(), None).await.unwrap();
    let ask = async || {
        let answer = database.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, "SELECT 1"));
        tokio::time::timeout(Duration::from_secs(25), answer).await.expect("the statement ends")
    };
    ask().await.unwrap();
    proxy.freeze();
    assert!(ask().await.is_err());
    // The lost connection is not used again.
    ask().await.unwrap();
    database.close().await;
    test_database.remove().await;
}

/// Runs a test of a database with eight idle connections to PostgreSQL, which go through a proxy. The last argument of
/// the test is the port of PostgreSQL.
async fn with_idle_connections(timeouts: DatabaseTimeouts, test: impl AsyncFnOnce(&Database, Proxy, u16)) {
    let Some(server) = postgres::server().await else { return };
    let test_database = TestDatabase::create_on(server, None).await;
    let (proxy, url) = Proxy::before(&test_database.url).await;
    let database = Database::connect_with(url.as_str(), timeouts, None).await.unwrap();
    let transactions = join_all((0..8).map(|_| database.begin_write())).await;
    for transaction in transactions {
        transaction.unwrap().commit().await.unwrap();
    }
    assert_eq!(database.connections().idle, 8);
    let port = reqwest::Url::parse(&test_database.url).unwrap().port().unwrap_or(5432);
    test(&database, proxy, port).await;
    database.close().await;
    test_database.remove().await;
}

/// Tests that only one statement fails if all idle connections were lost.
#[tokio::test]
async fn lost_connections_fail_one_statement() {
    with_idle_connections(DatabaseTimeouts::default(), async |database, proxy, port| {
        // Cuts all connections.
        proxy.redirect_to(port);
        let mut failures = 0;
        for _ in 0..20 {
            let select = Statement::from_string(DbBackend::Postgres, "SELECT 1");
            failures += usize::from(database.reader().query_all_raw(select).await.is_err());
        }
        assert_eq!(failures, 1);
    })
    .await;
}

/// Tests that a request waits for the ping of only one connection if all idle connections were lost.
#[tokio::test]
async fn a_request_does_not_ping_all_lost_connections() {
    let timeouts = DatabaseTimeouts { ping_after: Duration::ZERO, ..DatabaseTimeouts::default() };
    with_idle_connections(timeouts, async |database, proxy, _| {
        proxy.freeze();
        // A ping takes a second.
        let answer = database.reader().query_all_raw(Statement::from_string(DbBackend::Postgres, "SELECT 1"));
        tokio::time::timeout(Duration::from_secs(6), answer).await.expect("only one ping").unwrap();
        assert_eq!(database.connections().open, 1);
    })
    .await;
}

/// Tests that a client that disconnects during its request does not end a database connection. A connection whose
/// statement was dropped would have to be closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_clients_do_not_end_database_connections() {
    let Some(servers) = Servers::start(Backend::Postgres, 1).await else { return };
    let operator = servers.operator("A").await;
    let reader = servers.database.reader();
    let connections = async || {
        let others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                      AND backend_type = 'client backend'";
        let rows = reader.query_all_raw(Statement::from_string(DbBackend::Postgres, others)).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index::<i32>(0).unwrap()).collect::<HashSet<_>>()
    };
    let mut known = HashSet::new();
    for round in 0..10 {
        let holder = servers.database.begin_write().await.unwrap();
        // Requests whose client has disconnected may still hold locks.
        holder.execute_unprepared("SET LOCAL lock_timeout = 0").await.unwrap();
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
        let ids: Vec<_> = (0..20).map(|number| format!("{round}-{number}")).collect();
        let requests = join_all(ids.iter().map(|id| {
            let (input, servers, operator) = (input(id), &servers, &operator);
            async move { servers.send(operator, CREATE, &input).await }
        }));
        // The end of `select` drops the requests.
        tokio::select! {
            _ = requests => panic!("no request waits for the lock"),
            () = wait_until_blocked(&servers, 1) => {}
        }
        holder.commit().await.unwrap();
        let open = connections().await;
        assert!(known.is_subset(&open), "round {round}: {known:?}, then {open:?}");
        known = open;
    }
    let (_, answer) = servers.send(&operator, CREATE, &input("last")).await.unwrap();
    assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_accepted_before_the_stop_are_answered() {
    let Some(mut servers) = Servers::start(Backend::Postgres, 1).await else { return };
    // Each request has its own operator, so that no two writes share a batch.
    let mut operators = Vec::new();
    for number in 0..5 {
        operators.push(servers.operator(&number.to_string()).await);
    }
    let create = async |(number, operator): (usize, _)| {
        servers.send(operator, CREATE, &input(&number.to_string())).await.unwrap().1
    };
    // The first requests open connections. Opening them later could take longer than a request waits for a lock.
    join_all(operators.iter().enumerate().map(create)).await;
    // This trigger waits for a lock without a timeout, so that all requests wait at the same time.
    postgres::execute(servers.url(), &postgres::waiting_trigger("INSERT ON customer", "true")).await.unwrap();
    let holder = servers.database.begin_write().await.unwrap();
    holder.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    holder.execute_unprepared(postgres::LOCK).await.unwrap();
    let requests = join_all((10..).zip(&operators).map(create));
    let stop = async {
        wait_until_blocked(&servers, operators.len()).await;
        servers.processes[0].0.terminate();
        let is_closed = async || servers.status("/healthz").await.is_none().then_some(());
        wait_until("the stopping server accepts no connections", is_closed).await;
        holder.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(requests, stop);
    for answer in answers {
        assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    }
    servers.processes.pop().unwrap().0.stop();
    servers.stop().await;
}

async fn stop_under_load(backend: Backend) {
    let Some(mut servers) = Servers::start(backend, 1).await else { return };
    let operator = servers.operator("A").await;
    let load = Load::default();
    let writer = async |writer: usize| {
        for number in 0.. {
            let id = format!("{writer}-{number}");
            match servers.send_until_available(&operator, CREATE, &input(&id)).await {
                Ok((_, answer)) => assert_eq!(codes(&answer), Vec::<String>::new()),
                // The server no longer accepts connections.
                Err(_) => return,
            }
            load.acknowledged.lock().unwrap().push(id);
        }
    };
    let stop = async {
        load.wait_until_acknowledged(200).await;
        servers.processes[0].0.terminate();
    };
    tokio::join!(join_all((0..WRITERS).map(writer)), stop);
    servers.processes.pop().unwrap().0.stop();
    load.assert_stored(servers.url()).await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_sqlite_stops_without_losing_writes() {
    stop_under_load(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_postgres_stops_without_losing_writes() {
    stop_under_load(Backend::Postgres).await;
}

/// Simulates a full disk by a limit on the size of files. The test removes the limit later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_writes_unavailable_until_there_is_space() {
    let mut servers = Servers::start(Backend::Sqlite, 0).await.unwrap();
    let server = vivamo(Path::new("/"), &["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -S -f 2000; exec \"$0\" serve"]).arg(server.get_program());
    servers.add_process_with(shell);
    let operator = servers.operator("A").await;
    let (mut acknowledged, mut unavailable) = (Vec::new(), Vec::new());
    for number in 0.. {
        let id = format!("a-{number}");
        let (_, answer) = servers.send(&operator, CREATE, &input(&id)).await.unwrap();
        match codes(&answer).as_slice() {
            [] => acknowledged.push(id),
            [code] if code == "UNAVAILABLE" => unavailable.push(id),
            _ => panic!("{answer}"),
        }
        if unavailable.len() == 20 {
            break;
        }
    }
    println!("{} acknowledged before the disk was full", acknowledged.len());
    let id = servers.processes[0].0.id();
    assert!(Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited"]).status().unwrap().success());
    for id in &unavailable {
        let (_, answer) = servers.send(&operator, CREATE, &input(id)).await.unwrap();
        assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    }
    let expected = (acknowledged.len() + unavailable.len()) as u64;
    assert_eq!(customer::Entity::find().count(servers.database.reader()).await.unwrap(), expected);
    servers.stop().await;
}
