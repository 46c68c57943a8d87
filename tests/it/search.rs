//! `CustomerFilter.search`: prefixes of words, the plans of a search, and the search words that `vivamo migrate` adds.

use std::path::Path;

use serde_json::{Value, json};

use support::pages::{BACKWARDS, Direction, FORWARDS};
use support::process::vivamo;
use support::{KEY_SECRET, TestApp, TestCaller, both};

const SEARCH: &str = "query ($search: String!, $missing: [CustomerField!], $first: Int, $after: String, $last: Int, $before: String) { \
    customers(filter: { search: $search, missing: $missing }, first: $first, after: $after, last: $last, before: $before) { \
    totalCount edges { cursor node { id email } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

async fn page(app: &TestApp, caller: &TestCaller, arguments: Value) -> Value {
    let answer = app.graphql(caller, SEARCH, arguments).await;
    answer.data()["customers"].clone()
}

/// Searches, and returns the local parts of the emails that were found.
async fn search_names(app: &TestApp, caller: &TestCaller, search: &str) -> Vec<String> {
    let page = page(app, caller, json!({ "search": search })).await;
    let names = names(&page);
    assert_eq!(page["totalCount"], names.len(), "{search}");
    names
}

/// The local parts of the emails of a page.
fn names(page: &Value) -> Vec<String> {
    let edges = page["edges"].as_array().unwrap().iter();
    edges.map(|edge| edge["node"]["email"].as_str().unwrap().split('@').next().unwrap().to_owned()).collect()
}

/// Asserts that a page is empty if it is after the last customer of a search and before the first one.
async fn assert_nothing_after_the_last_and_before_the_first(app: &TestApp, caller: &TestCaller, search: &str) {
    let ends = page(app, caller, json!({ "search": search })).await["pageInfo"].clone();
    for size in ["first", "last"] {
        let crossed = json!({ "search": search, size: 2, "after": ends["endCursor"], "before": ends["startCursor"] });
        assert_eq!(names(&page(app, caller, crossed).await), [""; 0], "{search} {size}");
    }
}

/// Adds rows of a search word that belong to no customer, so that the word is common. The rows belong to the operator
/// that has a customer with this external id.
async fn make_common(app: &TestApp, external_id: &str, word: &str, rows: u32) {
    let operator = format!("(SELECT operator_id FROM customer_operator WHERE external_customer_id = '{external_id}')");
    let sql = if app.is_postgres() {
        format!(
            "INSERT INTO customer_word \
             SELECT {operator}, gen_random_uuid(), 0, '{word}' FROM generate_series(1, {rows})"
        )
    } else {
        format!(
            "INSERT INTO customer_word \
             WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows}) \
             SELECT {operator}, randomblob(16), 0, '{word}' FROM numbers"
        )
    };
    app.execute(&sql).await;
}

