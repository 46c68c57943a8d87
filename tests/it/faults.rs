//! Failures in the middle of a request: the client gets its result, or an error that says whether to retry, and nothing
//! is written partially.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use entity::deployment::Environment;
use entity::phone_lookup::CarrierLineType;
use entity::value::PhoneNumber;
use futures::future::join_all;
use sea_orm::sea_query::Query;
use sea_orm::{ConnectionTrait, TransactionOptions, TransactionTrait};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::timeout;
use vivamo::config::{RateLimitSettings, UnknownLinePolicy};
use vivamo::database::{BatchedQuery, DatabaseTimeouts};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::ServiceSettings;
use vivamo::service::phone_lookup::{CarrierSettings, LineTypeLookup, LookupError};

use support::postgres;
use support::proxy::{Cut, Proxy};
use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, Timeouts, both, run, run_on};

async fn create_with_key(app: &TestApp, caller: &TestCaller) -> Answer {
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed outcome } }";
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    let input = json!({ "externalCustomerId": "user-1", "data": data, "idempotencyKey": "key-1" });
    app.graphql(caller, create, json!({ "input": input })).await
}

/// Cuts the connection at the commit. The client then repeats its request with the same idempotency key.
async fn cut_at_commit(cut: Cut) {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        proxy.set_trap(cut);
        let answer = create_with_key(&replica, &operator).await;
        assert!(!proxy.is_set(cut), "nobody committed: {}", answer.body);
        if cut == Cut::AfterCommit {
            // The service looks up the outcome by the idempotency key.
            assert_eq!(answer.payload("createCustomer"), json!({ "outcome": "CREATED", "replayed": true }));
        } else {
            assert_eq!(answer.codes(), ["UNAVAILABLE"]);
            assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], true);
            assert_eq!(app.count_rows("customer").await, 0);
        }
        let repeated = create_with_key(&replica, &operator).await.payload("createCustomer");
        assert_eq!(repeated, json!({ "outcome": "CREATED", "replayed": cut == Cut::AfterCommit }));
        assert_eq!(app.count_rows("customer").await, 1);
        assert_eq!(app.count_rows("customer_operator").await, 1);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_before_the_commit_leaves_nothing_behind() {
    cut_at_commit(Cut::BeforeCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_after_the_commit_is_resolved_by_the_idempotency_key() {
    cut_at_commit(Cut::AfterCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_writes_only() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
        let limit = async |pages: u32| {
            let writer = app.database.begin_write().await.unwrap();
            writer.execute_unprepared(&format!("PRAGMA max_page_count = {pages}")).await.unwrap();
            writer.commit().await.unwrap();
        };
        let mut failed = 0;
        for number in 0..200 {
            // The limit is set again for each create, because a connection that reaches the limit is replaced by a
            // connection without a limit.
            limit(1).await;
            // A create succeeds as long as the existing pages of the file have free space.
            let data = json!({ "email": format!("{number}@example.com"), "firstName": "x".repeat(100) });
            let answer = app.create(&operator, &format!("{number}"), data).await;
            if answer.codes() == ["UNAVAILABLE"] {
                failed += 1;
            } else {
                answer.payload("createCustomer");
            }
        }
        assert!(failed > 100, "{failed}");
        assert_eq!(app.customer(&operator, json!({ "email": "ada@example.com" })).await["version"], 1);
        limit(1_000_000).await;
        app.created(&operator, "user-2", json!({ "email": "grace@example.com" })).await;
        assert_eq!(app.count_rows("customer").await, 202 - failed);
    })
    .await;
}

/// A carrier lookup that panics.
struct PanickingLookup;

impl LineTypeLookup for PanickingLookup {
    fn look_up<'a>(
        &'a self,
        phone: &'a PhoneNumber,
    ) -> Pin<Box<dyn Future<Output = Result<CarrierLineType, LookupError>> + Send + 'a>> {
        Box::pin(async { panic!("no idea what {} is, says Ada Lovelace", phone.as_str()) })
    }
}

