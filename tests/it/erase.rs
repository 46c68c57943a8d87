//! `eraseCustomer`: after the erasure, the sweep of the feed and the purge of the SQLite file, no value of the person
//! is stored anywhere.

use std::process::Command;

use chrono::TimeDelta;
use entity::customer_word;
use entity::deployment::Environment;
use entity::value::{CustomerId, PhoneNumber};
use sea_orm::sqlx::sqlite::SqliteConnection;
use sea_orm::sqlx::{Connection, Executor};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::phone_lookup::lookup_hashes;
use vivamo::service::{Caller, now};

use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, both, copy_history, run};

const ERASE: &str = "mutation ($input: EraseCustomerInput!) { eraseCustomer(input: $input) { replayed \
    erasure { id customerId erasedAt reference requestId operators entries } } }";
const CREATE: &str =
    "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed outcome customer { id } } }";
const UPDATE: &str = "mutation ($input: UpdateCustomerInput!) { updateCustomer(input: $input) { replayed } }";
const EVENTS: &str = "query ($id: ID!) { customerEvents(customerId: $id, first: 100) { nodes { \
    type version requestId changedFields operator { name } apiKey { name } \
    before { email phone firstName lastName address { line1 } } after { email phone firstName lastName address { line1 } } \
    } } }";

async fn erase(app: &TestApp, input: Value) -> Answer {
    app.graphql(&app.platform(), ERASE, json!({ "input": input })).await
}

async fn erased(app: &TestApp, id: &Value) -> Value {
    erase(app, json!({ "id": id, "reference": "Case 7" })).await.payload("eraseCustomer")["erasure"].clone()
}

/// Returns everything that the database stores, in lower case: the files of SQLite, or a dump of PostgreSQL.
pub fn stored(app: &TestApp) -> String {
    let bytes = match app.database_url().strip_prefix("sqlite://") {
        Some(file) => {
            let read = |file: String| std::fs::read(file).unwrap();
            [read(file.to_owned()), read(format!("{file}-wal"))].concat()
        }
        None => {
            let dump = Command::new("pg_dump").arg("--dbname").arg(app.database_url()).output().unwrap();
            assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
            dump.stdout
        }
    };
    String::from_utf8_lossy(&bytes).to_lowercase()
}

/// The values that a string contains.
fn found_in<'v>(text: &str, values: &[&'v str]) -> Vec<&'v str> {
    values.iter().copied().filter(|value| text.contains(value)).collect()
}

