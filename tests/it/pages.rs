//! Lists: pages in both directions, cursors, filters, order, and a constant number of statements.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use support::pages::{BACKWARDS, Direction, FORWARDS};
use support::{TestApp, TestCaller, both, is_operator_lookup};

const CUSTOMERS: &str = "query ($first: Int, $after: String, $last: Int, $before: String, \
    $filter: CustomerFilter, $orderBy: CustomerOrder) { \
    customers(first: $first, after: $after, last: $last, before: $before, filter: $filter, orderBy: $orderBy) { \
    edges { cursor externalCustomerId connectedAt node { email } } nodes { email } \
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

async fn page(app: &TestApp, caller: &TestCaller, arguments: Value) -> Value {
    let answer = app.graphql(caller, CUSTOMERS, arguments).await;
    let page = answer.data()["customers"].clone();
    assert_nodes_are_those_of_the_edges(&page);
    page
}

/// Checks each list that has both `edges` and `nodes` in a response. Returns the number of these lists.
fn assert_nodes_are_those_of_the_edges(value: &Value) -> usize {
    let inner = match value {
        Value::Object(fields) => fields.values().map(assert_nodes_are_those_of_the_edges).sum(),
        Value::Array(items) => items.iter().map(assert_nodes_are_those_of_the_edges).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    let (Some(edges), Some(nodes)) = (value["edges"].as_array(), value["nodes"].as_array()) else { return inner };
    let of_edges: Vec<_> = edges.iter().map(|edge| &edge["node"]).collect();
    assert_eq!(of_edges, nodes.iter().collect::<Vec<_>>());
    inner + 1
}

fn emails(page: &Value) -> Vec<String> {
    page["edges"].as_array().unwrap().iter().map(|edge| edge["node"]["email"].as_str().unwrap().to_owned()).collect()
}

/// Reads a whole list in pages of this size.
async fn read_pages(app: &TestApp, caller: &TestCaller, size: usize, direction: Direction, arguments: Value) -> Value {
    let read = async |cursor: Value| {
        let mut arguments = arguments.clone();
        arguments[direction.size] = json!(size);
        arguments[direction.bound] = cursor.clone();
        let page = page(app, caller, arguments).await;
        assert_eq!(page["pageInfo"][direction.has_less], json!(!cursor.is_null()));
        page
    };
    let pages = direction.read_pages(read).await;
    json!({ "edges": pages.iter().flat_map(|page| page["edges"].as_array().unwrap().clone()).collect::<Vec<_>>() })
}

/// Creates customers, and returns their emails in the order of their creation.
async fn populate(app: &TestApp, caller: &TestCaller, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for number in 0..count {
        let email = format!("{}-{number}@example.com", &caller.operator[20..]);
        app.created(caller, &format!("user-{number}"), json!({ "email": email })).await;
        all.push(email);
    }
    all
}

both!(pages_in_both_directions_are_complete_and_ordered, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let all = populate(app, &own, 7).await;
    populate(app, &app.operator("Other").await, 2).await;
    // With the platform key, the list contains all customers.
    for (caller, all) in [
        (own.clone(), all.clone()),
        (app.platform(), emails(&page(app, &app.platform(), json!({ "first": 100 })).await)),
    ] {
        assert!(all.len() == 7 || all.len() == 9);
        for size in [1, 2, 3, all.len(), 100] {
            for direction in [FORWARDS, BACKWARDS] {
                let listed = read_pages(app, &caller, size, direction, json!({})).await;
                assert_eq!(emails(&listed), all, "{size} {direction:?}");
            }
        }
    }
    // A page between two cursors.
    let whole = page(app, &own, json!({})).await;
    let cursor = |number: usize| whole["edges"][number]["cursor"].clone();
    let between = page(app, &own, json!({ "after": cursor(1), "before": cursor(5) })).await;
    assert_eq!(emails(&between), all[2..5]);
    let between = page(app, &own, json!({ "after": cursor(1), "before": cursor(5), "last": 2 })).await;
    assert_eq!(emails(&between), all[3..5]);
});

both!(new_rows_do_not_shift_later_pages, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let all = populate(app, &own, 4).await;
    let first = page(app, &own, json!({ "first": 2 })).await;
    app.created(&own, "new", json!({ "email": "new@example.com" })).await;
    let second = page(app, &own, json!({ "first": 2, "after": first["pageInfo"]["endCursor"] })).await;
    assert_eq!(emails(&second), all[2..4]);
    assert_eq!(second["pageInfo"]["hasNextPage"], true);
});

