//! The platform key changes customers of all operators, but creates no customers.

use serde_json::{Value, json};

use vivamo::config::RateLimitSettings;

use support::{Answer, TestApp, both};

/// Sends an `updateCustomer` with the platform key.
async fn update(app: &TestApp, input: Value) -> Answer {
    let query = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed \
                 customer { id externalCustomerId email firstName version operators { nodes { name } } } } }";
    app.graphql(&app.platform(), query, json!({ "input": input })).await
}

both!(the_platform_updates_any_customer_by_id, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let id = app.created(&a, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    app.created(&b, "2", json!({ "email": "grace@example.com", "phone": "+14155552671" })).await;
    let customer = json!({ "id": id });

    let input = json!({ "customer": customer, "data": { "firstName": "Ada" }, "expectedVersion": 1 });
    let updated = update(app, input.clone()).await.payload("updateCustomer")["customer"].clone();
    let expected = json!({
        "id": id, "externalCustomerId": null, "email": "ada@example.com", "firstName": "Ada", "version": 2,
        "operators": { "nodes": [{ "name": "A" }] },
    });
    assert_eq!(updated, expected);
    assert_eq!(app.customer(&a, json!({ "externalCustomerId": "1" })).await["firstName"], "Ada");
    let history = "query ($id: ID!) { customer(by: { id: $id }) { history { nodes { \
                   type version operator { name } apiKey { name } after { firstName } } } } }";
    let history = app.graphql(&app.platform(), history, customer.clone()).await;
    let entry = json!({
        "type": "UPDATED", "version": 2, "operator": null, "apiKey": null, "after": { "firstName": "Ada" },
    });
    assert_eq!(history.data()["customer"]["history"]["nodes"][1], entry);

    update(app, input).await.assert_rejected("updateCustomer", &[("VERSION_CONFLICT", "input.expectedVersion")]);
    let taken = json!({ "email": "grace@example.com", "phone": "+14155552671" });
    update(app, json!({ "customer": customer, "data": taken }))
        .await
        .assert_rejected("updateCustomer", &[("EMAIL_TAKEN", "input.data.email"), ("PHONE_TAKEN", "input.data.phone")]);
    for unknown in ["cus_01h455vb4pex5vsknk084sn02q", "x"] {
        update(app, json!({ "customer": { "id": unknown }, "data": {} }))
            .await
            .assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "input.customer")]);
    }
    update(app, json!({ "customer": { "externalCustomerId": "1" }, "data": { "email": "x" } })).await.assert_rejected(
        "updateCustomer",
        &[("INVALID_ARGUMENT", "input.customer.externalCustomerId"), ("INVALID_EMAIL", "input.data.email")],
    );
    let create = app.create(&app.platform(), "1", json!({ "email": "new@example.com" })).await;
    create.assert_rejected("createCustomer", &[("FORBIDDEN", "")]);
});

both!(the_platform_has_idempotency_keys_of_its_own, Sandbox, async |app| {
    let a = app.operator("A").await;
    let id = app.created(&a, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    let input = |name: &str| json!({ "customer": { "id": id }, "data": { "firstName": name }, "idempotencyKey": "k" });
    let by_operator = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed } }";
    app.graphql(&a, by_operator, json!({ "input": input("By A") })).await.payload("updateCustomer");
    for is_replayed in [false, true] {
        let updated = update(app, input("By the platform")).await.payload("updateCustomer");
        assert_eq!((&updated["replayed"], &updated["customer"]["version"]), (&json!(is_replayed), &json!(3)));
    }
    let reused = [("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")];
    update(app, input("Another")).await.assert_rejected("updateCustomer", &reused);
});

both!(the_platform_uses_no_disclosures, Sandbox, async |app| {
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let limited = app.replica_with(app.database_url().to_owned(), limits).await;
    let a = app.operator("A").await;
    let id = app.created(&a, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    app.created(&a, "2", json!({ "email": "grace@example.com", "phone": "+14155552671" })).await;
    for _ in 0..3 {
        let data = json!({ "email": "grace@example.com", "phone": "+14155552671" });
        let answer = update(&limited, json!({ "customer": { "id": id }, "data": data })).await;
        assert_eq!(answer.codes(), ["EMAIL_TAKEN", "PHONE_TAKEN"]);
    }
    limited.stop().await;
});
