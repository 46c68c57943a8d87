//! Webhook endpoints: creation, changes, secrets, limits, visibility and the audit log.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use entity::api_key::Access;
use entity::value::WebhookId;
use entity::webhook;
use futures::future::join_all;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};
use vivamo::service::{Caller, now};

use support::{Answer, TestApp, TestCaller, both};

const CREATE: &str = "mutation ($input: CreateWebhookInput!) { createWebhook(input: $input) { secret webhook { \
                      id url types enabled disabledAt createdAt secretCreatedAt previousSecretUntil \
                      failingSince lastAttemptAt lastStatus lastFailure nextAttemptAt operator { id } } } }";
const UPDATE: &str = "mutation ($input: UpdateWebhookInput!) { updateWebhook(input: $input) { webhook { \
                      id url types enabled disabledAt cursor failingSince nextAttemptAt } } }";
const ROTATE: &str = "mutation ($input: RotateWebhookSecretInput!) { rotateWebhookSecret(input: $input) { \
                      secret webhook { id secretCreatedAt previousSecretUntil } } }";
const DELETE: &str = "mutation ($id: ID!) { deleteWebhook(input: { id: $id }) { webhookId } }";
const LIST: &str = "{ webhooks { nodes { id url } } }";
const BY_ID: &str = "query ($id: ID!) { webhook(id: $id) { id url } node(id: $id) { id } }";
const UNKNOWN_ID: &str = "wh_01h455vb4pex5vsknk084sn02q";

/// Sends a `createWebhook`.
pub async fn create(app: &TestApp, caller: &TestCaller, url: &str) -> Answer {
    app.graphql(caller, CREATE, json!({ "input": { "url": url } })).await
}

/// Sends a `createWebhook` that must succeed, and returns its payload.
pub async fn created(app: &TestApp, caller: &TestCaller) -> Value {
    create(app, caller, "https://receiver.example/hook?token=tok-4713").await.payload("createWebhook")
}

/// Sends an `updateWebhook`.
async fn update(app: &TestApp, caller: &TestCaller, id: &Value, changes: Value) -> Answer {
    let mut input = changes;
    input["id"] = id.clone();
    app.graphql(caller, UPDATE, json!({ "input": input })).await
}

async fn updated(app: &TestApp, caller: &TestCaller, id: &Value, changes: Value) -> Value {
    update(app, caller, id, changes).await.payload("updateWebhook")["webhook"].clone()
}

/// Sends a `rotateWebhookSecret` that must succeed, and returns its payload.
async fn rotated(app: &TestApp, caller: &TestCaller, id: &Value, overlap_hours: Option<i32>) -> Value {
    let input = match overlap_hours {
        Some(hours) => json!({ "id": id, "overlapHours": hours }),
        None => json!({ "id": id }),
    };
    app.graphql(caller, ROTATE, json!({ "input": input })).await.payload("rotateWebhookSecret")
}

async fn delete(app: &TestApp, caller: &TestCaller, id: &Value) -> Answer {
    app.graphql(caller, DELETE, json!({ "id": id })).await
}

/// The endpoints that a caller sees in the list.
async fn list(app: &TestApp, caller: &TestCaller) -> Vec<Value> {
    app.query(caller, LIST).await["webhooks"]["nodes"].as_array().unwrap().clone()
}

/// The stored row of an endpoint.
async fn row(app: &TestApp, id: &Value) -> webhook::Model {
    let id = WebhookId::parse(id.as_str().unwrap()).unwrap();
    webhook::Entity::find_by_id(id).one(app.database.reader()).await.unwrap().unwrap()
}

/// The texts of the secrets that sign the deliveries to an endpoint at this time.
async fn secrets(app: &TestApp, id: &Value, at: DateTime<Utc>) -> Vec<String> {
    use secrecy::ExposeSecret;
    let secrets = app.services.webhooks.secrets(&row(app, id).await, at);
    secrets.iter().map(|secret| secret.to_text().expose_secret().to_owned()).collect()
}

