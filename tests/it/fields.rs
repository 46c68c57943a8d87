//! The table of customer fields: the rules that use this table are tested with each field that they apply to. If one of
//! these rules leaves out a new field, a test fails.

use async_graphql::resolver_utils::EnumType;
use entity::customer;
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use vivamo::graphql;
use vivamo::service::customers::CustomerField;

use support::{Answer, TestApp, TestCaller, both};

/// Returns two different values of a field in canonical form, and an invalid value.
fn samples(field: CustomerField) -> [Value; 3] {
    match field {
        CustomerField::Email => [json!("one@example.com"), json!("two@example.com"), json!("invalid")],
        CustomerField::FirstName => [json!("Ada"), json!("Grace"), json!("")],
        CustomerField::LastName => [json!("Lovelace"), json!("Hopper"), json!("")],
        CustomerField::Phone => [json!("+14155552671"), json!("+14155552672"), json!("1")],
        CustomerField::Address => {
            let address = |line1| json!({ "line1": line1, "city": "Springfield", "country": "US" });
            [address("1 Main St"), address("2 Side St"), address("")]
        }
    }
}

/// The name in the schema's enum, for example `FIRST_NAME`.
fn enum_name(field: CustomerField) -> &'static str {
    CustomerField::items().iter().find(|item| item.value == field).unwrap().name
}

fn optional_fields() -> impl Iterator<Item = CustomerField> {
    CustomerField::all().filter(|field| *field != CustomerField::Email)
}

/// Returns the selection of the field. For an object, selects the fields that the samples have.
fn selection(field: CustomerField) -> String {
    let [sample, ..] = samples(field);
    let parts = sample.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>().join(" "));
    parts.map_or_else(|| field.name().to_owned(), |parts| format!("{} {{ {parts} }}", field.name()))
}

async fn create(
    app: &TestApp,
    caller: &TestCaller,
    email: &str,
    key: &str,
    data: &[(CustomerField, &Value)],
) -> Answer {
    let selection: Vec<_> = CustomerField::all().map(selection).collect();
    let query = format!(
        "mutation ($input: CreateCustomerInput!) {{ createCustomer(input: $input) {{ \
         unappliedFields customer {{ id missingFields {} }} }} }}",
        selection.join(" ")
    );
    let mut input = json!({ "externalCustomerId": email, "data": { "email": email }, "idempotencyKey": key });
    for (field, value) in data {
        input["data"][field.name()] = (*value).clone();
    }
    app.graphql(caller, &query, json!({ "input": input })).await
}

async fn update(
    app: &TestApp,
    caller: &TestCaller,
    email: &str,
    key: &str,
    field: CustomerField,
    value: &Value,
) -> Answer {
    let query = format!(
        "mutation ($input: UpdateCustomerInput!) {{ updateCustomer(input: $input) {{ \
         customer {{ missingFields {} }} }} }}",
        selection(field)
    );
    let input =
        json!({ "customer": { "externalCustomerId": email }, "data": { field.name(): value }, "idempotencyKey": key });
    app.graphql(caller, &query, json!({ "input": input })).await
}

/// The entries of the customer's history: the changed fields, and the values of the field before and after.
async fn history(app: &TestApp, caller: &TestCaller, email: &str, field: CustomerField) -> Vec<Value> {
    let query = format!(
        "query ($id: String!) {{ customer(by: {{ externalCustomerId: $id }}) {{ history {{ edges {{ node {{ \
         changedFields before {{ {0} }} after {{ {0} }} }} }} }} }} }}",
        selection(field)
    );
    let answer = app.graphql(caller, &query, json!({ "id": email })).await;
    let edges = answer.body["data"]["customer"]["history"]["edges"].as_array().unwrap().clone();
    edges.into_iter().map(|edge| edge["node"].clone()).collect()
}

fn assert_lists(fields: &Value, field: CustomerField, expected: bool) {
    let is_listed = fields.as_array().unwrap().contains(&json!(enum_name(field)));
    assert_eq!(is_listed, expected, "{}", field.name());
}

#[tokio::test]
async fn every_field_is_in_the_types_of_the_schema() {
    let schema: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    let types = schema["data"]["__schema"]["types"].as_array().unwrap();
    for (name, list) in [
        ("Customer", "fields"),
        ("CustomerValues", "fields"),
        ("CustomerDataInput", "inputFields"),
        ("CustomerDataPatch", "inputFields"),
    ] {
        let definition = types.iter().find(|definition| definition["name"] == name).unwrap();
        for field in CustomerField::all() {
            let is_there = definition[list].as_array().unwrap().iter().any(|other| other["name"] == field.name());
            assert!(is_there, "{name} has no {}", field.name());
        }
    }
}

