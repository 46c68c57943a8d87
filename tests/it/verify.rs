//! `recordVerification`: proofs that a person holds an email or a phone.

use entity::customer;
use entity::customer_event::VerifiableField;
use sea_orm::{IdenStatic, Iterable};
use serde_json::{Value, json};

use support::pages::FORWARDS;
use support::{Answer, TestApp, TestCaller, both};

const VERIFY: &str = "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { replayed \
    customer { id email phone emailVerifiedAt phoneVerifiedAt version updatedAt externalCustomerId } } }";
const CUSTOMER: &str = "query ($id: ID!) { customer(by: { id: $id }) { \
    email phone emailVerifiedAt phoneVerifiedAt version updatedAt } }";
const MORNING: &str = "2026-11-20T09:00:00.000000+00:00";
const NOON: &str = "2026-11-20T12:00:00.000000+00:00";
const EVENING: &str = "2026-11-20T18:00:00.000000+00:00";

/// Sends a `recordVerification` with the platform key. `more` has further fields of the input.
async fn send(app: &TestApp, id: &Value, field: &str, value: &str, time: &str, more: Value) -> Answer {
    let mut input = json!({ "id": id, "field": field, "value": value, "verifiedAt": time });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    app.graphql(&app.platform(), VERIFY, json!({ "input": input })).await
}

async fn verified(app: &TestApp, id: &Value, field: &str, value: &str, time: &str) -> Value {
    send(app, id, field, value, time, json!({})).await.payload("recordVerification")["customer"].clone()
}

async fn take_over(app: &TestApp, id: &Value, phone: &str, time: &str) -> Answer {
    send(app, id, "PHONE", phone, time, json!({ "takeOver": true })).await
}

async fn customer(app: &TestApp, caller: &TestCaller, id: &Value) -> Value {
    app.graphql(caller, CUSTOMER, json!({ "id": id })).await.data()["customer"].clone()
}

async fn created(app: &TestApp, caller: &TestCaller, email: &str, phone: Value) -> Value {
    app.created(caller, email, json!({ "email": email, "phone": phone })).await["customer"]["id"].clone()
}

async fn history(app: &TestApp, id: &Value) -> Vec<Value> {
    let query = "query ($id: ID!) { customerEvents(customerId: $id, first: 100) { nodes { type version verifiedField \
                 changedFields operator { name } apiKey { name } before { email phone } after { email phone } } } }";
    let answer = app.graphql(&app.platform(), query, json!({ "id": id })).await;
    answer.data()["customerEvents"]["nodes"].as_array().cloned().unwrap()
}

/// A history entry of the platform without changed values.
fn verified_entry(field: &str, version: i32) -> Value {
    let nothing = json!({ "email": null, "phone": null });
    json!({
        "type": "VERIFIED", "version": version, "verifiedField": field, "changedFields": [],
        "operator": null, "apiKey": null, "before": nothing, "after": nothing,
    })
}

both!(a_verification_sets_the_time_and_nothing_else, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = created(app, &operator, "ada@example.com", json!("+14155552671")).await;
    let before = customer(app, &operator, &id).await;
    assert_eq!((&before["emailVerifiedAt"], &before["phoneVerifiedAt"]), (&json!(null), &json!(null)));

    // The value and the time may have other spellings.
    let after = verified(app, &id, "EMAIL", " ADA@Example.com ", "2026-11-20T13:00:00.0000009+01:00").await;
    assert_eq!((&after["emailVerifiedAt"], &after["externalCustomerId"]), (&json!(NOON), &json!(null)));
    assert_eq!(after["phoneVerifiedAt"], json!(null));
    // A proof that is not newer than the stored proof changes nothing.
    for time in [NOON, MORNING] {
        assert_eq!(verified(app, &id, "EMAIL", "ada@example.com", time).await, after);
    }
    verified(app, &id, "PHONE", "(415) 555-2671", MORNING).await;
    verified(app, &id, "EMAIL", "ada@example.com", EVENING).await;
    let mut expected = before;
    expected["emailVerifiedAt"] = json!(EVENING);
    expected["phoneVerifiedAt"] = json!(MORNING);
    assert_eq!(customer(app, &operator, &id).await, expected);
    let entries = ["EMAIL", "PHONE", "EMAIL"].map(|field| verified_entry(field, 1));
    assert_eq!(history(app, &id).await[1..], entries);
});

