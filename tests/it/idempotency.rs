//! Idempotency keys: a repeated request returns the result of the first request and changes nothing.

use std::time::Duration;

use entity::deployment::Environment;
use futures::future::join_all;
use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, Statement};
use serde_json::{Value, json};
use vivamo::config::RateLimitSettings;
use vivamo::database::DatabaseTimeouts;
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::{RequestInfo, ServiceSettings};

use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, Timeouts, both, run};

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { \
    replayed outcome matchedBy unappliedFields warnings { code message inputPath } \
    customer { id email phone firstName version } } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed \
    warnings { code message inputPath } customer { id email phone firstName version } } }";

async fn create(app: &TestApp, caller: &TestCaller, key: &str, id: &str, data: Value) -> Answer {
    let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": key });
    app.graphql(caller, CREATE, json!({ "input": input })).await
}

async fn update(app: &TestApp, caller: &TestCaller, key: &str, id: &str, data: Value) -> Answer {
    let input = json!({ "customer": { "externalCustomerId": id }, "data": data, "idempotencyKey": key });
    app.graphql(caller, UPDATE, json!({ "input": input })).await
}

/// Asserts that a payload is replayed. Returns the payload with `replayed: false`, as in the first response.
#[track_caller]
fn first_payload(mut payload: Value) -> Value {
    assert_eq!(payload["replayed"], true);
    payload["replayed"] = json!(false);
    payload
}

const REUSED: [(&str, &str); 1] = [("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")];

both!(a_repeated_create_is_replayed, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada+1@mailinator.com", "phone": "+15551234567" });
    let first = create(app, &operator, "key-1", "user-1", data.clone()).await.payload("createCustomer");
    assert_eq!((&first["replayed"], &first["outcome"]), (&json!(false), &json!("CREATED")));
    assert_eq!(first["warnings"].as_array().unwrap().len(), 2);
    // Another spelling of the same values is the same request.
    let respelled = json!({ "phone": "(555) 123-4567", "email": " ADA+1@Mailinator.com" });
    for data in [data, respelled] {
        let repeated = create(app, &operator, "key-1", "user-1", data).await.payload("createCustomer");
        assert_eq!(first_payload(repeated), first);
    }
    assert_eq!(app.count_rows("customer_event").await, 1);
    // Without a key, a request for the same email and external id is a new request.
    let data = json!({ "email": "ada+1@mailinator.com" });
    assert_eq!(app.create(&operator, "user-1", data).await.codes(), ["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"]);
});

both!(a_repeated_connect_is_replayed_with_the_current_customer, Sandbox, async |app| {
    let (first, second) = (app.operator("First").await, app.operator("Second").await);
    app.created(&first, "1", json!({ "email": "ada@example.com", "firstName": "Ada" })).await;
    let data = json!({ "email": "ada@example.com", "firstName": "Augusta", "phone": "+14155552671" });
    let connected = create(app, &second, "k", "2", data.clone()).await.payload("createCustomer");
    assert_eq!(connected["unappliedFields"], json!(["FIRST_NAME"]));
    app.updated(&first, json!({ "externalCustomerId": "1" }), json!({ "email": "new@example.com", "firstName": null }))
        .await;
    let repeated = create(app, &second, "k", "2", data).await.payload("createCustomer");
    for same in ["outcome", "matchedBy", "unappliedFields", "warnings"] {
        assert_eq!(repeated[same], connected[same], "{same}");
    }
    // The payload contains the customer as it is now.
    assert_eq!(repeated["customer"]["email"], "new@example.com");
    assert_eq!(repeated["customer"]["version"], 3);
});

both!(a_repeated_update_is_replayed, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
    let data = json!({ "firstName": "Ada", "phone": "+15551234567" });
    let first = update(app, &operator, "k", "1", data.clone()).await.payload("updateCustomer");
    assert_eq!(first["warnings"][0]["code"], "PHONE_NOT_MOBILE");
    assert_eq!(first_payload(update(app, &operator, "k", "1", data.clone()).await.payload("updateCustomer")), first);
    app.updated(&operator, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Grace" })).await;
    let later = update(app, &operator, "k", "1", data).await.payload("updateCustomer");
    assert_eq!((&later["customer"]["firstName"], &later["customer"]["version"]), (&json!("Grace"), &json!(3)));
    // The result of an update that changes nothing is stored too.
    let nothing = update(app, &operator, "k-2", "1", json!({})).await.payload("updateCustomer");
    assert_eq!(first_payload(update(app, &operator, "k-2", "1", json!({})).await.payload("updateCustomer")), nothing);
});