both!(every_optional_field_can_be_created_changed_and_cleared, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for field in optional_fields() {
        let [one, two, _] = samples(field);
        let email = format!("{}@example.com", field.name().to_lowercase());
        let created = create(app, &operator, &email, &format!("create {email}"), &[(field, &one)]).await;
        let customer = created.payload("createCustomer")["customer"].clone();
        assert_eq!(customer[field.name()], one);
        assert_lists(&customer["missingFields"], field, false);

        let updated = update(app, &operator, &email, &format!("change {email}"), field, &two).await;
        assert_eq!(updated.payload("updateCustomer")["customer"][field.name()], two);
        let cleared = update(app, &operator, &email, &format!("clear {email}"), field, &Value::Null).await;
        let customer = cleared.payload("updateCustomer")["customer"].clone();
        assert_eq!(customer[field.name()], Value::Null);
        assert_lists(&customer["missingFields"], field, true);

        let entries = history(app, &operator, &email, field).await;
        assert_eq!(entries.len(), 3);
        for (entry, before, after) in
            [(&entries[0], None, &one), (&entries[1], Some(&one), &two), (&entries[2], Some(&two), &Value::Null)]
        {
            assert_lists(&entry["changedFields"], field, true);
            assert_eq!(&entry["after"][field.name()], after);
            assert_eq!(entry["before"].get(field.name()), before);
        }
    }
});

both!(every_field_is_part_of_the_canonical_json, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let reused = [("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")];
    for field in optional_fields() {
        let [one, two, _] = samples(field);
        let email = format!("{}@example.com", field.name().to_lowercase());
        create(app, &operator, &email, &email, &[(field, &one)]).await.payload("createCustomer");
        for changed in [&[(field, &two)][..], &[]] {
            create(app, &operator, &email, &email, changed).await.assert_rejected("createCustomer", &reused);
        }
        let key = format!("update {email}");
        update(app, &operator, &email, &key, field, &two).await.payload("updateCustomer");
        for changed in [&one, &Value::Null] {
            update(app, &operator, &email, &key, field, changed).await.assert_rejected("updateCustomer", &reused);
        }
    }
});

both!(every_optional_field_is_filled_on_connect_and_not_overwritten, Sandbox, async |app| {
    let [first, second, third] = [app.operator("A").await, app.operator("B").await, app.operator("C").await];
    for field in optional_fields() {
        let [one, two, _] = samples(field);
        let email = format!("{}@example.com", field.name().to_lowercase());
        create(app, &first, &email, &format!("first {email}"), &[]).await.payload("createCustomer");
        for (operator, given, is_unapplied) in [(&second, &one, false), (&third, &two, true)] {
            let connected = create(app, operator, &email, &format!("connect {email}"), &[(field, given)]).await;
            let payload = connected.payload("createCustomer");
            assert_eq!(payload["customer"][field.name()], one);
            assert_lists(&payload["unappliedFields"], field, is_unapplied);
        }
        let entries = history(app, &second, &email, field).await;
        assert_lists(&entries[0]["changedFields"], field, true);
    }
});

both!(customers_can_be_filtered_by_every_missing_field, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let all: Vec<_> = optional_fields().map(|field| (field, samples(field))).collect();
    let given: Vec<_> = all.iter().map(|(field, [one, ..])| (*field, one)).collect();
    create(app, &operator, "complete@example.com", "complete", &given).await.payload("createCustomer");
    let query = "query ($missing: [CustomerField!]) { customers(filter: { missing: $missing }) { totalCount } }";
    let count = async |field: CustomerField| {
        let answer = app.graphql(&operator, query, json!({ "missing": [enum_name(field)] })).await;
        answer.data()["customers"]["totalCount"].clone()
    };
    for (field, _) in &all {
        assert_eq!(count(*field).await, 0, "{}", field.name());
    }
    create(app, &operator, "empty@example.com", "empty", &[]).await.payload("createCustomer");
    for (field, _) in &all {
        assert_eq!(count(*field).await, 1, "{}", field.name());
    }
    assert_eq!(count(CustomerField::Email).await, 0);
});

/// The strings of a field's value: the value itself, or the parts of an object.
fn strings(value: &Value) -> Vec<&str> {
    if let Value::Object(parts) = value {
        parts.values().flat_map(strings).collect()
    } else {
        value.as_str().into_iter().collect()
    }
}

both!(debug_output_of_a_customer_hides_every_field, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let all: Vec<_> = CustomerField::all().map(|field| (field, samples(field))).collect();
    let given: Vec<_> = all.iter().map(|(field, [one, ..])| (*field, one)).collect();
    create(app, &operator, "one@example.com", "create", &given).await.payload("createCustomer");
    let customer = customer::Entity::find().one(app.database.reader()).await.unwrap().unwrap();
    let output = format!("{customer:?}");
    for field in CustomerField::all() {
        let value = field.json_of(&customer);
        assert!(!strings(&value).is_empty(), "{} has no value", field.name());
        assert!(!strings(&value).iter().any(|part| output.contains(part)), "{}: {output}", field.name());
    }
});

both!(every_field_rejects_an_invalid_value_at_its_path, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "ada@example.com", json!({ "email": "ada@example.com" })).await;
    for field in CustomerField::all() {
        let [.., invalid] = samples(field);
        let created = create(app, &operator, "grace@example.com", "create", &[(field, &invalid)]).await;
        let updated = update(app, &operator, "ada@example.com", "update", field, &invalid).await;
        for answer in [created, updated] {
            let path = answer.body["errors"][0]["extensions"]["inputPath"].clone();
            assert_eq!(path.as_array().unwrap()[..3], [json!("input"), json!("data"), json!(field.name())]);
            assert!(answer.codes()[0].starts_with("INVALID_"), "{}", answer.body);
        }
    }
});
