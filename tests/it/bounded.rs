//! Lists with conditions that no index supports: a page checks at most 10,000 customers, and so does a count.

use serde_json::{Value, json};

use support::pages::{BACKWARDS, FORWARDS};
use support::{TestApp, TestCaller, both};

const CUSTOMERS: &str = "query ($operator: ID!, $filter: CustomerFilter, $orderBy: CustomerOrder, \
    $first: Int, $after: String, $last: Int, $before: String) { operator(id: $operator) { \
    customers(filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) { \
    edges { externalCustomerId } totalCount totalCountAtLeast \
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";
const ALL_CUSTOMERS: &str = "query ($filter: CustomerFilter, $first: Int, $after: String, $last: Int, $before: String) { \
    customers(filter: $filter, first: $first, after: $after, last: $last, before: $before) { \
    nodes { firstName } totalCount totalCountAtLeast pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

const CUSTOMERS_OF_TEST: usize = 10_050;
/// The numbers (see [`populate`]) of the customers without a phone.
const WITHOUT_PHONE: [usize; 3] = [5, 6, 10_040];

/// Connects 10,050 customers to an operator. Each customer has a number, which is stored as the first name, as the
/// external id, and as the digits of the id. All customers have the search word `common`.
async fn populate(app: &TestApp, caller: &TestCaller) {
    app.created(caller, "operator", json!({ "email": "operator@example.com" })).await;
    let operator = "(SELECT operator_id FROM customer_operator WHERE external_customer_id = 'operator')";
    let (id, number, time) = if app.is_postgres() {
        (
            "('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid",
            "lpad(n::text, 6, '0')",
            "timestamptz '2020-01-01' + n * interval '1 second'",
        )
    } else {
        (
            "unhex('00000000000070008000' || printf('%012d', n))",
            "printf('%06d', n)",
            "strftime('%Y-%m-%dT%H:%M:%S+00:00', 1577836800 + n, 'unixepoch')",
        )
    };
    let [one, two, three] = WITHOUT_PHONE;
    let numbers = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {CUSTOMERS_OF_TEST})"
    );
    let sql = format!(
        "INSERT INTO customer (id, email, phone, first_name, version, created_at, updated_at) {numbers} \
         SELECT {id}, n || '@example.com', CASE WHEN n IN ({one}, {two}, {three}) THEN NULL ELSE '+1' || (2000000000 + n) END, \
         {number}, 1, {time}, {time} FROM numbers; \
         INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at) {numbers} \
         SELECT {operator}, {id}, {number}, {time} FROM numbers; \
         INSERT INTO customer_word (operator_id, customer_id, place, word) {numbers} \
         SELECT {operator}, {id}, 0, 'common' FROM numbers;"
    );
    app.execute(&sql).await;
    let analyze = if app.is_postgres() { "VACUUM ANALYZE customer_operator" } else { "ANALYZE" };
    app.execute(analyze).await;
}

/// Removes all customers with their words, links and history. The inserted customers have no history, so with them the
/// check of the invariants at the end of the test would fail.
async fn clear(app: &TestApp) {
    let tables = ["customer_word", "customer_operator", "customer_event", "customer"];
    let sql = tables.map(|table| format!("DELETE FROM {table};")).concat();
    app.execute(&sql).await;
}

/// Follows `pageInfo` through a list. Returns the numbers of the customers in the order in which they were read, and
/// the number of pages.
async fn follow(app: &TestApp, caller: &TestCaller, arguments: &Value, forward: bool) -> (Vec<usize>, usize) {
    let direction = if forward { FORWARDS } else { BACKWARDS };
    let read = async |cursor: Value| {
        page(app, caller, arguments, &json!({ direction.size: 2, direction.bound: cursor })).await
    };
    let pages = direction.read_pages(read).await;
    let mut read: Vec<_> = pages.iter().flat_map(numbers).collect();
    if !forward {
        read.reverse();
    }
    (read, pages.len())
}

