//! A scenario for each error code. The `match` in `codes_of` is exhaustive, so a new code without a scenario does not
//! compile.

use async_graphql::resolver_utils::EnumType;
use entity::deployment::Environment;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use vivamo::config::RateLimitSettings;
use vivamo::error::ErrorCode;

use support::{Answer, TestApp, TestCaller, Timeouts, both};

/// Sends a request that fails with this code, and returns the codes of the answer.
async fn codes_of(app: &TestApp, code: ErrorCode) -> Vec<String> {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let create =
        async |external_customer_id: &str, data: Value| app.create(&own, external_customer_id, data).await.codes();
    let by = "query ($by: CustomerRef!) { customer(by: $by) { id } }";
    match code {
        ErrorCode::InvalidExternalCustomerId => create("", json!({ "email": "a@example.com" })).await,
        ErrorCode::InvalidEmail => create("1", json!({ "email": "a" })).await,
        ErrorCode::InvalidPhone => create("1", json!({ "email": "a@example.com", "phone": "1" })).await,
        ErrorCode::InvalidName => create("1", json!({ "email": "a@example.com", "firstName": "" })).await,
        ErrorCode::InvalidAddress => {
            let address = json!({ "line1": "", "city": "Springfield", "country": "US" });
            create("1", json!({ "email": "a@example.com", "address": address })).await
        }
        ErrorCode::InvalidUrl => crate::webhooks::create(app, &own, "https://127.0.0.1/").await.codes(),
        ErrorCode::InvalidArgument => {
            app.graphql(&own, "{ customers(first: 0) { totalCount } }", json!({})).await.codes()
        }
        ErrorCode::DisposableEmail => create("1", json!({ "email": "a@mailinator.com" })).await,
        ErrorCode::PlusSuffixEmail => create("1", json!({ "email": "a+b@example.com" })).await,
        ErrorCode::PhoneNotMobile => create("1", json!({ "email": "a@example.com", "phone": "+442079460018" })).await,
        ErrorCode::PhoneLookupUnavailable => crate::carrier::codes_of_an_unreachable_carrier(app).await,
        ErrorCode::ExternalCustomerIdTaken => {
            app.created(&own, "taken", json!({ "email": "own-1@example.com" })).await;
            create("taken", json!({ "email": "own-2@example.com" })).await
        }
        ErrorCode::EmailTaken => {
            app.created(&own, "email", json!({ "email": "email@example.com" })).await;
            create("1", json!({ "email": "email@example.com" })).await
        }
        ErrorCode::PhoneTaken => {
            app.created(&own, "phone", json!({ "email": "phone@example.com", "phone": "+14155552671" })).await;
            create("1", json!({ "email": "phone-2@example.com", "phone": "+14155552671" })).await
        }
        ErrorCode::IdentityConflict => {
            app.created(&other, "1", json!({ "email": "one@example.com" })).await;
            app.created(&other, "2", json!({ "email": "two@example.com", "phone": "+14155552672" })).await;
            create("1", json!({ "email": "one@example.com", "phone": "+14155552672" })).await
        }
        ErrorCode::VersionConflict => {
            app.created(&own, "version", json!({ "email": "version@example.com" })).await;
            let update = "mutation { updateCustomer(input: { customer: { externalCustomerId: \"version\" }, data: {}, \
                          expectedVersion: 7 }) { customer { id } } }";
            app.graphql(&own, update, json!({})).await.codes()
        }
        ErrorCode::IdempotencyKeyReused => {
            let create = "mutation ($email: String!) { createCustomer(input: { externalCustomerId: $email, \
                          data: { email: $email }, idempotencyKey: \"k\" }) { replayed } }";
            app.graphql(&own, create, json!({ "email": "first@example.com" })).await.payload("createCustomer");
            app.graphql(&own, create, json!({ "email": "second@example.com" })).await.codes()
        }
        ErrorCode::CustomerNotFound => app.update(&own, json!({ "id": "x" }), json!({})).await.codes(),
        ErrorCode::OperatorNotFound => {
            let create = "mutation { createApiKey(input: { operatorId: \"op_x\", name: \"x\" }) { secret } }";
            app.graphql(&app.platform(), create, json!({})).await.codes()
        }
        ErrorCode::ApiKeyNotFound => {
            let revoke = "mutation { revokeApiKey(input: { id: \"key_x\" }) { apiKey { id } } }";
            app.graphql(&app.platform(), revoke, json!({})).await.codes()
        }
        ErrorCode::WebhookNotFound => {
            let delete = "mutation { deleteWebhook(input: { id: \"wh_x\" }) { webhookId } }";
            app.graphql(&own, delete, json!({})).await.codes()
        }
        ErrorCode::TooManyWebhooks => {
            for _ in 0..5 {
                crate::webhooks::created(app, &own).await;
            }
            crate::webhooks::create(app, &own, "https://receiver.example/").await.codes()
        }
        ErrorCode::RateLimited => codes_of_second_disclosure(app, &other).await,
        ErrorCode::Unauthenticated => {
            let unknown_key = TestCaller { key: "x".into(), ..own };
            app.graphql(&unknown_key, "{ viewer { role } }", json!({})).await.codes()
        }
        ErrorCode::Forbidden => app.create(&app.platform(), "1", json!({ "email": "a@example.com" })).await.codes(),
        ErrorCode::CursorExpired => crate::changes::codes_of_an_expired_cursor(app, &own).await,
        ErrorCode::ResponseTooLarge => {
            crate::hostile::create_long_addresses(app, &own).await;
            let answer = app.graphql(&own, crate::hostile::LARGE_RESPONSE, json!({})).await;
            // There is one error for each list that did not fit into the response.
            answer.codes().into_iter().take(1).collect()
        }
        ErrorCode::BadRequest => app.graphql(&own, "{ nothing }", json!({})).await.codes(),
        ErrorCode::PersistedQueryNotSupported => {
            let body = json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": "x" } } });
            let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&own.key).json(&body);
            Answer::read(request.send().await.unwrap()).await.codes()
        }
        ErrorCode::Unavailable => {
            let replica = app.replica_with_timeouts(Timeouts::deployed()).await;
            // Another transaction blocks the create for longer than a request waits.
            let writer = app.database.begin_write().await.unwrap();
            if app.is_postgres() {
                writer.execute_unprepared("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
            }
            let answer = replica.create(&own, "1", json!({ "email": "unavailable@example.com" })).await;
            writer.commit().await.unwrap();
            replica.stop().await;
            assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], true);
            answer.codes()
        }
        ErrorCode::Internal => {
            let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
            app.execute(&rename("customer_operator", "lost")).await;
            let answer = app.graphql(&own, by, json!({ "by": { "email": "a@example.com" } })).await;
            app.execute(&rename("lost", "customer_operator")).await;
            assert_eq!(answer.body["data"], json!({ "customer": null }));
            assert!(!answer.body.to_string().contains("lost"));
            answer.codes()
        }
    }
}