both!(search_matches_prefixes_of_words, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let ada = json!({
        "email": "ada.lovelace@example.com", "firstName": "Ada", "lastName": "Lovelace", "phone": "+14155552671",
    });
    app.created(&own, "Shop-17", ada).await;
    app.created(
        &own,
        "2026-0042",
        json!({ "email": "jose@beispiel.de", "firstName": "José María", "lastName": "Łukasz-Groß" }),
    )
    .await;
    app.created(&own, "ORD-2024-000123", json!({ "email": "x@müller.de", "phone": "+442071838750" })).await;
    app.created(
        &own,
        "x_y%z",
        json!({ "email": "o_brien@example.com", "lastName": "O'Brien", "phone": "+46701234567" }),
    )
    .await;
    for (search, expected) in [
        ("ada", &["ada.lovelace"][..]),
        ("ADA", &["ada.lovelace"]),
        ("love ad", &["ada.lovelace"]),
        ("ada jose", &[]),
        ("ovelace", &[]),
        ("ada.lovelace@exa", &["ada.lovelace"]),
        ("example.com", &["ada.lovelace", "o_brien"]),
        ("jose maria", &["jose"]),
        ("JOSÉ MARÍA", &["jose"]),
        ("Jose\u{301}", &["jose"]),
        ("lukasz", &["jose"]),
        ("GROSS", &["jose"]),
        ("shop", &["ada.lovelace"]),
        ("17", &["ada.lovelace"]),
        ("017", &["ada.lovelace"]),
        ("2026-00", &["jose"]),
        ("202600", &["jose"]),
        ("0042", &["jose"]),
        ("+1 (415) 555", &["ada.lovelace"]),
        ("415555", &["ada.lovelace"]),
        ("5552671", &[]),
        ("+46 70-123", &["o_brien"]),
        ("brien", &["o_brien"]),
        ("obrien", &["o_brien"]),
        ("ada 415 555", &["ada.lovelace"]),
        ("2024-000123", &["x"]),
        ("ORD 2024-000", &["x"]),
        ("000123", &["x"]),
        ("x@müller.de", &["x"]),
        ("x@xn--mller-kva.de", &["x"]),
        ("+44 (0)20 7183 8750", &["x"]),
        ("+44(0)2071838750", &["x"]),
        ("\u{202d}+44 (0)20 7183 8750\u{202c}", &["x"]),
        ("ORD(0)2024", &["x"]),
        ("020 7183", &["x"]),
        ("004420", &["x"]),
        ("z y x", &["o_brien"]),
        // Wildcards are separators.
        ("%", &[]),
        ("_", &[]),
        ("a%e", &["ada.lovelace"]),
        ("l%", &["ada.lovelace", "jose"]),
        ("", &[]),
        ("' OR 1=1 --", &[]),
    ] {
        assert_eq!(search_names(app, &own, search).await, expected, "{search}");
    }
    let query = "query ($id: ID!) { operator(id: $id) { \
                 customers(filter: { search: \"maria\" }) { totalCount edges { externalCustomerId } } } }";
    let answer = app.graphql(&app.platform(), query, json!({ "id": own.operator })).await;
    assert_eq!(
        answer.body["data"]["operator"]["customers"],
        json!({ "totalCount": 1, "edges": [{ "externalCustomerId": "2026-0042" }] })
    );
});

both!(search_follows_changes_by_every_operator, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(
        &own,
        "first",
        json!({ "email": "ada@example.com", "firstName": "Ada Augusta", "phone": "+14155552671" }),
    )
    .await;
    app.created(&other, "second", json!({ "email": "ada@example.com", "lastName": "Byron" })).await;
    for caller in [&own, &other] {
        assert_eq!(search_names(app, caller, "augusta byron 1415").await, ["ada"]);
    }
    // An external id is found by its own operator only.
    assert_eq!(search_names(app, &own, "first").await, ["ada"]);
    assert_eq!(search_names(app, &other, "first").await.len(), 0);
    app.updated(
        &own,
        json!({ "externalCustomerId": "first" }),
        json!({ "firstName": "Countess", "phone": null, "email": "lady@example.org" }),
    )
    .await;
    for caller in [&own, &other] {
        for old in ["ada", "augusta", "1415", "415", "example.com"] {
            assert_eq!(search_names(app, caller, old).await.len(), 0, "{old}");
        }
        assert_eq!(search_names(app, caller, "countess byron lady").await, ["lady"]);
    }
    app.updated(&other, json!({ "externalCustomerId": "second" }), json!({ "firstName": "Augusta Ada King" })).await;
    assert_eq!(search_names(app, &own, "king ada").await, ["lady"]);
    // A customer of another operator is not found.
    app.created(&other, "foreign", json!({ "email": "foreign@example.com" })).await;
    assert_eq!(search_names(app, &own, "foreign").await.len(), 0);
});