both!(a_key_of_a_different_request_is_rejected, Sandbox, async |app| {
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "ada@example.com" });
    create(app, &operator, "k", "1", data.clone()).await.payload("createCustomer");
    for (id, data) in [
        ("2", data.clone()),
        ("1", json!({ "email": "other@example.com" })),
        ("1", json!({ "email": "ada@example.com", "firstName": "Ada" })),
    ] {
        create(app, &operator, "k", id, data).await.assert_rejected("createCustomer", &REUSED);
    }
    update(app, &operator, "k", "1", json!({})).await.assert_rejected("updateCustomer", &REUSED);
    // An omitted field is not a null field.
    update(app, &operator, "u", "1", json!({ "firstName": "Ada" })).await.payload("updateCustomer");
    let removing = json!({ "firstName": "Ada", "lastName": null });
    update(app, &operator, "u", "1", removing).await.assert_rejected("updateCustomer", &REUSED);
    // Another operator may use the same key.
    create(app, &other, "k", "1", data).await.payload("createCustomer");
});

both!(idempotency_keys_are_looked_up_before_customers, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    create(app, &operator, "c", "1", data.clone()).await.payload("createCustomer");
    update(app, &operator, "u", "1", json!({ "email": "grace@example.com" })).await.payload("updateCustomer");
    // Two statements: one looks up the key, one reads the customer of the stored result.
    let (replayed, sent) = app.statements_of(create(app, &operator, "c", "1", data)).await;
    first_payload(replayed.payload("createCustomer"));
    assert_eq!(sent.len(), 2, "{sent:?}");
    let grace = json!({ "email": "grace@example.com" });
    let (replayed, sent) = app.statements_of(update(app, &operator, "u", "1", grace)).await;
    first_payload(replayed.payload("updateCustomer"));
    assert_eq!(sent.len(), 2, "{sent:?}");
    // One statement, which looks up the key only.
    for data in [json!({ "email": "grace@example.com" }), json!({ "email": "new@example.com" })] {
        let (answer, sent) = app.statements_of(create(app, &operator, "u", "1", data.clone())).await;
        answer.assert_rejected("createCustomer", &REUSED);
        assert_eq!(sent.len(), 1, "{sent:?}");
        for id in ["1", "unknown"] {
            let (answer, sent) = app.statements_of(update(app, &operator, "c", id, data.clone())).await;
            answer.assert_rejected("updateCustomer", &REUSED);
            assert_eq!(sent.len(), 1, "{sent:?}");
        }
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicting_writes_need_one_connection_each_while_the_secret_is_changed() {
    let hasher = KeyedHasher::new(KEY_SECRET).with_old("an older secret");
    let settings = ServiceSettings::new(Environment::Sandbox, hasher);
    // Several updates share a statement. When it reaches `lock_timeout`, each update takes a connection of its own. The
    // timeout is long enough for all of these connections to wait at the same time.
    let long = Timeouts::long();
    let database = DatabaseTimeouts { lock: Duration::from_secs(2), ..long.database };
    let timeouts = Timeouts { database, ..long };
    let Some(app) = TestApp::start_with_timeouts(Backend::Postgres, settings, timeouts).await else { return };
    support::run_on(app, async |app| {
        let operator = app.operator("A").await;
        app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
        let watcher = app.replica(app.database_url().to_owned()).await;
        let holder = watcher.database.begin_write().await.unwrap();
        let lock = Statement::from_string(DbBackend::Postgres, "SELECT id FROM customer FOR UPDATE");
        holder.query_all_raw(lock).await.unwrap();
        // An operator has at most eight connections.
        let updates = join_all((0..40).map(async |number: usize| {
            let data = json!({ "firstName": format!("Ada {number}") });
            update(app, &operator, &format!("key-{number}"), "1", data).await.codes()
        }));
        let release = async {
            watcher.wait_until_blocked(8).await;
            holder.commit().await.unwrap();
        };
        let (codes, ()) = tokio::join!(updates, release);
        // If the updates waited for each other, most of them would fail.
        assert_eq!(codes.concat(), Vec::<String>::new());
        watcher.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_made_on_an_empty_table_still_uses_the_primary_key() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        app.execute("VACUUM (ANALYZE) idempotency_key").await;
        let data = json!({ "email": "ada@example.com" });
        let (_, creating) = app.statements_of(create(app, &operator, "c", "1", data)).await;
        let (_, updating) = app.statements_of(update(app, &operator, "u", "1", json!({ "firstName": "Ada" }))).await;
        for (name, lookup, parameters) in [("creating", &creating[0], 6), ("updating", &updating[0], 4)] {
            let transaction = app.database.begin_write().await.unwrap();
            transaction.execute_unprepared(&format!("PREPARE {name} AS {lookup}")).await.unwrap();
            let explain = format!("EXPLAIN EXECUTE {name} ({})", vec!["NULL"; parameters].join(", "));
            let plan = transaction.query_all_raw(Statement::from_string(DbBackend::Postgres, explain)).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
            let scans: Vec<_> = plan.iter().filter(|line| line.contains("on idempotency_key")).collect();
            assert_eq!(scans.len(), 2, "{plan:#?}");
            assert!(scans.iter().all(|scan| scan.contains("using idempotency_key_pkey")), "{plan:#?}");
        }
    })
    .await;
}

both!(a_replay_needs_no_budget, Sandbox, async |app| {
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let replica = app.replica_with(app.database_url().to_owned(), limits).await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    create(app, &operator, "c", "1", data.clone()).await.payload("createCustomer");
    update(app, &operator, "u", "1", json!({ "email": "grace@example.com" })).await.payload("updateCustomer");
    app.created(&other, "1", json!({ "email": "eve@example.com" })).await;
    replica.created(&operator, "2", json!({ "email": "eve@example.com" })).await;
    for _ in 0..3 {
        first_payload(create(&replica, &operator, "c", "1", data.clone()).await.payload("createCustomer"));
        let grace = json!({ "email": "grace@example.com" });
        first_payload(update(&replica, &operator, "u", "1", grace).await.payload("updateCustomer"));
        create(&replica, &operator, "u", "1", data.clone()).await.assert_rejected("createCustomer", &REUSED);
    }
    assert_eq!(create(&replica, &operator, "new", "1", data).await.codes(), ["RATE_LIMITED"]);
    replica.stop().await;
});

both!(a_replay_may_wait_while_other_requests_hold_the_budget, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com" });
    let created = create(app, &operator, "c", "1", data.clone()).await.payload("createCustomer");
    let changes = json!({ "email": "grace@example.com" });
    let updated = update(app, &operator, "u", "1", changes.clone()).await.payload("updateCustomer");
    let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let replica = app.replica_with(app.database_url().to_owned(), limits).await;
    let caller = replica.services.authenticator.authenticate(&operator.key, None).await.unwrap();
    let origin = caller.authorize_write(&RequestInfo::command_line()).unwrap();
    let reserved = replica.services.limits.reserve_disclosures(&origin, 1).await.ok().unwrap();
    let (repeated_create, repeated_update, new) = tokio::join!(
        create(&replica, &operator, "c", "1", data.clone()),
        update(&replica, &operator, "u", "1", changes),
        create(&replica, &operator, "new", "1", data),
    );
    let mut repeated_create = first_payload(repeated_create.payload("createCustomer"));
    assert_eq!(repeated_create["customer"], updated["customer"]);
    repeated_create["customer"] = created["customer"].clone();
    assert_eq!(repeated_create, created);
    assert_eq!(first_payload(repeated_update.payload("updateCustomer")), updated);
    assert_eq!(new.codes(), ["RATE_LIMITED"]);
    drop(reserved);
    replica.stop().await;
});

both!(a_request_that_waited_for_disclosures_is_replayed, Sandbox, async |app| {
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "eve@example.com" });
    app.created(&other, "1", data.clone()).await;
    let reservation_wait = Duration::from_secs(60);
    let limits = RateLimitSettings { disclosures_per_hour: 1, reservation_wait, ..RateLimitSettings::OFF };
    let replica = app.replica_with(app.database_url().to_owned(), limits).await;
    // One of the two requests reserves the budget, and cannot write until the lock is released.
    let writer = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        writer.execute_unprepared("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    }
    let send = || create(&replica, &operator, "k", "1", data.clone());
    // The other one waits for the budget. The first one uses the budget up, so the other one is not executed, and must
    // look for a stored result after it has waited.
    let is_read = |sql: &str| sql.contains(r#"FROM "idempotency_key""#) && sql.contains(r#""customer""#);
    let release = async {
        replica.wait_for_statement(is_read).await;
        writer.commit().await.unwrap();
    };
    let (one, two, ()) = tokio::join!(send(), send(), release);
    let mut payloads = [one, two].map(|answer| answer.payload("createCustomer"));
    payloads.sort_by_key(|payload| payload["replayed"].as_bool());
    let [first, repeated] = payloads;
    assert_eq!(first["outcome"], "CONNECTED");
    assert_eq!(first_payload(repeated), first);
    replica.stop().await;
});

both!(a_rejected_request_does_not_use_up_its_key, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
    for data in [json!({ "email": "no address" }), json!({ "email": "ada@example.com" })] {
        assert_eq!(create(app, &operator, "k", "2", data).await.codes().len(), 1);
    }
    assert_eq!(update(app, &operator, "k", "nobody", json!({})).await.codes(), ["CUSTOMER_NOT_FOUND"]);
    create(app, &operator, "k", "2", json!({ "email": "grace@example.com" })).await.payload("createCustomer");
    assert_eq!(app.count_rows("idempotency_key").await, 1);
});

