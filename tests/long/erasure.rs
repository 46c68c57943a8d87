//! The erasure of a long history takes longer than a request may take. It continues without its client, and a client
//! that repeats the request gets the receipt.

use std::time::{Duration, Instant};

use entity::erasure;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use support::postgres::{execute, own_cluster};
use support::{TestDatabase, copy_history};

use crate::servers::{Servers, codes};

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }";
const ERASE: &str = "mutation ($input: EraseCustomerInput!) { eraseCustomer(input: $input) { replayed } }";

/// The time after which mutations of operators are given up.
const LIMIT_OF_OTHER_MUTATIONS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_may_take_longer_than_other_mutations() {
    // The open transaction of the erasure would hide the changes of other tests from the feed.
    let Some(own) = own_cluster() else { return };
    own.cluster.initialise().unwrap();
    own.cluster.start("-c fsync=off").unwrap();
    let test_database = TestDatabase::create_on(&own.cluster.url(), None).await;
    let url = test_database.url.clone();
    let servers = Servers::start_on(test_database, url, 1).await;
    let operator = servers.operator("A").await;
    let input = json!({ "externalCustomerId": "1", "data": { "email": "ada@example.com" } });
    let (_, created) = servers.send(&operator, CREATE, &json!({ "input": input })).await.unwrap();
    // Each of the 22 statements of the erasure changes 10,000 entries and takes at least 1.25 seconds. This is much
    // less than the time limit of a statement, because the changes may take seconds on a slow machine.
    execute(servers.url(), &copy_history(&servers.database, 215_000)).await.unwrap();
    let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN PERFORM pg_sleep(1.25 - extract(epoch FROM clock_timestamp() - statement_timestamp())); RETURN NULL; END $$; \
                CREATE TRIGGER wait AFTER UPDATE ON customer_event FOR EACH STATEMENT EXECUTE FUNCTION wait()";
    execute(servers.url(), wait).await.unwrap();

    let id = &created["data"]["createCustomer"]["customer"]["id"];
    let input = json!({ "input": { "id": id, "reference": "Case 7", "idempotencyKey": "case-7" } });
    let erase = async || servers.send(&servers.platform(), ERASE, &input).await.unwrap().1;
    let started = Instant::now();
    let mut answer = erase().await;
    assert_eq!(codes(&answer), ["UNAVAILABLE"], "{answer}");
    while !codes(&answer).is_empty() {
        assert_eq!(codes(&answer), ["UNAVAILABLE"], "{answer}");
        assert!(started.elapsed() < Duration::from_secs(180), "the erasure does not end");
        answer = erase().await;
    }
    assert!(started.elapsed() > LIMIT_OF_OTHER_MUTATIONS);
    // The receipt is of the first request.
    assert_eq!(answer["data"]["eraseCustomer"]["replayed"], true);
    assert_eq!(erasure::Entity::find().count(servers.database.reader()).await.unwrap(), 1);
    servers.stop().await;
}
