//! Requests every field of the schema with every kind of key. New fields are covered without a change here, because the
//! requests are built from the introspection result.

use std::collections::HashMap;

use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{DisplayName, OperatorId};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use vivamo::graphql;
use vivamo::service::api_keys::NewApiKey;
use vivamo::service::{Caller, RequestInfo};

use support::{KEY_SECRET, TestApp, TestCaller, both};

/// The queries that fail with `FORBIDDEN` unless the caller is the platform.
const PLATFORM_QUERIES: [&str; 3] = ["adminEvents", "customerEvents", "erasures"];

/// The mutations that fail with `FORBIDDEN` unless the caller is the platform.
const PLATFORM_MUTATIONS: [&str; 7] = [
    "createOperator",
    "updateOperator",
    "createApiKey",
    "revokeApiKey",
    "revokeApiKeys",
    "recordVerification",
    "eraseCustomer",
];

/// The types of the introspection result, by name.
struct Types(HashMap<String, Value>);

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The name of a type without `!` and `[]`.
fn named_type(kind: &Value) -> &str {
    if kind["ofType"].is_null() { text(&kind["name"]) } else { named_type(&kind["ofType"]) }
}

impl Types {
    async fn read() -> Self {
        let schema: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
        let types = list(&schema["data"]["__schema"]["types"]);
        Self(types.iter().map(|kind| (text(&kind["name"]).to_owned(), kind.clone())).collect())
    }

    /// A valid GraphQL literal of a type. Ids are those of the customer and the operator in `ids`.
    fn value(&self, kind: &Value, ids: &Value) -> String {
        if kind["kind"] == "NON_NULL" {
            return self.value(&kind["ofType"], ids);
        }
        if kind["kind"] == "LIST" {
            return format!("[{}]", self.value(&kind["ofType"], ids));
        }
        let name = named_type(kind);
        let definition = &self.0[name];
        match (text(&definition["kind"]), name) {
            ("ENUM", _) => text(&list(&definition["enumValues"])[0]["name"]).to_owned(),
            ("INPUT_OBJECT", _) => {
                let given = needed_fields(definition).into_iter().map(|field| {
                    let value = match text(&field["name"]) {
                        "email" => "\"walker@example.com\"".to_owned(),
                        "operatorId" => ids["operator"].to_string(),
                        _ => self.value(&field["type"], ids),
                    };
                    format!("{}: {value}", text(&field["name"]))
                });
                format!("{{ {} }}", given.collect::<Vec<_>>().join(", "))
            }
            (_, "ID") => ids["customer"].to_string(),
            (_, "Int") => "1".to_owned(),
            (_, "Boolean") => "true".to_owned(),
            (_, "DateTime") => "\"2100-01-01T00:00:00Z\"".to_owned(),
            _ => "\"walk\"".to_owned(),
        }
    }

    /// A GraphQL literal of a type that passes validation, but is not a valid value of most arguments.
    fn invalid_value(&self, kind: &Value) -> String {
        if kind["kind"] == "NON_NULL" {
            return self.invalid_value(&kind["ofType"]);
        }
        let definition = &self.0[named_type(kind)];
        match (text(&definition["kind"]), text(&definition["name"])) {
            _ if kind["kind"] == "LIST" => "[]".to_owned(),
            ("INPUT_OBJECT", _) => {
                let fields = needed_fields(definition).into_iter();
                let given =
                    fields.map(|field| format!("{}: {}", text(&field["name"]), self.invalid_value(&field["type"])));
                format!("{{ {} }}", given.collect::<Vec<_>>().join(", "))
            }
            (_, "Int") => "0".to_owned(),
            (_, "ID" | "String") => "\"\"".to_owned(),
            _ => self.value(kind, &Value::Null),
        }
    }

