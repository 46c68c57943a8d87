//! `updateCustomer`: omitted and null fields, expected versions, and errors.

use serde_json::{Value, json};

use support::{TestCaller, both};

both!(omitted_fields_stay_and_null_clears, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let address = json!({ "line1": "1 Main St", "line2": "Apt 4", "city": "Springfield", "country": "US" });
    let data = json!({
        "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada", "lastName": "Lovelace",
        "address": address,
    });
    let created = app.created(&operator, "user-1", data).await["customer"].clone();
    let by_id = json!({ "id": created["id"] });

    let updated = app.updated(&operator, by_id.clone(), json!({ "lastName": "King" })).await["customer"].clone();
    let mut expected = created.clone();
    expected["lastName"] = json!("King");
    expected["version"] = json!(2);
    expected["updatedAt"] = updated["updatedAt"].clone();
    assert_eq!(updated, expected);

    let nulls = json!({ "phone": null, "firstName": null, "lastName": null, "address": null });
    let cleared = app.updated(&operator, by_id.clone(), nulls).await["customer"].clone();
    for field in ["phone", "firstName", "lastName", "address"] {
        assert_eq!(cleared[field], json!(null), "{field}");
    }
    assert_eq!(cleared["email"], "ada@example.com");
    assert_eq!(cleared["version"], 3);
    assert_eq!(cleared["missingFields"], json!(["FIRST_NAME", "LAST_NAME", "PHONE", "ADDRESS"]));

    let answer = app.update(&operator, by_id, json!({ "email": null })).await;
    answer.assert_rejected("updateCustomer", &[("INVALID_EMAIL", "input.data.email")]);
});

// A typical web form declares a variable for every field, and sends only the variables that have changed.
both!(omitted_variables_keep_fields_and_null_variables_clear_them, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    let data =
        json!({ "email": "ada@example.com", "phone": "+14155552671", "lastName": "Lovelace", "address": address });
    let created = app.created(&operator, "user-1", data).await["customer"].clone();
    let update = "mutation ($id: String!, $email: String, $phone: String, $first: String, $last: String, \
                  $address: AddressInput, $version: Int, $key: String) { \
                  updateCustomer(input: { customer: { externalCustomerId: $id }, \
                  data: { email: $email, phone: $phone, firstName: $first, lastName: $last, address: $address }, \
                  expectedVersion: $version, idempotencyKey: $key }) { \
                  customer { email phone firstName lastName version \
                  address { line1 line2 } } } }";
    let updated = app.graphql(&operator, update, json!({ "id": "user-1", "first": "Ada" })).await;
    let updated = updated.payload("updateCustomer")["customer"].clone();
    assert_eq!(updated["firstName"], "Ada");
    for field in ["email", "phone", "lastName"] {
        assert_eq!(updated[field], created[field], "{field}");
    }
    assert_eq!(updated["address"]["line1"], "1 Main St");
    let removed = app.graphql(&operator, update, json!({ "id": "user-1", "phone": null, "address": null })).await;
    let removed = removed.payload("updateCustomer")["customer"].clone();
    assert_eq!(
        (&removed["phone"], &removed["address"], &removed["firstName"]),
        (&json!(null), &json!(null), &json!("Ada"))
    );
    // One variable is within a nested object, and one variable has a default value. Both variables are in a fragment.
    let nested = "mutation ($line2: String, $last: String = \"King\") { ...f } fragment f on Mutation { \
                  updateCustomer(input: { customer: { externalCustomerId: \"user-1\" }, \
                  data: { lastName: $last, address: { line1: \"2 Side St\", line2: $line2, \
                  city: \"Springfield\", country: \"US\" } } }) { customer { lastName address { line1 line2 } } } }";
    let nested = app.graphql(&operator, nested, json!({})).await.payload("updateCustomer")["customer"].clone();
    assert_eq!(nested, json!({ "lastName": "King", "address": { "line1": "2 Side St", "line2": null } }));
});