both!(erasure_leaves_no_personal_data, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let input = json!({
        "externalCustomerId": "Quuxid-ÄÖ-1", "idempotencyKey": "quuxkey-1",
        "data": {
            "email": " Quuxmail.One@Bücherquux.example ", "phone": "(415) 555-7391", "firstName": "Quuxfirst Zoë",
            "address": { "line1": "1 Quuxstreet", "city": "Quuxcity", "postalCode": "Quux1X", "country": "DE" },
        },
    });
    let created = app.graphql(&a, CREATE, json!({ "input": input })).await.payload("createCustomer");
    let id = created["customer"]["id"].clone();
    let input = json!({
        "externalCustomerId": "quuxid-2", "idempotencyKey": "quuxkey-2",
        "data": { "email": "quuxmail.one@bücherquux.example", "lastName": "O'Quuxlast" },
    });
    app.graphql(&b, CREATE, json!({ "input": input })).await.payload("createCustomer");
    let changes = json!({
        "email": "quuxnewer@example.com", "phone": "+442079467392", "firstName": "Quuxnewer",
        "address": { "line1": "2 Quuxroad", "city": "Quuxtown", "country": "GB" },
    });
    let input = json!({ "customer": { "id": id }, "data": changes, "idempotencyKey": "quuxkey-3" });
    app.graphql(&a, UPDATE, json!({ "input": input })).await.payload("updateCustomer");
    let input = json!({
        "id": id, "field": "PHONE", "value": "+442079467392", "verifiedAt": "2026-11-20T12:00:00Z",
        "idempotencyKey": "quuxkey-4",
    });
    let verify = "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { replayed } }";
    app.graphql(&app.platform(), verify, json!({ "input": input })).await.payload("recordVerification");
    // Creates many other customers, so that rows move between the pages of the SQLite file.
    for number in 0..200 {
        let data = json!({
            "email": format!("{number}x{}@example.com", "x".repeat(number % 60)), "firstName": "Grace",
            "phone": format!("+1415555{number:04}"),
        });
        app.created(&a, &format!("other-{number}"), data).await;
    }

    // The current values, the earlier values, their search words, and the external ids.
    let values = [
        "quuxmail.one",
        "quuxmail",
        "xn--bcherquux-q9a",
        "quuxfirst zoë",
        "quuxstreet",
        "quuxcity",
        "quux1x",
        "4155557391",
        "o'quuxlast",
        "quuxlast",
        "quuxnewer@example.com",
        "quuxnewer",
        "442079467392",
        "2079467392",
        "quuxroad",
        "quuxtown",
        "quuxid-äö-1",
        "quuxid-2",
        "quuxid",
    ];
    let customer = CustomerId::parse(id.as_str().unwrap()).unwrap();
    let words = customer_word::Entity::find().filter(customer_word::Column::CustomerId.eq(customer));
    let words = words.all(app.database.reader()).await.unwrap().into_iter().filter_map(|row| row.word);
    // Shorter words, for example the last digits of a phone, may be parts of other values.
    let words: Vec<_> =
        words.map(|word| word.as_str().to_owned()).filter(|word| word.contains("quux") && word.len() > 5).collect();
    assert!(words.len() > 5);
    let values: Vec<_> = values.into_iter().chain(words.iter().map(String::as_str)).collect();
    let keys = ["quuxkey-1", "quuxkey-2", "quuxkey-3", "quuxkey-4"];
    // On SQLite, the latest rows may be only in the `-wal` file.
    let before = stored(app);
    let missing: Vec<_> = values.iter().filter(|value| !before.contains(**value)).collect();
    assert_eq!(missing, Vec::<&&str>::new(), "the database did not contain these values before the erasure");
    assert_eq!(found_in(&before, &keys), Vec::<&str>::new());

    let receipt = erased(app, &id).await;
    assert_eq!((&receipt["operators"], &receipt["entries"]), (&json!(2), &json!(4)));
    // The feed keeps the external ids for the operators until the changes of the erasure are deleted.
    app.wait_for_feed().await;
    app.services.feed.sweep(&Caller::Platform, now() + TimeDelta::seconds(1)).await.unwrap();
    assert_eq!(app.services.customers.purge_erased(&Caller::Platform).await.unwrap(), !app.is_postgres());
    assert_eq!(found_in(&stored(app), &values), Vec::<&str>::new());
    assert_eq!(found_in(&app.log().to_lowercase(), &values), Vec::<&str>::new());
    // The other customers are still there.
    assert_eq!(app.count_rows("customer").await, 200);
    assert!(!app.services.customers.purge_erased(&Caller::Platform).await.unwrap());
});

// `VACUUM` writes the whole file to the write-ahead log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_sqlite_does_not_grow_while_a_reader_uses_it() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let customer = app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
        let mut reader = SqliteConnection::connect(app.database_url()).await.unwrap();
        reader.execute("BEGIN; SELECT COUNT(*) FROM customer").await.unwrap();
        erased(app, &customer["customer"]["id"]).await;
        let log = format!("{}-wal", app.database_url().strip_prefix("sqlite://").unwrap());
        let before = std::fs::metadata(&log).unwrap().len();
        app.services.customers.purge_erased(&Caller::Platform).await.unwrap_err();
        assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
        reader.execute("ROLLBACK").await.unwrap();
        assert!(app.services.customers.purge_erased(&Caller::Platform).await.unwrap());
        // The log has only the page with the number of erasures.
        assert!(std::fs::metadata(&log).unwrap().len() < before / 10);
    })
    .await;
}

