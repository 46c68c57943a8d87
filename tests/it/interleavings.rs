//! Forces races between two or three requests: no request writes before all requests wait.
//!
//! On PostgreSQL, table locks allow reads and block writes until all requests wait for a lock. On SQLite, a transaction
//! holds the only write connection until all requests wait for this connection. A request that reads before its write
//! transaction therefore reads the state before all writes of the race.

use entity::customer_event::EventType;
use entity::operator::Status;
use entity::value::{OperatorId, WebhookId};
use entity::webhook::ChangeTypes;
use entity::{customer_word, webhook};
use futures::future::join_all;
use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter};
use serde_json::{Value, json};
use vivamo::service::operators::OperatorChanges;
use vivamo::service::{Caller, RequestInfo};

use support::{Answer, TestApp, TestCaller, both};

/// A write of a race: a request, or one batch of a command.
enum Write<'a> {
    Create(&'a TestCaller, &'a str, Value),
    Update(&'a TestCaller, &'a str, Value),
    UpdateVersion(&'a TestCaller, &'a str, i32, Value),
    Disconnect(&'a TestCaller, &'a str),
    Rename(&'a TestCaller, &'a str, &'a str),
    /// Sent by the platform.
    Erase(&'a Value),
    /// Sent by the platform.
    TakeOver(&'a Value, &'a str),
    /// Sent by the platform, for this operator.
    DisconnectFrom(&'a TestCaller, &'a str),
    /// One batch of `vivamo operator remove-customers`.
    RemoveCustomers(&'a TestCaller),
    CreateWebhook(&'a TestCaller),
    /// The second value is the id of the endpoint. The third value contains the other fields of the input.
    UpdateWebhook(&'a TestCaller, &'a Value, Value),
    RotateSecret(&'a TestCaller, &'a Value),
    DeleteWebhook(&'a TestCaller, &'a Value),
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
        Write::Erase(id) => {
            let query = "mutation ($input: EraseCustomerInput!) { eraseCustomer(input: $input) { replayed } }";
            app.graphql(&app.platform(), query, json!({ "input": { "id": id, "reference": "x" } })).await
        }
        Write::TakeOver(id, phone) => {
            let query =
                "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { replayed } }";
            let input = json!({
                "id": id, "field": "PHONE", "value": phone, "verifiedAt": "2026-11-20T12:00:00Z", "takeOver": true,
            });
            app.graphql(&app.platform(), query, json!({ "input": input })).await
        }
        Write::DisconnectFrom(operator, id) => {
            let query =
                "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { replayed } }";
            let customer = json!({ "externalCustomerId": id });
            let input = json!({ "customer": customer, "operatorId": operator.operator, "reason": "MISTAKE" });
            app.graphql(&app.platform(), query, json!({ "input": input })).await
        }
        Write::RemoveCustomers(_) => unreachable!("not a request"),
        Write::CreateWebhook(caller) => {
            let query = "mutation { createWebhook(input: { url: \"https://receiver.example/\" }) { webhook { id } } }";
            app.graphql(caller, query, json!({})).await
        }
        Write::UpdateWebhook(caller, id, changes) => {
            let query = "mutation ($input: UpdateWebhookInput!) { updateWebhook(input: $input) { webhook { id } } }";
            let mut input = changes.clone();
            input["id"] = (*id).clone();
            app.graphql(caller, query, json!({ "input": input })).await
        }
        Write::RotateSecret(caller, id) => {
            let query = "mutation ($id: ID!) { rotateWebhookSecret(input: { id: $id }) { webhook { id } } }";
            app.graphql(caller, query, json!({ "id": id })).await
        }
        Write::DeleteWebhook(caller, id) => {
            let query = "mutation ($id: ID!) { deleteWebhook(input: { id: $id }) { webhookId } }";
            app.graphql(caller, query, json!({ "id": id })).await
        }
    }
}

/// Sends a request, or removes a batch of customers. Returns `CREATED`, `CONNECTED`, `UPDATED`, …, or the error codes.
async fn outcome(app: &TestApp, request: &Write<'_>) -> String {
    if let Write::RemoveCustomers(caller) = request {
        let (command, operator) = (RequestInfo::command_line(), OperatorId::parse(&caller.operator).unwrap());
        let removed =
            app.services.customers.remove_customer_batch(&Caller::Platform, &command, operator, None).await.unwrap();
        return format!("REMOVED {}", removed.len());
    }
    let answer = send(app, request).await;
    let data = &answer.body["data"];
    if let Some(outcome) = data["createCustomer"]["outcome"].as_str() {
        return outcome.to_owned();
    }
    let done = [
        ("updateCustomer", "UPDATED"),
        ("disconnectCustomer", "DISCONNECTED"),
        ("eraseCustomer", "ERASED"),
        ("recordVerification", "TAKEN_OVER"),
        ("createWebhook", "CREATED"),
        ("updateWebhook", "UPDATED"),
        ("rotateWebhookSecret", "ROTATED"),
        ("deleteWebhook", "DELETED"),
    ];
    match done.iter().find(|(field, _)| data[field].is_object()) {
        Some((_, outcome)) => (*outcome).to_owned(),
        None => answer.codes().join("+"),
    }
}

/// Sends the requests so that no request writes before all requests wait. Returns the [`outcome`] of each request. On
/// PostgreSQL, each request goes to a server of its own (`TestApp::replica`), because one server would write several
/// requests of one operator in one batch.
async fn race(app: &TestApp, requests: &[Write<'_>]) -> Vec<String> {
    let replicas = if app.is_postgres() { requests.len() } else { 0 };
    let replicas = join_all((0..replicas).map(|_| app.replica(app.database_url().to_owned()))).await;
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
        // A mutation that changes an endpoint first locks the row of the endpoint. A table lock in EXCLUSIVE mode also
        // blocks this row lock.
        holder.execute_unprepared("LOCK TABLE webhook IN EXCLUSIVE MODE").await.unwrap();
    }
    let release = async {
        app.wait_until_blocked(requests.len()).await;
        holder.commit().await.unwrap();
    };
    let sent =
        requests.iter().enumerate().map(|(number, request)| outcome(replicas.get(number).unwrap_or(app), request));
    let (outcomes, ()) = tokio::join!(join_all(sent), release);
    join_all(replicas.into_iter().map(TestApp::stop)).await;
    outcomes
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
    // The request that lost the race has stored nothing.
    assert_eq!(app.count_rows("customer").await, 1);
});

both!(creates_with_swapped_emails_and_phones, Sandbox, async |app| {
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
                // The third request is applied second, and matches the customer of the request that was applied first.
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
    let created = app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let update = json!({ "firstName": "Ada" });
    let outcomes = race(app, &[Write::Disconnect(&a, "1"), Write::Update(&a, "1", update)]).await;
    assert_one_of(&outcomes, &[&["DISCONNECTED", "UPDATED"], &["DISCONNECTED", "CUSTOMER_NOT_FOUND"]]);
    // If the update was applied, it was applied before the disconnect.
    let query = "query ($id: ID!) { customerEvents(customerId: $id) { nodes { type } } }";
    let answer = app.graphql(&app.platform(), query, json!({ "id": created["customer"]["id"] })).await;
    let entries = answer.payload("customerEvents")["nodes"].as_array().unwrap().clone();
    assert_eq!(entries.last().unwrap()["type"], "DISCONNECTED");
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
    // If the create finds the connection, the create is rejected without waiting for a lock, so `race` would wait
    // forever.
    let data = json!({ "email": "ada@example.com" });
    let (disconnect, create) = (Write::Disconnect(&a, "1"), Write::Create(&a, "1", data.clone()));
    let (ended, created) = tokio::join!(send(app, &disconnect), send(app, &create));
    ended.payload("disconnectCustomer");
    let codes = created.codes();
    assert!(codes.is_empty() || codes == ["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"], "{codes:?}");
    // A create of a new person succeeds while the same operator disconnects another customer.
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

/// Creates a customer of `caller` with this email and phone.
async fn customer_with(app: &TestApp, caller: &TestCaller, id: &str, email: &str, phone: &str) -> Value {
    app.created(caller, id, json!({ "email": email, "phone": phone })).await["customer"]["id"].clone()
}

const PHONES: [&str; 3] = ["+14155552671", "+14155552672", "+14155552673"];

both!(an_erasure_races_with_each_write, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    for round in 0..3 {
        let email = |name: &str| format!("{name}-{round}@example.com");
        let new = |name: &str| format!("{name}-{round}");
        let phones = PHONES.map(|phone| format!("{}{round}", &phone[..phone.len() - 1]));
        let id = customer_with(app, &a, &new("1"), &email("updated"), &phones[0]).await;
        let update = Write::Update(&a, &new("1"), json!({ "firstName": "Ada", "phone": phones[1] }));
        let outcomes = race(app, &[Write::Erase(&id), update]).await;
        assert_one_of(&outcomes, &[&["ERASED", "UPDATED"], &["ERASED", "CUSTOMER_NOT_FOUND"]]);

        let id = app.created(&a, &new("2"), json!({ "email": email("connected") })).await["customer"]["id"].clone();
        let connect = json!({ "email": email("connected"), "firstName": "Ada" });
        let outcomes = race(app, &[Write::Erase(&id), Write::Create(&b, &new("2"), connect)]).await;
        assert_one_of(&outcomes, &[&["ERASED", "CONNECTED"], &["ERASED", "CREATED"]]);

        let ended = new("4");
        let id = app.created(&a, &ended, json!({ "email": email("ended") })).await["customer"]["id"].clone();
        let outcomes = race(app, &[Write::Erase(&id), Write::Disconnect(&a, &ended)]).await;
        assert_one_of(&outcomes, &[&["ERASED", "DISCONNECTED"], &["ERASED", "CUSTOMER_NOT_FOUND"]]);

        let id = app.created(&a, &ended, json!({ "email": email("renamed") })).await["customer"]["id"].clone();
        let outcomes = race(app, &[Write::Erase(&id), Write::Rename(&a, &ended, &new("5"))]).await;
        assert_one_of(&outcomes, &[&["ERASED", "UPDATED"], &["ERASED", "CUSTOMER_NOT_FOUND"]]);

        let id = customer_with(app, &a, &new("3"), &email("erased"), &phones[2]).await;
        let outcomes = race(app, &[Write::Erase(&id), Write::Erase(&id)]).await;
        assert_one_of(&outcomes, &[&["ERASED", "CUSTOMER_NOT_FOUND"], &["CUSTOMER_NOT_FOUND", "ERASED"]]);
    }
});

both!(a_takeover_against_an_erasure, Sandbox, async |app| {
    let a = app.operator("A").await;
    for is_holder in [true, false] {
        let name = |name: &str| format!("{name}-{is_holder}");
        let email = |name: &str| format!("{name}-{is_holder}@example.com");
        let phones = if is_holder { ["+14155552671", "+14155552672"] } else { ["+14155552673", "+14155552674"] };
        let holder = customer_with(app, &a, &name("1"), &email("holder"), phones[0]).await;
        let winner = customer_with(app, &a, &name("2"), &email("winner"), phones[1]).await;
        let erased = if is_holder { &holder } else { &winner };
        let outcomes = race(app, &[Write::TakeOver(&winner, phones[0]), Write::Erase(erased)]).await;
        let rejected = if is_holder { "INVALID_ARGUMENT" } else { "CUSTOMER_NOT_FOUND" };
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "ERASED"], &[rejected, "ERASED"]]);
    }
});