async fn page(app: &TestApp, caller: &TestCaller, arguments: &Value, more: &Value) -> Value {
    let mut variables = arguments.clone();
    variables.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    if caller.operator.is_empty() {
        return app.graphql(caller, ALL_CUSTOMERS, variables).await.data()["customers"].clone();
    }
    variables["operator"] = json!(caller.operator);
    app.graphql(caller, CUSTOMERS, variables).await.data()["operator"]["customers"].clone()
}

fn numbers(page: &Value) -> Vec<usize> {
    let values = page["edges"].as_array().or(page["nodes"].as_array()).unwrap().iter();
    let text = |value: &Value| value["externalCustomerId"].as_str().or(value["firstName"].as_str()).unwrap().to_owned();
    values.map(|value| text(value).parse().unwrap()).collect()
}

both!(a_page_ends_after_10000_checked_customers_and_the_next_one_goes_on, Sandbox, async |app| {
    let own = app.operator("Own").await;
    populate(app, &own).await;
    let missing = |more: Value| {
        let mut filter = json!({ "missing": ["PHONE"], "createdAt": { "before": "2021-01-01T00:00:00Z" } });
        filter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        filter
    };
    let order = |field: &str, direction: &str| json!({ "field": field, "direction": direction });
    for (caller, arguments, is_descending) in [
        (&own, json!({ "filter": missing(json!({})) }), false),
        (&own, json!({ "filter": missing(json!({})), "orderBy": order("CONNECTED_AT", "DESC") }), true),
        (&own, json!({ "filter": missing(json!({})), "orderBy": order("EXTERNAL_CUSTOMER_ID", "ASC") }), false),
        (&own, json!({ "filter": missing(json!({})), "orderBy": order("EXTERNAL_CUSTOMER_ID", "DESC") }), true),
        (&own, json!({ "filter": missing(json!({ "search": "comm" })) }), false),
        (&own, json!({ "filter": missing(json!({ "connectedAt": { "from": "2020-01-01T00:00:00Z" } })) }), false),
        (&app.platform(), json!({ "filter": missing(json!({})) }), false),
    ] {
        let mut expected = WITHOUT_PHONE.to_vec();
        for forward in [true, false] {
            expected.sort_unstable();
            if is_descending == forward {
                expected.reverse();
            }
            // The first page stops after 10,000 checked customers. The second page is the last page.
            assert_eq!(follow(app, caller, &arguments, forward).await, (expected.clone(), 2), "{arguments} {forward}");
        }
        let counted = page(app, caller, &arguments, &json!({})).await;
        let found = if is_descending { vec![10_040] } else { vec![5, 6] };
        assert_eq!(numbers(&counted), found, "{arguments}");
        assert_eq!(counted["pageInfo"]["hasNextPage"], true, "{arguments}");
        assert_eq!(
            (&counted["totalCount"], &counted["totalCountAtLeast"]),
            (&json!(null), &json!(found.len())),
            "{arguments}"
        );
    }
    // A page without customers has a cursor too.
    let nobody = json!({ "filter": { "createdAt": { "before": "2019-01-01T00:00:00Z" } } });
    let empty = page(app, &own, &nobody, &json!({})).await;
    assert_eq!((numbers(&empty), &empty["pageInfo"]["hasNextPage"]), (vec![], &json!(true)));
    assert_eq!(follow(app, &own, &nobody, true).await, (vec![], 2));
    assert_eq!(follow(app, &own, &nobody, false).await, (vec![], 2));
    clear(app).await;
});

