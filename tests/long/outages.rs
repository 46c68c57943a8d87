//! The database goes away under load and comes back, or the service is asked to stop: whoever waited is told what to do,
//! what was acknowledged is there, and nobody has to help.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use entity::customer;
use futures::future::join_all;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait, QuerySelect};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{block_in_place, yield_now};
use vivamo::database::Database;

use crate::servers::{Servers, codes};
use support::postgres::{self, Cluster};
use support::process::vivamo;
use support::proxy::Proxy;
use support::{Backend, Caller, TestDatabase};

const WRITERS: usize = 8;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";

fn input(id: &str) -> Value {
    let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
    json!({ "input": { "externalCustomerId": id, "data": data, "idempotencyKey": id } })
}

/// Clients that write as long as the test wants.
#[derive(Default)]
struct Load {
    acknowledged: Mutex<Vec<String>>,
    unavailable: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until(&self, acknowledged: usize) {
        while self.acknowledged() < acknowledged {
            yield_now().await;
        }
    }

    /// Sends each request again, as it was, until it is acknowledged.
    async fn persist(&self, servers: &Servers, operator: &Caller, writer: usize) {
        for number in 0.. {
            let id = format!("{writer}-{number}");
            loop {
                let (_, answer) = servers.send(operator, CREATE, &input(&id)).await.unwrap();
                match codes(&answer).as_slice() {
                    [] => break,
                    [code] if code == "UNAVAILABLE" => self.unavailable.fetch_add(1, Ordering::Relaxed),
                    _ => panic!("{answer}"),
                };
            }
            self.acknowledged.lock().unwrap().push(id);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// That every acknowledged write is there, and no other.
    async fn assert_kept(&self, url: &str) {
        let database = Database::connect(url, None).await.unwrap();
        let emails = customer::Entity::find().select_only().column(customer::Column::Email);
        let mut emails: Vec<String> = emails.into_tuple().all(database.reader()).await.unwrap();
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut expected: Vec<_> = acknowledged.iter().map(|id| format!("{id}@example.com")).collect();
        emails.sort_unstable();
        expected.sort_unstable();
        assert_eq!(emails, expected);
        database.close().await.unwrap();
    }
}

/// A cluster that runs in a folder of its own, and ends with the test.
struct OwnCluster {
    cluster: Cluster,
    _folder: TempDir,
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if self.cluster.is_running() {
            self.cluster.stop("immediate");
        }
    }
}

fn own_cluster() -> Option<OwnCluster> {
    let folder = postgres::folder();
    let cluster = Cluster::at(folder.path().join("postgres"), postgres::free_port());
    if cluster.is_none() {
        postgres::skip("a test on a PostgreSQL of its own");
    }
    Some(OwnCluster { cluster: cluster?, _folder: folder })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stops_and_starts_under_load() {
    let Some(own) = own_cluster() else { return };
    let cluster = &own.cluster;
    cluster.initialise().unwrap();
    cluster.start("").unwrap();
    let home = TestDatabase::create_on(&cluster.url(), None).await;
    let url = home.url.clone();
    let servers = Servers::start_on(home, url.clone(), 2).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let outage = async {
        for mode in ["fast", "immediate"] {
            load.until(load.acknowledged() + 200).await;
            let told = load.unavailable.load(Ordering::Relaxed);
            block_in_place(|| cluster.stop(mode)).unwrap();
            while load.unavailable.load(Ordering::Relaxed) < told + WRITERS {
                yield_now().await;
            }
            assert_eq!((servers.status("/healthz").await, servers.status("/readyz").await), (Some(200), Some(503)));
            block_in_place(|| cluster.start("")).unwrap();
            load.until(load.acknowledged() + 200).await;
            assert_eq!((servers.status("/healthz").await, servers.status("/readyz").await), (Some(200), Some(200)));
        }
        load.is_over.store(true, Ordering::Relaxed);
    };
    let writers = join_all((0..WRITERS).map(|writer| load.persist(&servers, &operator, writer)));
    tokio::join!(writers, outage);
    println!("{} acknowledged, {} told to come back", load.acknowledged(), load.unavailable.load(Ordering::Relaxed));
    load.assert_kept(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over() {
    let (Some(old), Some(new)) = (own_cluster(), own_cluster()) else { return };
    let (old, new) = (&old.cluster, &new.cluster);
    old.initialise().unwrap();
    old.start("").unwrap();
    new.follow(old).unwrap();
    new.start("").unwrap();
    // What is acknowledged is on both.
    let synchronous = "ALTER SYSTEM SET synchronous_standby_names = '*'";
    for sql in [synchronous, "SELECT pg_reload_conf()"] {
        postgres::execute(&format!("{}/postgres", old.url()), sql).await.unwrap();
    }
    let home = TestDatabase::create_on(&old.url(), None).await;
    let (proxy, mut url) = Proxy::before(&home.url).await;
    let servers = Servers::start_on(home, url.clone().into(), 2).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let failover = async {
        load.until(300).await;
        block_in_place(|| old.stop("immediate")).unwrap();
        block_in_place(|| new.promote()).unwrap();
        proxy.lead_to(new.port);
        let promoted = Instant::now();
        load.until(load.acknowledged() + 1).await;
        let resumed = promoted.elapsed();
        load.until(load.acknowledged() + 300).await;
        load.is_over.store(true, Ordering::Relaxed);
        resumed
    };
    let writers = join_all((0..WRITERS).map(|writer| load.persist(&servers, &operator, writer)));
    let (_, resumed) = tokio::join!(writers, failover);
    println!(
        "{} acknowledged, {} told to come back; writes resumed {} ms after the promotion",
        load.acknowledged(),
        load.unavailable.load(Ordering::Relaxed),
        resumed.as_millis()
    );
    assert!(resumed < Duration::from_secs(10), "{resumed:?}");
    url.set_port(Some(new.port)).unwrap();
    load.assert_kept(url.as_str()).await;
}

/// The hosts of all connections are gone, and nobody says so; new connections work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_are_replaced() {
    let Some(server) = postgres::server().await else { return };
    let home = TestDatabase::create_on(server, None).await;
    let (proxy, url) = Proxy::before(&home.url).await;
    let servers = Servers::start_on(home, url.into(), 1).await;
    let operator = servers.operator("A").await;
    let load = Load::default();
    let silence = async {
        load.until(300).await;
        proxy.fall_silent();
        load.until(load.acknowledged() + 300).await;
        load.is_over.store(true, Ordering::Relaxed);
    };
    // More clients than there are connections, so that all of these are lost.
    let writers = join_all((0..3 * WRITERS).map(|writer| load.persist(&servers, &operator, writer)));
    tokio::join!(writers, silence);
    println!("{} acknowledged, {} told to come back", load.acknowledged(), load.unavailable.load(Ordering::Relaxed));
    load.assert_kept(servers.url()).await;
    servers.end().await;
}

/// Clients that go away in the middle of their requests cost nobody a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_leave_nothing_behind() {
    let Some(servers) = Servers::start(Backend::Postgres, 1).await else { return };
    let operator = servers.operator("A").await;
    for round in 0..10 {
        let holder = servers.database.begin_write().await.unwrap();
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
        let ids: Vec<_> = (0..20).map(|number| format!("{round}-{number}")).collect();
        let requests = join_all(ids.iter().map(|id| {
            let (input, servers, operator) = (input(id), &servers, &operator);
            async move { servers.send(operator, CREATE, &input).await }
        }));
        assert!(tokio::time::timeout(Duration::from_millis(200), requests).await.is_err());
        holder.commit().await.unwrap();
    }
    let (_, answer) = servers.send(&operator, CREATE, &input("last")).await.unwrap();
    assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    servers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_before_the_end_is_answered() {
    let Some(mut servers) = Servers::start(Backend::Postgres, 1).await else { return };
    // Each request waits for itself: what operators write does not go together.
    let mut operators = Vec::new();
    for number in 0..5 {
        operators.push(servers.operator(&number.to_string()).await);
    }
    let holder = servers.database.begin_write().await.unwrap();
    holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    let create = async |(number, operator): (usize, _)| {
        servers.send(operator, CREATE, &input(&number.to_string())).await.unwrap().1
    };
    let requests = join_all(operators.iter().enumerate().map(create));
    let stop = async {
        let waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let reads = servers.database.reader();
        let waiting = || sea_orm::Statement::from_string(reads.get_database_backend(), waiting);
        while reads.query_all_raw(waiting()).await.unwrap().len() < operators.len() {
            yield_now().await;
        }
        servers.processes[0].0.ask_to_stop();
        while servers.status("/healthz").await.is_some() {
            yield_now().await;
        }
        holder.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(requests, stop);
    for answer in answers {
        assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    }
    servers.processes.pop().unwrap().0.stop();
    servers.end().await;
}

async fn stop_under_load(backend: Backend) {
    let Some(mut servers) = Servers::start(backend, 1).await else { return };
    let operator = servers.operator("A").await;
    let load = Load::default();
    let writer = async |writer: usize| {
        for number in 0.. {
            let id = format!("{writer}-{number}");
            match servers.send(&operator, CREATE, &input(&id)).await {
                Ok((_, answer)) => assert_eq!(codes(&answer), Vec::<String>::new()),
                // It was not taken any more.
                Err(_) => return,
            }
            load.acknowledged.lock().unwrap().push(id);
        }
    };
    let stop = async {
        load.until(200).await;
        servers.processes[0].0.ask_to_stop();
    };
    tokio::join!(join_all((0..WRITERS).map(writer)), stop);
    servers.processes.pop().unwrap().0.stop();
    load.assert_kept(servers.url()).await;
    servers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_stops_under_load() {
    stop_under_load(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_service_stops_under_load() {
    stop_under_load(Backend::Postgres).await;
}

/// The file may not grow any more, as on a full disk, and later it may again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_grow_refuses_writes_until_it_can() {
    let mut servers = Servers::start(Backend::Sqlite, 0).await.unwrap();
    let server = vivamo(Path::new("/"), &["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -S -f 2000; exec \"$0\" serve"]).arg(server.get_program());
    servers.add_as(shell);
    let operator = servers.operator("A").await;
    let (mut acknowledged, mut refused) = (Vec::new(), Vec::new());
    for number in 0.. {
        let id = format!("a-{number}");
        let (_, answer) = servers.send(&operator, CREATE, &input(&id)).await.unwrap();
        match codes(&answer).as_slice() {
            [] => acknowledged.push(id),
            [code] if code == "UNAVAILABLE" => refused.push(id),
            _ => panic!("{answer}"),
        }
        if refused.len() == 20 {
            break;
        }
    }
    println!("{} acknowledged before the file could not grow", acknowledged.len());
    let id = servers.processes[0].0.id();
    assert!(Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited"]).status().unwrap().success());
    for id in &refused {
        let (_, answer) = servers.send(&operator, CREATE, &input(id)).await.unwrap();
        assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED", "{answer}");
    }
    let expected = (acknowledged.len() + refused.len()) as u64;
    assert_eq!(customer::Entity::find().count(servers.database.reader()).await.unwrap(), expected);
    servers.end().await;
}
