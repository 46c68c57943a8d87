//! Concurrent requests: a person has one record, and a request that loses a race gets the same outcome or error as if
//! it had come later.

use futures::future::join_all;
use serde_json::{Value, json};

use support::{TestApp, TestCaller, both};

async fn create_operators(app: &TestApp, count: usize) -> Vec<TestCaller> {
    let mut operators = Vec::new();
    for number in 0..count {
        operators.push(app.operator(&format!("Operator {number}")).await);
    }
    operators
}

fn outcome(answer: &support::Answer) -> String {
    match answer.body["data"]["createCustomer"]["outcome"].as_str() {
        Some(outcome) => outcome.to_owned(),
        None => answer.codes().join("+"),
    }
}

fn count(outcomes: &[String], wanted: &str) -> usize {
    outcomes.iter().filter(|outcome| *outcome == wanted).count()
}

both!(concurrent_creates_with_one_email_succeed_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let creates = (0..50).map(|number| {
        let operator = operator.clone();
        async move { app.create(&operator, &format!("user-{number}"), json!({ "email": "ada@example.com" })).await }
    });
    let outcomes: Vec<_> = join_all(creates).await.iter().map(outcome).collect();
    assert_eq!((count(&outcomes, "CREATED"), count(&outcomes, "EMAIL_TAKEN")), (1, 49), "{outcomes:?}");
});

both!(concurrent_creates_with_one_external_id_succeed_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let creates = (0..50).map(|number| {
        let data = json!({ "email": format!("{number}@example.com") });
        app.create(&operator, "user-1", data)
    });
    let outcomes: Vec<_> = join_all(creates).await.iter().map(outcome).collect();
    assert_eq!((count(&outcomes, "CREATED"), count(&outcomes, "EXTERNAL_CUSTOMER_ID_TAKEN")), (1, 49), "{outcomes:?}");
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(concurrent_creates_by_many_operators_make_one_customer, Sandbox, async |app| {
    let operators = create_operators(app, 50).await;
    let creates = operators
        .iter()
        .map(|operator| app.create(operator, "user-1", json!({ "email": "ada@example.com", "phone": "+14155552671" })));
    let outcomes: Vec<_> = join_all(creates).await.iter().map(outcome).collect();
    assert_eq!((count(&outcomes, "CREATED"), count(&outcomes, "CONNECTED")), (1, 49), "{outcomes:?}");
    assert_eq!(app.count_rows("customer").await, 1);
    assert_eq!(app.count_rows("customer_operator").await, 50);
    assert_eq!(app.select_number("SELECT CAST(version AS BIGINT) AS n FROM customer").await, 1);
});

both!(concurrent_connects_fill_an_empty_field_once, Sandbox, async |app| {
    let operators = create_operators(app, 3).await;
    for round in 0..10 {
        let email = format!("{round}@example.com");
        app.created(&operators[0], &email, json!({ "email": email })).await;
        let connect = |operator: usize| {
            let (name, phone) = (format!("By {operator}"), format!("+1415555{round}00{operator}"));
            let data = json!({ "email": email, "firstName": name, "phone": phone });
            app.create(&operators[operator], &email, data)
        };
        let (one, two) = tokio::join!(connect(1), connect(2));
        let (one, two) = (one.payload("createCustomer"), two.payload("createCustomer"));
        let customer = app.customer(&operators[0], json!({ "email": email })).await;
        let (winner, loser, name) =
            if one["unappliedFields"] == json!([]) { (&one, &two, "By 1") } else { (&two, &one, "By 2") };
        assert_eq!(winner["unappliedFields"], json!([]));
        assert_eq!(loser["unappliedFields"], json!(["FIRST_NAME", "PHONE"]));
        assert_eq!(customer["firstName"], name);
        assert_eq!(customer["phone"], winner["customer"]["phone"]);
        assert_eq!(customer["version"], 2);
    }
});

both!(concurrent_creates_with_swapped_values_connect_or_conflict, Sandbox, async |app| {
    let operators = create_operators(app, 2).await;
    for round in 0..20 {
        let (e1, e2) = (format!("one-{round}@example.com"), format!("two-{round}@example.com"));
        let (p1, p2) = (format!("+1415555{:04}", 2 * round), format!("+1415555{:04}", 2 * round + 1));
        // The email is the same and the phones differ.
        let (one, two) = tokio::join!(
            app.create(&operators[0], &e1, json!({ "email": e1, "phone": p2 })),
            app.create(&operators[1], &e1, json!({ "email": e1, "phone": p1 })),
        );
        let outcomes = [outcome(&one), outcome(&two)];
        assert!(outcomes.contains(&"CREATED".to_owned()) && outcomes.contains(&"CONNECTED".to_owned()), "{outcomes:?}");
        // This create has a new email and the phone of the second create.
        let create = async |operator: &TestCaller| app.create(operator, &e2, json!({ "email": e2, "phone": p1 })).await;
        let (three, four) = tokio::join!(create(&operators[0]), create(&operators[1]));
        let mut outcomes = [outcome(&three), outcome(&four)];
        outcomes.sort_unstable();
        // If the second create was applied first, the customer of both operators has the phone.
        let customer = app.customer(&operators[0], json!({ "email": e1 })).await;
        let expected = if customer["phone"] == p1 { ["PHONE_TAKEN", "PHONE_TAKEN"] } else { ["CONNECTED", "CREATED"] };
        assert_eq!(outcomes, expected, "{customer}");
    }
});

both!(concurrent_updates_each_get_their_own_version, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let customer = json!({ "externalCustomerId": "user-1" });
    let updates = (0..30)
        .map(|number| app.updated(&operator, customer.clone(), json!({ "firstName": format!("Name {number}") })));
    let mut versions: Vec<_> =
        join_all(updates).await.iter().map(|updated| updated["customer"]["version"].as_i64().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=31).collect::<Vec<_>>());
});

