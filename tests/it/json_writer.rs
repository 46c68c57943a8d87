//! Objects that `json_writer` writes as JSON text, compared with the same objects resolved by async-graphql: the texts
//! of the responses must be equal. The tests here compare selected queries. A test in `walk.rs` compares each field of
//! each list.

use std::sync::Arc;

use async_graphql::Request;
use entity::value::RequestId;
use serde_json::{Value, json};
use vivamo::graphql;
use vivamo::request::{OwnerMemory, ProcessMemory, ResponseSize};
use vivamo::service::{Caller, RequestInfo};

use support::{TestApp, TestCaller, both};

/// Sends a query to two servers, of which the second one has no `json_writer`. Returns the text of the responses, which
/// must be equal.
async fn text(servers: [&TestApp; 2], caller: &TestCaller, query: &str, variables: &Value) -> String {
    let [written, resolved] = servers.map(async |server| {
        let request = server.http.post(format!("{}/graphql", server.url)).bearer_auth(&caller.key);
        let response = request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap();
        response.text().await.unwrap()
    });
    let (written, resolved) = (written.await, resolved.await);
    assert_eq!(written, resolved, "{query}");
    written
}

both!(fragments_aliases_and_directives_are_written_as_json, Sandbox, async |app| {
    let resolving = app.replica_without_json_writer().await;
    let servers = [app, &resolving];
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for email in ["ada@example.com", "bob@example.com"] {
        app.created(&own, email, json!({ "email": email, "firstName": "\"\\é" })).await;
        app.created(&other, email, json!({ "email": email })).await;
    }
    let query = "query ($yes: Boolean!, $first: Int) { \
                 customers(first: $first) { edges { ...edge cursor cursor } nodes { kind: __typename ... on Node { id } } } \
                 } \
                 fragment edge on CustomerEdge { node { \
                 ...names email mail: email @include(if: $yes) phone @skip(if: $yes) address { line1 } \
                 operators(first: $first) { nodes { name } pageInfo { hasNextPage } } } } \
                 fragment names on Customer { firstName ... { lastName firstName } missingFields version }";
    let customer = [
        r#"{"firstName":"\"\\é","lastName":null,"missingFields":["LAST_NAME","PHONE","ADDRESS"],"version":1,"#,
        r#""email":"ada@example.com","mail":"ada@example.com","address":null,"#,
        r#""operators":{"nodes":[{"name":"Own"}],"pageInfo":{"hasNextPage":"#,
    ];
    let customer = customer.concat();
    for caller in [&own, &app.platform()] {
        let first = text(servers, caller, query, &json!({ "yes": true, "first": 1 })).await;
        assert!(first.contains(&customer), "{first}");
        assert!(first.contains(r#""nodes":[{"kind":"Customer","id":"cus_"#), "{first}");
    }
    let nobody = "{ customers(filter: { email: \"eve@example.com\" }) { nodes { id } edges { node { id } } } }";
    let nobody = text(servers, &own, nobody, &json!({})).await;
    assert!(nobody.ends_with(r#""customers":{"nodes":[],"edges":[]}}}"#), "{nobody}");
    let skipped = text(servers, &own, "{ customers(first: 1) { nodes { id @skip(if: true) } } }", &json!({})).await;
    assert!(skipped.ends_with(r#""customers":{"nodes":[{}]}}}"#), "{skipped}");
    resolving.stop().await;
});

both!(objects_that_are_selected_twice_are_merged, Sandbox, async |app| {
    let resolving = app.replica_without_json_writer().await;
    let servers = [app, &resolving];
    let own = app.operator("Own").await;
    app.created(&own, "A-1", json!({ "email": "ada@example.com" })).await;
    let query = "{ customers { nodes { email } } customers { nodes { version } ...more } } \
                 fragment more on CustomerConnection { nodes { phone operators { nodes { name } } operators { nodes { status } } } }";
    let merged = text(servers, &own, query, &json!({})).await;
    let operators = r#"{"nodes":[{"name":"Own","status":"ACTIVE"}]}"#;
    let customer = format!(r#"{{"email":"ada@example.com","version":1,"phone":null,"operators":{operators}}}"#);
    assert!(merged.ends_with(&format!(r#""customers":{{"nodes":[{customer}]}}}}}}"#)), "{merged}");
    let query = format!(
        "{{ node(id: \"{}\") {{ ... on Operator {{ customers {{ nodes {{ email }} }} customers {{ totalCount }} }} \
         ... on Operator {{ customers {{ pageInfo {{ hasNextPage }} }} }} }} }}",
        own.operator
    );
    let merged = text(servers, &own, &query, &json!({})).await;
    let customers = r#"{"nodes":[{"email":"ada@example.com"}],"totalCount":1,"pageInfo":{"hasNextPage":false}}"#;
    assert_eq!(merged, format!(r#"{{"data":{{"node":{{"customers":{customers}}}}}}}"#));
    resolving.stop().await;
});

both!(an_invalid_argument_inside_a_list_is_reported_for_each_item, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "A-1", json!({ "email": "ada@example.com" })).await;
    app.created(&own, "A-2", json!({ "email": "bob@example.com" })).await;
    let query = "{ customers { nodes { email operators(first: 0) { nodes { id } } } } }";
    let answer = app.graphql(&own, query, json!({})).await;
    assert_eq!(answer.codes(), ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
    assert_eq!(answer.body["errors"][1]["path"], json!(["customers", "nodes", 1, "operators"]));
    assert_eq!(answer.body["data"]["customers"]["nodes"][1], json!({ "email": "bob@example.com", "operators": null }));
});

both!(fragments_on_other_types_are_skipped, Sandbox, async |app| {
    let resolving = app.replica_without_json_writer().await;
    let servers = [app, &resolving];
    let own = app.operator("Own").await;
    app.created(&own, "A-1", json!({ "email": "ada@example.com" })).await;
    let query = "{ customers { nodes { ...label ... on Node { ... on Erasure { operators } ... on Customer { version } } } } } \
                 fragment label on Node { __typename ... on Operator { label: createdAt } ... on Webhook { url } }";
    let labelled = text(servers, &own, query, &json!({})).await;
    assert!(labelled.ends_with(r#""customers":{"nodes":[{"__typename":"Customer","version":1}]}}}"#), "{labelled}");
    let nothing = "{ customers { nodes { ... on Node { ... on Operator { name } } } } }";
    let nothing = text(servers, &own, nothing, &json!({})).await;
    assert!(nothing.ends_with(r#""customers":{"nodes":[{}]}}}"#), "{nothing}");
    resolving.stop().await;
});

both!(a_large_text_waits_for_memory, Sandbox, async |app| {
    let own = app.operator(&"n".repeat(100)).await;
    for number in 0..25 {
        app.created(&own, &format!("A-{number}"), json!({ "email": format!("ada-{number}@example.com") })).await;
    }
    let names: String = (0..30).map(|number| format!("name_{number}: name ")).collect();
    let query = |size: usize| {
        let id = &own.operator;
        format!(
            "{{ operator(id: \"{id}\") {{ customers(first: {size}) {{ nodes {{ operators {{ nodes {{ {names} }} }} }} }} }} }}"
        )
    };
    let schema = graphql::Schema::new(app.services.clone(), true);
    for (items, is_large) in [(5, false), (25, true)] {
        let checked = schema.check(Caller::Platform.owner(), Request::new(query(items))).expect("a valid query");
        let info = RequestInfo::from(RequestId::new());
        let size = Arc::new(ResponseSize::new(ProcessMemory::default(), OwnerMemory::default()));
        let response = schema.execute(checked, info, Caller::Platform, &size).await;
        assert!(response.errors.is_empty(), "{:?}", response.errors);
        assert_eq!(size.has_reservation(), is_large, "{items}");
    }
});
