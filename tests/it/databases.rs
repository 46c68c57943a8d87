//! The tables and their history.

use std::collections::BTreeSet;

use entity::deployment::Environment;
use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, Database, DbBackend, EntityTrait, IdenStatic, Iterable, Statement};
use serde_json::json;
use vivamo::service::deployment;

use support::{TestApp, both};

/// The columns of a table, and which of them may be null.
async fn columns(connection: &impl ConnectionTrait, table: &str) -> BTreeSet<(String, bool)> {
    let backend = connection.get_database_backend();
    let sql = if backend == DbBackend::Postgres {
        format!(
            "SELECT column_name AS name, CASE is_nullable WHEN 'YES' THEN 1 ELSE 0 END AS nullable \
             FROM information_schema.columns WHERE table_name = '{table}'"
        )
    } else {
        format!(
            "SELECT name, CASE WHEN \"notnull\" = 1 OR pk > 0 THEN 0 ELSE 1 END AS nullable \
             FROM pragma_table_info('{table}')"
        )
    };
    let rows = connection.query_all_raw(Statement::from_string(backend, sql)).await.unwrap();
    rows.iter()
        .map(|row| (row.try_get("", "name").unwrap(), row.try_get::<i32>("", "nullable").unwrap() == 1))
        .collect()
}

async fn assert_columns<E: EntityTrait>(app: &TestApp, entity: E) {
    let expected: BTreeSet<_> = E::Column::iter()
        .map(|column| (column.as_str().to_owned(), sea_orm::ColumnTrait::def(&column).is_null()))
        .collect();
    assert_eq!(columns(app.database.reader(), entity.table_name()).await, expected, "{}", entity.table_name());
}

both!(the_tables_are_what_the_entities_say, Sandbox, async |app| {
    assert_columns(app, entity::customer::Entity).await;
    assert_columns(app, entity::customer_operator::Entity).await;
    assert_columns(app, entity::operator::Entity).await;
    assert_columns(app, entity::api_key::Entity).await;
    assert_columns(app, entity::deployment::Entity).await;
    assert_columns(app, entity::phone_lookup::Entity).await;
    assert_columns(app, entity::customer_event::Entity).await;
    assert_columns(app, entity::idempotency_key::Entity).await;
});

both!(every_uniqueness_is_a_constraint, Sandbox, async |app| {
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

both!(migrations_go_up_down_and_up_with_rows_in_the_tables, Sandbox, async |app| {
    let operator = app.operator("A").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com", "phone": "+14155552671" })).await;
    let connection = Database::connect(app.database_url()).await.unwrap();
    Migrator::down(&connection, None).await.unwrap();
    assert_eq!(app.database.pending_migrations().await.unwrap(), Migrator::migrations().len());
    Migrator::up(&connection, None).await.unwrap();
    assert_eq!(app.database.pending_migrations().await.unwrap(), 0);
    connection.close().await.unwrap();
    let operator = app.operator("B").await;
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
});

both!(a_database_remembers_its_environment, Sandbox, async |app| {
    for claimed in [Environment::Production, Environment::Sandbox] {
        assert_eq!(deployment::claim(&app.database, claimed).await.unwrap(), Environment::Sandbox);
    }
});

both!(replicas_that_start_at_once_migrate_once, Sandbox, async |app| {
    let connection = Database::connect(app.database_url()).await.unwrap();
    Migrator::down(&connection, None).await.unwrap();
    connection.close().await.unwrap();
    let migrate = || vivamo::database::migrate(app.database_url());
    if app.is_postgres() {
        let (a, b, c) = tokio::join!(migrate(), migrate(), migrate());
        assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    } else {
        migrate().await.unwrap();
    }
    assert_eq!(app.database.pending_migrations().await.unwrap(), 0);
});

both!(what_is_written_is_what_is_read, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let data = json!({
        "email": "ada@example.com", "phone": "+14155552671", "firstName": "Ada \u{1F389}", "lastName": "O'Brien \"; DROP TABLE customer; --",
        "address": { "line1": "1 Main St", "city": "Zürich", "country": "CH" },
    });
    let created = app.created(&operator, "id %_\\ 名前", data).await["customer"].clone();
    assert_eq!(app.customer(&operator, json!({ "id": created["id"] })).await, created);
    assert_eq!(app.customer(&operator, json!({ "externalCustomerId": "id %_\\ 名前" })).await, created);
});
