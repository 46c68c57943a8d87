//! Forces each race between two or three requests: all requests read before any request writes.
//!
//! On PostgreSQL a table lock allows reads and blocks writes until all requests wait for the lock. SQLite runs one
//! write transaction at a time and reads within it, so the race cannot happen. On SQLite, the tests only send the
//! requests concurrently.

use futures::future::join_all;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use support::{Answer, Caller, TestApp, both};

/// A request of a race.
enum Write<'a> {
    Create(&'a Caller, &'a str, Value),
    Update(&'a Caller, &'a str, Value),
    UpdateVersion(&'a Caller, &'a str, i32, Value),
    Disconnect(&'a Caller, &'a str),
    Rename(&'a Caller, &'a str, &'a str),
}

async fn send(app: &TestApp, request: &Write<'_>) -> Answer {
    match request {
        Write::Create(caller, id, data) => app.create(caller, id, data.clone()).await,
        Write::Update(caller, id, data) => app.update(caller, json!({ "externalCustomerId": id }), data.clone()).await,
        Write::UpdateVersion(caller, id, version, data) => {
            let query =
                "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
            let input = json!({ "customer": { "externalCustomerId": id }, "data": data, "expectedVersion": version });
            app.graphql(caller, query, json!({ "input": input })).await
        }
        Write::Rename(caller, id, new) => {
            let query =
                "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { customer { version } } }";
            let input = json!({ "customer": { "externalCustomerId": id }, "externalCustomerId": new });
            app.graphql(caller, query, json!({ "input": input })).await
        }
        Write::Disconnect(caller, id) => {
            let query =
                "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { replayed } }";
            let input = json!({ "customer": { "externalCustomerId": id }, "reason": "MISTAKE" });
            app.graphql(caller, query, json!({ "input": input })).await
        }
    }
}

/// Sends the requests so that all requests read before any request writes. Returns `CREATED`, `CONNECTED`, `UPDATED` or
/// the error codes for each request. Each request has its own replica, because one replica would write several requests
/// in one batch.
async fn race(app: &TestApp, requests: &[Write<'_>]) -> Vec<String> {
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
            match data["createCustomer"]["outcome"].as_str() {
                Some(outcome) => outcome.to_owned(),
                None if data["updateCustomer"].is_object() => "UPDATED".to_owned(),
                None if data["disconnectCustomer"].is_object() => "DISCONNECTED".to_owned(),
                None => answer.codes().join("+"),
            }
        })
        .collect()
}

/// Asserts that the outcomes are the outcomes of one possible order of the requests.
#[track_caller]
fn assert_one_of(outcomes: &[String], orders: &[&[&str]]) {
    assert!(orders.contains(&outcomes.iter().map(String::as_str).collect::<Vec<_>>().as_slice()), "{outcomes:?}");
}

both!(two_operators_create_the_same_email, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "ada@example.com" });
    let outcomes = race(app, &[Write::Create(&a, "1", data.clone()), Write::Create(&b, "1", data)]).await;
    assert_one_of(&outcomes, &[&["CREATED", "CONNECTED"], &["CONNECTED", "CREATED"]]);
});