both!(all_search_plans_return_the_same_pages, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for number in 0..12 {
        // Some customers have the word `even`, some have only a longer word, and customer 8 has both.
        let even =
            ["even", "odd", "evening", "odd", "even", "odd", "evening", "odd", "evening even", "odd", "even", "odd"];
        let (even, third) = (even[number], if number % 3 == 0 { "third" } else { "other" });
        let phone = (number == 4).then_some("+14155552671");
        app.created(
            &own,
            &format!("customer-{number}"),
            json!({ "email": format!("{number}@example.com"), "firstName": even, "lastName": third, "phone": phone }),
        )
        .await;
    }
    let mut results = Vec::new();
    for step in 0..3 {
        // In the first step, `even` and `third` are rare. In the second step, only `third` is rare. In the third step,
        // both words are common.
        if step > 0 {
            make_common(app, "customer-0", ["", "evenly", "thirdly"][step], 100_001).await;
        }
        if step == 0 {
            // The customers with these names, one count, the page, and `totalCount`.
            let (_, statements) =
                app.statements_of(page(app, &own, json!({ "search": "even third", "first": 2 }))).await;
            assert_eq!(statements.len(), 4, "{statements:?}");
        }
        let mut pages: Vec<Vec<String>> = Vec::new();
        let searches = ["even", "third even", "customer", "customer even other"];
        for (search, missing) in searches.iter().flat_map(|search| [(search, None), (search, Some("PHONE"))]) {
            let whole = page(app, &own, json!({ "search": search, "missing": missing })).await;
            assert_eq!(whole["totalCount"], names(&whole).len(), "{search}");
            let directions = [FORWARDS, BACKWARDS].into_iter();
            for (direction, size) in directions.flat_map(|direction| (1..=4).map(move |size| (direction, size))) {
                let Direction { size: count, bound, has_more, .. } = direction;
                let read = async |cursor: Value| {
                    let arguments = json!({ "search": search, "missing": missing, count: size, bound: cursor });
                    let page = page(app, &own, arguments).await;
                    let is_last = page["pageInfo"][has_more] == json!(false);
                    assert!(is_last || names(&page).len() == size, "{search} {count} {size}: {page}");
                    page
                };
                let read: Vec<_> = direction.read_pages(read).await.iter().flat_map(names).collect();
                assert_eq!(read, names(&whole), "{search} {count} {size}");
            }
            // Only customer 4 has a phone.
            if missing.is_none() {
                pages.push(names(&whole));
            } else {
                let without_phone = pages.last().unwrap().iter().filter(|name| *name != "4");
                assert_eq!(names(&whole), without_phone.cloned().collect::<Vec<_>>(), "{search}");
            }
        }
        results.push(pages);
    }
    assert_eq!(
        results[0],
        [
            vec!["0", "2", "4", "6", "8", "10"],
            vec!["0", "6"],
            (0..12).map(|number| number.to_string().leak() as &str).collect(),
            vec!["2", "4", "8", "10"]
        ]
    );
    assert!(results[1] == results[0] && results[2] == results[0], "{results:?}");
    let (_, statements) = app.statements_of(page(app, &own, json!({ "search": "even third", "first": 2 }))).await;
    // The customers with these names, four counts of the entries of each word, the page, and `totalCount`.
    assert_eq!(statements.len(), 7, "{statements:?}");
    app.rebuild_search_words().await;
});

both!(only_the_first_12_words_of_a_value_are_stored, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let letters: Vec<_> = ('a'..='n').map(|letter| letter.to_string().repeat(2)).collect();
    let data = json!({
        "email": format!("{}@example.com", letters.join(".")), "firstName": letters.join(" "), "lastName": letters.join("-"),
    });
    app.created(&own, &letters.join("/"), data).await;
    // The email has 12 words and 2 of the domain. The external id, each name, and the pairs of the names have 12 words.
    assert_eq!(app.count_rows("customer_word").await, 5 * 12 + 2);
    assert_eq!(search_names(app, &own, "aa ll").await.len(), 1);
    assert_eq!(search_names(app, &own, "mm").await.len(), 0);
});

both!(invalid_searches_are_rejected, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&own, "2", json!({ "email": "ada@example.org" })).await;
    let query = "query ($filter: CustomerFilter, $orderBy: CustomerOrder, $after: String) { \
                 customers(filter: $filter, orderBy: $orderBy, after: $after) { edges { cursor } } }";
    let order = json!({ "field": "CONNECTED_AT", "direction": "ASC" });
    let cursor = page(app, &own, json!({ "search": "ada" })).await["pageInfo"]["startCursor"].clone();
    for (caller, arguments, path) in [
        (&own, json!({ "filter": { "search": "ada" }, "orderBy": order }), "orderBy"),
        (&own, json!({ "filter": { "search": "x".repeat(256) } }), "filter.search"),
        (&own, json!({ "filter": { "search": "a b c d e f g h i" } }), "filter.search"),
        (&own, json!({ "filter": { "search": "adam" }, "after": cursor }), "after"),
        (&own, json!({ "after": cursor }), "after"),
        (&app.platform(), json!({ "filter": { "search": "ada" } }), "filter.search"),
    ] {
        let answer = app.graphql(caller, query, arguments.clone()).await;
        answer.assert_rejected("customers", &[("INVALID_ARGUMENT", path)]);
    }
    // The cursor is valid for another spelling of the same search.
    assert_eq!(names(&page(app, &own, json!({ "search": "ÁDA", "after": cursor })).await), ["ada"]);
});