/// Tries to connect two customers of `other` while the limit is one disclosure per hour. Returns the error codes of the
/// second attempt.
async fn codes_of_second_disclosure(app: &TestApp, other: &TestCaller) -> Vec<String> {
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let limited = app.replica_with(app.database_url().to_owned(), limits).await;
    let own = limited.operator("Limited").await;
    for number in 0..2 {
        app.created(other, &format!("known {number}"), json!({ "email": format!("known-{number}@example.com") })).await;
    }
    limited.created(&own, "1", json!({ "email": "known-0@example.com" })).await;
    let codes = limited.create(&own, "2", json!({ "email": "known-1@example.com" })).await.codes();
    limited.stop().await;
    codes
}

/// The environment in which the scenario of a code runs.
fn environment_of(code: ErrorCode) -> Environment {
    let occurs_only_in_production = matches!(
        code,
        ErrorCode::DisposableEmail
            | ErrorCode::PlusSuffixEmail
            | ErrorCode::PhoneNotMobile
            | ErrorCode::PhoneLookupUnavailable
    );
    if occurs_only_in_production { Environment::Production } else { Environment::Sandbox }
}

async fn assert_scenarios(app: &TestApp) {
    let codes = ErrorCode::items().iter().map(|item| item.value);
    for code in codes.filter(|code| environment_of(*code) == app.services.environment) {
        let codes = codes_of(app, code).await;
        assert!(!codes.is_empty() && codes.iter().all(|name| name == code.name()), "{}: {codes:?}", code.name());
    }
}