fn settings_with_panicking_lookup() -> ServiceSettings {
    ServiceSettings {
        platform_key: Some(SecretString::from(support::PLATFORM_KEY)),
        carrier: Some(CarrierSettings { lookup: Arc::new(PanickingLookup), unknown_lines: UnknownLinePolicy::Refuse }),
        ..ServiceSettings::new(Environment::Production, KeyedHasher::new(KEY_SECRET))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_internal_error_and_the_process_continues() {
    let app = TestApp::start_with(Backend::Sqlite, settings_with_panicking_lookup()).await.unwrap();
    run_on(app, async |app| {
        let operator = app.operator("A").await;
        for _ in 0..20 {
            let answer = create_with_key(app, &operator).await;
            assert_eq!((answer.status, answer.codes()), (500, vec!["INTERNAL".to_owned()]));
        }
        app.created(&operator, "user-2", json!({ "email": "ada@example.com" })).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_match_before_a_panic_uses_a_disclosure() {
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let settings = ServiceSettings { limits, ..settings_with_panicking_lookup() };
    let app = TestApp::start_with(Backend::Sqlite, settings).await.unwrap();
    run_on(app, async |app| {
        let (own, other) = (app.operator("Own").await, app.operator("Other").await);
        app.created(&other, "user-1", json!({ "email": "ada@example.com" })).await;
        // The request finds the person. Then the lookup of the phone panics.
        assert_eq!(create_with_key(app, &own).await.codes(), ["INTERNAL"]);
        let next = app.create(&own, "user-2", json!({ "email": "grace@example.com" })).await;
        assert_eq!(next.codes(), ["RATE_LIMITED"]);
    })
    .await;
}

/// A query that selects its parameters.
fn echo_query() -> BatchedQuery<2> {
    BatchedQuery::new(|[first, second]| Query::select().expr_as(first, "name").expr_as(second, "other").take())
}

/// Sends `text` to the database as a parameter of a query that selects this parameter. Returns the text that the query
/// selected.
async fn run_query(app: &TestApp, query: &BatchedQuery<2>, text: &str) -> String {
    let rows = query.run(app.database.reader(), [text.into(), "other".into()]).await.unwrap();
    rows[0].try_get("", "name").unwrap()
}

both!(a_response_with_too_many_failed_fields_has_no_data, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..51 {
        app.created(&operator, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
    }
    app.execute("ALTER TABLE customer RENAME TO customer_renamed").await;
    let query = "query ($first: Int!) { changes(first: $first) { changes { customer { email } } hasMore } }";
    for (first, has_data) in [(50, true), (51, false)] {
        let answer = app.graphql(&operator, query, json!({ "first": first })).await;
        assert_eq!(answer.codes().len(), 50);
        // Without its error, a null would mean that the customer does not exist any more.
        assert_eq!(!answer.body["data"].is_null(), has_data, "{}", answer.body);
    }
    app.execute("ALTER TABLE customer_renamed RENAME TO customer").await;
});

both!(requests_are_unavailable_if_all_connections_wait_for_a_lock, Sandbox, async |app| {
    // Uses two operators, because one operator cannot take all connections.
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    // Longer than in the deployed service, so that all connections wait at the same time on a slow machine too.
    let database = DatabaseTimeouts { wait: Duration::from_secs(10), ..Timeouts::deployed().database };
    let replica = app.replica_with_timeouts(Timeouts { database, ..Timeouts::long() }).await;
    // A connection outside the service holds the lock, because on SQLite the service has only one that writes.
    let connection = sea_orm::Database::connect(app.database_url()).await.unwrap();
    let immediate = Some(sea_orm::SqliteTransactionMode::Immediate);
    let options = TransactionOptions { sqlite_transaction_mode: immediate, ..Default::default() };
    let holder = connection.begin_with_options(options).await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    }
    // On PostgreSQL, the requests read pages, because creates would be batched and use one connection.
    let page = "{ customers(first: 1) { edges { node { id } } } }";
    let requests = join_all((0..40).map(|number| {
        let data = json!({ "email": format!("{number}@example.com") });
        let (operator, id) = (if number % 2 == 0 { &operator } else { &other }, number.to_string());
        let replica = &replica;
        async move {
            if replica.is_postgres() {
                replica.graphql(operator, page, json!({})).await
            } else {
                replica.create(operator, &id, data).await
            }
        }
    }));
    let health = async {
        // On PostgreSQL, `app` counts the waiting requests, because all connections of `replica` are in use. On SQLite,
        // `wait_until_blocked` counts only the requests to `replica`.
        if app.is_postgres() { app } else { &replica }.wait_until_blocked(9).await;
        app.http.get(format!("{}/healthz", replica.url)).send().await.unwrap().status().as_u16()
    };
    let (answers, health) = tokio::join!(requests, health);
    assert_eq!(health, 200);
    for answer in answers {
        let errors: Vec<Value> = answer.body["errors"].as_array().unwrap().clone();
        assert_eq!(answer.codes(), ["UNAVAILABLE"], "{errors:?}");
    }
    holder.rollback().await.unwrap();
    replica.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(app.count_rows("customer").await, 1);
    replica.stop().await;
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_the_work_of_disconnected_clients() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let server = app.replica(app.database_url().to_owned()).await;
        app.execute(&postgres::waiting_trigger("INSERT ON customer", "NEW.email LIKE 'slow%'")).await;
        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared(postgres::LOCK).await.unwrap();
        tokio::select! {
            _ = server.create(&operator, "1", json!({ "email": "slow@example.com" })) => panic!("the create ended"),
            // Drops the request, which closes its connection.
            () = app.wait_until_blocked(1) => {}
        }
        let mut stop = pin!(server.stop());
        // Far less than the server waits.
        assert!(timeout(Duration::from_secs(1), &mut stop).await.is_err(), "the stop did not wait");
        holder.commit().await.unwrap();
        stop.await;
        assert_eq!(app.count_rows("customer").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_cannot_take_all_connections() {
    const SHARE: usize = 8;
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let (own, other) = (app.operator("Own").await, app.operator("Other").await);
        let watcher = app.replica(app.database_url().to_owned()).await;
        // This trigger waits for a lock without a timeout, so the creates of `own` keep their connections until the
        // lock is released.
        app.execute(&postgres::waiting_trigger("INSERT ON customer", "NEW.email LIKE 'slow%'")).await;
        let holder = watcher.database.begin_write().await.unwrap();
        holder.execute_unprepared(postgres::LOCK).await.unwrap();
        let slow = async |number: usize| {
            // Sends the creates one after the other, because creates that arrive together share a connection.
            watcher.wait_until_blocked(number.min(SHARE)).await;
            let (id, email) = (format!("slow-{number}"), format!("slow-{number}@example.com"));
            app.created(&own, &id, json!({ "email": email })).await;
        };
        let others = async {
            watcher.wait_until_blocked(SHARE).await;
            for number in 0..10 {
                let (id, email) = (number.to_string(), format!("{number}@example.com"));
                app.created(&other, &id, json!({ "email": email })).await;
                app.query(&other, "{ customers(first: 1) { nodes { id } } }").await;
            }
            holder.commit().await.unwrap();
        };
        tokio::join!(join_all((0..SHARE + 4).map(slow)), others);
        watcher.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_delays_its_own_writers_only() {
    const UPDATES: usize = 12;
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let (own, other) = (app.operator("Own").await, app.operator("Other").await);
        app.created(&own, "locked", json!({ "email": "locked@example.com" })).await;
        app.created(&own, "free", json!({ "email": "free@example.com" })).await;
        let replica = app.replica_with_timeouts(Timeouts::with_short_locks()).await;
        let holder = app.database.begin_write().await.unwrap();
        let lock = "SELECT 1 FROM customer WHERE email = 'locked@example.com' FOR UPDATE";
        holder.execute_unprepared(lock).await.unwrap();

        let customer = json!({ "externalCustomerId": "locked" });
        let updates = join_all((0..UPDATES).map(|number| {
            let data = json!({ "firstName": format!("Ada {number}") });
            replica.update(&own, customer.clone(), data)
        }));
        let others = async {
            app.wait_until_blocked(1).await;
            for number in 0..5 {
                let (id, email) = (number.to_string(), format!("{number}@example.com"));
                replica.created(&other, &id, json!({ "email": email })).await;
                let free = json!({ "externalCustomerId": "free" });
                replica.updated(&own, free, json!({ "lastName": format!("King {number}") })).await;
                replica.query(&own, "{ customers(first: 1) { nodes { id } } }").await;
            }
            holder.commit().await.unwrap();
        };
        let (updates, ()) = tokio::join!(updates, others);
        let mut versions: Vec<_> = updates
            .iter()
            .map(|answer| answer.payload("updateCustomer")["customer"]["version"].as_u64().unwrap())
            .collect();
        versions.sort_unstable();
        assert_eq!(versions, (2..=UPDATES as u64 + 1).collect::<Vec<_>>());
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_leader_of_a_read_batch_leaves_nobody_waiting() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let query = echo_query();
        let send = |name| Box::pin(run_query(app, &query, name));
        let (mut first, mut second) = (send("first"), send("second"));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(
            tokio::join!(second, send("third"), send("fourth")),
            ("second".into(), "third".into(), "fourth".into())
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_comes_later_starts_a_new_batch() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let query = echo_query();
        let send = |name| Box::pin(run_query(app, &query, name));
        let (names, sent) = app
            .statements_of(async {
                let mut first = send("first");
                // At the first poll, the leader yields to other requests. At the second poll, it waits for the
                // database, which may answer immediately.
                assert!(futures::poll!(&mut first).is_pending());
                let polled = futures::poll!(&mut first);
                let (mut second, mut third) = (send("second"), send("third"));
                let _ = (futures::poll!(&mut second), futures::poll!(&mut third));
                let first = if let Poll::Ready(name) = polled { name } else { first.await };
                (first, second.await, third.await)
            })
            .await;
        assert_eq!(names, ("first".into(), "second".into(), "third".into()));
        assert_eq!(sent.len(), 2);
    })
    .await;
}
