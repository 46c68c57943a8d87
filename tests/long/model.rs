//! Random requests of several operators to several processes at once, held against a model of the rules in memory.
//!
//! History gives the order in which the database took the changes. Played to the model in that order, each request must
//! come out as its client was told, and the model must end where the database did.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use entity::value::CustomerId;
use entity::{customer, customer_event, customer_operator};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sea_orm::EntityTrait;
use serde_json::{Map, Value, json};

use crate::servers::{Servers, codes};
use support::{Backend, Caller, TestDatabase};

const REQUESTS: usize = 20_000;
const WORKERS: usize = 16;
const OPERATORS: usize = 5;
/// Few enough that they meet.
const PEOPLE: usize = 400;
const FIELDS: [&str; 4] = ["email", "phone", "firstName", "lastName"];

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed outcome matchedBy \
    unappliedFields customer { id version email phone firstName lastName } } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed \
    customer { id version email phone firstName lastName } } }";

/// What a client asked for.
#[derive(Clone, Debug)]
struct Request {
    operator: usize,
    is_create: bool,
    input: Value,
}

fn random_values(random: &mut StdRng, is_create: bool) -> Value {
    let mut values = Map::new();
    let email = |random: &mut StdRng| json!(format!("person{}@example.com", random.random_range(0..PEOPLE)));
    let phone = |random: &mut StdRng| json!(format!("+1415555{:04}", random.random_range(0..PEOPLE)));
    let name = |random: &mut StdRng| json!(["Ada", "Grace", "Alan", "Edsger"][random.random_range(0..4)]);
    if is_create || random.random_bool(0.3) {
        values.insert("email".into(), email(random));
    }
    for field in &FIELDS[1..] {
        if random.random_bool(0.4) {
            let value = if *field == "phone" { phone(random) } else { name(random) };
            let clears = !is_create && random.random_bool(0.3);
            values.insert((*field).into(), if clears { json!(null) } else { value });
        }
    }
    json!(values)
}

fn random_request(random: &mut StdRng) -> Request {
    let operator = random.random_range(0..OPERATORS);
    let id = format!("id-{}", random.random_range(0..2 * PEOPLE));
    let is_create = random.random_bool(0.5);
    let data = random_values(random, is_create);
    let mut input = if is_create {
        json!({ "externalCustomerId": id, "data": data })
    } else {
        json!({ "customer": { "externalCustomerId": id }, "data": data })
    };
    if !is_create && random.random_bool(0.2) {
        input["expectedVersion"] = json!(random.random_range(1..4));
    }
    Request { operator, is_create, input }
}

/// The rules, on what a database would hold.
#[derive(Clone, Default)]
struct Model {
    /// By the customer's id: its values and its version.
    customers: BTreeMap<String, (Map<String, Value>, i64)>,
    /// By operator and external id: the customer's id.
    links: HashMap<(usize, String), String>,
}

impl Model {
    fn holder(&self, field: &str, value: &Value) -> Option<String> {
        let holds =
            |(_, (values, _)): &(&String, &(Map<String, Value>, i64))| !value.is_null() && values[field] == *value;
        self.customers.iter().find(holds).map(|(id, _)| id.clone())
    }

    fn is_linked(&self, operator: usize, customer: &str) -> bool {
        self.links.iter().any(|((of, _), linked)| *of == operator && linked == customer)
    }