both!(concurrent_updates_with_one_expected_version_succeed_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "user-1", json!({ "email": "ada@example.com" })).await;
    let update = "mutation ($name: String) { updateCustomer(input: { customer: { externalCustomerId: \"user-1\" }, \
                  data: { firstName: $name }, expectedVersion: 1 }) { customer { version } } }";
    let updates = (0..20).map(|number| app.graphql(&operator, update, json!({ "name": format!("Name {number}") })));
    let answers = join_all(updates).await;
    let done = answers.iter().filter(|answer| answer.codes().is_empty()).count();
    let stale = answers.iter().filter(|answer| answer.codes() == ["VERSION_CONFLICT"]).count();
    assert_eq!((done, stale), (1, 19));
});

both!(concurrent_swaps_of_two_emails_are_rejected, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for round in 0..10 {
        let (a, b) = (format!("a{round}@example.com"), format!("b{round}@example.com"));
        app.created(&operator, &a, json!({ "email": a })).await;
        app.created(&operator, &b, json!({ "email": b })).await;
        let rename =
            |from: &str, to: &str| app.update(&operator, json!({ "externalCustomerId": from }), json!({ "email": to }));
        let (one, two) = tokio::join!(rename(&a, &b), rename(&b, &a));
        assert_eq!((one.codes(), two.codes()), (vec!["EMAIL_TAKEN".into()], vec!["EMAIL_TAKEN".into()]));
    }
});

both!(concurrent_readers_and_writers_do_not_fail, Sandbox, async |app| {
    let operators = create_operators(app, 8).await;
    let work = (0..32).map(|worker| {
        let operator = &operators[worker % 8];
        async move {
            for number in 0..10 {
                let id = format!("{worker}-{number}");
                let created: Value = app.created(operator, &id, json!({ "email": format!("{id}@example.com") })).await;
                let updated = app
                    .updated(operator, json!({ "id": created["customer"]["id"] }), json!({ "lastName": "King" }))
                    .await;
                assert_eq!(updated["customer"]["version"], 2);
                assert_eq!(app.customer(operator, json!({ "externalCustomerId": id })).await["lastName"], "King");
            }
        }
    });
    join_all(work).await;
    assert_eq!(app.count_rows("customer").await, 320);
});
