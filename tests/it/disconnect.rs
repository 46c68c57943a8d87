//! `disconnectCustomer`: its effects, and the callers that may use it.

use entity::api_key::Access;
use serde_json::{Value, json};

use support::{Answer, TestApp, TestCaller, both};

async fn disconnect(app: &TestApp, caller: &TestCaller, input: Value) -> Answer {
    let query =
        "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { customerId replayed } }";
    app.graphql(caller, query, json!({ "input": input })).await
}

fn by_external_id(id: &str) -> Value {
    json!({ "customer": { "externalCustomerId": id }, "reason": "NOT_THIS_PERSON" })
}

const NOT_FOUND: [(&str, &str); 1] = [("CUSTOMER_NOT_FOUND", "input.customer")];

both!(a_disconnected_customer_does_not_exist_for_the_operator, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let before = app.created(&other, "theirs", data.clone()).await["customer"].clone();
    let id = before["id"].clone();
    app.created(&own, "mine", data).await;
    let history = "{ customer(by: { externalCustomerId: \"mine\" }) { history { nodes { id } } } }";
    let event = app.query(&own, history).await["customer"]["history"]["nodes"][0]["id"].clone();
    let node = "query ($id: ID!) { node(id: $id) { id } }";
    assert_eq!(app.graphql(&own, node, json!({ "id": event })).await.data()["node"]["id"], event);

    let ended = disconnect(app, &own, by_external_id("mine")).await.payload("disconnectCustomer");
    assert_eq!(ended, json!({ "customerId": id, "replayed": false }));

    for by in [
        json!({ "id": id }),
        json!({ "externalCustomerId": "mine" }),
        json!({ "email": "ada@example.com" }),
        json!({ "phone": "+14155552671" }),
    ] {
        assert_eq!(app.customer(&own, by.clone()).await, json!(null), "{by}");
    }
    for id in [&id, &event] {
        assert_eq!(app.graphql(&own, node, json!({ "id": id })).await.data()["node"], json!(null));
    }
    let list = "{ customers(filter: { search: \"ada\" }) { totalCount } all: customers { totalCount } }";
    assert_eq!(app.query(&own, list).await, json!({ "customers": { "totalCount": 0 }, "all": { "totalCount": 0 } }));
    let update = app.update(&own, json!({ "id": id }), json!({ "firstName": "Eve" })).await;
    update.assert_rejected("updateCustomer", &NOT_FOUND);
    disconnect(app, &own, by_external_id("mine")).await.assert_rejected("disconnectCustomer", &NOT_FOUND);

    // For the other operator nothing has changed.
    assert_eq!(app.customer(&other, json!({ "externalCustomerId": "theirs" })).await, before);
    // The external id can be used again.
    app.created(&own, "mine", json!({ "email": "new@example.com" })).await;
});

both!(a_customer_without_operators_stays_and_can_be_connected_again, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let id = app.created(&own, "1", json!({ "email": "ada@example.com", "firstName": "Ada" })).await["customer"]["id"]
        .clone();
    disconnect(app, &own, by_external_id("1")).await.payload("disconnectCustomer");
    let everywhere = "query ($id: ID!) { customer(by: { id: $id }) { version operators { totalCount: nodes { id } } \
                      history { nodes { type version reason changedFields operator { name } \
                      disconnectedOperator { name } before { externalCustomerId } after { externalCustomerId } } } } }";
    let seen = app.graphql(&app.platform(), everywhere, json!({ "id": id })).await.data()["customer"].clone();
    assert_eq!((&seen["version"], &seen["operators"]["totalCount"]), (&json!(1), &json!([])));
    let entry = json!({
        "type": "DISCONNECTED", "version": 1, "reason": "NOT_THIS_PERSON", "changedFields": [],
        "operator": { "name": "Own" }, "disconnectedOperator": { "name": "Own" },
        "before": { "externalCustomerId": "1" }, "after": { "externalCustomerId": null },
    });
    assert_eq!(seen["history"]["nodes"][1], entry);

    for (caller, external_id) in [(&own, "2"), (&other, "1")] {
        let connected = app.created(caller, external_id, json!({ "email": "ada@example.com" })).await;
        assert_eq!((&connected["outcome"], &connected["customer"]["id"]), (&json!("CONNECTED"), &id));
        assert_eq!(connected["customer"]["firstName"], "Ada");
    }
    // The history that the operator sees starts at the current connection of the operator.
    let history = "{ customer(by: { externalCustomerId: \"2\" }) { history { nodes { type } } } }";
    let nodes = json!([{ "type": "CONNECTED" }]);
    assert_eq!(app.query(&own, history).await["customer"]["history"]["nodes"], nodes);
});