both!(missing_required_variables_are_rejected_before_execution, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create = "mutation ($second: CreateCustomerInput!) { \
                  a: createCustomer(input: { externalCustomerId: \"1\", data: { email: \"a@example.com\" } }) \
                  { outcome } \
                  b: createCustomer(input: $second) { outcome } }";
    for variables in [json!({}), json!({ "second": null })] {
        let answer = app.graphql(&operator, create, variables).await;
        assert_eq!((answer.codes(), answer.body.get("data")), (vec!["BAD_REQUEST".to_owned()], None));
    }
    assert_eq!(app.count_rows("customer").await, 0);
});

both!(an_address_is_replaced_as_a_whole, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let address = json!({ "line1": "1 Main St", "line2": "Apt 4", "city": "Springfield", "country": "US" });
    app.created(&operator, "user-1", json!({ "email": "ada@example.com", "address": address })).await;
    let address = json!({ "line1": "2 Side St", "city": "Shelbyville", "country": "US" });
    let customer = json!({ "externalCustomerId": "user-1" });
    let updated = app.updated(&operator, customer, json!({ "address": address })).await;
    assert_eq!(updated["customer"]["address"]["line1"], "2 Side St");
    assert_eq!(updated["customer"]["address"]["line2"], json!(null));
});

both!(an_update_without_changes_writes_nothing, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let created = app.created(&operator, "user-1", data).await["customer"].clone();
    let rows = async || [app.count_rows("customer_event").await, app.count_rows("customer_change").await];
    let before = rows().await;
    for same in [
        json!({}),
        json!({ "email": " ADA@example.com ", "phone": "(415) 555-2671", "firstName": " Ada ", "lastName": null }),
    ] {
        let updated = app.updated(&operator, json!({ "id": created["id"] }), same).await;
        assert_eq!(updated["customer"], created);
    }
    assert_eq!(rows().await, before);
});

both!(a_wrong_expected_version_is_a_conflict, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let query = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
    let update = async |version: i32, name: &str| {
        let customer = json!({ "externalCustomerId": "user-1" });
        let input = json!({ "customer": customer, "data": { "firstName": name }, "expectedVersion": version });
        app.graphql(&operator, query, json!({ "input": input })).await
    };
    assert_eq!(update(1, "Ada").await.payload("updateCustomer")["customer"]["version"], 2);
    for stale in [1, 0, 3, -1] {
        let answer = update(stale, "Augusta").await;
        answer.assert_rejected("updateCustomer", &[("VERSION_CONFLICT", "input.expectedVersion")]);
    }
    let customer = app.customer(&operator, json!({ "externalCustomerId": "user-1" })).await;
    assert_eq!(customer["firstName"], "Ada");
});

both!(an_email_or_phone_of_any_customer_is_taken, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let sibling = json!({ "email": "sibling@example.com", "phone": "+14155552671" });
    let sibling = app.created(&own, "sibling", sibling).await["customer"]["id"].clone();
    app.created(&other, "theirs", json!({ "email": "theirs@example.com", "phone": "+14155552672" })).await;
    let customer = json!({ "externalCustomerId": "mine" });
    let taken_by_own = json!({ "email": "sibling@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let taken_by_other = json!({ "email": "theirs@example.com", "phone": "+14155552672", "firstName": "Ada" });
    let own_answer = app.update(&own, customer.clone(), taken_by_own).await;
    let other_answer = app.update(&own, customer.clone(), taken_by_other).await;
    let expected = [("EMAIL_TAKEN", "input.data.email"), ("PHONE_TAKEN", "input.data.phone")];
    own_answer.assert_rejected("updateCustomer", &expected);
    other_answer.assert_rejected("updateCustomer", &expected);
    // An own customer is named. Of another customer, the response reveals only that it exists.
    for (answer, id) in [(own_answer, &sibling), (other_answer, &Value::Null)] {
        for error in answer.body["errors"].as_array().unwrap() {
            assert_eq!(&error["extensions"]["customerId"], id, "{error}");
        }
    }
    let answer = app.update(&app.platform(), json!({ "id": sibling }), json!({ "email": "mine@example.com" })).await;
    answer.assert_rejected("updateCustomer", &expected[..1]);
    assert_eq!(answer.body["errors"][0]["extensions"]["customerId"], Value::Null);
    let unchanged = app.customer(&own, customer).await;
    assert_eq!(unchanged["firstName"], json!(null));
    assert_eq!(unchanged["version"], 1);
});

both!(a_cleared_value_can_be_used_again, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "one", json!({ "email": "one@example.com", "phone": "+14155552671" })).await;
    app.created(&operator, "two", json!({ "email": "two@example.com" })).await;
    app.updated(&operator, json!({ "externalCustomerId": "one" }), json!({ "phone": null })).await;
    let updated =
        app.updated(&operator, json!({ "externalCustomerId": "two" }), json!({ "phone": "+14155552671" })).await;
    assert_eq!(updated["customer"]["phone"], "+14155552671");
});