both!(a_takeover_against_each_other_write, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    for round in 0..3 {
        let name = |name: &str| format!("{name}-{round}");
        let email = |name: &str| format!("{name}-{round}@example.com");
        let phone = |number: usize| format!("+1415555{round}{number:03}");
        let phones = [1, 2, 3].map(phone);
        let one = customer_with(app, &a, &name("1"), &email("one"), &phones[0]).await;
        let two = customer_with(app, &a, &name("2"), &email("two"), &phones[1]).await;
        let three = customer_with(app, &a, &name("3"), &email("three"), &phones[2]).await;

        // In the first race, an update clears the number that is taken over. In the second race, an update gives
        // another number to the customer that takes over a number.
        let first = name("1");
        let update = |phone: Value| Write::Update(&a, &first, json!({ "phone": phone }));
        let outcomes = race(app, &[Write::TakeOver(&two, &phones[0]), update(json!(null))]).await;
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "UPDATED"], &["INVALID_ARGUMENT", "UPDATED"]]);
        app.update(&a, json!({ "id": two }), json!({ "phone": phones[0] })).await.payload("updateCustomer");
        let outcomes = race(app, &[Write::TakeOver(&one, &phones[0]), update(json!(phone(4)))]).await;
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "UPDATED"]]);
        app.update(&a, json!({ "id": one }), json!({ "phone": phones[0] })).await.payload("updateCustomer");

        // Two and three customers take over the same number. Then each of two customers tries to take over the number
        // of the other customer, and one takeover fails.
        let outcomes = race(app, &[Write::TakeOver(&two, &phones[0]), Write::TakeOver(&three, &phones[0])]).await;
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "TAKEN_OVER"]]);
        customer_with(app, &a, &name("4"), &email("four"), &phone(10)).await;
        let tenth = phone(10);
        let takeovers = [&one, &two, &three].map(|id| Write::TakeOver(id, &tenth));
        assert_one_of(&race(app, &takeovers).await, &[&["TAKEN_OVER"; 3]]);
        for (id, phone) in [(&one, phone(5)), (&two, phone(6)), (&three, phone(7))] {
            app.update(&a, json!({ "id": id }), json!({ "phone": phone })).await.payload("updateCustomer");
        }
        let numbers = [phone(5), phone(6)];
        let outcomes = race(app, &[Write::TakeOver(&one, &numbers[1]), Write::TakeOver(&two, &numbers[0])]).await;
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "INVALID_ARGUMENT"], &["INVALID_ARGUMENT", "TAKEN_OVER"]]);

        // During a takeover, the customer that has the number, or the customer that gets the number, is disconnected
        // from the operator.
        for (winner, phone) in [(&one, phone(8)), (&two, phone(9))] {
            app.update(&a, json!({ "id": three }), json!({ "phone": phone })).await.payload("updateCustomer");
            let id = name(if winner == &one { "3" } else { "2" });
            let outcomes = race(app, &[Write::TakeOver(winner, &phone), Write::Disconnect(&a, &id)]).await;
            assert_one_of(&outcomes, &[&["TAKEN_OVER", "DISCONNECTED"]]);
            let data = json!({ "email": email(if winner == &one { "three" } else { "two" }) });
            app.create(&a, &id, data).await.payload("createCustomer");
        }

        // During a takeover, a create matches the number that is taken over.
        app.update(&a, json!({ "id": three }), json!({ "phone": phone(7) })).await.payload("updateCustomer");
        let create = json!({ "email": email("new"), "phone": phone(7) });
        let outcomes = race(app, &[Write::TakeOver(&one, &phone(7)), Write::Create(&b, &name("new"), create)]).await;
        assert_one_of(&outcomes, &[&["TAKEN_OVER", "CONNECTED"]]);
        assert_eq!(app.customer(&a, json!({ "phone": phone(7) })).await["id"], one);
    }
});

