//! API keys: authentication, expiry and revocation, and their management by the platform.

use std::time::{Duration, Instant};

use entity::api_key::Access;
use entity::deployment::Environment;
use sea_orm::ConnectionTrait;
use serde_json::json;
use vivamo::error::ErrorCode;
use vivamo::service::api_keys::NewApiKey;
use vivamo::service::authentication::AuthenticationError;
use vivamo::service::operators::OperatorChanges;
use vivamo::service::{Caller, RequestInfo};

use support::{Answer, Backend, KEY_SECRET, TestCaller, both, run, seen_within_a_second};

use crate::erase::stored;

const ROLE: &str = "{ viewer { role operator { name } } }";

both!(a_key_authenticates_its_operator_with_its_access, Sandbox, async |app| {
    let own = app.operator("Own").await;
    assert!(own.key.starts_with("vivamo_sandbox_"), "{}", own.key);
    let answer = app.query(&own, ROLE).await;
    assert_eq!(answer["viewer"], json!({ "role": "OPERATOR", "operator": { "name": "Own" } }));
    let read_only = app.key(&own, Access::ReadOnly).await;
    let answer = app.query(&read_only, ROLE).await;
    assert_eq!(answer["viewer"], json!({ "role": "OPERATOR_READ_ONLY", "operator": { "name": "Own" } }));
    // Both keys work at the same time.
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(app.customer(&read_only, json!({ "externalCustomerId": "1" })).await["email"], "ada@example.com");
});

both!(a_revoked_key_is_rejected, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let second = app.key(&own, Access::ReadWrite).await;
    let keys = &app.services.api_keys;
    let row = keys.list(&Caller::Platform).await.unwrap().pop().unwrap();
    let revoked = keys.revoke(&Caller::Platform, &RequestInfo::command_line(), row.id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(app.graphql(&second, ROLE, json!({})).await.status, 401);
    assert_eq!(app.graphql(&own, ROLE, json!({})).await.status, 200);
    // Revoking the key again changes nothing.
    assert_eq!(keys.revoke(&Caller::Platform, &RequestInfo::command_line(), row.id).await.unwrap(), revoked);
});

both!(a_malformed_key_is_rejected_without_a_query, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let mut mistyped = own.key.clone();
    mistyped.replace_range(20..21, if &own.key[20..21] == "x" { "y" } else { "x" });
    let production = app.services_with(Environment::Production, KEY_SECRET).api_keys.clone();
    let operator = entity::value::OperatorId::parse(&own.operator).unwrap();
    let name = entity::value::DisplayName::parse("production").unwrap();
    let request = NewApiKey { name, access: Access::ReadWrite, expires_at: None };
    let production_key =
        production.create(&Caller::Platform, &RequestInfo::command_line(), operator, request).await.unwrap();
    let production_key = secrecy::ExposeSecret::expose_secret(&production_key.secret).to_owned();
    for key in [mistyped, production_key, own.key.to_lowercase(), format!("{}x", own.key)] {
        let caller = TestCaller { key, ..own.clone() };
        let (answer, statements) = app.all_statements_of(app.graphql(&caller, ROLE, json!({}))).await;
        assert_eq!(answer.status, 401);
        assert_eq!(statements, Vec::<String>::new());
    }
});

