//! The administration of operators and keys: suspension, budgets, the audit log, and the `Vivamo-Actor` header.

use entity::api_key::Access;
use entity::value::{CustomerId, DisplayName, OperatorId};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use vivamo::config::RateLimitSettings;
use vivamo::error::ErrorCode;
use vivamo::service::{Caller, RequestInfo};

use support::{Answer, TestApp, TestCaller, both, seen_within_a_second};

const ROLE: &str = "{ viewer { role } }";
const UPDATE: &str = "mutation ($input: UpdateOperatorInput!) { updateOperator(input: $input) { \
                      operator { id name status disclosuresPerHour } } }";
const REVOKE_ALL: &str =
    "mutation ($id: ID!) { revokeApiKeys(input: { operatorId: $id }) { apiKeys { id name revokedAt } } }";

async fn update(app: &TestApp, operator: &TestCaller, changes: Value) -> Answer {
    let mut input = changes;
    input["id"] = json!(operator.operator);
    app.graphql(&app.platform(), UPDATE, json!({ "input": input })).await
}

async fn updated(app: &TestApp, operator: &TestCaller, changes: Value) -> Value {
    update(app, operator, changes).await.payload("updateOperator")["operator"].clone()
}

/// Sends requests until a response has this status, which must happen within a second.
async fn wait_for_status(app: &TestApp, caller: &TestCaller, status: u16) -> Answer {
    seen_within_a_second(async || app.graphql(caller, ROLE, json!({})).await, |answer| answer.status == status).await
}

/// Sends a request with the `Vivamo-Actor` header.
async fn send_as(app: &TestApp, caller: &TestCaller, actor: &[u8], query: &str, variables: Value) -> Answer {
    let actor = reqwest::header::HeaderValue::from_bytes(actor).unwrap();
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key).header("Vivamo-Actor", actor);
    Answer::read(request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap()).await
}

/// The entries of the audit log that match a filter.
async fn admin_events(app: &TestApp, filter: Value) -> Vec<Value> {
    let query = "query ($filter: AdminEventFilter) { adminEvents(first: 100, filter: $filter) { nodes { \
                 id type occurredAt operator { name } apiKey { name } changedFields source requestId osUser actor } } }";
    let answer = app.graphql(&app.platform(), query, json!({ "filter": filter })).await;
    answer.data()["adminEvents"]["nodes"].as_array().unwrap().clone()
}

