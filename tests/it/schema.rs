//! The schema: `schema.graphql`, descriptions and introspection.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use serde_json::{Value, json};
use vivamo::graphql;

use support::both;

use crate::layers::{root, rust_files};

#[test]
fn schema_graphql_is_what_the_service_serves() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text == graphql::sdl(), "schema.graphql is out of date. Run: cargo run -- schema > schema.graphql");
}

/// Descriptions must not contain `"""`, because async-graphql does not escape it.
#[test]
fn no_description_contains_triple_quotes() {
    for line in graphql::sdl().lines().map(str::trim) {
        assert!(!line.contains("\"\"\"") || line == "\"\"\"", "{line}");
    }
}

/// The descriptions of the schema's own types, fields, arguments and values by their paths, such as
/// `Customer.history(first)`. The description is empty if the item has none.
async fn descriptions() -> BTreeMap<String, String> {
    let schema: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    let mut descriptions = BTreeMap::new();
    let mut add = |path: String, element: &Value| {
        descriptions.insert(path, element["description"].as_str().unwrap_or_default().trim().to_owned());
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for kind in list(&schema["data"]["__schema"]["types"]) {
        let name = kind["name"].as_str().unwrap();
        if name.starts_with("__") || ["ID", "String", "Int", "Float", "Boolean"].contains(&name) {
            continue;
        }
        add(name.to_owned(), &kind);
        for part in ["fields", "inputFields", "enumValues"] {
            for field in list(&kind[part]) {
                let path = format!("{name}.{}", field["name"].as_str().unwrap());
                add(path.clone(), &field);
                for argument in list(&field["args"]) {
                    add(format!("{path}({})", argument["name"].as_str().unwrap()), &argument);
                }
            }
        }
    }
    descriptions
}

#[tokio::test]
async fn everything_is_described() {
    let descriptions = descriptions().await;
    let missing: Vec<_> = descriptions.iter().filter(|(_, text)| text.is_empty()).map(|(path, _)| path).collect();
    assert!(descriptions.len() > 200 && missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn the_arguments_of_lists_are_described_alike() {
    let descriptions = descriptions().await;
    for argument in ["first", "after", "last", "before"] {
        let suffix = format!("({argument})");
        // The arguments of the feed have other descriptions, because the feed has another default size, and its cursor
        // stays valid with other `types`.
        let is_list = |path: &str| path.ends_with(&suffix) && !path.starts_with("Query.changes(");
        let lists: Vec<_> = descriptions.iter().filter(|(path, _)| is_list(path)).collect();
        let texts: BTreeSet<_> = lists.iter().map(|(_, text)| text).collect();
        assert!(lists.len() >= 5 && texts.len() == 1, "{lists:?}");
    }
}

// The limits on documents allow the introspection query of GraphiQL and code generators.
both!(introspection_is_within_the_limits, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let query = include_str!("../../src/graphql/introspection.graphql");
    let expected: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    // In the second request, the document comes from the cache.
    for _ in 0..2 {
        assert_eq!(app.graphql(&caller, query, json!({})).await.body, expected);
    }
});

// `src/graphql/schema.rs` enables federation for documents that are in the cache.
both!(fields_of_federation_do_not_exist, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let fields = "{ viewer { role } ... { __type(name: \"Query\") { fields { name } } } }";
    for _ in 0..2 {
        let answer = app.graphql(&caller, fields, json!({})).await;
        let fields = answer.data()["__type"]["fields"].as_array().unwrap();
        assert!(fields.iter().all(|field| !field["name"].as_str().unwrap().starts_with('_')), "{fields:?}");
        for field in ["_service { sdl }", "_entities(representations: []) { __typename }"] {
            let answer = app.graphql(&caller, &format!("{{ viewer {{ role }} {field} }}"), json!({})).await;
            assert_eq!(answer.codes(), ["BAD_REQUEST"], "{field}");
        }
    }
});

#[test]
fn fields_of_interfaces_have_no_fields() {
    // Otherwise the check for conflicts in `src/graphql/document/conflicts.rs` would take exponential time for nested
    // fields.
    let schema = graphql::sdl();
    let schema = parse_schema(&schema).unwrap();
    let types = || {
        schema.definitions.iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(ty) => Some(&ty.node),
            TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
        })
    };
    let objects: BTreeSet<_> = types()
        .filter(|ty| matches!(ty.kind, TypeKind::Object(_) | TypeKind::Interface(_) | TypeKind::Union(_)))
        .map(|ty| ty.name.node.as_str())
        .collect();
    let mut interfaces = 0;
    for ty in types() {
        let TypeKind::Interface(interface) = &ty.kind else { continue };
        interfaces += 1;
        for field in &interface.fields {
            let field_type = field.node.ty.node.to_string();
            let name = field_type.trim_matches(['[', ']', '!']);
            assert!(!objects.contains(name), "{}.{}: {name}", ty.name.node, field.node.name.node);
        }
    }
    assert!(interfaces > 0);
}

/// If a field that reads rows fails, it is null and the rest of its object remains. If the field were not nullable, its
/// object would become null too, for example a payload with a secret that is shown only once.
#[test]
fn fields_that_can_fail_alone_are_nullable() {
    let mut resolvers = 0;
    for file in rust_files(&root().join("src/graphql")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let objects = text.split("\n#[Object").skip(1).chain(text.split("\n#[ComplexObject").skip(1));
        for object in objects.map(|object| object.split("\n}\n").next().unwrap()) {
            for function in object.split("async fn ").skip(1) {
                let signature = function.split(" {\n").next().unwrap();
                assert!(!signature.contains("-> Result<"), "{}: {signature}", file.display());
                resolvers += 1;
            }
        }
    }
    assert!(resolvers > 100, "found only {resolvers} resolvers");
}

/// Fails with versions 7.1.0 to 7.2.1 of async-graphql, which do not set the nearest nullable parent to null.
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