both!(a_key_has_1_to_255_characters, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let longest = "é".repeat(255);
    create(app, &operator, &longest, "1", json!({ "email": "a@example.com" })).await.payload("createCustomer");
    for bad in ["", &"x".repeat(256)] {
        let answer = create(app, &operator, bad, "2", json!({ "email": "b@example.com" })).await;
        answer.assert_rejected("createCustomer", &[("INVALID_ARGUMENT", "input.idempotencyKey")]);
    }
});

both!(concurrent_repeats_are_applied_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for round in 0..5 {
        let (id, data) = (format!("user-{round}"), json!({ "email": format!("{round}@example.com") }));
        let creates = (0..20).map(|_| create(app, &operator, &id, &id, data.clone()));
        let payloads: Vec<_> = join_all(creates).await.iter().map(|answer| answer.payload("createCustomer")).collect();
        let done = payloads.iter().filter(|payload| payload["replayed"] == false).count();
        assert_eq!(done, 1);
        assert!(payloads.iter().all(|payload| payload["customer"] == payloads[0]["customer"]));

        let key = format!("u-{id}");
        let updates = (0..20).map(|_| update(app, &operator, &key, &id, json!({ "firstName": "Ada" })));
        let payloads: Vec<_> = join_all(updates).await.iter().map(|answer| answer.payload("updateCustomer")).collect();
        let done = payloads.iter().filter(|payload| payload["replayed"] == false).count();
        assert_eq!((done, &payloads[0]["customer"]["version"]), (1, &json!(2)));

        // The new id is looked up by a statement of its own, which can find the customer already renamed.
        let id = payloads[0]["customer"]["id"].clone();
        let input = json!({ "customer": { "id": id }, "externalCustomerId": format!("renamed-{round}") });
        for key in [json!(format!("r-{round}")), json!(null)] {
            let mut input = input.clone();
            input["idempotencyKey"] = key.clone();
            let renames = (0..20).map(|_| app.graphql(&operator, UPDATE, json!({ "input": input })));
            let payloads: Vec<_> =
                join_all(renames).await.iter().map(|answer| answer.payload("updateCustomer")).collect();
            let done = payloads.iter().filter(|payload| payload["replayed"] == false).count();
            assert_eq!(done, if key.is_null() { 20 } else { 1 });
        }
    }
});