both!(the_platform_changes_operators, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let renamed = updated(app, &own, json!({ "name": " Acme " })).await;
    let expected = json!({ "id": own.operator, "name": "Acme", "status": "ACTIVE", "disclosuresPerHour": null });
    assert_eq!(renamed, expected);
    let changed = updated(app, &own, json!({ "disclosuresPerHour": 7 })).await;
    assert_eq!((&changed["name"], &changed["disclosuresPerHour"]), (&json!("Acme"), &json!(7)));
    // The operator sees its own status and budget.
    let seen = app.query(&own, "{ operator { name status disclosuresPerHour } }").await;
    assert_eq!(seen["operator"], json!({ "name": "Acme", "status": "ACTIVE", "disclosuresPerHour": 7 }));
    assert_eq!(updated(app, &own, json!({ "disclosuresPerHour": null })).await, expected);
    assert_eq!(updated(app, &own, json!({})).await, expected);

    for (changes, error) in [
        (json!({ "name": "" }), ("INVALID_NAME", "input.name")),
        (json!({ "name": null }), ("INVALID_NAME", "input.name")),
        (json!({ "status": null }), ("INVALID_ARGUMENT", "input.status")),
        (json!({ "disclosuresPerHour": 0 }), ("INVALID_ARGUMENT", "input.disclosuresPerHour")),
        (json!({ "disclosuresPerHour": -1 }), ("INVALID_ARGUMENT", "input.disclosuresPerHour")),
    ] {
        update(app, &own, changes).await.assert_rejected("updateOperator", &[error]);
    }
    let both = [("INVALID_NAME", "input.name"), ("INVALID_ARGUMENT", "input.disclosuresPerHour")];
    update(app, &own, json!({ "name": "", "disclosuresPerHour": 0 })).await.assert_rejected("updateOperator", &both);
    let key = "mutation ($id: ID!) { createApiKey(input: { operatorId: $id, name: \"\", expiresAt: \"2020-01-01T00:00:00Z\" }) \
               { secret } }";
    let answer = app.graphql(&app.platform(), key, json!({ "id": own.operator })).await;
    let both = [("INVALID_NAME", "input.name"), ("INVALID_ARGUMENT", "input.expiresAt")];
    answer.assert_rejected("createApiKey", &both);
    for unknown in ["op_01h455vb4pex5vsknk084sn02q", "op_x", own.operator.to_uppercase().as_str()] {
        let unknown = TestCaller { operator: unknown.to_owned(), ..own.clone() };
        let answer = update(app, &unknown, json!({ "name": "x" })).await;
        answer.assert_rejected("updateOperator", &[("OPERATOR_NOT_FOUND", "input.id")]);
        let answer = app.graphql(&app.platform(), REVOKE_ALL, json!({ "id": unknown.operator })).await;
        answer.assert_rejected("revokeApiKeys", &[("OPERATOR_NOT_FOUND", "input.operatorId")]);
    }
    // An operator can change neither its own row nor its keys.
    let input = json!({ "input": { "id": own.operator, "disclosuresPerHour": 1000 } });
    for caller in [&own, &app.key(&own, Access::ReadOnly).await] {
        assert_eq!(app.graphql(caller, UPDATE, input.clone()).await.codes(), ["FORBIDDEN"]);
        assert_eq!(app.graphql(caller, REVOKE_ALL, json!({ "id": own.operator })).await.codes(), ["FORBIDDEN"]);
    }
});

both!(a_changed_operator_is_seen_on_another_replica_within_a_second, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let replica = app.replica(app.database_url().to_owned()).await;
    let name =
        async || replica.query(&own, "{ viewer { operator { name } } }").await["viewer"]["operator"]["name"].clone();
    assert_eq!(name().await, "Own");
    updated(app, &own, json!({ "name": "Acme" })).await;
    seen_within_a_second(name, |name| name == "Acme").await;
    replica.stop().await;
});

both!(a_suspended_operator_is_rejected_everywhere_within_a_second, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let reader = app.key(&own, Access::ReadOnly).await;
    let replica = app.replica(app.database_url().to_owned()).await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    for caller in [&own, &reader, &other] {
        assert_eq!(replica.graphql(caller, ROLE, json!({})).await.status, 200);
    }
    assert_eq!(updated(app, &own, json!({ "status": "SUSPENDED" })).await["status"], "SUSPENDED");
    for (server, caller) in [(&replica, &own), (&replica, &reader), (app, &own), (app, &reader)] {
        let answer = wait_for_status(server, caller, 401).await;
        assert_eq!(answer.codes(), ["UNAUTHENTICATED"]);
        assert_eq!(answer.message(), "The operator of this API key is suspended. Ask the platform to resume it.");
    }
    // The process that suspended the operator rejects all keys of the operator immediately, including keys that are
    // created during the suspension.
    let created_meanwhile = app.key(&own, Access::ReadWrite).await;
    assert_eq!(app.graphql(&created_meanwhile, ROLE, json!({})).await.status, 401);
    // The keys of other operators work, and the platform sees the suspended operator and its customers.
    assert_eq!(replica.graphql(&other, ROLE, json!({})).await.status, 200);
    let query = format!("{{ operator(id: \"{}\") {{ status customers {{ totalCount }} }} }}", own.operator);
    let expected = json!({ "status": "SUSPENDED", "customers": { "totalCount": 1 } });
    assert_eq!(app.query(&app.platform(), &query).await["operator"], expected);

    assert_eq!(updated(app, &own, json!({ "status": "ACTIVE" })).await["status"], "ACTIVE");
    for (server, caller) in [(&replica, &own), (app, &own), (app, &reader), (app, &created_meanwhile)] {
        wait_for_status(server, caller, 200).await;
    }
    replica.stop().await;
});

