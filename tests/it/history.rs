//! `Customer.history`: the events of a customer, and the events that an operator may read.

use serde_json::{Value, json};

use support::{Caller, TestApp, both};

const EVENT: &str = "{ id type occurredAt version requestId changedFields operator { name } \
    apiKey { name prefix access } \
    before { email phone firstName lastName address { line1 city } } \
    after { email phone firstName lastName address { line1 city } } }";

async fn history(app: &TestApp, caller: &Caller, email: &str) -> Vec<Value> {
    let query = format!(
        "query ($email: String!) {{ customer(by: {{ email: $email }}) {{ \
         history(first: 100) {{ edges {{ node {EVENT} }} }} }} }}"
    );
    let answer = app.graphql(caller, &query, json!({ "email": email })).await;
    let edges = answer.data()["customer"]["history"]["edges"].as_array().cloned().unwrap();
    edges.into_iter().map(|edge| edge["node"].clone()).collect()
}

both!(each_change_adds_an_event_with_the_values_before_and_after, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    let created = app.create(&first, "1", json!({ "email": "ada@example.com", "firstName": "Ada" })).await;
    app.created(&second, "2", json!({ "email": "ada@example.com", "firstName": "Augusta", "lastName": "King" })).await;
    let address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    let change = json!({ "firstName": null, "phone": "+14155552671", "address": address, "lastName": "King" });
    app.updated(&first, json!({ "externalCustomerId": "1" }), change).await;
    // Requests that change nothing or fail add no event.
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "lastName": " King " })).await;
    app.update(&first, json!({ "externalCustomerId": "1" }), json!({ "lastName": "" })).await;
    app.create(&first, "3", json!({ "email": "ada@example.com" })).await;

    let mut events = history(app, &app.platform(), "ada@example.com").await;
    assert!(events.is_sorted_by_key(|event| event["occurredAt"].as_str().unwrap().to_owned()));
    assert_eq!(events[0]["requestId"], created.headers["x-request-id"].to_str().unwrap());
    assert!(first.key.starts_with(events[0]["apiKey"]["prefix"].as_str().unwrap()));
    for event in &mut events {
        assert!(event["id"].as_str().unwrap().starts_with("evt_"));
        assert_eq!(event["apiKey"]["access"], "READ_WRITE");
        for varies in ["id", "occurredAt", "requestId", "apiKey"] {
            event.as_object_mut().unwrap().remove(varies);
        }
    }
    let values = |changed: Value| {
        let mut values = json!({ "email": null, "phone": null, "firstName": null, "lastName": null, "address": null });
        values.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        values
    };
    assert_eq!(
        events,
        [
            json!({
                "type": "CREATED", "version": 1, "operator": { "name": "First" },
                "changedFields": ["EMAIL", "FIRST_NAME"], "before": null,
                "after": values(json!({ "email": "ada@example.com", "firstName": "Ada" })),
            }),
            json!({
                "type": "CONNECTED", "version": 2, "operator": { "name": "Second" }, "changedFields": ["LAST_NAME"],
                "before": values(json!({})), "after": values(json!({ "lastName": "King" })),
            }),
            json!({
                "type": "UPDATED", "version": 3, "operator": { "name": "First" },
                "changedFields": ["FIRST_NAME", "PHONE", "ADDRESS"], "before": values(json!({ "firstName": "Ada" })),
                "after": values(json!({
                    "phone": "+14155552671", "address": { "line1": "1 Main St", "city": "Springfield" },
                })),
            }),
        ]
    );
});

both!(an_operator_reads_only_events_that_it_caused, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    app.created(&first, "1", json!({ "email": "ada@example.com", "firstName": "Secret" })).await;
    app.created(&second, "2", json!({ "email": "ada@example.com" })).await;
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
    let types = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    };
    let of_first = history(app, &first, "ada@example.com").await;
    let of_second = history(app, &second, "ada@example.com").await;
    assert_eq!(types(&of_first), ["CREATED", "UPDATED"]);
    assert_eq!(types(&of_second), ["CONNECTED"]);
    assert_eq!(of_second[0]["changedFields"], json!([]));
    assert_eq!(types(&history(app, &app.platform(), "ada@example.com").await), ["CREATED", "CONNECTED", "UPDATED"]);
    assert!(!json!(of_second).to_string().contains("Secret"));
    // `node(id:)` hides the same events.
    let node = "query ($id: ID!) { node(id: $id) { id ... on CustomerEvent { type } } }";
    let id = json!({ "id": of_first[0]["id"] });
    let (hidden, sql_of_hidden) = app.statements_of(app.graphql(&second, node, id.clone())).await;
    let unknown = json!({ "id": "evt_01h455vb4pex5vsknk084sn02q" });
    let (unknown, sql_of_unknown) = app.statements_of(app.graphql(&second, node, unknown)).await;
    assert_eq!((hidden.body, sql_of_hidden), (unknown.body, sql_of_unknown));
    assert_eq!(app.graphql(&first, node, id).await.body["data"]["node"]["type"], "CREATED");
});

both!(history_has_pages_and_is_loaded_in_a_constant_number_of_statements, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..10 {
        let id = format!("user-{number}");
        app.created(&operator, &id, json!({ "email": format!("{number}@example.com") })).await;
        for name in ["One", "Two", "Three"] {
            app.updated(&operator, json!({ "externalCustomerId": id }), json!({ "firstName": name })).await;
        }
    }
    let query = "query ($first: Int, $after: String) { customer(by: { externalCustomerId: \"user-0\" }) { \
                 history(first: $first, after: $after) { \
                 edges { node { version } } pageInfo { hasNextPage endCursor } } } }";
    let (mut versions, mut after) = (Vec::new(), json!(null));
    loop {
        let answer = app.graphql(&operator, query, json!({ "first": 3, "after": after })).await;
        let page = &answer.body["data"]["customer"]["history"];
        versions.extend(page["edges"].as_array().unwrap().iter().map(|edge| edge["node"]["version"].as_i64().unwrap()));
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(versions, [1, 2, 3, 4]);
    let nested = "query ($first: Int) { customers(first: $first) { edges { node { history { \
                  edges { node { version operator { name } apiKey { name } } } } } } } }";
    let mut counts = std::collections::BTreeSet::new();
    // Caches the operator.
    app.query(&operator, "{ operator { name } }").await;
    for first in [1, 10] {
        let (_, statements) = app.statements_of(app.graphql(&operator, nested, json!({ "first": first }))).await;
        counts.insert(statements.len());
    }
    assert_eq!(counts.len(), 1, "{counts:?}");
});
