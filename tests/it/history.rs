//! `Customer.history`: the events of a customer, and the events that an operator may read.

use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{ApiKeyId, RequestId};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::{Value, json};
use vivamo::database::pages::{self, PageRequest};
use vivamo::error::ErrorCode;
use vivamo::service::Caller;
use vivamo::service::customers::HistoryList;

use support::pages::{BACKWARDS, Direction, FORWARDS};
use support::{Backend, TestApp, TestCaller, both, run};

const EVENT: &str = "{ id type occurredAt version own requestId changedFields operator { name } \
    apiKey { name prefix access } \
    before { email phone firstName lastName address { line1 city } } \
    after { email phone firstName lastName address { line1 city } } }";

async fn history(app: &TestApp, caller: &TestCaller, email: &str) -> Vec<Value> {
    let query = format!(
        "query ($email: String!) {{ customer(by: {{ email: $email }}) {{ \
         history(first: 100) {{ edges {{ node {EVENT} }} }} }} }}"
    );
    let answer = app.graphql(caller, &query, json!({ "email": email })).await;
    let edges = answer.data()["customer"]["history"]["edges"].as_array().cloned().unwrap();
    edges.into_iter().map(|edge| edge["node"].clone()).collect()
}

both!(all_rows_of_a_change_have_the_same_time, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { \
        createdAt updatedAt operators { edges { connectedAt } } history { nodes { occurredAt } } } } }";
    let send = async |caller, id: &str| {
        let input = json!({ "externalCustomerId": id, "data": { "email": "ada@example.com", "firstName": "Ada" } });
        app.graphql(caller, create, json!({ "input": input })).await.data()["createCustomer"]["customer"].clone()
    };
    let created = send(&first, "1").await;
    let time = &created["createdAt"];
    assert!(time.is_string());
    let expected = json!({
        "createdAt": time, "updatedAt": time, "operators": { "edges": [{ "connectedAt": time }] },
        "history": { "nodes": [{ "occurredAt": time }] },
    });
    assert_eq!(created, expected);
    let connected = send(&second, "2").await;
    assert_eq!(connected["operators"]["edges"][0]["connectedAt"], connected["history"]["nodes"][0]["occurredAt"]);
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Augusta" })).await;
    let customer =
        "{ customer(by: { externalCustomerId: \"1\" }) { updatedAt history(last: 1) { nodes { occurredAt } } } }";
    let updated = app.graphql(&first, customer, json!({})).await.data()["customer"].clone();
    assert_ne!(updated["updatedAt"], *time);
    assert_eq!(updated["updatedAt"], updated["history"]["nodes"][0]["occurredAt"]);
});

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
        for varies in ["id", "occurredAt", "own", "requestId", "apiKey"] {
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

both!(an_entry_with_malformed_values_is_an_error_and_not_an_entry_without_values, Sandbox, async |app| {
    let own = app.operator("Acme").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    app.execute("UPDATE customer_event SET after = '{\"email\": [\"grace@example.com\"]}'").await;
    let query = "{ customer(by: { externalCustomerId: \"1\" }) { history { nodes { type after { email } } } } }";
    let answer = app.graphql(&own, query, json!({})).await;
    assert_eq!(answer.codes(), ["INTERNAL"]);
    assert_eq!(answer.body["errors"][0]["path"], json!(["customer", "history", "nodes", 0, "after"]));
    assert_eq!(answer.body["data"]["customer"]["history"]["nodes"], json!([{ "type": "CREATED", "after": null }]));
    assert!(app.log().contains("the values of a history entry are malformed"));
    assert!(!app.log().contains("grace@"));
});

both!(an_operator_sees_each_change_and_neither_its_author_nor_its_values, Sandbox, async |app| {
    let operators = [app.operator("Alpha").await, app.operator("Beta").await, app.operator("Gamma").await];
    let [first, second, third] = &operators;
    let data = json!({ "email": "ada@example.com", "firstName": "Secret" });
    let id = app.created(first, "1", data.clone()).await["customer"]["id"].clone();
    let by = json!({ "externalCustomerId": "1" });
    app.updated(first, by.clone(), json!({ "firstName": "Hidden" })).await;
    app.created(second, "1", json!({ "email": "ada@example.com" })).await;
    app.updated(first, by.clone(), json!({ "phone": "+14155552671", "firstName": "Ada" })).await;
    app.updated(second, by.clone(), json!({ "phone": null })).await;
    // Changes by other callers: a connection that fills a field, a connection that fills no field, a disconnect, a new
    // external id, and an update by the platform.
    app.created(third, "1", json!({ "email": "ada@example.com", "lastName": "Lovelace" })).await;
    let disconnect = "mutation { disconnectCustomer(input: { customer: { externalCustomerId: \"1\" }, reason: ENDED }) \
                      { replayed } }";
    app.graphql(third, disconnect, json!({})).await.data();
    app.created(third, "2", json!({ "email": "ada@example.com" })).await;
    let rename = "mutation { updateCustomer(input: { customer: { externalCustomerId: \"2\" }, \
                  externalCustomerId: \"3\" }) { replayed } }";
    app.graphql(third, rename, json!({})).await.data();
    app.updated(&app.platform(), json!({ "id": id }), json!({ "lastName": "King" })).await;

    let summary = |events: &[Value]| -> Vec<(String, i64, Value, bool)> {
        let of = |event: &Value| {
            let r#type = event["type"].as_str().unwrap().to_owned();
            (r#type, event["version"].as_i64().unwrap(), event["changedFields"].clone(), event["own"] == true)
        };
        events.iter().map(of).collect()
    };
    let entry =
        |r#type: &str, version: i64, fields: &[&str], own: bool| (r#type.to_owned(), version, json!(fields), own);
    let of_second = history(app, second, "ada@example.com").await;
    assert_eq!(
        summary(&of_second),
        [
            entry("CONNECTED", 2, &[], true),
            entry("UPDATED", 3, &["FIRST_NAME", "PHONE"], false),
            entry("UPDATED", 4, &["PHONE"], true),
            entry("UPDATED", 5, &["LAST_NAME"], false),
            entry("UPDATED", 6, &["LAST_NAME"], false),
        ]
    );
    for event in &of_second {
        for detail in ["operator", "apiKey", "requestId", "before", "after"] {
            assert_eq!(event[detail].is_null(), event["own"] == false, "{event}");
        }
    }
    let text = json!(of_second).to_string();
    assert!(!["Secret", "Hidden", "Lovelace", "Alpha", "Gamma"].iter().any(|value| text.contains(value)), "{text}");
    assert_eq!(
        summary(&history(app, third, "ada@example.com").await),
        [
            entry("CONNECTED", 5, &[], true),
            entry("EXTERNAL_CUSTOMER_ID_CHANGED", 5, &[], true),
            entry("UPDATED", 6, &["LAST_NAME"], false),
        ]
    );
    let of_first = history(app, first, "ada@example.com").await;
    assert_eq!(
        summary(&of_first),
        [
            entry("CREATED", 1, &["EMAIL", "FIRST_NAME"], true),
            entry("UPDATED", 2, &["FIRST_NAME"], true),
            entry("UPDATED", 3, &["FIRST_NAME", "PHONE"], true),
            entry("UPDATED", 4, &["PHONE"], false),
            entry("UPDATED", 5, &["LAST_NAME"], false),
            entry("UPDATED", 6, &["LAST_NAME"], false),
        ]
    );
    let of_platform = history(app, &app.platform(), "ada@example.com").await;
    assert_eq!(of_platform.len(), 10);
    let own: Vec<_> = of_platform.iter().map(|event| event["own"] == true).collect();
    assert_eq!((own.iter().filter(|own| **own).count(), own.last()), (1, Some(&true)));

    // `node(id:)` returns exactly the entries that the history shows.
    let node = format!("query ($id: ID!) {{ node(id: $id) {{ ... on CustomerEvent {EVENT} }} }}");
    for caller in [first, second, third, &app.platform()] {
        let visible = history(app, caller, "ada@example.com").await;
        let (unknown, sql_of_unknown) =
            app.statements_of(app.graphql(caller, &node, json!({ "id": "evt_01h455vb4pex5vsknk084sn02q" }))).await;
        for event in &of_platform {
            let found = app.statements_of(app.graphql(caller, &node, json!({ "id": event["id"] })));
            let (found, sql_of_found) = found.await;
            match visible.iter().find(|visible| visible["id"] == event["id"]) {
                Some(visible) => assert_eq!(found.data()["node"], *visible),
                None => assert_eq!((found.body, sql_of_found), (unknown.body.clone(), sql_of_unknown.clone())),
            }
        }
    }
});

/// Gives the entry for which the SQL condition holds the id that it would have if the clock of its server had been far
/// ahead.
async fn move_clock_ahead(app: &TestApp, condition: &str) {
    let hex = "f".repeat(32);
    let id = if app.is_postgres() { format!("'{hex}'") } else { format!("x'{hex}'") };
    for table in ["customer_change", "customer_event"] {
        let change =
            format!("UPDATE {table} SET id = {id} WHERE id IN (SELECT id FROM customer_event WHERE {condition})");
        app.execute(&change).await;
    }
}

both!(a_history_begins_with_the_last_connection_if_a_clock_was_ahead, Sandbox, async |app| {
    let (first, second) = (app.operator("Alpha").await, app.operator("Beta").await);
    app.created(&first, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&second, "1", json!({ "email": "ada@example.com" })).await;
    let disconnect = "mutation { disconnectCustomer(input: { customer: { externalCustomerId: \"1\" }, reason: ENDED }) \
                      { replayed } }";
    app.graphql(&second, disconnect, json!({})).await.data();
    move_clock_ahead(app, "type = 'connected'").await;
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
    app.created(&second, "2", json!({ "email": "ada@example.com" })).await;
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Grace" })).await;
    let seen = history(app, &second, "ada@example.com").await;
    let versions: Vec<_> = seen.iter().map(|event| (event["type"].clone(), event["version"].clone())).collect();
    assert_eq!(versions, [(json!("CONNECTED"), json!(2)), (json!("UPDATED"), json!(3))]);
});

both!(a_history_is_in_the_order_of_the_versions_if_a_clock_was_ahead, Sandbox, async |app| {
    let operator = app.operator("Alpha").await;
    let customer = app.created(&operator, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    for name in ["Ada", "Augusta", "Grace"] {
        app.updated(&operator, json!({ "externalCustomerId": "1" }), json!({ "firstName": name })).await;
    }
    move_clock_ahead(app, "version = 2").await;
    let versions = |page: &Value| -> Vec<i64> {
        page["nodes"].as_array().unwrap().iter().map(|node| node["version"].as_i64().unwrap()).collect()
    };
    let list = "{ nodes { version } pageInfo { startCursor endCursor } }";
    let platform = app.platform();
    for (arguments, cursor, expected) in [
        ("first: $size, after: $cursor", "endCursor", vec![vec![1], vec![2], vec![3], vec![4], vec![]]),
        ("last: $size, before: $cursor", "startCursor", vec![vec![4], vec![3], vec![2], vec![1], vec![]]),
    ] {
        let of_customer = format!(
            "query ($customer: ID!, $size: Int, $cursor: String) {{ page: customer(by: {{ id: $customer }}) {{ \
             events: history({arguments}) {list} }} }}"
        );
        let of_platform = format!(
            "query ($customer: ID!, $size: Int, $cursor: String) {{ events: customerEvents(customerId: $customer, \
             {arguments}) {list} }}"
        );
        let read = async |caller: &TestCaller, query: &str| {
            let (mut pages, mut next) = (Vec::new(), json!(null));
            while pages.last().is_none_or(|page: &Vec<i64>| !page.is_empty()) {
                let variables = json!({ "customer": customer, "size": 1, "cursor": next });
                let answer = app.graphql(caller, query, variables).await;
                let data = answer.data();
                let events = data["page"].get("events").unwrap_or(&data["events"]);
                pages.push(versions(events));
                next = events["pageInfo"][cursor].clone();
            }
            pages
        };
        assert_eq!(read(&operator, &of_customer).await, expected);
        assert_eq!(read(&platform, &of_customer).await, expected);
        assert_eq!(read(&platform, &of_platform).await, expected);
    }
});

both!(a_history_takes_the_same_statements_with_and_without_other_operators, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for name in ["alone", "shared"] {
        app.created(&own, name, json!({ "email": format!("{name}@example.com") })).await;
    }
    app.created(&other, "1", json!({ "email": "shared@example.com", "firstName": "Ada" })).await;
    app.updated(&other, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Grace" })).await;
    let query = format!(
        "query ($id: String!) {{ customer(by: {{ externalCustomerId: $id }}) {{ history {{ nodes {EVENT} }} }} }}"
    );
    let read = async |name: &str| {
        let (answer, statements) = app.statements_of(app.graphql(&own, &query, json!({ "id": name }))).await;
        let entries = answer.data()["customer"]["history"]["nodes"].as_array().unwrap().clone();
        let types: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
        (types.join(" "), statements)
    };
    let ((alone, statements), (shared, statements_of_shared)) = (read("alone").await, read("shared").await);
    assert_eq!([alone, shared], ["CREATED", "CREATED UPDATED UPDATED"]);
    assert!(!statements.is_empty());
    assert_eq!(statements, statements_of_shared);
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
    let read = async |after: Value| {
        let answer = app.graphql(&operator, query, json!({ "first": 3, "after": after })).await;
        answer.data()["customer"]["history"].clone()
    };
    let versions = |page: &Value| {
        let edges = page["edges"].as_array().unwrap().iter();
        edges.map(|edge| edge["node"]["version"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let pages = FORWARDS.read_pages(read).await;
    assert_eq!(pages.iter().map(versions).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4]]);
    let nested = "query ($first: Int) { customers(first: $first) { edges { node { history { \
                  edges { node { version operator { name } apiKey { name } } } } } } } }";
    let mut counts = std::collections::BTreeSet::new();
    for first in [1, 10] {
        let (answer, statements) = app.statements_of(app.graphql(&operator, nested, json!({ "first": first }))).await;
        let customers = answer.data()["customers"]["edges"].as_array().unwrap();
        let entries = customers.iter().map(|edge| edge["node"]["history"]["edges"].as_array().unwrap());
        assert_eq!(entries.map(Vec::len).collect::<Vec<_>>(), vec![4; first]);
        counts.insert(statements.len());
    }
    assert!(counts.len() == 1 && !counts.contains(&0), "{counts:?}");
});

/// Changes the external id of an operator's only customer.
async fn change_external_id(app: &TestApp, caller: &TestCaller, from: &str, to: &str) {
    let mutation = "mutation ($from: String!, $to: String!) { updateCustomer(input: { \
                    customer: { externalCustomerId: $from }, externalCustomerId: $to }) { customer { id } } }";
    app.graphql(caller, mutation, json!({ "from": from, "to": to })).await.data();
}

both!(pages_of_an_operators_history_leave_out_hidden_entries, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&own, "own-0", json!({ "email": "ada@example.com" })).await;
    app.created(&other, "other-0", json!({ "email": "ada@example.com", "lastName": "King" })).await;
    for number in 1..4 {
        let [from, to] = [number - 1, number];
        change_external_id(app, &other, &format!("other-{from}"), &format!("other-{to}")).await;
        change_external_id(app, &own, &format!("own-{from}"), &format!("own-{to}")).await;
        for (caller, name) in [(&own, "Ada"), (&other, "Grace")] {
            let data = json!({ "firstName": format!("{name} {number}") });
            let id = if caller.key == own.key { "own" } else { "other" };
            app.updated(caller, json!({ "externalCustomerId": format!("{id}-{to}") }), data).await;
        }
    }
    let entries = history(app, &own, "ada@example.com").await;
    let types: Vec<_> = entries.iter().map(|entry| (entry["type"].as_str().unwrap(), entry["own"] == true)).collect();
    let change = [("EXTERNAL_CUSTOMER_ID_CHANGED", true), ("UPDATED", true), ("UPDATED", false)];
    assert_eq!(types, [&[("CREATED", true), ("UPDATED", false)][..], &change, &change, &change].concat());
    let all: Vec<_> = entries.iter().map(|entry| entry["id"].clone()).collect();
    for direction in [FORWARDS, BACKWARDS] {
        let Direction { size, bound, cursor, has_more, .. } = direction;
        let query = format!(
            "query ($size: Int, $cursor: String) {{ customer(by: {{ email: \"ada@example.com\" }}) {{ \
             history({size}: $size, {bound}: $cursor) {{ nodes {{ id }} pageInfo {{ {cursor} {has_more} }} }} }} }}"
        );
        for page_size in [1, 2, 5] {
            let read = async |cursor: Value| {
                let answer = app.graphql(&own, &query, json!({ "size": page_size, "cursor": cursor })).await;
                answer.data()["customer"]["history"].clone()
            };
            let ids = |page: &Value| {
                page["nodes"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>()
            };
            let pages: Vec<_> = direction.read_pages(read).await.iter().map(ids).collect();
            // A page that is not full would reveal that other operators have changed something. The page that was read
            // last is the last page of the list, or the first one if the list was read backwards.
            let full = if direction == FORWARDS { &pages[..pages.len() - 1] } else { &pages[1..] };
            assert!(full.iter().all(|page| page.len() == page_size), "{pages:?}");
            assert_eq!(pages.concat(), all, "{size}: {page_size}");
        }
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_history_is_read_from_its_indexes_on_sqlite() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
        let (_, statements) = app.statements_of(history(app, &operator, "ada@example.com")).await;
        let history = statements.iter().find(|sql| sql.contains("connecting")).unwrap();
        let reader = app.database.reader();
        let explain = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {history}"));
        let steps = reader.query_all_raw(explain).await.unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.try_get("", "detail").unwrap()).collect();
        for index in
            ["customer_event_shown_idx (customer_id=?", "customer_event_hidden_idx (customer_id=? AND operator_id=?"]
        {
            let condition = format!("SEARCH customer_event USING INDEX {index} AND version>?)");
            assert!(steps.contains(&condition), "{condition}: {steps:#?}");
        }
        assert!(!steps.iter().any(|step| step.contains("ORDER BY")), "{steps:#?}");
    })
    .await;
}

/// The query of the platform for the entries that an argument selects, for example `requestId: "req_…"`.
const EVENTS_BY: &str = "query ($customer: ID, $request: String, $key: ID, $first: Int, $after: String) { \
    customerEvents(customerId: $customer, requestId: $request, apiKeyId: $key, first: $first, after: $after) { \
    nodes { type customerId } pageInfo { endCursor } } }";

both!(the_platform_finds_the_entries_of_a_request_and_of_a_key, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let (leaked, platform) = (app.key(&own, Access::ReadWrite).await, app.platform());
    let find = async |variables: Value| {
        let answer = app.graphql(&platform, EVENTS_BY, variables).await;
        let nodes = answer.data()["customerEvents"]["nodes"].as_array().cloned().unwrap();
        let entry = |node: Value| (node["type"].as_str().unwrap().to_owned(), node["customerId"].clone());
        nodes.into_iter().map(entry).collect::<Vec<_>>()
    };
    let entry = |r#type: &str, customer: &Value| (r#type.to_owned(), customer.clone());

    // A request with two mutations, and changes with other keys.
    let mutation = |alias: &str| {
        format!(
            "{alias}: createCustomer(input: {{ externalCustomerId: \"{alias}\", data: {{ email: \"{alias}@example.com\" \
             }} }}) {{ customer {{ id }} }}"
        )
    };
    let query = format!("mutation {{ {} {} }}", mutation("a"), mutation("b"));
    let answer = app.graphql(&leaked, &query, json!({})).await;
    let [a, b] = ["a", "b"].map(|alias| answer.data()[alias]["customer"]["id"].clone());
    let request = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    app.created(&other, "1", json!({ "email": "a@example.com", "firstName": "Ada" })).await;
    app.updated(&own, json!({ "id": a }), json!({ "firstName": "Augusta" })).await;
    app.updated(&leaked, json!({ "id": a }), json!({ "firstName": "Eve", "phone": "+14155552671" })).await;
    assert_eq!(find(json!({ "request": request })).await, [entry("CREATED", &a), entry("CREATED", &b)]);

    let keys = "query ($id: ID!) { operator(id: $id) { apiKeys { id prefix } } }";
    let keys = app.graphql(&platform, keys, json!({ "id": own.operator })).await.data()["operator"]["apiKeys"].clone();
    let is_leaked = |key: &&Value| leaked.key.starts_with(key["prefix"].as_str().unwrap());
    let key = keys.as_array().unwrap().iter().find(is_leaked).unwrap()["id"].clone();
    let of_key = [entry("CREATED", &a), entry("CREATED", &b), entry("UPDATED", &a)];
    assert_eq!(find(json!({ "key": key })).await, of_key);
    let first = app.graphql(&platform, EVENTS_BY, json!({ "key": key, "first": 2 })).await;
    let after = first.data()["customerEvents"]["pageInfo"]["endCursor"].clone();
    assert_eq!(find(json!({ "key": key, "first": 2, "after": after })).await, of_key[2..]);
    for other_list in [json!({ "request": request }), json!({ "customer": a })] {
        let mut variables = other_list;
        variables["after"] = after.clone();
        let answer = app.graphql(&platform, EVENTS_BY, variables).await;
        answer.assert_rejected("customerEvents", &[("INVALID_ARGUMENT", "after")]);
    }

    // One request of the platform changes two customers: customer `b` takes over the phone number of customer `a`.
    let verify = "mutation ($id: ID!) { recordVerification(input: { id: $id, field: PHONE, value: \"+14155552671\", \
                  verifiedAt: \"2026-11-20T12:00:00Z\", takeOver: true }) { replayed } }";
    let answer = app.graphql(&platform, verify, json!({ "id": b })).await;
    answer.payload("recordVerification");
    let request = answer.headers["x-request-id"].to_str().unwrap();
    let mut found = find(json!({ "request": request })).await;
    found.sort_by_key(|(r#type, _)| r#type.clone());
    assert_eq!(found, [entry("UPDATED", &a), entry("VERIFIED", &b)]);

    // Entries of erased customers are found too.
    let erase = "mutation ($id: ID!) { eraseCustomer(input: { id: $id, reference: \"Case 7\" }) { replayed } }";
    app.graphql(&platform, erase, json!({ "id": a })).await.payload("eraseCustomer");
    assert_eq!(find(json!({ "key": key })).await, of_key);

    for unknown in ["", "x", "req_01h455vb4pex5vsknk084sn02q", "key_01h455vb4pex5vsknk084sn02q"] {
        for argument in ["customer", "request", "key"] {
            assert_eq!(find(json!({ argument: unknown })).await, []);
        }
    }
    for arguments in [json!({}), json!({ "customer": a, "request": request }), json!({ "request": "x", "key": "x" })] {
        let answer = app.graphql(&platform, EVENTS_BY, arguments.clone()).await;
        answer.assert_rejected("customerEvents", &[("INVALID_ARGUMENT", "")]);
        assert_eq!(answer.message(), "Set exactly one of `customerId`, `requestId` and `apiKeyId`.");
        app.graphql(&own, EVENTS_BY, arguments).await.assert_rejected("customerEvents", &[("FORBIDDEN", "")]);
    }
    for arguments in [json!({ "request": request }), json!({ "key": key })] {
        app.graphql(&own, EVENTS_BY, arguments).await.assert_rejected("customerEvents", &[("FORBIDDEN", "")]);
    }
});

both!(the_entries_of_a_request_and_of_an_api_key_are_only_for_the_platform, Sandbox, async |app| {
    let own = app.operator("Acme").await;
    let operator = app.services.authenticator.authenticate(&own.key, None).await.unwrap();
    let page = PageRequest { direction: pages::Direction::Forward, size: 1, after: None, before: None };
    for list in [HistoryList::OfRequest(RequestId::new()), HistoryList::OfApiKey(ApiKeyId::new())] {
        let requests = [(list, page.clone())];
        let customers = &app.services.customers;
        assert!(
            customers.history_pages(&operator, &requests).await.is_err_and(|error| error.has(ErrorCode::Forbidden))
        );
        assert!(customers.history_pages(&Caller::Platform, &requests).await.is_ok());
    }
});