both!(a_page_has_20_entries_by_default_and_at_most_100, Sandbox, async |app| {
    let own = app.operator("Own").await;
    populate(app, &own, 21).await;
    assert_eq!(emails(&page(app, &own, json!({})).await).len(), 20);
    assert_eq!(emails(&page(app, &own, json!({ "first": 100 })).await).len(), 21);
    for (arguments, path) in [
        (json!({ "first": 0 }), "first"),
        (json!({ "first": -1 }), "first"),
        (json!({ "first": 101 }), "first"),
        (json!({ "last": 0 }), "last"),
        (json!({ "last": 101 }), "last"),
        (json!({ "first": 1, "last": 1 }), "last"),
    ] {
        let answer = app.graphql(&own, CUSTOMERS, arguments.clone()).await;
        answer.assert_rejected("customers", &[("INVALID_ARGUMENT", path)]);
    }
});

both!(damaged_cursors_and_cursors_of_other_lists_are_rejected, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    populate(app, &own, 2).await;
    let cursor = page(app, &own, json!({ "first": 1 })).await["pageInfo"]["endCursor"].as_str().unwrap().to_owned();
    let assert_rejected = async |caller: &TestCaller, arguments: Value, path: &str| {
        let answer = app.graphql(caller, CUSTOMERS, arguments).await;
        answer.assert_rejected("customers", &[("INVALID_ARGUMENT", path)]);
    };
    for damaged in ["", "x", "null", &cursor[1..], &format!("{cursor}A"), &cursor.to_uppercase()] {
        assert_rejected(&own, json!({ "after": damaged }), "after").await;
        assert_rejected(&own, json!({ "before": damaged }), "before").await;
    }
    assert_rejected(&other, json!({ "after": cursor }), "after").await;
    assert_rejected(&app.platform(), json!({ "after": cursor }), "after").await;
    assert_rejected(&own, json!({ "after": cursor, "filter": { "email": "a@example.com" } }), "after").await;
    let operators = "query ($after: String) { operators(after: $after) { totalCount } }";
    let answer = app.graphql(&own, operators, json!({ "after": cursor })).await;
    answer.assert_rejected("operators", &[("INVALID_ARGUMENT", "after")]);
});

both!(filters_match_exact_values, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    app.created(&own, "ada", data).await;
    app.created(&own, "Ada", json!({ "email": "grace@example.com" })).await;
    for (filter, found) in [
        (json!({ "email": " ADA@example.com" }), vec!["ada@example.com"]),
        (json!({ "phone": "(415) 555-2671" }), vec!["ada@example.com"]),
        (json!({ "externalCustomerId": "Ada" }), vec!["grace@example.com"]),
        (
            json!({ "externalCustomerId": "ada", "email": "ada@example.com", "phone": "+14155552671" }),
            vec!["ada@example.com"],
        ),
        (json!({ "externalCustomerId": "Ada", "email": "ada@example.com" }), vec![]),
        (json!({ "email": "%@example.com" }), vec![]),
        (json!({ "externalCustomerId": "a%" }), vec![]),
        (json!({}), vec!["ada@example.com", "grace@example.com"]),
    ] {
        assert_eq!(emails(&page(app, &own, json!({ "filter": filter })).await), found, "{filter}");
        let query = "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount } \
                     operator { customers(filter: $filter) { totalCount } } }";
        let counts = app.graphql(&own, query, json!({ "filter": filter })).await;
        assert_eq!(counts.body["data"]["customers"]["totalCount"], found.len(), "{filter}");
        assert_eq!(counts.body["data"]["operator"]["customers"]["totalCount"], found.len(), "{filter}");
    }
});

