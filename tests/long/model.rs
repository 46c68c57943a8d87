//! A model-based test: random concurrent requests of several operators and of the platform to one or two processes,
//! compared with a model of the rules in memory.
//!
//! The events of the history give nearly the order in which the database applied the changes. The test looks for a
//! similar order, in which each change has the result that its client received. The model must end in the state of the
//! database. The model also predicts the change feed of each operator and of the platform. Set `VIVAMO_TEST_SEED` to
//! the printed seed to repeat nearly the same requests.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use chrono::SecondsFormat::Micros;
use chrono::{DateTime, Utc};
use entity::customer_event::EventType;
use entity::operator::Status;
use entity::value::{CustomerId, OperatorId, RequestId};
use entity::{customer, customer_event, customer_operator, customer_word, erasure};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sea_orm::EntityTrait;
use serde_json::{Map, Value, json};
use vivamo::error::Error;
use vivamo::service::operators::OperatorChanges;
use vivamo::service::{Caller, RequestInfo, Services};

use crate::servers::{Servers, codes};
use support::{Backend, TestCaller, TestDatabase, wait_until};

const REQUESTS: usize = 20_000;
const WORKERS: usize = 16;
/// The history may list a change too late, after changes that took effect after it. This is the maximum number of
/// changes between the right place and the place in the history: one change of each worker, and one batch of
/// [`remove_customers`], which is written in one transaction.
const MAX_MOVE: usize = WORKERS + 100;
/// The number of requests between two reads of the feed by all readers.
const FOLLOW_INTERVAL: usize = 500;
const OPERATORS: usize = 5;
/// The number of people, small enough that requests often concern the same person.
const PEOPLE: usize = 400;
const FIELDS: [&str; 4] = ["email", "phone", "firstName", "lastName"];
/// The fields with their names in lists such as `changedFields`, in the order of these lists.
const LISTED_FIELDS: [(&str, &str); 4] =
    [("email", "EMAIL"), ("firstName", "FIRST_NAME"), ("lastName", "LAST_NAME"), ("phone", "PHONE")];

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { \
    replayed outcome matchedBy unappliedFields \
    customer { id externalCustomerId version email phone firstName lastName emailVerifiedAt phoneVerifiedAt } } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed \
    customer { id externalCustomerId version email phone firstName lastName emailVerifiedAt phoneVerifiedAt } } }";
const VERIFY: &str = "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { replayed \
    customer { id externalCustomerId version email phone firstName lastName emailVerifiedAt phoneVerifiedAt } } }";
const ERASE: &str =
    "mutation ($input: EraseCustomerInput!) { eraseCustomer(input: $input) { replayed erasure { customerId } } }";
const DISCONNECT: &str = "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { \
    replayed customerId } }";
const CHANGES: &str = "query ($first: Int!, $after: String) { changes(first: $first, after: $after) { cursor hasMore \
    changes { id type customerId externalCustomerId version changedFields own } } }";
const HISTORY: &str = "query ($by: CustomerRef!) { customer(by: $by) { version history(first: 100) { \
    nodes { type version own changedFields operator { id } } pageInfo { hasNextPage } } } }";

/// A request of an operator or of the platform.
#[derive(Clone, Debug)]
struct Request {
    /// The index of the operator, or [`PLATFORM`].
    operator: usize,
    kind: Kind,
    input: Value,
}

const PLATFORM: usize = OPERATORS;

/// The operator whose customers are all disconnected in the middle of the test.
const LEAVING: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Update,
    Disconnect,
    /// Sent by the platform only.
    Verify,
    /// Sent by the platform only.
    Erase,
}

fn random_email(random: &mut StdRng) -> Value {
    json!(format!("person{}@example.com", random.random_range(0..PEOPLE)))
}

fn random_phone(random: &mut StdRng) -> Value {
    json!(format!("+1415555{:04}", random.random_range(0..PEOPLE)))
}

fn random_values(random: &mut StdRng, is_create: bool) -> Value {
    let mut values = Map::new();
    let name = |random: &mut StdRng| json!(["Ada", "Grace", "Alan", "Edsger"][random.random_range(0..4)]);
    if is_create || random.random_bool(0.3) {
        values.insert("email".into(), random_email(random));
    }
    for field in &FIELDS[1..] {
        if random.random_bool(0.4) {
            let value = if *field == "phone" { random_phone(random) } else { name(random) };
            let is_cleared = !is_create && random.random_bool(0.3);
            values.insert((*field).into(), if is_cleared { json!(null) } else { value });
        }
    }
    json!(values)
}

/// A verification or an erasure of one of these customers.
fn random_platform_request(random: &mut StdRng, known: &[Value]) -> Request {
    let customer = &known[random.random_range(0..known.len())];
    if random.random_bool(0.1) {
        let input = json!({ "id": customer["id"], "reference": "x" });
        return Request { operator: PLATFORM, kind: Kind::Erase, input };
    }
    let is_email = random.random_bool(0.4);
    // The value that the customer had in an earlier response, or another value.
    let value = match customer[if is_email { "email" } else { "phone" }].as_str() {
        Some(value) if random.random_bool(0.7) => json!(value),
        _ if is_email => random_email(random),
        _ => random_phone(random),
    };
    let time = format!("2026-11-20T{:02}:00:00.000000+00:00", random.random_range(0..24));
    let input = json!({
        "id": customer["id"], "field": if is_email { "EMAIL" } else { "PHONE" }, "value": value, "verifiedAt": time,
        "takeOver": !is_email && random.random_bool(0.7),
    });
    Request { operator: PLATFORM, kind: Kind::Verify, input }
}

