//! Kills the process under load, several times. Every acknowledged write is stored, and every write is stored
//! completely or not at all.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use entity::{customer, customer_event, customer_operator, erasure};
use futures::future::join_all;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};

use crate::servers::{Servers, codes};
use support::{Backend, TestCaller, wait_until};

const ROUNDS: usize = 5;
const WRITERS: usize = 8;
const ACKNOWLEDGED_PER_ROUND: usize = 150;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { result: createCustomer(input: $input) { \
    replayed customer { id } } }";
const DISCONNECT: &str =
    "mutation ($input: DisconnectCustomerInput!) { result: disconnectCustomer(input: $input) { replayed } }";
const TAKE_OVER: &str =
    "mutation ($input: RecordVerificationInput!) { result: recordVerification(input: $input) { replayed } }";
const ERASE: &str = "mutation ($input: EraseCustomerInput!) { result: eraseCustomer(input: $input) { replayed } }";

/// A request of the test. The first field is the external id of the customer, except in `TakeOver`.
#[derive(Clone, Debug)]
enum Write {
    /// Creates a customer with or without a phone.
    Create(String, Option<String>),
    Disconnect(String),
    /// Sent by the platform: the customer with this id gets this phone of another customer.
    TakeOver(Value, String),
    /// Sent by the platform, with the id of the customer.
    Erase(String, Value),
}

impl Write {
    fn query(&self) -> &'static str {
        match self {
            Self::Create(..) => CREATE,
            Self::Disconnect(_) => DISCONNECT,
            Self::TakeOver(..) => TAKE_OVER,
            Self::Erase(..) => ERASE,
        }
    }

    fn caller<'c>(&self, operator: &'c TestCaller, platform: &'c TestCaller) -> &'c TestCaller {
        match self {
            Self::Create(..) | Self::Disconnect(_) => operator,
            Self::TakeOver(..) | Self::Erase(..) => platform,
        }
    }

    /// Returns the external id of the customer, if the operator cannot see the customer after the request.
    fn removed(&self) -> Option<&String> {
        match self {
            Self::Create(..) | Self::TakeOver(..) => None,
            Self::Disconnect(id) | Self::Erase(id, _) => Some(id),
        }
    }

    fn variables(&self) -> Value {
        match self {
            Self::Create(id, phone) => {
                let data = json!({ "email": format!("{id}@example.com"), "firstName": "Ada", "phone": phone });
                json!({ "input": { "externalCustomerId": id, "data": data, "idempotencyKey": id } })
            }
            Self::Disconnect(id) => {
                let (customer, key) = (json!({ "externalCustomerId": id }), format!("end {id}"));
                json!({ "input": { "customer": customer, "reason": "ENDED", "idempotencyKey": key } })
            }
            Self::TakeOver(id, phone) => {
                let (time, key) = ("2026-11-20T12:00:00Z", format!("take {phone}"));
                json!({ "input": {
                    "id": id, "field": "PHONE", "value": phone, "verifiedAt": time, "takeOver": true, "idempotencyKey": key,
                } })
            }
            Self::Erase(_, id) => json!({ "input": { "id": id, "reference": "x", "idempotencyKey": id } }),
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
    let (operator, platform) = (servers.operator("A").await, servers.platform());
    let mut acknowledged: Vec<Write> = Vec::new();
    let mut unanswered: Vec<Write> = Vec::new();
    for round in 0..ROUNDS {
        let (answered, lost) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let is_killed = AtomicBool::new(false);
        let writer = async |writer: usize| {
            let mut customer = Value::Null;
            for number in 0.. {
                // Seven requests create four customers, disconnect the second, give the phone of the first to the
                // third, and erase the fourth.
                let id = |number: usize| format!("{round}-{writer}-{number}");
                let phone = |number: usize| format!("+1415{}{writer}5{number:04}", 2 + round);
                let write = match number % 7 {
                    0 => Write::Create(id(number), Some(phone(number))),
                    2 => Write::Disconnect(id(number - 1)),
                    4 => Write::TakeOver(customer.clone(), phone(number - 4)),
                    6 => Write::Erase(id(number - 1), customer.clone()),
                    _ => Write::Create(id(number), None),
                };
                let caller = write.caller(&operator, &platform);
                match servers.send_until_available(caller, write.query(), &write.variables()).await {
                    Ok((_, answer)) => {
                        assert_eq!(codes(&answer), Vec::<String>::new());
                        customer = answer["data"]["result"]["customer"]["id"].clone();
                        answered.lock().unwrap().push(write);
                    }
                    Err(_) => {
                        // The response was lost. The idempotency key tells later whether the request was applied.
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
            let is_under_load = || answered.lock().unwrap().len() >= ACKNOWLEDGED_PER_ROUND;
            wait_until("enough writes are acknowledged", async || is_under_load().then_some(())).await;
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

    let all = || acknowledged.iter().chain(&unanswered);
    let gone: BTreeSet<_> = all().filter_map(Write::removed).collect();
    // Sends every request again. The service returns the stored result of an acknowledged request. For a request
    // without a response, the service returns the stored result or executes the request now.
    for (writes, may_be_new) in [(&acknowledged, false), (&unanswered, true)] {
        for write in writes {
            let caller = write.caller(&operator, &platform);
            let sent = servers.send_until_available(caller, write.query(), &write.variables()).await;
            let (_, answer) = sent.unwrap();
            let is_gone =
                matches!(write, Write::Create(id, _) if gone.contains(id)) && codes(&answer) == ["CUSTOMER_NOT_FOUND"];
            let replayed = &answer["data"]["result"]["replayed"];
            assert!(is_gone || *replayed == true || (may_be_new && *replayed == false), "{write:?}: {answer}");
        }
    }
    let reads = servers.database.reader();
    let count = |query: &str| all().filter(|write| write.query() == query).count() as u64;
    let (created, ended, taken, erased) = (count(CREATE), count(DISCONNECT), count(TAKE_OVER), count(ERASE));
    assert!(ended > 0 && taken > 0 && erased > 0);
    assert_eq!(customer::Entity::find().count(reads).await.unwrap(), created - erased);
    assert_eq!(customer_operator::Entity::find().count(reads).await.unwrap(), created - ended - erased);
    assert_eq!(erasure::Entity::find().count(reads).await.unwrap(), erased);
    let events = customer_event::Entity::find().all(reads).await.unwrap();
    // A takeover writes an entry for the customer that loses the phone, and an entry for the customer that gets the
    // phone.
    assert_eq!(events.len() as u64, created + ended + 2 * taken + erased);
    let is_of_a_value = |event: &&customer_event::Model| event.after.0.values().any(|value| !value.is_null());
    assert_eq!(events.iter().filter(is_of_a_value).count() as u64, created + taken - erased);
    let has_phone = |write: &&Write| matches!(write, Write::Create(_, Some(_)));
    let phones = customer::Entity::find().filter(customer::Column::Phone.is_not_null());
    assert_eq!(phones.clone().count(reads).await.unwrap(), all().filter(has_phone).count() as u64);
    let verified = phones.filter(customer::Column::PhoneVerifiedAt.is_not_null());
    assert_eq!(verified.count(reads).await.unwrap(), taken);
    servers.stop().await;
}
