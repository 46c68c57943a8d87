//! The process dies under load, again and again: what was acknowledged is there, and nothing is there by halves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use entity::{customer, customer_event, customer_operator};
use futures::future::join_all;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;

use crate::servers::{Servers, codes};
use support::Backend;

const ROUNDS: usize = 5;
const WRITERS: usize = 8;
const ACKNOWLEDGED_A_ROUND: usize = 150;

const CREATE: &str =
    "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed customer { id } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_loses_nothing() {
    run(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_loses_nothing() {
    run(Backend::Postgres).await;
}

async fn run(backend: Backend) {
    let Some(mut servers) = Servers::start(backend, 1).await else { return };
    let operator = servers.operator("A").await;
    let mut acknowledged: Vec<String> = Vec::new();
    let mut in_doubt: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let (done, lost) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let is_dead = AtomicBool::new(false);
        let writer = async |writer: usize| {
            for number in 0.. {
                let id = format!("{round}-{writer}-{number}");
                let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
                let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
                match servers.send(&operator, CREATE, &json!({ "input": input })).await {
                    Ok((_, answer)) => {
                        assert_eq!(codes(&answer), Vec::<String>::new());
                        done.lock().unwrap().push(id);
                    }
                    Err(_) => {
                        // Its answer was lost; whether its work was, its key will tell.
                        lost.lock().unwrap().push(id);
                        return;
                    }
                }
                if is_dead.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let killer = async {
            while done.lock().unwrap().len() < ACKNOWLEDGED_A_ROUND {
                tokio::task::yield_now().await;
            }
            is_dead.store(true, Ordering::Relaxed);
            servers.processes[0].0.kill_now();
        };
        tokio::join!(join_all((0..WRITERS).map(writer)), killer);
        acknowledged.extend(done.into_inner().unwrap());
        in_doubt.extend(lost.into_inner().unwrap());
        servers.processes.clear();
        servers.add();
    }
    println!("{backend:?}: {} acknowledged, {} in doubt when the process died", acknowledged.len(), in_doubt.len());
    assert!(acknowledged.len() >= ROUNDS * ACKNOWLEDGED_A_ROUND);

    // Sent again, each is answered as it was, or done now for the first time.
    for (ids, may_be_new) in [(&acknowledged, false), (&in_doubt, true)] {
        for id in ids {
            let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
            let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
            let (_, answer) = servers.send(&operator, CREATE, &json!({ "input": input })).await.unwrap();
            let replayed = &answer["data"]["createCustomer"]["replayed"];
            assert!(*replayed == true || (may_be_new && *replayed == false), "{id}: {answer}");
        }
    }
    let reads = servers.database.reader();
    let expected = (acknowledged.len() + in_doubt.len()) as u64;
    assert_eq!(customer::Entity::find().count(reads).await.unwrap(), expected);
    assert_eq!(customer_operator::Entity::find().count(reads).await.unwrap(), expected);
    assert_eq!(customer_event::Entity::find().count(reads).await.unwrap(), expected);
    servers.end().await;
}