both!(order_by_sorts_in_both_directions, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let ids = ["b", "B", "a", "é", "10", "9", "名前", "a b", "A"];
    for (number, id) in ids.iter().enumerate() {
        app.created(&own, id, json!({ "email": format!("{number}@example.com") })).await;
    }
    let mut by_id = ids.to_vec();
    // External ids are ordered byte by byte.
    by_id.sort_unstable();
    for (field, ascending) in [("CONNECTED_AT", ids.to_vec()), ("EXTERNAL_CUSTOMER_ID", by_id)] {
        for order in ["ASC", "DESC"] {
            let mut expected = ascending.clone();
            if order == "DESC" {
                expected.reverse();
            }
            let order = json!({ "field": field, "direction": order });
            for direction in [FORWARDS, BACKWARDS] {
                let listed = read_pages(app, &own, 2, direction, json!({ "orderBy": order })).await;
                let ids =
                    listed["edges"].as_array().unwrap().iter().map(|edge| edge["externalCustomerId"].as_str().unwrap());
                assert_eq!(ids.collect::<Vec<_>>(), expected, "{order} {direction:?}");
            }
        }
    }
    // A cursor is valid only for its own order.
    let order = json!({ "field": "EXTERNAL_CUSTOMER_ID", "direction": "ASC" });
    let cursor = page(app, &own, json!({ "first": 1, "orderBy": order })).await["pageInfo"]["endCursor"].clone();
    for other in [json!(null), json!({ "field": "EXTERNAL_CUSTOMER_ID", "direction": "DESC" })] {
        let answer = app.graphql(&own, CUSTOMERS, json!({ "after": cursor, "orderBy": other })).await;
        answer.assert_rejected("customers", &[("INVALID_ARGUMENT", "after")]);
    }
    // Rows that are added before and after a page do not change the page.
    let all = page(app, &own, json!({ "orderBy": order })).await;
    app.created(&own, "0", json!({ "email": "first@example.com" })).await;
    app.created(&own, "\u{10ffff}", json!({ "email": "last@example.com" })).await;
    let next = page(app, &own, json!({ "first": 3, "after": cursor, "orderBy": order })).await;
    assert_eq!(emails(&next), emails(&all)[1..4]);
    // The list of all customers has a fixed order. The platform key can order the list of one operator.
    let answer = app.graphql(&app.platform(), CUSTOMERS, json!({ "orderBy": order })).await;
    answer.assert_rejected("customers", &[("INVALID_ARGUMENT", "orderBy")]);
    let of_operator = "query ($id: ID!) { operator(id: $id) { \
                       customers(first: 1, orderBy: { field: EXTERNAL_CUSTOMER_ID, direction: DESC }) { \
                       edges { externalCustomerId } } } }";
    let answer = app.graphql(&app.platform(), of_operator, json!({ "id": own.operator })).await;
    assert_eq!(answer.body["data"]["operator"]["customers"]["edges"], json!([{ "externalCustomerId": "\u{10ffff}" }]));
});

both!(filters_match_missing_fields_and_times, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let address = json!({ "line1": "1 Main St", "city": "Springfield", "country": "US" });
    app.created(&other, "known", json!({ "email": "known@example.com", "phone": "+14155552673" })).await;
    app.created(&own, "bare", json!({ "email": "bare@example.com" })).await;
    app.created(&own, "named", json!({ "email": "named@example.com", "firstName": "Ada", "lastName": "Lovelace" }))
        .await;
    let data = json!({
        "email": "whole@example.com", "firstName": "Ada", "lastName": "Lovelace", "phone": "+14155552671",
        "address": address,
    });
    app.created(&own, "whole", data).await;
    app.created(&own, "known", json!({ "email": "known@example.com" })).await;
    let times = app.query(&own, "{ customers { edges { connectedAt node { createdAt } } } }").await;
    let time = |number: usize, path: &str| times["customers"]["edges"][number].pointer(path).unwrap().clone();
    // 0.1 microseconds later: a finer time than the stored times.
    let later = |number: usize| json!(time(number, "/connectedAt").as_str().unwrap().replace('+', "1+"));
    let (bare, named, known) = ("bare@example.com", "named@example.com", "known@example.com");
    let whole = "whole@example.com";
    for (filter, found) in [
        (json!({ "missing": ["PHONE"] }), vec![bare, named]),
        (json!({ "missing": ["PHONE", "FIRST_NAME"] }), vec![bare]),
        (json!({ "missing": ["ADDRESS"] }), vec![bare, named, known]),
        (json!({ "missing": ["EMAIL"] }), vec![]),
        (json!({ "missing": vec!["PHONE"; 100] }), vec![bare, named]),
        (json!({ "missing": [] }), vec![bare, named, whole, known]),
        (json!({ "connectedAt": { "from": time(1, "/connectedAt") } }), vec![named, whole, known]),
        (json!({ "connectedAt": { "before": time(1, "/connectedAt") } }), vec![bare]),
        (json!({ "connectedAt": { "before": later(1) } }), vec![bare, named]),
        (json!({ "connectedAt": { "from": later(1) } }), vec![whole, known]),
        (
            json!({ "connectedAt": { "from": time(1, "/connectedAt"), "before": time(3, "/connectedAt") } }),
            vec![named, whole],
        ),
        (json!({ "connectedAt": { "from": time(3, "/connectedAt"), "before": time(1, "/connectedAt") } }), vec![]),
        (json!({ "createdAt": { "before": time(0, "/node/createdAt") } }), vec![known]),
        (json!({ "createdAt": { "from": time(2, "/node/createdAt") }, "missing": ["PHONE"] }), vec![]),
        (json!({ "connectedAt": {}, "createdAt": {} }), vec![bare, named, whole, known]),
    ] {
        assert_eq!(emails(&page(app, &own, json!({ "filter": filter })).await), found, "{filter}");
        let pages_of_one = page(app, &own, json!({ "filter": filter, "first": 1 })).await;
        assert_eq!(pages_of_one["pageInfo"]["hasNextPage"], json!(found.len() > 1), "{filter}");
        let query = "query ($filter: CustomerFilter) { customers(filter: $filter) { totalCount } }";
        let counted = app.graphql(&own, query, json!({ "filter": filter })).await;
        assert_eq!(counted.body["data"]["customers"]["totalCount"], found.len(), "{filter}");
    }
    let missing_name = json!({ "filter": { "missing": ["FIRST_NAME"] } });
    assert_eq!(emails(&page(app, &app.platform(), missing_name).await), [known, bare]);
    let answer = app.graphql(&app.platform(), CUSTOMERS, json!({ "filter": { "connectedAt": {} } })).await;
    answer.assert_rejected("customers", &[("INVALID_ARGUMENT", "filter.connectedAt")]);
});