both!(a_faulty_verification_changes_nothing, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = created(app, &operator, "ada@example.com", json!("+14155552671")).await;
    let without_phone = created(app, &operator, "grace@example.com", json!(null)).await;
    let unknown = json!("cus_01h455vb4pex5vsknk084sn02q");
    let (value, over) = (("INVALID_ARGUMENT", "input.value"), json!({ "takeOver": true }));
    for (id, field, text, time, more, error) in [
        (&id, "EMAIL", "grace@example.com", NOON, json!({}), value),
        (&id, "PHONE", "+14155552672", NOON, json!({}), value),
        (&without_phone, "PHONE", "+14155552671", NOON, json!({}), value),
        // No customer has the number.
        (&without_phone, "PHONE", "+14155552672", NOON, over.clone(), value),
        (&id, "EMAIL", "ada", NOON, json!({}), ("INVALID_EMAIL", "input.value")),
        (&id, "PHONE", "1", NOON, json!({}), ("INVALID_PHONE", "input.value")),
        (&id, "EMAIL", "ada@example.com", "2126-11-20T12:00:00Z", json!({}), ("INVALID_ARGUMENT", "input.verifiedAt")),
        (&id, "EMAIL", "ada@example.com", "0000-11-20T12:00:00Z", json!({}), ("INVALID_ARGUMENT", "input.verifiedAt")),
        // The year 10000 in UTC, and in the future: one error.
        (
            &id,
            "EMAIL",
            "ada@example.com",
            "9999-12-31T23:59:59-01:00",
            json!({}),
            ("INVALID_ARGUMENT", "input.verifiedAt"),
        ),
        (&id, "EMAIL", "ada@example.com", NOON, over.clone(), ("INVALID_ARGUMENT", "input.takeOver")),
        (
            &id,
            "EMAIL",
            "ada@example.com",
            NOON,
            json!({ "idempotencyKey": "" }),
            ("INVALID_ARGUMENT", "input.idempotencyKey"),
        ),
        (&unknown, "EMAIL", "ada@example.com", NOON, json!({}), ("CUSTOMER_NOT_FOUND", "input.id")),
        (&unknown, "PHONE", "+14155552671", NOON, over, ("CUSTOMER_NOT_FOUND", "input.id")),
        (&json!("x"), "EMAIL", "ada@example.com", NOON, json!({}), ("CUSTOMER_NOT_FOUND", "input.id")),
    ] {
        let answer = send(app, id, field, text, time, more).await;
        answer.assert_rejected("recordVerification", &[error]);
    }
    assert_eq!(app.count_rows("customer_event").await, 2);
});

both!(every_change_of_a_value_clears_its_verification, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let id = created(app, &a, "ada@example.com", json!("+14155552671")).await;
    created(app, &b, "ada@example.com", json!(null)).await;
    let platform = app.platform();
    let email_cleared = [json!(null), json!(NOON)];
    let phone_cleared = [json!(NOON), json!(null)];
    let kept = [json!(NOON), json!(NOON)];
    for (caller, change, expected) in [
        (&a, json!({ "firstName": "Ada" }), &kept),
        (&b, json!({ "email": "ADA@example.com", "phone": "4155552671" }), &kept),
        (&a, json!({ "email": "ada-2@example.com" }), &email_cleared),
        (&b, json!({ "email": "ada-3@example.com", "firstName": null }), &email_cleared),
        (&platform, json!({ "email": "ada-4@example.com" }), &email_cleared),
        (&b, json!({ "phone": "+14155552672" }), &phone_cleared),
        (&platform, json!({ "phone": null }), &phone_cleared),
    ] {
        let current = customer(app, &platform, &id).await;
        if current["phone"].is_null() {
            app.updated(&a, json!({ "id": id }), json!({ "phone": "+14155552679" })).await;
        }
        let current = customer(app, &platform, &id).await;
        verified(app, &id, "EMAIL", current["email"].as_str().unwrap(), NOON).await;
        verified(app, &id, "PHONE", current["phone"].as_str().unwrap(), NOON).await;
        app.update(caller, json!({ "id": id }), change.clone()).await.payload("updateCustomer");
        let changed = customer(app, &a, &id).await;
        let times = [changed["emailVerifiedAt"].clone(), changed["phoneVerifiedAt"].clone()];
        assert_eq!(times, *expected, "{change}");
    }
    // If a connection fills the empty phone, the phone is not verified.
    let c = app.operator("C").await;
    created(app, &c, "ada-4@example.com", json!("+14155552671")).await;
    let filled = customer(app, &c, &id).await;
    assert_eq!((&filled["phone"], &filled["phoneVerifiedAt"]), (&json!("+14155552671"), &json!(null)));
});