both!(exact_filters_and_short_lists_are_counted_exactly, Sandbox, async |app| {
    let own = app.operator("Own").await;
    populate(app, &own).await;
    for (filter, count) in [
        (json!({}), CUSTOMERS_OF_TEST + 1),
        (
            json!({ "connectedAt": { "from": "2020-01-01T00:00:11Z", "before": "2021-01-01T00:00:00Z" } }),
            CUSTOMERS_OF_TEST - 10,
        ),
        (json!({ "connectedAt": { "before": "2020-01-01T00:00:11Z" }, "missing": ["PHONE"] }), 2),
        (json!({ "externalCustomerId": "010040", "missing": ["PHONE"] }), 1),
        (json!({ "email": "10040@example.com", "search": "common", "missing": ["PHONE"] }), 1),
        (json!({ "phone": "+12000000007", "search": "nobody" }), 0),
        (json!({ "search": "operator" }), 1),
        (json!({ "search": "%" }), 0),
        (json!({ "missing": ["EMAIL"] }), 0),
    ] {
        let page = page(app, &own, &json!({ "filter": filter }), &json!({})).await;
        let counts = (&page["totalCount"], &page["totalCountAtLeast"]);
        assert_eq!(counts, (&json!(count), &json!(count)), "{filter}");
        assert_eq!(page["pageInfo"]["hasNextPage"], json!(count > 20), "{filter}");
    }
    // For a common word, the count checks only the first 10,000 customers.
    let page = page(app, &own, &json!({ "filter": { "search": "common" } }), &json!({})).await;
    assert_eq!((&page["totalCount"], &page["totalCountAtLeast"]), (&json!(null), &json!(10_000)));
    clear(app).await;
});

both!(a_short_page_of_a_search_is_read_again_with_sorted_words, Sandbox, async |app| {
    let own = app.operator("Own").await;
    populate(app, &own).await;
    // Only the last 40 customers match. They have more matching words than a search usually sorts.
    let sql = "INSERT INTO customer_word (operator_id, customer_id, place, word) \
         WITH RECURSIVE places(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM places WHERE n < 250) \
         SELECT operator_id, customer_id, n, 'promo' || n FROM customer_operator CROSS JOIN places \
         WHERE external_customer_id BETWEEN '010011' AND '010050'";
    app.execute(sql).await;
    let expected: Vec<_> = (10_011..=10_050).collect();
    let arguments = json!({ "filter": { "search": "promo" } });
    for forward in [true, false] {
        let mut expected = expected.clone();
        if !forward {
            expected.reverse();
        }
        assert_eq!(follow(app, &own, &arguments, forward).await, (expected, 20), "{forward}");
    }
    let counted = page(app, &own, &arguments, &json!({})).await;
    assert_eq!((numbers(&counted).len(), &counted["totalCount"]), (20, &json!(40)));
    // With another condition, the page stays short.
    let without_phone = json!({ "filter": { "search": "promo", "missing": ["PHONE"] } });
    assert_eq!(follow(app, &own, &without_phone, true).await, (vec![10_040], 2));
    clear(app).await;
});

both!(a_search_of_a_common_name_ends_after_10000_checked_customers, Sandbox, async |app| {
    let own = app.operator("Own").await;
    populate(app, &own).await;
    let sql = "UPDATE customer SET first_name = 'Ada', last_name = 'Common' WHERE email <> 'operator@example.com'; \
         INSERT INTO customer_word (operator_id, customer_id, place, word) \
         SELECT operator_id, customer_id, 2000, 'ada' FROM customer_operator WHERE external_customer_id <> 'operator'; \
         INSERT INTO customer_word (operator_id, customer_id, place, word) \
         SELECT operator_id, customer_id, 5000, '&ada common' FROM customer_operator \
         WHERE external_customer_id <> 'operator';";
    app.execute(sql).await;
    let named = json!({ "filter": { "search": "ada common" } });
    let first = page(app, &own, &named, &json!({ "first": 100 })).await;
    assert_eq!(numbers(&first), (1..=100).collect::<Vec<_>>());
    let last = page(app, &own, &named, &json!({ "last": 100 })).await;
    assert_eq!(numbers(&last), (CUSTOMERS_OF_TEST - 99..=CUSTOMERS_OF_TEST).collect::<Vec<_>>());
    let without_phone = json!({ "filter": { "search": "ada common", "missing": ["PHONE"] } });
    for forward in [true, false] {
        let mut expected = WITHOUT_PHONE.to_vec();
        if !forward {
            expected.reverse();
        }
        assert_eq!(follow(app, &own, &without_phone, forward).await, (expected, 2), "{forward}");
    }
    clear(app).await;
});
