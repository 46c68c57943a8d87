//! Kills the process under load, several times. Every acknowledged write is stored, and every write is stored
//! completely or not at all.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use entity::{customer, customer_event, customer_operator};
use futures::future::join_all;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::{Value, json};

use crate::servers::{Servers, codes};
use support::Backend;

const ROUNDS: usize = 5;
const WRITERS: usize = 8;
const ACKNOWLEDGED_PER_ROUND: usize = 150;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { result: createCustomer(input: $input) { replayed } }";
const DISCONNECT: &str =
    "mutation ($input: DisconnectCustomerInput!) { result: disconnectCustomer(input: $input) { replayed } }";

/// A request of the test, by the external id of its customer.
#[derive(Clone, Debug)]
enum Write {
    Create(String),
    Disconnect(String),
}

impl Write {
    fn query(&self) -> &'static str {
        match self {
            Self::Create(_) => CREATE,
            Self::Disconnect(_) => DISCONNECT,
        }
    }

    fn variables(&self) -> Value {
        match self {
            Self::Create(id) => {
                let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada" });
                json!({ "input": { "externalCustomerId": id, "data": data, "idempotencyKey": id } })
            }
            Self::Disconnect(id) => {
                let (customer, key) = (json!({ "externalCustomerId": id }), format!("end {id}"));
                json!({ "input": { "customer": customer, "reason": "ENDED", "idempotencyKey": key } })
            }
        }
    }
}

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
    let mut acknowledged: Vec<Write> = Vec::new();
    let mut unanswered: Vec<Write> = Vec::new();
    for round in 0..ROUNDS {
        let (answered, lost) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let is_killed = AtomicBool::new(false);
        let writer = async |writer: usize| {
            for number in 0.. {
                // Every third customer is disconnected after it was created.
                let id = format!("{round}-{writer}-{}", number - number % 4 / 3);
                let write = if number % 4 == 3 { Write::Disconnect(id) } else { Write::Create(id) };
                match servers.send(&operator, write.query(), &write.variables()).await {
                    Ok((_, answer)) => {
                        assert_eq!(codes(&answer), Vec::<String>::new());
                        answered.lock().unwrap().push(write);
                    }
                    Err(_) => {
                        // The answer is lost. The idempotency key tells later whether the request was applied.
                        lost.lock().unwrap().push(write);
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

    let of_disconnect = |write: &Write| match write {
        Write::Disconnect(id) => Some(id.clone()),
        Write::Create(_) => None,
    };
    let ended: BTreeSet<_> = acknowledged.iter().chain(&unanswered).filter_map(of_disconnect).collect();
    // An acknowledged request is replayed. An unanswered request is replayed or applied now.
    for (writes, may_be_new) in [(&acknowledged, false), (&unanswered, true)] {
        for write in writes {
            let (_, answer) = servers.send(&operator, write.query(), &write.variables()).await.unwrap();
            let is_gone =
                matches!(write, Write::Create(id) if ended.contains(id)) && codes(&answer) == ["CUSTOMER_NOT_FOUND"];
            let replayed = &answer["data"]["result"]["replayed"];
            assert!(is_gone || *replayed == true || (may_be_new && *replayed == false), "{write:?}: {answer}");
        }
    }
    let reads = servers.database.reader();
    let (written, ended) = ((acknowledged.len() + unanswered.len()) as u64, ended.len() as u64);
    assert_eq!(customer::Entity::find().count(reads).await.unwrap(), written - ended);
    assert_eq!(customer_operator::Entity::find().count(reads).await.unwrap(), written - 2 * ended);
    assert_eq!(customer_event::Entity::find().count(reads).await.unwrap(), written);
    servers.stop().await;
}