both!(an_erased_customer_does_not_exist, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada" });
    let id = app.created(&a, "1", data.clone()).await["customer"]["id"].clone();
    app.created(&b, "2", data.clone()).await;
    app.updated(&a, json!({ "id": id }), json!({ "firstName": null, "phone": "+14155552672" })).await;
    let before = app.graphql(&app.platform(), EVENTS, json!({ "id": id })).await.data()["customerEvents"].clone();

    let answer = erase(app, json!({ "id": id, "reference": "  Case 7 " })).await;
    let receipt = answer.payload("eraseCustomer")["erasure"].clone();
    assert_eq!(receipt["customerId"], id);
    assert_eq!(receipt["reference"], "Case 7");
    assert_eq!(receipt["requestId"], answer.headers["x-request-id"].to_str().unwrap());
    assert_eq!((&receipt["operators"], &receipt["entries"]), (&json!(2), &json!(3)));

    for caller in [&a, &b, &app.platform()] {
        for by in [json!({ "id": id }), json!({ "email": "ada@example.com" }), json!({ "phone": "+14155552672" })] {
            assert_eq!(app.customer(caller, by).await, json!(null));
        }
        let answer = app.update(caller, json!({ "id": id }), json!({ "firstName": "Eve" })).await;
        answer.assert_rejected("updateCustomer", &[("CUSTOMER_NOT_FOUND", "input.customer")]);
        let list = app.query(caller, "{ customers { totalCount nodes { id } } }").await;
        assert_eq!(list["customers"], json!({ "totalCount": 0, "nodes": [] }));
    }
    for (input, field) in
        [(json!({ "id": id, "reference": "x" }), "input.id"), (json!({ "id": "x", "reference": "x" }), "input.id")]
    {
        erase(app, input).await.assert_rejected("eraseCustomer", &[("CUSTOMER_NOT_FOUND", field)]);
    }

    // The entries keep the names of the changed fields, the time and the author.
    let after = app.graphql(&app.platform(), EVENTS, json!({ "id": id })).await.data()["customerEvents"].clone();
    let mut expected = before["nodes"].as_array().cloned().unwrap();
    let nothing = json!({ "email": null, "phone": null, "firstName": null, "lastName": null, "address": null });
    for entry in &mut expected {
        let is_created = entry["type"] == "CREATED";
        entry["before"] = if is_created { json!(null) } else { nothing.clone() };
        entry["after"] = nothing.clone();
    }
    expected.push(json!({
        "type": "ERASED", "version": 2, "requestId": receipt["requestId"], "changedFields": [], "operator": null,
        "apiKey": null, "before": nothing, "after": nothing,
    }));
    assert_eq!(after["nodes"], json!(expected));

    // The receipt can be read.
    let found =
        "query ($id: ID!) { erasure(id: $id) { id customerId } node(id: $id) { id ... on Erasure { reference } } }";
    let answer = app.graphql(&app.platform(), found, json!({ "id": receipt["id"] })).await;
    assert_eq!(answer.data()["erasure"], json!({ "id": receipt["id"], "customerId": id }));
    assert_eq!(answer.data()["node"], json!({ "id": receipt["id"], "reference": "Case 7" }));

    // The email, the phone and the external ids can be used again immediately.
    let new = app.created(&b, "2", data).await;
    assert_eq!(new["outcome"], "CREATED");
    assert_ne!(new["customer"]["id"], id);
    app.updated(&b, json!({ "externalCustomerId": "2" }), json!({ "phone": "+14155552672" })).await;
});