    /// The selection set of a type: all fields, down to this many levels of objects.
    fn selection(&self, kind: &Value, ids: &Value, levels: usize) -> String {
        let definition = &self.0[named_type(kind)];
        if ["SCALAR", "ENUM"].contains(&text(&definition["kind"])) {
            return String::new();
        }
        let mut selected = vec!["__typename".to_owned()];
        for field in list(&definition["fields"]) {
            let is_leaf = ["SCALAR", "ENUM"].contains(&text(&self.0[named_type(&field["type"])]["kind"]));
            if is_leaf || levels > 0 {
                selected.push(self.field(field, ids, levels.saturating_sub(1)));
            }
        }
        for kind in list(&definition["possibleTypes"]) {
            if definition["kind"] == "INTERFACE" && levels > 0 {
                selected.push(format!("... on {} {}", text(&kind["name"]), self.selection(kind, ids, levels - 1)));
            }
        }
        format!("{{ {} }}", selected.join(" "))
    }

    /// For each scalar field down to this many levels of objects, a selection of this field alone.
    fn single_selections(&self, field: &Value, ids: &Value, levels: usize) -> Vec<String> {
        let head = self.head(field, ids);
        let definition = &self.0[named_type(&field["type"])];
        if ["SCALAR", "ENUM"].contains(&text(&definition["kind"])) {
            return vec![head];
        }
        let fields = list(&definition["fields"]).iter().filter(|_| levels > 0);
        let inner = fields.flat_map(|field| self.single_selections(field, ids, levels - 1));
        inner.map(|selection| format!("{head} {{ {selection} }}")).collect()
    }

    fn field(&self, field: &Value, ids: &Value, levels: usize) -> String {
        format!("{} {}", self.head(field, ids), self.selection(&field["type"], ids, levels))
    }

    /// The name of a field with its required arguments.
    fn head(&self, field: &Value, ids: &Value) -> String {
        // `customerEvents` needs one of its optional arguments.
        let is_required =
            |argument: &&Value| argument["type"]["kind"] == "NON_NULL" || argument["name"] == "customerId";
        let required = list(&field["args"]).iter().filter(is_required);
        let arguments: Vec<_> = required
            .map(|argument| format!("{}: {}", text(&argument["name"]), self.value(&argument["type"], ids)))
            .collect();
        let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        format!("{}{arguments}", text(&field["name"]))
    }

    /// A request for each root field, with the name of the field.
    fn requests(&self, root: &str, ids: &Value) -> Vec<(String, String)> {
        let operation = root.to_lowercase();
        let fields = list(&self.0[root]["fields"]).iter();
        fields
            .map(|field| {
                let request = format!("{operation} {{ {} }}", self.field(field, ids, 3));
                (text(&field["name"]).to_owned(), request)
            })
            .collect()
    }

    /// A request for each root field with invalid values of all arguments, with the name of the field.
    fn invalid_requests(&self, root: &str) -> Vec<(String, String)> {
        let operation = root.to_lowercase();
        let fields = list(&self.0[root]["fields"]).iter().filter(|field| !list(&field["args"]).is_empty());
        fields
            .map(|field| {
                let arguments = list(&field["args"]).iter();
                let arguments = arguments
                    .map(|argument| format!("{}: {}", text(&argument["name"]), self.invalid_value(&argument["type"])));
                let (name, arguments) = (text(&field["name"]), arguments.collect::<Vec<_>>().join(", "));
                (name.to_owned(), format!("{operation} {{ {name}({arguments}) {{ __typename }} }}"))
            })
            .collect()
    }
}

/// The fields of an input object that a request sets: the required fields, or else the first field.
fn needed_fields(definition: &Value) -> Vec<&Value> {
    // An update needs `data` or an external id.
    let is_required = |field: &&Value| field["type"]["kind"] == "NON_NULL" || field["name"] == "data";
    let fields = list(&definition["inputFields"]);
    let required: Vec<_> = fields.iter().filter(is_required).collect();
    if required.is_empty() { fields.iter().take(1).collect() } else { required }
}

