//! `changes`: the feed of what happened to the customers of an operator.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::OperatorId;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use vivamo::database::DatabaseTimeouts;
use vivamo::keyed_hash::KeyedHasher;
use vivamo::open::{DatabaseSettings, PendingMigrations, open};
use vivamo::service::{Caller, RequestInfo, ServiceSettings, now};

use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, both, run};

const CHANGES: &str = "query ($first: Int! = 100, $after: String, $types: [ChangeType!]) { \
    changes(first: $first, after: $after, types: $types) { cursor hasMore changes { \
    id type occurredAt customerId externalCustomerId version changedFields own customer { id } } } }";

async fn read(app: &TestApp, caller: &TestCaller, variables: Value) -> Answer {
    app.graphql(caller, CHANGES, variables).await
}

/// Follows the feed to its end, in pages of this size. Returns the changes, and the cursor of the end.
async fn follow(app: &TestApp, caller: &TestCaller, first: usize, after: Value, types: Value) -> (Vec<Value>, Value) {
    app.wait_for_feed().await;
    let (mut changes, mut cursor) = (Vec::new(), after);
    loop {
        let page = read(app, caller, json!({ "first": first, "after": cursor, "types": types })).await;
        let page = page.data()["changes"].clone();
        changes.extend(page["changes"].as_array().unwrap().iter().cloned());
        cursor = page["cursor"].clone();
        if page["hasMore"] == false {
            return (changes, cursor);
        }
    }
}

/// The whole feed of a caller.
async fn feed(app: &TestApp, caller: &TestCaller) -> Vec<Value> {
    follow(app, caller, 100, json!(null), json!(null)).await.0
}

/// The parts of changes that the tests compare.
fn summary(changes: &[Value]) -> Vec<Value> {
    let fields = ["type", "version", "changedFields", "own", "externalCustomerId"];
    changes.iter().map(|change| fields.iter().map(|field| change[field].clone()).collect()).collect()
}

async fn mutate(app: &TestApp, caller: &TestCaller, name: &str, input: Value) -> Value {
    let kind = format!("{}{}Input", name[..1].to_uppercase(), &name[1..]);
    let query = format!("mutation ($input: {kind}!) {{ {name}(input: $input) {{ replayed }} }}");
    app.graphql(caller, &query, json!({ "input": input })).await.payload(name)
}

