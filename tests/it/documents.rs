//! Documents whose literals, default values or other operations async-graphql does not treat as the specification
//! requires.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use support::{TestApp, TestCaller, both};

/// Sends a document with the name of one of its operations, and returns the response.
async fn send(app: &TestApp, caller: &TestCaller, query: &str, operation: &str, variables: &Value) -> Value {
    let body = json!({ "query": query, "operationName": operation, "variables": variables });
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

both!(a_faulty_argument_prevents_the_whole_request, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create =
        r#"a: createCustomer(input: { externalCustomerId: "1", data: { email: "ada@example.com" } }) { outcome }"#;
    let update = |arguments: &str| {
        format!(
            r#"b: updateCustomer(input: {{ customer: {{ externalCustomerId: "1" }}, {arguments} }}) {{ replayed }}"#
        )
    };
    let not_an_int = "must be a 32-bit integer (Int).";
    for (second, variables, message) in [
        (update("data: {}, expectedVersion: 3000000000"), json!({}), format!("input.expectedVersion: {not_an_int}")),
        (update("data: {}, expectedVersion: -2147483649"), json!({}), format!("input.expectedVersion: {not_an_int}")),
        (
            update("data: {}, expectedVersion: $version"),
            json!({ "version": 3_000_000_000_u64 }),
            format!("$version: {not_an_int}"),
        ),
        (update("data: {}, expectedVersion: $version"), json!({ "version": 3e9 }), format!("$version: {not_an_int}")),
        (update(r#"data: "x""#), json!({}), "input.data: must be of type CustomerDataPatch.".to_owned()),
        (
            "b: createCustomer(input: 5) { outcome }".to_owned(),
            json!({}),
            "input: must be of type CreateCustomerInput.".to_owned(),
        ),
        (
            update("data: { emial: $email }"),
            json!({}),
            "input.data.emial: unknown field of CustomerDataPatch. Did you mean `email`?".to_owned(),
        ),
        (
            "...B } fragment B on Mutation { b: createWebhook(input: { url: 5 }) { secret }".to_owned(),
            json!({}),
            "input.url: must be of type String.".to_owned(),
        ),
    ] {
        let definitions = match second {
            _ if second.contains("$version") => "($version: Int)",
            _ if second.contains("$email") => "($email: String)",
            _ => "",
        };
        let query = format!("mutation {definitions} {{ {create} {second} }}");
        // In the second round, a document whose only fault is a variable is cached.
        for _ in 0..2 {
            let answer = app.graphql(&operator, &query, variables.clone()).await;
            assert_eq!(answer.codes(), ["BAD_REQUEST"], "{query}: {}", answer.body);
            assert_eq!(answer.message(), message, "{query}");
        }
    }
    let answer = app.graphql(&operator, "{ viewer { role } customers(filter: 5) { nodes { id } } }", json!({})).await;
    assert_eq!(answer.message(), "filter: must be of type CustomerFilter.");
    assert_eq!(app.count_rows("customer").await, 0);

    // A null in an input object that needs exactly one field is found although the document has been executed before.
    let query = format!(
        "mutation ($id: ID) {{ {create} b: updateCustomer(input: {{ customer: {{ id: $id }}, data: {{}} }}) {{ replayed }} }}"
    );
    let answer = app.graphql(&operator, &query, json!({ "id": "x" })).await;
    assert_eq!(answer.codes(), ["CUSTOMER_NOT_FOUND"]);
    assert_eq!(answer.body["data"]["a"]["outcome"], "CREATED");
    let query = query.replace("\"1\"", "\"2\"");
    app.graphql(&operator, &query, json!({ "id": "x" })).await;
    let answer = app.graphql(&operator, &query, json!({ "id": null })).await;
    assert_eq!((answer.codes(), answer.body.get("data")), (vec!["BAD_REQUEST".to_owned()], None));
    // The other field of the input object is left out.
    let find =
        "query ($id: ID, $externalId: String) { customer(by: { id: $id, externalCustomerId: $externalId }) { email } }";
    let answer = app.graphql(&operator, find, json!({ "externalId": "1" })).await;
    assert_eq!(answer.data(), &json!({ "customer": { "email": "ada@example.com" } }));

    let create = create.replace("\"1\"", "\"3\"").replace("ada@", "bea@");
    let largest = format!("mutation {{ {create} {} }}", update("data: {}, expectedVersion: 2147483647"));
    let answer = app.graphql(&operator, &largest, json!({})).await;
    assert_eq!(answer.codes(), ["VERSION_CONFLICT"], "{}", answer.body);
    assert_eq!(answer.body["data"]["a"]["outcome"], "CREATED");
});

both!(mutations_after_a_rejected_mutation_are_applied, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create = |email: &str| {
        format!("createCustomer(input: {{ externalCustomerId: \"1\", data: {{ email: \"{email}\" }} }}) {{ outcome }}")
    };
    let query = format!(
        "mutation {{ a: {} b: {} c: {} }}",
        create("ada"),
        create("ada@example.com"),
        create("bea@example.com")
    );
    let answer = app.graphql(&operator, &query, json!({})).await;
    let errors = answer.body["errors"].as_array().unwrap().iter();
    let codes: BTreeMap<_, _> =
        errors.map(|error| (error["path"][0].as_str().unwrap(), &error["extensions"]["code"])).collect();
    assert_eq!(json!(codes), json!({ "a": "INVALID_EMAIL", "c": "EXTERNAL_CUSTOMER_ID_TAKEN" }));
    assert_eq!(answer.body["data"], json!({ "a": null, "b": { "outcome": "CREATED" }, "c": null }));
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(a_default_is_the_value_of_a_missing_variable, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..3 {
        app.created(&operator, &format!("id-{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
    let query = "query ($with: Boolean = true, $hide: Boolean = true, $first: Int = 2, $field: CustomerOrderField! = EXTERNAL_CUSTOMER_ID) \
                 { customers(first: $first, orderBy: { field: $field, direction: DESC }) \
                 { edges { externalCustomerId @include(if: $with) connectedAt @skip(if: $hide) } } }";
    let expected = |ids: &[&str]| -> Value {
        let edges: Vec<_> = ids.iter().map(|id| json!({ "externalCustomerId": id })).collect();
        json!({ "customers": { "edges": edges } })
    };
    // In the second round, the document is cached.
    for _ in 0..2 {
        assert_eq!(app.graphql(&operator, query, json!({})).await.data(), &expected(&["id-2", "id-1"]));
        let answer = app.graphql(&operator, query, json!({ "first": 1, "hide": true })).await;
        assert_eq!(answer.data(), &expected(&["id-2"]));
        let answer = app.graphql(&operator, query, json!({ "with": false, "first": 1 })).await;
        assert_eq!(answer.data(), &json!({ "customers": { "edges": [{}] } }));
        // A null replaces a default. A condition must not be null.
        let answer = app.graphql(&operator, query, json!({ "with": null })).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "{}", answer.body);
        // A page size may be null.
        let answer = app.graphql(&operator, query, json!({ "first": null })).await;
        assert_eq!(answer.data(), &expected(&["id-2", "id-1", "id-0"]));
    }
});

both!(an_enum_value_in_a_document_has_no_quotation_marks, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let list = |arguments: &str| format!("{{ customers({arguments}) {{ nodes {{ id }} }} }}");
    let by_default = |field: &str| {
        let order = "orderBy: { field: $field, direction: DESC }";
        format!("query ($field: CustomerOrderField! = {field}) {}", list(order))
    };
    let fields = "must be one of CONNECTED_AT, EXTERNAL_CUSTOMER_ID, without quotation marks.";
    for (query, variables, message) in [
        (
            list(r#"orderBy: { field: "CONNECTED_AT", direction: DESC }"#),
            json!({}),
            Some(format!("orderBy.field: {fields}")),
        ),
        (list("orderBy: { field: CONNECTED_AT, direction: DESC }"), json!({}), None),
        (
            list(r#"filter: { missing: [PHONE, "ADDRESS"] }"#),
            json!({}),
            Some(
                "filter.missing[1]: must be one of EMAIL, FIRST_NAME, LAST_NAME, PHONE, ADDRESS, without quotation \
                 marks."
                    .to_owned(),
            ),
        ),
        (by_default(r#""CONNECTED_AT""#), json!({}), Some(format!("$field: {fields}"))),
        (by_default("CONNECTED_AT"), json!({}), None),
        (by_default("CONNECTED_AT"), json!({ "field": "EXTERNAL_CUSTOMER_ID" }), None),
    ] {
        let answer = app.graphql(&operator, &query, variables).await;
        let expected = message.iter().map(|_| "BAD_REQUEST".to_owned()).collect::<Vec<_>>();
        assert_eq!(answer.codes(), expected, "{query}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["message"].as_str(), message.as_deref(), "{query}");
    }
});

both!(only_the_requested_operation_of_a_document_counts, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let mutations = "mutation Create($input: CreateCustomerInput!) { createCustomer(input: $input) { ...Of } } \
                     mutation Update($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { ...Name } } } \
                     fragment Of on CreateCustomerPayload { customer { ...Name } } fragment Name on Customer { firstName }";
    let queries = "query Who { viewer { role } } query Page($size: Int) { customers(first: $size) { nodes { firstName } } } \
                   query Find($id: ID) { customer(by: { externalCustomerId: \"1\" }) { firstName } operator(id: $id) { name } } \
                   query Node($id: ID!) { node(id: $id) { id } }";
    let created = json!({ "externalCustomerId": "1", "data": { "email": "ada@example.com", "firstName": "Ada" }, "idempotencyKey": "create" });
    let updated = json!({ "customer": { "externalCustomerId": "1" }, "data": { "firstName": "Bea" } });
    let page = |name: &str| json!({ "customers": { "nodes": [{ "firstName": name }] } });
    // In the second round, the documents are cached.
    for (first_name, round) in [("Ada", 0), ("Bea", 1)] {
        for (query, operation, variables, data) in [
            (
                mutations,
                "Create",
                json!({ "input": created }),
                json!({ "createCustomer": { "customer": { "firstName": first_name } } }),
            ),
            (queries, "Who", json!({}), json!({ "viewer": { "role": "OPERATOR" } })),
            (queries, "Page", json!({}), page(first_name)),
            (queries, "Page", json!({ "size": 5 }), page(first_name)),
            (
                mutations,
                "Update",
                json!({ "input": updated }),
                json!({ "updateCustomer": { "customer": { "firstName": "Bea" } } }),
            ),
        ] {
            let answer = send(app, &operator, query, operation, &variables).await;
            assert_eq!(answer, json!({ "data": data }), "{operation}, round {round}");
        }
        let node = send(app, &operator, queries, "Node", &json!({ "id": operator.operator })).await;
        assert_eq!(node["data"]["node"]["id"], json!(operator.operator));
        let node = send(app, &operator, queries, "Node", &json!({})).await;
        assert_eq!(node["errors"][0]["message"], "$id: required variable is missing.");
        for (operation, message) in [
            ("", "The document has several operations. Set `operationName` to the name of one of them."),
            ("Nobody", "The document has no operation named `Nobody`."),
        ] {
            let answer = send(app, &operator, queries, operation, &json!({ "id": "x" })).await;
            assert_eq!(answer["errors"][0]["message"], message);
        }
    }
});

both!(different_fields_with_one_response_key_are_rejected, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let (ada, bob) = ("customer(by: {externalCustomerId: \"ada\"})", "customer(by: {externalCustomerId: \"bob\"})");
    for query in [
        format!("{{ c: {ada} {{ id }} ...F }} fragment F on Query {{ c: {bob} {{ email }} }}"),
        format!("{{ c: {ada} {{ id }} c: {bob} @include(if: true) {{ email }} }}"),
        format!("{{ c: {ada} {{ id }} ... on Query @include(if: true) {{ c: {bob} {{ email }} }} }}"),
        "{ viewer { operator { x: name } operator { x: id } } }".to_owned(),
        "{ viewer { operator { x: name } } viewer @skip(if: false) { operator { x: id } } }".to_owned(),
        "{ customers { nodes { x: email ... on Customer { x: phone } } } }".to_owned(),
        "{ customers { nodes { ... on Customer { x: email } x: history(first: 0) { nodes { id } } } } }".to_owned(),
        "{ customers { nodes { ... on Node { x: id } ... on Customer { x: email } } } }".to_owned(),
        "{ customers { nodes { h: history(first: 1) { nodes { id } } ... on Customer { h: history(last: 1) { nodes { type } } } } } }"
            .to_owned(),
        "query ($a: Int, $b: Int) { customers(first: $a) { nodes { id } } ...F } \
         fragment F on Query { customers(first: $b) { nodes { email } } }"
            .to_owned(),
    ] {
        let answer = app.graphql(&operator, &query, json!({})).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"], "{query}");
        let message = answer.message();
        assert!(message.starts_with("Different fields have the response key"), "{query} {message}");
    }
    // A field may have the name of another field in an object of another type, also below conditions.
    let query = "query ($id: ID!, $full: Boolean!) { node(id: $id) { ... on Customer { ...C @include(if: $full) } \
                 ... on Operator { ...O @include(if: $full) ... @skip(if: $full) { x: id } } } } \
                 fragment C on Customer { title: email } fragment O on Operator { title: name }";
    for (full, expected) in [(true, json!({ "title": "A" })), (false, json!({ "x": operator.operator }))] {
        let answer = app.graphql(&operator, query, json!({ "id": operator.operator, "full": full })).await;
        assert_eq!(answer.data()["node"], expected);
    }
    // Fragments of Relay have an alias of `__typename`.
    let query = "{ customers { nodes { ...F } edges { node { ...F } } } viewer { operator { ...F customers { nodes \
                 { ...F } } } } } fragment F on Node { id __isNode: __typename }";
    assert_eq!(app.query(&operator, query).await["viewer"]["operator"]["__isNode"], "Operator");
    let query =
        "query ($v: Boolean!) { ... on Query @include(if: $v) { viewer { ... on Viewer @skip(if: $v) { role } } } }";
    let answer = app.graphql(&operator, query, json!({ "v": true })).await;
    assert_eq!(*answer.data(), json!({ "viewer": {} }));
    // A variable may be used only in a condition of `__typename`.
    for is_included in [true, false] {
        let query = "query ($v: Boolean!) { viewer { role __typename @include(if: $v) } }";
        let answer = app.graphql(&operator, query, json!({ "v": is_included })).await;
        assert_eq!(answer.data()["viewer"].get("__typename").is_some(), is_included);
    }
    // One object is never both an operator and a customer.
    let id = &operator.operator;
    let query = format!("{{ node(id: \"{id}\") {{ ... on Operator {{ x: name }} ... on Customer {{ x: email }} }} }}");
    assert_eq!(app.query(&operator, &query).await, json!({ "node": { "x": "A" } }));
});

both!(a_variable_may_be_used_where_its_type_is_allowed, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (query, variables, is_accepted) in [
        ("query ($t: [ChangeType!]!) { changes(types: $t) { cursor } }", json!({ "t": ["CREATED"] }), true),
        ("query ($t: [ChangeType!]!) { changes(types: $t) { cursor } }", json!({ "t": null }), false),
        ("query ($t: [ChangeType!]!) { changes(types: $t) { cursor } }", json!({}), false),
        ("query ($t: [ChangeType!]! = [CREATED]) { changes(types: $t) { cursor } }", json!({}), true),
        ("query ($t: [ChangeType!] = [CREATED]) { changes(types: $t) { cursor } }", json!({}), true),
        (
            "query ($m: [CustomerField!]!) { customers(filter: { missing: $m }) { nodes { id } } }",
            json!({ "m": ["PHONE"] }),
            true,
        ),
        ("query ($n: Int) { changes(first: $n) { cursor } }", json!({ "n": 5 }), true),
        ("query ($n: Int) { changes(first: $n) { cursor } }", json!({}), true),
        ("query ($n: Int) { changes(first: $n) { cursor } }", json!({ "n": null }), false),
        ("query ($n: String) { changes(first: $n) { cursor } }", json!({ "n": "5" }), false),
        ("query ($n: Int) { customers(first: $n) { nodes { id } } }", json!({ "n": null }), true),
        ("query ($n: Int! = 5) { changes(first: $n) { cursor } }", json!({}), true),
        ("query ($n: Int = 5) { changes(first: $n) { cursor } }", json!({ "n": null }), false),
        ("query ($n: Int! = null) { changes(first: $n) { cursor } }", json!({ "n": 5 }), false),
        ("query ($n: String) { __type(name: $n) { name } }", json!({ "n": "Query" }), false),
        ("query ($n: String!) { __type(name: $n) { name } }", json!({ "n": "Query" }), true),
        ("query ($v: Boolean) { __schema { types @include(if: $v) { name } } }", json!({ "v": true }), false),
        ("query ($id: ID) { node(id: $id) { id } }", json!({ "id": "x" }), false),
        ("query ($id: ID = null) { node(id: $id) { id } }", json!({ "id": "x" }), false),
        ("query ($id: ID = \"x\") { node(id: $id) { id } }", json!({}), true),
        ("query ($id: ID) { customer(by: { id: $id }) { id } }", json!({ "id": "x" }), true),
        ("query ($id: ID) { customer(by: { id: $id }) { id } }", json!({ "id": null }), false),
        ("query ($id: ID!) { customer(by: { externalCustomerId: $id }) { id } }", json!({ "id": 7 }), true),
        ("query ($id: Int!) { customer(by: { externalCustomerId: $id }) { id } }", json!({ "id": 7 }), false),
        ("query ($m: CustomerField) { customers(filter: { missing: [$m] }) { nodes { id } } }", json!({}), false),
        ("query ($v: Boolean) { viewer { role @include(if: $v) } }", json!({ "v": true }), false),
        ("query ($v: String!) { viewer { role @include(if: $v) } }", json!({ "v": "true" }), false),
        ("query ($v: Boolean = true) { viewer { role @include(if: $v) } }", json!({}), true),
        ("{ viewer { role @skip(if: 1) } }", json!({}), false),
    ] {
        for _ in 0..2 {
            let answer = app.graphql(&operator, query, variables.clone()).await;
            assert_eq!(answer.codes().is_empty(), is_accepted, "{query} {variables} {}", answer.body);
        }
    }
    let create = "mutation ($id: String!, $data: CustomerDataInput!, $by: [MatchKey!]) { \
                  createCustomer(input: { externalCustomerId: $id, data: $data, connectBy: $by }) { outcome } }";
    for (number, by, code) in [(1, json!(["EMAIL"]), None), (2, Value::Null, Some("BAD_REQUEST"))] {
        let data = json!({ "email": format!("{number}@example.com") });
        let variables = json!({ "id": number.to_string(), "data": data, "by": by });
        assert_eq!(app.graphql(&operator, create, variables).await.codes().first().map(String::as_str), code);
    }
});

both!(a_variable_of_another_type_changes_nothing, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
    let create = "a: createCustomer(input: $create) { outcome }";
    for (variables, mutation, values) in [
        (
            "$update: UpdateCustomerInput",
            "updateCustomer(input: $update) { replayed }",
            [
                json!({ "update": { "customer": { "externalCustomerId": "1" }, "data": { "firstName": "Ada" } } }),
                json!({ "update": null }),
            ],
        ),
        (
            "$reason: String!",
            "disconnectCustomer(input: { customer: { externalCustomerId: \"1\" }, reason: $reason }) { replayed }",
            [json!({ "reason": "ENDED" }), json!({ "reason": "ended" })],
        ),
    ] {
        let document = format!("mutation ($create: CreateCustomerInput!, {variables}) {{ {create} b: {mutation} }}");
        for mut values in values {
            values["create"] = json!({ "externalCustomerId": "2", "data": { "email": "bob@example.com" } });
            let answer = app.graphql(&operator, &document, values).await;
            assert_eq!(answer.codes(), ["BAD_REQUEST"], "{document} {}", answer.body);
        }
    }
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(long_strings_are_rejected_before_they_are_copied, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let query = "query ($f: CustomerFilter) { customers(filter: $f) { nodes { id } } }";
    for (length, code) in [(8_000, "INVALID_EXTERNAL_CUSTOMER_ID"), (8_001, "BAD_REQUEST")] {
        let variables = json!({ "f": { "externalCustomerId": "x".repeat(length) } });
        assert_eq!(app.graphql(&operator, query, variables).await.codes(), [code]);
    }
});

both!(an_invalid_document_is_rejected_whatever_its_variables_are, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for (query, message) in [
        (
            "query ($f: CustomerFilter) { customers(fliter: $f) { nodes { id } } }",
            "Unknown argument \"fliter\" on field \"customers\" of type \"Query\". Did you mean `filter`?",
        ),
        ("{ customers { nodes { ... on Node { email } } } }", "Unknown field \"email\" on type \"Node\"."),
        ("{ viewer { rol foo } }", "Unknown field \"rol\" on type \"Viewer\". Did you mean `role`?"),
        (
            "query ($f: Int) { customers(filter: $f) { nodes { id } } }",
            "Variable \"f\" of type \"Int\" used in position expecting type \"CustomerFilter\"",
        ),
        (
            "query ($t: [ChangeType]) { changes(types: [$t]) { cursor } }",
            "Variable \"t\" of type \"[ChangeType]\" used in position expecting type \"ChangeType!\"",
        ),
        ("query ($x: Foo) { viewer { role } }", "Unknown input type \"Foo\"."),
        ("query ($x: [Foo] = [1]) { viewer { role } }", "Unknown input type \"Foo\"."),
        ("query ($x: [Customer!]! = []) { viewer { role } }", "Unknown input type \"Customer\"."),
        ("{ viewer { role } } fragment F on Query { viewer { role } }", "The fragment F is not used."),
        ("query ($x: Int) { viewer { role } }", "The variable `$x` is not used."),
        ("query ($x: Int, $x: Int) { changes(first: $x) { cursor } }", "The variable `$x` is defined twice."),
        (
            "query ($x: Int) { customers(first: 1, first: $x) { totalCount } }",
            "The field customers has the same argument twice.",
        ),
        (
            "query ($x: CustomerOrderField! = \"EMAIL\") { customers(orderBy: { field: $x, direction: ASC }) { totalCount } }",
            "$x: must be one of CONNECTED_AT, EXTERNAL_CUSTOMER_ID, without quotation marks.",
        ),
        (
            "query ($x: Boolean = true) { viewer { role @include(if: $x) @include(if: $x) } }",
            "A directive is repeated at the same place.",
        ),
    ] {
        for variables in [json!({}), json!({ "x": 1 }), json!({ "x": null }), json!({ "x": true })] {
            let answer = app.graphql(&operator, query, variables).await;
            assert_eq!((answer.codes(), answer.message()), (vec!["BAD_REQUEST".to_owned()], message), "{query}");
        }
    }
    let used_in_excluded = "query ($x: Int) { viewer { role } changes(first: $x) @include(if: false) { cursor } }";
    assert!(app.graphql(&operator, used_in_excluded, json!({})).await.codes().is_empty());
    let many = "query ($types: [ChangeType!]) { changes(types: $types) { cursor } }";
    for (length, is_accepted) in [(100, true), (101, false)] {
        let answer = app.graphql(&operator, many, json!({ "types": vec!["CREATED"; length] })).await;
        assert_eq!(answer.codes().is_empty(), is_accepted, "{}", answer.body);
    }
});

both!(a_repeated_mutation_runs_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create = "createCustomer(input: { externalCustomerId: \"1\", data: { email: \"ada@example.com\" } })";
    let query = format!(
        "mutation ($x: Boolean!) {{ {create} {{ outcome }} ...F {create} @include(if: $x) {{ replayed }} }} \
         fragment F on Mutation {{ {create} {{ customer {{ version }} }} }}"
    );
    let answer = app.graphql(&operator, &query, json!({ "x": true })).await;
    let created = json!({ "outcome": "CREATED", "customer": { "version": 1 }, "replayed": false });
    assert_eq!(answer.body, json!({ "data": { "createCustomer": created } }));
    assert_eq!(app.count_rows("customer_event").await, 1);
});

both!(a_repeated_field_is_read_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..3 {
        app.created(&operator, &format!("id-{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
    let order = "orderBy: { field: CONNECTED_AT, direction: DESC }";
    let emails = format!("customers({order}, first: 2) {{ nodes {{ email }} }}");
    let versions = format!("customers(first: 2, {order}) {{ nodes {{ version }} pageInfo {{ hasNextPage }} }}");
    let page = json!({ "nodes": [{ "email": "2@example.com", "version": 1 }, { "email": "1@example.com", "version": 1 }],
                       "pageInfo": { "hasNextPage": true } });
    let once = app.statements_of(app.query(&operator, &format!("{{ {emails} }}"))).await.1.len();
    for query in [
        format!("{{ {emails} {versions} }}"),
        format!(
            "{{ ...A ...B }} fragment A on Query {{ {emails} }} fragment B on Query {{ ...C }} fragment C on Query {{ {versions} }}"
        ),
        format!("{{ {emails} ... {{ ... on Query {{ {versions} }} }} }}"),
    ] {
        let (answer, statements) = app.statements_of(app.query(&operator, &query)).await;
        assert_eq!((answer, statements.len()), (json!({ "customers": page }), once), "{query}");
    }
    let feed = "{ changes { changes { type } } ...F } fragment F on Query { changes { cursor hasMore } }";
    let (changes, statements) = app.statements_of(app.query(&operator, feed)).await;
    let once = app.statements_of(app.query(&operator, "{ changes { hasMore } }")).await.1.len();
    assert_eq!(statements.len(), once);
    assert!(changes["changes"]["changes"].is_array() && changes["changes"]["cursor"].is_string(), "{changes}");
    // Pages below the root, and fields with directives that have no effect.
    let page = "customers(first: 2, orderBy: { field: CONNECTED_AT, direction: DESC })";
    for query in [
        format!(
            "{{ operator {{ {page} {{ nodes {{ email }} }} ...F }} }} fragment F on Operator {{ {page} {{ nodes {{ version }} }} }}"
        ),
        format!("{{ {page} {{ nodes {{ email }} }} {page} @include(if: true) {{ nodes {{ version }} }} }}"),
        format!(
            "{{ operator {{ {page} {{ nodes {{ email }} }} {page} @skip(if: false) {{ nodes {{ version }} }} }} }}"
        ),
    ] {
        let (answer, statements) = app.statements_of(app.query(&operator, &query)).await;
        let pages = statements.iter().filter(|sql| sql.contains("\"branch\"")).count();
        let nodes = answer.pointer("/customers/nodes").or(answer.pointer("/operator/customers/nodes"));
        assert_eq!(
            (nodes, pages),
            (Some(&json!([{ "email": "2@example.com", "version": 1 }, { "email": "1@example.com", "version": 1 }])), 1),
            "{query}"
        );
    }
    // Fields whose conditions are variables, and fields of two fragments on the same type.
    let node = format!("node(id: \"{}\")", operator.operator);
    for (query, once) in [
        (
            "query ($a: Boolean!, $b: Boolean!) { changes @include(if: $a) { cursor } ...F @skip(if: $b) } fragment F on Query { changes { hasMore } }".to_owned(),
            "{ changes { cursor hasMore } }".to_owned(),
        ),
        (
            format!("query ($a: Boolean!) {{ {page} {{ nodes {{ email }} }} {page} @include(if: $a) {{ nodes {{ version }} }} }}"),
            format!("{{ {page} {{ nodes {{ email version }} }} }}"),
        ),
        (
            format!(
                "{{ {node} {{ ... on Operator {{ {page} {{ nodes {{ email }} }} }} id ... on Node {{ ... on Operator {{ {page} {{ nodes {{ version }} }} name }} }} }} }}"
            ),
            format!("{{ {node} {{ ... on Operator {{ {page} {{ nodes {{ email version }} }} id name }} }} }}"),
        ),
    ] {
        let variables = json!({ "a": true, "b": false });
        let (answer, statements) = app.statements_of(app.graphql(&operator, &query, variables)).await;
        let (expected, statements_once) = app.statements_of(app.graphql(&operator, &once, json!({}))).await;
        assert_eq!(answer.body, expected.body, "{query}");
        assert_eq!(statements.len(), statements_once.len(), "{query}");
        let without = app.graphql(&operator, &query, json!({ "a": false, "b": true })).await;
        assert!(without.codes().is_empty(), "{}", without.body);
    }
    // In a fragment on an interface, the parent has the type of the interface.
    for condition in ["@include(if: $a)", "@skip(if: $a)", ""] {
        let definition = if condition.is_empty() { "" } else { "($a: Boolean!)" };
        let query = format!(
            "query {definition} {{ {page} {{ nodes {{ ...F {condition} ... on Node {{ ... on Operator {{ name }} }} version }} }} }}
             fragment F on Node {{ id ... on Customer {{ email }} }}"
        );
        for value in [true, false] {
            let answer = app.graphql(&operator, &query, json!({ "a": value })).await;
            let node = &answer.body["data"]["customers"]["nodes"][0];
            let has_email = condition.is_empty() || (condition == "@include(if: $a)") == value;
            let keys: Vec<_> = node.as_object().unwrap().keys().map(String::as_str).collect();
            let expected: &[&str] = if has_email { &["email", "id", "version"] } else { &["version"] };
            assert_eq!(keys, expected, "{query}: {}", answer.body);
        }
    }
    // Different arguments or conditions are not merged.
    let different = app
        .query(
            &operator,
            "{ a: customers(first: 1) { nodes { email } } a: customers(first: 1) @skip(if: true) { nodes { id } } }",
        )
        .await;
    assert_eq!(different, json!({ "a": { "nodes": [{ "email": "0@example.com" }] } }));
    let conflict = app
        .graphql(&operator, "{ customers(first: 1) { nodes { id } } customers(first: 2) { nodes { id } } }", json!({}))
        .await;
    assert_eq!(conflict.codes(), ["BAD_REQUEST"]);
});
