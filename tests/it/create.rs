//! `createCustomer`: create, connect, and the errors of both.

use serde_json::{Value, json};

use support::{Answer, TestApp, TestCaller, both};
use vivamo::config::RateLimitSettings;

both!(all_taken_values_are_reported_together, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    app.created(&operator, "user-1", data.clone()).await;
    let answer = app.create(&operator, "user-1", data).await;
    let expected = [
        ("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId"),
        ("EMAIL_TAKEN", "input.data.email"),
        ("PHONE_TAKEN", "input.data.phone"),
    ];
    answer.assert_rejected("createCustomer", &expected);
});

both!(a_taken_value_names_the_callers_own_customer, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let create = async |caller: &TestCaller, name: &str, data: Value| {
        app.created(caller, name, data).await["customer"]["id"].clone()
    };
    let ada = create(&own, "ada", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    let bob = create(&own, "bob", json!({ "email": "bob@example.com" })).await;
    create(&other, "theirs", json!({ "email": "theirs@example.com", "phone": "+14155552672" })).await;
    let named = |answer: &Answer| -> Vec<(Value, Value)> {
        let errors = answer.body["errors"].as_array().unwrap().iter();
        errors.map(|error| (error["extensions"]["code"].clone(), error["extensions"]["customerId"].clone())).collect()
    };
    let data = json!({ "email": "bob@example.com", "phone": "+14155552671" });
    let answer = app.create(&own, "ada", data).await;
    let expected = [
        (json!("EXTERNAL_CUSTOMER_ID_TAKEN"), ada.clone()),
        (json!("EMAIL_TAKEN"), bob.clone()),
        (json!("PHONE_TAKEN"), ada.clone()),
    ];
    assert_eq!(named(&answer), expected);
    // Only the external id is taken; the email is new.
    let answer = app.create(&own, "bob", json!({ "email": "new@example.com" })).await;
    assert_eq!(named(&answer), [(json!("EXTERNAL_CUSTOMER_ID_TAKEN"), bob)]);
    // The errors never name a customer of another operator: a create does not report the match, and an update reports
    // only the code.
    let data = json!({ "email": "ada@example.com", "phone": "+14155552672" });
    assert_eq!(named(&app.create(&own, "new", data).await), [(json!("EMAIL_TAKEN"), ada)]);
    let data = json!({ "email": "theirs@example.com", "phone": "+14155552672" });
    let answer = app.update(&own, json!({ "externalCustomerId": "ada" }), data).await;
    assert_eq!(named(&answer), [(json!("EMAIL_TAKEN"), Value::Null), (json!("PHONE_TAKEN"), Value::Null)]);
});

both!(only_values_of_the_callers_customers_are_reported_as_taken, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    app.created(&other, "theirs", json!({ "email": "theirs@example.com", "phone": "+14155552671" })).await;
    // The email belongs to a customer of `own`, and the phone to a customer of `other`. The match of the phone is not
    // reported to `own`.
    let data = json!({ "email": "mine@example.com", "phone": "+14155552671" });
    let answer = app.create(&own, "user-1", data).await;
    answer.assert_rejected("createCustomer", &[("EMAIL_TAKEN", "input.data.email")]);
    // The phone belongs to a customer of `other`. The match of the email is not reported to `other`.
    let data = json!({ "email": "mine@example.com", "phone": "+14155552671" });
    let answer = app.create(&other, "user-1", data).await;
    answer.assert_rejected("createCustomer", &[("PHONE_TAKEN", "input.data.phone")]);
    // A taken external id is the only error: the match with a customer of `other` is not revealed.
    let answer = app.create(&own, "mine", json!({ "email": "theirs@example.com" })).await;
    let expected = [("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId")];
    answer.assert_rejected("createCustomer", &expected);
});

both!(an_email_and_a_phone_of_two_other_customers_are_an_identity_conflict, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "one@example.com" })).await;
    app.created(&other, "2", json!({ "email": "two@example.com", "phone": "+14155552671" })).await;
    let answer = app.create(&own, "x", json!({ "email": "one@example.com", "phone": "+14155552671" })).await;
    let expected = [("IDENTITY_CONFLICT", "input.data.email"), ("IDENTITY_CONFLICT", "input.data.phone")];
    answer.assert_rejected("createCustomer", &expected);
    assert!(answer.message().contains("omit the phone (`connectBy` must list EMAIL)"), "{}", answer.message());
    let text = answer.body.to_string();
    for secret in ["cus_", "two@", "Other"] {
        assert!(!text.contains(secret), "{text}");
    }
});