both!(each_reader_sees_what_it_may_know, Sandbox, async |app| {
    let (a, b, c) = (app.operator("A").await, app.operator("B").await, app.operator("C").await);
    let platform = app.platform();
    let email = json!({ "email": "ada@example.com" });
    let id = app.created(&a, "a-1", email.clone()).await["customer"]["id"].clone();
    app.created(&b, "b-1", json!({ "email": "ada@example.com", "lastName": "Lovelace" })).await;
    app.created(&c, "c-1", email).await;
    app.updated(&a, json!({ "id": id }), json!({ "firstName": "Ada", "phone": "+14155552671" })).await;
    app.updated(&platform, json!({ "id": id }), json!({ "firstName": "Grace" })).await;
    // This update changes nothing, so the feed gets no change.
    app.updated(&a, json!({ "id": id }), json!({ "firstName": "Grace" })).await;
    let both = json!({ "customer": { "id": id }, "externalCustomerId": "b-2", "data": { "lastName": "Hopper" } });
    mutate(app, &b, "updateCustomer", both).await;
    let verified = |id: &Value, phone: &str, take_over: bool| {
        json!({
            "id": id, "field": "PHONE", "value": phone, "verifiedAt": "2026-11-20T12:00:00Z", "takeOver": take_over,
        })
    };
    mutate(app, &platform, "recordVerification", verified(&id, "+14155552671", false)).await;
    let end = |id: &str| json!({ "customer": { "externalCustomerId": id }, "reason": "MISTAKE" });
    mutate(app, &b, "disconnectCustomer", end("b-2")).await;
    let by_platform = json!({ "customer": { "id": id }, "reason": "ENDED", "operatorId": c.operator });
    mutate(app, &platform, "disconnectCustomer", by_platform).await;
    app.updated(&a, json!({ "id": id }), json!({ "address": null, "lastName": null })).await;

    let name = |name: &str| json!([name]);
    let (none, first, last) = (json!([]), name("FIRST_NAME"), name("LAST_NAME"));
    let both = json!(["FIRST_NAME", "PHONE"]);
    assert_eq!(
        summary(&feed(app, &a).await),
        [
            json!(["CREATED", 1, ["EMAIL"], true, "a-1"]),
            json!(["UPDATED", 2, last, false, "a-1"]),
            json!(["UPDATED", 3, both, true, "a-1"]),
            json!(["UPDATED", 4, first, false, "a-1"]),
            json!(["UPDATED", 5, last, false, "a-1"]),
            json!(["VERIFIED", 5, none, false, "a-1"]),
            json!(["UPDATED", 6, last, true, "a-1"]),
        ]
    );
    assert_eq!(
        summary(&feed(app, &b).await),
        [
            json!(["CONNECTED", 2, last, true, "b-1"]),
            json!(["UPDATED", 3, both, false, "b-1"]),
            json!(["UPDATED", 4, first, false, "b-1"]),
            json!(["UPDATED", 5, last, true, "b-1"]),
            json!(["EXTERNAL_CUSTOMER_ID_CHANGED", 5, none, true, "b-2"]),
            json!(["VERIFIED", 5, none, false, "b-2"]),
            json!(["DISCONNECTED", 5, none, true, "b-2"]),
        ]
    );
    assert_eq!(
        summary(&feed(app, &c).await),
        [
            json!(["CONNECTED", 2, none, true, "c-1"]),
            json!(["UPDATED", 3, both, false, "c-1"]),
            json!(["UPDATED", 4, first, false, "c-1"]),
            json!(["UPDATED", 5, last, false, "c-1"]),
            json!(["VERIFIED", 5, none, false, "c-1"]),
            json!(["DISCONNECTED", 5, none, false, "c-1"]),
        ]
    );
    let of_platform = [
        ("CREATED", 1, name("EMAIL"), false),
        ("CONNECTED", 2, last.clone(), false),
        ("CONNECTED", 2, none.clone(), false),
        ("UPDATED", 3, both, false),
        ("UPDATED", 4, first, true),
        ("UPDATED", 5, last.clone(), false),
        ("EXTERNAL_CUSTOMER_ID_CHANGED", 5, none.clone(), false),
        ("VERIFIED", 5, none.clone(), true),
        ("DISCONNECTED", 5, none.clone(), false),
        ("DISCONNECTED", 5, none, true),
        ("UPDATED", 6, last, false),
    ];
    let of_platform =
        of_platform.map(|(r#type, version, fields, own)| json!([r#type, version, fields, own, Value::Null]));
    assert_eq!(summary(&feed(app, &platform).await), of_platform);

    // Only a caller that can still see the customer gets the record of the customer.
    for (caller, sees) in [(&a, true), (&b, false), (&c, false), (&platform, true)] {
        let expected = if sees { json!({ "id": id }) } else { json!(null) };
        assert!(feed(app, caller).await.iter().all(|change| change["customer"] == expected));
    }
    // Each change has the id and the time of its history entry.
    let history = "query ($id: ID!) { customer(by: { id: $id }) { history(first: 100) { nodes { id occurredAt } } } }";
    for caller in [&a, &platform] {
        let entries = app.graphql(caller, history, json!({ "id": id })).await;
        let entries = entries.data()["customer"]["history"]["nodes"].as_array().cloned().unwrap();
        let changes = feed(app, caller).await.into_iter();
        let changes = changes.map(|change| json!({ "id": change["id"], "occurredAt": change["occurredAt"] }));
        assert_eq!(changes.collect::<Vec<_>>(), entries);
    }
});

both!(a_takeover_is_a_change_of_both_customers, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "holder", json!({ "email": "one@example.com", "phone": "+14155552671" })).await;
    let winner = app.created(&b, "winner", json!({ "email": "two@example.com" })).await["customer"]["id"].clone();
    let input = json!({
        "id": winner, "field": "PHONE", "value": "+14155552671", "verifiedAt": "2026-11-20T12:00:00Z",
        "takeOver": true,
    });
    mutate(app, &app.platform(), "recordVerification", input).await;
    assert_eq!(summary(&feed(app, &a).await)[1..], [json!(["UPDATED", 2, ["PHONE"], false, "holder"])]);
    assert_eq!(summary(&feed(app, &b).await)[1..], [json!(["VERIFIED", 2, ["PHONE"], false, "winner"])]);
});