both!(a_rejected_key_error_names_the_reason, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let message = async |key: &str| {
        let caller = TestCaller { key: key.to_owned(), ..own.clone() };
        let answer = app.graphql(&caller, ROLE, json!({})).await;
        assert_eq!((answer.status, answer.codes()), (401, vec!["UNAUTHENTICATED".to_owned()]));
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"vivamo\"");
        answer.message().to_owned()
    };
    let (expired, revoked) = (app.key(&own, Access::ReadWrite).await, app.key(&own, Access::ReadOnly).await);
    let set = async |caller: &TestCaller, column: &str| {
        let prefix = &caller.key[..19];
        let sql = format!("UPDATE api_key SET {column} = created_at WHERE prefix = '{prefix}'");
        app.execute(&sql).await;
    };
    set(&expired, "expires_at").await;
    set(&revoked, "revoked_at").await;
    // After the first request, the cache contains the key. The second request gets the same message.
    for _ in 0..2 {
        assert!(message(&expired.key).await.starts_with("This API key has expired."));
        assert!(message(&revoked.key).await.starts_with("This API key was revoked."));
    }
    set(&expired, "revoked_at").await;
    let production = app.services_with(Environment::Production, KEY_SECRET).api_keys.clone();
    let operator = entity::value::OperatorId::parse(&own.operator).unwrap();
    let name = entity::value::DisplayName::parse("production").unwrap();
    let request = NewApiKey { name, access: Access::ReadWrite, expires_at: None };
    let production_key =
        production.create(&Caller::Platform, &RequestInfo::command_line(), operator, request).await.unwrap();
    let production_key = secrecy::ExposeSecret::expose_secret(&production_key.secret).to_owned();
    assert!(message(&production_key).await.contains("the other environment"));
    // Keys that the service does not recognize get the same answer: a mistyped key, a key of a deployment with another
    // key secret, and a string that is not a key.
    let elsewhere = app.services_with(Environment::Sandbox, "another secret").api_keys.clone();
    let name = entity::value::DisplayName::parse("elsewhere").unwrap();
    let request = NewApiKey { name, access: Access::ReadWrite, expires_at: None };
    let unknown = elsewhere.create(&Caller::Platform, &RequestInfo::command_line(), operator, request).await.unwrap();
    let unknown = secrecy::ExposeSecret::expose_secret(&unknown.secret).to_owned();
    let mistyped = production_key.to_lowercase();
    let general = "This request needs a valid API key, in the header: Authorization: Bearer <key>";
    for key in [unknown.as_str(), mistyped.as_str(), "vivamo_production_", "x", ""] {
        assert_eq!(message(key).await, general, "{key}");
    }
    // A request without a key gets the same answer.
    let request = app.http.post(format!("{}/graphql", app.url)).json(&json!({ "query": ROLE }));
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!((answer.status, answer.message()), (401, general));
});

both!(keys_are_rejected_under_another_secret, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let other = app.services_with(Environment::Sandbox, "another secret");
    let rejected = other.authenticator.authenticate(&own.key, None).await;
    assert!(matches!(rejected, Err(AuthenticationError::Rejected(_))));
    assert!(app.services.authenticator.authenticate(&own.key, None).await.is_ok());
});

both!(the_database_does_not_contain_the_key, Sandbox, async |app| {
    let own = app.operator("Own").await;
    // The key is used, and the platform creates another key.
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    app.services.authenticator.save_last_used().await.unwrap();
    let create = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }";
    let input = json!({ "input": { "operatorId": own.operator, "name": "second" } });
    let created = app.graphql(&app.platform(), create, input).await.payload("createApiKey");
    let rows = app.services.api_keys.list(&Caller::Platform).await.unwrap();
    let stored = stored(app);
    for (key, row) in [own.key.as_str(), created["secret"].as_str().unwrap()].into_iter().zip(&rows) {
        let secret = key.strip_prefix(&row.prefix).unwrap().to_lowercase();
        assert!(secret.len() > 30 && stored.contains(&row.prefix.to_lowercase()), "{}", row.prefix);
        // A part of the secret would be a leak too. A dump of PostgreSQL has bytes as hexadecimal digits.
        for part in secret.as_bytes().windows(8) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = str::from_utf8(part).unwrap();
            assert!(!stored.contains(text) && !stored.contains(&hex), "the database contains {text}");
        }
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_key_does_not_stop_the_last_use_of_others() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let (locked, other) = (app.operator("Locked").await, app.operator("Other").await);
        for operator in [&locked, &other] {
            app.query(operator, ROLE).await;
        }
        let is_saved = async |operator: &TestCaller| {
            app.services.authenticator.save_last_used().await.unwrap();
            let answer = app.query(operator, "{ operator { apiKeys { lastUsedAt } } }").await;
            answer["operator"]["apiKeys"][0]["lastUsedAt"].is_string()
        };
        let holder = app.database.begin_write().await.unwrap();
        let of_locked = "operator_id = (SELECT id FROM operator WHERE name = 'Locked')";
        holder.execute_unprepared(&format!("SELECT 1 FROM api_key WHERE {of_locked} FOR UPDATE")).await.unwrap();
        assert!(is_saved(&other).await && !is_saved(&locked).await);
        holder.commit().await.unwrap();
        assert!(is_saved(&locked).await);
    })
    .await;
}

