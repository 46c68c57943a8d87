//! Batching: concurrent requests share statements on PostgreSQL, and each request gets its own outcome. On SQLite the
//! same requests run one by one and have the same outcomes.
//!
//! The tests call the service directly, because requests over HTTP may not be ready at the same time.

use entity::deployment::Environment;
use entity::value::{
    Address, AddressParts, EmailAddress, ExternalCustomerId, IdempotencyKey, PersonName, PhoneNumber, RequestId,
};
use futures::future::{join, join_all};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use vivamo::error::Error;
use vivamo::service::Caller;
use vivamo::service::customers::{CreateOutcome, CustomerChanges, CustomerDraft, CustomerPatch, CustomerRef};

use support::postgres;
use support::proxy::{Cut, Proxy};
use support::{Backend, TestApp, TestCaller, Timeouts, both, run, wait_until};

async fn caller(app: &TestApp, caller: &TestCaller) -> Caller {
    app.services.authenticator.authenticate(&caller.key, None).await.unwrap()
}

fn new(id: &str, email: &str) -> CustomerDraft {
    CustomerDraft {
        external_customer_id: Some(ExternalCustomerId::parse(id).unwrap()),
        email: Some(EmailAddress::parse(email).unwrap()),
        ..Default::default()
    }
}

fn changes(id: &str) -> CustomerChanges {
    let id = ExternalCustomerId::parse(id).unwrap();
    CustomerChanges { customer: Some(CustomerRef::ExternalCustomerId(id)), ..Default::default() }
}

fn name(name: &str) -> Option<PersonName> {
    Some(PersonName::parse(name).unwrap())
}

fn code(error: &Error) -> String {
    match error {
        Error::Rejected(violations) => {
            violations.iter().map(|violation| violation.code.name()).collect::<Vec<_>>().join("+")
        }
        Error::Failed { code, .. } => code.name().to_owned(),
    }
}

async fn create(app: &TestApp, caller: &Caller, new: CustomerDraft) -> String {
    match app.services.customers.create(caller, &RequestId::new().into(), new).await {
        Ok(created) if created.replayed => "REPLAYED".to_owned(),
        Ok(created) => {
            if created.details.outcome == CreateOutcome::Created { "CREATED" } else { "CONNECTED" }.to_owned()
        }
        Err(error) => code(&error),
    }
}

async fn update(app: &TestApp, caller: &Caller, changes: CustomerChanges) -> String {
    match app.services.customers.update(caller, &RequestId::new().into(), changes).await {
        Ok(updated) => format!("VERSION {}", updated.view.customer.version),
        Err(error) => code(&error),
    }
}

/// Returns the expected number of statements of concurrent requests, if each request reads and then writes. On
/// PostgreSQL, the requests share one read and one write. On SQLite nothing is batched, so the number is `on_sqlite`.
fn read_and_write(app: &TestApp, on_sqlite: usize) -> usize {
    if app.is_postgres() { 2 } else { on_sqlite }
}

async fn search_emails(app: &TestApp, caller: &TestCaller, search: &str) -> Vec<Value> {
    let query =
        "query ($search: String!) { customers(first: 10, filter: { search: $search }) { edges { node { email } } } }";
    let answer = app.graphql(caller, query, json!({ "search": search })).await;
    let edges = answer.body["data"]["customers"]["edges"].as_array().unwrap().clone();
    edges.iter().map(|edge| edge["node"]["email"].clone()).collect()
}