both!(two_operators_create_the_same_phone, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = |email: &str| json!({ "email": email, "phone": "+14155552671" });
    let outcomes =
        race(app, &[Write::Create(&a, "1", data("a@example.com")), Write::Create(&b, "1", data("b@example.com"))])
            .await;
    assert_one_of(&outcomes, &[&["CREATED", "CONNECTED"], &["CONNECTED", "CREATED"]]);
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(one_operator_creates_the_same_email_twice, Sandbox, async |app| {
    let a = app.operator("A").await;
    let data = json!({ "email": "ada@example.com" });
    let outcomes = race(app, &[Write::Create(&a, "1", data.clone()), Write::Create(&a, "2", data)]).await;
    assert_one_of(&outcomes, &[&["CREATED", "EMAIL_TAKEN"], &["EMAIL_TAKEN", "CREATED"]]);
});

both!(one_operator_creates_the_same_external_id_twice, Sandbox, async |app| {
    let a = app.operator("A").await;
    let data = |email: &str| json!({ "email": email });
    let outcomes =
        race(app, &[Write::Create(&a, "1", data("a@example.com")), Write::Create(&a, "1", data("b@example.com"))])
            .await;
    let taken = "EXTERNAL_CUSTOMER_ID_TAKEN";
    assert_one_of(&outcomes, &[&["CREATED", taken], &[taken, "CREATED"]]);
    // The losing request left nothing behind.
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(creates_with_crossed_emails_and_phones, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    for round in 0..10 {
        let data = |email: usize, phone: usize| {
            let email = format!("{round}-{email}@example.com");
            json!({ "email": email, "phone": format!("+1415555{round:03}{phone}") })
        };
        let id = format!("id-{round}");
        let outcomes = race(
            app,
            &[
                Write::Create(&operators[0], &id, data(1, 2)),
                Write::Create(&operators[1], &id, data(2, 1)),
                Write::Create(&operators[2], &id, data(1, 1)),
            ],
        )
        .await;
        let (created, connected, conflict) = ("CREATED", "CONNECTED", "IDENTITY_CONFLICT+IDENTITY_CONFLICT");
        assert_one_of(
            &outcomes,
            &[
                &[created, created, conflict],
                // The third request is applied second, and matches the customer of the first request.
                &[created, created, connected],
                // The third request is applied first, and the other requests match its customer.
                &[connected, connected, created],
            ],
        );
    }
});

both!(two_connects_fill_the_same_empty_field, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    app.created(&operators[0], "1", json!({ "email": "ada@example.com" })).await;
    let data = |name: &str| json!({ "email": "ada@example.com", "firstName": name });
    let outcomes =
        race(app, &[Write::Create(&operators[1], "1", data("One")), Write::Create(&operators[2], "1", data("Two"))])
            .await;
    assert_one_of(&outcomes, &[&["CONNECTED", "CONNECTED"]]);
    let customer = app.customer(&operators[0], json!({ "externalCustomerId": "1" })).await;
    assert!(["One", "Two"].contains(&customer["firstName"].as_str().unwrap()));
    assert_eq!(customer["version"], 2);
});

both!(a_connect_and_a_create_use_the_same_phone, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    app.created(&operators[0], "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Write::Create(&operators[1], "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })),
            Write::Create(&operators[2], "1", json!({ "email": "third@example.com", "phone": "+14155552671" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["CONNECTED", "CONNECTED"], &["IDENTITY_CONFLICT+IDENTITY_CONFLICT", "CREATED"]]);
});

both!(an_update_and_a_create_use_the_same_phone, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Write::Update(&a, "1", json!({ "phone": "+14155552671" })),
            Write::Create(&b, "1", json!({ "email": "new@example.com", "phone": "+14155552671" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "CONNECTED"], &["PHONE_TAKEN", "CREATED"]]);
});

both!(an_update_replaces_the_email_that_a_create_matches, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Write::Update(&a, "1", json!({ "email": "moved@example.com" })),
            Write::Create(&b, "1", json!({ "email": "ada@example.com", "firstName": "Ada" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "CREATED"], &["UPDATED", "CONNECTED"]]);
});

both!(two_updates_use_the_same_email, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    app.created(&a, "2", json!({ "email": "two@example.com" })).await;
    let data = json!({ "email": "three@example.com" });
    let outcomes = race(app, &[Write::Update(&a, "1", data.clone()), Write::Update(&a, "2", data)]).await;
    assert_one_of(&outcomes, &[&["UPDATED", "EMAIL_TAKEN"], &["EMAIL_TAKEN", "UPDATED"]]);
});

both!(two_updates_expect_the_same_version, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Write::UpdateVersion(&a, "1", 1, json!({ "firstName": "One" })),
            Write::UpdateVersion(&a, "1", 1, json!({ "firstName": "Two" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "VERSION_CONFLICT"], &["VERSION_CONFLICT", "UPDATED"]]);
});