/// Returns keys that must be rejected: an empty, a revoked, an expired and a mistyped key, and a key of the other
/// environment.
async fn rejected_keys(app: &TestApp, own: &TestCaller) -> Vec<String> {
    let operator = OperatorId::parse(&own.operator).unwrap();
    let keys = &app.services.api_keys;
    let request = || {
        let name = DisplayName::parse("rejected").unwrap();
        NewApiKey { name, access: Access::ReadWrite, expires_at: None }
    };
    let revoked = keys.create(&Caller::Platform, &RequestInfo::command_line(), operator, request()).await.unwrap();
    keys.revoke(&Caller::Platform, &RequestInfo::command_line(), revoked.row.id).await.unwrap();
    let production = app.services_with(Environment::Production, KEY_SECRET).api_keys.clone();
    let foreign =
        production.create(&Caller::Platform, &RequestInfo::command_line(), operator, request()).await.unwrap();
    let expired = keys.create(&Caller::Platform, &RequestInfo::command_line(), operator, request()).await.unwrap();
    let (past, prefix) = (app.past(), &expired.row.prefix);
    let expire = format!("UPDATE api_key SET expires_at = {past} WHERE prefix = '{prefix}'");
    app.execute(&expire).await;
    let secret = |key: &vivamo::service::api_keys::ApiKeyWithSecret| key.secret.expose_secret().to_owned();
    vec![String::new(), secret(&revoked), secret(&expired), secret(&foreign), own.key.to_uppercase()]
}

both!(every_field_respects_every_kind_of_key, Sandbox, async |app| {
    let types = Types::read().await;
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({
        "email": "secret-person@example.com", "phone": "+14155552671",
        "firstName": "Secretfirst", "lastName": "Secretlast",
        "address": { "line1": "1 Secretstreet", "city": "Secretcity", "country": "US" },
    });
    let customer = app.created(&own, "secret-id", data).await["customer"]["id"].clone();
    let ids = json!({ "customer": customer, "operator": own.operator });
    let (queries, mutations) = (types.requests("Query", &ids), types.requests("Mutation", &ids));
    assert!(queries.len() >= 7 && mutations.len() >= 5);

    for key in rejected_keys(app, &own).await {
        let caller = TestCaller { key, ..own.clone() };
        for (field, request) in queries.iter().chain(&mutations) {
            let answer = app.graphql(&caller, request, json!({})).await;
            assert_eq!((answer.status, answer.codes()), (401, vec!["UNAUTHENTICATED".to_owned()]), "{field}");
            assert_eq!(answer.body.get("data"), None, "{field}");
        }
    }

    let read_only = app.key(&own, Access::ReadOnly).await;
    for (field, request) in &mutations {
        let (answer, statements) = app.statements_of(app.graphql(&read_only, request, json!({}))).await;
        assert_eq!(answer.codes(), ["FORBIDDEN"], "{field}: {}", answer.body);
        let message = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(
            message.ends_with(" The key is read-only.") || message.ends_with(" The platform key is required."),
            "{message}"
        );
        assert_eq!(statements, Vec::<String>::new(), "{field}");
    }
    for caller in [&own, &read_only] {
        for (field, request) in &queries {
            let answer = app.graphql(caller, request, json!({})).await;
            let is_for_the_platform = PLATFORM_QUERIES.contains(&field.as_str());
            let expected = if is_for_the_platform { vec!["FORBIDDEN".to_owned()] } else { Vec::new() };
            assert_eq!(answer.codes(), expected, "{field}: {request}");
        }
    }
    let secrets = ["secret-", "secretfirst", "secretlast", "secretstreet", "secretcity", "4155552671"];
    for (field, request) in queries.iter().chain(&mutations) {
        let answer = app.graphql(&other, request, json!({})).await;
        let text = answer.body.to_string().to_lowercase();
        let found: Vec<_> = secrets.into_iter().filter(|secret| text.contains(secret)).collect();
        assert_eq!(found, [""; 0], "{field}");
        assert!(
            !answer.codes().iter().any(|code| ["INTERNAL", "BAD_REQUEST"].contains(&code.as_str())),
            "{field}: {request}"
        );
    }
    for (field, request) in queries.iter().chain(&mutations) {
        let answer = app.graphql(&app.platform(), request, json!({})).await;
        let is_for_operators = field == "createCustomer";
        assert_eq!(answer.codes().contains(&"FORBIDDEN".to_owned()), is_for_operators, "{field}: {}", answer.body);
        if is_for_operators {
            let message = "This API key does not allow this operation. An operator's API key is required.";
            assert_eq!(answer.body["errors"][0]["message"], message);
        }
        assert!(
            !answer.codes().iter().any(|code| ["INTERNAL", "BAD_REQUEST"].contains(&code.as_str())),
            "{field}: {request}"
        );
    }
});

