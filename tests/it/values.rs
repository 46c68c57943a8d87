//! Values as people paste them: invisible characters, line breaks, codes of countries, and times at the ends of the
//! calendar. The unit tests of each value type contain tables of more values.

use serde_json::{Value, json};

use support::process::vivamo;
use support::{both, errors};

const VALUES: &str = "query ($by: CustomerRef!) { customer(by: $by) { email phone firstName missingFields \
    address { line1 line2 city region postalCode country } } }";

fn address(changes: Value) -> Value {
    let mut address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    address.as_object_mut().unwrap().append(&mut changes.as_object().unwrap().clone());
    json!({ "address": address })
}

both!(pasted_values_are_stored_in_their_canonical_form, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let without_city = json!({ "address": { "line1": "1 Orchard Rd", "country": "sg" } });
    for (number, (data, field, stored)) in [
        (json!({ "phone": "\u{202d}+14155552671\u{202c}" }), "/phone", "+14155552671"),
        (json!({ "phone": "\t+1\u{200e}415\u{2060}5552672\r\n" }), "/phone", "+14155552672"),
        (json!({ "phone": "\u{feff}+38344123456" }), "/phone", "+38344123456"),
        (json!({ "email": "\u{feff}bom@example.com\u{200b}" }), "/email", "bom@example.com"),
        (json!({ "firstName": "\u{feff}Ada" }), "/firstName", "Ada"),
        (json!({ "firstName": "\u{202d}Grace\u{202c}" }), "/firstName", "Grace"),
        (address(json!({ "line1": "c/o X\nStr 1" })), "/address/line1", "c/o X, Str 1"),
        (address(json!({ "line2": " Floor 2,\r\n\r\nRear \n" })), "/address/line2", "Floor 2, Rear"),
        (address(json!({ "region": "North\u{2028}East" })), "/address/region", "North, East"),
        (address(json!({ "city": "Prishtina", "country": "xk" })), "/address/country", "XK"),
        (without_city, "/address/city", "Singapore"),
        (address(json!({ "city": " ", "country": "HK" })), "/address/city", "Hong Kong"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = number.to_string();
        let mut given = json!({ "email": format!("{number}@example.com") });
        given.as_object_mut().unwrap().append(&mut data.as_object().unwrap().clone());
        app.created(&own, &id, given).await;
        let answer = app.graphql(&own, VALUES, json!({ "by": { "externalCustomerId": id } })).await;
        assert_eq!(answer.data()["customer"].pointer(field), Some(&json!(stored)), "{data}");
    }
});

both!(invalid_values_are_rejected_with_the_reason, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "known", json!({ "email": "known@example.com" })).await;
    for (id, data, error, words) in [
        ("1", json!({ "firstName": "\u{3164}" }), ("INVALID_NAME", "input.data.firstName"), "visible"),
        ("1", json!({ "lastName": "\u{34f}" }), ("INVALID_NAME", "input.data.lastName"), "visible"),
        ("1", json!({ "firstName": "\u{2800}" }), ("INVALID_NAME", "input.data.firstName"), "visible"),
        (
            "1",
            address(json!({ "line1": "\u{3164}" })),
            ("INVALID_ADDRESS", "input.data.address.line1"),
            "line1 has no visible",
        ),
        (
            "1",
            address(json!({ "city": "\u{ffa0}" })),
            ("INVALID_ADDRESS", "input.data.address.city"),
            "city has no visible",
        ),
        ("\u{feff}crm-1", json!({}), ("INVALID_EXTERNAL_CUSTOMER_ID", "input.externalCustomerId"), "U+FEFF"),
        ("crm-1\u{200b}", json!({}), ("INVALID_EXTERNAL_CUSTOMER_ID", "input.externalCustomerId"), "U+200B"),
        ("1", json!({ "email": "us\u{200b}er@example.com" }), ("INVALID_EMAIL", "input.data.email"), "U+200B"),
        ("1", json!({ "email": "user@exam\u{ad}ple.com" }), ("INVALID_EMAIL", "input.data.email"), "U+00AD"),
        ("1", address(json!({ "country": "UK" })), ("INVALID_ADDRESS", "input.data.address.country"), "GB"),
        ("1", address(json!({ "country": "el" })), ("INVALID_ADDRESS", "input.data.address.country"), "GR"),
        ("1", address(json!({ "country": "USA" })), ("INVALID_ADDRESS", "input.data.address.country"), "US"),
        (
            "1",
            json!({ "address": { "line1": "1 Main St", "country": "US" } }),
            ("INVALID_ADDRESS", "input.data.address.city"),
            "city is missing",
        ),
        ("1", json!({ "phone": "+5215512345678" }), ("INVALID_PHONE", "input.data.phone"), "+52 and the 10 digits"),
        (
            "1",
            json!({ "phone": "+52 044 55 1234 5678" }),
            ("INVALID_PHONE", "input.data.phone"),
            "+52 and the 10 digits",
        ),
        ("1", json!({ "phone": "+54 11 15 2345 6789" }), ("INVALID_PHONE", "input.data.phone"), "+54 9"),
    ] {
        let mut given = json!({ "email": "new@example.com" });
        given.as_object_mut().unwrap().append(&mut data.as_object().unwrap().clone());
        let mut answers = vec![app.create(&own, id, given).await];
        if id == "1" {
            answers.push(app.update(&own, json!({ "externalCustomerId": "known" }), data.clone()).await);
        }
        for answer in answers {
            assert_eq!(answer.errors(), errors(&[error]), "{data}");
            assert!(answer.message().contains(words), "{data}: {}", answer.message());
        }
    }
});