both!(each_error_code_has_a_scenario, Sandbox, async |app| {
    assert_scenarios(app).await;
});

both!(a_failing_field_nulls_only_itself, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let query = "{ viewer { role } bad: customers(first: 0) { totalCount } \
                 worse: customers(first: 1, last: 1, after: \"x\") { totalCount } \
                 good: customers { edges { node { email operators(first: 101) { edges { cursor } } } } } }";
    let answer = app.graphql(&operator, query, json!({})).await;
    assert_eq!(answer.status, 200);
    let node = json!({ "email": "ada@example.com", "operators": null });
    assert_eq!(
        answer.body["data"],
        json!({ "viewer": { "role": "OPERATOR" }, "bad": null, "worse": null, "good": { "edges": [{ "node": node }] } })
    );
    let errors = answer.body["errors"].as_array().unwrap();
    let paths: Vec<_> = errors.iter().map(|error| error["path"].clone()).collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(paths.contains(&json!(["bad"])) && paths.contains(&json!(["worse"])), "{paths:?}");
    assert!(paths.contains(&json!(["good", "edges", 0, "node", "operators"])), "{paths:?}");
});

both!(all_faulty_arguments_of_a_list_are_reported, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let invalid = |path: &str| ("INVALID_ARGUMENT".to_owned(), path.to_owned());
    let email = ("INVALID_EMAIL".to_owned(), "filter.email".to_owned());
    for (caller, arguments, expected) in [
        (&operator, "first: 0, last: 0", vec![invalid("first"), invalid("last")]),
        (&operator, "first: 1, last: 1", vec![invalid("last")]),
        (&operator, "first: 0, filter: { email: \"x\" }", vec![invalid("first"), email.clone()]),
        (
            &app.platform(),
            "first: 0, filter: { search: \"ada\", connectedAt: {}, email: \"x\" }",
            vec![invalid("filter.connectedAt"), invalid("filter.search"), invalid("first"), email],
        ),
    ] {
        let answer = app.graphql(caller, &format!("{{ customers({arguments}) {{ totalCount }} }}"), json!({})).await;
        assert_eq!(answer.errors(), expected, "{arguments}");
    }
});

both!(invalid_documents_and_variables_are_bad_requests, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (query, variables) in [
        ("{", json!({})),
        ("", json!({})),
        ("{ nothing }", json!({})),
        ("{ viewer { role(x: 1) } }", json!({})),
        ("query ($by: CustomerRef!) { customer(by: $by) { id } }", json!({ "by": { "id": "x", "email": "y" } })),
        ("query ($by: CustomerRef!) { customer(by: $by) { id } }", json!({ "by": {} })),
        ("query ($by: CustomerRef!) { customer(by: $by) { id } }", json!({})),
        ("{ customers(first: 99999999999) { totalCount } }", json!({})),
        ("query A { viewer { role } } query B { viewer { role } }", json!({})),
        ("subscription { x }", json!({})),
        (
            "query ($from: DateTime) { customers(filter: { createdAt: { from: $from } }) { totalCount } }",
            json!({ "from": "yesterday" }),
        ),
        ("{ customers(filter: { createdAt: { from: \"2026-11-23\" } }) { totalCount } }", json!({})),
    ] {
        let answer: Answer = app.graphql(&operator, query, variables).await;
        let codes = answer.codes();
        assert!(!codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"), "{query}: {codes:?}");
    }
});