both!(concurrent_creates_of_one_operator_are_one_statement, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "known@example.com" })).await;
    app.created(&other, "2", json!({ "email": "known2@example.com", "firstName": "Known", "phone": "+14155550009" }))
        .await;
    let caller = caller(app, &own).await;
    let parts = AddressParts {
        line1: "1 Main St".into(),
        line2: None,
        city: "Springfield".into(),
        region: None,
        postal_code: None,
        country: "US".into(),
    };
    let address = Address::parse(parts).unwrap();
    let full = CustomerDraft {
        optional_values: CustomerPatch {
            phone: Some(PhoneNumber::parse("+14155550001").ok()),
            first_name: Some(name("Ada")),
            last_name: Some(name("King Noel")),
            address: Some(Some(address)),
            ..Default::default()
        },
        ..new("a", "ada@example.com")
    };
    let creates = [
        full,
        new("b", "grace@example.com"),
        CustomerDraft {
            optional_values: CustomerPatch { last_name: Some(name("Lamarr")), ..Default::default() },
            ..new("c", "hedy@example.com")
        },
    ];
    let (outcomes, sent) = app.statements_of(join_all(creates.map(|new| create(app, &caller, new)))).await;
    assert_eq!(outcomes, ["CREATED"; 3]);
    assert_eq!(sent.len(), read_and_write(app, 18), "{sent:#?}");
    // A create that connects a customer writes with other statements, so it runs in another batch.
    let connects = [
        CustomerDraft {
            optional_values: CustomerPatch { first_name: Some(name("Knew")), ..Default::default() },
            ..new("d", "known@example.com")
        },
        new("e", "known2@example.com"),
    ];
    let outcomes = join_all(connects.map(|new| create(app, &caller, new))).await;
    assert_eq!(outcomes, ["CONNECTED"; 2]);

    let customer = async |id: &str| app.customer(&own, json!({ "externalCustomerId": id })).await;
    let ada = customer("a").await;
    assert_eq!(
        (&ada["email"], &ada["phone"], &ada["lastName"]),
        (&json!("ada@example.com"), &json!("+14155550001"), &json!("King Noel"))
    );
    assert_eq!(ada["address"]["city"], "Springfield");
    let grace = customer("b").await;
    assert_eq!(
        (&grace["email"], &grace["phone"], &grace["address"]),
        (&json!("grace@example.com"), &Value::Null, &Value::Null)
    );
    assert_eq!(customer("c").await["lastName"], "Lamarr");
    assert_eq!(
        (customer("d").await["firstName"].clone(), customer("d").await["version"].clone()),
        (json!("Knew"), json!(2))
    );
    assert_eq!(
        (customer("e").await["firstName"].clone(), customer("e").await["version"].clone()),
        (json!("Known"), json!(1))
    );
    for (search, emails) in [
        ("noel", &["ada@example.com"][..]),
        ("lamarr", &["hedy@example.com"]),
        ("known", &["known@example.com", "known2@example.com"]),
        ("knew", &["known@example.com"]),
    ] {
        assert_eq!(search_emails(app, &own, search).await, emails, "{search}");
    }
    assert_eq!(search_emails(app, &other, "knew").await, ["known@example.com"]);
    assert_eq!(app.select_number("SELECT COUNT(DISTINCT request_id) AS n FROM customer_event").await, 7);
    assert_eq!(
        app.select_number("SELECT COUNT(*) AS n FROM customer_event WHERE version = 1 AND type = 'created'").await,
        5
    );
});

both!(concurrent_updates_of_one_operator_are_one_statement, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for (number, (id, first_name)) in [("a", "Ada Augusta"), ("b", "Grace"), ("c", "Hedy")].into_iter().enumerate() {
        let (email, phone) = (format!("{id}@example.com"), format!("+1415555000{number}"));
        app.created(&own, id, json!({ "email": email, "firstName": first_name, "lastName": "Of", "phone": phone }))
            .await;
    }
    let caller = caller(app, &own).await;
    let updates = [
        CustomerChanges {
            values: CustomerPatch { first_name: Some(name("Byron")), ..Default::default() },
            ..changes("a")
        },
        CustomerChanges {
            values: CustomerPatch { first_name: Some(None), phone: Some(None), ..Default::default() },
            ..changes("b")
        },
        CustomerChanges {
            values: CustomerPatch { first_name: Some(name("Hedy Eva Maria")), ..Default::default() },
            ..changes("c")
        },
    ];
    let (outcomes, sent) = app.statements_of(join_all(updates.map(|changes| update(app, &caller, changes)))).await;
    assert_eq!(outcomes, ["VERSION 2"; 3]);
    assert_eq!(sent.len(), read_and_write(app, 15), "{sent:#?}");
    let customer = async |id: &str| {
        let customer = app.customer(&own, json!({ "externalCustomerId": id })).await;
        [&customer["firstName"], &customer["phone"], &customer["lastName"]].map(Clone::clone)
    };
    assert_eq!(customer("a").await, [json!("Byron"), json!("+14155550000"), json!("Of")]);
    assert_eq!(customer("b").await, [Value::Null, Value::Null, json!("Of")]);
    assert_eq!(customer("c").await, [json!("Hedy Eva Maria"), json!("+14155550002"), json!("Of")]);
    for (search, emails) in
        [("byron", &["a@example.com"][..]), ("augusta", &[]), ("grace", &[]), ("hedy maria", &["c@example.com"])]
    {
        assert_eq!(search_emails(app, &own, search).await, emails, "{search}");
    }
});