both!(an_erasure_removes_the_external_ids_of_earlier_changes, Sandbox, async |app| {
    let (a, b, c) = (app.operator("A").await, app.operator("B").await, app.operator("C").await);
    let email = json!({ "email": "ada@example.com" });
    let id = app.created(&a, "a-1", email.clone()).await["customer"]["id"].clone();
    app.created(&b, "b-1", email.clone()).await;
    app.created(&c, "c-1", email).await;
    app.created(&a, "other", json!({ "email": "other@example.com" })).await;
    let ended = json!({ "customer": { "externalCustomerId": "c-1" }, "reason": "ENDED" });
    mutate(app, &c, "disconnectCustomer", ended).await;
    mutate(app, &app.platform(), "eraseCustomer", json!({ "id": id, "reference": "Case 7" })).await;
    assert_eq!(
        summary(&feed(app, &a).await),
        [
            json!(["CREATED", 1, ["EMAIL"], true, null]),
            json!(["CREATED", 1, ["EMAIL"], true, "other"]),
            json!(["ERASED", 1, [], false, "a-1"]),
        ]
    );
    let of_b = feed(app, &b).await;
    assert_eq!(summary(&of_b), [json!(["CONNECTED", 1, [], true, null]), json!(["ERASED", 1, [], false, "b-1"])]);
    assert!(of_b.iter().all(|change| change["customer"].is_null() && change["customerId"] == id));
    let of_c = summary(&feed(app, &c).await);
    assert_eq!(of_c, [json!(["CONNECTED", 1, [], true, null]), json!(["DISCONNECTED", 1, [], true, null])]);
    let of_platform = summary(&feed(app, &app.platform()).await);
    assert_eq!(of_platform.last(), Some(&json!(["ERASED", 1, [], true, null])));
});

both!(a_cursor_continues_where_the_last_response_ended, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let empty = read(app, &a, json!({})).await.data()["changes"].clone();
    assert_eq!((&empty["changes"], &empty["hasMore"]), (&json!([]), &json!(false)));
    for number in 0..5 {
        app.created(&a, &format!("{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
    app.created(&b, "1", json!({ "email": "1@example.com", "firstName": "Ada" })).await;
    let all = feed(app, &a).await;
    assert_eq!(all.len(), 6);
    for first in [1, 2, 3, 6] {
        let (changes, end) = follow(app, &a, first, json!(null), json!(null)).await;
        assert_eq!(changes, all);
        assert_eq!(follow(app, &a, first, empty["cursor"].clone(), json!(null)).await, (changes, end.clone()));
        assert_eq!(follow(app, &a, first, end.clone(), json!(null)).await, (Vec::new(), end));
    }

    // The cursor of the end skips all earlier changes.
    let viewer = "{ viewer { changesCursor } }";
    let end = app.query(&a, viewer).await["viewer"]["changesCursor"].clone();
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": null })).await;
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "lastName": "Lovelace" })).await;
    let (changes, _) = follow(app, &a, 1, end.clone(), json!(null)).await;
    assert_eq!(changes.iter().map(|change| change["version"].clone()).collect::<Vec<_>>(), [3, 4]);

    // A request with another filter can use the same cursor. The end is the same for all filters.
    let (_, at_end) = follow(app, &a, 2, json!(null), json!(null)).await;
    for types in [json!(["UPDATED"]), json!(["ERASED"]), json!(["CREATED", "UPDATED"]), json!([])] {
        let is_listed = |change: &&Value| types.as_array().unwrap().contains(&change["type"]);
        for first in [1, 100] {
            let (changes, cursor) = follow(app, &a, first, json!(null), types.clone()).await;
            assert_eq!(changes, feed(app, &a).await.iter().filter(is_listed).cloned().collect::<Vec<_>>());
            assert_eq!(cursor, at_end);
            let after = follow(app, &a, first, end.clone(), types.clone()).await.0;
            assert_eq!(after.len(), if types[0] == "UPDATED" || types[1] == "UPDATED" { 2 } else { 0 });
        }
    }

    let invalid = |field: &str| [("INVALID_ARGUMENT", field.to_owned())];
    let of_b = app.query(&b, viewer).await["viewer"]["changesCursor"].clone();
    let of_platform = app.query(&app.platform(), viewer).await["viewer"]["changesCursor"].clone();
    let customers = app.query(&a, "{ customers { pageInfo { endCursor } } }").await;
    let of_list = customers["customers"]["pageInfo"]["endCursor"].clone();
    let damaged = json!(end.as_str().unwrap().replacen(|char: char| char.is_ascii_lowercase(), "-", 1));
    for cursor in [of_b, of_platform, of_list, damaged, json!(""), json!("x")] {
        let answer = read(app, &a, json!({ "after": cursor })).await;
        let [(code, field)] = invalid("after");
        answer.assert_rejected("changes", &[(code, &field)]);
    }
    for first in [0, -1, 101] {
        let [(code, field)] = invalid("first");
        read(app, &a, json!({ "first": first })).await.assert_rejected("changes", &[(code, &field)]);
    }
    let read_only = app.key(&a, Access::ReadOnly).await;
    assert_eq!(feed(app, &read_only).await, feed(app, &a).await);
});

