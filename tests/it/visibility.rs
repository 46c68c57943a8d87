//! Who sees what: what an operator may not see is exactly what does not exist.

use futures::future::join_all;
use serde_json::{Value, json};

use support::{Caller, TestApp, both};

const NOBODY: &str = "cus_01h455vb4pex5vsknk084sn02q";

/// Runs the same request for a stranger's customer and for nobody: the answers and the SQL must be the same.
async fn assert_indistinguishable(app: &TestApp, caller: &Caller, query: &str, strangers: Value, nobody: Value) {
    let (of_stranger, sql_of_stranger) = app.statements_of(app.graphql(caller, query, strangers.clone())).await;
    let (of_nobody, sql_of_nobody) = app.statements_of(app.graphql(caller, query, nobody)).await;
    let without_ids = |body: &Value| {
        let mut body = body.clone();
        for error in body["errors"].as_array_mut().into_iter().flatten() {
            error["extensions"]["requestId"].take();
        }
        body
    };
    assert_eq!(without_ids(&of_stranger.body), without_ids(&of_nobody.body), "{query} {strangers}");
    assert_eq!(of_stranger.status, of_nobody.status);
    assert_eq!(sql_of_stranger, sql_of_nobody, "{query} {strangers}");
}

both!(a_strangers_customer_does_not_exist_by_any_route, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let data = json!({ "email": "theirs@example.com", "phone": "+14155552671" });
    let theirs = app.created(&other, "theirs", data).await["customer"]["id"].clone();
    // Operators that were seen are known from then on.
    app.query(&own, "{ operator { name } }").await;

    let customer = "query ($by: CustomerRef!) { customer(by: $by) { id email operators { edges { node { name } } } } }";
    for (theirs, nobody) in [
        (json!({ "id": theirs }), json!({ "id": NOBODY })),
        (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "nobody" })),
        (json!({ "email": "theirs@example.com" }), json!({ "email": "nobody@example.com" })),
        (json!({ "phone": "+14155552671" }), json!({ "phone": "+14155552672" })),
    ] {
        assert_indistinguishable(app, &own, customer, json!({ "by": theirs }), json!({ "by": nobody })).await;
    }
    let node = "query ($id: ID!) { node(id: $id) { id ... on Customer { email } } }";
    assert_indistinguishable(app, &own, node, json!({ "id": theirs }), json!({ "id": NOBODY })).await;

    let filtered =
        "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount edges { node { id } } } }";
    let nested = "query ($filter: CustomerFilter) { operator { customers(filter: $filter) { totalCount edges { node { id } } } } }";
    for (theirs, nobody) in [
        (json!({ "email": "theirs@example.com" }), json!({ "email": "nobody@example.com" })),
        (json!({ "phone": "+14155552671" }), json!({ "phone": "+14155552672" })),
        (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "nobody" })),
    ] {
        for query in [filtered, nested] {
            let (theirs, nobody) = (json!({ "filter": theirs }), json!({ "filter": nobody }));
            assert_indistinguishable(app, &own, query, theirs, nobody).await;
        }
    }

    let update = "mutation ($customer: UpdateCustomerRef!, $data: CustomerDataPatch!) \
                  { updateCustomer(input: { customer: $customer, data: $data }) { customer { id } } }";
    for data in
        [json!({ "firstName": "Eve" }), json!({}), json!({ "email": "mine@example.com" }), json!({ "lastName": "" })]
    {
        for (theirs, nobody) in [
            (json!({ "id": theirs }), json!({ "id": NOBODY })),
            (json!({ "externalCustomerId": "theirs" }), json!({ "externalCustomerId": "nobody" })),
        ] {
            let theirs = json!({ "customer": theirs, "data": data });
            let nobody = json!({ "customer": nobody, "data": data });
            assert_indistinguishable(app, &own, update, theirs, nobody).await;
        }
    }

    let operator = "query ($id: ID) { operator(id: $id) { id name customers { edges { node { id } } } } }";
    let nobody = "op_01h455vb4pex5vsknk084sn02q";
    assert_indistinguishable(app, &own, operator, json!({ "id": other.operator }), json!({ "id": nobody })).await;
    assert_indistinguishable(app, &own, node, json!({ "id": other.operator }), json!({ "id": nobody })).await;
});