both!(operators_cannot_manage_keys_or_operators, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let caller = app.services.authenticator.authenticate(&own.key, None).await.unwrap();
    let (keys, operators) = (&app.services.api_keys, &app.services.operators);
    let name = || entity::value::DisplayName::parse("x").unwrap();
    let operator = entity::value::OperatorId::parse(&own.operator).unwrap();
    let before = (keys.list(&Caller::Platform).await.unwrap(), operators.list(&Caller::Platform).await.unwrap());
    let key = before.0[0].id;
    let request = &RequestInfo::command_line();
    let new_key = NewApiKey { name: name(), access: Access::ReadOnly, expires_at: None };
    let rename = OperatorChanges { name: Some(name()), ..Default::default() };
    for (method, error) in [
        ("keys.list", keys.list(&caller).await.err()),
        ("keys.revoke", keys.revoke(&caller, request, key).await.err()),
        ("keys.revoke_all", keys.revoke_all(&caller, request, operator).await.err()),
        ("keys.create", keys.create(&caller, request, operator, new_key).await.err()),
        ("operators.list", operators.list(&caller).await.err()),
        ("operators.create", operators.create(&caller, request, name()).await.err()),
        ("operators.update", operators.update(&caller, request, operator, rename).await.err()),
    ] {
        assert!(error.is_some_and(|error| error.has(ErrorCode::Forbidden)), "{method}");
    }
    let after = (keys.list(&Caller::Platform).await.unwrap(), operators.list(&Caller::Platform).await.unwrap());
    assert_eq!(before, after);
});

both!(the_platform_manages_operators_and_keys, Sandbox, async |app| {
    let platform = app.platform();
    let create = "mutation { createOperator(input: { name: \"Acme\" }) { \
                  secret operator { id name } apiKey { id access prefix } } }";
    let created = app.graphql(&platform, create, json!({})).await.payload("createOperator");
    let operator = created["operator"]["id"].as_str().unwrap().to_owned();
    let first = TestCaller { operator: operator.clone(), key: created["secret"].as_str().unwrap().to_owned() };
    assert_eq!(app.query(&first, ROLE).await["viewer"]["operator"]["name"], "Acme");

    let create = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { \
                  secret apiKey { id name access expiresAt lastUsedAt revokedAt } } }";
    let expires_at = "2100-01-01T00:00:00.123456789Z";
    let input = json!({ "operatorId": operator, "name": "Dashboard", "access": "READ_ONLY", "expiresAt": expires_at });
    let key = app.graphql(&platform, create, json!({ "input": input })).await.payload("createApiKey");
    assert_eq!(key["apiKey"]["expiresAt"], "2100-01-01T00:00:00.123456+00:00");
    // Both databases store microseconds.
    let rows = app.services.api_keys.list(&Caller::Platform).await.unwrap();
    let stored: Vec<_> = rows.iter().filter_map(|row| row.expires_at).map(|time| time.to_rfc3339()).collect();
    assert_eq!(stored, ["2100-01-01T00:00:00.123456+00:00"]);
    let second = TestCaller { key: key["secret"].as_str().unwrap().to_owned(), ..first.clone() };
    assert_eq!(app.query(&second, ROLE).await["viewer"]["role"], "OPERATOR_READ_ONLY");

    // An operator sees its keys and their times of last use.
    app.services.authenticator.save_last_used().await.unwrap();
    let answer = app.query(&first, "{ operator { apiKeys { id lastUsedAt revokedAt } } }").await;
    let keys = answer["operator"]["apiKeys"].as_array().unwrap().clone();
    assert_eq!(
        (keys[0]["id"].clone(), keys[1]["id"].clone()),
        (created["apiKey"]["id"].clone(), key["apiKey"]["id"].clone())
    );
    assert!(keys.iter().all(|key| key["lastUsedAt"].is_string() && key["revokedAt"].is_null()), "{keys:?}");

    let revoke = "mutation ($id: ID!) { revokeApiKey(input: { id: $id }) { apiKey { revokedAt } } }";
    let id = json!({ "id": key["apiKey"]["id"] });
    let revoked = app.graphql(&platform, revoke, id.clone()).await.payload("revokeApiKey");
    assert!(revoked["apiKey"]["revokedAt"].is_string());
    assert_eq!(app.graphql(&second, ROLE, json!({})).await.status, 401);
    assert_eq!(app.graphql(&first, revoke, id).await.codes(), ["FORBIDDEN"]);

    for (input, error) in [
        (json!({ "operatorId": "op_x", "name": "x" }), ("OPERATOR_NOT_FOUND", "input.operatorId")),
        (
            json!({ "operatorId": "op_01h455vb4pex5vsknk084sn02q", "name": "x" }),
            ("OPERATOR_NOT_FOUND", "input.operatorId"),
        ),
        (json!({ "operatorId": operator, "name": " " }), ("INVALID_NAME", "input.name")),
        (
            json!({ "operatorId": operator, "name": "x", "expiresAt": "2000-01-01T00:00:00Z" }),
            ("INVALID_ARGUMENT", "input.expiresAt"),
        ),
    ] {
        let answer = app.graphql(&platform, create, json!({ "input": input })).await;
        answer.assert_rejected("createApiKey", &[error]);
    }
    let answer = app.graphql(&platform, revoke, json!({ "id": "key_01h455vb4pex5vsknk084sn02q" })).await;
    answer.assert_rejected("revokeApiKey", &[("API_KEY_NOT_FOUND", "input.id")]);
});