both!(variables_are_validated_although_the_document_is_cached, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
    let nested = "query ($id: ID, $first: Int = 3) { customer(by: { externalCustomerId: $id }) { email } \
                  customers(first: $first) { totalCount } }";
    let update = "mutation ($id: String!, $name: String, $version: Int) { \
                  updateCustomer(input: { customer: { externalCustomerId: $id }, data: { firstName: $name }, \
                  expectedVersion: $version }) { customer { version firstName } } }";
    let order = "query ($field: CustomerOrderField!, $missing: [CustomerField!]) { \
                 customers(orderBy: { field: $field, direction: ASC }, filter: { missing: $missing }) { totalCount } }";
    for (query, good, bad) in [
        (
            nested,
            json!({ "id": "1" }),
            vec![
                json!({ "id": null }),
                json!({ "id": 1.5 }),
                json!({ "id": ["1"] }),
                json!({ "id": "1", "first": "x" }),
                json!({ "id": "1", "first": 1.5 }),
            ],
        ),
        (
            update,
            json!({ "id": "1", "name": "Ada", "version": 1 }),
            vec![
                json!({ "id": 1 }),
                json!({}),
                json!({ "id": "1", "name": true }),
                json!({ "id": "1", "version": "1" }),
            ],
        ),
        (
            order,
            json!({ "field": "CONNECTED_AT", "missing": ["PHONE"] }),
            vec![
                json!({ "field": "EMAIL" }),
                json!({ "field": 1 }),
                json!({ "field": "CONNECTED_AT", "missing": ["NAME"] }),
                json!({ "field": "CONNECTED_AT", "missing": [null] }),
            ],
        ),
    ] {
        // In the second round the document is cached and was validated before.
        for round in 0..2 {
            for variables in &bad {
                let answer = app.graphql(&operator, query, variables.clone()).await;
                let codes = answer.codes();
                assert!(
                    !codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"),
                    "{round} {query} {variables}: {}",
                    answer.body
                );
            }
            let variables = if round == 0 { good.clone() } else { json!({ "id": "1", "field": "CONNECTED_AT" }) };
            let answer = app.graphql(&operator, query, variables).await;
            answer.data();
        }
    }
    let customer = app.customer(&operator, json!({ "externalCustomerId": "1" })).await;
    assert_eq!((&customer["version"], &customer["firstName"]), (&json!(2), &json!("Ada")));
});

both!(each_error_code_of_production_has_a_scenario, Production, async |app| {
    assert_scenarios(app).await;
});

both!(a_message_about_a_variable_names_the_field, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";
    let list = "query ($order: CustomerOrder, $missing: [CustomerField!], $by: CustomerRef!) \
                { customers(orderBy: $order, filter: { missing: $missing }) { totalCount } customer(by: $by) { id } }";
    let by = json!({ "id": "x" });
    for (query, variables, message) in [
        (create, json!({}), "$input: required variable is missing."),
        (create, json!({ "input": null }), "$input: must not be null."),
        (create, json!({ "input": "x" }), "$input: must be of type CreateCustomerInput."),
        (
            create,
            json!({ "input": { "externalCustomerId": "1", "data": { "emial": "a@example.com" } } }),
            "$input.data.emial: unknown field of CustomerDataInput. Did you mean `email`?",
        ),
        (
            create,
            json!({ "input": { "externalCustomerId": "1", "data": { "email": "a@example.com", "age": 36 } } }),
            "$input.data.age: unknown field of CustomerDataInput.",
        ),
        (
            create,
            json!({ "input": { "externalCustomerId": "1", "data": { "email": "a@example.com", "__typename": "x" } } }),
            "$input.data.__typename: unknown field of CustomerDataInput.",
        ),
        (
            create,
            json!({ "input": { "externalCustomerID": "1", "data": { "email": "a@example.com" } } }),
            "$input.externalCustomerID: unknown field of CreateCustomerInput. Did you mean `externalCustomerId`?",
        ),
        (
            create,
            json!({ "input": { "externalCustomerId": "1", "data": {} } }),
            "$input.data.email: required field is missing.",
        ),
        (
            create,
            json!({ "input": { "externalCustomerId": 1, "data": { "email": "a@example.com" } } }),
            "$input.externalCustomerId: must be of type String.",
        ),
        (
            list,
            json!({ "by": by, "order": { "field": "EMAIL", "direction": "ASC" } }),
            "$order.field: must be one of CONNECTED_AT, EXTERNAL_CUSTOMER_ID.",
        ),
        (
            list,
            json!({ "by": by, "missing": ["PHONE", "NAME"] }),
            "$missing[1]: must be one of EMAIL, FIRST_NAME, LAST_NAME, PHONE, ADDRESS.",
        ),
        (
            list,
            json!({ "by": { "id": "x", "email": "a@example.com" } }),
            "$by: must have exactly one of the fields id, externalCustomerId, email, phone.",
        ),
    ] {
        let answer = app.graphql(&operator, query, variables).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "{}", answer.body);
        assert_eq!(answer.message(), message);
    }
});