/// Sets columns of all endpoints.
async fn set(app: &TestApp, columns: &str) {
    app.execute(&format!("UPDATE webhook SET {columns}")).await;
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

both!(an_operator_creates_changes_and_deletes_endpoints, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let before = now();
    let payload =
        create(app, &own, " HTTPS://Receiver.example:443/hook?token=tok-4713 ").await.payload("createWebhook");
    let webhook = &payload["webhook"];
    assert!(payload["secret"].as_str().unwrap().starts_with("whsec_"));
    assert!(webhook["id"].as_str().unwrap().starts_with("wh_"));
    assert!((before..=now()).contains(&time(&webhook["createdAt"])));
    let null = Value::Null;
    let expected = json!({
        "id": webhook["id"], "url": "https://receiver.example/hook?token=tok-4713", "types": null, "enabled": true, "disabledAt": null,
        "createdAt": webhook["createdAt"], "secretCreatedAt": webhook["createdAt"], "previousSecretUntil": null,
        "failingSince": null, "lastAttemptAt": null, "lastStatus": null, "lastFailure": null, "nextAttemptAt": null,
        "operator": { "id": own.operator },
    });
    assert_eq!(*webhook, expected);
    let id = &webhook["id"];

    let second = created(app, &own).await["webhook"]["id"].clone();
    let ids: Vec<_> = list(app, &own).await.iter().map(|webhook| webhook["id"].clone()).collect();
    assert_eq!(ids, [id.clone(), second.clone()]);
    let found = app.graphql(&own, BY_ID, json!({ "id": id })).await.data().clone();
    assert_eq!((&found["webhook"]["url"], &found["node"]["id"]), (&expected["url"], id));

    let changed = updated(app, &own, id, json!({ "url": "http://receiver.example/other" })).await;
    assert_eq!((&changed["url"], &changed["enabled"]), (&json!("http://receiver.example/other"), &json!(true)));
    let disabled = updated(app, &own, id, json!({ "enabled": false })).await;
    assert_eq!((&disabled["enabled"], disabled["disabledAt"].is_string()), (&json!(false), true));
    // An endpoint that is already disabled keeps its `disabledAt`.
    assert_eq!(updated(app, &own, id, json!({ "enabled": false })).await, disabled);
    assert_eq!(updated(app, &own, id, json!({})).await, disabled);
    let enabled = updated(app, &own, id, json!({ "enabled": true })).await;
    assert_eq!((&enabled["enabled"], &enabled["disabledAt"]), (&json!(true), &null));

    assert_eq!(delete(app, &own, id).await.payload("deleteWebhook"), json!({ "webhookId": id }));
    delete(app, &own, id).await.assert_rejected("deleteWebhook", &[("WEBHOOK_NOT_FOUND", "input.id")]);
    assert_eq!(list(app, &own).await.len(), 1);
    assert_eq!(app.graphql(&own, BY_ID, json!({ "id": id })).await.data(), &json!({ "webhook": null, "node": null }));
    assert!(!app.log().contains("tok-4713"));
});