both!(operators_and_their_keys_are_read_in_two_statements, Sandbox, async |app| {
    for number in 0..5 {
        let operator = app.operator(&number.to_string()).await;
        app.key(&operator, Access::ReadOnly).await;
    }
    let query = "{ operators { edges { node { apiKeys { name } } } } }";
    let (answer, statements) = app.all_statements_of(app.query(&app.platform(), query)).await;
    assert_eq!(statements.len(), 2, "{statements:?}");
    let edges = answer["operators"]["edges"].as_array().unwrap();
    assert!(edges.iter().all(|edge| edge["node"]["apiKeys"].as_array().unwrap().len() == 2));
});

both!(a_key_revoked_on_one_replica_is_rejected_on_another_within_a_second, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let replica = app.replica(app.database_url().to_owned()).await;
    let key = app.services.api_keys.list(&Caller::Platform).await.unwrap().pop().unwrap();
    let second = app.key(&own, Access::ReadWrite).await;
    for caller in [&own, &second] {
        assert_eq!(replica.graphql(caller, ROLE, json!({})).await.status, 200);
    }
    app.services.api_keys.revoke(&Caller::Platform, &RequestInfo::command_line(), key.id).await.unwrap();
    let send = async || {
        // The new key works all the time, so a client that already uses it loses no request.
        assert_eq!(replica.graphql(&second, ROLE, json!({})).await.status, 200);
        replica.graphql(&own, ROLE, json!({})).await
    };
    seen_within_a_second(send, |answer| answer.status == 401).await;
    assert_eq!(app.graphql(&own, ROLE, json!({})).await.status, 401);
    assert_eq!(replica.graphql(&second, ROLE, json!({})).await.status, 200);
    replica.stop().await;
});

both!(a_recently_used_key_is_authenticated_from_the_cache, Sandbox, async |app| {
    loop {
        let own = app.operator("Own").await;
        let since = Instant::now();
        // The first request reads the key and its operator in one statement.
        let (_, statements) = app.all_statements_of(app.query(&own, "{ viewer { role } }")).await;
        assert_eq!(statements.len(), 1, "{statements:?}");
        let (_, statements) = app.all_statements_of(app.query(&own, "{ viewer { role } }")).await;
        // On a slow machine, the cached key may be out of date already. Then the loop tries again with a new key.
        if since.elapsed() < Duration::from_millis(800) {
            assert_eq!(statements, Vec::<String>::new());
            break;
        }
    }
});
