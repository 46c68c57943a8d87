//! Restrictions on emails and phones: sandbox warns about the values that production rejects.

use serde_json::{Value, json};

use entity::deployment::Environment;
use support::{Answer, Backend, TestApp, both, errors, run};

/// Inputs with accepted and restricted emails and phones of every kind: with an email or a phone, and with both. Inputs
/// of one list have different emails and phones, so each input creates a customer.
fn fixtures() -> [Vec<Value>; 2] {
    let emails = [
        "ada@example.com",
        "Ada@Gmail.com",
        "a+b@example.com",
        "a+b@mailinator.com",
        "a@mailinator.com",
        "a@x.yopmail.com",
        "a@duck.com",
        "a+b@duck.com",
        "a@bücher.example",
        "a@relay.firefox.com",
        "a@qq.com",
        "a@guerrillamail.com",
        "a@grr.la",
        "a+@example.com",
        "+@example.com",
    ];
    let phones = [
        "+14155552671",
        "4155552672",
        "+15551234567",
        "+18002345678",
        "+442079460018",
        "+447400123456",
        "+445612345678",
        "+4915123456789",
        "+4930123456",
        "+2250123456789",
        "+2290195123456",
        "+390612345678",
        "+393123456789",
        "+78001234567",
        "+79123456789",
        "+870773111632",
        "+١٤١٥٥٥٥٢٦٧٣",
        "+525512345678",
        "+819012345678",
    ];
    let with_email = emails.iter().map(|email| json!({ "email": email }));
    let with_phone = phones
        .iter()
        .enumerate()
        .map(|(number, phone)| json!({ "email": format!("{number}@example.com"), "phone": phone }));
    let with_both =
        emails.iter().zip(phones).map(|(email, phone)| json!({ "email": format!("both-{email}"), "phone": phone }));
    [with_email.chain(with_phone).collect(), with_both.collect()]
}

/// The code and the path of each warning of a payload, sorted.
fn warnings(payload: &Value) -> Vec<(String, String)> {
    let mut warnings: Vec<_> = payload["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| {
            let path: Vec<_> =
                warning["inputPath"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
            (warning["code"].as_str().unwrap().to_owned(), path.join("."))
        })
        .collect();
    warnings.sort();
    warnings
}

const VALIDATE: &str = "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) \
    { email phone faults { code message inputPath customerId } warnings { code message inputPath } } }";

async fn validate(app: &TestApp, caller: &support::TestCaller, id: &str, data: &Value) -> Answer {
    app.graphql(caller, VALIDATE, json!({ "input": { "externalCustomerId": id, "data": data } })).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandbox_warns_about_exactly_what_production_rejects() {
    for inputs in fixtures() {
        let mut in_sandbox = Vec::new();
        run(Backend::Sqlite, Environment::Sandbox, async |app| {
            let operator = app.operator("A").await;
            for (id, data) in (1..).zip(&inputs) {
                let id = id.to_string();
                let validation = validate(app, &operator, &id, data).await.body["data"]["validateCustomer"].clone();
                assert_eq!(validation["faults"], json!([]), "{data}");
                let created = app.created(&operator, &id, data.clone()).await;
                assert_eq!(validation["warnings"], created["warnings"], "{data}");
                assert_eq!(
                    (&validation["email"], &validation["phone"]),
                    (&created["customer"]["email"], &created["customer"]["phone"])
                );
                in_sandbox.push(warnings(&created));
            }
        })
        .await;
        run(Backend::Sqlite, Environment::Production, async |app| {
            let operator = app.operator("A").await;
            app.created(&operator, "known", json!({ "email": "known@example.com" })).await;
            for ((id, data), in_sandbox) in (1..).zip(&inputs).zip(in_sandbox) {
                let id = id.to_string();
                let validation = validate(app, &operator, &id, data).await.body["data"]["validateCustomer"].clone();
                assert_eq!(validation["warnings"], json!([]), "{data}");
                let in_production = app.create(&operator, &id, data.clone()).await.errors();
                assert_eq!(warnings(&json!({ "warnings": validation["faults"] })), in_production, "{data}");
                // An update to the same values is rejected in the same way.
                if !in_production.is_empty() {
                    let updated = app.update(&operator, json!({ "externalCustomerId": "known" }), data.clone()).await;
                    assert_eq!(updated.errors(), in_production, "{data}");
                }
                assert_eq!(in_sandbox, in_production, "{data}");
            }
        })
        .await;
    }
}

both!(validate_reports_conflicts_with_own_customers_only, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let created = app.created(&own, "mine", json!({ "email": "mine@example.com", "phone": "+14155552671" })).await;
    app.created(&other, "theirs", json!({ "email": "theirs@example.com", "phone": "+14155552672" })).await;
    let reported_faults = async |caller, id: &str, data: Value| {
        let answer = validate(app, caller, id, &data).await;
        let payload = answer.payload("validateCustomer");
        for fault in payload["faults"].as_array().unwrap() {
            let is_taken = fault["code"].as_str().unwrap().ends_with("_TAKEN");
            let expected = if is_taken { &created["customer"]["id"] } else { &Value::Null };
            assert_eq!(fault["customerId"], *expected);
        }
        warnings(&json!({ "warnings": payload["faults"] }))
    };
    let all = errors(&[
        ("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId"),
        ("EMAIL_TAKEN", "input.data.email"),
        ("PHONE_TAKEN", "input.data.phone"),
    ]);
    let mine = json!({ "email": "MINE@example.com", "phone": "(415) 555-2671" });
    assert_eq!(reported_faults(&own, "mine", mine.clone()).await, all);
    // For values of another operator's customers, the response and the SQL are the same as for unused values.
    let theirs = json!({ "email": "theirs@example.com", "phone": "+14155552672" });
    let unused = json!({ "email": "nobody@example.com", "phone": "+14155552673" });
    let (reported_for_theirs, sql_for_theirs) = app.statements_of(reported_faults(&own, "new", theirs)).await;
    let (reported_for_unused, sql_for_unused) = app.statements_of(reported_faults(&own, "new", unused)).await;
    assert_eq!((&reported_for_theirs, &sql_for_theirs), (&reported_for_unused, &sql_for_unused));
    assert_eq!(reported_for_theirs, errors(&[]));
    // The platform has no customers of its own.
    let platform = app.platform();
    assert_eq!(reported_faults(&platform, "mine", mine.clone()).await, errors(&[]));
    // A read-only key may validate. If a value is invalid, conflicts are not reported.
    let read_only = app.key(&own, entity::api_key::Access::ReadOnly).await;
    assert_eq!(reported_faults(&read_only, "mine", mine).await, all);
    let faulty = json!({ "email": "mine@example.com", "firstName": "" });
    assert_eq!(reported_faults(&own, "mine", faulty).await, errors(&[("INVALID_NAME", "input.data.firstName")]));
    // Nothing was written.
    assert_eq!(app.count_rows("customer").await, 2);
});