both!(invalid_values_are_reported_before_an_unknown_customer, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let answer = app.update(&operator, json!({ "externalCustomerId": "nobody" }), json!({ "firstName": "" })).await;
    answer.assert_rejected("updateCustomer", &[("INVALID_NAME", "input.data.firstName")]);
    let answer = app.update(&operator, json!({ "externalCustomerId": "nobody" }), json!({ "firstName": "Ada" })).await;
    answer.assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "input.customer")]);
    let answer = app.update(&operator, json!({ "externalCustomerId": " " }), json!({})).await;
    let expected = [("INVALID_EXTERNAL_CUSTOMER_ID", "input.customer.externalCustomerId")];
    answer.assert_rejected("updateCustomer", &expected);
});

both!(restrictions_apply_only_to_changed_values, Production, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    // The stored values violate restrictions that were added later.
    let change = "UPDATE customer SET email = 'ada+1@mailinator.com', phone = '+442079460018'";
    app.execute(change).await;
    let customer = json!({ "externalCustomerId": "user-1" });
    let same = json!({ "email": "Ada+1@Mailinator.com", "phone": "+44 20 7946 0018", "firstName": "Ada" });
    let updated = app.updated(&operator, customer.clone(), same).await;
    assert_eq!(updated["customer"]["firstName"], "Ada");
    assert_eq!(updated["warnings"], json!([]));

    let changed = json!({ "email": "ada+2@example.com", "phone": "+442079460019", "lastName": "" });
    let answer = app.update(&operator, customer, changed).await;
    let expected = [
        ("PLUS_SUFFIX_EMAIL", "input.data.email"),
        ("PHONE_NOT_MOBILE", "input.data.phone"),
        ("INVALID_NAME", "input.data.lastName"),
    ];
    answer.assert_rejected("updateCustomer", &expected);
    app.rebuild_search_words().await;
});

const RENAME: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed \
    customer { id externalCustomerId firstName version updatedAt } } }";

