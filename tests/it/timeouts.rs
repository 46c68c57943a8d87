//! The time limits of a request, over HTTP. A test holds a lock, so that requests last until a limit ends them.

use std::time::Duration;

use entity::deployment::Environment;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sea_orm::ConnectionTrait;
use serde_json::json;
use vivamo::config::HttpTimeouts;
use vivamo::database::DatabaseTimeouts;

use support::{Backend, TestApp, Timeouts, both, run, wait_until};

/// Starts a transaction that lets others read customers, but not write them.
async fn block_writes(app: &TestApp) -> vivamo::database::Transaction {
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    }
    holder
}

both!(a_mutation_may_be_applied_after_the_limit_of_its_execution, Sandbox, async |app| {
    let own = app.operator("A").await;
    let long = Timeouts::long();
    let http = HttpTimeouts { request: Duration::from_secs(5), ..long.http };
    let replica = app.replica_with_timeouts(Timeouts { http, ..long }).await;
    let holder = block_writes(app).await;
    let answer = replica.create(&own, "1", json!({ "email": "ada@example.com" })).await;
    assert_eq!((answer.status, answer.codes()), (503, vec!["UNAVAILABLE".to_owned()]));
    assert_eq!(app.count_rows("customer").await, 0);
    holder.commit().await.unwrap();
    wait_until("the mutation is applied", async || (app.count_rows("customer").await == 1).then_some(())).await;
    replica.stop().await;
});

both!(a_key_has_at_most_64_requests_in_flight, Sandbox, async |app| {
    const IN_FLIGHT: usize = 64;
    let own = app.operator("A").await;
    let long = Timeouts::long();
    let http = HttpTimeouts { slot: Duration::from_millis(100), ..long.http };
    let replica = app.replica_with_timeouts(Timeouts { http, ..long }).await;
    let holder = block_writes(app).await;
    let create = async |number: usize| {
        let email = format!("{number}@example.com");
        replica.create(&own, &number.to_string(), json!({ "email": email })).await
    };
    let mut requests: FuturesUnordered<_> = (0..=IN_FLIGHT).map(create).collect();
    // Whichever request comes last waits for a slot. The others wait for the lock.
    let rejected = requests.next().await.unwrap();
    assert_eq!((rejected.status, rejected.codes()), (503, vec!["UNAVAILABLE".to_owned()]));
    assert!(rejected.headers.contains_key("retry-after"), "{:?}", rejected.headers);
    holder.commit().await.unwrap();
    while let Some(answer) = requests.next().await {
        answer.payload("createCustomer");
    }
    drop(requests);
    assert_eq!(app.count_rows("customer").await, IN_FLIGHT as i64);
    replica.stop().await;
});

#[tokio::test]
async fn a_statement_that_takes_too_long_writes_nothing() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("A").await;
        let long = Timeouts::long();
        let database = DatabaseTimeouts { statement: Duration::from_secs(5), ..long.database };
        let replica = app.replica_with_timeouts(Timeouts { database, ..long }).await;
        let holder = block_writes(app).await;
        let answer = replica.create(&own, "1", json!({ "email": "ada@example.com" })).await;
        assert_eq!(answer.codes(), ["UNAVAILABLE"]);
        holder.commit().await.unwrap();
        assert_eq!(app.count_rows("customer").await, 0);
        // The server can still write.
        replica.create(&own, "1", json!({ "email": "ada@example.com" })).await.payload("createCustomer");
        replica.stop().await;
    })
    .await;
}