both!(two_updates_of_one_customer_are_both_applied, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes = race(
        app,
        &[
            Write::Update(&a, "1", json!({ "firstName": "Ada" })),
            Write::Update(&b, "1", json!({ "lastName": "Lovelace" })),
        ],
    )
    .await;
    assert_one_of(&outcomes, &[&["UPDATED", "UPDATED"]]);
    let customer = app.customer(&a, json!({ "externalCustomerId": "1" })).await;
    assert_eq!((&customer["firstName"], &customer["lastName"]), (&json!("Ada"), &json!("Lovelace")));
    assert_eq!(customer["version"], 3);
});

both!(a_disconnect_and_an_update_by_the_same_operator, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let update = json!({ "firstName": "Ada" });
    let outcomes = race(app, &[Write::Disconnect(&a, "1"), Write::Update(&a, "1", update)]).await;
    assert_one_of(&outcomes, &[&["DISCONNECTED", "UPDATED"], &["DISCONNECTED", "CUSTOMER_NOT_FOUND"]]);
});

both!(a_disconnect_and_an_update_by_another_operator, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let update = json!({ "firstName": "Ada" });
    let outcomes = race(app, &[Write::Disconnect(&a, "1"), Write::Update(&b, "1", update)]).await;
    assert_one_of(&outcomes, &[&["DISCONNECTED", "UPDATED"]]);
});

both!(two_disconnects_of_one_customer, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let outcomes =
        race(app, &[Write::Disconnect(&a, "1"), Write::Disconnect(&a, "1"), Write::Disconnect(&b, "1")]).await;
    let lost = "CUSTOMER_NOT_FOUND";
    let done = "DISCONNECTED";
    assert_one_of(&outcomes, &[&[done, lost, done], &[lost, done, done]]);
});

both!(a_disconnect_and_a_connect_of_one_customer, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let data = json!({ "email": "ada@example.com", "firstName": "Ada" });
    let outcomes = race(app, &[Write::Disconnect(&a, "1"), Write::Create(&b, "1", data)]).await;
    assert_one_of(&outcomes, &[&["DISCONNECTED", "CONNECTED"]]);
});

both!(a_disconnect_and_a_create_by_the_same_operator, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    // The create does not wait for a lock if it reads the connection first.
    let data = json!({ "email": "ada@example.com" });
    let (disconnect, create) = (Write::Disconnect(&a, "1"), Write::Create(&a, "1", data.clone()));
    let (ended, created) = tokio::join!(send(app, &disconnect), send(app, &create));
    ended.payload("disconnectCustomer");
    let codes = created.codes();
    assert!(codes.is_empty() || codes == ["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"], "{codes:?}");
    // A create of new people is not disturbed.
    app.created(&b, "1", data).await;
    let new = json!({ "email": "new@example.com" });
    let outcomes = race(app, &[Write::Disconnect(&b, "1"), Write::Create(&b, "2", new)]).await;
    assert_one_of(&outcomes, &[&["DISCONNECTED", "CREATED"]]);
});

both!(two_customers_get_the_same_external_id, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    app.created(&a, "2", json!({ "email": "two@example.com" })).await;
    let taken = "EXTERNAL_CUSTOMER_ID_TAKEN";
    let outcomes = race(app, &[Write::Rename(&a, "1", "3"), Write::Rename(&a, "2", "3")]).await;
    assert_one_of(&outcomes, &[&["UPDATED", taken], &[taken, "UPDATED"]]);
});

both!(an_external_id_changes_while_a_create_uses_the_new_one, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    let taken = "EXTERNAL_CUSTOMER_ID_TAKEN";
    let create = Write::Create(&a, "2", json!({ "email": "two@example.com" }));
    let outcomes = race(app, &[Write::Rename(&a, "1", "2"), create]).await;
    assert_one_of(&outcomes, &[&["UPDATED", taken], &[taken, "CREATED"]]);
});

both!(an_external_id_changes_while_the_customer_is_disconnected, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "one@example.com" })).await;
    let outcomes = race(app, &[Write::Rename(&a, "1", "2"), Write::Disconnect(&a, "1")]).await;
    let lost = "CUSTOMER_NOT_FOUND";
    assert_one_of(&outcomes, &[&["UPDATED", lost], &[lost, "DISCONNECTED"]]);
});
