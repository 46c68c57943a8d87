//! Visibility: to an operator, customers of other operators look exactly like customers that do not exist.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};
use vivamo::config::RateLimitSettings;

use support::{TestApp, TestCaller, both};

const UNKNOWN_ID: &str = "cus_01h455vb4pex5vsknk084sn02q";

/// Asserts that a request about another operator's customer and one about an unknown customer return the same answer
/// and run the same SQL. Returns the codes of the answer.
async fn assert_indistinguishable(
    app: &TestApp,
    caller: &TestCaller,
    query: &str,
    foreign: Value,
    unknown: Value,
) -> Vec<String> {
    let variables = foreign.to_string();
    let (foreign, sql_of_foreign) = app.statements_of(app.graphql(caller, query, foreign)).await;
    let (unknown, sql_of_unknown) = app.statements_of(app.graphql(caller, query, unknown)).await;
    let without_request_ids = |body: &Value| {
        let mut body = body.clone();
        for error in body["errors"].as_array_mut().into_iter().flatten() {
            error["extensions"]["requestId"].take();
            // A budget refills with time.
            error["extensions"]["retryAfterMs"].take();
        }
        body
    };
    let (foreign_body, unknown_body) = (without_request_ids(&foreign.body), without_request_ids(&unknown.body));
    assert_eq!(foreign_body, unknown_body, "{query} {variables}");
    assert_eq!(foreign.status, unknown.status);
    assert_eq!(sql_of_foreign, sql_of_unknown, "{query} {variables}");
    foreign.codes()
}

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed } }";
const VALIDATE: &str = "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { faults { code } } }";

both!(customers_of_other_operators_look_like_unknown_ones, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let data = json!({ "email": "theirs@example.com", "phone": "+14155552671" });
    let foreign = app.created(&other, "theirs", data).await["customer"]["id"].clone();

    let customer = "query ($by: CustomerRef!) { customer(by: $by) { id email operators { edges { node { name } } } } }";
    for (foreign, unknown) in [
        (json!({ "id": foreign }), json!({ "id": UNKNOWN_ID })),
        (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "unknown" })),
        (json!({ "email": "theirs@example.com" }), json!({ "email": "unknown@example.com" })),
        (json!({ "phone": "+14155552671" }), json!({ "phone": "+14155552672" })),
    ] {
        assert_indistinguishable(app, &own, customer, json!({ "by": foreign }), json!({ "by": unknown })).await;
    }
    let node = "query ($id: ID!) { node(id: $id) { id ... on Customer { email } } }";
    assert_indistinguishable(app, &own, node, json!({ "id": foreign }), json!({ "id": UNKNOWN_ID })).await;

    let filtered =
        "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount edges { node { id } } } }";
    let nested = "query ($filter: CustomerFilter) { operator { \
                  customers(filter: $filter) { totalCount edges { node { id } } } } }";
    for (foreign, unknown) in [
        (json!({ "email": "theirs@example.com" }), json!({ "email": "unknown@example.com" })),
        (json!({ "phone": "+14155552671" }), json!({ "phone": "+14155552672" })),
        (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "unknown" })),
    ] {
        for query in [filtered, nested] {
            let (foreign, unknown) = (json!({ "filter": foreign }), json!({ "filter": unknown }));
            assert_indistinguishable(app, &own, query, foreign, unknown).await;
        }
    }

    let update = "mutation ($customer: UpdateCustomerRef!, $data: CustomerDataPatch!) \
                  { updateCustomer(input: { customer: $customer, data: $data }) { customer { id } } }";
    for data in
        [json!({ "firstName": "Eve" }), json!({}), json!({ "email": "mine@example.com" }), json!({ "lastName": "" })]
    {
        for (foreign, unknown) in [
            (json!({ "id": foreign }), json!({ "id": UNKNOWN_ID })),
            (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "unknown" })),
        ] {
            let foreign = json!({ "customer": foreign, "data": data });
            let unknown = json!({ "customer": unknown, "data": data });
            assert_indistinguishable(app, &own, update, foreign, unknown).await;
        }
    }

    let disconnect = "mutation ($customer: UpdateCustomerRef!) \
                      { disconnectCustomer(input: { customer: $customer, reason: MISTAKE }) { customerId } }";
    for (foreign, unknown) in [
        (json!({ "id": foreign }), json!({ "id": UNKNOWN_ID })),
        (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "unknown" })),
    ] {
        let (foreign, unknown) = (json!({ "customer": foreign }), json!({ "customer": unknown }));
        assert_indistinguishable(app, &own, disconnect, foreign, unknown).await;
    }

    let operator = "query ($id: ID) { operator(id: $id) { id name customers { edges { node { id } } } } }";
    let unknown = "op_01h455vb4pex5vsknk084sn02q";
    assert_indistinguishable(app, &own, operator, json!({ "id": other.operator }), json!({ "id": unknown })).await;
    assert_indistinguishable(app, &own, node, json!({ "id": other.operator }), json!({ "id": unknown })).await;
});