both!(a_missing_right_comes_before_invalid_arguments, Sandbox, async |app| {
    let types = Types::read().await;
    let own = app.operator("Own").await;
    let read_only = app.key(&own, Access::ReadOnly).await;
    let platform = app.platform();
    let (mut forbidden, mut invalid) = (0, 0);
    let (queries, mutations) = (types.invalid_requests("Query"), types.invalid_requests("Mutation"));
    for (field, request) in queries.iter().chain(&mutations) {
        let is_for_the_platform = PLATFORM_QUERIES.contains(&field.as_str());
        let is_mutation = request.starts_with("mutation");
        for (caller, is_forbidden) in [
            (&read_only, is_mutation || is_for_the_platform),
            (&own, PLATFORM_MUTATIONS.contains(&field.as_str()) || is_for_the_platform),
            (&platform, field == "createCustomer"),
        ] {
            let (answer, statements) = app.statements_of(app.graphql(caller, request, json!({}))).await;
            let codes = answer.codes();
            assert_eq!(codes.contains(&"FORBIDDEN".to_owned()), is_forbidden, "{request}: {codes:?}");
            if is_forbidden {
                assert_eq!((codes.len(), statements), (1, Vec::new()), "{request}: {codes:?}");
                forbidden += 1;
            }
            invalid += usize::from(!is_forbidden && !codes.is_empty());
        }
    }
    assert!(forbidden > 20 && invalid > 20, "{forbidden} and {invalid}");
});

both!(each_field_is_the_same_with_and_without_resolvers, Sandbox, async |app| {
    let types = Types::read().await;
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let data = json!({
        "email": "ada@example.com", "phone": "+14155552671", "lastName": "Lovelace \"\\é",
        "address": { "line1": "1 Main St", "city": "Springfield", "country": "US" },
    });
    let customer = app.created(&own, "crm-1", data.clone()).await["customer"]["id"].clone();
    app.created(&other, "A-1", data).await;
    app.created(&own, "crm-2", json!({ "email": "empty@example.com" })).await;
    app.updated(&own, json!({ "id": customer }), json!({ "firstName": "Ada", "phone": null })).await;
    let erased = app.created(&own, "crm-3", json!({ "email": "erased@example.com" })).await["customer"]["id"].clone();
    let writes = format!(
        "mutation {{ eraseCustomer(input: {{ id: {erased}, reference: \"1\" }}) {{ erasure {{ id }} }} \
         createWebhook(input: {{ operatorId: \"{}\", url: \"https://example.com\" }}) {{ webhook {{ id }} }} }}",
        own.operator
    );
    let answer = app.graphql(&app.platform(), &writes, json!({})).await;
    assert_eq!(answer.codes(), Vec::<String>::new(), "{}", answer.body);
    app.wait_for_feed().await;
    let ids = json!({ "customer": customer, "operator": own.operator });
    let resolving = app.replica_without_json_writer().await;
    let mut count = 0;
    for caller in [&own, &app.platform()] {
        for field in list(&types.0["Query"]["fields"]) {
            for selection in types.single_selections(field, &ids, 4) {
                let query = format!("{{ {selection} }}");
                let written = app.graphql(caller, &query, json!({})).await;
                let resolved = resolving.graphql(caller, &query, json!({})).await;
                assert_eq!(written.body["data"], resolved.body["data"], "{selection}");
                assert_eq!(written.errors(), resolved.errors(), "{selection}");
                count += 1;
            }
        }
    }
    assert!(count > 500, "{count} selections");
    resolving.stop().await;
});