both!(a_filter_by_type_reads_a_bounded_number_of_changes, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let copies = if app.is_postgres() {
        "SELECT reader_id, position, gen_random_uuid(), customer_id, external_customer_id, 'updated', version, \
         changed_fields, own, occurred_at, swept FROM customer_change, generate_series(1, 12000)"
    } else {
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
         SELECT reader_id, position, randomblob(16), customer_id, external_customer_id, 'updated', version, \
         changed_fields, own, occurred_at, swept FROM customer_change, n"
    };
    app.execute(&format!("INSERT INTO customer_change {copies}")).await;
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
    app.wait_for_feed().await;
    let first = read(app, &a, json!({ "types": ["ERASED"] })).await.data()["changes"].clone();
    assert_eq!((&first["changes"], &first["hasMore"]), (&json!([]), &json!(true)));
    let second = read(app, &a, json!({ "types": ["ERASED"], "after": first["cursor"] })).await;
    let second = second.data()["changes"].clone();
    assert_eq!((&second["changes"], &second["hasMore"]), (&json!([]), &json!(false)));
    // The rest of the feed is shorter than the 10,000 changes that a request with a filter checks.
    let (rest, end) = follow(app, &a, 100, first["cursor"].clone(), json!(null)).await;
    assert_eq!((rest.len(), &end), (2_002, &second["cursor"]));
    assert_eq!(rest.last().unwrap()["changedFields"], json!(["FIRST_NAME"]));
});