/// Creates an operator with a customer, and suspends the operator. Returns the operator and the id of the customer.
async fn leaving_operator(app: &TestApp, data: Value) -> (TestCaller, Value) {
    let operator = app.operator("Leaving").await;
    let customer = app.created(&operator, "1", data).await["customer"]["id"].clone();
    let changes = OperatorChanges { status: Some(Status::Suspended), ..Default::default() };
    let (request, id) = (RequestInfo::command_line(), OperatorId::parse(&operator.operator).unwrap());
    app.services.operators.update(&Caller::Platform, &request, id, changes).await.unwrap();
    (operator, customer)
}

both!(the_removal_of_all_customers_against_each_write, Sandbox, async |app| {
    let other = app.operator("Other").await;
    for round in 0..3 {
        let email = |name: &str| format!("{name}-{round}@example.com");
        let name = |name: &str| format!("{name}-{round}");
        let phone = |number: usize| format!("+1415555{round}{number:03}");
        let (removed, late, lost) = ("REMOVED 1", "REMOVED 0", "CUSTOMER_NOT_FOUND");

        let updated = name("updated");
        app.created(&other, &updated, json!({ "email": email("updated") })).await;
        let (leaving, _) = leaving_operator(app, json!({ "email": email("updated") })).await;
        let update = Write::Update(&other, &updated, json!({ "firstName": "Ada" }));
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), update]).await;
        assert_one_of(&outcomes, &[&[removed, "UPDATED"]]);

        let connected = name("connected");
        let (leaving, _) = leaving_operator(app, json!({ "email": email("connected") })).await;
        let connect = json!({ "email": email("connected"), "firstName": "Ada" });
        let connect = Write::Create(&other, &connected, connect);
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), connect]).await;
        assert_one_of(&outcomes, &[&[removed, "CONNECTED"]]);

        let (leaving, erased) = leaving_operator(app, json!({ "email": email("erased") })).await;
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), Write::Erase(&erased)]).await;
        assert_one_of(&outcomes, &[&[removed, "ERASED"], &[late, "ERASED"]]);

        let (leaving, _) = leaving_operator(app, json!({ "email": email("ended") })).await;
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), Write::DisconnectFrom(&leaving, "1")]).await;
        assert_one_of(&outcomes, &[&[removed, lost], &[late, "DISCONNECTED"]]);

        let (leaving, _) = leaving_operator(app, json!({ "email": email("twice") })).await;
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), Write::RemoveCustomers(&leaving)]).await;
        assert_one_of(&outcomes, &[&[removed, late], &[late, removed]]);

        // In the first race, the customer of a leaving operator loses its phone. In the second race, the customer of
        // another leaving operator takes over a phone.
        let (winner, holder) = (name("winner"), name("holder"));
        let winner = customer_with(app, &other, &winner, &email("winner"), &phone(1)).await;
        let data = json!({ "email": email("loses"), "phone": phone(2) });
        let (leaving, _) = leaving_operator(app, data).await;
        let take_over = phone(2);
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), Write::TakeOver(&winner, &take_over)]).await;
        assert_one_of(&outcomes, &[&[removed, "TAKEN_OVER"]]);
        customer_with(app, &other, &holder, &email("holder"), &phone(3)).await;
        let (leaving, winner) = leaving_operator(app, json!({ "email": email("wins") })).await;
        let take_over = phone(3);
        let outcomes = race(app, &[Write::RemoveCustomers(&leaving), Write::TakeOver(&winner, &take_over)]).await;
        assert_one_of(&outcomes, &[&[removed, "TAKEN_OVER"]]);
    }
    let links = "SELECT COUNT(*) AS n FROM customer_operator WHERE operator_id IN \
                 (SELECT id FROM operator WHERE status = 'suspended')";
    assert_eq!(app.select_number(links).await, 0);
});