// Each word has three spellings: as it is, without zeros, and as the last four digits of a phone. A statement must not
// have more values than the database accepts.
both!(the_longest_search_can_run_in_hundreds_of_lists, Sandbox, async |app| {
    for number in 0..100 {
        app.operator(&format!("Operator {number}")).await;
    }
    let list = |first| format!("l{first}: customers(first: {first}, filter: $filter) {{ nodes {{ id }} }} ");
    let lists: String = (1..=4).map(list).collect();
    let query = format!("query ($filter: CustomerFilter) {{ operators(first: 100) {{ nodes {{ {lists} }} }} }}");
    let search = "0012@0013@0014@0015@0016@0017@0018@0019";
    let filter = json!({ "search": search, "createdAt": { "from": "2026-01-01T00:00:00Z" } });
    let answer = app.graphql(&app.platform(), &query, json!({ "filter": filter })).await;
    let nothing = json!({ "nodes": [] });
    let empty = json!({ "l1": nothing, "l2": nothing, "l3": nothing, "l4": nothing });
    assert_eq!(answer.data()["operators"]["nodes"], json!(vec![empty; 100]));
});

both!(names_are_found_in_the_spellings_of_their_scripts, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for (number, (first, last, phone)) in [
        ("小明", "王", "+8613812345678"),
        ("राम", "शर्मा", "+919812345678"),
        ("रोम", "शर्मा", "+919812345679"),
        ("Conor", "O'Brien", "+353851234567"),
        ("علي", "کریمی", "+989121234567"),
        ("Jürgen", "Müller", "+4915123456789"),
        ("Jens", "Mueller", "+4915123450042"),
    ]
    .into_iter()
    .enumerate()
    {
        let data =
            json!({ "email": format!("{number}@example.com"), "firstName": first, "lastName": last, "phone": phone });
        app.created(&own, &format!("id-{number}"), data).await;
    }
    for (search, expected) in [
        ("王小明", &["0"][..]),
        ("小明王", &["0"]),
        ("王 小明", &["0"]),
        ("राम", &["1"]),
        ("राम शर्मा", &["1"]),
        ("शर्", &["1", "2"]),
        ("obrien", &["3"]),
        ("o’brien conor", &["3"]),
        ("علی كريمي", &["4"]),
        ("mueller", &["5", "6"]),
        ("Müller", &["5", "6"]),
        ("muller", &["5"]),
        ("juergen", &["5"]),
        ("4567", &["3", "4"]),
        ("•••• 6789", &["5"]),
        ("0042", &["6"]),
        ("678", &[]),
        ("conor 4567", &["3"]),
    ] {
        assert_eq!(search_names(app, &own, search).await, expected, "{search}");
    }
    // The search words change together with the names and the phone.
    app.updated(
        &own,
        json!({ "externalCustomerId": "id-0" }),
        json!({ "firstName": "大明", "phone": "+8613812340000" }),
    )
    .await;
    for (search, expected) in [("王小明", &[][..]), ("王大明", &["0"]), ("5678", &["1"]), ("0000", &["0"])] {
        assert_eq!(search_names(app, &own, search).await, expected, "{search}");
    }
    app.updated(&own, json!({ "externalCustomerId": "id-0" }), json!({ "firstName": null, "phone": null })).await;
    for (search, expected) in [("王大明", &[][..]), ("大明王", &[]), ("王", &["0"]), ("0000", &[])] {
        assert_eq!(search_names(app, &own, search).await, expected, "{search}");
    }
});