both!(after_a_disconnect_only_the_disconnect_is_replayed, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "ada@example.com" })).await;
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed } }";
    let update = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed } }";
    let data = json!({ "email": "ada@example.com" });
    let created = json!({ "externalCustomerId": "1", "data": data, "idempotencyKey": "create" });
    let customer = json!({ "externalCustomerId": "1" });
    let updated = json!({ "customer": customer, "data": { "firstName": "Ada" }, "idempotencyKey": "update" });
    app.graphql(&own, create, json!({ "input": created })).await.payload("createCustomer");
    app.graphql(&own, update, json!({ "input": updated })).await.payload("updateCustomer");
    let ended = json!({ "customer": customer, "reason": "MISTAKE", "idempotencyKey": "disconnect" });
    for is_replayed in [false, true, true] {
        let payload = disconnect(app, &own, ended.clone()).await.payload("disconnectCustomer");
        assert_eq!(payload["replayed"], is_replayed);
        let events = app.count_rows("customer_event").await;
        let answer = app.graphql(&own, create, json!({ "input": created })).await;
        answer.assert_rejected("createCustomer", &[("CUSTOMER_NOT_FOUND", "")]);
        let answer = app.graphql(&own, update, json!({ "input": updated })).await;
        answer.assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "")]);
        assert_eq!(app.count_rows("customer_event").await, events);
    }
    let reused = [("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")];
    for changed in [
        json!({ "customer": customer, "reason": "ENDED", "idempotencyKey": "disconnect" }),
        json!({ "customer": { "externalCustomerId": "2" }, "reason": "MISTAKE", "idempotencyKey": "disconnect" }),
        json!({ "customer": customer, "reason": "MISTAKE", "idempotencyKey": "create" }),
    ] {
        disconnect(app, &own, changed).await.assert_rejected("disconnectCustomer", &reused);
    }
});

both!(the_platform_disconnects_a_customer_from_an_operator, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let id = app.created(&a, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let platform = app.platform();
    let customer = json!({ "id": id });
    let input = |operator: &str, key: &str| json!({ "customer": customer, "reason": "MISTAKE", "operatorId": operator, "idempotencyKey": key });
    for is_replayed in [false, true] {
        let payload = disconnect(app, &platform, input(&a.operator, "a")).await.payload("disconnectCustomer");
        assert_eq!(payload, json!({ "customerId": id, "replayed": is_replayed }));
    }
    let answer = disconnect(app, &platform, input(&b.operator, "a")).await;
    answer.assert_rejected("disconnectCustomer", &[("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")]);
    assert_eq!(app.customer(&a, customer.clone()).await, json!(null));
    assert_eq!(app.customer(&b, customer.clone()).await["id"], id);
    let history = "query ($id: ID!) { customer(by: { id: $id }) { history(last: 1) { nodes { \
                   type operator { name } apiKey { name } disconnectedOperator { name } } } } }";
    let history = app.graphql(&platform, history, customer.clone()).await;
    let entry = json!({
        "type": "DISCONNECTED", "operator": null, "apiKey": null, "disconnectedOperator": { "name": "A" },
    });
    assert_eq!(history.data()["customer"]["history"]["nodes"], json!([entry]));
    let answer = disconnect(app, &platform, input(&a.operator, "not found")).await;
    answer.assert_rejected("disconnectCustomer", &NOT_FOUND);
    for operator in ["op_01h455vb4pex5vsknk084sn02q", "x"] {
        let answer = disconnect(app, &platform, input(operator, "not found")).await;
        answer.assert_rejected("disconnectCustomer", &[("OPERATOR_NOT_FOUND", "input.operatorId")]);
    }
    // The platform may identify the customer by the external id that the operator uses.
    let by_external_id =
        json!({ "customer": { "externalCustomerId": "1" }, "reason": "ENDED", "operatorId": b.operator });
    disconnect(app, &platform, by_external_id).await.payload("disconnectCustomer");
    assert_eq!(app.count_rows("customer_operator").await, 0);
});