both!(concurrent_repeats_by_the_platform_are_applied_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let mut ids = Vec::new();
    for name in ["ada", "grace", "eve"] {
        let data = json!({ "email": format!("{name}@example.com") });
        ids.push(app.created(&operator, name, data).await["customer"]["id"].clone());
    }
    let phone = "+14155552671";
    app.updated(&operator, json!({ "id": ids[2] }), json!({ "phone": phone })).await;
    let customer = json!({ "externalCustomerId": "ada" });
    let verification = json!({ "id": ids[1], "field": "PHONE", "value": phone, "verifiedAt": "2026-11-20T12:00:00Z", "takeOver": true });
    for (field, input_type, selection, input, entries) in [
        (
            "disconnectCustomer",
            "DisconnectCustomerInput",
            "customerId",
            json!({ "customer": customer, "reason": "ENDED", "operatorId": operator.operator }),
            1,
        ),
        // One entry for the customer that loses the phone, and one for the customer that gets it.
        ("recordVerification", "RecordVerificationInput", "customer { id phone version }", verification, 2),
        ("eraseCustomer", "EraseCustomerInput", "erasure { id }", json!({ "id": ids[0], "reference": "x" }), 1),
    ] {
        let query = format!("mutation ($input: {input_type}!) {{ {field}(input: $input) {{ replayed {selection} }} }}");
        let mut input = input;
        input["idempotencyKey"] = json!(field);
        let before = app.count_rows("customer_event").await;
        let platform = app.platform();
        let sent = (0..20).map(|_| app.graphql(&platform, &query, json!({ "input": input })));
        let payloads: Vec<_> = join_all(sent).await.iter().map(|answer| answer.payload(field)).collect();
        let (first, repeated): (Vec<_>, Vec<_>) =
            payloads.into_iter().partition(|payload| payload["replayed"] == false);
        assert_eq!(first.len(), 1, "{field}");
        assert!(repeated.into_iter().all(|payload| first_payload(payload) == first[0]), "{field}");
        assert_eq!(app.count_rows("customer_event").await - before, entries, "{field}");
    }
});