/// Returns a random request. `operators` are the callers, and `known` are customers from earlier responses.
fn random_request(random: &mut StdRng, operators: &[TestCaller], known: &[Value]) -> Request {
    if !known.is_empty() && random.random_bool(0.2) {
        return random_platform_request(random, known);
    }
    let operator = random.random_range(0..OPERATORS);
    let random_id = |random: &mut StdRng| json!(format!("id-{}", random.random_range(0..2 * PEOPLE)));
    let id = random_id(random);
    let kind = match random.random_range(0..100) {
        0..48 => Kind::Create,
        48..90 => Kind::Update,
        _ => Kind::Disconnect,
    };
    let data = random_values(random, kind == Kind::Create);
    let is_of_platform = random.random_bool(0.1);
    match kind {
        Kind::Create => {
            let mut input = json!({ "externalCustomerId": id, "data": data });
            if random.random_bool(0.2) {
                let keys = [json!([]), json!(["EMAIL"]), json!(["PHONE"])];
                input["connectBy"] = keys[random.random_range(0..keys.len())].clone();
            }
            Request { operator, kind, input }
        }
        Kind::Update => {
            let mut input = json!({ "customer": { "externalCustomerId": id }, "data": data });
            if random.random_bool(0.2) {
                input["expectedVersion"] = json!(random.random_range(1..4));
            }
            if is_of_platform && !known.is_empty() {
                input["customer"] = json!({ "id": known[random.random_range(0..known.len())]["id"] });
                return Request { operator: PLATFORM, kind, input };
            }
            if random.random_bool(0.2) {
                input["externalCustomerId"] = random_id(random);
                if random.random_bool(0.5) {
                    input.as_object_mut().unwrap().remove("data");
                }
            }
            Request { operator, kind, input }
        }
        Kind::Disconnect | Kind::Verify | Kind::Erase => {
            let mut input = json!({ "customer": { "externalCustomerId": id }, "reason": "MISTAKE" });
            if is_of_platform {
                input["operatorId"] = json!(operators[operator].operator);
            }
            Request { operator: if is_of_platform { PLATFORM } else { operator }, kind, input }
        }
    }
}

/// The rules, and the state that the database must have.
#[derive(Clone, Default)]
struct Model {
    /// Ids of the operators, by their indexes.
    operators: Vec<String>,
    /// Values and version by customer id.
    customers: BTreeMap<String, (Map<String, Value>, i64)>,
    /// Customer id by operator and external id.
    links: HashMap<(usize, String), String>,
    /// The changes that the feeds got since the last [`apply`](Self::apply).
    announced: Vec<Announced>,
}

/// A change in the feed of a reader.
#[derive(Clone, Debug)]
struct Announced {
    /// The index of an operator, or [`PLATFORM`].
    reader: usize,
    customer: String,
    r#type: &'static str,
    version: i64,
    changed_fields: Vec<&'static str>,
    own: bool,
    external_id: Option<String>,
}

