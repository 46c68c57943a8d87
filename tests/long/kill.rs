//! Kills the process under load, several times. Every acknowledged write is stored, and every write is stored
//! completely or not at all.

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
const ACKNOWLEDGED_PER_ROUND: usize = 150;

const CREATE: &str =
    "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed customer { id } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_acknowledged_writes() {
    run(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_acknowledged_writes() {
    run(Backend::Postgres).await;
}

async fn run(backend: Backend) {
    let Some(mut servers) = Servers::start(backend, 1).await else { return };
    let operator = servers.operator("A").await;
    let mut acknowledged: Vec<String> = Vec::new();
    let mut unanswered: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let (answered, lost) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let is_killed = AtomicBool::new(false);
        let writer = async |writer: usize| {
            for number in 0.. {
                let id = format!("{round}-{writer}-{number}");
                let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
                let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
                match servers.send(&operator, CREATE, &json!({ "input": input })).await {
                    Ok((_, answer)) => {
                        assert_eq!(codes(&answer), Vec::<String>::new());
                        answered.lock().unwrap().push(id);
                    }
                    Err(_) => {
                        // The answer is lost. The idempotency key tells later whether the request was applied.
                        lost.lock().unwrap().push(id);
                        return;
                    }
                }
                if is_killed.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let killer = async {
            while answered.lock().unwrap().len() < ACKNOWLEDGED_PER_ROUND {
                tokio::task::yield_now().await;
            }
            is_killed.store(true, Ordering::Relaxed);
            servers.processes[0].0.kill();
        };
        tokio::join!(join_all((0..WRITERS).map(writer)), killer);
        acknowledged.extend(answered.into_inner().unwrap());
        unanswered.extend(lost.into_inner().unwrap());
        servers.processes.clear();
        servers.add_process();
    }
    println!(
        "{backend:?}: {} acknowledged, {} unanswered when the process was killed",
        acknowledged.len(),
        unanswered.len()
    );
    assert!(acknowledged.len() >= ROUNDS * ACKNOWLEDGED_PER_ROUND);

    // An acknowledged request is replayed. An unanswered request is replayed or applied now.
    for (ids, may_be_new) in [(&acknowledged, false), (&unanswered, true)] {
        for id in ids {
            let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
            let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
            let (_, answer) = servers.send(&operator, CREATE, &json!({ "input": input })).await.unwrap();
            let replayed = &answer["data"]["createCustomer"]["replayed"];
            assert!(*replayed == true || (may_be_new && *replayed == false), "{id}: {answer}");
        }
    }
    let reads = servers.database.reader();
    let expected = (acknowledged.len() + unanswered.len()) as u64;
    assert_eq!(customer::Entity::find().count(reads).await.unwrap(), expected);
    assert_eq!(customer_operator::Entity::find().count(reads).await.unwrap(), expected);
    assert_eq!(customer_event::Entity::find().count(reads).await.unwrap(), expected);
    servers.stop().await;
}