    /// What a create comes to: outcome, matched by, unapplied fields, the customer's id; or why it is refused.
    fn create(&mut self, request: &Request, new_id: &str) -> Result<Value, Vec<&'static str>> {
        let id = request.input["externalCustomerId"].as_str().unwrap().to_owned();
        let data = &request.input["data"];
        let (by_email, by_phone) = (self.holder("email", &data["email"]), self.holder("phone", &data["phone"]));
        let is_own =
            |customer: &Option<String>| customer.as_ref().is_some_and(|id| self.is_linked(request.operator, id));
        let mut taken = Vec::new();
        if self.links.contains_key(&(request.operator, id.clone())) {
            taken.push("EXTERNAL_CUSTOMER_ID_TAKEN");
        }
        if is_own(&by_email) {
            taken.push("EMAIL_TAKEN");
        }
        if is_own(&by_phone) {
            taken.push("PHONE_TAKEN");
        }
        if !taken.is_empty() {
            return Err(taken);
        }
        if by_email.is_some() && by_phone.is_some() && by_email != by_phone {
            return Err(vec!["IDENTITY_CONFLICT", "IDENTITY_CONFLICT"]);
        }
        let mut matched_by = Vec::new();
        matched_by.extend(by_email.is_some().then_some("EMAIL"));
        matched_by.extend(by_phone.is_some().then_some("PHONE"));
        let mut unapplied = Vec::new();
        let (customer, outcome) = match by_email.or(by_phone) {
            Some(known) => {
                let (values, version) = self.customers.get_mut(&known).unwrap();
                let mut fills = false;
                for (field, name) in
                    [("email", "EMAIL"), ("firstName", "FIRST_NAME"), ("lastName", "LAST_NAME"), ("phone", "PHONE")]
                {
                    let given = &data[field];
                    if given.is_null() || values[field] == *given {
                        continue;
                    }
                    if values[field].is_null() {
                        values.insert(field.into(), given.clone());
                        fills = true;
                    } else {
                        unapplied.push(name);
                    }
                }
                *version += i64::from(fills);
                (known, "CONNECTED")
            }
            None => {
                let values = FIELDS.iter().map(|field| ((*field).to_owned(), data[*field].clone())).collect();
                self.customers.insert(new_id.to_owned(), (values, 1));
                (new_id.to_owned(), "CREATED")
            }
        };
        self.links.insert((request.operator, id), customer.clone());
        Ok(
            json!({ "outcome": outcome, "matchedBy": matched_by, "unappliedFields": unapplied, "customer": self.see(&customer) }),
        )
    }

    fn update(&mut self, request: &Request) -> Result<Value, Vec<&'static str>> {
        let id = request.input["customer"]["externalCustomerId"].as_str().unwrap().to_owned();
        let Some(customer) = self.links.get(&(request.operator, id)).cloned() else {
            return Err(vec!["CUSTOMER_NOT_FOUND"]);
        };
        let data = request.input["data"].as_object().unwrap();
        let (values, version) = self.customers[&customer].clone();
        let mut faults = Vec::new();
        if request.input["expectedVersion"].as_i64().is_some_and(|expected| expected != version) {
            faults.push("VERSION_CONFLICT");
        }
        for (field, code) in [("email", "EMAIL_TAKEN"), ("phone", "PHONE_TAKEN")] {
            let holder = data.get(field).and_then(|value| self.holder(field, value));
            if holder.is_some_and(|holder| holder != customer) {
                faults.push(code);
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut changed = values.clone();
        changed.extend(data.clone());
        let version = version + i64::from(changed != values);
        self.customers.insert(customer.clone(), (changed, version));
        Ok(json!({ "customer": self.see(&customer) }))
    }

    /// Whether the change is what the rules make of it.
    fn takes(&mut self, change: &Change<'_>) -> bool {
        let Change { request, told, customer } = *change;
        let done = if request.is_create { self.create(request, &customer.to_string()) } else { self.update(request) };
        done.is_ok_and(|mut expected| {
            expected["replayed"] = json!(false);
            *told == expected
        })
    }

    fn see(&self, customer: &str) -> Value {
        let (values, version) = &self.customers[customer];
        let mut seen = values.clone();
        seen.insert("id".into(), json!(customer));
        seen.insert("version".into(), json!(version));
        json!(seen)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_does_what_the_model_does() {
    let Some(servers) = Servers::start(Backend::Sqlite, 1).await else { return };
    run("SQLite", servers, REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_postgres_do_what_the_model_does() {
    let Some(servers) = Servers::start(Backend::Postgres, 2).await else { return };
    run("two processes on PostgreSQL", servers, REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serializing_postgres_does_what_the_model_does() {
    let Some(server) = support::postgres::server().await else { return };
    let home = TestDatabase::create_on(server, Some("serializable")).await;
    let url = home.url.clone();
    let servers = Servers::start_on(home, url, 2).await;
    run("two processes on a PostgreSQL that serializes", servers, REQUESTS / 4).await;
}

/// Sends so many random requests, and explains what became of them.
pub async fn run(what: &str, servers: Servers, requests: usize) {
    let named = std::env::var("VIVAMO_TEST_SEED").ok();
    let seed: u64 = named.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("{what}: {requests} requests; again with VIVAMO_TEST_SEED={seed}");
    let mut operators = Vec::new();
    for number in 0..OPERATORS {
        operators.push(servers.operator(&format!("Operator {number}")).await);
    }

    // By request id: what was asked for and what was answered.
    let answered = Mutex::new(HashMap::new());
    let left = AtomicUsize::new(requests);
    let worker = async |number: u64| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let mut request = random_request(&mut random);
            let is_sent_twice = random.random_bool(0.1);
            if is_sent_twice {
                request.input["idempotencyKey"] = json!(format!("key-{number}-{}", random.random::<u64>()));
            }
            let send = || send(&servers, &operators, &request);
            let sent = if is_sent_twice { join_all([send(), send()]).await.concat() } else { send().await };
            assert_sent_once(&sent);
            let mut answered = answered.lock().unwrap();
            answered.extend(sent.into_iter().map(|(id, answer)| (id, (request.clone(), answer))));
        }
    };
    join_all((0..WORKERS as u64).map(worker)).await;
    explain(&servers, answered.into_inner().unwrap()).await;
    servers.end().await;
}

/// Sends a request, and again as often as the client is told to: on a busy machine one in a crowd may lose every race.
async fn send(servers: &Servers, operators: &[Caller], request: &Request) -> Vec<(String, Value)> {
    const ENOUGH: usize = 20;
    let query = if request.is_create { CREATE } else { UPDATE };
    let mut sent = Vec::new();
    loop {
        let variables = json!({ "input": request.input });
        let (id, answer) = servers.send(&operators[request.operator], query, &variables).await.unwrap();
        let is_told_to_come_back = codes(&answer) == ["UNAVAILABLE"];
        sent.push((id, answer));
        if !is_told_to_come_back {
            return sent;
        }
        assert!(sent.len() < ENOUGH, "{sent:?}");
    }
}

/// The payload of a mutation that succeeded.
fn payload(answer: &Value) -> Option<&Value> {
    answer["data"].as_object()?.values().find(|payload| payload.is_object())
}

/// That of two that are one, one did the work and the other replayed it; or both were refused.
fn assert_sent_once(sent: &[(String, Value)]) {
    let payloads: Vec<_> = sent.iter().filter_map(|(_, answer)| payload(answer)).collect();
    let done = payloads.iter().filter(|payload| payload["replayed"] == false).count();
    let refused = sent.len() - payloads.len();
    // A refused request keeps no key, so the second may succeed where the first did not.
    assert!(done <= 1 && (done == 1 || refused == sent.len()), "{sent:?}");
}

/// A change that the database took, and what its client was told.
#[derive(Clone, Copy)]
struct Change<'a> {
    request: &'a Request,
    told: &'a Value,
    customer: CustomerId,
}

/// Plays the changes to a model in an order that explains them all. That is nearly the order of their entries; but who
/// looked before another wrote, and wrote nothing that the other looked at, may have its entry after the other's.
fn play(changes: &[Change<'_>]) -> Model {
    let (mut model, mut moved) = (Model::default(), 0);
    // The last changes, each with the model before it.
    let mut last: VecDeque<(Model, Change<'_>)> = VecDeque::new();
    for change in changes {
        let place = (0..=last.len()).find_map(|back| {
            let mut tried = if back == 0 { model.clone() } else { last[last.len() - back].0.clone() };
            let mut order = vec![*change];
            order.extend(last.iter().skip(last.len() - back).map(|(_, change)| *change));
            let mut before = Vec::new();
            let explains = order.iter().all(|change| {
                before.push((tried.clone(), *change));
                tried.takes(change)
            });
            explains.then_some((back, tried, before))
        });
        let Some((back, after, before)) = place else {
            panic!("no order explains {:?}, whose client was told {}", change.request, change.told)
        };
        moved += usize::from(back > 0);
        last.truncate(last.len() - back);
        last.extend(before);
        last.drain(..last.len().saturating_sub(WORKERS));
        model = after;
    }
    println!("{} changes, of which {moved} came before the order of their entries", changes.len());
    model
}

async fn explain(servers: &Servers, answered: HashMap<String, (Request, Value)>) {
    const REFUSALS: [&str; 8] = [
        "EXTERNAL_CUSTOMER_ID_TAKEN",
        "EMAIL_TAKEN",
        "PHONE_TAKEN",
        "IDENTITY_CONFLICT",
        "CUSTOMER_NOT_FOUND",
        "VERSION_CONFLICT",
        "BAD_REQUEST",
        "UNAVAILABLE",
    ];
    let reads = servers.database.reader();
    let mut events = customer_event::Entity::find().all(reads).await.unwrap();
    events.sort_by_key(|event| event.occurred_at);
    let changes: Vec<Change> = events
        .iter()
        .map(|event| {
            let (request, answer) = &answered[&event.request_id.to_string()];
            let told = payload(answer).unwrap_or_else(|| panic!("a change whose client was refused: {answer}"));
            Change { request, told, customer: event.customer_id }
        })
        .collect();
    let model = play(&changes);
    let explained: HashMap<String, ()> = events.iter().map(|event| (event.request_id.to_string(), ())).collect();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for (id, (request, answer)) in &answered {
        let what = match payload(answer) {
            Some(told) if told["replayed"] == true => "replayed".to_owned(),
            Some(told) => {
                // A create always leaves an entry; an update only where it changes something.
                assert!(!request.is_create || explained.contains_key(id), "{request:?} {answer}");
                told["outcome"].as_str().unwrap_or("updated").to_owned()
            }
            None => {
                let codes = codes(answer);
                assert!(!codes.is_empty() && codes.iter().all(|code| REFUSALS.contains(&code.as_str())), "{answer}");
                assert!(!explained.contains_key(id), "a refused request left an entry: {answer}");
                codes.join("+")
            }
        };
        *outcomes.entry(what).or_default() += 1;
    }
    println!("{} requests: {outcomes:?}", answered.len());

    // The model ends where the database did.
    let customers = customer::Entity::find().all(reads).await.unwrap();
    assert_eq!(customers.len(), model.customers.len());
    for customer in customers {
        let text = |text: Option<&str>| json!(text);
        let expected = model.see(&customer.id.to_string());
        assert_eq!(expected["email"], json!(customer.email.as_str()));
        assert_eq!(expected["phone"], text(customer.phone.as_ref().map(|phone| phone.as_str())));
        assert_eq!(expected["firstName"], text(customer.first_name.as_ref().map(|name| name.as_str())));
        assert_eq!(expected["lastName"], text(customer.last_name.as_ref().map(|name| name.as_str())));
        assert_eq!(expected["version"], json!(customer.version));
    }
    let links = customer_operator::Entity::find().all(reads).await.unwrap();
    assert_eq!(links.len(), model.links.len());
    for link in links {
        let id = link.external_customer_id.as_str();
        assert!(
            model.links.iter().any(|((_, external), linked)| external == id && *linked == link.customer_id.to_string())
        );
    }
}