both!(pages_of_any_size_take_the_same_number_of_statements, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let all = populate(app, &own, 50).await;
    // Each customer gets one to five more operators, which `own` does not see.
    for number in 0..5 {
        let another = app.operator(&format!("Another {number}")).await;
        for email in all.iter().step_by(number + 1) {
            app.created(&another, email, json!({ "email": email })).await;
        }
    }
    let query = "query ($first: Int) { customers(first: $first) { totalCount edges { externalCustomerId node { email \
                 operators { edges { externalCustomerId node { name } } } } } } }";
    let nested = "query ($first: Int) { operators(first: $first) { edges { node { name \
                  customers(first: $first) { totalCount \
                  edges { node { email operators(first: 2) { edges { node { name } } } } } } } } } }";
    // Reads the operators into the cache.
    app.graphql(&app.platform(), query, json!({ "first": 50 })).await;
    for (caller, query, max) in [(&own, query, 3), (&app.platform(), query, 4), (&app.platform(), nested, 5)] {
        let mut counts = BTreeSet::new();
        for first in [1, 3, 50] {
            let (answer, statements) = app.statements_of(app.graphql(caller, query, json!({ "first": first }))).await;
            answer.data();
            counts.insert(statements.len());
        }
        assert_eq!(counts.len(), 1, "{counts:?} statements for pages of different sizes");
        assert!(counts.first() <= Some(&max), "{counts:?}");
    }
    // The total is counted only if it is requested.
    let (_, statements) = app.statements_of(app.query(&own, "{ customers { edges { cursor } } }")).await;
    assert!(statements.iter().all(|sql| !sql.contains("COUNT")), "{statements:?}");
});