both!(a_page_with_customers_takes_two_statements, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for number in 0..8 {
        app.created(&own, &format!("{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
    app.created(&other, "1", json!({ "email": "1@example.com", "firstName": "Ada" })).await;
    app.wait_for_feed().await;
    for (caller, count) in [(&own, 9), (&other, 1), (&app.platform(), 9)] {
        let (answer, statements) = app.statements_of(read(app, caller, json!({}))).await;
        let changes = answer.data()["changes"]["changes"].as_array().unwrap().clone();
        assert_eq!((changes.len(), statements.len()), (count, 2), "{statements:#?}");
        assert!(changes.iter().all(|change| change["customer"]["id"] == change["customerId"]));
        let after = json!({ "after": answer.data()["changes"]["cursor"] });
        let (answer, statements) = app.statements_of(read(app, caller, after)).await;
        assert_eq!((&answer.data()["changes"]["changes"], statements.len()), (&json!([]), 1));
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_appears_after_all_changes_with_smaller_positions() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let a = app.operator("A").await;
        app.created(&a, "1", json!({ "email": "one@example.com" })).await;
        app.created(&a, "2", json!({ "email": "two@example.com" })).await;
        let (_, end) = follow(app, &a, 100, json!(null), json!(null)).await;
        let customer = app.customer(&a, json!({ "externalCustomerId": "1" })).await["id"].clone();
        let slow = app.database.begin_write().await.unwrap();
        slow.execute_unprepared("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
        slow.execute_unprepared("SELECT pg_current_xact_id()").await.unwrap();
        app.updated(&a, json!({ "id": customer }), json!({ "firstName": "Ada" })).await;
        let page = read(app, &a, json!({ "after": end })).await.data()["changes"].clone();
        assert_eq!((&page["changes"], &page["hasMore"], &page["cursor"]), (&json!([]), &json!(false), &end));
        let by_viewer = app.query(&a, "{ viewer { changesCursor } }").await["viewer"]["changesCursor"].clone();
        assert_eq!(by_viewer, end);
        let copy = "INSERT INTO customer_change SELECT reader_id, pg_current_xact_id()::text::bigint, gen_random_uuid(), \
                    customer_id, external_customer_id, 'updated', version, changed_fields, own, occurred_at, swept \
                    FROM customer_change WHERE external_customer_id = '2'";
        slow.execute_unprepared(copy).await.unwrap();
        slow.commit().await.unwrap();
        let (changes, _) = follow(app, &a, 100, end, json!(null)).await;
        let ids: Vec<_> = changes.iter().map(|change| change["externalCustomerId"].clone()).collect();
        assert_eq!(ids, ["2", "1"], "the transaction that began first has the smaller position");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_does_not_change_what_a_later_one_has_changed() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let a = app.operator("A").await;
        for number in 0..2 {
            app.created(&a, &format!("{number}"), json!({ "email": format!("{number}@example.com") })).await;
        }
        let (customers, request) = (&app.services.customers, RequestInfo::command_line());
        let operator = OperatorId::parse(&a.operator).unwrap();
        let suspend = "UPDATE operator SET status = 'suspended'";
        app.execute(suspend).await;
        let holder = app.database.begin_write().await.unwrap();
        let lock_first = "SELECT 1 FROM customer WHERE email = '0@example.com' FOR UPDATE";
        holder.execute_unprepared(lock_first).await.unwrap();
        // The transaction of the batch gets its id when it locks the operator. It then waits for the first customer.
        // Meanwhile, the update of the second customer commits with a larger id. The batch must not change the second
        // customer with its smaller id, so it starts again.
        let remove = async { customers.remove_customer_batch(&Caller::Platform, &request, operator, None).await };
        let change_second = async {
            app.wait_until_blocked(1).await;
            let second = app.customer(&app.platform(), json!({ "email": "1@example.com" })).await["id"].clone();
            app.updated(&app.platform(), json!({ "id": second }), json!({ "firstName": "Ada" })).await;
            holder.commit().await.unwrap();
        };
        let (removed, ()) = tokio::join!(remove, change_second);
        assert_eq!(removed.unwrap().len(), 2);
        let changes = feed(app, &app.platform()).await;
        let of_second: Vec<_> =
            changes.iter().filter(|change| change["customerId"] == changes[1]["customerId"]).collect();
        let types: Vec<_> = of_second.iter().map(|change| change["type"].clone()).collect();
        assert_eq!(types, ["CREATED", "UPDATED", "DISCONNECTED"]);
    })
    .await;
}

both!(old_changes_are_deleted_for_each_reader, Sandbox, async |app| {
    let (a, quiet, b) = (app.operator("A").await, app.operator("Quiet").await, app.operator("B").await);
    let sweep = async |time| app.services.feed.sweep(&Caller::Platform, time).await.unwrap().deleted;
    app.created(&quiet, "1", json!({ "email": "quiet@example.com" })).await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let (_, first) = follow(app, &a, 1, json!(null), json!(null)).await;
    for name in ["One", "Two", "Three"] {
        app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": name })).await;
    }
    let (all, end) = follow(app, &a, 1, json!(null), json!(null)).await;
    let (_, end_of_quiet) = follow(app, &quiet, 1, json!(null), json!(null)).await;
    let (_, start_of_b) = follow(app, &b, 1, json!(null), json!(null)).await;
    let time = |change: &Value| change["occurredAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();

    // Nothing is old enough.
    assert_eq!(sweep(time(&all[0]) - TimeDelta::seconds(60)).await, 0);
    assert_eq!(feed(app, &a).await, all);
    // The first two changes of A are old enough.
    sweep(time(&all[2])).await;
    assert_eq!(feed(app, &a).await, all[2..]);
    for types in [json!(null), json!(["UPDATED"]), json!(["ERASED"])] {
        let answer = read(app, &a, json!({ "after": first, "types": types })).await;
        answer.assert_rejected("changes", &[("CURSOR_EXPIRED", "after")]);
    }
    // A read from the start skips the deleted changes. The cursor of the last deleted change stays valid, and so does
    // the start cursor of a feed without changes.
    let (after_second, _) = follow(app, &a, 1, json!(null), json!(null)).await;
    assert_eq!(after_second, all[2..]);
    sweep(now() + TimeDelta::seconds(60)).await;
    for (caller, cursor) in [(&a, &end), (&quiet, &end_of_quiet), (&b, &start_of_b)] {
        assert_eq!(follow(app, caller, 1, cursor.clone(), json!(null)).await, (Vec::new(), cursor.clone()));
        assert_eq!(follow(app, caller, 1, json!(null), json!(null)).await, (Vec::new(), cursor.clone()));
    }
    let expired = read(app, &a, json!({ "after": first })).await;
    expired.assert_rejected("changes", &[("CURSOR_EXPIRED", "after")]);
    // One row of each reader that had changes is left. These rows have no external id.
    assert_eq!(app.count_rows("customer_change").await, 3);
    assert_eq!(app.select_number("SELECT COUNT(external_customer_id) AS n FROM customer_change").await, 0);
    assert_eq!(sweep(now() + TimeDelta::seconds(60)).await, 0);

    // The cursors also find new changes, even for an operator that had no changes when the old changes were deleted.
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Four" })).await;
    app.created(&b, "1", json!({ "email": "ada@example.com" })).await;
    let versions = |changes: Vec<Value>| changes.iter().map(|change| change["version"].clone()).collect::<Vec<_>>();
    assert_eq!(versions(follow(app, &a, 1, end, json!(null)).await.0), [5]);
    assert_eq!(versions(follow(app, &b, 1, start_of_b, json!(null)).await.0), [5]);
});

both!(a_sweep_of_very_many_changes_takes_several_runs, Sandbox, async |app| {
    const COPIES: i64 = 30_000;
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    let id = if app.is_postgres() { "gen_random_uuid()" } else { "randomblob(16)" };
    let copies = format!(
        "INSERT INTO customer_change WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {COPIES}) \
         SELECT reader_id, position, {id}, customer_id, external_customer_id, type, version, changed_fields, own, \
         occurred_at, swept FROM customer_change, n"
    );
    app.execute(&copies).await;
    app.wait_for_feed().await;
    let sweep = async || app.services.feed.sweep(&Caller::Platform, now() + TimeDelta::seconds(60)).await.unwrap();
    let first = sweep().await;
    assert!(first.has_more && (50_000..52_000).contains(&first.deleted), "{first:?}");
    // The sweep deletes the changes of the readers in turn, batch by batch.
    let rows_of_platform = "SELECT COUNT(*) AS n FROM customer_change WHERE external_customer_id IS NULL";
    let left = [app.select_number(rows_of_platform).await, app.count_rows("customer_change").await];
    assert!(left[0] < COPIES / 4 && left[1] - left[0] < COPIES / 4, "{left:?}");
    assert!(!sweep().await.has_more);
    assert_eq!(app.count_rows("customer_change").await, 2);
});

both!(a_sweep_continues_after_the_failure_of_a_reader, Sandbox, async |app| {
    let operators = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    for (number, operator) in operators.iter().enumerate() {
        let id = number.to_string();
        app.created(operator, &id, json!({ "email": format!("{number}@example.com") })).await;
        app.updated(operator, json!({ "externalCustomerId": id }), json!({ "firstName": "Ada" })).await;
    }
    app.wait_for_feed().await;
    let condition = "BEFORE DELETE ON customer_change FOR EACH ROW WHEN (OLD.external_customer_id = '1')";
    let refuse = if app.is_postgres() {
        format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$; \
             CREATE TRIGGER refuse {condition} EXECUTE FUNCTION refuse()"
        )
    } else {
        format!("CREATE TRIGGER refuse {condition} BEGIN SELECT RAISE(ABORT, 'refused'); END")
    };
    app.execute(&refuse).await;
    let sweep = async || app.services.feed.sweep(&Caller::Platform, now() + TimeDelta::seconds(60)).await;
    assert!(sweep().await.is_err());
    // Both rows of B are left, and one row of each of the three other readers.
    assert_eq!(app.count_rows("customer_change").await, 3 + 2);
    let drop = if app.is_postgres() { "DROP TRIGGER refuse ON customer_change" } else { "DROP TRIGGER refuse" };
    app.execute(drop).await;
    assert_eq!(sweep().await.unwrap().deleted, 1);
});

both!(a_cursor_from_after_the_backup_is_rejected, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
    let (_, end) = follow(app, &a, 1, json!(null), json!(null)).await;
    for lost in ["DELETE FROM customer_change WHERE version = 2", "DELETE FROM customer_event WHERE version = 2"] {
        app.execute(lost).await;
    }
    app.execute("UPDATE customer SET version = 1").await;
    let answer = read(app, &a, json!({ "after": end })).await;
    answer.assert_rejected("changes", &[("CURSOR_EXPIRED", "after")]);
    // The feed passes the cursor. The reader has not seen the change before the cursor.
    for name in ["Grace", "Alan"] {
        app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": name })).await;
        let answer = read(app, &a, json!({ "after": end })).await;
        answer.assert_rejected("changes", &[("CURSOR_EXPIRED", "after")]);
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_restored_into_a_younger_server() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let a = app.operator("A").await;
        app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
        // Sets the positions that a server with more transactions would have given.
        let restore = "UPDATE customer_change SET position = position + 1000000000";
        app.execute(restore).await;
        let open = async |pending_migrations| {
            let url = app.database_url().to_owned();
            let timeouts = DatabaseTimeouts::default();
            let startup_wait = Duration::ZERO;
            let settings = DatabaseSettings { url, pending_migrations, startup_wait, timeouts, observer: None };
            open(settings, ServiceSettings::new(Environment::Sandbox, KeyedHasher::new(KEY_SECRET))).await
        };
        let failure = open(PendingMigrations::Reject).await.err().unwrap().to_string();
        assert!(failure.contains("`vivamo migrate`"), "{failure}");
        open(PendingMigrations::Apply).await.unwrap().database.close().await;
        open(PendingMigrations::Reject).await.unwrap().database.close().await;
        let (stored, end) = follow(app, &a, 1, json!(null), json!(null)).await;
        assert_eq!(stored.len(), 1);
        app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
        let (changes, _) = follow(app, &a, 1, end, json!(null)).await;
        assert_eq!(changes.iter().map(|change| change["version"].clone()).collect::<Vec<_>>(), [2]);
    })
    .await;
}

both!(the_lag_is_the_age_of_the_oldest_change_that_is_not_shown, Sandbox, async |app| {
    let a = app.operator("A").await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.wait_for_feed().await;
    assert_eq!(app.services.feed.lag().await.unwrap(), TimeDelta::zero());
    if !app.is_postgres() {
        return;
    }
    let slow = app.database.begin_write().await.unwrap();
    slow.execute_unprepared("SELECT pg_current_xact_id()").await.unwrap();
    app.updated(&a, json!({ "externalCustomerId": "1" }), json!({ "firstName": "Ada" })).await;
    assert!(app.services.feed.lag().await.unwrap() > TimeDelta::zero());
    slow.commit().await.unwrap();
    app.wait_for_feed().await;
    assert_eq!(app.services.feed.lag().await.unwrap(), TimeDelta::zero());
});

/// Reads with the cursor of a deleted change, and returns the error codes of the answer.
pub async fn codes_of_an_expired_cursor(app: &TestApp, own: &TestCaller) -> Vec<String> {
    app.created(own, "expired", json!({ "email": "expired@example.com" })).await;
    let (_, start) = follow(app, own, 1, json!(null), json!(null)).await;
    app.updated(own, json!({ "externalCustomerId": "expired" }), json!({ "firstName": "Ada" })).await;
    app.wait_for_feed().await;
    app.services.feed.sweep(&Caller::Platform, now() + TimeDelta::seconds(60)).await.unwrap();
    read(app, own, json!({ "after": start })).await.codes()
}