both!(invalid_input_is_rejected_with_its_path, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let id = created(app, &own).await["webhook"]["id"].clone();
    let too_long = format!("https://receiver.example/{}", "x".repeat(2000));
    for (url, reason) in [
        ("", "it is empty."),
        ("receiver.example", "it must be an absolute URL that starts with https:// or http://, for example"),
        ("ftp://receiver.example/", "it must be an absolute URL that starts with https:// or http://, for example"),
        ("https://user:tok-4713@receiver.example/", "it contains a user name or a password."),
        ("https://receiver.example/#top", "it contains a fragment, that is, a # and the text after it."),
        (&too_long, "it is longer than 2000 characters."),
        ("http://localhost:8000/", "it has a host that is not reachable from the internet"),
        ("https://10.0.0.1/", "it has a host that is not reachable from the internet"),
        ("https://2130706433/", "it has a host that is not reachable from the internet"),
        ("https://0177.1/", "it has a host that is not reachable from the internet"),
        ("https://[::1]/", "it has a host that is not reachable from the internet"),
        ("https://[::ffff:169.254.169.254]/latest/meta-data", "it has a host that is not reachable from the internet"),
    ] {
        let answers = [
            (create(app, &own, url).await, "createWebhook"),
            (update(app, &own, &id, json!({ "url": url })).await, "updateWebhook"),
        ];
        for (answer, field) in answers {
            answer.assert_rejected(field, &[("INVALID_URL", "input.url")]);
            assert!(answer.message().starts_with(&format!("The URL is not valid: {reason}")), "{}", answer.message());
        }
    }
    for (changes, errors) in [
        (json!({ "url": null }), vec![("INVALID_URL", "input.url")]),
        (json!({ "enabled": null }), vec![("INVALID_ARGUMENT", "input.enabled")]),
        (json!({ "types": [] }), vec![("INVALID_ARGUMENT", "input.types")]),
        (json!({ "deliverFrom": { "cursor": "x" } }), vec![("INVALID_ARGUMENT", "input.deliverFrom.cursor")]),
        (
            json!({ "deliverFrom": { "time": "0001-01-01T00:00:00+01:00" } }),
            vec![("INVALID_ARGUMENT", "input.deliverFrom.time")],
        ),
        (
            json!({ "url": "x", "enabled": null }),
            vec![("INVALID_URL", "input.url"), ("INVALID_ARGUMENT", "input.enabled")],
        ),
        (
            json!({ "url": "https://10.0.0.1/", "types": [], "deliverFrom": { "time": "0001-01-01T00:00:00+01:00" } }),
            vec![
                ("INVALID_URL", "input.url"),
                ("INVALID_ARGUMENT", "input.types"),
                ("INVALID_ARGUMENT", "input.deliverFrom.time"),
            ],
        ),
    ] {
        update(app, &own, &id, changes).await.assert_rejected("updateWebhook", &errors);
    }
    for overlap in [-1, 169] {
        let answer = app.graphql(&own, ROTATE, json!({ "input": { "id": id, "overlapHours": overlap } })).await;
        answer.assert_rejected("rotateWebhookSecret", &[("INVALID_ARGUMENT", "input.overlapHours")]);
    }
    let input = json!({ "input": { "url": "https://10.0.0.1/", "types": [] } });
    let answer = app.graphql(&own, CREATE, input).await;
    let errors = [("INVALID_ARGUMENT", "input.types"), ("INVALID_URL", "input.url")];
    answer.assert_rejected("createWebhook", &errors);
    let with_operator = json!({ "input": { "url": "https://receiver.example/", "operatorId": own.operator } });
    let answer = app.graphql(&own, CREATE, with_operator).await;
    answer.assert_rejected("createWebhook", &[("INVALID_ARGUMENT", "input.operatorId")]);
    assert_eq!(app.count_rows("webhook").await, 1);
    assert!(!app.log().contains("tok-4713"));
});

both!(production_requires_https, Production, async |app| {
    let own = app.operator("Own").await;
    let answer = create(app, &own, "http://receiver.example/").await;
    answer.assert_rejected("createWebhook", &[("INVALID_URL", "input.url")]);
    assert_eq!(answer.message(), "The URL is not valid: it must start with https:// in production.");
    created(app, &own).await;
});

both!(an_operator_has_at_most_five_endpoints, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let answers = join_all((0..12).map(|_| create(app, &own, "https://receiver.example/"))).await;
    let codes: Vec<_> = answers.iter().flat_map(|answer| answer.codes()).collect();
    assert_eq!(codes, vec!["TOO_MANY_WEBHOOKS"; 7]);
    assert_eq!(app.count_rows("webhook").await, 5);
    // The limit applies to each operator separately. A deleted endpoint does not count.
    created(app, &other).await;
    let id = list(app, &own).await[0]["id"].clone();
    delete(app, &own, &id).await.payload("deleteWebhook");
    created(app, &own).await;
});