both!(a_rejected_request_does_not_tell_if_a_person_is_known, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    let theirs = json!({ "email": "theirs@example.com", "phone": "+14155552671", "address": address });
    app.created(&other, "theirs", theirs).await;
    app.created(&own, "mine", json!({ "email": "mine@example.com", "phone": "+14155552670" })).await;
    let mine = json!({ "externalCustomerId": "mine" });
    let used = json!({ "customer": mine, "data": { "firstName": "Ada" }, "idempotencyKey": "used" });
    app.graphql(&own, UPDATE, json!({ "input": used })).await.payload("updateCustomer");
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let used_up = app.replica_with(app.database_url().to_owned(), limits).await;
    app.created(&other, "connected", json!({ "email": "connected@example.com" })).await;
    used_up.created(&own, "connected", json!({ "email": "connected@example.com" })).await;

    let create = |id: &str, data: Value| json!({ "externalCustomerId": id, "data": data });
    let update = |customer: Value, data: Value| json!({ "customer": customer, "data": data });
    let unknown_customer = json!({ "externalCustomerId": "unknown" });
    let (email, phone, limited) = (["EMAIL_TAKEN"], ["PHONE_TAKEN"], ["RATE_LIMITED"]);
    // `?` is replaced by an email or a phone, which is known or unknown to the platform.
    let by_email = [
        (app, CREATE, create("mine", json!({ "email": "?" })), ["EXTERNAL_CUSTOMER_ID_TAKEN"]),
        (app, CREATE, create("new", json!({ "email": "?", "phone": "+14155552670" })), phone),
        (app, CREATE, create("new", json!({ "email": "?", "firstName": "" })), ["INVALID_NAME"]),
        (app, UPDATE, update(unknown_customer.clone(), json!({ "email": "?" })), ["CUSTOMER_NOT_FOUND"]),
        (app, UPDATE, update(mine.clone(), json!({ "email": "?", "firstName": "" })), ["INVALID_NAME"]),
        (&used_up, CREATE, create("new", json!({ "email": "?" })), limited),
        (&used_up, UPDATE, update(mine.clone(), json!({ "email": "?" })), limited),
        (&used_up, UPDATE, update(unknown_customer.clone(), json!({ "email": "?" })), limited),
    ];
    let by_phone = [
        (
            app,
            CREATE,
            create("mine", json!({ "email": "new@example.com", "phone": "?" })),
            ["EXTERNAL_CUSTOMER_ID_TAKEN"],
        ),
        (app, CREATE, create("new", json!({ "email": "mine@example.com", "phone": "?" })), email),
        (app, CREATE, create("new", json!({ "email": "x", "phone": "?" })), ["INVALID_EMAIL"]),
        (app, UPDATE, update(unknown_customer, json!({ "phone": "?" })), ["CUSTOMER_NOT_FOUND"]),
        (&used_up, CREATE, create("new", json!({ "email": "new@example.com", "phone": "?" })), limited),
        (&used_up, UPDATE, update(mine.clone(), json!({ "phone": "?" })), limited),
    ];
    let reused = ["IDEMPOTENCY_KEY_REUSED"];
    let with_used_key = [
        (CREATE, create("new", json!({ "email": "?" })), true),
        (CREATE, create("mine", json!({ "email": "?" })), true),
        (CREATE, create("new", json!({ "email": "new@example.com", "phone": "?" })), false),
        (CREATE, create("new", json!({ "email": "mine@example.com", "phone": "?" })), false),
        (UPDATE, update(mine.clone(), json!({ "email": "?" })), true),
        (UPDATE, update(mine, json!({ "phone": "?" })), false),
    ];
    let input = |request: &Value, key: Option<&str>, person: &str| {
        let mut input: Value = serde_json::from_str(&request.to_string().replace('?', person)).unwrap();
        input["idempotencyKey"] = json!(key);
        json!({ "input": input })
    };
    let persons = |is_email| {
        if is_email { ["theirs@example.com", "unknown@example.com"] } else { ["+14155552671", "+14155552672"] }
    };
    let cases = by_email.into_iter().map(|case| (true, case)).chain(by_phone.into_iter().map(|case| (false, case)));
    for (is_email, (app, query, request, codes)) in cases {
        for key in [None, Some("new")] {
            let [foreign, unknown] = persons(is_email).map(|person| input(&request, key, person));
            assert_eq!(assert_indistinguishable(app, &own, query, foreign, unknown).await, codes, "{request}");
        }
        if query == CREATE {
            let [foreign, unknown] = persons(is_email).map(|person| input(&request, None, person));
            let codes = assert_indistinguishable(app, &own, VALIDATE, foreign, unknown).await;
            assert_eq!(codes, [""; 0], "{request}");
        }
    }
    for (query, request, is_email) in with_used_key {
        for app in [app, &used_up] {
            let [foreign, unknown] = persons(is_email).map(|person| input(&request, Some("used"), person));
            assert_eq!(assert_indistinguishable(app, &own, query, foreign, unknown).await, reused, "{request}");
        }
    }
    used_up.stop().await;
});

