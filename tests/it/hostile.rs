//! Requests that were written to do harm: refused before they cost anything, and the process goes on.

use serde_json::json;

use crate::app::on_both_databases;

/// Fragments of which each spreads the next one twice.
fn bomb(levels: usize) -> String {
    let fragments: String =
        (0..levels).map(|n| format!("fragment f{n} on Query {{ ...f{m} ...f{m} }} ", m = n + 1)).collect();
    format!("{{ ...f0 }} {fragments} fragment f{levels} on Query {{ viewer {{ role }} }}")
}

fn attacks() -> Vec<(&'static str, String)> {
    let nested = |open: &str, levels: usize| open.repeat(levels);
    let mut attacks = vec![
        ("31 levels of fragments", bomb(31)),
        ("300 levels of fragments", bomb(300)),
        ("a fragment in itself", "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".into()),
        ("aliases", format!("{{ {} }}", (0..101).map(|n| format!("a{n}: __typename ")).collect::<String>())),
        ("10,000 aliases", format!("{{ {} }}", (0..10_000).map(|n| format!("a{n}: __typename ")).collect::<String>())),
        ("one field 600 times", format!("{{ {} }}", "__typename ".repeat(600))),
        ("one field 20,000 times", format!("{{ {} }}", "__typename ".repeat(20_000))),
        ("10,000 directives", format!("{{ viewer {} {{ role }} }}", "@skip(if: false) ".repeat(10_000))),
        ("unknown fields", format!("{{ {} }}", (0..5000).map(|n| format!("x{n} ")).collect::<String>())),
        ("a long line", format!("{{ {} }}", "x".repeat(20_000))),
        ("the same mutation twice", "mutation { createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { outcome } \
          createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { replayed } }".into()),
        ("the same mutation twice by a fragment", "mutation { ...f createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { outcome } } \
          fragment f on Mutation { createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { replayed } }".into()),
        ("six mutations", format!("mutation {{ {} }}", (0..6).map(|n| format!("a{n}: createCustomer(input: {{externalCustomerId: \"{n}\", data: {{email: \"{n}@example.com\"}}}}) {{ outcome }} ")).collect::<String>())),
        ("a null byte", "{ viewer \0 { role } }".into()),
        ("30 directives", format!("{{ viewer {} {{ role }} }}", "@skip(if: false) ".repeat(30))),
        ("an introspection in circles", "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }".into()),
        ("lists of lists", "{ operators(first: 100) { edges { node { customers(first: 100) { edges { node { operators(first: 100) { edges { cursor } } } } } } } } }".into()),
        ("a field 20 levels deep", format!("{{ operator {} id {} }}", "{ customers { edges { node { operators { edges { node ".repeat(4), "} } } } } } ".repeat(4))),
    ];
    for levels in [3000, 20_000] {
        attacks.extend([
            ("nested lists", format!("{{ viewer(x: {}1{}) {{ role }} }}", nested("[", levels), "]".repeat(levels))),
            ("nested objects", format!("{{ viewer(x: {}1{}) {{ role }} }}", nested("{a:", levels), "}".repeat(levels))),
            ("nested default values", format!("query ($x: Int = {}) {{ viewer {{ role }} }}", nested("[", levels))),
            ("nested arguments of directives", format!("{{ viewer @x(y: {}) {{ role }} }}", nested("[", levels))),
            ("nested selections", nested("{ a ", levels)),
            ("nested types of variables", format!("query ($x: {}Int) {{ viewer {{ role }} }}", nested("[", levels))),
        ]);
    }
    attacks
}

on_both_databases! {
    Sandbox:

    // Each list of a page is a part of one statement, and a statement has so many parts at most.
    async fn the_largest_pages_of_pages_are_answered(app) {
        let operator = app.operator("A").await;
        for number in 0..100 {
            app.created(&operator, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
        }
        let roots: String = (0..10)
            .map(|n| {
                let page = format!("{}: {}", if n % 2 == 0 { "first" } else { "last" }, n / 2 + 1);
                format!("r{n}: customers(first: 100) {{ edges {{ node {{ operators({page}) {{ edges {{ cursor }} }} }} }} }} ")
            })
            .collect();
        let answer = app.graphql(&app.platform(), &format!("{{ {roots} }}"), json!({})).await;
        assert_eq!(answer.body.get("errors"), None);
    }

    async fn each_attack_is_refused_and_the_process_goes_on(app) {
        let caller = app.operator("A").await;
        for (what, query) in attacks() {
            let (answer, statements) = app.statements_of(app.graphql(&caller, &query, json!({}))).await;
            assert!([200, 413].contains(&answer.status), "{what}: {}", answer.status);
            let codes = answer.codes();
            assert!(!codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"), "{what}: {codes:?}");
            assert!(codes.len() <= 50, "{what}");
            assert!(answer.body.get("data").is_none() && answer.body.to_string().len() < 20_000, "{what}");
            assert_eq!(statements, Vec::<String>::new(), "{what}");
        }
        // Overlong UTF-8 is no text, and so no JSON.
        let overlong = [b"{\"query\":\"{ viewer { role ".as_slice(), &[0xc0, 0xaf], b" } }\"}"].concat();
        let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key);
        let answer = request.header("content-type", "application/json").body(overlong).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(app.number("SELECT COUNT(*) AS n FROM customer").await, 0);
        assert_eq!(app.query(&caller, "{ viewer { role } }").await["viewer"]["role"], "OPERATOR");
    }
}