both!(times_outside_the_calendar_are_rejected_by_name, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    let query = "query ($filter: CustomerFilter!) { customers(filter: $filter) { totalCount } }";
    for (filter, path) in [
        (json!({ "createdAt": { "before": "9999-12-31T23:59:59-08:00" } }), "filter.createdAt.before"),
        (json!({ "createdAt": { "from": "0001-01-01T00:00:00+01:00" } }), "filter.createdAt.from"),
        (json!({ "connectedAt": { "before": "9999-12-31T23:59:59-08:00" } }), "filter.connectedAt.before"),
        (json!({ "connectedAt": { "from": "0000-01-01T00:00:00Z" } }), "filter.connectedAt.from"),
        // A leap second, and a time that is rounded up to the next microsecond.
        (json!({ "createdAt": { "before": "9999-12-31T23:59:60Z" } }), "filter.createdAt.before"),
        (json!({ "connectedAt": { "before": "9999-12-31T23:59:59.9999999Z" } }), "filter.connectedAt.before"),
    ] {
        let answer = app.graphql(&own, query, json!({ "filter": filter })).await;
        answer.assert_rejected("customers", &[("INVALID_ARGUMENT", path)]);
        assert!(answer.message().contains(path) && answer.message().contains("9999"), "{}", answer.message());
    }
    for filter in [
        json!({ "createdAt": { "from": "0001-01-01T00:00:00Z", "before": "9999-12-31T23:59:59.999999Z" } }),
        json!({ "connectedAt": { "from": "0001-01-01T00:00:00Z", "before": "9999-12-31T23:59:59.999999Z" } }),
    ] {
        let answer = app.graphql(&own, query, json!({ "filter": filter })).await;
        assert_eq!(answer.data()["customers"]["totalCount"], 1, "{filter}");
    }
    let create = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }";
    let folder = tempfile::TempDir::new().unwrap();
    let operator = own.operator.to_string();
    for time in ["9999-12-31T23:59:59-08:00", "9999-12-31T23:59:60Z"] {
        let input = json!({ "operatorId": own.operator, "name": "x", "expiresAt": time });
        let answer = app.graphql(&app.platform(), create, json!({ "input": input })).await;
        answer.assert_rejected("createApiKey", &[("INVALID_ARGUMENT", "input.expiresAt")]);
        assert!(answer.message().contains("9999"), "{}", answer.message());
        let arguments = ["key", "create", &operator, "--name", "x", "--expires-at", time];
        let rejected = vivamo(folder.path(), &arguments).env("DATABASE_URL", app.database_url()).output().unwrap();
        assert_eq!(rejected.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&rejected.stderr).contains("10000"));
    }
});

