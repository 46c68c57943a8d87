//! Each lost race, brought about on purpose: all requests have looked before any of them writes.
//!
//! On PostgreSQL a lock lets every look through and stops every write, until all of them wait for it. SQLite takes one
//! writer at a time, so that nobody looks while another is about to write; there the same requests just run at once.

use futures::future::join_all;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use support::{Answer, Caller, TestApp, both};

/// A request, to be sent at the same time as others.
enum Do<'a> {
    Create(&'a Caller, &'a str, Value),
    Update(&'a Caller, &'a str, Value),
    UpdateVersion(&'a Caller, &'a str, i32, Value),
}

async fn send(app: &TestApp, request: &Do<'_>) -> Answer {
    match request {
        Do::Create(caller, id, data) => app.create(caller, id, data.clone()).await,
        Do::Update(caller, id, data) => app.update(caller, json!({ "externalCustomerId": id }), data.clone()).await,
        Do::UpdateVersion(caller, id, version, data) => {
            let query =
                "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
            let input = json!({ "customer": { "externalCustomerId": id }, "data": data, "expectedVersion": version });
            app.graphql(caller, query, json!({ "input": input })).await
        }
    }
}

/// What became of each request, all of which have looked before any of them writes. Each has a replica of its own, since one
/// would write for several at once.
async fn race(app: &TestApp, requests: &[Do<'_>]) -> Vec<String> {
    let replicas = if app.is_postgres() { requests.len() } else { 0 };
    let replicas = join_all((0..replicas).map(|_| app.replica(app.database_url().to_owned()))).await;
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    }
    let release = async {
        app.wait_until_blocked(requests.len()).await;
        holder.commit().await.unwrap();
    };
    let sent = requests.iter().enumerate().map(|(number, request)| send(replicas.get(number).unwrap_or(app), request));
    let (answers, ()) = tokio::join!(join_all(sent), release);
    join_all(replicas.into_iter().map(TestApp::stop)).await;
    answers
        .iter()
        .map(|answer| {
            let data = &answer.body["data"];
            match (data["createCustomer"]["outcome"].as_str(), data["updateCustomer"].is_object()) {
                (Some(outcome), _) => outcome.to_owned(),
                (None, true) => "UPDATED".to_owned(),
                (None, false) => answer.codes().join("+"),
            }
        })
        .collect()
}

/// That what happened is one of the ways in which the requests can follow one another.
fn assert_one_of(outcomes: &[String], ways: &[&[&str]]) {
    assert!(ways.contains(&outcomes.iter().map(String::as_str).collect::<Vec<_>>().as_slice()), "{outcomes:?}");
}

both!(two_operators_create_the_same_email, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "ada@example.com" });
    let outcomes = race(app, &[Do::Create(&a, "1", data.clone()), Do::Create(&b, "1", data)]).await;
    assert_one_of(&outcomes, &[&["CREATED", "CONNECTED"], &["CONNECTED", "CREATED"]]);
});