both!(operators_of_a_customer_have_pages, Sandbox, async |app| {
    let mut names = Vec::new();
    for number in 0..5 {
        let operator = app.operator(&format!("Operator {number}")).await;
        app.created(&operator, &format!("id-{number}"), json!({ "email": "ada@example.com" })).await;
        names.push(format!("Operator {number}"));
    }
    let query = "query ($first: Int, $after: String, $last: Int, $before: String) { \
                 customer(by: { email: \"ada@example.com\" }) { \
                 operators(first: $first, after: $after, last: $last, before: $before) { \
                 edges { cursor externalCustomerId connectedAt node { name } } \
                 pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";
    let page = async |arguments: Value| {
        let answer = app.graphql(&app.platform(), query, arguments).await;
        answer.body["data"]["customer"]["operators"].clone()
    };
    let names_of = |page: &Value| -> Vec<String> {
        page["edges"].as_array().unwrap().iter().map(|edge| edge["node"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = page(json!({ "first": 2 })).await;
    assert_eq!(names_of(&first), names[..2]);
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let second = page(json!({ "first": 3, "after": first["pageInfo"]["endCursor"] })).await;
    assert_eq!(names_of(&second), names[2..]);
    assert_eq!(second["pageInfo"]["hasNextPage"], false);
    let last = page(json!({ "last": 2 })).await;
    assert_eq!(names_of(&last), names[3..]);
    let before = page(json!({ "last": 10, "before": last["pageInfo"]["startCursor"] })).await;
    assert_eq!(names_of(&before), names[..3]);
    // The list of all operators has pages too.
    let operators = "query ($after: String) { operators(first: 3, after: $after) { \
                     totalCount edges { node { name } } pageInfo { endCursor hasNextPage } } }";
    let one = app.graphql(&app.platform(), operators, json!({})).await.body["data"]["operators"].clone();
    assert_eq!(one["totalCount"], 5);
    assert_eq!(names_of(&one), names[..3]);
    let two = app.graphql(&app.platform(), operators, json!({ "after": one["pageInfo"]["endCursor"] })).await;
    assert_eq!(names_of(&two.body["data"]["operators"]), names[3..]);
});

both!(nodes_are_the_nodes_of_the_edges, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for email in populate(app, &own, 3).await {
        app.created(&other, &email, json!({ "email": email, "firstName": "Ada" })).await;
    }
    let customer = "{ email operators { edges { node { name } } nodes { name } } \
                    history { edges { node { type } } nodes { type } } }";
    let query = format!(
        "{{ operators(last: 2) {{ edges {{ node {{ name }} }} nodes {{ name }} }} \
         customers(first: 2) {{ edges {{ node {customer} }} nodes {customer} }} }}"
    );
    // The response has one list of operators and one list of customers. The two customers are in `edges` and in
    // `nodes`, and have two lists each: 2 + 2 * 2 * 2 lists.
    for caller in [&own, &app.platform()] {
        assert_eq!(assert_nodes_are_those_of_the_edges(&app.query(caller, &query).await), 10);
    }
});

both!(nodes_take_the_same_statements_as_edges, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for email in populate(app, &own, 3).await {
        app.created(&other, &email, json!({ "email": email })).await;
    }
    let lists = |items: fn(&str) -> String| {
        let operators = format!("operators(first: 3) {{ {} }}", items("name"));
        let history = format!("history {{ {} }}", items("operator { name } apiKey { name }"));
        let customers = format!("customers(last: 5) {{ {} }}", items(&format!("{operators} {history}")));
        [format!("{{ customers {{ {} }} }}", items(&operators)), format!("{{ operators {{ {} }} }}", items(&customers))]
    };
    let by_edges = lists(|fields| format!("edges {{ node {{ {fields} }} }}"));
    let by_nodes = lists(|fields| format!("nodes {{ {fields} }}"));
    // Operators are cached for a short time, so a request on a slow machine may look them up once more.
    let statements_of = async |caller: &TestCaller, query: &str| {
        let (_, mut statements) = app.statements_of(app.query(caller, query)).await;
        statements.retain(|sql| !is_operator_lookup(sql));
        statements
    };
    for caller in [&own, &app.platform()] {
        for (by_edges, by_nodes) in by_edges.iter().zip(&by_nodes) {
            let statements_by_edges = statements_of(caller, by_edges).await;
            let statements_by_nodes = statements_of(caller, by_nodes).await;
            assert!(!statements_by_edges.is_empty());
            assert_eq!(statements_by_nodes, statements_by_edges, "{by_nodes}");
        }
    }
});

both!(a_customer_on_two_pages_has_its_operators_on_both, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for email in populate(app, &own, 3).await {
        app.created(&other, &email, json!({ "email": email })).await;
    }
    let nested = "{ operators { nodes { customers { nodes { operators(first: 5) { nodes { name } } } } } } }";
    let customers = app.query(&app.platform(), nested).await["operators"]["nodes"].clone();
    let both_operators = json!({ "nodes": [{ "name": "Own" }, { "name": "Other" }] });
    let three = json!({ "nodes": vec![json!({ "operators": both_operators }); 3] });
    assert_eq!(customers, json!([{ "customers": three }, { "customers": three }]));

    let twice = "{ a: customers { nodes { operators(first: 5) { nodes { name } } } } \
                 b: customers(last: 5) { nodes { operators(first: 5) { nodes { name } } } } }";
    for (caller, operators) in [(app.platform(), both_operators), (own, json!({ "nodes": [{ "name": "Own" }] }))] {
        let page = json!({ "nodes": vec![json!({ "operators": operators }); 3] });
        assert_eq!(app.query(&caller, twice).await, json!({ "a": page, "b": page }));
    }
});