both!(endpoints_of_other_operators_look_like_unknown_ones, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let id = created(app, &other).await["webhook"]["id"].clone();
    created(app, &own).await;
    let input = |id: &Value| json!({ "input": { "id": id } });
    let without_request_id = |answer: Answer| {
        let mut body = answer.body;
        for error in body["errors"].as_array_mut().into_iter().flatten() {
            error["extensions"]["requestId"].take();
        }
        body
    };
    for (document, foreign, unknown) in [
        (BY_ID, json!({ "id": id }), json!({ "id": UNKNOWN_ID })),
        (UPDATE, input(&id), input(&json!(UNKNOWN_ID))),
        (ROTATE, input(&id), input(&json!(UNKNOWN_ID))),
        (DELETE, json!({ "id": id }), json!({ "id": UNKNOWN_ID })),
    ] {
        let (foreign, sql_of_foreign) = app.statements_of(app.graphql(&own, document, foreign)).await;
        let (unknown, sql_of_unknown) = app.statements_of(app.graphql(&own, document, unknown)).await;
        assert_eq!(without_request_id(foreign), without_request_id(unknown), "{document}");
        assert_eq!(sql_of_foreign, sql_of_unknown, "{document}");
    }
    assert_eq!(list(app, &own).await.len(), 1);
    for malformed in ["", "wh_x", "cus_01h455vb4pex5vsknk084sn02q"] {
        let answer = delete(app, &own, &json!(malformed)).await;
        answer.assert_rejected("deleteWebhook", &[("WEBHOOK_NOT_FOUND", "input.id")]);
    }
    assert_eq!(row(app, &id).await.secret_version, 1);
});

both!(a_read_only_key_sees_endpoints_without_their_urls, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let reader = app.key(&own, Access::ReadOnly).await;
    let id = created(app, &own).await["webhook"]["id"].clone();
    assert_eq!(list(app, &reader).await, [json!({ "id": id, "url": null })]);
    let answer = app.graphql(&reader, BY_ID, json!({ "id": id })).await;
    assert_eq!(answer.data()["webhook"], json!({ "id": id, "url": null }));
    // The mutations are rejected before their input is read.
    let input = json!({ "input": { "id": "x" } });
    for (document, variables) in [
        (CREATE, json!({ "input": { "url": "x" } })),
        (UPDATE, input.clone()),
        (ROTATE, input),
        (DELETE, json!({ "id": "x" })),
    ] {
        assert_eq!(app.graphql(&reader, document, variables).await.codes(), ["FORBIDDEN"], "{document}");
    }
});

both!(the_platform_manages_the_endpoints_of_all_operators, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let platform = app.platform();
    create(app, &platform, "https://receiver.example/")
        .await
        .assert_rejected("createWebhook", &[("INVALID_ARGUMENT", "input.operatorId")]);
    let input = |operator: &str| json!({ "input": { "url": "https://receiver.example/", "operatorId": operator } });
    for unknown in ["op_x", "op_01h455vb4pex5vsknk084sn02q"] {
        let answer = app.graphql(&platform, CREATE, input(unknown)).await;
        answer.assert_rejected("createWebhook", &[("OPERATOR_NOT_FOUND", "input.operatorId")]);
    }
    let payload = app.graphql(&platform, CREATE, input(&own.operator)).await.payload("createWebhook");
    let id = payload["webhook"]["id"].clone();
    assert_eq!(payload["webhook"]["operator"]["id"], own.operator);
    assert_eq!(list(app, &own).await, [json!({ "id": id, "url": "https://receiver.example/" })]);
    let second = created(app, &other).await["webhook"]["id"].clone();
    let query = "{ webhooks(first: 1) { nodes { operator { id } } pageInfo { hasNextPage } } }";
    let page = app.query(&platform, query).await["webhooks"].clone();
    assert_eq!(page, json!({ "nodes": [{ "operator": { "id": own.operator } }], "pageInfo": { "hasNextPage": true } }));
    assert_eq!(updated(app, &platform, &second, json!({ "enabled": false })).await["enabled"], false);
    rotated(app, &platform, &second, None).await;
    delete(app, &platform, &second).await.payload("deleteWebhook");
    assert_eq!(list(app, &other).await, Vec::<Value>::new());
});