both!(an_operator_changes_its_own_id_of_a_customer, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({ "email": "ada@example.com", "firstName": "Ada" });
    let created = app.created(&own, "old one", data.clone()).await["customer"].clone();
    app.created(&other, "theirs", data).await;
    let second = app.created(&own, "second", json!({ "email": "grace@example.com" })).await["customer"].clone();
    let send = async |input: Value| app.graphql(&own, RENAME, json!({ "input": input })).await;
    let rename = async |id: &str, new: Value| {
        send(json!({ "customer": { "externalCustomerId": id }, "externalCustomerId": new })).await
    };

    let renamed = rename("old one", json!("new")).await.payload("updateCustomer")["customer"].clone();
    let expected = json!({
        "id": created["id"], "externalCustomerId": "new", "firstName": "Ada", "version": 1,
        "updatedAt": created["updatedAt"],
    });
    assert_eq!(renamed, expected);
    assert_eq!(app.customer(&own, json!({ "externalCustomerId": "old one" })).await, json!(null));
    let found = async |caller: &TestCaller, word: &str| {
        let query = format!("{{ customers(filter: {{ search: \"{word}\" }}) {{ totalCount }} }}");
        app.query(caller, &query).await["customers"]["totalCount"].clone()
    };
    assert_eq!((found(&own, "new").await, found(&own, "old one").await), (json!(1), json!(0)));
    assert_eq!((found(&other, "new").await, found(&other, "theirs").await), (json!(0), json!(1)));
    let theirs = app.customer(&other, json!({ "externalCustomerId": "theirs" })).await;
    assert_eq!((&theirs["id"], &theirs["version"]), (&created["id"], &json!(1)));

    // Sending the current id again is no error, and writes no history entry.
    let events = app.count_rows("customer_event").await;
    rename("new", json!("new")).await.payload("updateCustomer");
    assert_eq!(app.count_rows("customer_event").await, events);

    let taken = rename("new", json!("second")).await;
    taken.assert_rejected("updateCustomer", &[("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId")]);
    assert_eq!(taken.body["errors"][0]["extensions"]["customerId"], second["id"]);
    for invalid in [json!(null), json!(""), json!("x\u{7}")] {
        let answer = rename("new", invalid).await;
        answer.assert_rejected("updateCustomer", &[("INVALID_EXTERNAL_CUSTOMER_ID", "input.externalCustomerId")]);
    }
    send(json!({ "customer": { "externalCustomerId": "new" } }))
        .await
        .assert_rejected("updateCustomer", &[("INVALID_ARGUMENT", "input.data")]);
    let all = json!({
        "customer": { "externalCustomerId": "new" }, "externalCustomerId": "second", "expectedVersion": 7,
        "data": { "email": "grace@example.com" },
    });
    let expected = [
        ("EMAIL_TAKEN", "input.data.email"),
        ("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId"),
        ("VERSION_CONFLICT", "input.expectedVersion"),
    ];
    send(all).await.assert_rejected("updateCustomer", &expected);

    // If the id and values change together, each change has a history entry.
    let both = json!({
        "customer": { "externalCustomerId": "new" }, "externalCustomerId": "newest", "data": { "firstName": "Augusta" },
        "idempotencyKey": "k",
    });
    for is_replayed in [false, true] {
        let payload = send(both.clone()).await.payload("updateCustomer");
        assert_eq!((&payload["replayed"], &payload["customer"]["version"]), (&json!(is_replayed), &json!(2)));
        assert_eq!(payload["customer"]["externalCustomerId"], "newest");
    }
    let mut reused = both;
    reused["externalCustomerId"] = json!("another");
    assert_eq!(send(reused).await.codes(), ["IDEMPOTENCY_KEY_REUSED"]);
    // The old id can be used again.
    app.created(&own, "old one", json!({ "email": "new@example.com" })).await;

    let platform = json!({ "customer": { "id": created["id"] }, "externalCustomerId": "by the platform" });
    let answer = app.graphql(&app.platform(), RENAME, json!({ "input": platform })).await;
    answer.assert_rejected("updateCustomer", &[("INVALID_ARGUMENT", "input.externalCustomerId")]);

    let history = "query ($id: ID!) { customer(by: { id: $id }) { history { nodes { \
                   type version changedFields before { externalCustomerId } after { externalCustomerId } } } } }";
    let entries = async |caller: &TestCaller| {
        let answer = app.graphql(caller, history, json!({ "id": created["id"] })).await;
        let nodes = answer.data()["customer"]["history"]["nodes"].as_array().unwrap().clone();
        nodes.into_iter().filter(|node| node["type"] == "EXTERNAL_CUSTOMER_ID_CHANGED").collect::<Vec<_>>()
    };
    let entry = |version: i32, before: &str, after: &str| {
        json!({
            "type": "EXTERNAL_CUSTOMER_ID_CHANGED", "version": version, "changedFields": [],
            "before": { "externalCustomerId": before }, "after": { "externalCustomerId": after },
        })
    };
    let expected = [entry(1, "old one", "new"), entry(2, "new", "newest")];
    assert_eq!(entries(&own).await, expected);
    assert_eq!(entries(&app.platform()).await, expected);
    assert_eq!(entries(&other).await, Vec::<Value>::new());
});