both!(all_keys_of_an_operator_are_revoked_at_once, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let second = app.key(&own, Access::ReadOnly).await;
    let replica = app.replica(app.database_url().to_owned()).await;
    for caller in [&own, &second, &other] {
        assert_eq!(replica.graphql(caller, ROLE, json!({})).await.status, 200);
        assert_eq!(app.graphql(caller, ROLE, json!({})).await.status, 200);
    }
    let id = json!({ "id": own.operator });
    let revoked = app.graphql(&app.platform(), REVOKE_ALL, id.clone()).await.payload("revokeApiKeys");
    let keys = revoked["apiKeys"].as_array().unwrap();
    assert_eq!((&keys[0]["name"], &keys[1]["name"]), (&json!("First key"), &json!("another key")));
    assert!(keys.iter().all(|key| key["revokedAt"].is_string()), "{keys:?}");
    for caller in [&own, &second] {
        let answer = app.graphql(caller, ROLE, json!({})).await;
        assert!(answer.status == 401 && answer.message().starts_with("This API key was revoked."), "{}", answer.body);
        wait_for_status(&replica, caller, 401).await;
    }
    assert_eq!(replica.graphql(&other, ROLE, json!({})).await.status, 200);
    // The payload leaves out keys that were revoked before. A new key works.
    let third = app.key(&own, Access::ReadWrite).await;
    assert_eq!(app.graphql(&third, ROLE, json!({})).await.status, 200);
    let revoked = app.graphql(&app.platform(), REVOKE_ALL, id).await.payload("revokeApiKeys");
    assert_eq!(revoked["apiKeys"].as_array().unwrap().len(), 1);
    assert_eq!(admin_events(app, json!({ "operatorId": own.operator })).await.len(), 1 + 3 + 3);
    replica.stop().await;
});

