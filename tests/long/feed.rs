//! The feed of changes on clusters of PostgreSQL that the test starts: nothing is missing, and nothing comes twice.

use serde_json::json;

use crate::servers::{Servers, codes};
use support::TestDatabase;
use support::postgres::{self, own_cluster};

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