both!(the_operator_is_given_by_the_platform_only, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    let fault = [("INVALID_ARGUMENT", "input.operatorId")];
    disconnect(app, &app.platform(), by_external_id("1")).await.assert_rejected("disconnectCustomer", &fault);
    let mut with_operator = by_external_id("1");
    with_operator["operatorId"] = json!(own.operator);
    disconnect(app, &own, with_operator).await.assert_rejected("disconnectCustomer", &fault);
    let malformed = json!({ "customer": { "externalCustomerId": "" }, "reason": "ENDED", "idempotencyKey": "" });
    disconnect(app, &own, malformed.clone()).await.assert_rejected(
        "disconnectCustomer",
        &[
            ("INVALID_EXTERNAL_CUSTOMER_ID", "input.customer.externalCustomerId"),
            ("INVALID_ARGUMENT", "input.idempotencyKey"),
        ],
    );
    let read_only = app.key(&own, Access::ReadOnly).await;
    for input in [by_external_id("1"), malformed] {
        disconnect(app, &read_only, input).await.assert_rejected("disconnectCustomer", &[("FORBIDDEN", "")]);
    }
    assert_eq!(app.count_rows("customer_operator").await, 1);
});

both!(a_key_of_an_earlier_connection_does_not_return_the_record, Sandbox, async |app| {
    let (own, other, platform) = (app.operator("Own").await, app.operator("Other").await, app.platform());
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed } }";
    let update = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed } }";
    let send = async |caller: &TestCaller, query: &str, input: &Value| {
        app.graphql(caller, query, json!({ "input": input })).await
    };
    // Ada is a customer of `other`. `own` creates its user 1 with Ada's phone number by mistake. The create therefore
    // connects Ada's record, and `own` then disconnects this record.
    let ada = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    let id = app.created(&other, "1", ada.clone()).await["customer"]["id"].clone();
    let data = json!({ "email": "user1@example.com", "phone": "+14155552671" });
    let created = json!({ "externalCustomerId": "user-1", "data": data, "idempotencyKey": "create" });
    let customer = json!({ "id": id });
    let updated = json!({ "customer": customer, "data": { "firstName": "Ada" }, "idempotencyKey": "update" });
    let ended = json!({ "customer": customer, "reason": "NOT_THIS_PERSON", "idempotencyKey": "disconnect" });
    send(&own, create, &created).await.payload("createCustomer");
    send(&own, update, &updated).await.payload("updateCustomer");
    send(&platform, update, &updated).await.payload("updateCustomer");
    disconnect(app, &own, ended.clone()).await.payload("disconnectCustomer");

    // Ada herself becomes user 2 of the operator. The requests about user 1 do not lead to her record.
    let again = json!({ "externalCustomerId": "user-2", "data": ada, "idempotencyKey": "create again" });
    assert_eq!(send(&own, create, &again).await.payload("createCustomer")["replayed"], false);
    let not_found = [("CUSTOMER_NOT_FOUND", "")];
    send(&own, create, &created).await.assert_rejected("createCustomer", &not_found);
    send(&own, update, &updated).await.assert_rejected("updateCustomer", &not_found);
    // The repeated disconnect does not end the new connection. The idempotency keys of the new connection stay valid,
    // also after the external id has changed.
    assert_eq!(disconnect(app, &own, ended).await.payload("disconnectCustomer")["replayed"], true);
    let rename = json!({ "customer": customer, "externalCustomerId": "user-3", "idempotencyKey": "rename" });
    for is_replayed in [false, true] {
        assert_eq!(send(&own, update, &rename).await.payload("updateCustomer")["replayed"], is_replayed);
        assert_eq!(send(&own, create, &again).await.payload("createCustomer")["replayed"], true);
    }
    // The idempotency key of the platform stays valid, because the platform has no connection that could end.
    assert_eq!(send(&platform, update, &updated).await.payload("updateCustomer")["replayed"], true);
});