both!(malformed_ids_and_ids_of_other_types_are_unknown, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    for id in ["", "x", "cus_", "cus_x", &own.operator, "1' OR '1'='1", "key_01h455vb4pex5vsknk084sn02q"] {
        assert_eq!(app.customer(&own, json!({ "id": id })).await, json!(null), "{id}");
        let answer = app.update(&own, json!({ "id": id }), json!({ "firstName": "Eve" })).await;
        answer.assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "input.customer")]);
    }
    for id in ["", "x", UNKNOWN_ID, "op_", "key_01h455vb4pex5vsknk084sn02q"] {
        let answer = app
            .graphql(&own, "query ($id: ID!) { node(id: $id) { id } operator(id: $id) { id } }", json!({ "id": id }))
            .await;
        assert_eq!(answer.body, json!({ "data": { "node": null, "operator": null } }), "{id}");
    }
});

both!(a_malformed_id_in_a_mutation_is_treated_like_an_unknown_id, Sandbox, async |app| {
    let (own, platform) = (app.operator("Own").await, app.platform());
    let url = "https://receiver.example/";
    let (past, future) = ("2020-01-01T00:00:00Z", "9000-01-01T00:00:00Z");
    let invalid_time = "0001-01-01T00:00:00+01:00";
    // The inputs of each mutation. The text ID stands for the malformed or unknown id.
    let cases = [
        (
            &platform,
            "updateCustomer",
            "cus",
            json!([
                { "customer": { "id": "ID" }, "data": { "firstName": "Ada" } },
                { "customer": { "id": "ID" }, "data": { "email": "x", "phone": "+14155552671" } },
                { "customer": { "id": "ID" }, "externalCustomerId": "1", "idempotencyKey": "" },
            ]),
        ),
        (
            &own,
            "updateCustomer",
            "cus",
            json!([
                { "customer": { "id": "ID" }, "data": { "email": "ada@mailinator.com" }, "expectedVersion": 7 },
                { "customer": { "id": "ID" }, "externalCustomerId": "" },
                { "customer": { "id": "ID" } },
            ]),
        ),
        (
            &own,
            "disconnectCustomer",
            "cus",
            json!([
                { "customer": { "id": "ID" }, "reason": "ENDED" },
                { "customer": { "id": "ID" }, "reason": "ENDED", "idempotencyKey": "" },
            ]),
        ),
        (
            &platform,
            "disconnectCustomer",
            "op",
            json!([
                { "customer": { "externalCustomerId": "1" }, "reason": "ENDED", "operatorId": "ID" },
                { "customer": { "externalCustomerId": "" }, "reason": "ENDED", "operatorId": "ID" },
            ]),
        ),
        (
            &platform,
            "recordVerification",
            "cus",
            json!([
                { "id": "ID", "field": "EMAIL", "value": "ada@example.com", "verifiedAt": past },
                { "id": "ID", "field": "EMAIL", "value": "ada@example.com", "verifiedAt": future },
                { "id": "ID", "field": "EMAIL", "value": "x", "verifiedAt": invalid_time, "takeOver": true },
            ]),
        ),
        (
            &platform,
            "eraseCustomer",
            "cus",
            json!([{ "id": "ID", "reference": "Case 7" }, { "id": "ID", "reference": "", "idempotencyKey": "" }]),
        ),
        (
            &platform,
            "updateOperator",
            "op",
            json!([
                { "id": "ID", "name": "A" },
                { "id": "ID", "name": "", "status": null },
                { "id": "ID", "disclosuresPerHour": 0 },
            ]),
        ),
        (
            &platform,
            "createApiKey",
            "op",
            json!([
                { "operatorId": "ID", "name": "A" },
                { "operatorId": "ID", "name": "" },
                { "operatorId": "ID", "name": "A", "expiresAt": past },
            ]),
        ),
        (&platform, "revokeApiKey", "key", json!([{ "id": "ID" }])),
        (&platform, "revokeApiKeys", "op", json!([{ "operatorId": "ID" }])),
        (
            &platform,
            "createWebhook",
            "op",
            json!([
                { "operatorId": "ID", "url": url },
                { "operatorId": "ID", "url": "x", "types": [] },
                { "operatorId": "ID", "url": "https://10.0.0.1/" },
                { "operatorId": "ID", "url": url, "deliverFrom": { "time": invalid_time } },
                { "operatorId": "ID", "url": url, "deliverFrom": { "time": past } },
            ]),
        ),
        (
            &own,
            "updateWebhook",
            "wh",
            json!([
                { "id": "ID", "url": url },
                { "id": "ID", "url": null, "types": [], "enabled": null },
                { "id": "ID", "url": "https://10.0.0.1/" },
                { "id": "ID", "deliverFrom": { "cursor": "x" } },
                { "id": "ID", "deliverFrom": { "time": invalid_time } },
            ]),
        ),
        (&own, "rotateWebhookSecret", "wh", json!([{ "id": "ID" }, { "id": "ID", "overlapHours": 169 }])),
        (&own, "deleteWebhook", "wh", json!([{ "id": "ID" }])),
    ];
    for (caller, mutation, prefix, inputs) in &cases {
        let input_type = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
        let query = format!("mutation ($input: {input_type}!) {{ {mutation}(input: $input) {{ __typename }} }}");
        for input in inputs.as_array().unwrap() {
            let send = async |id: &str| {
                let input: Value =
                    serde_json::from_str(&input.to_string().replace("\"ID\"", &format!("\"{id}\""))).unwrap();
                app.graphql(caller, &query, json!({ "input": input })).await.errors()
            };
            let unknown = send(&format!("{prefix}_01h455vb4pex5vsknk084sn02q")).await;
            assert!(
                !unknown.is_empty() && unknown.iter().all(|(code, _)| code != "BAD_REQUEST"),
                "{input}: {unknown:?}"
            );
            for malformed in ["", &format!("{prefix}_x"), "req_01h455vb4pex5vsknk084sn02q"] {
                assert_eq!(send(malformed).await, unknown, "{mutation} {input}: {malformed}");
            }
        }
    }
    let schema: Value = serde_json::from_str(&vivamo::graphql::introspection().await).unwrap();
    let types = schema["data"]["__schema"]["types"].as_array().unwrap();
    let mutations = types.iter().find(|kind| kind["name"] == "Mutation").unwrap()["fields"].as_array().unwrap();
    let names = mutations.iter().map(|field| field["name"].as_str().unwrap()).collect::<BTreeSet<_>>();
    let tested = cases.iter().map(|(_, mutation, ..)| *mutation).chain(["createCustomer", "createOperator"]);
    assert_eq!(names, tested.collect());
});

