//! The tables: entities, constraints and migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use entity::deployment::Environment;
use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ColumnTrait, ConnectionTrait, Database, DbBackend, EntityName, EntityTrait, IdenStatic, IsolationLevel, Iterable,
    QueryResult, Statement, TransactionTrait,
};
use serde_json::json;
use vivamo::database::Inspection;
use vivamo::service::deployment;

use support::{Backend, both, run, wait_until};

/// The columns of a table: name, and true if the column may be null.
type Columns = BTreeSet<(String, bool)>;

/// All tables of the database with their columns, without the table of applied migrations.
async fn stored_tables(connection: &impl ConnectionTrait) -> BTreeMap<String, Columns> {
    let backend = connection.get_database_backend();
    let sql = if backend == DbBackend::Postgres {
        "SELECT table_name AS \"table\", column_name AS name, \
         CASE is_nullable WHEN 'YES' THEN 1 ELSE 0 END AS nullable \
         FROM information_schema.columns WHERE table_schema = 'public'"
    } else {
        "SELECT t.name AS \"table\", c.name, CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN 0 ELSE 1 END AS nullable \
         FROM pragma_table_list AS t, pragma_table_info(t.name) AS c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
    };
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in connection.query_all_raw(Statement::from_string(backend, sql)).await.unwrap() {
        let is_nullable = row.try_get::<i32>("", "nullable").unwrap() == 1;
        let columns = tables.entry(row.try_get("", "table").unwrap()).or_default();
        columns.insert((row.try_get("", "name").unwrap(), is_nullable));
    }
    tables.remove("seaql_migrations");
    tables
}

fn entity_columns<E: EntityTrait>() -> Columns {
    E::Column::iter().map(|column| (column.as_str().to_owned(), column.def().is_null())).collect()
}

/// Maps the name of each given module of `entity` to its table and columns.
macro_rules! entities {
    ($($module:ident),* $(,)?) => {
        BTreeMap::from([$((
            stringify!($module),
            (entity::$module::Entity.table_name().to_owned(), entity_columns::<entity::$module::Entity>()),
        )),*])
    };
}

both!(tables_have_the_columns_of_their_entities, Sandbox, async |app| {
    let entities = entities![
        admin_event,
        api_key,
        customer,
        customer_change,
        customer_event,
        customer_operator,
        customer_word,
        deployment,
        erasure,
        idempotency_key,
        operator,
        phone_lookup,
        webhook,
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("entity/src");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let modules: BTreeSet<_> = files
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|module| module != "lib")
        .collect();
    let listed: BTreeSet<_> = entities.keys().map(|module| (*module).to_owned()).collect();
    assert_eq!(listed, modules, "the list above lacks a module of entity/src");

    let expected: BTreeMap<_, _> = entities.into_values().collect();
    assert_eq!(stored_tables(app.database.reader()).await, expected);
});

both!(constraints_enforce_uniqueness_and_references, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    app.created(&a, "1", json!({ "email": "one@example.com", "phone": "+14155552671" })).await;
    app.created(&a, "2", json!({ "email": "two@example.com", "phone": "+14155552672" })).await;
    app.created(&b, "1", json!({ "email": "one@example.com" })).await;
    for violation in [
        "UPDATE customer SET email = 'one@example.com'",
        "UPDATE customer SET phone = '+14155552671'",
        "UPDATE customer_operator SET external_customer_id = '1'",
        "INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at) \
         SELECT operator_id, customer_id, 'another', connected_at FROM customer_operator",
        "UPDATE api_key SET hash = (SELECT hash FROM api_key LIMIT 1)",
        "UPDATE customer_operator SET operator_id = customer_id",
        "DELETE FROM operator",
    ] {
        let result = support::postgres::execute(app.database_url(), violation).await;
        assert!(result.is_err(), "{violation}");
    }
});

both!(deletes_by_sql_have_the_same_effect_on_both_databases, Sandbox, async |app| {
    let own = app.operator("A").await;
    let run = async |sql: &str| support::postgres::execute(app.database_url(), sql).await;
    let create = async || {
        let mutation = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";
        let data = json!({ "email": "ada@example.com", "firstName": "Ada" });
        let input = json!({ "externalCustomerId": "1", "data": data, "idempotencyKey": "k" });
        app.graphql(&own, mutation, json!({ "input": input })).await
    };
    create().await.payload("createCustomer");
    for refused in ["DELETE FROM customer", "DELETE FROM operator"] {
        assert!(run(refused).await.is_err(), "{refused}");
    }
    // Without its idempotency key, the request is executed again, but it creates no second customer.
    run("DELETE FROM idempotency_key").await.unwrap();
    let mut codes = create().await.codes();
    codes.sort_unstable();
    assert_eq!(codes, ["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"]);

    let history = "{ customers { nodes { history { nodes { type operator { id } apiKey { id } } } } } }";
    run("DELETE FROM api_key").await.unwrap();
    assert!(run("DELETE FROM operator").await.is_err());
    let entries = app.query(&app.platform(), history).await["customers"]["nodes"][0]["history"]["nodes"].clone();
    assert_eq!(entries, json!([{ "type": "CREATED", "operator": { "id": own.operator }, "apiKey": null }]));
    run("DELETE FROM customer_operator").await.unwrap();
    run("DELETE FROM operator").await.unwrap();
    // Another server has not cached the operator.
    let replica = app.replica(app.database_url().to_owned()).await;
    let answer = replica.graphql(&replica.platform(), history, json!({})).await;
    assert_eq!(answer.codes(), ["INTERNAL"]);
    let id = answer.headers["x-request-id"].to_str().unwrap();
    let log = app.log();
    let cause = "a row refers to a row that does not exist";
    assert!(log.lines().any(|line| line.contains(id) && line.contains("\"level\":\"ERROR\"") && line.contains(cause)));
    replica.stop().await;

    run("DELETE FROM customer").await.unwrap();
    let left = async |table| app.count_rows(table).await > 0;
    assert!(left("customer_word").await && left("customer_event").await && left("customer_change").await);
    run("DELETE FROM customer_word; DELETE FROM customer_event; DELETE FROM customer_change").await.unwrap();
});