both!(an_operator_may_have_a_budget_for_disclosures_of_its_own, Sandbox, async |app| {
    let other = app.operator("Other").await;
    for number in 0..6 {
        app.created(&other, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
    }
    let limits = RateLimitSettings { disclosures_per_hour: 2, ..RateLimitSettings::OFF };
    let limited = app.replica_with(app.database_url().to_owned(), limits).await;
    let (own, third) = (limited.operator("Own").await, limited.operator("Third").await);
    let connect = async |server: &TestApp, caller: &TestCaller, number: usize| {
        server.create(caller, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await.codes()
    };
    const NONE: [&str; 0] = [];
    assert_eq!((connect(&limited, &own, 0).await, connect(&limited, &own, 1).await), (vec![], vec![]));
    assert_eq!(connect(&limited, &own, 2).await, ["RATE_LIMITED"]);
    // A larger budget takes effect immediately. Disclosures that were used before still count.
    updated(&limited, &own, json!({ "disclosuresPerHour": 3 })).await;
    assert_eq!(connect(&limited, &own, 2).await, NONE);
    assert_eq!(connect(&limited, &own, 3).await, ["RATE_LIMITED"]);
    // Other operators keep the default budget.
    assert_eq!((connect(&limited, &third, 0).await, connect(&limited, &third, 1).await), (vec![], vec![]));
    assert_eq!(connect(&limited, &third, 2).await, ["RATE_LIMITED"]);
    // A budget also limits an operator if the default is unlimited.
    updated(app, &third, json!({ "disclosuresPerHour": 1 })).await;
    assert_eq!(connect(app, &third, 4).await, NONE);
    assert_eq!(connect(app, &third, 5).await, ["RATE_LIMITED"]);
    // Null restores the default.
    updated(app, &third, json!({ "disclosuresPerHour": null })).await;
    assert_eq!(connect(app, &third, 5).await, NONE);
    limited.stop().await;
});

both!(each_administrative_change_leaves_an_entry_in_the_audit_log, Sandbox, async |app| {
    // `app.operator` creates operators and keys as the command line does.
    let own = app.operator("Own").await;
    app.key(&own, Access::ReadOnly).await;
    let platform = app.platform();
    let suspend = json!({ "id": own.operator, "status": "SUSPENDED", "disclosuresPerHour": 5 });
    let suspended = send_as(app, &platform, "Zoë".as_bytes(), UPDATE, json!({ "input": suspend })).await;
    suspended.payload("updateOperator");
    updated(app, &own, json!({ "status": "ACTIVE" })).await;
    updated(app, &own, json!({ "name": "Acme" })).await;
    app.graphql(&platform, REVOKE_ALL, json!({ "id": own.operator })).await.payload("revokeApiKeys");
    // Requests that change nothing or fail leave no entry.
    updated(app, &own, json!({ "name": "Acme", "status": "ACTIVE", "disclosuresPerHour": 5 })).await;
    update(app, &own, json!({ "name": "" })).await;
    app.graphql(&platform, REVOKE_ALL, json!({ "id": own.operator })).await.payload("revokeApiKeys");
    let create = "mutation { createOperator(input: { name: \"Next\" }) { apiKey { id } } }";
    let key = app.graphql(&platform, create, json!({})).await.payload("createOperator")["apiKey"]["id"].clone();
    let revoke = "mutation ($id: ID!) { revokeApiKey(input: { id: $id }) { apiKey { id } } }";
    for _ in 0..2 {
        app.graphql(&platform, revoke, json!({ "id": key })).await.payload("revokeApiKey");
    }

    let events = admin_events(app, json!(null)).await;
    let os_user = events[0]["osUser"].as_str().unwrap();
    assert!(!os_user.is_empty());
    let kinds: Vec<_> = events
        .iter()
        .map(|event| {
            let source = if event["source"] == "COMMAND_LINE" { &event["osUser"] } else { &event["source"] };
            assert!(event["requestId"].as_str().unwrap().starts_with("req_"), "{event}");
            assert_eq!(event["osUser"].is_string(), event["source"] == "COMMAND_LINE", "{event}");
            json!([event["type"], event["operator"]["name"], event["apiKey"]["name"], event["changedFields"], source])
        })
        .collect();
    assert_eq!(
        kinds,
        [
            json!(["OPERATOR_CREATED", "Acme", null, [], os_user]),
            json!(["API_KEY_CREATED", "Acme", "First key", [], os_user]),
            json!(["API_KEY_CREATED", "Acme", "another key", [], os_user]),
            json!(["OPERATOR_SUSPENDED", "Acme", null, ["status", "disclosuresPerHour"], "PLATFORM_KEY"]),
            json!(["OPERATOR_RESUMED", "Acme", null, ["status"], "PLATFORM_KEY"]),
            json!(["OPERATOR_UPDATED", "Acme", null, ["name"], "PLATFORM_KEY"]),
            json!(["API_KEY_REVOKED", "Acme", "First key", [], "PLATFORM_KEY"]),
            json!(["API_KEY_REVOKED", "Acme", "another key", [], "PLATFORM_KEY"]),
            json!(["OPERATOR_CREATED", "Next", null, [], "PLATFORM_KEY"]),
            json!(["API_KEY_CREATED", "Next", "First key", [], "PLATFORM_KEY"]),
            json!(["API_KEY_REVOKED", "Next", "First key", [], "PLATFORM_KEY"]),
        ]
    );
    assert_eq!(events[3]["requestId"], suspended.headers["x-request-id"].to_str().unwrap());
    let actors: Vec<_> = events.iter().map(|event| event["actor"].clone()).collect();
    assert!(actors.iter().enumerate().all(|(at, actor)| *actor == if at == 3 { json!("Zoë") } else { json!(null) }));
    assert!(events.is_sorted_by_key(|event| event["occurredAt"].as_str().unwrap().to_owned()));

    // Reads the audit log with filters and in pages.
    assert_eq!(admin_events(app, json!({ "operatorId": own.operator })).await, events[..8]);
    assert_eq!(admin_events(app, json!({ "apiKeyId": key })).await, events[9..]);
    assert_eq!(admin_events(app, json!({ "operatorId": own.operator, "apiKeyId": key })).await, Vec::<Value>::new());
    let page = "query ($after: String, $filter: AdminEventFilter) { \
                adminEvents(first: 4, after: $after, filter: $filter) { nodes { id } pageInfo { endCursor } } }";
    let first = app.graphql(&platform, page, json!({})).await.data()["adminEvents"].clone();
    let entry = json!({ "id": first["nodes"][0]["id"] });
    let node = "query ($id: ID!) { node(id: $id) { __typename id } }";
    assert_eq!(app.graphql(&platform, node, entry.clone()).await.data()["node"]["id"], entry["id"]);
    let operator = app.operator("Other").await;
    assert_eq!(app.graphql(&operator, node, entry).await.data()["node"], Value::Null);
    let after = first["pageInfo"]["endCursor"].clone();
    let second = app.graphql(&platform, page, json!({ "after": after })).await.data()["adminEvents"].clone();
    assert_eq!((&first["nodes"][3]["id"], &second["nodes"][0]["id"]), (&events[3]["id"], &events[4]["id"]));
    for (variables, path) in [
        (json!({ "after": after, "filter": { "operatorId": own.operator } }), "after"),
        (json!({ "filter": { "operatorId": "op_x" } }), "filter.operatorId"),
        (json!({ "filter": { "apiKeyId": own.operator } }), "filter.apiKeyId"),
    ] {
        app.graphql(&platform, page, variables).await.assert_rejected("adminEvents", &[("INVALID_ARGUMENT", path)]);
    }
    let next = app.operator("Curious").await;
    assert_eq!(app.graphql(&next, page, json!({})).await.codes(), ["FORBIDDEN"]);
});

both!(a_change_and_its_entry_are_written_together, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let rename = async |from: &str, to: &str| {
        app.execute(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
    };
    rename("admin_event", "lost").await;
    let create_key =
        format!("mutation {{ createApiKey(input: {{ operatorId: \"{}\", name: \"x\" }}) {{ secret }} }}", own.operator);
    let (suspend, id) = (json!({ "id": own.operator, "status": "SUSPENDED" }), json!({ "id": own.operator }));
    for (mutation, variables) in [
        (UPDATE, json!({ "input": suspend })),
        (REVOKE_ALL, id),
        (create_key.as_str(), json!({})),
        ("mutation { createOperator(input: { name: \"x\" }) { secret } }", json!({})),
    ] {
        assert_eq!(app.graphql(&app.platform(), mutation, variables).await.codes(), ["INTERNAL"], "{mutation}");
    }
    rename("lost", "admin_event").await;
    assert_eq!(app.graphql(&own, ROLE, json!({})).await.status, 200);
    assert_eq!((app.count_rows("operator").await, app.count_rows("api_key").await), (1, 1));
});

both!(history_names_the_staff_member_behind_a_request, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let create = "mutation ($email: String!) { createCustomer(input: { externalCustomerId: \"1\", \
                  data: { email: $email }, idempotencyKey: \"k\" }) { replayed } }";
    let update = "mutation { updateCustomer(input: { customer: { externalCustomerId: \"1\" }, \
                  data: { firstName: \"Grace\" } }) { customer { version } } }";
    let email = json!({ "email": "ada@example.com" });
    let created = send_as(app, &own, " \u{202a}staff-4711 Núñez ".as_bytes(), create, email.clone()).await;
    created.payload("createCustomer");
    // A repeated request may name another staff member.
    let replay = send_as(app, &own, b"somebody else", create, email).await;
    assert_eq!(replay.payload("createCustomer"), json!({ "replayed": true }));
    app.graphql(&own, update, json!({})).await.payload("updateCustomer");
    app.created(&other, "2", json!({ "email": "ada@example.com" })).await;

    let query = "{ customers { nodes { history { nodes { type actor } } } } }";
    let actors = async |caller: &TestCaller| {
        let answer = app.query(caller, query).await;
        let events = answer["customers"]["nodes"][0]["history"]["nodes"].as_array().unwrap().clone();
        events.into_iter().map(|event| event["actor"].clone()).collect::<Vec<_>>()
    };
    let name = json!("staff-4711 Núñez");
    assert_eq!(actors(&own).await[..2], [name.clone(), json!(null)]);
    assert_eq!(actors(&app.platform()).await, [name, json!(null), json!(null)]);
    assert!(actors(&other).await.iter().all(Value::is_null));
    assert!(!app.log().contains("staff-4711"));
});

both!(a_malformed_actor_header_is_a_bad_request, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let (longest, too_long) = ("ß".repeat(100), "staff-4712".repeat(10) + "x");
    assert_eq!(send_as(app, &own, longest.as_bytes(), ROLE, json!({})).await.status, 200);
    for (actor, fault) in [
        (&b""[..], "it is empty."),
        (b"   ", "it is empty."),
        (too_long.as_bytes(), "it is longer than 100 characters."),
        (
            "staff\u{202e}-4712".as_bytes(),
            "it contains a line break, another control character, or an invisible direction control.",
        ),
        (b"staff-4712\x09x", "it contains a line break, another control character, or an invisible direction control."),
        (b"staff-4712 \xe9", "it is not UTF-8."),
    ] {
        let answer = send_as(app, &own, actor, ROLE, json!({})).await;
        assert_eq!((answer.status, answer.codes()), (400, vec!["BAD_REQUEST".to_owned()]), "{fault}");
        assert_eq!(answer.message(), format!("The header Vivamo-Actor is not valid: {fault}"));
    }
    let twice = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&own.key);
    let twice = twice.header("vivamo-actor", "staff-4712").header("vivamo-actor", "staff-4712");
    let answer = Answer::read(twice.json(&json!({ "query": ROLE })).send().await.unwrap()).await;
    assert_eq!(answer.message(), "The header Vivamo-Actor is not valid: it was sent more than once.");
    // Without a valid key, the response says nothing about the header.
    let unknown = TestCaller { key: "x".to_owned(), ..own };
    assert_eq!(send_as(app, &unknown, b"", ROLE, json!({})).await.codes(), ["UNAUTHENTICATED"]);
    assert!(!app.log().contains("staff-4712"));
});