both!(the_customer_with_the_searched_email_is_first, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let created =
        ["ada@example.com.au", "ada@example.community", "x@example.com", "ada@example.com", "ada@example.company"];
    for (number, email) in created.iter().enumerate() {
        app.created(&own, &number.to_string(), json!({ "email": email })).await;
    }
    app.created(&other, "1", json!({ "email": "ada@example.co" })).await;
    app.created(&own, "mobile", json!({ "email": "13812345678@163.com" })).await;
    let emails = |page: &Value| -> Vec<String> {
        page["edges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|edge| edge["node"]["email"].as_str().unwrap().to_owned())
            .collect()
    };
    let in_order = [created[3], created[0], created[1], created[4]];
    for search in ["ada@example.com", " ADA@EXAMPLE.COM", "ada@exam\u{ff50}le.com"] {
        let whole = page(app, &own, json!({ "search": search })).await;
        assert_eq!(
            (emails(&whole), &whole["totalCount"]),
            (in_order.map(str::to_owned).to_vec(), &json!(4)),
            "{search}"
        );
    }
    // The results of these searches are in the order of the customer ids.
    for (search, expected) in [
        ("ada@example.co", &[created[0], created[1], created[3], created[4]][..]),
        ("ada example.com", &[created[0], created[1], created[3], created[4]]),
        ("13812345678@163.com", &["13812345678@163.com"]),
        ("nobody@example.com", &[]),
    ] {
        let whole = page(app, &own, json!({ "search": search })).await;
        assert_eq!(
            (emails(&whole), &whole["totalCount"]),
            (expected.iter().map(ToString::to_string).collect(), &json!(expected.len())),
            "{search}"
        );
    }
    // Reads pages of one to five customers, in both directions.
    for size in 1..=5 {
        for direction in [FORWARDS, BACKWARDS] {
            let Direction { size: count, bound, has_less, .. } = direction;
            let read = async |cursor: Value| {
                let next = page(app, &own, json!({ "search": "ada@example.com", count: size, bound: cursor })).await;
                assert_eq!(next["pageInfo"][has_less], json!(!cursor.is_null()), "{count} {size}");
                next
            };
            let read: Vec<_> = direction.read_pages(read).await.iter().map(emails).collect();
            assert!(read.iter().all(|page| !page.is_empty()), "{count} {size}: {read:?}");
            assert_eq!(read.concat(), in_order, "{count} {size}");
        }
    }
    assert_nothing_after_the_last_and_before_the_first(app, &own, "ada@example.com").await;
    // Only the first 12 words of an email are stored. The whole email still finds the customer.
    let long = format!("{}@example.com", ('a'..='p').map(|letter| letter.to_string()).collect::<Vec<_>>().join("."));
    app.created(&own, "long", json!({ "email": long })).await;
    for missing in [json!(null), json!("PHONE")] {
        let found = page(app, &own, json!({ "search": long, "missing": missing })).await;
        assert_eq!((emails(&found), &found["totalCount"]), (vec![long.clone()], &json!(1)));
    }
    // Other conditions also apply to the customer with the searched email.
    let query = "{ customers(filter: { search: \"ada@example.com\", missing: [PHONE], externalCustomerId: \"0\" }) { nodes { email } } }";
    assert_eq!(app.query(&own, query).await["customers"], json!({ "nodes": [{ "email": created[0] }] }));
    let search = page(app, &own, json!({ "search": "ada@example.com", "first": 2 }));
    let (_, statements) = app.statements_of(search).await;
    assert!(statements.len() <= 3, "{statements:?}");
});