both!(an_operator_sees_only_itself_and_its_own_links, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({ "email": "ada@example.com" });
    app.created(&other, "theirs", data.clone()).await;
    let connected = app.created(&own, "mine", data).await;
    let query = "{ viewer { role environment operator { id name } }
        operators { totalCount edges { node { id customers { totalCount } } } }
        operator { name }
        customer(by: { externalCustomerId: \"mine\" }) { externalCustomerId
            operators { edges { externalCustomerId node { name } } pageInfo { hasNextPage hasPreviousPage } } }
        customers { totalCount edges { externalCustomerId
            node { operators(last: 5) { edges { externalCustomerId node { name } } } } } } }";
    let seen = app.query(&own, query).await;
    assert_eq!(
        seen["viewer"],
        json!({ "role": "OPERATOR", "environment": "SANDBOX", "operator": { "id": own.operator, "name": "Own" } })
    );
    assert_eq!(
        seen["operators"],
        json!({ "totalCount": 1, "edges": [{ "node": { "id": own.operator, "customers": { "totalCount": 1 } } }] })
    );
    assert_eq!(seen["operator"], json!({ "name": "Own" }));
    let own_link = json!([{ "externalCustomerId": "mine", "node": { "name": "Own" } }]);
    assert_eq!(seen["customer"]["operators"]["edges"], own_link);
    assert_eq!(seen["customer"]["operators"]["pageInfo"], json!({ "hasNextPage": false, "hasPreviousPage": false }));
    assert_eq!(seen["customers"]["edges"][0]["node"]["operators"]["edges"], own_link);
    let text = format!("{seen} {connected}");
    assert!(!text.contains("theirs") && !text.contains("Other"), "{text}");
});