both!(all_customers_of_a_suspended_operator_are_disconnected, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let operator = OperatorId::parse(&own.operator).unwrap();
    let mut ids = Vec::new();
    for number in 0..250 {
        let data = json!({ "email": format!("{number}@example.com"), "firstName": "Ada" });
        let id = app.created(&own, &number.to_string(), data).await["customer"]["id"].clone();
        ids.push(CustomerId::parse(id.as_str().unwrap()).unwrap());
    }
    app.created(&other, "shared", json!({ "email": "7@example.com" })).await;
    let (customers, request) = (&app.services.customers, RequestInfo::command_line());
    let start = async || customers.start_removing_customers(&Caller::Platform, &request, operator).await;
    let remove = async |after| customers.remove_customer_batch(&Caller::Platform, &request, operator, after).await;
    assert!(start().await.unwrap_err().has(ErrorCode::InvalidArgument));
    assert!(remove(None).await.unwrap_err().has(ErrorCode::InvalidArgument));
    let caller = app.services.authenticator.authenticate(&own.key, None).await.unwrap();
    assert!(
        customers.start_removing_customers(&caller, &request, operator).await.unwrap_err().has(ErrorCode::Forbidden)
    );
    let removed_by_operator = customers.remove_customers(&caller, &request, operator, |_| ()).await;
    assert!(removed_by_operator.unwrap_err().has(ErrorCode::Forbidden));

    updated(app, &own, json!({ "status": "SUSPENDED" })).await;
    assert_eq!(start().await.unwrap(), 250);
    // Each batch is a transaction of its own, so an interrupted removal can be continued.
    assert_eq!(remove(None).await.unwrap(), ids[..100]);
    assert_eq!((app.count_rows("customer_operator").await, app.count_rows("customer").await), (151, 250));
    assert_eq!(start().await.unwrap(), 150);
    assert_eq!(remove(Some(ids[239])).await.unwrap(), ids[240..]);
    let mut batches = Vec::new();
    customers.remove_customers(&Caller::Platform, &request, operator, |removed| batches.push(removed)).await.unwrap();
    // The first empty batch follows the last customer. The second one begins at the first customer again.
    assert_eq!(batches, [100, 40, 0, 0]);
    assert_eq!(remove(None).await.unwrap(), []);
    assert_eq!((start().await.unwrap(), app.count_rows("customer_operator").await), (0, 1));
    // A run that has nothing to do leaves no entry.
    let events = admin_events(app, json!({ "operatorId": own.operator })).await;
    let removals = events.iter().filter(|event| event["type"] == "OPERATOR_CUSTOMERS_REMOVED");
    let runs: Vec<_> = removals.map(|event| event["requestId"].clone()).collect();
    assert_eq!(runs.len(), 2, "{events:?}");

    // The `requestId` of the history entry is the id of the run, and the customer keeps its version.
    let query = "{ customer(by: { email: \"8@example.com\" }) { version operators { nodes { name } } \
                 history { nodes { type version requestId operator { name } } } } }";
    let customer = app.query(&app.platform(), query).await["customer"].clone();
    let ended = json!({ "type": "DISCONNECTED", "version": 1, "requestId": runs[0], "operator": null });
    assert_eq!((&customer["history"]["nodes"][1], &customer["version"]), (&ended, &json!(1)));
    assert_eq!(customer["operators"]["nodes"], json!([]));
    // The other operator keeps its customer, and sees no new entry in the history of the customer.
    let query = "{ customers { nodes { externalCustomerId history { nodes { type } } } } }";
    let seen = json!([{ "externalCustomerId": "shared", "history": { "nodes": [{ "type": "CONNECTED" }] } }]);
    assert_eq!(app.query(&other, query).await["customers"]["nodes"], seen);
    // If the operator is resumed, it has no customers, and its external ids can be used again.
    updated(app, &own, json!({ "status": "ACTIVE" })).await;
    let list = "{ customers(filter: { search: \"ada\" }) { totalCount } }";
    assert_eq!(wait_for_status(app, &own, 200).await.status, 200);
    assert_eq!(app.query(&own, list).await["customers"]["totalCount"], 0);
    let again = app.created(&own, "7", json!({ "email": "new@example.com" })).await;
    assert_eq!(again["outcome"], "CREATED");
});

both!(servers_that_start_together_create_one_first_operator, Sandbox, async |app| {
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE operator IN SHARE MODE").await.unwrap();
    }
    let (request, name) = (RequestInfo::command_line(), DisplayName::parse("Demo").unwrap());
    let create = || app.services.operators.create_first(&Caller::Platform, &request, name.clone());
    let release = async {
        app.wait_until_blocked(2).await;
        holder.commit().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(create(), create(), release);
    assert_ne!(one.unwrap().is_some(), other.unwrap().is_some());
    assert_eq!(app.count_rows("operator").await, 1);
});