both!(a_rotation_keeps_the_previous_secret_for_some_time, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let payload = created(app, &own).await;
    let (id, first) = (&payload["webhook"]["id"], &payload["secret"]);
    assert_eq!(secrets(app, id, now()).await, [first.as_str().unwrap()]);
    let other = created(app, &own).await;
    assert_ne!(other["secret"], *first);

    let second = rotated(app, &own, id, None).await;
    let until = time(&second["webhook"]["previousSecretUntil"]);
    assert_eq!(until - time(&second["webhook"]["secretCreatedAt"]), TimeDelta::hours(24));
    let [first, second] = [first, &second["secret"]].map(|secret| secret.as_str().unwrap().to_owned());
    assert_eq!(secrets(app, id, now()).await, [second.clone(), first.clone()]);
    assert_eq!(secrets(app, id, until - TimeDelta::seconds(1)).await.len(), 2);
    assert_eq!(secrets(app, id, until).await, [second.as_str()]);

    // At most the two newest secrets are in use. With an overlap of 0 hours, only the newest secret is in use.
    let third = rotated(app, &own, id, Some(168)).await["secret"].as_str().unwrap().to_owned();
    assert_eq!(secrets(app, id, now()).await, [third.clone(), second.clone()]);
    let fourth = rotated(app, &own, id, Some(0)).await["secret"].as_str().unwrap().to_owned();
    assert_eq!(secrets(app, id, now()).await, [fourth.as_str()]);
    assert_eq!(BTreeSet::from([first, second, third, fourth]).len(), 4);
    assert!(!app.log().contains("whsec_"));
});

both!(an_endpoint_that_is_enabled_or_gets_a_url_or_position_is_due_at_once, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let id = created(app, &own).await["webhook"]["id"].clone();
    let failing = "failed_attempts = 7, failing_since = '2026-01-01 00:00:00+00:00', \
                   next_attempt_at = '2100-01-01 00:00:00+00:00', sending_position = 1, delivered_position = 0";
    set(app, failing).await;
    let seen =
        app.graphql(&own, "query ($id: ID!) { webhook(id: $id) { failingSince nextAttemptAt } }", json!({ "id": id }));
    let failing_since = json!("2026-01-01T00:00:00.000000+00:00");
    let expected = json!({ "failingSince": failing_since, "nextAttemptAt": "2100-01-01T00:00:00.000000+00:00" });
    assert_eq!(seen.await.data()["webhook"], expected);

    let disabled = updated(app, &own, &id, json!({ "enabled": false })).await;
    assert_eq!((&disabled["failingSince"], &disabled["nextAttemptAt"]), (&failing_since, &Value::Null));
    for changes in [json!({ "enabled": true }), json!({ "url": "https://receiver.example/new" })] {
        let enabled = updated(app, &own, &id, changes).await;
        assert_eq!((&enabled["failingSince"], &enabled["nextAttemptAt"]), (&Value::Null, &Value::Null));
        let stored = row(app, &id).await;
        assert!(stored.failed_attempts == 0 && stored.next_attempt_at <= now());
        // The same page is sent again.
        assert_eq!(stored.sending_position, Some(1));
        set(app, failing).await;
    }
    // From a new position, other changes are delivered.
    let end = app.query(&own, "{ viewer { changesCursor } }").await["viewer"]["changesCursor"].clone();
    let moved = updated(app, &own, &id, json!({ "deliverFrom": { "cursor": end } })).await;
    assert_eq!((&moved["failingSince"], &moved["nextAttemptAt"]), (&Value::Null, &Value::Null));
    let stored = row(app, &id).await;
    assert_eq!((stored.failed_attempts, stored.sending_position), (0, None));
    set(app, failing).await;
    // A new secret, or to enable an enabled endpoint, leaves the retries as they are.
    rotated(app, &own, &id, None).await;
    updated(app, &own, &id, json!({ "enabled": true })).await;
    assert_eq!(row(app, &id).await.failed_attempts, 7);
});