both!(only_the_conflicting_write_of_a_batch_fails, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "a", json!({ "email": "a@example.com" })).await;
    let caller = caller(app, &own).await;
    let creates = [
        new("1", "1@example.com"),
        new("2", "same@example.com"),
        new("3", "same@example.com"),
        new("4", "4@example.com"),
        new("4", "5@example.com"),
    ];
    let mut outcomes = join_all(creates.map(|new| create(app, &caller, new))).await;
    assert_eq!(outcomes.remove(0), "CREATED");
    outcomes.sort();
    assert_eq!(outcomes, ["CREATED", "CREATED", "EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"]);
    assert_eq!(app.count_rows("customer").await, 4);
    assert_eq!(app.count_rows("customer_event").await, 4);
    // Two updates change the same customer.
    let updates = [
        CustomerChanges {
            values: CustomerPatch { first_name: Some(name("Ada")), ..Default::default() },
            ..changes("1")
        },
        CustomerChanges {
            values: CustomerPatch { first_name: Some(name("Ada")), ..Default::default() },
            ..changes("a")
        },
        CustomerChanges {
            values: CustomerPatch { last_name: Some(name("King")), ..Default::default() },
            ..changes("a")
        },
    ];
    let mut outcomes = join_all(updates.map(|changes| update(app, &caller, changes))).await;
    outcomes.sort();
    assert_eq!(outcomes, ["VERSION 2", "VERSION 2", "VERSION 3"]);
    let customer = app.customer(&own, json!({ "externalCustomerId": "a" })).await;
    assert_eq!((&customer["firstName"], &customer["lastName"]), (&json!("Ada"), &json!("King")));
    // Two updates expect the same version.
    let updates = [
        CustomerChanges {
            expected_version: Some(3),
            values: CustomerPatch { first_name: Some(name("Eva")), ..Default::default() },
            ..changes("a")
        },
        CustomerChanges {
            expected_version: Some(3),
            values: CustomerPatch { first_name: Some(name("Eve")), ..Default::default() },
            ..changes("a")
        },
    ];
    let mut outcomes = join_all(updates.map(|changes| update(app, &caller, changes))).await;
    outcomes.sort();
    assert_eq!(outcomes, ["VERSION 4", "VERSION_CONFLICT"]);
});

both!(operators_do_not_share_a_write_batch, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let (a, b) = (caller(app, &a).await, caller(app, &b).await);
    let creates = [(&a, "1"), (&b, "2"), (&a, "3"), (&b, "4")];
    let creates = creates.map(|(caller, id)| create(app, caller, new(id, &format!("{id}@example.com"))));
    let (outcomes, sent) = app.statements_of(join_all(creates)).await;
    assert_eq!(outcomes, ["CREATED"; 4]);
    // On PostgreSQL all requests share one read, and each operator has one write.
    assert_eq!(sent.len(), if app.is_postgres() { 3 } else { 24 }, "{sent:#?}");
});