both!(two_operators_create_the_same_phone, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = |email: &str| json!({ "email": email, "phone": "+14155552671" });
    let outcomes =
        race(app, &[Do::Create(&a, "1", data("a@example.com")), Do::Create(&b, "1", data("b@example.com"))]).await;
    assert_one_of(&outcomes, &[&["CREATED", "CONNECTED"], &["CONNECTED", "CREATED"]]);
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(one_operator_creates_the_same_email_twice, Sandbox, async |app| {
    let a = app.operator("A").await;
    let data = json!({ "email": "ada@example.com" });
    let outcomes = race(app, &[Do::Create(&a, "1", data.clone()), Do::Create(&a, "2", data)]).await;
    assert_one_of(&outcomes, &[&["CREATED", "EMAIL_TAKEN"], &["EMAIL_TAKEN", "CREATED"]]);
});

both!(one_operator_uses_an_external_id_twice, Sandbox, async |app| {
    let a = app.operator("A").await;
    let data = |email: &str| json!({ "email": email });
    let outcomes =
        race(app, &[Do::Create(&a, "1", data("a@example.com")), Do::Create(&a, "1", data("b@example.com"))]).await;
    let taken = "EXTERNAL_CUSTOMER_ID_TAKEN";
    assert_one_of(&outcomes, &[&["CREATED", taken], &[taken, "CREATED"]]);
    // Nothing is left of the one that lost.
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(crossed_emails_and_phones, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    for round in 0..10 {
        let data = |email: usize, phone: usize| json!({ "email": format!("{round}-{email}@example.com"), "phone": format!("+1415555{round:03}{phone}") });
        let id = format!("id-{round}");
        let outcomes = race(
            app,
            &[
                Do::Create(&operators[0], &id, data(1, 2)),
                Do::Create(&operators[1], &id, data(2, 1)),
                Do::Create(&operators[2], &id, data(1, 1)),
            ],
        )
        .await;
        let (new, known, conflict) = ("CREATED", "CONNECTED", "IDENTITY_CONFLICT+IDENTITY_CONFLICT");
        assert_one_of(
            &outcomes,
            &[
                &[new, new, conflict],
                // The third comes second, and matches whoever came first; or first, and both match it.
                &[new, new, known],
                &[known, known, new],
            ],
        );
    }
});

both!(two_connects_fill_the_same_blank, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    app.created(&operators[0], "1", json!({ "email": "ada@example.com" })).await;
    let data = |name: &str| json!({ "email": "ada@example.com", "firstName": name });
    let outcomes =
        race(app, &[Do::Create(&operators[1], "1", data("One")), Do::Create(&operators[2], "1", data("Two"))]).await;
    assert_one_of(&outcomes, &[&["CONNECTED", "CONNECTED"]]);
    let customer = app.customer(&operators[0], json!({ "externalCustomerId": "1" })).await;
    assert!(["One", "Two"].contains(&customer["firstName"].as_str().unwrap()));
    assert_eq!(customer["version"], 2);
});

both!(a_connect_fills_a_phone_that_a_third_takes, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    app.created(&operators[0], "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Do::Create(&operators[1], "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })),
            Do::Create(&operators[2], "1", json!({ "email": "third@example.com", "phone": "+14155552671" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["CONNECTED", "CONNECTED"], &["IDENTITY_CONFLICT+IDENTITY_CONFLICT", "CREATED"]]);
});

both!(an_update_takes_a_phone_that_a_create_takes, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Do::Update(&a, "1", json!({ "phone": "+14155552671" })),
            Do::Create(&b, "1", json!({ "email": "new@example.com", "phone": "+14155552671" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "CONNECTED"], &["PHONE_TAKEN", "CREATED"]]);
});

both!(an_update_gives_up_an_email_that_a_create_matches, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Do::Update(&a, "1", json!({ "email": "moved@example.com" })),
            Do::Create(&b, "1", json!({ "email": "ada@example.com", "firstName": "Ada" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "CREATED"], &["UPDATED", "CONNECTED"]]);
});

both!(two_updates_take_the_same_email, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    app.created(&a, "2", json!({ "email": "two@example.com" })).await;
    let data = json!({ "email": "three@example.com" });
    let outcomes = race(app, &[Do::Update(&a, "1", data.clone()), Do::Update(&a, "2", data)]).await;
    assert_one_of(&outcomes, &[&["UPDATED", "EMAIL_TAKEN"], &["EMAIL_TAKEN", "UPDATED"]]);
});

both!(two_updates_expect_the_same_version, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Do::UpdateVersion(&a, "1", 1, json!({ "firstName": "One" })),
            Do::UpdateVersion(&a, "1", 1, json!({ "firstName": "Two" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "VERSION_CONFLICT"], &["VERSION_CONFLICT", "UPDATED"]]);
});

both!(two_updates_of_one_customer_follow_one_another, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[Do::Update(&a, "1", json!({ "firstName": "Ada" })), Do::Update(&b, "1", json!({ "lastName": "Lovelace" }))],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "UPDATED"]]);
    let customer = app.customer(&a, json!({ "externalCustomerId": "1" })).await;
    assert_eq!((&customer["firstName"], &customer["lastName"]), (&json!("Ada"), &json!("Lovelace")));
    assert_eq!(customer["version"], 3);
});