both!(connecting_fills_empty_fields_and_lists_unapplied_ones, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    let address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let before = app.created(&first, "f", data).await["customer"].clone();
    let data = json!({
        "email": "another@example.com", "phone": "+14155552671", "firstName": "Augusta", "lastName": "Lovelace",
        "address": address,
    });
    let connected = app.created(&second, "s", data).await;
    assert_eq!(connected["outcome"], "CONNECTED");
    assert_eq!(connected["matchedBy"], json!(["PHONE"]));
    assert_eq!(connected["unappliedFields"], json!(["EMAIL", "FIRST_NAME"]));
    let customer = &connected["customer"];
    assert_eq!(customer["email"], "ada@example.com");
    assert_eq!(customer["firstName"], "Ada");
    assert_eq!(customer["lastName"], "Lovelace");
    assert_eq!(customer["address"]["line1"], "1 Main St");
    assert_eq!(customer["version"], 2);
    assert_ne!(customer["updatedAt"], before["updatedAt"]);
    assert_eq!(customer["createdAt"], before["createdAt"]);
});

both!(connecting_without_new_values_does_not_change_the_customer, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    let data = json!({ "email": "ada@example.com", "firstName": "Ada" });
    let before = app.created(&first, "f", data.clone()).await["customer"].clone();
    let connected = app.created(&second, "s", data).await;
    assert_eq!(connected["outcome"], "CONNECTED");
    assert_eq!(connected["unappliedFields"], json!([]));
    for unchanged in ["version", "updatedAt", "createdAt", "id"] {
        assert_eq!(connected["customer"][unchanged], before[unchanged], "{unchanged}");
    }
});

both!(connecting_by_email_fills_an_empty_phone_and_keeps_a_stored_one, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    app.created(&operators[0], "1", json!({ "email": "ada@example.com" })).await;
    let filled = app.created(&operators[1], "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    assert_eq!(filled["customer"]["phone"], "+14155552671");
    assert_eq!(filled["customer"]["version"], 2);
    let data = json!({ "email": "ada@example.com", "phone": "+14155552672" });
    let connected = app.created(&operators[2], "1", data).await;
    assert_eq!(connected["customer"]["phone"], "+14155552671");
    assert_eq!(connected["unappliedFields"], json!(["PHONE"]));
    assert_eq!(connected["matchedBy"], json!(["EMAIL"]));
});

both!(all_invalid_fields_are_reported_together, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({
        "email": "no address", "phone": "1-800-FLOWERS", "firstName": " ", "lastName": "x".repeat(101),
        "address": { "line1": "", "city": "Springfield", "country": "ZZ" },
    });
    let answer = app.create(&operator, " padded ", data).await;
    let expected = [
        ("INVALID_EXTERNAL_CUSTOMER_ID", "input.externalCustomerId"),
        ("INVALID_EMAIL", "input.data.email"),
        ("INVALID_PHONE", "input.data.phone"),
        ("INVALID_NAME", "input.data.firstName"),
        ("INVALID_NAME", "input.data.lastName"),
        ("INVALID_ADDRESS", "input.data.address.line1"),
        ("INVALID_ADDRESS", "input.data.address.country"),
    ];
    answer.assert_rejected("createCustomer", &expected);
    assert_eq!(app.count_rows("customer").await, 0);
});

both!(invalid_values_are_reported_before_taken_ones, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let answer = app.create(&operator, "user-1", json!({ "email": "ada@example.com", "firstName": "" })).await;
    answer.assert_rejected("createCustomer", &[("INVALID_NAME", "input.data.firstName")]);
});

both!(read_only_keys_write_no_customers_and_the_platform_key_creates_none, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let read_only = app.key(&operator, entity::api_key::Access::ReadOnly).await;
    for caller in [&app.platform(), &read_only] {
        // These values are invalid, but the permission is checked first.
        let answer = app.create(caller, " ", json!({ "email": "x" })).await;
        answer.assert_rejected("createCustomer", &[("FORBIDDEN", "")]);
    }
    let answer = app.update(&read_only, json!({ "id": "x" }), json!({ "email": "x" })).await;
    answer.assert_rejected("updateCustomer", &[("FORBIDDEN", "")]);
});

both!(invalid_and_restricted_values_are_reported_together, Production, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "a+b@mailinator.com", "phone": "+442079460018", "lastName": "\u{7}" });
    let answer = app.create(&operator, "user-1", data).await;
    let expected = [
        ("DISPOSABLE_EMAIL", "input.data.email"),
        ("PHONE_NOT_MOBILE", "input.data.phone"),
        ("INVALID_NAME", "input.data.lastName"),
    ];
    answer.assert_rejected("createCustomer", &expected);
});