both!(idempotency_keys_work_in_a_batch, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let caller = caller(app, &own).await;
    let keyed = |id: &str, key: &str| CustomerDraft {
        idempotency_key: Some(IdempotencyKey::parse(key).unwrap()),
        ..new(id, &format!("{id}@example.com"))
    };
    let creates = || [keyed("1", "one"), keyed("2", "two"), keyed("3", "three")].map(|new| create(app, &caller, new));
    let (outcomes, sent) = app.statements_of(join_all(creates())).await;
    assert_eq!(outcomes, ["CREATED"; 3]);
    assert_eq!(sent.len(), read_and_write(app, 21), "{sent:#?}");
    assert_eq!(join_all(creates()).await, ["REPLAYED"; 3]);
    // Sends the same request several times in parallel.
    let repeated = ["four", "four", "five", "four"].map(|key| create(app, &caller, keyed(key, key)));
    let mut outcomes = join_all(repeated).await;
    outcomes.sort();
    assert_eq!(outcomes, ["CREATED", "CREATED", "REPLAYED", "REPLAYED"]);
    // Makes all keys expire.
    let expire = app.database.begin_write().await.unwrap();
    let sql = format!("UPDATE idempotency_key SET expires_at = {}", app.past());
    expire.execute_unprepared(&sql).await.unwrap();
    expire.commit().await.unwrap();
    let others = ["one", "two"].map(|key| create(app, &caller, keyed(&format!("other-{key}"), key)));
    assert_eq!(join_all(others).await, ["CREATED"; 2]);
    assert_eq!(app.count_rows("idempotency_key").await, 5);
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_write_that_the_database_rejects_fails() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let caller = caller(app, &own).await;
        let reject_bad = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                      IF NEW.email LIKE 'bad%' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$; \
                      CREATE TRIGGER refuse BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION refuse()";
        app.execute(reject_bad).await;
        let creates = ["a", "bad", "c"].map(|id| create(app, &caller, new(id, &format!("{id}@example.com"))));
        assert_eq!(join_all(creates).await, ["CREATED", "INTERNAL", "CREATED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_for_a_lock_does_not_delay_its_batch() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let replica = app.replica_with_timeouts(Timeouts::with_short_locks()).await;
        for id in ["a", "b", "c"] {
            app.created(&own, id, json!({ "email": format!("{id}@example.com") })).await;
        }
        let caller = caller(&replica, &own).await;
        let keyed = |id: &str| CustomerDraft {
            idempotency_key: Some(IdempotencyKey::parse(id).unwrap()),
            ..new(id, &format!("{id}@example.com"))
        };
        assert_eq!(create(&replica, &caller, keyed("e")).await, "CREATED");
        app.execute(&format!("UPDATE idempotency_key SET expires_at = {}", app.past())).await;

        // An update waits for the row lock of its customer, and a create waits for the row lock of its expired
        // idempotency key. Both locks are held until the other members of the batches are done.
        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared("SELECT 1 FROM customer WHERE email = 'b@example.com' FOR UPDATE").await.unwrap();
        holder.execute_unprepared("SELECT 1 FROM idempotency_key FOR UPDATE").await.unwrap();
        let rename = |id: &str| {
            update(
                &replica,
                &caller,
                CustomerChanges {
                    values: CustomerPatch { first_name: Some(name("Ada")), ..Default::default() },
                    ..changes(id)
                },
            )
        };
        let reuse_key = CustomerDraft { idempotency_key: keyed("e").idempotency_key, ..new("f", "f@example.com") };
        let others = async {
            let updates = join_all(["a", "c"].map(rename));
            let outcomes = join(updates, join_all(["d", "g"].map(|id| create(&replica, &caller, keyed(id))))).await;
            holder.commit().await.unwrap();
            outcomes
        };
        let blocked = join(Box::pin(rename("b")), Box::pin(create(&replica, &caller, reuse_key)));
        let (blocked, (updates, creates)) = join(blocked, others).await;
        assert_eq!((blocked.0.as_str(), blocked.1.as_str()), ("VERSION 2", "CREATED"));
        assert_eq!((updates, creates), (vec!["VERSION 2".to_owned(); 2], vec!["CREATED".to_owned(); 2]));
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_leader_makes_the_other_writes_unavailable() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let caller = caller(app, &own).await;
        // Disables `lock_timeout` for batches, so that the batch waits until the leader is cancelled.
        app.execute(&postgres::waiting_trigger("INSERT ON customer", "true")).await;
        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared(postgres::LOCK).await.unwrap();
        let (mut leader, mut follower) =
            ["1", "2"].map(|id| Box::pin(create(app, &caller, new(id, &format!("{id}@example.com"))))).into();
        let both = join(&mut leader, &mut follower);
        futures::future::select(both, Box::pin(app.wait_until_blocked(1))).await;
        drop(leader);
        holder.commit().await.unwrap();
        assert_eq!(follower.await, "UNAVAILABLE");
        // PostgreSQL does not notice that the connection was closed, and commits the batch.
        wait_until("the batch is committed", async || (app.count_rows("customer").await == 2).then_some(())).await;
    })
    .await;
}

/// Cuts the connection at the commit of a batch of three creates. The clients then repeat their requests with the same
/// idempotency keys.
async fn cut_at_commit_of_batch(cut: Cut) {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        let caller = caller(&replica, &own).await;
        let keyed = |id: &str| CustomerDraft {
            idempotency_key: Some(IdempotencyKey::parse(id).unwrap()),
            ..new(id, &format!("{id}@example.com"))
        };
        let creates = || ["1", "2", "3"].map(|id| create(&replica, &caller, keyed(id)));
        proxy.set_trap(cut);
        let outcomes = join_all(creates()).await;
        assert!(!proxy.is_set(cut), "nobody committed");
        let (first, repeated) =
            if cut == Cut::AfterCommit { ("REPLAYED", "REPLAYED") } else { ("UNAVAILABLE", "CREATED") };
        assert_eq!(outcomes, [first; 3]);
        assert_eq!(join_all(creates()).await, [repeated; 3]);
        assert_eq!(app.count_rows("customer").await, 3);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_before_the_commit_of_a_batch_leaves_nothing_behind() {
    cut_at_commit_of_batch(Cut::BeforeCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_after_the_commit_of_a_batch_is_resolved_by_idempotency_keys() {
    cut_at_commit_of_batch(Cut::AfterCommit).await;
}