both!(idempotency_keys_of_an_erased_customer_execute_nothing, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let create = json!({ "externalCustomerId": "1", "data": { "email": "ada@example.com" }, "idempotencyKey": "c" });
    let created = app.graphql(&operator, CREATE, json!({ "input": create })).await.payload("createCustomer");
    let id = &created["customer"]["id"];
    let update = json!({ "customer": { "id": id }, "data": { "firstName": "Ada" }, "idempotencyKey": "u" });
    app.graphql(&operator, UPDATE, json!({ "input": update })).await.payload("updateCustomer");
    let by_platform = app.graphql(&app.platform(), UPDATE, json!({ "input": update })).await;
    by_platform.payload("updateCustomer");
    let verify_query = "mutation ($input: RecordVerificationInput!) { recordVerification(input: $input) { replayed } }";
    let verify = json!({
        "id": id, "field": "EMAIL", "value": "ada@example.com", "verifiedAt": "2026-11-20T12:00:00Z",
        "idempotencyKey": "v",
    });
    app.graphql(&app.platform(), verify_query, json!({ "input": verify })).await.payload("recordVerification");

    let input = json!({ "id": id, "reference": "Case 7", "idempotencyKey": "e" });
    let first = erase(app, input.clone()).await.payload("eraseCustomer");
    let platform = app.platform();
    let requests: [(&TestCaller, &str, &str, &Value); 4] = [
        (&operator, "createCustomer", CREATE, &create),
        (&operator, "updateCustomer", UPDATE, &update),
        (&platform, "updateCustomer", UPDATE, &update),
        (&platform, "recordVerification", verify_query, &verify),
    ];
    for (caller, field, query, input) in requests {
        let answer = app.graphql(caller, query, json!({ "input": input })).await;
        answer.assert_rejected(field, &[("CUSTOMER_NOT_FOUND", "")]);
    }
    assert_eq!(app.count_rows("customer").await, 0);
    let replayed = erase(app, input.clone()).await.payload("eraseCustomer");
    assert_eq!((&replayed["replayed"], &replayed["erasure"]), (&json!(true), &first["erasure"]));
    for (field, value) in [("id", json!("cus_01h455vb4pex5vsknk084sn02q")), ("reference", json!("Case 8"))] {
        let mut other = input.clone();
        other[field] = value;
        let reused = [("IDEMPOTENCY_KEY_REUSED", "input.idempotencyKey")];
        erase(app, other).await.assert_rejected("eraseCustomer", &reused);
    }
});

both!(cached_carrier_answers_of_all_phones_are_deleted, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let id = app.created(&operator, "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    let id = id["customer"]["id"].clone();
    app.updated(&operator, json!({ "id": id }), json!({ "phone": "+14155552672" })).await;
    for phone in ["+14155552671", "+14155552672", "+14155552673"] {
        let hashes = lookup_hashes(&KeyedHasher::new(KEY_SECRET), PhoneNumber::parse(phone).unwrap().as_str());
        let hex: String = hashes.current.iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = if app.is_postgres() { format!("'\\x{hex}'") } else { format!("x'{hex}'") };
        let row = format!("INSERT INTO phone_lookup VALUES ({hash}, 'mobile', '2126-01-01T00:00:00+00:00')");
        app.execute(&row).await;
    }
    erased(app, &id).await;
    assert_eq!(app.count_rows("phone_lookup").await, 1);
});

both!(a_long_history_loses_its_values, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({ "email": "ada@example.com", "phone": "+14155552671" });
    let id = app.created(&operator, "quuxid", data.clone()).await["customer"]["id"].clone();
    // More entries than three statements of an erasure change, and the rows of two operators in the feed for each of
    // these entries.
    app.execute(&copy_history(&app.database, 32_000)).await;
    app.created(&app.operator("B").await, "quuxother", data).await;
    let changes = "INSERT INTO customer_change (reader_id, position, id, customer_id, external_customer_id, type, version, \
                   changed_fields, own, occurred_at, swept) \
                   SELECT c.reader_id, c.position, e.id, c.customer_id, c.external_customer_id, 'updated', c.version, \
                   c.changed_fields, c.own, c.occurred_at, c.swept FROM customer_change c, customer_event e \
                   WHERE c.external_customer_id IS NOT NULL AND e.type = 'updated'";
    app.execute(changes).await;
    assert_eq!(app.count_rows("customer_change").await, 64_004);
    assert_eq!(erased(app, &id).await["entries"], 32_002);
    let text = |column: &str| if app.is_postgres() { format!("CAST({column} AS text)") } else { column.to_owned() };
    let (before, after) = (text("before"), text("after"));
    let with_value = format!("{before} LIKE '%ada%' OR {after} LIKE '%ada%' OR {after} LIKE '%2671%'");
    let count = async |table: &str, condition: &str| {
        app.select_number(&format!("SELECT COUNT(*) AS n FROM {table} WHERE {condition}")).await
    };
    assert_eq!(count("customer_event", &with_value).await, 0);
    // The entries keep the names of the changed fields.
    let named = format!("{after} LIKE '%\"email\":%null%' AND {after} LIKE '%\"phone\":%null%'");
    assert_eq!(count("customer_event", &format!("type IN ('created', 'updated') AND {named}")).await, 32_001);
    assert_eq!(count("customer_change", "external_customer_id LIKE 'quux%' AND type <> 'erased'").await, 0);
    for table in ["customer_event", "customer_change"] {
        let copies = format!("DELETE FROM {table} WHERE type = 'updated'");
        app.execute(&copies).await;
    }
});