both!(an_expired_key_is_unused_even_before_it_is_deleted, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com" });
    create(app, &operator, "k", "1", data.clone()).await.payload("createCustomer");
    assert_eq!(vivamo::service::idempotency::delete_expired_results(&app.database).await.unwrap(), 0);
    let past = app.past();
    app.execute(&format!("UPDATE idempotency_key SET expires_at = {past}")).await;
    // The create is a new request, which is rejected because the customer exists.
    assert_eq!(create(app, &operator, "k", "1", data).await.codes(), ["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"]);
    let update_done = update(app, &operator, "k", "1", json!({ "firstName": "Ada" })).await.payload("updateCustomer");
    assert_eq!(update_done["replayed"], false);
    app.execute(&format!("UPDATE idempotency_key SET expires_at = {past}")).await;
    assert_eq!(vivamo::service::idempotency::delete_expired_results(&app.database).await.unwrap(), 1);
    assert_eq!(app.count_rows("idempotency_key").await, 0);
});

both!(stored_keys_contain_no_personal_data, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "grace@example.com", "phone": "+14155552671", "firstName": "Grace" });
    create(app, &operator, "grace@example.com", "user-1", data).await.payload("createCustomer");
    let rows = entity::idempotency_key::Entity::find().all(app.database.reader()).await.unwrap();
    let text = format!("{rows:?}");
    assert_eq!(rows.len(), 1);
    // The test uses no short name such as `ada`, because an id in the row could contain a short name by chance.
    for personal in ["grace", "Grace", "4155552671", "user-1"] {
        assert!(!text.contains(personal), "{text}");
    }
    assert_eq!((rows[0].key_hash.len(), rows[0].input_hash.len()), (32, 32));
    let hours = (rows[0].expires_at - vivamo::service::now()).to_std().unwrap();
    assert!(hours > Duration::from_secs(23 * 3600) && hours < Duration::from_secs(25 * 3600));
});