both!(deliveries_pause_while_the_operator_is_suspended, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let id = created(app, &own).await["webhook"]["id"].clone();
    created(app, &other).await;
    let set_status = async |status: &str| {
        let query = format!(
            "mutation {{ updateOperator(input: {{ id: \"{}\", status: {status} }}) {{ operator {{ status }} }} }}",
            own.operator
        );
        app.graphql(&app.platform(), &query, json!({})).await.payload("updateOperator");
    };
    set_status("SUSPENDED").await;
    assert_eq!(app.select_number("SELECT COUNT(*) AS n FROM webhook WHERE paused_at IS NULL").await, 1);
    // An endpoint that is created during the suspension is paused too.
    let input = json!({ "input": { "url": "https://receiver.example/", "operatorId": own.operator } });
    app.graphql(&app.platform(), CREATE, input).await.payload("createWebhook");
    assert_eq!(app.select_number("SELECT COUNT(*) AS n FROM webhook WHERE paused_at IS NULL").await, 1);

    // Two days of failures before a pause of ten days count as two days. If the first attempt that failed ended during
    // the pause, no time counts.
    for (before_pause, counted) in [(TimeDelta::days(2), TimeDelta::days(2)), (-TimeDelta::days(1), TimeDelta::zero())]
    {
        set_status("SUSPENDED").await;
        let paused_at = now() - TimeDelta::days(10);
        let failing_since = paused_at - before_pause;
        let text = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string();
        set(app, &format!("paused_at = '{}', failing_since = '{}'", text(paused_at), text(failing_since))).await;
        let query = "query ($id: ID!) { webhook(id: $id) { enabled nextAttemptAt } }";
        let seen = app.graphql(&app.platform(), query, json!({ "id": id })).await;
        assert_eq!(seen.data()["webhook"], json!({ "enabled": true, "nextAttemptAt": null }));
        set_status("ACTIVE").await;
        let stored = row(app, &id).await;
        let failing_for = now() - stored.failing_since.unwrap();
        assert!(stored.paused_at.is_none());
        assert!((counted..counted + TimeDelta::minutes(5)).contains(&failing_for), "{failing_for}");
    }
});

both!(each_change_of_an_endpoint_leaves_an_entry_in_the_audit_log, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let id = created(app, &own).await["webhook"]["id"].clone();
    updated(app, &own, &id, json!({ "url": "https://receiver.example/", "enabled": false })).await;
    updated(app, &app.platform(), &id, json!({ "enabled": true })).await;
    rotated(app, &own, &id, None).await;
    // Requests that change nothing or fail leave no entry.
    updated(app, &own, &id, json!({ "url": "https://receiver.example", "enabled": true })).await;
    update(app, &own, &id, json!({ "url": "x" })).await;
    delete(app, &own, &id).await.payload("deleteWebhook");
    delete(app, &own, &id).await;

    let query = "{ adminEvents { nodes { type operator { id } apiKey { id } webhookId changedFields source \
                 callerApiKey { name } osUser } } }";
    let events = app.query(&app.platform(), query).await["adminEvents"]["nodes"].as_array().unwrap().clone();
    let seen: Vec<_> = events[2..]
        .iter()
        .map(|event| {
            assert_eq!((&event["operator"]["id"], &event["webhookId"]), (&json!(own.operator), &id));
            assert_eq!((&event["apiKey"], &event["osUser"]), (&Value::Null, &Value::Null));
            json!([event["type"], event["changedFields"], event["source"], event["callerApiKey"]["name"]])
        })
        .collect();
    assert_eq!(
        seen,
        [
            json!(["WEBHOOK_CREATED", [], "OPERATOR_KEY", "First key"]),
            json!(["WEBHOOK_UPDATED", ["url", "enabled"], "OPERATOR_KEY", "First key"]),
            json!(["WEBHOOK_UPDATED", ["enabled"], "PLATFORM_KEY", null]),
            json!(["WEBHOOK_SECRET_ROTATED", [], "OPERATOR_KEY", "First key"]),
            json!(["WEBHOOK_DELETED", [], "OPERATOR_KEY", "First key"]),
        ]
    );
    let stored = entity::admin_event::Entity::find().order_by_asc(entity::admin_event::Column::Id);
    let stored = stored.all(app.database.reader()).await.unwrap();
    assert!(!format!("{stored:?}").contains("receiver"));
});