both!(the_platform_sees_everything, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    let id = app.created(&first, "f", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    app.created(&second, "s", json!({ "email": "ada@example.com" })).await;
    app.created(&second, "t", json!({ "email": "grace@example.com" })).await;
    let platform = app.platform();
    let query = "{ viewer { role operator { id } } operator { id }
        operators { totalCount edges { node { name
            customers { totalCount edges { externalCustomerId connectedAt node { externalCustomerId email } } } } } }
        customers { totalCount edges { externalCustomerId connectedAt
            node { externalCustomerId email operators { edges { externalCustomerId node { name } } } } } } }";
    let seen = app.query(&platform, query).await;
    assert_eq!(seen["viewer"], json!({ "role": "PLATFORM", "operator": null }));
    assert_eq!(seen["operator"], json!(null));
    assert_eq!(seen["operators"]["totalCount"], 2);
    let second_operator = &seen["operators"]["edges"][1]["node"];
    assert_eq!(second_operator["name"], "Second");
    assert_eq!(second_operator["customers"]["totalCount"], 2);
    assert_eq!(second_operator["customers"]["edges"][0]["externalCustomerId"], "s");
    assert_eq!(second_operator["customers"]["edges"][0]["node"]["externalCustomerId"], json!(null));
    assert_eq!(seen["customers"]["totalCount"], 2);
    let ada = &seen["customers"]["edges"][0];
    assert_eq!(ada["externalCustomerId"], json!(null));
    assert_eq!(ada["connectedAt"], json!(null));
    assert_eq!(
        ada["node"]["operators"]["edges"],
        json!([
            { "externalCustomerId": "f", "node": { "name": "First" } },
            { "externalCustomerId": "s", "node": { "name": "Second" } },
        ])
    );
    for by in [json!({ "id": id }), json!({ "email": "ada@example.com" })] {
        assert_eq!(app.customer(&platform, by).await["id"], id);
    }
    // The platform key has no external ids of its own.
    let by = "query ($by: CustomerRef!) { customer(by: $by) { id } }";
    let answer = app.graphql(&platform, by, json!({ "by": { "externalCustomerId": "f" } })).await;
    answer.assert_rejected("customer", &[("INVALID_ARGUMENT", "by.externalCustomerId")]);
    let list = "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount } }";
    let answer = app.graphql(&platform, list, json!({ "filter": { "externalCustomerId": "f" } })).await;
    answer.assert_rejected("customers", &[("INVALID_ARGUMENT", "filter.externalCustomerId")]);
});

both!(malformed_values_in_references_and_filters_are_rejected, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let by = "query ($by: CustomerRef!) { customer(by: $by) { id } }";
    for (value, code, path) in [
        (json!({ "email": "x" }), "INVALID_EMAIL", "by.email"),
        (json!({ "phone": "x" }), "INVALID_PHONE", "by.phone"),
        (json!({ "externalCustomerId": "" }), "INVALID_EXTERNAL_CUSTOMER_ID", "by.externalCustomerId"),
    ] {
        let answer = app.graphql(&own, by, json!({ "by": value })).await;
        answer.assert_rejected("customer", &[(code, path)]);
    }
    let list = "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount } }";
    let answer = app.graphql(&own, list, json!({ "filter": { "email": "x", "phone": "y" } })).await;
    let expected = [("INVALID_EMAIL", "filter.email"), ("INVALID_PHONE", "filter.phone")];
    answer.assert_rejected("customers", &expected);
});

both!(concurrent_reads_return_only_the_callers_customers, Sandbox, async |app| {
    let mut callers = Vec::new();
    for number in 0..8 {
        let operator = app.operator(&format!("Operator {number}")).await;
        let data = json!({ "email": format!("{number}@example.com"), "phone": format!("+1415555267{number}") });
        // All customers except the first have the same external id.
        let created = app.created(&operator, if number == 0 { "other" } else { "same" }, data).await;
        callers.push((operator, number, created["customer"]["id"].clone()));
    }
    let ids = callers.iter().map(|(_, _, id)| json!({ "id": id }));
    let references: Vec<_> = ids.chain([json!({ "externalCustomerId": "same" })]).collect();
    let pairs = callers.iter().flat_map(|caller| references.iter().map(move |reference| (caller, reference)));
    let reads = pairs.map(|((operator, number, id), reference)| async move {
        let customer = app.customer(operator, reference.clone()).await;
        let is_own = reference["id"] == *id || reference["id"] == Value::Null && *number > 0;
        let expected = if is_own { json!(format!("{number}@example.com")) } else { Value::Null };
        assert_eq!(customer["email"], expected, "{number}: {reference}");
    });
    join_all(reads).await;
});