/// Each column with a time of verification needs a `VerifiableField`. Without it, a change of the value would not clear
/// the time.
#[test]
fn each_time_of_verification_has_its_field() {
    let columns = customer::Column::iter().filter(|column| column.as_str().ends_with("_verified_at"));
    let columns: Vec<_> = columns.map(|column| column.as_str().to_owned()).collect();
    let fields: Vec<_> =
        VerifiableField::iter().map(|field| format!("{}_verified_at", sea_orm::ActiveEnum::to_value(&field))).collect();
    assert_eq!(columns, fields);
}

both!(a_newer_proof_takes_a_phone_over, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let former = created(app, &a, "former@example.com", json!("+14155552671")).await;
    let new = created(app, &b, "new@example.com", json!("+14155552672")).await;
    verified(app, &former, "PHONE", "+14155552671", NOON).await;
    verified(app, &former, "EMAIL", "former@example.com", NOON).await;
    verified(app, &new, "PHONE", "+14155552672", EVENING).await;

    let older = take_over(app, &new, "+14155552671", MORNING).await;
    older.assert_rejected("recordVerification", &[("PHONE_TAKEN", "input.value")]);
    let taken = take_over(app, &new, "(415) 555-2671", NOON).await.payload("recordVerification")["customer"].clone();
    assert_eq!(
        (&taken["phone"], &taken["phoneVerifiedAt"], &taken["version"]),
        (&json!("+14155552671"), &json!(NOON), &json!(2))
    );
    let lost = customer(app, &a, &former).await;
    assert_eq!((&lost["phone"], &lost["phoneVerifiedAt"], &lost["version"]), (&json!(null), &json!(null), &json!(2)));
    assert_eq!(lost["emailVerifiedAt"], json!(NOON));
    let phone = |phone: Value| json!({ "email": null, "phone": phone });
    assert_eq!(
        history(app, &former).await.last().unwrap(),
        &json!({
            "type": "UPDATED", "version": 2, "verifiedField": null, "changedFields": ["PHONE"], "operator": null,
            "apiKey": null, "before": phone(json!("+14155552671")), "after": phone(json!(null)),
        })
    );
    assert_eq!(
        history(app, &new).await.last().unwrap(),
        &json!({
            "type": "VERIFIED", "version": 2, "verifiedField": "PHONE", "changedFields": ["PHONE"], "operator": null,
            "apiKey": null, "before": phone(json!("+14155552672")), "after": phone(json!("+14155552671")),
        })
    );
    // The number that the customer had before the takeover can be used again. The same takeover again changes nothing.
    created(app, &a, "third@example.com", json!("+14155552672")).await;
    let again = take_over(app, &new, "+14155552671", NOON).await.payload("recordVerification")["customer"].clone();
    assert_eq!(again, taken);
    // A customer without a proof for the number loses the number, even if the proof of the other customer is old.
    let taken = take_over(app, &former, "+14155552672", "2001-01-01T00:00:00Z").await.payload("recordVerification");
    assert_eq!(taken["customer"]["phone"], "+14155552672");
});

both!(operators_see_verifications_without_the_author, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = created(app, &operator, "ada@example.com", json!("+14155552671")).await;
    verified(app, &id, "PHONE", "+14155552671", NOON).await;
    let history = "query ($id: ID!) { customer(by: { id: $id }) { history { nodes { \
                   type own version verifiedField changedFields requestId before { phone } after { phone } } } } }";
    let answer = app.graphql(&operator, history, json!({ "id": id })).await;
    let expected = json!({
        "type": "VERIFIED", "own": false, "version": 1, "verifiedField": "PHONE", "changedFields": [],
        "requestId": null, "before": null, "after": null,
    });
    assert_eq!(answer.data()["customer"]["history"]["nodes"][1], expected);
});