both!(malformed_ids_and_ids_of_another_kind_do_not_exist, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    for id in ["", "x", "cus_", "cus_x", &own.operator, "1' OR '1'='1", "key_01h455vb4pex5vsknk084sn02q"] {
        assert_eq!(app.customer(&own, json!({ "id": id })).await, json!(null), "{id}");
        let refused = app.update(&own, json!({ "id": id }), json!({ "firstName": "Eve" })).await;
        refused.assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "input.customer")]);
    }
    for id in ["", "x", NOBODY, "op_", "key_01h455vb4pex5vsknk084sn02q"] {
        let answer = app
            .graphql(&own, "query ($id: ID!) { node(id: $id) { id } operator(id: $id) { id } }", json!({ "id": id }))
            .await;
        assert_eq!(answer.body, json!({ "data": { "node": null, "operator": null } }), "{id}");
    }
});

both!(an_operator_sees_only_its_own_link_and_itself, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({ "email": "ada@example.com" });
    app.created(&other, "theirs", data.clone()).await;
    let connected = app.created(&own, "mine", data).await;
    let query = "{ viewer { role environment operator { id name } }
        operators { totalCount edges { node { id customers { totalCount } } } }
        operator { name }
        customer(by: { externalCustomerId: \"mine\" }) { externalCustomerId operators { edges { externalCustomerId node { name } } pageInfo { hasNextPage hasPreviousPage } } }
        customers { totalCount edges { externalCustomerId node { operators(last: 5) { edges { externalCustomerId node { name } } } } } } }";
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
        operators { totalCount edges { node { name customers { totalCount edges { externalCustomerId connectedAt node { externalCustomerId email } } } } } }
        customers { totalCount edges { externalCustomerId connectedAt node { externalCustomerId email operators { edges { externalCustomerId node { name } } } } } } }";
    let seen = app.query(&platform, query).await;
    assert_eq!(seen["viewer"], json!({ "role": "PLATFORM", "operator": null }));
    assert_eq!(seen["operator"], json!(null));
    assert_eq!(seen["operators"]["totalCount"], 2);
    let of_second = &seen["operators"]["edges"][1]["node"];
    assert_eq!(of_second["name"], "Second");
    assert_eq!(of_second["customers"]["totalCount"], 2);
    assert_eq!(of_second["customers"]["edges"][0]["externalCustomerId"], "s");
    assert_eq!(of_second["customers"]["edges"][0]["node"]["externalCustomerId"], json!(null));
    assert_eq!(seen["customers"]["totalCount"], 2);
    let ada = &seen["customers"]["edges"][0];
    assert_eq!(ada["externalCustomerId"], json!(null));
    assert_eq!(ada["connectedAt"], json!(null));
    assert_eq!(
        ada["node"]["operators"]["edges"],
        json!([{ "externalCustomerId": "f", "node": { "name": "First" } }, { "externalCustomerId": "s", "node": { "name": "Second" } }])
    );
    for by in [json!({ "id": id }), json!({ "email": "ada@example.com" })] {
        assert_eq!(app.customer(&platform, by).await["id"], id);
    }
    // It has no external ids of its own.
    let by = "query ($by: CustomerRef!) { customer(by: $by) { id } }";
    let answer = app.graphql(&platform, by, json!({ "by": { "externalCustomerId": "f" } })).await;
    answer.assert_rejected("customer", &[("INVALID_ARGUMENT", "by.externalCustomerId")]);
    let list = "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount } }";
    let answer = app.graphql(&platform, list, json!({ "filter": { "externalCustomerId": "f" } })).await;
    answer.assert_rejected("customers", &[("INVALID_ARGUMENT", "filter.externalCustomerId")]);
});

both!(a_malformed_value_in_a_reference_or_filter_is_a_fault, Sandbox, async |app| {
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

both!(in_a_crowd_each_is_told_of_its_own_customer_alone, Sandbox, async |app| {
    let mut crowd = Vec::new();
    for number in 0..8 {
        let operator = app.operator(&format!("Operator {number}")).await;
        let data = json!({ "email": format!("{number}@example.com"), "phone": format!("+1415555267{number}") });
        // All have the same external id, and one of them is nobody's.
        let created = app.created(&operator, if number == 0 { "other" } else { "same" }, data).await;
        crowd.push((operator, number, created["customer"]["id"].clone()));
    }
    let ids: Vec<_> = crowd.iter().map(|(_, _, id)| id.clone()).collect();
    let names: Vec<_> =
        ids.iter().map(|id| json!({ "id": id })).chain([json!({ "externalCustomerId": "same" })]).collect();
    let asked = crowd.iter().flat_map(|asking| names.iter().map(move |name| (asking, name)));
    let told = asked.map(|((operator, number, id), name)| async move {
        let customer = app.customer(operator, name.clone()).await;
        let is_own = name["id"] == *id || name["id"] == Value::Null && *number > 0;
        let expected = if is_own { json!(format!("{number}@example.com")) } else { Value::Null };
        assert_eq!(customer["email"], expected, "{number}: {name}");
    });
    join_all(told).await;
});
