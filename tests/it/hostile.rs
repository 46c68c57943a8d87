//! Malicious requests: the service rejects them before it runs any statement, and keeps running.

use serde_json::json;

use support::attacks::attacks;
use support::both;

// Each inner list is one part of a UNION, and the database limits the number of parts in a statement.
both!(the_largest_nested_pages_are_answered, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..100 {
        app.created(&operator, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
    }
    let roots: String = (0..10)
        .map(|n| {
            let page = format!("{}: {}", if n % 2 == 0 { "first" } else { "last" }, n / 2 + 1);
            format!(
                "r{n}: customers(first: 100) {{ edges {{ node {{ operators({page}) {{ edges {{ cursor }} }} }} }} }} "
            )
        })
        .collect();
    let answer = app.graphql(&app.platform(), &format!("{{ {roots} }}"), json!({})).await;
    assert_eq!(answer.body.get("errors"), None);
});

both!(attacks_are_rejected_and_the_service_keeps_running, Sandbox, async |app| {
    let caller = app.operator("A").await;
    for (attack, query) in attacks() {
        let (answer, statements) = app.statements_of(app.graphql(&caller, &query, json!({}))).await;
        assert!([200, 413].contains(&answer.status), "{attack}: {}", answer.status);
        let codes = answer.codes();
        assert!(!codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"), "{attack}: {codes:?}");
        assert!(codes.len() <= 50, "{attack}");
        assert!(answer.body.get("data").is_none() && answer.body.to_string().len() < 20_000, "{attack}");
        assert_eq!(statements, Vec::<String>::new(), "{attack}");
    }
    for (attack, body) in
        [("5 MB", "x".repeat(5_000_000)), ("a line of 550 KB", format!("{{\"query\":\"{}\"}}", "x".repeat(550_000)))]
    {
        let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 413, "{attack}");
    }
    // Overlong UTF-8 is not valid JSON.
    let overlong = [b"{\"query\":\"{ viewer { role ".as_slice(), &[0xc0, 0xaf], b" } }\"}"].concat();
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key);
    let answer = request.header("content-type", "application/json").body(overlong).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(app.count_rows("customer").await, 0);
    assert_eq!(app.query(&caller, "{ viewer { role } }").await["viewer"]["role"], "OPERATOR");
});