// The order of other collations comes from the operating system, and can change with an upgrade of it. The indexes
// would then be corrupt.
#[tokio::test]
async fn postgres_compares_indexed_texts_byte_by_byte() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let columns = "SELECT DISTINCT concat_ws('.', relname, attname) AS name, collname FROM pg_index \
             CROSS JOIN unnest(indkey::int2[], indcollation::oid[]) AS indexed (number, collated) \
             JOIN pg_attribute ON attrelid = indrelid AND attnum = number \
             JOIN pg_collation ON pg_collation.oid = collated JOIN pg_class ON pg_class.oid = indrelid \
             WHERE relnamespace = 'public'::regnamespace AND relname <> 'seaql_migrations' ORDER BY name";
        let rows = Statement::from_string(DbBackend::Postgres, columns);
        let rows = app.database.reader().query_all_raw(rows).await.unwrap();
        let text = |row: &QueryResult, column| row.try_get::<String>("", column).unwrap();
        let collations: Vec<_> = rows.iter().map(|row| (text(row, "name"), text(row, "collname"))).collect();
        let columns =
            ["customer.email", "customer.phone", "customer_operator.external_customer_id", "customer_word.word"];
        assert_eq!(collations, columns.map(|name| (name.to_owned(), "C".to_owned())));
    })
    .await;
}

// If the page of the row was full, the new version of the row would be on another page, with new index entries.
#[tokio::test]
async fn postgres_stores_an_updated_customer_on_the_same_page() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        for number in 0..100 {
            app.created(&own, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
        }
        let pages = async || {
            let pages = "SELECT (ctid::text::point)[0]::bigint AS page FROM customer ORDER BY id";
            let rows = Statement::from_string(DbBackend::Postgres, pages);
            let rows = app.database.reader().query_all_raw(rows).await.unwrap();
            rows.iter().map(|row| row.try_get::<i64>("", "page").unwrap()).collect::<Vec<_>>()
        };
        let before = pages().await;
        assert!(before.contains(&1), "one page has all customers");
        let update = "mutation { updateCustomer(input: { customer: { externalCustomerId: \"0\" }, \
                      data: { firstName: \"Ada\" } }) { replayed } }";
        app.query(&own, update).await;
        assert_eq!(pages().await, before);
    })
    .await;
}

// The server has prepared statements that return the column.
#[tokio::test]
async fn requests_continue_after_the_type_of_a_column_has_changed() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let read = async || app.customer(&own, json!({ "externalCustomerId": "1" })).await["email"].clone();
        let update = "mutation ($email: String!) { updateCustomer(input: { customer: { externalCustomerId: \"1\" }, \
                      data: { email: $email } }) { customer { email } } }";
        app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
        assert_eq!(read().await, "ada@example.com");
        let connection = Database::connect(app.database_url()).await.unwrap();
        for (collation, email) in [("POSIX", "ada-1@example.com"), ("C", "ada-2@example.com")] {
            let change = format!("ALTER TABLE customer ALTER COLUMN email TYPE text COLLATE \"{collation}\"");
            connection.execute_unprepared(&change).await.unwrap();
            read().await;
            let updated = app.graphql(&own, update, json!({ "email": email })).await.payload("updateCustomer");
            assert_eq!((&updated["customer"]["email"], read().await), (&json!(email), json!(email)));
        }
    })
    .await;
}

both!(migrations_can_be_reverted_and_reapplied_with_rows_in_the_tables, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    let connection = Database::connect(app.database_url()).await.unwrap();
    Migrator::down(&connection, None).await.unwrap();
    assert_eq!(app.database.inspect().await.unwrap().pending.len(), Migrator::migrations().len());
    Migrator::up(&connection, None).await.unwrap();
    assert_eq!(app.database.inspect().await.unwrap(), Inspection::default());
    connection.close().await.unwrap();
    let operator = app.operator("B").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
});