both!(a_disconnect_while_missing_search_words_are_added, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "ada@example.com" });
    app.created(&b, "1", data.clone()).await;
    app.created(&a, "1", data.clone()).await;
    let operator = OperatorId::parse(&a.operator).unwrap();
    let words = customer_word::Entity::find().filter(customer_word::Column::OperatorId.eq(operator));
    let word = words.one(app.database.reader()).await.unwrap().unwrap();
    app.execute("DELETE FROM customer_word").await;
    // On PostgreSQL, `add_missing_words` locks the customer, and then waits until this transaction rolls back its
    // insert of the same word.
    let holder = app.database.begin_write().await.unwrap();
    word.into_active_model().insert(&holder).await.unwrap();
    let disconnect = async {
        app.wait_until_blocked(1).await;
        let release = async {
            app.wait_until_blocked(2).await;
            drop(holder);
        };
        let disconnect = Write::Disconnect(&a, "1");
        tokio::join!(outcome(app, &disconnect), release).0
    };
    let (added, disconnected) = tokio::join!(app.services.customers.add_missing_words(&Caller::Platform), disconnect);
    added.unwrap();
    assert_eq!(disconnected, "DISCONNECTED");
    // If a word of the ended connection were left behind, this request would fail, because it inserts a word with the
    // same primary key.
    assert_eq!(outcome(app, &Write::Create(&a, "2", data)).await, "CONNECTED");
});