/// Sends a `createCustomer` with `connectBy`.
async fn create_by(app: &TestApp, caller: &TestCaller, id: &str, connect_by: Value, data: Value) -> Answer {
    let query = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome matchedBy } }";
    let input = json!({ "externalCustomerId": id, "data": data, "connectBy": connect_by });
    app.graphql(caller, query, json!({ "input": input })).await
}

both!(connect_by_restricts_the_values_that_connect, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    app.created(&other, "2", json!({ "email": "grace@example.com", "phone": "+14155552672" })).await;
    let (email, phone) = ("input.data.email", "input.data.phone");
    let conflict = |path| ("IDENTITY_CONFLICT", path);
    let by_email = json!({ "email": "ada@example.com" });
    let by_phone = json!({ "email": "new@example.com", "phone": "+14155552671" });
    let by_both = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    for (connect_by, data, expected) in [
        (json!(["PHONE"]), &by_email, vec![conflict(email)]),
        (json!(["EMAIL"]), &by_phone, vec![conflict(phone)]),
        (json!([]), &by_email, vec![conflict(email)]),
        (json!([]), &by_both, vec![conflict(email), conflict(phone)]),
        // If the email and the phone belong to two customers, each `connectBy` leads to a conflict.
        (
            json!(["EMAIL"]),
            &json!({ "email": "ada@example.com", "phone": "+14155552672" }),
            vec![conflict(email), conflict(phone)],
        ),
    ] {
        create_by(app, &own, "1", connect_by, data.clone()).await.assert_rejected("createCustomer", &expected);
    }
    let answer = create_by(app, &own, "1", json!(["EMAIL"]), by_phone.clone()).await;
    assert!(answer.message().contains("Omit the phone, add PHONE to `connectBy`, or contact the platform."));
    let answer = create_by(app, &own, "1", json!(["PHONE"]), by_email).await;
    assert!(answer.message().contains("Add EMAIL to `connectBy`, or contact the platform."));
    assert_eq!(app.count_rows("customer").await, 2);

    // One match by a listed value is enough for a connection. `connectBy` has no effect on own customers and unknown
    // people.
    let connected = create_by(app, &own, "1", json!(["PHONE", "PHONE"]), by_both.clone()).await;
    let expected = json!({ "outcome": "CONNECTED", "matchedBy": ["EMAIL", "PHONE"] });
    assert_eq!(connected.payload("createCustomer"), expected);
    create_by(app, &own, "1", json!([]), by_both).await.assert_rejected(
        "createCustomer",
        &[("EXTERNAL_CUSTOMER_ID_TAKEN", "input.externalCustomerId"), ("EMAIL_TAKEN", email), ("PHONE_TAKEN", phone)],
    );
    let created = create_by(app, &own, "2", json!([]), json!({ "email": "unknown@example.com" })).await;
    assert_eq!(created.payload("createCustomer"), json!({ "outcome": "CREATED", "matchedBy": [] }));
});

both!(each_match_excluded_by_connect_by_is_one_disclosure, Sandbox, async |app| {
    let limits = RateLimitSettings { disclosures_per_hour: 3, ..RateLimitSettings::OFF };
    let limited = app.replica_with(app.database_url().to_owned(), limits).await;
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    let by_both = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    let by_email = json!({ "email": "ada@example.com" });
    assert_eq!(create_by(&limited, &own, "1", json!([]), by_both).await.codes().len(), 2);
    assert_eq!(create_by(&limited, &own, "1", json!([]), by_email.clone()).await.codes(), ["IDENTITY_CONFLICT"]);
    assert_eq!(create_by(&limited, &own, "1", json!([]), by_email).await.codes(), ["RATE_LIMITED"]);
    limited.stop().await;
});

both!(an_idempotency_key_includes_connect_by, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let query = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed } }";
    let send = async |connect_by: Value| {
        let mut input =
            json!({ "externalCustomerId": "1", "data": { "email": "a@example.com" }, "idempotencyKey": "k" });
        if !connect_by.is_null() {
            input["connectBy"] = connect_by;
        }
        app.graphql(&own, query, json!({ "input": input })).await
    };
    assert_eq!(send(json!(null)).await.payload("createCustomer")["replayed"], false);
    assert_eq!(send(json!(["PHONE", "EMAIL", "EMAIL"])).await.payload("createCustomer")["replayed"], true);
    assert_eq!(send(json!(["EMAIL"])).await.codes(), ["IDEMPOTENCY_KEY_REUSED"]);
});