both!(strings_in_a_document_may_have_escapes_of_any_character, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for (index, (escaped, stored)) in [
        (r"Ana \ud83d\ude00", "Ana \u{1F600}"),
        (r"Ana \u{1F600}", "Ana \u{1F600}"),
        (r"\uD842\uDFB7 \u0041\u{00042}", "\u{20BB7} AB"),
        (r"\u{22}A\u{5C}B\\ud83d", r#""A\B\ud83d"#),
    ]
    .into_iter()
    .enumerate()
    {
        let create = format!(
            r#"mutation {{ createCustomer(input: {{ externalCustomerId: "{index}",
            data: {{ email: "{index}@example.com", firstName: "{escaped}" }} }}) {{ customer {{ firstName }} }} }}"#
        );
        let created = app.graphql(&own, &create, json!({})).await.payload("createCustomer");
        assert_eq!(created["customer"]["firstName"], stored, "{escaped}");
    }
    let by_email = r#"{ customer(by: { email: "\ud83d@example.com" }) { id } }"#;
    let answer = app.graphql(&own, by_email, json!({})).await;
    assert_eq!(answer.codes(), ["BAD_REQUEST"]);
    assert!(answer.message().contains("not a Unicode character"), "{}", answer.message());
});

both!(integral_numbers_in_variables_are_integers, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    let update = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
    let page = "query ($first: Int) { customers(first: $first) { totalCount } }";
    let input = |version: Value| json!({ "input": { "customer": { "externalCustomerId": "1" }, "data": {}, "expectedVersion": version } });
    for (query, variables) in [
        (update, input(json!(1.0))),
        (page, json!({ "first": 2.0 })),
        (page, json!({ "first": 1e1 })),
        (page, json!({ "first": 1 })),
    ] {
        let answer = app.graphql(&own, query, variables.clone()).await;
        assert_eq!(answer.codes(), [""; 0], "{variables}: {}", answer.body);
    }
    for (query, variables) in [
        (update, input(json!(1.5))),
        (update, input(json!("1"))),
        (page, json!({ "first": 1e300 })),
        (page, json!({ "first": 9_007_199_254_740_994.0 })),
        ("{ customers(first: 1.0) { totalCount } }", json!({})),
    ] {
        let answer = app.graphql(&own, query, variables.clone()).await;
        assert_eq!(answer.codes().first().map(String::as_str), Some("BAD_REQUEST"), "{variables}: {}", answer.body);
    }
});

both!(an_invalid_time_error_names_the_format, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let hint = "A DateTime must be in RFC 3339 format, for example 2026-11-23T09:30:00Z.";
    let query = "query ($filter: CustomerFilter!) { customers(filter: $filter) { totalCount } }";
    for time in ["2026-11-23T09:30:00+0000", "2026-11-23", "2026-11-23T09:30:00"] {
        let filter = json!({ "filter": { "createdAt": { "from": time } } });
        let answer = app.graphql(&own, query, filter).await;
        let expected = format!("$filter.createdAt.from: must be of type DateTime. {hint}");
        assert_eq!(answer.codes(), ["BAD_REQUEST"]);
        assert_eq!(answer.message(), expected, "{time}");
        let literal = format!(r#"{{ customers(filter: {{ createdAt: {{ from: "{time}" }} }}) {{ totalCount }} }}"#);
        let answer = app.graphql(&own, &literal, json!({})).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"]);
        assert!(answer.message().ends_with(hint) && answer.message().contains("from"), "{}", answer.message());
    }
});

both!(an_empty_operation_name_counts_as_none, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let send = async |query: &str, name: Value| {
        let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&own.key);
        let body = json!({ "query": query, "operationName": name });
        request.json(&body).send().await.unwrap().json::<Value>().await.unwrap()
    };
    for name in [json!(""), json!(null)] {
        assert_eq!(send("{ viewer { role } }", name.clone()).await["data"]["viewer"]["role"], "OPERATOR", "{name}");
        let named = send("query Role { viewer { role } }", name).await;
        assert_eq!(named["data"]["viewer"]["role"], "OPERATOR");
    }
    let url = format!("{}/graphql?query=query%20A%7Bviewer%7Brole%7D%7D&operationName=", app.url);
    let answer = app.http.get(url).bearer_auth(&own.key).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(answer["data"]["viewer"]["role"], "OPERATOR");
    assert!(send("{ viewer { role } }", json!("Role")).await["errors"].is_array());
});