both!(only_the_platform_erases_and_reads_receipts, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let mut receipts = Vec::new();
    for number in 0..3 {
        let created = app.created(&operator, "1", json!({ "email": format!("{number}@example.com") })).await;
        // The reference is invalid, but the permission is checked first.
        let input = json!({ "id": created["customer"]["id"], "reference": "" });
        let answer = app.graphql(&operator, ERASE, json!({ "input": input })).await;
        answer.assert_rejected("eraseCustomer", &[("FORBIDDEN", "")]);
        receipts.push(erased(app, &created["customer"]["id"]).await["id"].clone());
    }
    for reference in ["", "a\nb", &"x".repeat(101)] {
        let answer = erase(app, json!({ "id": "x", "reference": reference })).await;
        answer.assert_rejected("eraseCustomer", &[("INVALID_ARGUMENT", "input.reference")]);
    }
    for (query, field) in [
        ("{ erasures { nodes { id } } }", "erasures"),
        ("{ customerEvents(customerId: \"x\") { nodes { id } } }", "customerEvents"),
    ] {
        app.graphql(&operator, query, json!({})).await.assert_rejected(field, &[("FORBIDDEN", "")]);
    }
    let one = "query ($id: ID!) { erasure(id: $id) { id } node(id: $id) { id } }";
    for id in [&receipts[0], &json!("era_01h455vb4pex5vsknk084sn02q"), &json!("x")] {
        let answer = app.graphql(&operator, one, json!({ "id": id })).await;
        assert_eq!(answer.body, json!({ "data": { "erasure": null, "node": null } }));
    }

    let list = "query ($after: String) { erasures(first: 2, after: $after) { nodes { id } \
                pageInfo { endCursor hasNextPage } } }";
    let first = app.graphql(&app.platform(), list, json!({})).await.data()["erasures"].clone();
    let after = json!({ "after": first["pageInfo"]["endCursor"] });
    let second = app.graphql(&app.platform(), list, after).await.data()["erasures"].clone();
    let ids = [&first, &second].map(|page| page["nodes"].as_array().cloned().unwrap()).concat();
    assert_eq!(ids.iter().map(|node| node["id"].clone()).collect::<Vec<_>>(), receipts);
    assert_eq!((&first["pageInfo"]["hasNextPage"], &second["pageInfo"]["hasNextPage"]), (&json!(true), &json!(false)));
    for id in ["x", "cus_01h455vb4pex5vsknk084sn02q"] {
        let answer = app.graphql(&app.platform(), EVENTS, json!({ "id": id })).await;
        assert_eq!(answer.data()["customerEvents"], json!({ "nodes": [] }));
    }
});

both!(a_version_that_must_not_write_any_more_erases_nothing, Sandbox, async |app| {
    let own = app.operator("A").await;
    let id = app.created(&own, "1", json!({ "email": "ada@example.com" })).await["customer"]["id"].clone();
    // This service has no background jobs, so only the erasure itself finds out.
    app.execute("UPDATE deployment SET required_migration = 'm20990101_000001_later'").await;
    assert_eq!(erase(app, json!({ "id": id, "reference": "Case 7" })).await.codes(), ["UNAVAILABLE"]);
    assert_eq!(app.count_rows("customer").await, 1);
    app.execute("UPDATE deployment SET required_migration = NULL").await;
    erased(app, &id).await;
});
