//! The log of a server. At `RUST_LOG=trace`, it contains no value of a person, neither from the service nor from one of
//! its dependencies. No request waits for the program that reads the log.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use support::process::{Running, vivamo};
use support::{Answer, Backend, TestDatabase, http_client, logs};

use crate::carrier::FakeCarrier;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Values that no other test uses.
const EMAIL: &str = "zerlina.quadri@nozze.example";
const NATIONAL_NUMBER: &str = "4155558642";
const FIRST_NAME: &str = "Zerlina";
const LAST_NAME: &str = "Quadri";
const STREET: &str = "17 Via Bandiera";
const ID: &str = "id-of-zerlina";
const KEY: &str = "key-of-zerlina";

/// A request body with these variables.
fn body(query: &str, variables: Value) -> String {
    json!({ "query": query, "variables": variables }).to_string()
}

/// Request bodies with values of a person: valid and invalid values, in variables and in the document.
fn requests() -> Vec<String> {
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id email } } }";
    let update = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { id phone } } }";
    let validate = "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { faults { message } } }";
    let search =
        "query ($text: String!) { customers(filter: { search: $text }) { totalCount edges { node { email } } } }";
    let find = "query ($by: CustomerRef!) { customer(by: $by) { email phone firstName address { line1 } } }";
    let data = |phone: &str| {
        let address = json!({ "line1": STREET, "city": STREET, "country": "US" });
        json!({ "email": EMAIL, "phone": phone, "firstName": FIRST_NAME, "lastName": LAST_NAME, "address": address })
    };
    let new = |phone: &str, key: Option<&str>| json!({ "input": { "externalCustomerId": ID, "data": data(phone), "idempotencyKey": key } });
    let change = |data: Value| json!({ "input": { "customer": { "externalCustomerId": ID }, "data": data } });
    // The last four digits choose the response of the carrier: unreachable, redirected, not mobile, garbled, mobile.
    let phone = |digits: &str| format!("+1415555{digits}");
    let mut requests: Vec<_> =
        ["0026", "0030", "0002", "0025", "8642"].map(|digits| body(create, new(&phone(digits), Some(KEY)))).into();
    requests.extend([
        body(create, new(&phone("8642"), Some(KEY))),
        body(create, new(&phone("8642"), None)),
        body(create, new("+49 30 4155558642", None)),
        body(create, new("4155558642123456", None)),
        body(create, new(EMAIL, None)),
        body(validate, new(&phone("8642"), None)),
        body(validate, new(NATIONAL_NUMBER, None)),
        body(update, change(json!({ "phone": NATIONAL_NUMBER, "firstName": LAST_NAME }))),
        body(update, change(json!({ "email": STREET, "lastName": null }))),
        body(update, change(json!({ "phone": phone("0026") }))),
        body(update, change(json!({ "nickname": FIRST_NAME }))),
        body(search, json!({ "text": format!("{FIRST_NAME} {LAST_NAME} {EMAIL} {NATIONAL_NUMBER}") })),
        body(search, json!({ "text": { "of": FIRST_NAME } })),
        body(find, json!({ "by": { "email": EMAIL } })),
        body(find, json!({ "by": { "phone": phone("8642") } })),
        body(find, json!({ "by": { "phone": phone("8642"), "email": EMAIL } })),
        body(&format!("{{ customer(by: {{ email: \"{EMAIL}\" }}) {{ {LAST_NAME} }} }}"), json!({})),
        body(&format!("{{ customer(by: {{ phone: \"{NATIONAL_NUMBER}\" }}) {{ id }}"), json!({})),
        body(&format!("{{ customer(by: {{ {FIRST_NAME}: \"{EMAIL}\" }}) {{ id }} }}"), json!({})),
        body(find, json!(EMAIL)),
        format!("{{\"query\": \"{EMAIL}, {STREET}"),
        format!("{EMAIL} {NATIONAL_NUMBER}"),
    ]);
    requests
}

async fn drive(url: &str, key: &str) {
    let http = http_client();
    for request in requests() {
        let sent = http.post(format!("{url}/graphql")).bearer_auth(key).header("content-type", "application/json");
        Answer::read(sent.body(request).send().await.unwrap()).await;
    }
    let query = [("query", format!("{{ customer(by: {{ email: \"{EMAIL}\" }}) {{ phone }} }}"))];
    for key in [key, NATIONAL_NUMBER, &key.replace('a', "b")] {
        let sent = http.get(format!("{url}/graphql")).query(&query).bearer_auth(key).header("x-person", EMAIL);
        Answer::read(sent.send().await.unwrap()).await;
    }
    http.get(format!("{url}/{EMAIL}/{NATIONAL_NUMBER}")).send().await.unwrap();
    let found = body(
        "query ($by: CustomerRef!) { customer(by: $by) { firstName phone } }",
        json!({ "by": { "email": EMAIL } }),
    );
    let sent = http.post(format!("{url}/graphql")).bearer_auth(key).header("content-type", "application/json");
    let answer = Answer::read(sent.body(found).send().await.unwrap()).await;
    let stored = json!({ "firstName": LAST_NAME, "phone": format!("+1{NATIONAL_NUMBER}") });
    assert_eq!(answer.data()["customer"], stored, "the requests have no effect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_level_contains_personal_data() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let earlier = logs::length();
        let (folder, carrier) = (TempDir::new().unwrap(), FakeCarrier::start().await);
        let run = |arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_ENVIRONMENT", "production");
            command.env("VIVAMO_KEY_SECRET", SECRET).env("RUST_LOG", "trace,rlibphonenumber=trace,hyper_util=trace");
            command
        };
        let succeed = |mut command: Command| {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        succeed(run(&["migrate"]));
        let operator: Value = serde_json::from_slice(&succeed(run(&["operator", "create", "A", "--json"]))).unwrap();
        let key = operator["key"].as_str().unwrap();
        let mut serve = run(&["serve"]);
        serve.env("VIVAMO_PHONE_LOOKUP", "twilio").env("VIVAMO_TWILIO_URL", &carrier.url);
        serve.env("VIVAMO_TWILIO_USER", "SKuser").env("VIVAMO_TWILIO_PASSWORD", "secret");
        let (server, url) = Running::start(&mut serve);
        drive(&url, key).await;
        server.stop();
        database.remove().await;

        let log = logs::read_after(earlier);
        for value in [EMAIL, NATIONAL_NUMBER, "5558642", "5550026", FIRST_NAME, LAST_NAME, STREET, ID, KEY, key, SECRET]
        {
            let line = log.lines().find(|line| line.contains(value));
            assert_eq!(line, None, "{value} is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_wait_for_the_reader_of_the_log() {
    /// The lines of the requests are more than the 64 KiB that fit into a pipe.
    const REQUESTS: usize = 600;
    /// A server that waits for the reader of its log never answers.
    const TIMEOUT: Duration = Duration::from_secs(30);
    let folder = TempDir::new().unwrap();
    let (server, url, _, log) = Running::start_with_unread_log(&mut vivamo(folder.path(), &["serve"]));
    let http = http_client();
    for _ in 0..REQUESTS {
        Answer::read(http.get(format!("{url}/graphql")).timeout(TIMEOUT).send().await.unwrap()).await;
    }
    server.terminate();
    let log = std::io::read_to_string(log).unwrap();
    assert!(log.len() > 64 * 1024, "the log is only {} bytes long", log.len());
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("request_id=")).count(), REQUESTS);
    assert!(lines.last().is_some_and(|line| line.ends_with("stopped")), "{:?}", lines.last());
}