both!(a_database_keeps_the_environment_that_claimed_it_first, Sandbox, async |app| {
    for claimed in [Environment::Production, Environment::Sandbox] {
        let row = deployment::claim(&app.database, claimed, b"another secret").await.unwrap();
        assert_eq!(row.environment, Environment::Sandbox);
        assert_ne!(row.key_fingerprint, Some(b"another secret".to_vec()));
    }
});

both!(concurrent_migrations_are_applied_once, Sandbox, async |app| {
    let connection = Database::connect(app.database_url()).await.unwrap();
    Migrator::down(&connection, None).await.unwrap();
    connection.close().await.unwrap();
    let migrate = || vivamo::database::migrate(app.database_url());
    let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
    let applied = [a, b, c].map(|applied| applied.unwrap().len());
    assert_eq!(applied.iter().filter(|count| **count > 0).count(), 1, "{applied:?}");
    assert_eq!(app.database.inspect().await.unwrap(), Inspection::default());
});

#[tokio::test]
async fn large_indexes_are_built_while_others_write() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let connection = Database::connect(app.database_url()).await.unwrap();
        // One index is missing, and the build of the other was interrupted.
        let reset = "DELETE FROM seaql_migrations WHERE version LIKE '%_event_lookups'; \
                     DROP INDEX customer_event_request_id_idx; \
                     UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'customer_event_api_key_id_idx'::regclass";
        connection.execute_unprepared(reset).await.unwrap();
        // A time limit that is shorter than the wait below.
        let (_, name) = app.database_url().rsplit_once('/').unwrap();
        let limit = format!("ALTER DATABASE {name} SET statement_timeout = '500ms'");
        connection.execute_unprepared(&limit).await.unwrap();
        // The build must wait for this transaction, which holds the lock of a writer.
        let writer = connection.begin().await.unwrap();
        writer.execute_unprepared("LOCK TABLE customer_event IN ROW EXCLUSIVE MODE").await.unwrap();
        let migrate = || vivamo::database::migrate(app.database_url());
        let others = async {
            app.wait_until_blocked(1).await;
            app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
            writer.execute_unprepared("SET statement_timeout = 0; SELECT pg_sleep(0.8)").await.unwrap();
            writer.commit().await.unwrap();
        };
        let (first, second, ()) = tokio::join!(migrate(), migrate(), others);
        assert_eq!(first.unwrap().len() + second.unwrap().len(), 1);
        let valid = "SELECT COUNT(*) AS n FROM pg_index WHERE indisvalid AND indexrelid IN \
                     ('customer_event_request_id_idx'::regclass, 'customer_event_api_key_id_idx'::regclass)";
        assert_eq!(app.select_number(valid).await, 2);
        connection.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_lets_others_write() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let connection = Database::connect(app.database_url()).await.unwrap();
        // The first of the migrations that run again adds columns to `admin_event`.
        let migrations = Migrator::migrations();
        let earlier = migrations.iter().take_while(|migration| migration.name() != "m20261126_000014_webhooks").count();
        let count = migrations.len() - earlier;
        Migrator::down(&connection, u32::try_from(count).ok()).await.unwrap();
        // Under a stricter level, the reader would keep its snapshot, and the build of an index would wait for the
        // reader first.
        let reader = connection.begin_with_config(Some(IsolationLevel::ReadCommitted), None).await.unwrap();
        reader.execute_unprepared("SELECT COUNT(*) FROM admin_event").await.unwrap();
        let others = async {
            app.wait_until_blocked(1).await;
            let write = "SET lock_timeout = '10s'; DELETE FROM admin_event WHERE id IS NULL";
            app.execute(write).await;
            reader.commit().await.unwrap();
        };
        let (applied, ()) = tokio::join!(vivamo::database::migrate(app.database_url()), others);
        assert_eq!(applied.unwrap().len(), count);
        let cause = "migrations are waiting: another transaction holds a lock";
        assert!(app.log().lines().any(|line| line.contains("\"level\":\"WARN\"") && line.contains(cause)));
        connection.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_migration_waits_until_a_sqlite_file_can_be_written() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let writer = app.database.begin_write().await.unwrap();
        let cause = "migrations are waiting: another process is writing";
        let count = || app.log().lines().filter(|line| line.contains(cause)).count();
        let before = count();
        let release = async {
            wait_until("the migration waits", async || (count() > before).then_some(())).await;
            drop(writer);
            Ok(())
        };
        let migrate = async { vivamo::database::migrate(app.database_url()).await };
        let (applied, ()) = tokio::try_join!(migrate, release).unwrap();
        assert_eq!(applied, [""; 0]);
    })
    .await;
}

both!(values_are_read_as_they_were_written, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({
        "email": "ada@example.com", "phone": "+14155552671",
        "firstName": "Ada \u{1F389}", "lastName": "O'Brien \"; DROP TABLE customer; --",
        "address": { "line1": "1 Main St", "city": "Zürich", "country": "CH" },
    });
    let created = app.created(&operator, "id %_\\ 名前", data).await["customer"].clone();
    assert_eq!(app.customer(&operator, json!({ "id": created["id"] })).await, created);
    assert_eq!(app.customer(&operator, json!({ "externalCustomerId": "id %_\\ 名前" })).await, created);
});