both!(a_syntax_error_says_what_was_expected_and_where, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (query, message, place) in [
        (
            "{\n  customer(by: { email: \"ada@example.com\" ) { id } }",
            "Syntax error at line 2, column 43: expected name.",
            json!([{ "line": 2, "column": 43 }]),
        ),
        (
            "{ viewer { role } } }",
            "Syntax error at line 1, column 21: expected end of document or executable definition.",
            json!([{ "line": 1, "column": 21 }]),
        ),
        (
            "{ customer(by: { email: \"ada@example.com }) { id } }",
            "The document has an unterminated string.",
            json!(null),
        ),
    ] {
        let answer = app.graphql(&operator, query, json!({})).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "{}", answer.body);
        let error = &answer.body["errors"][0];
        assert_eq!((answer.message(), &error["locations"]), (message, &place), "{query}");
        assert!(!answer.body.to_string().contains("example.com"), "{}", answer.body);
    }
});

both!(all_faults_of_five_mutations_are_reported, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let control = "\\u0007";
    let data = format!(
        "{{ email: \"x\", phone: \"x\", firstName: \"{control}\", lastName: \"{control}\", address: {{ line1: \"\", \
         line2: \"{control}\", city: \"\", region: \"{control}\", postalCode: \"{control}\", country: \"x\" }} }}"
    );
    let create = format!("createCustomer(input: {{ externalCustomerId: \"\", data: {data} }}) {{ replayed }}");
    let one = app.graphql(&operator, &format!("mutation {{ {create} }}"), json!({})).await;
    assert_eq!(one.codes().len(), 11, "{}", one.body);
    let creates: Vec<_> = (0..5).map(|number| format!("c{number}: {create}")).collect();
    let five = app.graphql(&operator, &format!("mutation {{ {} }}", creates.join(" ")), json!({})).await;
    assert_eq!(five.codes().len(), 5 * 11, "{}", five.body);
    assert!(five.body["data"].is_object(), "{}", five.body);
});

both!(a_message_about_a_limit_names_the_limit, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let large =
        "{ customers(first: 100) { nodes { operators(first: 100) { nodes { id name createdAt apiKeys { id } } } } } }";
    let mut deep = "{ operator { id } }".to_owned();
    for _ in 0..4 {
        deep = deep.replace("{ id }", "{ customers(first: 1) { nodes { operators(first: 1) { nodes { id } } } } }");
    }
    for (query, message) in [
        (large.to_owned(), "more than 50000 fields"),
        (deep, "more than 15 levels of fields"),
        ("{ a ".repeat(41), "more than 40 levels of brackets"),
        (format!("{{ {} }}", "x".repeat(20_000)), "longer than 16 KiB"),
        (format!("{{ {} }}", "__typename ".repeat(501)), "more than 500 fields"),
    ] {
        let answer = app.graphql(&operator, &query, json!({})).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "{}", answer.body);
        assert!(answer.message().contains(message), "{}", answer.message());
    }
});