both!(a_repeated_verification_is_replayed, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = created(app, &operator, "ada@example.com", json!("+14155552671")).await;
    let other = created(app, &operator, "grace@example.com", json!(null)).await;
    let key = json!({ "idempotencyKey": "k", "takeOver": true });
    for is_replayed in [false, true] {
        let answer = send(app, &other, "PHONE", "415-555-2671", NOON, key.clone()).await;
        let payload = answer.payload("recordVerification");
        assert_eq!((&payload["replayed"], &payload["customer"]["version"]), (&json!(is_replayed), &json!(2)));
    }
    // A request with the same key and another value in any field is a different request.
    for (id, field, value, time, take_over) in [
        (&id, "PHONE", "+14155552671", NOON, true),
        (&other, "EMAIL", "grace@example.com", NOON, false),
        (&other, "PHONE", "+14155552672", NOON, true),
        (&other, "PHONE", "+14155552671", EVENING, true),
        (&other, "PHONE", "+14155552671", NOON, false),
    ] {
        let answer = send(app, id, field, value, time, json!({ "idempotencyKey": "k", "takeOver": take_over })).await;
        answer.assert_rejected("recordVerification", &[("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")]);
    }
    // A rejected request does not use up its key.
    for time in [EVENING, NOON] {
        let data = if time == NOON { json!({ "phone": "+14155552671" }) } else { json!({ "phone": null }) };
        app.updated(&operator, json!({ "id": other }), data).await;
        let key = json!({ "idempotencyKey": "k-2" });
        let codes = send(app, &other, "PHONE", "+14155552671", NOON, key).await.codes();
        assert_eq!(codes.is_empty(), time == NOON);
    }
});

both!(only_the_platform_records_verifications, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = created(app, &operator, "ada@example.com", json!(null)).await;
    // The value is invalid, but the permission is checked first.
    let input = json!({ "id": id, "field": "EMAIL", "value": "x", "verifiedAt": NOON });
    let answer = app.graphql(&operator, VERIFY, json!({ "input": input })).await;
    answer.assert_rejected("recordVerification", &[("FORBIDDEN", "")]);
});

both!(customers_are_filtered_by_verification, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let phone = if number < 3 { json!(format!("+1415555267{number}")) } else { json!(null) };
        ids.push(created(app, &operator, &format!("{number}@example.com"), phone).await);
    }
    verified(app, &ids[0], "EMAIL", "0@example.com", NOON).await;
    verified(app, &ids[0], "PHONE", "+14155552670", NOON).await;
    verified(app, &ids[1], "PHONE", "+14155552671", NOON).await;
    let query = "query ($filter: CustomerFilter, $after: String) { \
                 customers(filter: $filter, first: 1, after: $after) { totalCount nodes { email } \
                 pageInfo { hasNextPage endCursor } } }";
    for (filter, expected) in [
        (json!({ "emailVerified": true }), vec![0]),
        (json!({ "emailVerified": false }), vec![1, 2, 3]),
        (json!({ "phoneVerified": true }), vec![0, 1]),
        (json!({ "phoneVerified": false }), vec![2, 3]),
        (json!({ "emailVerified": false, "phoneVerified": true }), vec![1]),
        (json!({ "phoneVerified": false, "missing": ["PHONE"] }), vec![3]),
        (json!({ "email": "1@example.com", "emailVerified": true }), vec![]),
        (json!({ "email": "1@example.com", "phoneVerified": true }), vec![1]),
    ] {
        for caller in [&operator, &app.platform()] {
            let read = async |after: Value| {
                let answer = app.graphql(caller, query, json!({ "filter": filter, "after": after })).await;
                answer.data()["customers"].clone()
            };
            let pages = FORWARDS.read_pages(read).await;
            assert!(pages.iter().all(|page| page["totalCount"] == expected.len()), "{filter}: {pages:?}");
            let nodes = pages.iter().flat_map(|page| page["nodes"].as_array().unwrap());
            let found: Vec<_> = nodes.map(|node| node["email"].clone()).collect();
            let expected: Vec<_> = expected.iter().map(|number| json!(format!("{number}@example.com"))).collect();
            assert_eq!(found, expected, "{filter}");
        }
    }
});
