//! Checks the number of SQL statements per operation. Statements are most of the cost of a request. The lookup of the
//! API key is cached and not counted.

use serde_json::{Value, json};

use support::proxy::Proxy;
use support::{TestApp, TestCaller, both, is_key_lookup};

/// Runs an operation and returns the number of statements that it sends. Counts `BEGIN` and `COMMIT`, but not the
/// lookup of the API key, which is repeated when its cache entry expires.
async fn count_statements(
    app: &TestApp,
    proxy: Option<&Proxy>,
    caller: &TestCaller,
    query: &str,
    variables: Value,
) -> usize {
    let sent = || proxy.map_or(0, Proxy::statement_count);
    let before = sent();
    let (answer, counted) = app.all_statements_of(app.graphql(caller, query, variables)).await;
    assert_eq!(answer.body.get("errors"), None);
    let key_lookups = counted.iter().filter(|sql| is_key_lookup(sql)).count();
    match proxy {
        Some(_) => sent() - before - key_lookups,
        // `all_statements_of` does not see `BEGIN` and `COMMIT`.
        None => counted.len() - key_lookups + if query.starts_with("mutation") { 2 } else { 0 },
    }
}

both!(each_operation_sends_few_statements, Sandbox, async |app| {
    let proxied = if app.is_postgres() { Some(Proxy::before(app.database_url()).await) } else { None };
    let replica = match &proxied {
        Some((_, url)) => Some(app.replica(url.to_string()).await),
        None => None,
    };
    let (server, proxy) = (replica.as_ref().unwrap_or(app), proxied.as_ref().map(|(proxy, _)| proxy));
    let own = app.operator("Own").await;
    let mut ids = Vec::new();
    for number in 0..60 {
        let created = app
            .created(
                &own,
                &format!("id-{number}"),
                json!({ "email": format!("{number}@example.com"), "phone": format!("+1415555{number:04}") }),
            )
            .await;
        ids.push(created["customer"]["id"].clone());
    }
    let by = "query ($by: CustomerRef!) { customer(by: $by) { id email phone firstName version createdAt } }";
    let page = "query ($id: ID, $after: String) { operator(id: $id) { customers(first: 50, after: $after) { \
                pageInfo { hasNextPage endCursor } \
                edges { node { email operators { edges { externalCustomerId node { id name } } } } } } } }";
    let create =
        "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome customer { id } } }";
    let update = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
    let new = |name: &str, key: Option<&str>| {
        let data = json!({
            "email": format!("{name}@example.com"), "firstName": "Ada", "lastName": "Lovelace",
            "phone": if key.is_none() { "+14155559998" } else { "+14155559999" },
            "address": { "line1": "1 Main St", "city": "Springfield", "country": "US" },
        });
        json!({ "input": { "externalCustomerId": name, "idempotencyKey": key, "data": data } })
    };
    let change = |name: &str, key: Option<&str>| {
        let (customer, data) = (json!({ "id": ids[0] }), json!({ "firstName": name }));
        json!({ "input": { "customer": customer, "idempotencyKey": key, "data": data } })
    };
    let disconnect = "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { customerId } }";
    let end = |id: &str, key: Option<&str>| {
        let customer = json!({ "externalCustomerId": id });
        json!({ "input": { "customer": customer, "reason": "ENDED", "idempotencyKey": key } })
    };
    let create_webhook = "mutation ($input: CreateWebhookInput!) { createWebhook(input: $input) { webhook { id } } }";
    let update_webhook = "mutation ($input: UpdateWebhookInput!) { updateWebhook(input: $input) { webhook { id } } }";
    let rotate = "mutation ($input: RotateWebhookSecretInput!) { rotateWebhookSecret(input: $input) { secret } }";
    let delete = "mutation ($input: DeleteWebhookInput!) { deleteWebhook(input: $input) { webhookId } }";
    let webhook = crate::webhooks::created(app, &own).await["webhook"]["id"].clone();
    let of_webhook = json!({ "input": { "id": webhook } });
    for (operation, caller, query, variables, max) in [
        ("a customer by id", &own, by, json!({ "by": { "id": ids[0] } }), 1),
        ("by external id", &own, by, json!({ "by": { "externalCustomerId": "id-1" } }), 1),
        ("a page", &own, page, json!({}), 3),
        ("a page for the platform", &app.platform(), page, json!({ "id": own.operator }), 3),
        ("create", &own, create, new("new", None), 9),
        ("create with a key", &own, create, new("newer", Some("one")), 10),
        ("update", &own, update, change("Ada", None), 7),
        ("update with a key", &own, update, change("Grace", Some("two")), 8),
        ("disconnect", &own, disconnect, end("id-1", None), 8),
        ("disconnect with a key", &own, disconnect, end("id-2", Some("three")), 9),
        ("endpoints", &own, "{ webhooks { nodes { id url } } }", json!({}), 1),
        ("create an endpoint", &own, create_webhook, json!({ "input": { "url": "https://receiver.example/" } }), 7),
        ("update an endpoint", &own, update_webhook, json!({ "input": { "id": webhook, "enabled": false } }), 5),
        ("rotate a secret", &own, rotate, of_webhook.clone(), 5),
        ("delete an endpoint", &own, delete, of_webhook, 5),
    ] {
        let sent = count_statements(server, proxy, caller, query, variables).await;
        assert!(sent > 0 && sent <= max, "{operation}: {sent}");
    }
    if let Some(replica) = replica {
        replica.stop().await;
    }
});

both!(customers_of_one_request_are_looked_up_in_one_statement, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for number in 0..3 {
        app.created(&own, &format!("id-{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
    let query = r#"{
        a: customer(by: {externalCustomerId: "id-0"}) { email }
        b: customer(by: {externalCustomerId: "id-1"}) { email }
        c: customer(by: {externalCustomerId: "id-2"}) { email }
        d: customer(by: {externalCustomerId: "none"}) { email }
        e: customer(by: {externalCustomerId: "id-0"}) { email }
    }"#;
    let (data, sent) = app.statements_of(app.query(&own, query)).await;
    let email = |number: u8| json!({ "email": format!("{number}@example.com") });
    assert_eq!(data, json!({ "a": email(0), "b": email(1), "c": email(2), "d": null, "e": email(0) }));
    assert_eq!(sent.len(), if app.is_postgres() { 1 } else { 5 });
});