both!(two_calls_take_over_an_identity_and_the_platform_restores_it, Sandbox, async |app| {
    let (first, second, platform) = (app.operator("First").await, app.operator("Second").await, app.platform());
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let before = app.created(&first, "1", data).await["customer"].clone();
    let (id, own) = (&before["id"], json!({ "externalCustomerId": "1" }));
    let verify = "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { \
                  customer { emailVerifiedAt phoneVerifiedAt } } }";
    for (field, value) in [("EMAIL", "ada@example.com"), ("PHONE", "+14155552671")] {
        let input = json!({ "id": id, "field": field, "value": value, "verifiedAt": "2026-11-20T12:00:00Z" });
        app.graphql(&platform, verify, json!({ "input": input })).await.payload("recordVerification");
    }

    // The second operator knows only the phone. The create shows a stranger's record, and the update changes it.
    let data = json!({ "email": "mallory@example.com", "phone": "+14155552671", "lastName": "Mallory" });
    let connected = app.created(&second, "1", data).await;
    assert_eq!((&connected["outcome"], &connected["matchedBy"]), (&json!("CONNECTED"), &json!(["PHONE"])));
    assert_eq!(connected["unappliedFields"], json!(["EMAIL"]));
    assert_eq!(connected["customer"]["email"], "ada@example.com");
    let changes = json!({ "email": "mallory@example.com", "firstName": "Eve" });
    let taken = app.updated(&second, own.clone(), changes).await;
    assert_eq!(taken["customer"]["email"], "mallory@example.com");

    // The first operator sees each step, and that the new email is not verified.
    let history = "{ customer(by: { externalCustomerId: \"1\" }) { email emailVerifiedAt phoneVerifiedAt version \
                   history { nodes { type version own changedFields operator { name } before { email } } } } }";
    let seen = app.query(&first, history).await["customer"].clone();
    assert_eq!((&seen["email"], &seen["version"]), (&json!("mallory@example.com"), &json!(3)));
    assert_eq!(seen["emailVerifiedAt"], json!(null));
    assert_eq!(seen["phoneVerifiedAt"], "2026-11-20T12:00:00.000000+00:00");
    let by_others = |version: i32, fields: &[&str]| {
        json!({
            "type": "UPDATED", "version": version, "own": false, "changedFields": fields, "operator": null,
            "before": null,
        })
    };
    let steps = [by_others(2, &["LAST_NAME"]), by_others(3, &["EMAIL", "FIRST_NAME"])];
    let nodes = seen["history"]["nodes"].as_array().unwrap();
    let changed: Vec<_> = nodes.iter().filter(|node| node["type"] == "UPDATED").cloned().collect();
    assert_eq!(changed, steps);

    // The platform sees who changed what, ends the connection of the second operator, and restores the values from the
    // history.
    let history = "query ($id: ID!) { customer(by: { id: $id }) { history { nodes { type requestId operator { id name } \
                   changedFields before { email firstName lastName } } } } }";
    let history = app.graphql(&platform, history, json!({ "id": id })).await;
    let nodes = history.data()["customer"]["history"]["nodes"].as_array().cloned().unwrap();
    let [connect, update] = ["CONNECTED", "UPDATED"].map(|r#type| {
        let of_type = nodes.iter().find(|node| node["type"] == r#type).unwrap();
        assert_eq!(of_type["operator"], json!({ "id": second.operator, "name": "Second" }));
        of_type.clone()
    });
    let of_request = "query ($id: String!) { customerEvents(requestId: $id) { nodes { type customerId } } }";
    let found = app.graphql(&platform, of_request, json!({ "id": update["requestId"] })).await;
    assert_eq!(found.data()["customerEvents"]["nodes"], json!([{ "type": "UPDATED", "customerId": id }]));
    let ended = json!({ "customer": { "id": id }, "operatorId": second.operator, "reason": "NOT_THIS_PERSON" });
    disconnect(app, &platform, ended).await.payload("disconnectCustomer");
    assert_eq!(app.customer(&second, own.clone()).await, json!(null));
    let restored = json!({
        "email": update["before"]["email"], "firstName": update["before"]["firstName"],
        "lastName": connect["before"]["lastName"],
    });
    app.updated(&platform, json!({ "id": id }), restored).await;
    let input = json!({ "id": id, "field": "EMAIL", "value": "ada@example.com", "verifiedAt": "2026-11-20T12:00:00Z" });
    let verified = app.graphql(&platform, verify, json!({ "input": input })).await.payload("recordVerification");
    assert!(verified["customer"]["emailVerifiedAt"].is_string() && verified["customer"]["phoneVerifiedAt"].is_string());
    let mut after = app.customer(&first, own).await;
    assert_eq!(after["version"], 4);
    for varies in ["version", "updatedAt"] {
        after[varies] = before[varies].clone();
    }
    assert_eq!(after, before);
});