/// The ids of the changes that an endpoint has not received.
async fn undelivered(app: &TestApp, caller: &TestCaller, id: &Value) -> Vec<Value> {
    app.wait_for_feed().await;
    let query = "query ($id: ID!) { webhook(id: $id) { cursor undeliveredSince } }";
    let webhook = app.graphql(caller, query, json!({ "id": id })).await.data()["webhook"].clone();
    let query = "query ($after: String) { changes(after: $after) { changes { id occurredAt } } }";
    let answer = app.graphql(caller, query, json!({ "after": webhook["cursor"] })).await;
    let changes = answer.data()["changes"]["changes"].as_array().unwrap().clone();
    let first = changes.first().map_or(Value::Null, |change| change["occurredAt"].clone());
    assert_eq!(webhook["undeliveredSince"], first);
    changes.into_iter().map(|change| change["id"].clone()).collect()
}

both!(deliveries_start_at_the_end_of_the_feed_and_can_be_moved, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let empty = created(app, &own).await["webhook"]["id"].clone();
    for number in 0..6 {
        let email = json!({ "email": format!("{number}@example.com") });
        app.created(&own, &number.to_string(), email.clone()).await;
        app.created(&other, &number.to_string(), email).await;
    }
    // The changes of the first customer are two days old, and the changes of the second customer are an hour old.
    for (number, age) in [(0, TimeDelta::days(2)), (1, TimeDelta::hours(1))] {
        let rows = entity::customer_change::Entity::update_many()
            .col_expr(entity::customer_change::Column::OccurredAt, (now() - age).into())
            .filter(entity::customer_change::Column::ExternalCustomerId.eq(number.to_string()));
        let transaction = app.database.begin_write().await.unwrap();
        rows.exec(&transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let all = undelivered(app, &own, &empty).await;
    assert_eq!(all.len(), 6);
    let id = created(app, &own).await["webhook"]["id"].clone();
    assert_eq!(undelivered(app, &own, &id).await, Vec::<Value>::new());

    // Moves the deliveries to a cursor of the feed.
    let query = "query ($first: Int!) { changes(first: $first) { cursor } }";
    let cursor = app.graphql(&own, query, json!({ "first": 4 })).await.data()["changes"]["cursor"].clone();
    set(app, "sending_position = 1").await;
    let moved = updated(app, &own, &id, json!({ "deliverFrom": { "cursor": cursor } })).await;
    assert_eq!(moved["cursor"], cursor);
    assert_eq!(undelivered(app, &own, &id).await, all[4..]);
    assert_eq!(row(app, &id).await.sending_position, None);
    // Moves the deliveries to a time.
    for (age, expected) in [
        (TimeDelta::days(3), &all[..]),
        (TimeDelta::days(1), &all[1..]),
        (TimeDelta::minutes(10), &all[2..]),
        (TimeDelta::minutes(-10), &[]),
    ] {
        let time = (now() - age).to_rfc3339();
        for caller in [&own, &app.platform()] {
            updated(app, caller, &id, json!({ "deliverFrom": { "time": time } })).await;
            assert_eq!(undelivered(app, &own, &id).await, expected, "{age}");
        }
    }
    // Moves the deliveries to a time whose changes were deleted.
    app.services.feed.sweep(&Caller::Platform, now() - TimeDelta::days(1)).await.unwrap();
    let after_deletion = |age: TimeDelta| json!({ "deliverFrom": { "time": (now() - age).to_rfc3339() } });
    let answer = update(app, &own, &id, after_deletion(TimeDelta::days(3))).await;
    answer.assert_rejected("updateWebhook", &[("CURSOR_EXPIRED", "input.deliverFrom.time")]);
    updated(app, &own, &id, after_deletion(TimeDelta::days(1))).await;
    assert_eq!(undelivered(app, &own, &id).await, all[1..]);
    // A new endpoint can start at a cursor too.
    let input = json!({ "url": "https://receiver.example/", "deliverFrom": { "cursor": cursor } });
    let payload = app.graphql(&own, CREATE, json!({ "input": input })).await.payload("createWebhook");
    assert_eq!(undelivered(app, &own, &payload["webhook"]["id"]).await, all[4..]);

    // Each cursor belongs to one feed: to the feed of an operator, or to the feed of the platform.
    for caller in [&other, &app.platform()] {
        let theirs = app.query(caller, "{ viewer { changesCursor } }").await["viewer"]["changesCursor"].clone();
        let answer = update(app, &own, &id, json!({ "deliverFrom": { "cursor": theirs } })).await;
        answer.assert_rejected("updateWebhook", &[("INVALID_ARGUMENT", "input.deliverFrom.cursor")]);
    }
    let platform = app.platform();
    let theirs = app.query(&platform, "{ viewer { changesCursor } }").await["viewer"]["changesCursor"].clone();
    let answer = update(app, &platform, &id, json!({ "deliverFrom": { "cursor": theirs } })).await;
    answer.assert_rejected("updateWebhook", &[("INVALID_ARGUMENT", "input.deliverFrom.cursor")]);
    let seen = app.query(&platform, "{ webhooks { nodes { cursor } } }").await;
    assert_eq!(seen["webhooks"]["nodes"][0]["cursor"], Value::Null);
    let unknown = update(app, &own, &json!(UNKNOWN_ID), json!({ "deliverFrom": { "cursor": cursor } })).await;
    unknown.assert_rejected("updateWebhook", &[("WEBHOOK_NOT_FOUND", "input.id")]);
    // The feed no longer has the change of the cursor, as after a restore of an older backup.
    let rows_of_operators = "DELETE FROM customer_change WHERE external_customer_id IS NOT NULL";
    app.execute(rows_of_operators).await;
    let answer = update(app, &own, &id, json!({ "deliverFrom": { "cursor": cursor } })).await;
    answer.assert_rejected("updateWebhook", &[("CURSOR_EXPIRED", "input.deliverFrom.cursor")]);
});

both!(an_endpoint_receives_all_types_or_some, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let input = json!({ "url": "https://receiver.example/", "types": ["ERASED", "CREATED", "ERASED"] });
    let webhook =
        app.graphql(&own, CREATE, json!({ "input": input })).await.payload("createWebhook")["webhook"].clone();
    let id = &webhook["id"];
    assert_eq!(webhook["types"], json!(["CREATED", "ERASED"]));
    set(app, "sending_position = 1").await;
    // The same types in another order are no change.
    updated(app, &own, id, json!({ "types": ["ERASED", "CREATED"] })).await;
    assert_eq!(row(app, id).await.sending_position, Some(1));
    assert_eq!(updated(app, &own, id, json!({ "types": ["UPDATED"] })).await["types"], json!(["UPDATED"]));
    assert_eq!(row(app, id).await.sending_position, None);
    assert_eq!(updated(app, &own, id, json!({ "types": null })).await["types"], Value::Null);
    let query = "{ adminEvents { nodes { changedFields } } }";
    let events = app.query(&app.platform(), query).await["adminEvents"]["nodes"].as_array().unwrap().clone();
    let changed: Vec<_> = events[3..].iter().map(|event| event["changedFields"].clone()).collect();
    assert_eq!(changed, [json!(["types"]), json!(["types"])]);
});
