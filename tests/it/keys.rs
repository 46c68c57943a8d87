//! Keys: what they open, and when they no longer do.

use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::ApiKeyId;
use serde_json::json;
use vivamo::keyed_hash::KeyedHash;
use vivamo::service::{Actor, ApiKeys};

use crate::app::{Caller, KEY_SECRET, on_both_databases};

const ROLE: &str = "{ viewer { role operator { name } } }";

on_both_databases! {
    Sandbox:

    async fn a_key_is_of_its_operator_and_of_this_environment(app) {
        let own = app.operator("Own").await;
        assert!(own.key.starts_with("vivamo_sandbox_"), "{}", own.key);
        let seen = app.query(&own, ROLE).await;
        assert_eq!(seen["viewer"], json!({ "role": "OPERATOR", "operator": { "name": "Own" } }));
        let read_only = app.key(&own, Access::ReadOnly).await;
        let seen = app.query(&read_only, ROLE).await;
        assert_eq!(seen["viewer"], json!({ "role": "OPERATOR_READ_ONLY", "operator": { "name": "Own" } }));
        // Both keys live side by side.
        app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
        assert_eq!(app.customer(&read_only, json!({ "externalCustomerId": "1" })).await["email"], "ada@example.com");
    }

    async fn a_revoked_key_opens_nothing(app) {
        let own = app.operator("Own").await;
        let second = app.key(&own, Access::ReadWrite).await;
        let keys = &app.services.api_keys;
        let row = keys.list(&Actor::Platform, None).await.unwrap().pop().unwrap();
        let revoked = keys.revoke(&Actor::Platform, row.id).await.unwrap();
        assert!(revoked.revoked_at.is_some());
        assert_eq!(app.graphql(&second, ROLE, json!({})).await.status, 401);
        assert_eq!(app.graphql(&own, ROLE, json!({})).await.status, 200);
        // Once more changes nothing.
        assert_eq!(keys.revoke(&Actor::Platform, row.id).await.unwrap(), revoked);
    }

    async fn a_wrong_key_is_refused_without_a_look(app) {
        let own = app.operator("Own").await;
        let mistyped = own.key.replace(&own.key[20..21], if &own.key[20..21] == "x" { "y" } else { "x" });
        let elsewhere = ApiKeys::new(app.database.clone(), Environment::Production, KeyedHash::new(KEY_SECRET), None);
        let operator = entity::value::OperatorId::parse(&own.operator).unwrap();
        let name = entity::value::DisplayName::parse("of production").unwrap();
        let of_production = elsewhere.create(&Actor::Platform, operator, name, Access::ReadWrite).await.unwrap();
        let of_production = secrecy::ExposeSecret::expose_secret(&of_production.secret).to_owned();
        for key in [mistyped, of_production, own.key.to_lowercase(), format!("{}x", own.key)] {
            let caller = Caller { key, ..own.clone() };
            let (answer, statements) = app.all_statements_of(app.graphql(&caller, ROLE, json!({}))).await;
            assert_eq!(answer.status, 401);
            assert_eq!(statements, Vec::<String>::new());
        }
    }

    async fn under_another_secret_no_key_opens_anything(app) {
        let own = app.operator("Own").await;
        let other = ApiKeys::new(app.database.clone(), Environment::Sandbox, KeyedHash::new("another secret"), None);
        assert!(other.authenticate(&own.key).await.is_err());
        assert!(app.services.api_keys.authenticate(&own.key).await.is_ok());
    }

    async fn the_database_holds_no_key(app) {
        let own = app.operator("Own").await;
        let row = app.services.api_keys.list(&Actor::Platform, None).await.unwrap().pop().unwrap();
        assert!(own.key.starts_with(&row.prefix) && row.prefix.len() < own.key.len() - 30, "{}", row.prefix);
        assert!(!row.hash.windows(8).any(|window| own.key.as_bytes().windows(8).any(|part| part == window)));
    }

    async fn only_the_platform_manages_keys_and_operators(app) {
        let own = app.operator("Own").await;
        let actor = app.services.api_keys.authenticate(&own.key).await.unwrap();
        let keys = &app.services.api_keys;
        let name = || entity::value::DisplayName::parse("x").unwrap();
        let operator = entity::value::OperatorId::parse(&own.operator).unwrap();
        assert!(keys.list(&actor, None).await.is_err());
        assert!(keys.revoke(&actor, ApiKeyId::new()).await.is_err());
        assert!(keys.create(&actor, operator, name(), Access::ReadOnly).await.is_err());
        assert!(app.services.operators.create(&actor, keys, name()).await.is_err());
    }
}