/// Creates an endpoint, and returns its id.
async fn endpoint(app: &TestApp, caller: &TestCaller) -> Value {
    let answer = send(app, &Write::CreateWebhook(caller)).await;
    answer.payload("createWebhook")["webhook"]["id"].clone()
}

/// The stored row of an endpoint.
async fn stored(app: &TestApp, id: &Value) -> webhook::Model {
    let id = WebhookId::parse(id.as_str().unwrap()).unwrap();
    webhook::Entity::find_by_id(id).one(app.database.reader()).await.unwrap().unwrap()
}

both!(two_creates_at_the_limit_of_endpoints, Sandbox, async |app| {
    let a = app.operator("A").await;
    for _ in 0..4 {
        endpoint(app, &a).await;
    }
    let outcomes = race(app, &[Write::CreateWebhook(&a), Write::CreateWebhook(&a)]).await;
    let full = "TOO_MANY_WEBHOOKS";
    assert_one_of(&outcomes, &[&["CREATED", full], &[full, "CREATED"]]);
    assert_eq!(app.count_rows("webhook").await, 5);
});

both!(a_change_of_an_endpoint_against_its_deletion, Sandbox, async |app| {
    let a = app.operator("A").await;
    let (all, lost) = (json!({ "time": "2026-11-20T12:00:00Z" }), "WEBHOOK_NOT_FOUND");
    for changes in [json!({ "enabled": false }), json!({ "deliverFrom": all })] {
        for is_first in [true, false] {
            let id = endpoint(app, &a).await;
            let mut requests = [Write::UpdateWebhook(&a, &id, changes.clone()), Write::DeleteWebhook(&a, &id)];
            if !is_first {
                requests.reverse();
            }
            let mut outcomes = race(app, &requests).await;
            if !is_first {
                outcomes.reverse();
            }
            assert_one_of(&outcomes, &[&["UPDATED", "DELETED"], &[lost, "DELETED"]]);
        }
    }
    for _ in 0..2 {
        let id = endpoint(app, &a).await;
        let outcomes = race(app, &[Write::RotateSecret(&a, &id), Write::DeleteWebhook(&a, &id)]).await;
        assert_one_of(&outcomes, &[&["ROTATED", "DELETED"], &[lost, "DELETED"]]);
        let id = endpoint(app, &a).await;
        let outcomes = race(app, &[Write::DeleteWebhook(&a, &id), Write::DeleteWebhook(&a, &id)]).await;
        assert_one_of(&outcomes, &[&["DELETED", lost], &[lost, "DELETED"]]);
    }
    assert_eq!(app.count_rows("webhook").await, 0);
});