impl Announced {
    /// The customer, and the row that [`rows`] makes of this change.
    fn row(&self, has_external_id: bool) -> (String, Value) {
        let external_id = self.external_id.as_ref().filter(|_| has_external_id);
        (self.customer.clone(), json!([self.r#type, self.version, self.changed_fields, self.own, external_id]))
    }
}

/// The fields that differ between two states of a customer.
fn changed_fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<&'static str> {
    LISTED_FIELDS.iter().filter(|(field, _)| before[*field] != after[*field]).map(|(_, name)| *name).collect()
}

impl Model {
    fn new(operators: &[TestCaller]) -> Self {
        Self { operators: operators.iter().map(|caller| caller.operator.clone()).collect(), ..Self::default() }
    }

    /// The id of the customer with this email or phone.
    fn customer_with(&self, field: &str, value: &Value) -> Option<String> {
        let has_value =
            |(_, (values, _)): &(&String, &(Map<String, Value>, i64))| !value.is_null() && values[field] == *value;
        self.customers.iter().find(has_value).map(|(id, _)| id.clone())
    }

    fn is_linked(&self, operator: usize, customer: &str) -> bool {
        self.links.iter().any(|((owner, _), linked)| *owner == operator && linked == customer)
    }

    /// The operators that are connected to a customer. Each is returned with this type of change, and with its own id
    /// for the customer.
    fn readers(&self, customer: &str, r#type: &'static str) -> Vec<(usize, &'static str, String)> {
        let of_customer = self.links.iter().filter(|(_, linked)| *linked == customer);
        of_customer.map(|((operator, id), _)| (*operator, r#type, id.clone())).collect()
    }

    /// Adds a change to the feed of the platform and to the feeds of operators. `operators` has the type and the
    /// external id that each operator gets.
    fn announce(
        &mut self,
        author: usize,
        customer: &str,
        r#type: &'static str,
        changed_fields: &[&'static str],
        operators: Vec<(usize, &'static str, String)>,
    ) {
        let version = self.customers[customer].1;
        let operators = operators.into_iter().map(|(operator, r#type, id)| (operator, r#type, Some(id)));
        let readers = operators.chain([(PLATFORM, r#type, None)]);
        self.announced.extend(readers.map(|(reader, r#type, external_id)| Announced {
            reader,
            customer: customer.to_owned(),
            r#type,
            version,
            changed_fields: changed_fields.to_vec(),
            own: reader == author,
            external_id,
        }));
    }

    /// Applies a create. Returns the expected payload, or the expected error codes.
    fn create(&mut self, request: &Request, new_id: &str) -> Result<Value, Vec<&'static str>> {
        let id = request.input["externalCustomerId"].as_str().unwrap().to_owned();
        let data = &request.input["data"];
        let (by_email, by_phone) =
            (self.customer_with("email", &data["email"]), self.customer_with("phone", &data["phone"]));
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
        let connect_by = request.input["connectBy"].as_array();
        let is_allowed = |key: &&str| connect_by.is_none_or(|allowed| allowed.contains(&json!(key)));
        if !matched_by.is_empty() && !matched_by.iter().any(is_allowed) {
            return Err(vec!["IDENTITY_CONFLICT"; matched_by.len()]);
        }
        let (mut unapplied, mut filled) = (Vec::new(), Vec::new());
        let (customer, outcome) = match by_email.or(by_phone) {
            Some(existing) => {
                let (values, version) = self.customers.get_mut(&existing).unwrap();
                for (field, name) in LISTED_FIELDS {
                    let given = &data[field];
                    if given.is_null() || values[field] == *given {
                        continue;
                    }
                    if values[field].is_null() {
                        values.insert(field.into(), given.clone());
                        filled.push(name);
                    } else {
                        unapplied.push(name);
                    }
                }
                *version += i64::from(!filled.is_empty());
                (existing, "CONNECTED")
            }
            None => {
                let mut values: Map<_, _> =
                    FIELDS.iter().map(|field| ((*field).to_owned(), data[*field].clone())).collect();
                values.extend(["emailVerifiedAt", "phoneVerifiedAt"].map(|time| (time.to_owned(), json!(null))));
                let given = LISTED_FIELDS.iter().filter(|(field, _)| !values[*field].is_null());
                filled.extend(given.map(|(_, name)| *name));
                self.customers.insert(new_id.to_owned(), (values, 1));
                (new_id.to_owned(), "CREATED")
            }
        };
        // The other operators learn only of the fields that the connection filled.
        let mut readers = if filled.is_empty() { Vec::new() } else { self.readers(&customer, "UPDATED") };
        readers.push((request.operator, outcome, id.clone()));
        self.announce(request.operator, &customer, outcome, &filled, readers);
        self.links.insert((request.operator, id), customer.clone());
        let customer = self.render(request.operator, &customer);
        Ok(json!({
            "outcome": outcome, "matchedBy": matched_by, "unappliedFields": unapplied, "customer": customer,
        }))
    }

    /// Applies an update. Returns the expected payload, or the expected error codes.
    fn update(&mut self, request: &Request) -> Result<Value, Vec<&'static str>> {
        let Some(customer) = self.find(request.operator, &request.input["customer"]) else {
            return Err(vec!["CUSTOMER_NOT_FOUND"]);
        };
        let data = request.input["data"].as_object().cloned().unwrap_or_default();
        let (values, version) = self.customers[&customer].clone();
        let mut codes = Vec::new();
        if request.input["expectedVersion"].as_i64().is_some_and(|expected| expected != version) {
            codes.push("VERSION_CONFLICT");
        }
        for (field, code) in [("email", "EMAIL_TAKEN"), ("phone", "PHONE_TAKEN")] {
            let owner = data.get(field).and_then(|value| self.customer_with(field, value));
            if owner.is_some_and(|owner| owner != customer) {
                codes.push(code);
            }
        }
        let new_id = request.input["externalCustomerId"].as_str().map(|id| (request.operator, id.to_owned()));
        if new_id.as_ref().and_then(|id| self.links.get(id)).is_some_and(|holder| *holder != customer) {
            codes.push("EXTERNAL_CUSTOMER_ID_TAKEN");
        }
        if !codes.is_empty() {
            return Err(codes);
        }
        let mut changed = values.clone();
        changed.extend(data);
        let version = version + i64::from(changed != values);
        for (field, time) in [("email", "emailVerifiedAt"), ("phone", "phoneVerifiedAt")] {
            if changed[field] != values[field] {
                changed.insert(time.into(), json!(null));
            }
        }
        let fields = changed_fields(&values, &changed);
        self.customers.insert(customer.clone(), (changed, version));
        if !fields.is_empty() {
            let readers = self.readers(&customer, "UPDATED");
            self.announce(request.operator, &customer, "UPDATED", &fields, readers);
        }
        if let Some(new_id) = new_id.filter(|new_id| self.links.get(new_id) != Some(&customer)) {
            const RENAMED: &str = "EXTERNAL_CUSTOMER_ID_CHANGED";
            self.links.retain(|(operator, _), linked| *operator != request.operator || *linked != customer);
            self.announce(request.operator, &customer, RENAMED, &[], vec![(new_id.0, RENAMED, new_id.1.clone())]);
            self.links.insert(new_id, customer.clone());
        }
        Ok(json!({ "customer": self.render(request.operator, &customer) }))
    }

    /// Applies a disconnect. Returns the expected payload, or the expected error codes.
    fn disconnect(&mut self, request: &Request) -> Result<Value, Vec<&'static str>> {
        let given = self.operators.iter().position(|operator| request.input["operatorId"] == **operator);
        let operator = given.unwrap_or(request.operator);
        let customer = self.find(operator, &request.input["customer"]);
        let customer = customer.filter(|customer| self.is_linked(operator, customer));
        let customer = customer.ok_or_else(|| vec!["CUSTOMER_NOT_FOUND"])?;
        let mut readers = self.readers(&customer, "DISCONNECTED");
        readers.retain(|(reader, _, _)| *reader == operator);
        self.announce(request.operator, &customer, "DISCONNECTED", &[], readers);
        self.links.retain(|(owner, _), linked| *owner != operator || *linked != customer);
        Ok(json!({ "customerId": customer }))
    }

    /// Applies a verification. Returns the expected payload, or the expected error codes.
    fn verify(&mut self, request: &Request) -> Result<Value, Vec<&'static str>> {
        let input = &request.input;
        let id = self.find(PLATFORM, input).ok_or_else(|| vec!["CUSTOMER_NOT_FOUND"])?;
        let (mut values, mut version) = self.customers[&id].clone();
        let (field, verified_at) =
            if input["field"] == "EMAIL" { ("email", "emailVerifiedAt") } else { ("phone", "phoneVerifiedAt") };
        let (value, time) = (&input["value"], &input["verifiedAt"]);
        let is_taken_over = values[field] != *value;
        if is_taken_over {
            let holder = self.customer_with("phone", value).filter(|_| input["takeOver"] == true);
            let holder = holder.ok_or_else(|| vec!["INVALID_ARGUMENT"])?;
            let (theirs, their_version) = self.customers.get_mut(&holder).unwrap();
            if theirs["phoneVerifiedAt"].as_str() > time.as_str() {
                return Err(vec!["PHONE_TAKEN"]);
            }
            theirs.extend(["phone", "phoneVerifiedAt"].map(|field| (field.to_owned(), json!(null))));
            *their_version += 1;
            values.insert("phone".into(), value.clone());
            version += 1;
            self.announce(PLATFORM, &holder, "UPDATED", &["PHONE"], self.readers(&holder, "UPDATED"));
        }
        let is_verified = is_taken_over || values[verified_at].as_str() < time.as_str();
        if is_verified {
            values.insert(verified_at.into(), time.clone());
        }
        self.customers.insert(id.clone(), (values, version));
        if is_verified {
            let fields: &[_] = if is_taken_over { &["PHONE"] } else { &[] };
            self.announce(PLATFORM, &id, "VERIFIED", fields, self.readers(&id, "VERIFIED"));
        }
        Ok(json!({ "customer": self.render(PLATFORM, &id) }))
    }

    /// Applies an erasure. Returns the expected payload, or the expected error codes.
    fn erase(&mut self, request: &Request) -> Result<Value, Vec<&'static str>> {
        let id = self.find(PLATFORM, &request.input).ok_or_else(|| vec!["CUSTOMER_NOT_FOUND"])?;
        self.announce(PLATFORM, &id, "ERASED", &[], self.readers(&id, "ERASED"));
        self.customers.remove(&id);
        self.links.retain(|_, customer| *customer != id);
        Ok(json!({ "erasure": { "customerId": id } }))
    }

    /// The id of the customer that a request refers to.
    fn find(&self, operator: usize, reference: &Value) -> Option<String> {
        match reference["externalCustomerId"].as_str() {
            Some(id) => self.links.get(&(operator, id.to_owned())).cloned(),
            None => reference["id"].as_str().map(str::to_owned).filter(|id| self.customers.contains_key(id)),
        }
    }

    /// Applies a request. `new_id` is the id of the customer if the request creates one. Returns the expected payload,
    /// or the expected error codes.
    fn execute(&mut self, request: &Request, new_id: &str) -> Result<Value, Vec<&'static str>> {
        let mut expected = match request.kind {
            Kind::Create => self.create(request, new_id),
            Kind::Update => self.update(request),
            Kind::Disconnect => self.disconnect(request),
            Kind::Verify => self.verify(request),
            Kind::Erase => self.erase(request),
        }?;
        expected["replayed"] = json!(false);
        Ok(expected)
    }

    /// Applies a change. Returns the changes that the feeds get, or `None` if the client did not receive the expected
    /// payload.
    fn apply(&mut self, change: &Change<'_>) -> Option<Vec<Announced>> {
        let Change { request, payload, customer, .. } = *change;
        let expected = self.execute(request, &customer.to_string()).ok()?;
        let announced = std::mem::take(&mut self.announced);
        (*payload == expected).then_some(announced)
    }

    /// A customer as the API returns it.
    fn render(&self, operator: usize, customer: &str) -> Value {
        let (values, version) = &self.customers[customer];
        let mut rendered = values.clone();
        let is_own = |(link, linked): &(&(usize, String), &String)| link.0 == operator && **linked == customer;
        let own = self.links.iter().find(is_own).map(|((_, id), _)| id);
        rendered.insert("externalCustomerId".into(), json!(own));
        rendered.insert("id".into(), json!(customer));
        rendered.insert("version".into(), json!(version));
        json!(rendered)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_behaves_like_the_model() {
    let Some(servers) = Servers::start(Backend::Sqlite, 1).await else { return };
    run("SQLite", servers, REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_postgres_behave_like_the_model() {
    let Some(servers) = Servers::start(Backend::Postgres, 2).await else { return };
    run("two processes on PostgreSQL", servers, REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serializable_postgres_behaves_like_the_model() {
    let Some(server) = support::postgres::server().await else { return };
    let test_database = TestDatabase::create_on(server, Some("serializable")).await;
    let url = test_database.url.clone();
    let servers = Servers::start_on(test_database, url, 2).await;
    run("two processes on PostgreSQL with serializable isolation", servers, REQUESTS / 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rejected_request_of_a_single_client_has_the_codes_of_the_model() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(servers) = Servers::start(backend, 1).await else { continue };
        run_in_order(servers, REQUESTS / 5).await;
    }
}

/// Sends random requests one after the other. Compares every response with the model, and also the codes of rejected
/// requests: unlike concurrent requests, these requests have a known order.
async fn run_in_order(servers: Servers, requests: usize) {
    let seed = seed();
    println!("{requests} requests of a single client; repeat with VIVAMO_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let operators = create_operators(&servers).await;
    let (mut model, mut known) = (Model::new(&operators), Vec::new());
    let mut rejections: BTreeMap<_, usize> = BTreeMap::new();
    for _ in 0..requests {
        let request = random_request(&mut random, &operators, &known);
        let sent = send(&servers, &operators, &request).await;
        let (_, answer) = sent.last().unwrap();
        let customer = payload(answer).map(|payload| payload["customer"].clone()).filter(Value::is_object);
        let new_id = customer.as_ref().map_or("", |customer| customer["id"].as_str().unwrap());
        match model.execute(&request, new_id) {
            Ok(expected) => assert_eq!(payload(answer), Some(&expected), "{request:?}: {answer}"),
            Err(expected) => {
                assert_eq!(codes(answer), expected, "{request:?}: {answer}");
                *rejections.entry((format!("{:?}", request.kind), expected)).or_default() += 1;
            }
        }
        known.extend(customer);
    }
    println!("{rejections:?}");
    assert!(rejections.len() >= 12, "few kinds of rejections occurred");
    servers.stop().await;
}

/// Returns the seed of the random requests.
fn seed() -> u64 {
    let given = std::env::var("VIVAMO_TEST_SEED").ok();
    given.map_or_else(rand::random, |seed| seed.parse().unwrap())
}

async fn create_operators(servers: &Servers) -> Vec<TestCaller> {
    let mut operators = Vec::new();
    for number in 0..OPERATORS {
        operators.push(servers.operator(&format!("Operator {number}")).await);
    }
    operators
}

/// Sends random requests, and compares their results with the model.
pub async fn run(name: &str, servers: Servers, requests: usize) {
    let seed = seed();
    println!("{name}: {requests} requests; repeat with VIVAMO_TEST_SEED={seed}");
    let operators = create_operators(&servers).await;
    // Customers from earlier responses, for requests of the platform.
    let known = Mutex::new(Vec::new());
    // Requests and answers by request id.
    let answers = Mutex::new(HashMap::new());
    let remaining = AtomicUsize::new(requests);
    let removal = OnceLock::new();
    let followers = (0..=PLATFORM).map(|reader| Follower::new(&servers, &operators, reader));
    let followers = tokio::sync::Mutex::new(followers.collect::<Vec<_>>());
    let worker = async |number: u64| {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
        while let Ok(count) = remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
        {
            if count == requests / 2 {
                removal.set(remove_customers(&servers, &operators[LEAVING]).await).unwrap();
            }
            if count % FOLLOW_INTERVAL == 0 {
                for follower in followers.lock().await.iter_mut() {
                    follower.read(&servers, random.random_range(10..=100)).await;
                }
            }
            let mut request = random_request(&mut random, &operators, &known.lock().unwrap());
            let is_sent_twice = random.random_bool(0.1);
            if is_sent_twice {
                request.input["idempotencyKey"] = json!(format!("key-{number}-{}", random.random::<u64>()));
            }
            let send = || send(&servers, &operators, &request);
            let sent = if is_sent_twice { join_all([send(), send()]).await.concat() } else { send().await };
            assert_applied_once(&sent);
            let customers = sent.iter().filter_map(|(_, answer)| Some(payload(answer)?["customer"].clone()));
            known.lock().unwrap().extend(customers.filter(Value::is_object));
            let mut answers = answers.lock().unwrap();
            answers.extend(sent.into_iter().map(|(id, answer)| (id, (request.clone(), answer))));
        }
    };
    join_all((0..WORKERS as u64).map(worker)).await;
    let (followers, answers) = (followers.into_inner(), answers.into_inner().unwrap());
    compare(&servers, &operators, followers, answers, removal.into_inner().unwrap()).await;
    servers.stop().await;
}

/// Suspends an operator, disconnects all its customers as `vivamo operator remove-customers` does, and resumes the
/// operator. Returns the request id that the history entries of these disconnections have.
async fn remove_customers(servers: &Servers, operator: &TestCaller) -> RequestId {
    let Services { operators, customers, .. } = &*servers.services;
    let (platform, request) = (&Caller::Platform, &RequestInfo::command_line());
    let id = OperatorId::parse(&operator.operator).unwrap();
    let change = |status| OperatorChanges { status: Some(status), ..Default::default() };
    until_available(|| operators.update(platform, request, id, change(Status::Suspended))).await;
    let count = until_available(|| customers.start_removing_customers(platform, request, id)).await;
    until_available(|| customers.remove_customers(platform, request, id, |_| ())).await;
    until_available(|| operators.update(platform, request, id, change(Status::Active))).await;
    println!("{count} customers of an operator were disconnected");
    request.id
}

/// Runs a command again while it fails, as an administrator does if the database is busy.
async fn until_available<T, F: Future<Output = Result<T, Error>>>(command: impl Fn() -> F) -> T {
    wait_until("the command succeeds", async || command().await.ok()).await
}

/// Sends a request, and repeats it while the response is `UNAVAILABLE`: on a busy machine, a request may have conflicts
/// until its time for retries is over.
async fn send(servers: &Servers, operators: &[TestCaller], request: &Request) -> Vec<(String, Value)> {
    let query = match request.kind {
        Kind::Create => CREATE,
        Kind::Update => UPDATE,
        Kind::Disconnect => DISCONNECT,
        Kind::Verify => VERIFY,
        Kind::Erase => ERASE,
    };
    let platform = servers.platform();
    let caller = operators.get(request.operator).unwrap_or(&platform);
    servers.attempts_until_available(caller, query, &json!({ "input": request.input })).await.unwrap()
}

/// The payload of a mutation, if it succeeded.
fn payload(answer: &Value) -> Option<&Value> {
    answer["data"].as_object()?.values().find(|payload| payload.is_object())
}

/// Asserts that a repeated request was applied exactly once, or was rejected every time.
fn assert_applied_once(sent: &[(String, Value)]) {
    let payloads: Vec<_> = sent.iter().filter_map(|(_, answer)| payload(answer)).collect();
    let applied = payloads.iter().filter(|payload| payload["replayed"] == false).count();
    let rejected = sent.len() - payloads.len();
    // A rejected request does not use up its key, so a later repetition may succeed.
    assert!(applied <= 1 && (applied == 1 || rejected == sent.len()), "{sent:?}");
}

/// A change that was applied, and the payload that its client received.
#[derive(Clone)]
struct Change<'a> {
    request: &'a Request,
    payload: &'a Value,
    customer: CustomerId,
    /// The customer, and for a takeover also the customer that lost its phone.
    customers: BTreeSet<CustomerId>,
}

/// A change, the model before this change, and the entries that this change adds to the feeds.
struct Applied<'a> {
    before: Model,
    change: Change<'a>,
    announced: Vec<Announced>,
}

/// Applies the changes to a model in an order in which each request gets the payload that its client received. Returns
/// the final model and the feeds.
///
/// The order is nearly the order of the events. For example, request A reads a row, request B then changes this row,
/// and A writes other rows. The result of A does not show the change of B, so A comes before B in this order. The event
/// of A may still have the later time. The events of one customer are always in the order of its changes.
fn replay(operators: &[TestCaller], changes: &[Change<'_>]) -> (Model, Vec<Announced>) {
    let (mut model, mut moved) = (Model::new(operators), 0);
    let mut feeds = Vec::new();
    let mut recent: VecDeque<Applied<'_>> = VecDeque::new();
    for change in changes {
        // Tries to insert the change at the end, before the last change, before the last two changes, and so on.
        let position = (0..=recent.len()).find_map(|back| {
            let start = recent.len() - back;
            let mut attempt = if back == 0 { model.clone() } else { recent[start].before.clone() };
            let mut applied = Vec::new();
            for change in inserted_first(recent.range(start..).map(|applied| &applied.change), change) {
                let before = attempt.clone();
                let announced = attempt.apply(&change)?;
                applied.push(Applied { before, change, announced });
            }
            Some((back, attempt, applied))
        });
        let Some((back, after, applied)) = position else {
            panic!("no order explains {:?}, whose client received {}", change.request, change.payload)
        };
        moved += usize::from(back > 0);
        recent.truncate(recent.len() - back);
        recent.extend(applied);
        let explained = recent.drain(..recent.len().saturating_sub(MAX_MOVE));
        feeds.extend(explained.flat_map(|applied| applied.announced));
        model = after;
    }
    feeds.extend(recent.into_iter().flat_map(|applied| applied.announced));
    println!("{} changes, {moved} of them earlier than the order of their events", changes.len());
    (model, feeds)
}

/// Inserts a change before the changes in `later`, but keeps the order of changes that share a customer. A change in
/// `later` therefore stays before the inserted change if it shares a customer with the inserted change, or with a
/// following change in `later` that also stays before the inserted change.
fn inserted_first<'a: 'l, 'l>(
    later: impl DoubleEndedIterator<Item = &'l Change<'a>>,
    change: &Change<'a>,
) -> Vec<Change<'a>> {
    let mut customers = change.customers.clone();
    let (mut first, mut last) = (vec![change.clone()], Vec::new());
    for other in later.rev() {
        if other.customers.is_disjoint(&customers) {
            last.push(other.clone());
        } else {
            customers.extend(&other.customers);
            first.push(other.clone());
        }
    }
    first.into_iter().rev().chain(last.into_iter().rev()).collect()
}

/// A reader of the feed that continues at its cursor.
struct Follower {
    caller: TestCaller,
    /// The index of the operator, or [`PLATFORM`].
    reader: usize,
    cursor: Value,
    changes: Vec<Value>,
}

impl Follower {
    fn new(servers: &Servers, operators: &[TestCaller], reader: usize) -> Self {
        let caller = operators.get(reader).cloned().unwrap_or_else(|| servers.platform());
        Self { caller, reader, cursor: json!(null), changes: Vec::new() }
    }

    /// Reads to the end of the feed, in pages of this size. Stops earlier while the operator is suspended.
    async fn read(&mut self, servers: &Servers, first: usize) {
        loop {
            let variables = json!({ "first": first, "after": self.cursor });
            let (_, answer) = servers.send_until_available(&self.caller, CHANGES, &variables).await.unwrap();
            if codes(&answer) == ["UNAUTHENTICATED"] {
                return;
            }
            let page = &answer["data"]["changes"];
            self.changes.extend(page["changes"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().cloned());
            self.cursor = page["cursor"].clone();
            if page["hasMore"] == false {
                return;
            }
        }
    }
}

/// Reads the feeds to their ends, and compares them with the feeds that the model predicts.
async fn compare_feeds(servers: &Servers, operators: &[TestCaller], followers: Vec<Follower>, predicted: &[Announced]) {
    support::wait_for_feed(&servers.database).await;
    let is_erasure = |change: &&Announced| change.r#type == "ERASED";
    let erased: BTreeSet<_> = predicted.iter().filter(is_erasure).map(|change| change.customer.as_str()).collect();
    // An erasure also removes the external ids from the earlier changes of the customer.
    let has_id = |change: &Announced| change.r#type == "ERASED" || !erased.contains(change.customer.as_str());
    for mut follower in followers {
        follower.read(servers, 100).await;
        let mut from_start = Follower::new(servers, operators, follower.reader);
        from_start.read(servers, 100).await;
        let of_reader = || predicted.iter().filter(|change| change.reader == follower.reader);
        let at_first = by_customer(of_reader().map(|change| change.row(true)));
        let expected = by_customer(of_reader().map(|change| change.row(has_id(change))));
        let found = rows(&from_start.changes);
        assert!(found.keys().eq(expected.keys()), "reader {}", follower.reader);
        for (customer, expected) in &expected {
            assert_eq!(&found[customer], expected, "reader {}, {customer}", follower.reader);
        }
        // If the follower read a change before the customer was erased, this change may still have an external id.
        let ids = |changes: &[Value]| changes.iter().map(|change| change["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&follower.changes), ids(&from_start.changes));
        for (customer, followed) in rows(&follower.changes) {
            let predicted = at_first[&customer].iter().zip(&expected[&customer]);
            for (row, (at_first, now)) in followed.iter().zip(predicted) {
                assert!(row == at_first || row == now, "{customer}: {row}, expected {at_first} or {now}");
            }
        }
        println!("reader {}: {} changes", follower.reader, follower.changes.len());
    }
}

/// The changes of each customer, in their order, with the parts that the model predicts.
fn rows(changes: &[Value]) -> BTreeMap<String, Vec<Value>> {
    const PARTS: [&str; 5] = ["type", "version", "changedFields", "own", "externalCustomerId"];
    let parts = |change: &Value| PARTS.iter().map(|part| change[part].clone()).collect();
    by_customer(changes.iter().map(|change| (change["customerId"].as_str().unwrap().to_owned(), parts(change))))
}

fn by_customer(rows: impl Iterator<Item = (String, Value)>) -> BTreeMap<String, Vec<Value>> {
    let mut by_customer = BTreeMap::<_, Vec<_>>::new();
    for (customer, row) in rows {
        by_customer.entry(customer).or_default().push(row);
    }
    by_customer
}

/// Replays the changes, checks the results of all requests, and compares the final model with the database.
/// `removal` is the id of the run of [`remove_customers`].
async fn compare(
    servers: &Servers,
    operators: &[TestCaller],
    followers: Vec<Follower>,
    answers: HashMap<String, (Request, Value)>,
    removal: RequestId,
) {
    const EXPECTED_CODES: [&str; 10] = [
        "EXTERNAL_CUSTOMER_ID_TAKEN",
        "EMAIL_TAKEN",
        "PHONE_TAKEN",
        "IDENTITY_CONFLICT",
        "CUSTOMER_NOT_FOUND",
        "VERSION_CONFLICT",
        "INVALID_ARGUMENT",
        "BAD_REQUEST",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
    ];
    let reader = servers.database.reader();
    let mut events = customer_event::Entity::find().all(reader).await.unwrap();
    events.sort_by_key(|event| event.occurred_at);
    // The removal disconnects each customer as a request of the platform does, and all its entries have the id of the
    // run.
    let disconnect = |event: &customer_event::Model| {
        let customer = json!({ "id": event.customer_id.to_string() });
        let input = json!({ "customer": customer, "operatorId": operators[LEAVING].operator, "reason": "ENDED" });
        let payload = json!({ "customerId": customer["id"], "replayed": false });
        let request = Request { operator: PLATFORM, kind: Kind::Disconnect, input };
        (event.id, (request, json!({ "data": { "disconnectCustomer": payload } })))
    };
    let removed: HashMap<_, _> = events.iter().filter(|event| event.request_id == removal).map(disconnect).collect();
    assert!(!removed.is_empty());
    let mut customers_of: HashMap<RequestId, BTreeSet<CustomerId>> = HashMap::new();
    for event in &events {
        customers_of.entry(event.request_id).or_default().insert(event.customer_id);
    }
    // An update that changes values and the external id has two events. A takeover has two events too.
    let mut requests = BTreeSet::new();
    let changes: Vec<Change> = events
        .iter()
        .filter(|event| removed.contains_key(&event.id) || requests.insert(event.request_id))
        .map(|event| {
            let sent = || &answers[&event.request_id.to_string()];
            let (request, answer) = removed.get(&event.id).unwrap_or_else(sent);
            let payload =
                payload(answer).unwrap_or_else(|| panic!("the client of a change received an error: {answer}"));
            let customers = if removed.contains_key(&event.id) {
                BTreeSet::from([event.customer_id])
            } else {
                customers_of[&event.request_id].clone()
            };
            Change { request, payload, customer: event.customer_id, customers }
        })
        .collect();
    let (model, feeds) = replay(operators, &changes);
    compare_feeds(servers, operators, followers, &feeds).await;
    let with_event: BTreeSet<String> = events.iter().map(|event| event.request_id.to_string()).collect();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for (id, (request, answer)) in &answers {
        let outcome = match payload(answer) {
            Some(payload) if payload["replayed"] == true => "replayed".to_owned(),
            Some(payload) => {
                // An update and a verification have an event only if they changed something.
                assert!(
                    matches!(request.kind, Kind::Update | Kind::Verify) || with_event.contains(id),
                    "{request:?} {answer}"
                );
                payload["outcome"].as_str().map_or_else(|| format!("{:?}", request.kind), str::to_owned)
            }
            None => {
                let codes = codes(answer);
                assert!(
                    !codes.is_empty() && codes.iter().all(|code| EXPECTED_CODES.contains(&code.as_str())),
                    "{answer}"
                );
                assert!(!with_event.contains(id), "a rejected request has an event: {answer}");
                codes.join("+")
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{} requests: {outcomes:?}", answers.len());

    // The final state of the model must equal the state of the database.
    let customers = customer::Entity::find().all(reader).await.unwrap();
    assert_eq!(customers.len(), model.customers.len());
    for customer in customers {
        let text = |text: Option<&str>| json!(text);
        let expected = model.render(PLATFORM, &customer.id.to_string());
        assert_eq!(expected["email"], json!(customer.email.as_str()));
        assert_eq!(expected["phone"], text(customer.phone.as_ref().map(|phone| phone.as_str())));
        assert_eq!(expected["firstName"], text(customer.first_name.as_ref().map(|name| name.as_str())));
        assert_eq!(expected["lastName"], text(customer.last_name.as_ref().map(|name| name.as_str())));
        assert_eq!(expected["version"], json!(customer.version));
        let time = |time: Option<DateTime<Utc>>| text(time.map(|time| time.to_rfc3339_opts(Micros, false)).as_deref());
        assert_eq!(expected["emailVerifiedAt"], time(customer.email_verified_at));
        assert_eq!(expected["phoneVerifiedAt"], time(customer.phone_verified_at));
    }
    let erased = erased_customers(servers, &events).await;
    let links = customer_operator::Entity::find().all(reader).await.unwrap();
    assert_eq!(links.len(), model.links.len());
    let mut linked = BTreeSet::new();
    for link in links {
        let operator = operators.iter().position(|caller| caller.operator == link.operator_id.to_string()).unwrap();
        let id = link.external_customer_id.as_str().to_owned();
        assert_eq!(model.links.get(&(operator, id.clone())), Some(&link.customer_id.to_string()));
        assert_history_explains_the_version(servers, &operators[operator], &id).await;
        linked.insert(link.customer_id);
    }
    let is_created = |event: &&customer_event::Model| event.r#type == EventType::Created;
    for event in events.iter().filter(is_created).filter(|event| !erased.contains(&event.customer_id)) {
        let of_customer = || events.iter().filter(|other| other.customer_id == event.customer_id);
        let is_disconnect = |event: &customer_event::Model| event.r#type == EventType::Disconnected;
        assert!(linked.contains(&event.customer_id) || of_customer().any(is_disconnect));
        let changes = of_customer().filter(|event| {
            matches!(event.r#type, EventType::Connected | EventType::Updated | EventType::Verified)
                && event.before != event.after
        });
        let changes = changes.count() as i64;
        assert_eq!(model.customers[&event.customer_id.to_string()].1, 1 + changes);
    }
}

/// Returns the erased customers. Asserts that their history entries have no values, and that they have no search words.
async fn erased_customers(servers: &Servers, events: &[customer_event::Model]) -> BTreeSet<CustomerId> {
    let reader = servers.database.reader();
    let erasures = erasure::Entity::find().all(reader).await.unwrap();
    let erased: BTreeSet<_> = erasures.into_iter().map(|erasure| erasure.customer_id).collect();
    assert!(!erased.is_empty());
    for event in events.iter().filter(|event| erased.contains(&event.customer_id)) {
        assert!([&event.before, &event.after].iter().all(|values| values.0.values().all(Value::is_null)));
    }
    let words = customer_word::Entity::find().all(reader).await.unwrap();
    assert!(words.iter().all(|word| !erased.contains(&word.customer_id)));
    erased
}

/// Asserts that an operator sees one history entry for each version of a customer since the operator connected, and
/// that the operator sees no other author.
async fn assert_history_explains_the_version(servers: &Servers, caller: &TestCaller, id: &str) {
    let by = json!({ "by": { "externalCustomerId": id } });
    let (_, answer) = servers.send_until_available(caller, HISTORY, &by).await.unwrap();
    let customer = &answer["data"]["customer"];
    if customer["history"]["pageInfo"]["hasNextPage"] == true {
        return;
    }
    let entries = customer["history"]["nodes"].as_array().unwrap();
    let is_start =
        |entry: &&Value| entry["own"] == true && ["CREATED", "CONNECTED"].contains(&entry["type"].as_str().unwrap());
    let starts: Vec<_> = entries.iter().filter(is_start).collect();
    assert_eq!(starts.len(), 1, "{answer}");
    let start = starts[0]["version"].as_i64().unwrap();
    let mut versions: Vec<_> = entries
        .iter()
        .filter(|entry| *entry != starts[0] && entry["changedFields"] != json!([]))
        .map(|entry| entry["version"].as_i64().unwrap())
        .collect();
    versions.sort_unstable();
    let expected: Vec<_> = (start + 1..=customer["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, expected, "{answer}");
    for entry in entries {
        let is_own = entry["operator"]["id"] == caller.operator;
        assert!(
            entry["own"] == is_own
                && (is_own
                    || (entry["operator"].is_null()
                        && ["UPDATED", "VERIFIED"].contains(&entry["type"].as_str().unwrap())))
        );
    }
}
