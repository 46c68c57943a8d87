//! The schema, as those read it who build against it.

use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use serde_json::{Value, json};
use vivamo::graphql;

use support::both;

#[test]
fn schema_graphql_is_what_the_service_serves() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql");
    let kept = std::fs::read_to_string(file).unwrap();
    assert!(kept == graphql::sdl(), "schema.graphql has drifted. Renew it with: cargo run -- schema > schema.graphql");
}

/// The exporter prints these as they are, and no parser accepts what comes out.
#[test]
fn no_description_breaks_the_schema_text() {
    for line in graphql::sdl().lines().map(str::trim) {
        assert!(!line.contains("\"\"\"") || line == "\"\"\"", "{line}");
    }
}

#[tokio::test]
async fn everything_is_described() {
    let schema: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    let mut bare = Vec::new();
    let mut see = |path: String, thing: &Value| {
        if thing["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
            bare.push(path);
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for kind in list(&schema["data"]["__schema"]["types"]) {
        let name = kind["name"].as_str().unwrap();
        if name.starts_with("__") || ["ID", "String", "Int", "Float", "Boolean"].contains(&name) {
            continue;
        }
        see(name.to_owned(), &kind);
        for part in ["fields", "inputFields", "enumValues"] {
            for field in list(&kind[part]) {
                let path = format!("{name}.{}", field["name"].as_str().unwrap());
                see(path.clone(), &field);
                for argument in list(&field["args"]) {
                    see(format!("{path}({})", argument["name"].as_str().unwrap()), &argument);
                }
            }
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}

// What GraphiQL and code generators ask is not refused by a limit.
both!(introspection_is_answered, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let query = include_str!("../../src/graphql/introspection.graphql");
    let answer = app.graphql(&caller, query, json!({})).await;
    let expected: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    assert_eq!(answer.body, expected);
});

/// What the pinned version of async-graphql gets right and the next ones do not: an error takes the nearest nullable
/// parent with it, not less.
#[tokio::test]
async fn a_failing_non_null_field_nulls_its_parent() {
    struct Query;
    struct Child;

    #[Object]
    impl Query {
        async fn nullable(&self) -> Option<Child> {
            Some(Child)
        }
        async fn list(&self) -> Vec<Option<Child>> {
            vec![Some(Child)]
        }
    }

    #[Object]
    impl Child {
        async fn good(&self) -> i32 {
            1
        }
        async fn bad(&self) -> Result<i32, vivamo::error::Error> {
            Err(vivamo::error::ErrorCode::Internal.into())
        }
    }

    let schema = Schema::build(Query, EmptyMutation, EmptySubscription).finish();
    let answer = schema.execute("{ nullable { good bad } list { good bad } }").await;
    assert_eq!(answer.data.into_json().unwrap(), json!({ "nullable": null, "list": [null] }));
    assert_eq!(answer.errors.len(), 2);
}