both!(customers_with_the_searched_names_are_first, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for (number, (local_part, first, last, phone)) in [
        ("silva", Some("Maria"), Some("Souza"), None),
        ("a", Some("Maria"), Some("Silva"), None),
        ("b", Some("Mariana"), Some("Silva"), None),
        ("c", Some("Silva"), Some("María"), Some("+14155552671")),
        ("maria.silva", None, None, None),
        ("d", Some("Ana Maria"), Some("da Silva"), None),
        ("e", Some("Ana"), Some("Silva"), None),
        ("g", Some("Maria"), Some("Anatol"), None),
        ("h", Some("Ana"), Some("Anatol"), None),
        ("f", Some("Maria Silva"), None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("{local_part}@example.com");
        let data = json!({ "email": email, "firstName": first, "lastName": last, "phone": phone });
        app.created(&own, &number.to_string(), data).await;
    }
    let data = json!({ "email": "other@example.com", "firstName": "Maria", "lastName": "Silva" });
    app.created(&other, "1", data).await;
    for step in 0..2 {
        // In the second step, both words are common.
        if step == 1 {
            make_common(app, "0", "mariah", 100_001).await;
            make_common(app, "0", "silvan", 100_001).await;
        }
        for (search, missing, expected) in [
            ("Maria Silva", None, &["a", "c", "d", "silva", "b", "maria.silva", "f"][..]),
            ("silva, maria", None, &["a", "c", "d", "silva", "b", "maria.silva", "f"]),
            ("Maria Silva", Some("PHONE"), &["a", "d", "silva", "b", "maria.silva", "f"]),
            ("ana silva", None, &["d", "e"]),
            // The first word is a prefix of the second one.
            ("ana anatol", None, &["h", "g"]),
            ("Ana Ana Anatol", None, &["h", "g"]),
            // The results of these searches are in the order of the customer ids.
            ("mari silva", None, &["silva", "a", "b", "c", "maria.silva", "d", "f"]),
            ("maria silva example", None, &["silva", "a", "b", "c", "maria.silva", "d", "f"]),
        ] {
            for direction in [FORWARDS, BACKWARDS] {
                let Direction { size: count, bound, has_more, .. } = direction;
                for size in 1..=expected.len() + 1 {
                    let read = async |cursor: Value| {
                        let arguments = json!({ "search": search, "missing": missing, count: size, bound: cursor });
                        let page = page(app, &own, arguments).await;
                        assert_eq!(page["totalCount"], expected.len(), "{search} {count} {size}");
                        let is_last = page["pageInfo"][has_more] == json!(false);
                        assert!(is_last || names(&page).len() == size, "{search} {count} {size}: {page}");
                        page
                    };
                    let read: Vec<_> = direction.read_pages(read).await.iter().flat_map(names).collect();
                    assert_eq!(read, expected, "{step} {search} {count} {size}");
                }
            }
        }
        // If the customers with these names fill a page, the other customers are not searched.
        let query =
            "{ customers(first: 3, filter: { search: \"maria silva\" }) { nodes { email } pageInfo { hasNextPage } } }";
        let (answer, statements) = app.statements_of(app.query(&own, query)).await;
        assert_eq!(answer["customers"]["pageInfo"]["hasNextPage"], true);
        assert_eq!(statements.len(), 1, "{statements:?}");
        app.rebuild_search_words().await;
    }
    assert_nothing_after_the_last_and_before_the_first(app, &own, "maria silva").await;
    // A condition that only one customer can meet.
    let query = "{ customers(filter: { search: \"maria silva\", externalCustomerId: \"1\" }) \
                 { nodes { email } totalCount pageInfo { hasNextPage endCursor } } }";
    let found = app.query(&own, query).await["customers"].clone();
    assert_eq!((&found["nodes"], &found["totalCount"]), (&json!([{ "email": "a@example.com" }]), &json!(1)));
    let next = query.replace("(filter:", &format!("(after: {}, filter:", found["pageInfo"]["endCursor"]));
    assert_eq!(app.query(&own, &next).await["customers"]["nodes"], json!([]));
    // The section of a customer changes together with the names.
    app.updated(&own, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Mario" })).await;
    app.updated(&own, json!({ "externalCustomerId": "2" }), json!({ "firstName": "Maria" })).await;
    assert_eq!(search_names(app, &own, "maria silva").await, ["b", "c", "d", "silva", "maria.silva", "f"]);
});

/// Runs `vivamo migrate`.
fn migrate(app: &TestApp, folder: &Path) {
    let mut command = vivamo(folder, &["migrate"]);
    command.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
    let migrated = command.output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
}

both!(migrate_writes_the_words_of_older_versions_again, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "x@example.com", "firstName": "小明", "lastName": "王" })).await;
    let before = format!(
        "DELETE FROM customer_word; DELETE FROM seaql_migrations WHERE version = '{}'; \
         UPDATE deployment SET words_migration = NULL",
        migration::SEARCH_WORDS
    );
    app.execute(&before).await;
    make_common(app, "1", "stale", 1).await;
    let sql = "UPDATE customer_word SET customer_id = (SELECT customer_id FROM customer_operator)";
    app.execute(sql).await;
    assert_eq!(search_names(app, &own, "stale").await, ["x"]);
    let folder = tempfile::TempDir::new().unwrap();
    migrate(app, folder.path());
    assert_eq!(search_names(app, &own, "王小明").await, ["x"]);
    assert_eq!(search_names(app, &own, "stale").await.len(), 0);
});

both!(migrate_adds_missing_search_words, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&own, "2", json!({ "email": "grace@example.com" })).await;
    app.execute("DELETE FROM customer_word").await;
    assert_eq!(search_names(app, &own, "ada").await.len(), 0);
    let folder = tempfile::TempDir::new().unwrap();
    for _ in 0..2 {
        migrate(app, folder.path());
        assert_eq!(search_names(app, &own, "ada").await, ["ada"]);
        assert_eq!(search_names(app, &own, "2").await, ["grace"]);
    }
});