both!(two_rotations_make_two_secrets, Sandbox, async |app| {
    let a = app.operator("A").await;
    let id = endpoint(app, &a).await;
    let outcomes = race(app, &[Write::RotateSecret(&a, &id), Write::RotateSecret(&a, &id)]).await;
    assert_one_of(&outcomes, &[&["ROTATED", "ROTATED"]]);
    assert_eq!(stored(app, &id).await.secret_version, 3);
});

both!(two_changes_of_an_endpoint_are_both_applied, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.wait_for_feed().await;
    let id = endpoint(app, &a).await;
    assert!(stored(app, &id).await.delivered_position > 0);
    let update = |changes: Value| Write::UpdateWebhook(&a, &id, changes);
    let url = |path: &str| json!({ "url": format!("https://receiver.example/{path}") });
    let rewind = json!({ "deliverFrom": { "time": "2026-11-20T12:00:00Z" } });

    let outcomes = race(app, &[update(url("1")), update(json!({ "enabled": false }))]).await;
    assert_one_of(&outcomes, &[&["UPDATED", "UPDATED"]]);
    let row = stored(app, &id).await;
    assert_eq!((row.url.as_str(), row.disabled_at.is_some()), ("https://receiver.example/1", true));

    let outcomes = race(app, &[update(json!({ "types": ["ERASED"] })), update(rewind)]).await;
    assert_one_of(&outcomes, &[&["UPDATED", "UPDATED"]]);
    let row = stored(app, &id).await;
    assert_eq!((row.types, row.delivered_position), (Some(ChangeTypes(vec![EventType::Erased])), 0));

    let outcomes = race(app, &[Write::RotateSecret(&a, &id), update(url("2"))]).await;
    assert_one_of(&outcomes, &[&["ROTATED", "UPDATED"]]);
    let row = stored(app, &id).await;
    assert_eq!((row.url.as_str(), row.secret_version), ("https://receiver.example/2", 2));
});
