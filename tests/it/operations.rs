//! Problems in operation: databases that refuse connections, roles that lack privileges, settings from files, with
//! quotes or with blanks, changed secrets, metrics, upgrades and backups.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use entity::api_key::Access;
use entity::deployment::{self, Environment};
use entity::value::OperatorId;
use entity::{customer_change, webhook};
use futures::future::join_all;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryTrait, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use vivamo::config::RateLimitSettings;
use vivamo::database::{Database, Transaction};
use vivamo::service::now;

use support::postgres::{self, as_postgres, execute};
use support::process::{Running, install, remove_settings, vivamo};
use support::proxy::{Cut, Proxy};
use support::receiver::{Receiver, Reply, insert_endpoint};
use support::{
    Answer, Backend, KEY_SECRET, TestApp, TestCaller, TestDatabase, both, http_client, logs, run, wait_until,
};

use crate::cli::{SECRET, failure, json_output, role, server_at, stderr, stdout, usage_error};
use crate::erase::stored;

/// Waits until `/readyz` has this status. The wait can take about a second, because the service uses the result of a
/// check again for a second. Returns the body.
async fn wait_until_ready_is(url: &str, status: u16) -> String {
    let what = format!("the status of {url}/readyz is {status}");
    wait_until(&what, async || {
        let answer = http_client().get(format!("{url}/readyz")).send().await.unwrap();
        if answer.status() == status { answer.text().await.ok() } else { None }
    })
    .await
}

/// Sends a `createCustomer`. The external id is this number, and the email contains this number.
async fn create(app: &TestApp, caller: &TestCaller, number: usize) -> Answer {
    app.create(caller, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.codes(), ["UNAVAILABLE"], "{}", answer.body);
    assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_at_the_same_time_share_one_check() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        let before = proxy.connection_count();
        assert_eq!(status_of_probes(&format!("{}/readyz", replica.url)).await, 200);
        // The result of a check is used for a second. There is more than one check only if the probes take longer than
        // a second.
        let opened = proxy.connection_count() - before;
        assert!((1..10).contains(&opened), "{opened} connections for 200 probes");
        replica.stop().await;
    })
    .await;
}

both!(the_result_of_a_check_is_used_for_a_second, Sandbox, async |app| {
    let require = async |migration: &str| {
        app.execute(&format!("UPDATE deployment SET required_migration = {migration}")).await;
    };
    let is_ready = async || app.http.get(format!("{}/readyz", app.url)).send().await.unwrap().status() == 200;
    loop {
        require("'m20990101_000001_later'").await;
        wait_until_ready_is(&app.url, 503).await;
        require("NULL").await;
        // The first 200 is the result of a check that has ended since then.
        let mut since = Instant::now();
        wait_until("the server is ready", async || {
            let is_ready = is_ready().await;
            if !is_ready {
                since = Instant::now();
            }
            is_ready.then_some(())
        })
        .await;
        require("'m20990101_000001_later'").await;
        let is_still_ready = is_ready().await;
        // On a slow machine, the second may be over already. Then the loop tries again.
        if since.elapsed() < Duration::from_secs(1) {
            assert!(is_still_ready);
            break;
        }
    }
    require("NULL").await;
    wait_until_ready_is(&app.url, 200).await;
});

/// Sends 200 requests to this URL at the same time, and returns their common status.
async fn status_of_probes(url: &str) -> u16 {
    let http = http_client();
    let statuses = join_all((0..200).map(|_| async { http.get(url).send().await.unwrap().status().as_u16() })).await;
    assert!(statuses.iter().all(|status| *status == statuses[0]), "{statuses:?}");
    statuses[0]
}

both!(failing_probes_share_one_check_and_healthz_needs_none, Sandbox, async |app| {
    let proxied = if app.is_postgres() { Some(Proxy::before(app.database_url()).await) } else { None };
    let url = proxied.as_ref().map_or_else(|| app.database_url().to_owned(), |(_, url)| url.to_string());
    let connection_count = || proxied.as_ref().map_or(0, |(proxy, _)| proxy.connection_count());
    let replica = app.replica(url).await;
    let before = connection_count();
    assert_eq!(status_of_probes(&format!("{}/healthz", replica.url)).await, 200);
    assert_eq!(connection_count(), before);
    // A later migration that this version must not write under. Each failing check leaves a line in the log, and no
    // other test has this name.
    let (_, port) = replica.url.rsplit_once(':').unwrap();
    let later = format!("m20990101_000001_later_{port}");
    let require = format!(
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('{later}', 1); \
         UPDATE deployment SET required_migration = '{later}'"
    );
    app.execute(&require).await;
    let check_count = || app.log().lines().filter(|line| line.contains(&later)).count();
    wait_until_ready_is(&replica.url, 503).await;
    let (checked, before) = (check_count(), connection_count());
    assert_eq!(status_of_probes(&format!("{}/readyz", replica.url)).await, 503);
    // The result of a check is used for a second. There is more than one check only if the probes take longer than a
    // second.
    let (checks, opened) = (check_count() - checked, connection_count() - before);
    assert!(checked > 0 && checks < 10 && opened < 10, "{checks} checks and {opened} connections for 200 probes");
    replica.stop().await;
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_read_without_a_connection() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let (proxy, database_url) = Proxy::before(app.database_url()).await;
        let folder = TempDir::new().unwrap();
        let mut serve = vivamo(folder.path(), &["serve"]);
        serve.env("DATABASE_URL", database_url.as_str()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
        let (server, _, metrics) = Running::start_with_metrics(&mut serve);
        let before = (proxy.connection_count(), proxy.statement_count());
        assert_eq!(status_of_probes(&metrics).await, 200);
        // The background jobs of the server may open connections and send statements during these requests.
        let opened = proxy.connection_count() - before.0;
        let sent = proxy.statement_count() - before.1;
        assert!(opened < 10 && sent < 100, "{opened} connections and {sent} statements for 200 requests");
        server.stop();
    })
    .await;
}

/// Reads the metrics until they are as expected, and returns them.
async fn scrape_until(metrics: &str, is_expected: impl Fn(&str) -> bool) -> String {
    wait_until("the metrics are as expected", async || {
        let shown = http_client().get(metrics).send().await.unwrap().text().await.unwrap();
        is_expected(&shown).then_some(shown)
    })
    .await
}

both!(a_server_deletes_old_rows_and_erased_values_and_saves_the_use_of_keys, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let erased = "quuxerased@example.com";
    let id = app.created(&operator, "erased", json!({ "email": erased })).await["customer"]["id"].clone();
    let erase = "mutation ($id: ID!) { eraseCustomer(input: { id: $id, reference: \"Case 7\" }) { erasure { id } } }";
    app.graphql(&app.platform(), erase, json!({ "id": id })).await.payload("eraseCustomer");
    for number in 1..=3 {
        let query = create_with_key(&format!("{number}@example.com"), &number.to_string());
        app.graphql(&operator, &query, json!({})).await.payload("createCustomer");
    }
    // PostgreSQL's own files cannot be read here.
    let is_in_file = || !app.is_postgres() && stored(app).contains(erased);
    assert_eq!(is_in_file(), !app.is_postgres());
    app.wait_for_feed().await;
    let days_ago = |days: i64| (now() - TimeDelta::days(days)).format("%Y-%m-%d %H:%M:%S+00:00");
    // All idempotency keys but one have expired. The server is told to keep changes for 30 days.
    let prepare = format!(
        "UPDATE customer_change SET occurred_at = '{}'; \
         UPDATE customer_change SET occurred_at = '{}' \
         WHERE customer_id = (SELECT id FROM customer WHERE email = '3@example.com'); \
         UPDATE idempotency_key SET expires_at = '{}' \
         WHERE key_hash <> (SELECT key_hash FROM idempotency_key ORDER BY key_hash LIMIT 1)",
        days_ago(31),
        days_ago(29),
        days_ago(1),
    );
    app.execute(&prepare).await;
    let folder = TempDir::new().unwrap();
    let mut serve = vivamo(folder.path(), &["serve"]);
    serve.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
    serve.env("VIVAMO_CHANGES_DAYS", "30");
    let (server, url) = Running::start(&mut serve);
    // The third change is left in the feed of the operator and in the feed of the platform.
    let (changes, keys) = ("customer_change WHERE swept = FALSE", "idempotency_key");
    let count = async |rows: &str| app.select_number(&format!("SELECT COUNT(*) AS n FROM {rows}")).await;
    let since = Instant::now();
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    while (count(changes).await, count(keys).await, is_in_file()) != (2, 1, false) {
        interval.tick().await;
        assert!(
            since.elapsed() < Duration::from_secs(90),
            "{} changes, {} keys, erased from the file: {}",
            count(changes).await,
            count(keys).await,
            !is_in_file()
        );
    }
    // The server has saved no use of a key at its start, and saves the next uses a minute later.
    assert_eq!(role(&url, &operator.key).await["data"]["viewer"]["role"], "OPERATOR");
    let used = "api_key WHERE last_used_at IS NOT NULL";
    assert_eq!(count(used).await, 0);
    server.stop();
    assert_eq!(count(used).await, 1);
});

both!(deliveries_and_the_delays_of_changes_are_measured, Sandbox, async |app| {
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let [operator_id, other_id] = [&operator, &other].map(|caller| OperatorId::parse(&caller.operator).unwrap());
    create(app, &operator, 1).await.payload("createCustomer");
    create(app, &other, 9).await.payload("createCustomer");
    app.wait_for_feed().await;
    let in_transaction = async |statement: Statement| {
        let transaction = app.database.begin_write().await.unwrap();
        transaction.execute_raw(statement).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let backend = app.database.reader().get_database_backend();
    for (reader, age) in [(operator_id, TimeDelta::hours(1)), (other_id, TimeDelta::hours(2))] {
        let changes = customer_change::Entity::update_many().filter(customer_change::Column::ReaderId.eq(reader));
        let older = changes.col_expr(customer_change::Column::OccurredAt, (now() - age).into());
        in_transaction(older.build(backend)).await;
    }
    // On PostgreSQL, readers of the feed do not see the next change until this transaction ends.
    let slow = if app.is_postgres() { Some(app.database.begin_write().await.unwrap()) } else { None };
    if let Some(slow) = &slow {
        slow.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
        slow.execute_unprepared("SELECT pg_current_xact_id()").await.unwrap();
        create(app, &operator, 2).await.payload("createCustomer");
    }
    // An endpoint that accepts its delivery, one that rejects it, one that is gone, and one that is disabled.
    let mut receivers = Vec::new();
    for (status, headers) in [(204, ""), (503, "Retry-After: 1200\r\n"), (410, "")] {
        let receiver = Receiver::start().await;
        receiver.plan(Reply::Status(status, headers.to_owned()));
        insert_endpoint(&app.database, operator_id, &receiver.url).await;
        receivers.push(receiver);
    }
    // An endpoint that is disabled, one to which another server is delivering, and one whose next attempt is in an hour
    // because it is failing. The last one does not count, although its change is the oldest.
    let next_hour = now() + TimeDelta::hours(1);
    for (operator, columns) in [
        (operator_id, vec![(webhook::Column::DisabledAt, now())]),
        (operator_id, vec![(webhook::Column::LeaseUntil, next_hour)]),
        (other_id, vec![(webhook::Column::FailingSince, now()), (webhook::Column::NextAttemptAt, next_hour)]),
    ] {
        let endpoint = insert_endpoint(&app.database, operator, &receivers[0].url).await;
        let mut update = webhook::Entity::update_many().filter(webhook::Column::Id.eq(endpoint));
        for (column, time) in columns {
            update = update.col_expr(column, time.into());
        }
        in_transaction(update.build(backend)).await;
    }

    let folder = TempDir::new().unwrap();
    let mut serve = vivamo(folder.path(), &["serve"]);
    serve.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
    let (server, _, metrics) = Running::start_with_metrics(serve.env("VIVAMO_WEBHOOK_NETWORKS", "127.0.0.0/8"));
    let expected = [
        "vivamo_webhook_deliveries_total{outcome=\"delivered\"} 1",
        "vivamo_webhook_deliveries_total{outcome=\"status\"} 2",
        "vivamo_webhooks_disabled_total{reason=\"gone\"} 1",
    ];
    let has = |shown: &str, line: &str| shown.lines().any(|shown| shown == line);
    let value = |shown: &str, name: &str| {
        shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
    };
    // The server measures the endpoints at its start and then every 30 seconds, so it may have measured them before or
    // after the endpoint that is gone was disabled.
    let are_measured = |shown: &str| {
        value(shown, "vivamo_webhooks_disabled").is_some_and(|disabled| (1.0..=2.0).contains(&disabled))
            && value(shown, "vivamo_webhook_lag_seconds").is_some_and(|lag| (3600.0..3900.0).contains(&lag))
    };
    scrape_until(&metrics, |shown| are_measured(shown) && expected.iter().all(|line| has(shown, line))).await;
    assert_eq!(receivers.iter().map(|receiver| receiver.take().len()).collect::<Vec<_>>(), [1, 1, 1]);

    let is_feed_late = |shown: &str| value(shown, "vivamo_feed_lag_seconds").map(|lag| lag > 0.0);
    scrape_until(&metrics, |shown| is_feed_late(shown) == Some(slow.is_some())).await;
    if let Some(slow) = slow {
        slow.commit().await.unwrap();
    }
    server.stop();
});

both!(endpoints_are_measured_by_a_server_that_cannot_deliver, Sandbox, async |app| {
    let operator = app.operator("A").await;
    create(app, &operator, 1).await.payload("createCustomer");
    app.wait_for_feed().await;
    let operator_id = OperatorId::parse(&operator.operator).unwrap();
    insert_endpoint(&app.database, operator_id, "http://127.0.0.1:9/").await;
    for _ in 0..2 {
        insert_endpoint(&app.database, operator_id, "http://127.0.0.1:9/disabled").await;
    }
    app.execute(&format!("UPDATE webhook SET disabled_at = {} WHERE url LIKE '%disabled'", app.past())).await;
    let folder = TempDir::new().unwrap();
    let mut serve = vivamo(folder.path(), &["serve"]);
    serve.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
    // The server finds no CA certificates.
    serve.env("SSL_CERT_FILE", folder.path().join("none")).env("SSL_CERT_DIR", folder.path());
    let (server, _, log) = Running::start_with_log(serve.env("VIVAMO_METRICS", "127.0.0.1:0"));
    assert!(log.contains("cannot deliver webhooks"), "{log}");
    let metrics = log.split("metrics on ").nth(1).unwrap().split_whitespace().next().unwrap();
    let is_measured = |shown: &str| {
        let lag = shown.lines().find_map(|line| line.strip_prefix("vivamo_webhook_lag_seconds "));
        shown.contains("\nvivamo_webhooks_disabled 2\n") && lag.is_some_and(|lag| lag.parse::<f64>().unwrap() > 0.0)
    };
    scrape_until(metrics, is_measured).await;
    server.stop();
});

/// A role of PostgreSQL, with given privileges in one database.
struct Role {
    name: String,
    server: String,
    database: String,
}

impl Role {
    /// Creates a role with these privileges in the database.
    async fn create(database_url: &str, rights: &str) -> Self {
        let (server, database) = database_url.rsplit_once('/').unwrap();
        let role = Self { name: format!("{database}_role"), server: server.to_owned(), database: database.to_owned() };
        let name = &role.name;
        let drop = format!("DROP ROLE IF EXISTS {name}");
        role.run(&drop).await;
        role.run(&format!("CREATE ROLE {name} LOGIN")).await;
        execute(database_url, &rights.replace("ROLE", name)).await.unwrap();
        role
    }

    /// The URL of the database for this role.
    fn url(&self) -> String {
        let host = self.server.rsplit_once('@').unwrap().1;
        format!("postgres://{}@{host}/{}", self.name, self.database)
    }

    /// Runs a statement as the superuser, outside the database, and closes the connections of the role.
    async fn run(&self, sql: &str) {
        let sql = sql.replace("ROLE_NAME", &self.name).replace("DATABASE_NAME", &self.database);
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", self.name);
        for sql in [sql, end] {
            execute(&format!("{}/postgres", self.server), &sql).await.unwrap();
        }
    }
}

/// A server has at most 10 connections.
const MORE_THAN_CONNECTIONS: usize = 12;

const READ_AND_WRITE: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ROLE";

/// Tests that connections from the time in which a database was read-only are replaced: their sessions can stay
/// read-only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_sessions_are_replaced() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let role = Role::create(app.database_url(), READ_AND_WRITE).await;
        let replica = app.replica(role.url()).await;
        role.run("ALTER DATABASE DATABASE_NAME SET default_transaction_read_only = on").await;
        for _ in 0..MORE_THAN_CONNECTIONS {
            assert_unavailable(&create(&replica, &operator, 1).await);
        }
        // Does not close the sessions.
        let reset = format!("ALTER DATABASE {} RESET default_transaction_read_only", role.database);
        execute(&format!("{}/postgres", role.server), &reset).await.unwrap();
        let mut created = 0;
        for number in 0..MORE_THAN_CONNECTIONS {
            created += usize::from(create(&replica, &operator, number).await.codes().is_empty());
        }
        // A background job may have opened another session while the database was read-only.
        assert!(created >= MORE_THAN_CONNECTIONS - 2, "{created}");
        replica.stop().await;
        app.execute(&format!("DROP OWNED BY {}", role.name)).await;
        role.run("DROP ROLE ROLE_NAME").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_logins_or_writes_is_unavailable_until_it_accepts_them() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let role = Role::create(app.database_url(), READ_AND_WRITE).await;
        let replica = app.replica(role.url()).await;
        wait_until_ready_is(&replica.url, 200).await;
        let insert = |verb, word| format!("{verb} INSERT ON customer {word} {}", role.name);
        for (number, (refuse, accept)) in [
            ("ALTER ROLE ROLE_NAME NOLOGIN", "ALTER ROLE ROLE_NAME LOGIN"),
            ("ALTER ROLE ROLE_NAME CONNECTION LIMIT 0", "ALTER ROLE ROLE_NAME CONNECTION LIMIT -1"),
            (
                "ALTER DATABASE DATABASE_NAME ALLOW_CONNECTIONS false",
                "ALTER DATABASE DATABASE_NAME ALLOW_CONNECTIONS true",
            ),
            (
                "REVOKE CONNECT ON DATABASE DATABASE_NAME FROM PUBLIC",
                "GRANT CONNECT ON DATABASE DATABASE_NAME TO PUBLIC",
            ),
            (
                "ALTER DATABASE DATABASE_NAME SET default_transaction_read_only = on",
                "ALTER DATABASE DATABASE_NAME RESET default_transaction_read_only",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            role.run(refuse).await;
            // The first creates fail because their connections were closed, and the last ones because the database
            // rejects them.
            for _ in 0..MORE_THAN_CONNECTIONS {
                assert_unavailable(&create(&replica, &operator, number).await);
            }
            wait_until_ready_is(&replica.url, 503).await;
            role.run(accept).await;
            wait_until_ready_is(&replica.url, 200).await;
            create(&replica, &operator, number).await.payload("createCustomer");
        }
        app.execute(&insert("REVOKE", "FROM")).await;
        assert_unavailable(&create(&replica, &operator, 10).await);
        assert!(wait_until_ready_is(&replica.url, 503).await.contains("cannot be used"));
        assert_eq!(replica.query(&operator, "{ customers { totalCount } }").await["customers"]["totalCount"], 5);
        app.execute(&insert("GRANT", "TO")).await;
        wait_until_ready_is(&replica.url, 200).await;
        replica.stop().await;
        app.execute(&format!("DROP OWNED BY {}", role.name)).await;
        role.run("DROP ROLE ROLE_NAME").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_a_read_only_sqlite_are_unavailable() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let writer = app.database.begin_write().await.unwrap();
        writer.execute_unprepared("PRAGMA query_only = on").await.unwrap();
        writer.commit().await.unwrap();
        assert_unavailable(&create(app, &operator, 1).await);
        assert_eq!(app.query(&operator, "{ customers { totalCount } }").await["customers"]["totalCount"], 0);
    })
    .await;
}

/// The binary. If the tests run as root, it runs as the user postgres, because permissions of files do not apply to
/// root.
fn vivamo_as_user(folder: &Path, arguments: &[&str]) -> Command {
    let binary = folder.join("vivamo");
    if !binary.exists() {
        install(std::env::var_os("CARGO_BIN_EXE_vivamo").unwrap(), &binary);
    }
    let mut command = as_postgres(&binary);
    remove_settings(&mut command);
    command.args(arguments).env("DATABASE_URL", format!("sqlite://{}", folder.join("vivamo.db").display()));
    command
}

#[tokio::test]
async fn a_sqlite_file_is_private_and_must_be_writable() {
    let folder = postgres::folder();
    let mode = |file: &str, mode: u32| {
        std::fs::set_permissions(folder.path().join(file), Permissions::from_mode(mode)).unwrap();
    };
    mode("", 0o777);
    let (server, url) = Running::start(&mut vivamo_as_user(folder.path(), &["serve"]));
    for file in ["vivamo.db", "vivamo.db-wal", "vivamo.db-shm"] {
        let permissions = std::fs::metadata(folder.path().join(file)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600, "{file}");
    }
    wait_until_ready_is(&url, 200).await;
    server.stop();
    mode("vivamo.db", 0o400);
    for arguments in [&["serve"][..], &["operator", "list"], &["migrate"]] {
        let message = failure(&mut vivamo_as_user(folder.path(), arguments));
        assert!(message.contains("vivamo.db cannot be written"), "{message}");
    }
    mode("vivamo.db", 0o600);
    // While the database file was read-only, the commands may have created `-wal` and `-shm` files. SQLite gives such
    // files the permissions of the database file, so they may be read-only.
    for file in ["vivamo.db-wal", "vivamo.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(file));
    }
    mode("", 0o755);
    let message = failure(&mut vivamo_as_user(folder.path(), &["operator", "list"]));
    assert!(message.contains("vivamo.db") && message.contains("folder"), "{message}");
    mode("", 0o777);
    stdout(&vivamo_as_user(folder.path(), &["operator", "list"]).output().unwrap());
}

#[tokio::test]
async fn a_server_whose_sqlite_file_is_replaced_by_a_read_only_file_is_not_ready() {
    let folder = postgres::folder();
    let set_mode = |path: &str, mode: u32| {
        std::fs::set_permissions(folder.path().join(path), Permissions::from_mode(mode)).unwrap();
    };
    let run = |arguments: &[&str], file: &str| {
        let mut command = vivamo_as_user(folder.path(), arguments);
        command.env("DATABASE_URL", format!("sqlite://{}", folder.path().join(file).display()));
        command
    };
    for name in ["writable", "read-only"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        set_mode(name, 0o777);
        stdout(&run(&["operator", "list"], &format!("{name}/vivamo.db")).output().unwrap());
    }
    set_mode("read-only/vivamo.db", 0o400);
    // The link is replaced in one step, so that the file always exists. The open connections of the server keep the
    // first file.
    let link_to = |name: &str| {
        symlink(name, folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("current")).unwrap();
    };
    link_to("writable");
    let (server, url) = Running::start(&mut run(&["serve"], "current/vivamo.db"));
    wait_until_ready_is(&url, 200).await;
    link_to("read-only");
    assert!(wait_until_ready_is(&url, 503).await.contains("cannot be used"));
    link_to("writable");
    wait_until_ready_is(&url, 200).await;
    server.stop();
}

#[tokio::test]
async fn databases_that_cannot_hold_all_texts_are_refused() {
    let folder = TempDir::new().unwrap();
    let listing = |url: &str| {
        let mut command = vivamo(folder.path(), &["operator", "list"]);
        command.env("DATABASE_URL", url);
        command
    };
    let sqlite = format!("sqlite://{}/utf16.db", folder.path().display());
    let utf16 = "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (c); DROP TABLE t";
    execute(&format!("{sqlite}?mode=rwc"), utf16).await.unwrap();
    let message = failure(&mut listing(&sqlite));
    assert!(message.contains("encoding is UTF-16le"), "{message}");
    let Some(server) = postgres::server().await else { return };
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("vivamo_test_{}_{}", std::process::id(), encoding.to_lowercase());
        let on_server = async |sql: &str| execute(&format!("{server}/postgres"), sql).await.unwrap();
        on_server(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")).await;
        let message = failure(&mut listing(&format!("{server}/{name}")));
        assert!(
            message.contains(&format!("encoding is {encoding}")) && message.contains("ENCODING 'UTF8'"),
            "{message}"
        );
        on_server(&format!("DROP DATABASE {name}")).await;
        // The message names a command to run.
        let create = message.split("CREATE DATABASE name").nth(1).unwrap().split(';').next().unwrap();
        on_server(&format!("CREATE DATABASE {name}{create}")).await;
        stdout(&listing(&format!("{server}/{name}")).output().unwrap());
        on_server(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
}

#[tokio::test]
async fn each_lacking_right_has_its_own_hint() {
    let Some(database) = TestDatabase::create(Backend::Postgres).await else { return };
    let folder = TempDir::new().unwrap();
    let role = Role::create(&database.url, "REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    let listing = || {
        let mut command = vivamo(folder.path(), &["operator", "list"]);
        command.env("DATABASE_URL", role.url());
        command
    };
    let grant_of = |message: &str| {
        let grant = message.split("GRANT ").nth(1).unwrap_or_else(|| panic!("no hint: {message}"));
        format!("GRANT {}", grant.trim_end().trim_end_matches('.'))
    };
    let message = failure(&mut listing());
    assert!(message.contains("create tables"), "{message}");
    execute(&database.url, &grant_of(&message)).await.unwrap();
    stdout(&listing().output().unwrap());
    // Now the tables belong to another role.
    execute(&database.url, &format!("REASSIGN OWNED BY {} TO postgres", role.name)).await.unwrap();
    let message = failure(&mut listing());
    assert!(message.contains("use the tables"), "{message}");
    // A role that may only read is rejected too.
    execute(&database.url, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}", role.name)).await.unwrap();
    let message = failure(&mut listing());
    assert!(message.contains("lacks read or write privileges"), "{message}");
    execute(&database.url, &grant_of(&message)).await.unwrap();
    stdout(&listing().output().unwrap());
    // The role does not see the tables, which must not look like a new database.
    execute(&database.url, &format!("REVOKE ALL ON SCHEMA public FROM {}", role.name)).await.unwrap();
    let message = failure(&mut listing());
    assert!(message.contains("may not use the schema"), "{message}");
    execute(&database.url, &grant_of(&message)).await.unwrap();
    stdout(&listing().output().unwrap());
    // The tables are in another schema.
    execute(&database.url, "ALTER SCHEMA public RENAME TO \"App\"").await.unwrap();
    role.run("ALTER ROLE ROLE_NAME SET search_path = \"App\"").await;
    execute(&database.url, &format!("REVOKE INSERT ON ALL TABLES IN SCHEMA \"App\" FROM {}", role.name)).await.unwrap();
    let message = failure(&mut listing());
    execute(&database.url, &grant_of(&message)).await.unwrap();
    stdout(&listing().output().unwrap());
    execute(&database.url, "ALTER SCHEMA \"App\" RENAME TO public").await.unwrap();
    role.run("ALTER ROLE ROLE_NAME RESET search_path").await;
    // The role does not see the tables of another application either, but does not need them.
    execute(&database.url, "CREATE SCHEMA other; CREATE TABLE other.seaql_migrations (version TEXT)").await.unwrap();
    role.run("ALTER ROLE ROLE_NAME SET search_path = public, other").await;
    stdout(&listing().output().unwrap());
    role.run("ALTER ROLE ROLE_NAME RESET search_path").await;
    role.run("ALTER ROLE ROLE_NAME SET default_transaction_read_only = on").await;
    let message = failure(&mut listing());
    assert!(message.contains("does not accept writes"), "{message}");
    role.run("ALTER ROLE ROLE_NAME RESET default_transaction_read_only").await;
    stdout(&listing().output().unwrap());
    role.run("REVOKE CONNECT ON DATABASE DATABASE_NAME FROM PUBLIC").await;
    let message = failure(&mut listing());
    assert!(message.contains("use the database"), "{message}");
    let grant = grant_of(message.split(';').next().unwrap());
    execute(&database.url, &grant).await.unwrap();
    stdout(&listing().output().unwrap());
    execute(&database.url, &format!("DROP OWNED BY {}", role.name)).await.unwrap();
    role.run("DROP ROLE ROLE_NAME").await;
    database.remove().await;
}

#[test]
fn urls_with_special_characters_work_or_get_a_hint_that_fits() {
    let folder = TempDir::with_prefix("my data#").unwrap();
    let encoded = folder.path().to_str().unwrap().replace(' ', "%20").replace('#', "%23");
    let mut command = vivamo(folder.path(), &["migrate"]);
    let production = |command: &mut Command| {
        command.env("DATABASE_URL", format!("sqlite://{encoded}/w.db"));
        command.env("VIVAMO_ENVIRONMENT", "production").env("VIVAMO_KEY_SECRET", SECRET);
    };
    production(&mut command);
    stdout(&command.output().unwrap());
    let mut serve = vivamo(folder.path(), &["serve"]);
    production(&mut serve);
    Running::start(&mut serve).0.stop();

    let listing = |url: &str| {
        let mut command = vivamo(folder.path(), &["operator", "list"]);
        command.env("DATABASE_URL", url);
        command
    };
    let ipv6 = server_at("[::1]:0", "28P01", "password authentication failed for user \"ada\"");
    let ipv4 = server_at("127.0.0.1:0", "28P01", "password authentication failed for user \"ada\"");
    for (url, words) in [
        (format!("postgres://ada@{ipv6}/x?sslmode=disable"), "rejected user `ada`"),
        (format!("postgres://ada:p@w%23x@{ipv4}/x?sslmode=disable"), "rejected user `ada`"),
        (format!("postgres://ada:p%w@{ipv4}/x?sslmode=disable"), "percent-encoded"),
        (format!("postgres://ada@{ipv4}/x?sslmode=require"), "Check sslmode"),
        (format!("postgres://ada@{ipv4}/x?sslmode=verify-full&sslrootcert=missing.pem"), "Check sslmode, sslrootcert"),
    ] {
        let message = failure(&mut listing(&url));
        assert!(message.contains(words), "{url}: {message}");
    }
    for (url, words) in [
        ("postgres://ada:p#w@localhost/x", "# is %23"),
        ("postgres://ada:12/34@localhost/x", "/ is %2F"),
        ("postgres://ada@localhost/x?sslmode=bogus", "bogus"),
        ("postgres://ada@localhost/x?sslmode=require&ssl_mode=verify-full", "the parameter `ssl_mode`"),
        ("postgres://ada@localhost/x?sslpassword=12/34", "the parameter `sslpassword`"),
        ("postgres://localhost/x?user=ada&password=p&12/34", "the parameter `…`"),
        ("\"postgres://ada@localhost/x\"", "in quotes"),
        ("mysql://localhost/x", "must start with"),
    ] {
        let message = usage_error(&mut listing(url));
        assert!(message.contains(words) && message.contains("DATABASE_URL (--database-url)"), "{url}: {message}");
        assert!(!message.contains("12/34"), "{message}");
    }
}

#[tokio::test]
async fn credentials_are_trimmed_and_may_come_from_files() {
    const PLATFORM_KEY: &str = "fedcba9876543210fedcba9876543210";
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let serve = |settings: &[(&str, &str)]| {
        let mut command = vivamo(folder.path(), &["serve"]);
        command.env("VIVAMO_ENVIRONMENT", "production").envs(settings.iter().copied());
        command
    };
    write("url", "sqlite://other.db\n");
    write("secret", &format!("{SECRET}\r\n"));
    write("platform", &format!(" {PLATFORM_KEY}\n"));
    write("token", "token\n");
    write("empty", "\n");
    write("quoted", &format!("\"{SECRET}\""));
    let mut migrate = vivamo(folder.path(), &["migrate", "--database-url-file", "url"]);
    migrate.env("VIVAMO_ENVIRONMENT", "production").env("VIVAMO_KEY_SECRET_FILE", "secret");
    stdout(&migrate.output().unwrap());
    assert!(folder.path().join("other.db").exists());
    let with_line_break = format!("{SECRET}\n");
    for settings in [
        [("DATABASE_URL_FILE", "url"), ("VIVAMO_KEY_SECRET_FILE", "secret"), ("VIVAMO_PLATFORM_KEY_FILE", "platform")],
        [
            ("DATABASE_URL", "sqlite://other.db\n"),
            ("VIVAMO_KEY_SECRET", with_line_break.as_str()),
            ("VIVAMO_PLATFORM_KEY", "fedcba9876543210fedcba9876543210\n"),
        ],
    ] {
        let mut command = serve(&settings);
        command.env("VIVAMO_PHONE_LOOKUP", "twilio").env("VIVAMO_TWILIO_USER", "SK1\n");
        let (server, url) = Running::start(command.env("VIVAMO_TWILIO_PASSWORD_FILE", "token"));
        assert_eq!(role(&url, PLATFORM_KEY).await["data"]["viewer"]["role"], "PLATFORM");
        server.stop();
    }
    let quoted = format!("'{SECRET}'");
    for (settings, words) in [
        ([("VIVAMO_KEY_SECRET", quoted.as_str())], "VIVAMO_KEY_SECRET (--key-secret) is in quotes"),
        ([("VIVAMO_KEY_SECRET_FILE", "quoted")], "VIVAMO_KEY_SECRET_FILE (--key-secret-file) is in quotes"),
        ([("VIVAMO_KEY_SECRET_FILE", "empty")], "VIVAMO_KEY_SECRET_FILE (--key-secret-file) is set but empty"),
        ([("VIVAMO_KEY_SECRET_FILE", "missing")], "Cannot read missing"),
        ([("VIVAMO_KEY_SECRET_OLD", "\"x\"")], "VIVAMO_KEY_SECRET_OLD (--key-secret-old) is in quotes"),
        ([("VIVAMO_KEY_SECRET_OLD_FILE", "quoted")], "VIVAMO_KEY_SECRET_OLD_FILE (--key-secret-old-file) is in quotes"),
        // The file is read and trimmed.
        ([("VIVAMO_KEY_SECRET_OLD_FILE", "secret")], "VIVAMO_KEY_SECRET (--key-secret) are the same"),
        ([("VIVAMO_PLATFORM_KEY", "\"fedcba9876543210\"")], "VIVAMO_PLATFORM_KEY (--platform-key) is in quotes"),
        ([("DATABASE_URL_FILE", "empty")], "DATABASE_URL_FILE (--database-url-file) is set but empty"),
    ] {
        let mut command = serve(&settings);
        let settings_have_secret = settings[0].0.starts_with("VIVAMO_KEY_SECRET") && !settings[0].0.contains("OLD");
        if !settings_have_secret {
            command.env("VIVAMO_KEY_SECRET", SECRET);
        }
        let message = usage_error(&mut command);
        assert!(message.contains(words), "{message}");
        assert!(!message.contains(SECRET), "{message}");
    }
    for variable in ["VIVAMO_KEY_SECRET", "VIVAMO_PLATFORM_KEY", "DATABASE_URL"] {
        let file = format!("{variable}_FILE");
        let mut command = serve(&[("VIVAMO_KEY_SECRET", SECRET), (variable, "another"), (&file, "secret")]);
        let message = usage_error(&mut command);
        assert!(message.contains(&file) && message.contains("are both set"), "{message}");
        assert!(!message.contains(SECRET), "{message}");
    }
}

#[test]
fn lists_may_have_blanks_and_addresses_may_be_host_names() {
    let folder = TempDir::new().unwrap();
    let mut command = vivamo(folder.path(), &["serve", "--listen", "localhost:0"]);
    command.env("VIVAMO_TRUSTED_PROXIES", "10.0.0.0/8, 172.16.0.0/12 ,\t2001:db8::7").env("VIVAMO_METRICS", "");
    command.env("VIVAMO_CORS_ORIGINS", "https://a.example.com, https://b.example.com ");
    Running::start(&mut command).0.stop();
    let mut command = vivamo(folder.path(), &["serve"]);
    let (server, _, log) = Running::start_with_log(command.env("VIVAMO_METRICS", "localhost:0"));
    assert!(log.contains("metrics on http://127.0.0.1:"), "{log}");
    server.stop();
    for (variable, flag, value) in [
        ("VIVAMO_LISTEN", "--listen", "missing.invalid:8000"),
        ("VIVAMO_LISTEN", "--listen", ":8000"),
        ("VIVAMO_LISTEN", "--listen", "localhost:99999"),
        ("VIVAMO_METRICS", "--metrics", "localhost"),
        ("VIVAMO_TRUSTED_PROXIES", "--trusted-proxies", "10.0.0.0/8, proxy"),
        ("VIVAMO_CORS_ORIGINS", "--cors-origins", "https://a.example.com, example.com"),
        ("VIVAMO_WAIT_FOR_DATABASE", "--wait-for-database", "30s"),
    ] {
        let message = usage_error(vivamo(folder.path(), &["serve"]).env(variable, value));
        assert!(message.contains(flag) && message.contains(&format!("comes from {variable}")), "{message}");
    }
}

/// Sends a query to a server with this key, and returns the response.
async fn graphql(url: &str, key: &str, query: &str) -> Value {
    let request = http_client().post(format!("{url}/graphql")).bearer_auth(key);
    request.json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap()
}

fn create_with_key(email: &str, idempotency_key: &str) -> String {
    format!(
        "mutation {{ createCustomer(input: {{ externalCustomerId: \"{email}\", data: {{ email: \"{email}\" }}, \
         idempotencyKey: \"{idempotency_key}\" }}) {{ outcome replayed }} }}"
    )
}

const PAGE: &str = "{ customers(first: 1) { pageInfo { endCursor } } }";

/// Changes the key secret of a deployment with a webhook endpoint, and checks the signatures of the deliveries.
async fn rotate_key_secret_with_a_webhook(database: TestDatabase) {
    const OLD: &str = "the-old-key-secret-0123456789abcdef";
    const NEW: &str = "the-new-key-secret-0123456789abcdef";
    const AFTER_LEAK: &str = "another-key-secret-0123456789abcdef";
    let folder = TempDir::new().unwrap();
    let with = |arguments: &[&str], secret: &str, old: Option<&str>| {
        let mut command = database.vivamo(folder.path(), arguments);
        command.env("VIVAMO_KEY_SECRET", secret).env("VIVAMO_WEBHOOK_NETWORKS", "127.0.0.0/8");
        command.envs(old.map(|old| ("VIVAMO_KEY_SECRET_OLD", old)));
        command
    };
    let serve = |secret: &str, old: Option<&str>| Running::start(&mut with(&["serve"], secret, old));
    let operator = json_output(&mut with(&["operator", "create", "Acme", "--json"], OLD, None));
    let (key, operator_id) = (operator["key"].as_str().unwrap(), operator["id"].as_str().unwrap());
    let receiver = Receiver::start().await;
    // Creates a customer, and returns the delivery of this change.
    let delivery = async |url: &str, key: &str, number: usize| {
        let query = create_with_key(&format!("{number}@example.com"), &format!("k{number}"));
        assert_eq!(graphql(url, key, &query).await["data"]["createCustomer"]["outcome"], "CREATED");
        receiver.wait_for(1).await;
        receiver.take().remove(0)
    };
    let rotated = async |url: &str, key: &str, id: &Value| {
        let query =
            format!("mutation {{ rotateWebhookSecret(input: {{ id: {id}, overlapHours: 168 }}) {{ secret }} }}");
        graphql(url, key, &query).await["data"]["rotateWebhookSecret"]["secret"].as_str().unwrap().to_owned()
    };

    let (server, url) = serve(OLD, None);
    let create = format!(
        "mutation {{ createWebhook(input: {{ url: {} }}) {{ secret webhook {{ id }} }} }}",
        json!(receiver.url)
    );
    let created = graphql(&url, key, &create).await["data"]["createWebhook"].clone();
    let (first, id) = (created["secret"].as_str().unwrap(), &created["webhook"]["id"]);
    let signed = delivery(&url, key, 1).await;
    assert!(signed.is_signed_with(first) && signed.signatures.len() == 1);
    server.stop();

    // While both key secrets are set, each delivery is signed with the webhook secrets of both, before and after
    // `rotate-key-secret` has run.
    let (server, url) = serve(NEW, Some(OLD));
    let signed = delivery(&url, key, 2).await;
    assert!(signed.is_signed_with(first) && signed.signatures.len() == 2);
    stdout(&with(&["rotate-key-secret"], NEW, Some(OLD)).output().unwrap());
    server.stop();
    let (server, url) = serve(NEW, Some(OLD));
    let signed = delivery(&url, key, 3).await;
    assert!(signed.is_signed_with(first) && signed.signatures.len() == 2);
    let second = rotated(&url, key, id).await;
    let signed = delivery(&url, key, 4).await;
    assert!(signed.is_signed_with(first) && signed.is_signed_with(&second) && signed.signatures.len() == 4);
    server.stop();

    // Without the old key secret, all webhook secrets are derived from the new key secret. Deliveries are signed with
    // the second webhook secret, which was created after the change. They are not signed with the first one, although
    // the overlap of the rotation has not ended.
    let (server, url) = serve(NEW, None);
    let signed = delivery(&url, key, 5).await;
    assert!(signed.is_signed_with(&second) && !signed.is_signed_with(first) && signed.signatures.len() == 2);
    server.stop();

    // After a change without the old key secret, no earlier webhook secret works, so the endpoint needs a new webhook
    // secret.
    stdout(&with(&["rotate-key-secret"], AFTER_LEAK, None).output().unwrap());
    let (server, url) = serve(AFTER_LEAK, None);
    let new_key = ["key", "create", operator_id, "--name", "x", "--json"];
    let new_key = json_output(&mut with(&new_key, AFTER_LEAK, None));
    let key = new_key["key"].as_str().unwrap();
    let signed = delivery(&url, key, 6).await;
    assert!(!signed.is_signed_with(first) && !signed.is_signed_with(&second));
    let third = rotated(&url, key, id).await;
    assert!(delivery(&url, key, 7).await.is_signed_with(&third));
    server.stop();
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_secrets_depend_on_the_key_secret() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        rotate_key_secret_with_a_webhook(database).await;
    }
}

fn next_page(cursor: &str) -> String {
    format!("{{ customers(first: 1, after: \"{cursor}\") {{ nodes {{ email }} }} }}")
}

#[tokio::test]
async fn the_key_secret_is_changed_without_an_interruption() {
    const OLD: &str = "the-old-key-secret-0123456789abcdef";
    const NEW: &str = "the-new-key-secret-0123456789abcdef";
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let with = |arguments: &[&str], secret: &str, old: Option<&str>| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_KEY_SECRET", secret);
            command.envs(old.map(|old| ("VIVAMO_KEY_SECRET_OLD", old)));
            command
        };
        let operator = json_output(&mut with(&["operator", "create", "Acme", "--json"], OLD, None));
        let key = operator["key"].as_str().unwrap();
        let operator_id = operator["id"].as_str().unwrap();
        let replayed = |answer: &Value| answer["data"]["createCustomer"]["replayed"].as_bool();
        let cursor_of = async |url: &str| {
            graphql(url, key, PAGE).await["data"]["customers"]["pageInfo"]["endCursor"].as_str().unwrap().to_owned()
        };
        let accepts = async |url: &str, cursor: &str| {
            graphql(url, key, &next_page(cursor)).await["data"]["customers"].is_object()
        };

        // These commands reject another secret.
        for arguments in [&["serve"][..], &["operator", "list"], &["migrate"]] {
            let message = failure(&mut with(arguments, NEW, None));
            assert!(message.contains("VIVAMO_KEY_SECRET (--key-secret)"), "{message}");
            assert!(message.contains("`vivamo rotate-key-secret`"), "{message}");
        }
        failure(&mut with(&["serve"], NEW, Some("neither of both")));
        failure(&mut with(&["rotate-key-secret"], NEW, Some("neither of both")));
        let message = usage_error(with(&["rotate-key-secret"], NEW, None).env_remove("VIVAMO_KEY_SECRET"));
        assert!(message.contains("VIVAMO_KEY_SECRET (--key-secret) is not set"), "{message}");
        assert!(usage_error(&mut with(&["serve"], NEW, Some(NEW))).contains("are the same"));

        // Servers that know only the old secret run beside servers that know both.
        let (old_server, old_url) = Running::start(&mut with(&["serve"], OLD, None));
        assert_eq!(replayed(&graphql(&old_url, key, &create_with_key("1@example.com", "k1")).await), Some(false));
        let old_cursor = cursor_of(&old_url).await;
        let (both_server, both_url) = Running::start(&mut with(&["serve"], NEW, Some(OLD)));
        assert_eq!(replayed(&graphql(&both_url, key, &create_with_key("1@example.com", "k1")).await), Some(true));
        assert_eq!(replayed(&graphql(&both_url, key, &create_with_key("2@example.com", "k2")).await), Some(false));
        assert_eq!(replayed(&graphql(&old_url, key, &create_with_key("2@example.com", "k2")).await), Some(true));
        assert!(accepts(&both_url, &old_cursor).await && accepts(&old_url, &cursor_of(&both_url).await).await);
        let second = json_output(&mut with(&["key", "create", operator_id, "--name", "x", "--json"], NEW, Some(OLD)));
        assert_eq!(role(&old_url, second["key"].as_str().unwrap()).await["data"]["viewer"]["role"], "OPERATOR");
        old_server.stop();

        // Changes the secret. The servers that are already running continue to work.
        let changed = stdout(&with(&["rotate-key-secret"], NEW, Some(OLD)).output().unwrap());
        assert!(changed.contains("uses the new VIVAMO_KEY_SECRET"), "{changed}");
        let again = stdout(&with(&["rotate-key-secret"], NEW, Some(OLD)).output().unwrap());
        assert!(again.contains("already"), "{again}");
        let (new_server, new_url) = Running::start(&mut with(&["serve"], NEW, Some(OLD)));
        assert_eq!(role(&new_url, key).await["data"]["viewer"]["role"], "OPERATOR");
        assert_eq!(role(&both_url, key).await["data"]["viewer"]["role"], "OPERATOR");
        assert!(accepts(&new_url, &old_cursor).await && accepts(&both_url, &cursor_of(&new_url).await).await);
        assert_eq!(replayed(&graphql(&new_url, key, &create_with_key("1@example.com", "k1")).await), Some(true));
        let reused = graphql(&new_url, key, &create_with_key("other@example.com", "k1")).await;
        assert_eq!(reused["errors"][0]["extensions"]["code"], "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(replayed(&graphql(&both_url, key, &create_with_key("3@example.com", "k3")).await), Some(false));
        assert_eq!(replayed(&graphql(&new_url, key, &create_with_key("3@example.com", "k3")).await), Some(true));
        assert_eq!(replayed(&graphql(&new_url, key, &create_with_key("4@example.com", "k4")).await), Some(false));
        assert_eq!(replayed(&graphql(&both_url, key, &create_with_key("4@example.com", "k4")).await), Some(true));
        let new_cursor = cursor_of(&new_url).await;
        both_server.stop();
        new_server.stop();

        // Without the old secret, the key that was used after the change works, and the other key does not.
        failure(&mut with(&["serve"], OLD, None));
        let (server, url) = Running::start(&mut with(&["serve"], NEW, None));
        assert_eq!(role(&url, key).await["data"]["viewer"]["role"], "OPERATOR");
        let unused = role(&url, second["key"].as_str().unwrap()).await;
        assert_eq!(unused["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
        assert!(accepts(&url, &new_cursor).await && !accepts(&url, &old_cursor).await);
        assert_eq!(replayed(&graphql(&url, key, &create_with_key("3@example.com", "k3")).await), Some(true));
        server.stop();

        // Changes the secret without the old one, as after a leak.
        let changed = stdout(&with(&["rotate-key-secret"], OLD, None).output().unwrap());
        assert!(changed.contains("then stop working"), "{changed}");
        let (server, url) = Running::start(&mut with(&["serve"], OLD, None));
        assert_eq!(role(&url, key).await["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn a_running_server_stops_writing_only_if_a_newer_migration_requires_it() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| database.vivamo(folder.path(), arguments);
        let key = json_output(&mut run(&["operator", "create", "Acme", "--json"]))["key"].as_str().unwrap().to_owned();
        let (server, url) = Running::start(&mut run(&["serve"]));
        let create = async |id: &str| {
            let input = format!("{{ externalCustomerId: \"{id}\", data: {{ email: \"{id}@example.com\" }} }}");
            graphql(&url, &key, &format!("mutation {{ createCustomer(input: {input}) {{ outcome }} }}")).await
        };
        let applied = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_later', 1)";
        execute(&database.url, applied).await.unwrap();
        // The running server continues to write, and another one starts, because the database does not require a newer
        // version.
        let (restarted, _) = Running::start(&mut run(&["serve"]));
        restarted.stop();
        // Longer than the second for which the result of a check is used.
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..15 {
            interval.tick().await;
            assert_eq!(wait_until_ready_is(&url, 200).await, "ready\n");
        }
        assert_eq!(create("1").await["data"]["createCustomer"]["outcome"], "CREATED");

        let require = "UPDATE deployment SET required_migration = 'm20990101_000001_later'";
        execute(&database.url, require).await.unwrap();
        // The server finds out by itself, without a probe.
        let (mut created, since) = (1, Instant::now());
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        let rejected = loop {
            interval.tick().await;
            let answer = create(&(created + 1).to_string()).await;
            if answer["errors"].is_array() {
                break answer;
            }
            created += 1;
            assert!(since.elapsed() < Duration::from_secs(30), "the server continues to write");
        };
        assert_eq!(rejected["errors"][0]["extensions"]["code"], "UNAVAILABLE");
        let body = wait_until_ready_is(&url, 503).await;
        assert!(body.contains("newer version") && body.contains("must not write"), "{body}");
        let read = graphql(&url, &key, "{ customers { totalCount } }").await;
        assert_eq!(read["data"]["customers"]["totalCount"], created);
        let message = failure(&mut run(&["serve"]));
        assert!(message.contains("newer version") && message.contains("m20990101_000001_later"), "{message}");
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn migrate_records_the_required_migration() {
    // A server that writes search words in an older form must not write.
    assert!(migration::SEARCH_WORDS <= migration::REQUIRED);
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| database.vivamo(folder.path(), arguments);
        let listed = stdout(&run(&["migrate"]).output().unwrap());
        let names: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix("applied  ")).collect();
        assert!(names.contains(&migration::REQUIRED) && names.contains(&migration::SEARCH_WORDS), "{listed}");
        assert_eq!(names.len(), vivamo::database::migration_count());
        assert_eq!(stdout(&run(&["migrate"]).output().unwrap()), "The database is up to date.\n");
        assert_eq!(stdout(&run(&["migrate", "--check"]).output().unwrap()), "The database is up to date.\n");
        // Removes the record of a migration, and clears the columns that `vivamo migrate` must set again.
        let missing = "DELETE FROM seaql_migrations WHERE version LIKE '%_search_spellings'; \
                       UPDATE deployment SET required_migration = NULL, words_migration = NULL";
        execute(&database.url, missing).await.unwrap();
        let checked = run(&["migrate", "--check"]).output().unwrap();
        assert_eq!(checked.status.code(), Some(1));
        let pending = "pending  m20261126_000007_search_spellings\n";
        assert_eq!(String::from_utf8(checked.stdout).unwrap(), pending);
        assert_eq!(stdout(&run(&["migrate"]).output().unwrap()).lines().count(), 2);
        let connection = Database::connect(&database.url, None).await.unwrap();
        let row = deployment::Entity::find().one(connection.reader()).await.unwrap().unwrap();
        assert_eq!(row.required_migration.as_deref(), Some(migration::REQUIRED));
        assert_eq!(row.words_migration.as_deref(), Some(migration::SEARCH_WORDS));
        connection.close().await;
        database.remove().await;
    }
    let folder = TempDir::new().unwrap();
    let message = failure(&mut vivamo(folder.path(), &["migrate", "--check"]));
    assert!(message.contains("does not exist"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn migrate_with_another_secret_changes_nothing() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |secret: &str, arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_ENVIRONMENT", "production").env("VIVAMO_KEY_SECRET", secret);
            command
        };
        stdout(&run(SECRET, &["migrate"]).output().unwrap());
        let missing = "DELETE FROM seaql_migrations WHERE version LIKE '%_name_pairs'; \
                       UPDATE deployment SET required_migration = NULL";
        execute(&database.url, missing).await.unwrap();
        for arguments in [&["migrate"][..], &["migrate", "--check"], &["serve"]] {
            let message = failure(&mut run("another secret of at least 32 characters", arguments));
            assert!(message.contains("different VIVAMO_KEY_SECRET"), "{arguments:?}: {message}");
        }
        let connection = Database::connect(&database.url, None).await.unwrap();
        let row = deployment::Entity::find().one(connection.reader()).await.unwrap().unwrap();
        assert_eq!(row.required_migration, None);
        connection.close().await;
        let applied = stdout(&run(SECRET, &["migrate"]).output().unwrap());
        assert!(applied.contains("_name_pairs"), "{applied}");
        database.remove().await;
    }
}

#[tokio::test]
async fn words_that_an_interrupted_migration_left_out_are_noticed_at_the_start() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |environment: &str, arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_ENVIRONMENT", environment);
            command.env("VIVAMO_KEY_SECRET", SECRET);
            command
        };
        for environment in ["sandbox", "production"] {
            stdout(&run(environment, &["migrate"]).output().unwrap());
            let operator = json_output(&mut run(environment, &["operator", "create", "Acme", "--json"]));
            let key = operator["key"].as_str().unwrap();
            let (server, url) = Running::start(&mut run(environment, &["serve"]));
            graphql(&url, key, &create_with_key("ada@example.com", "k")).await;
            server.stop();
            // Puts the database into the state after a crash between the migration that deletes the words and the
            // writing of the words.
            execute(&database.url, "DELETE FROM customer_word; UPDATE deployment SET words_migration = NULL")
                .await
                .unwrap();
            if environment == "production" {
                let message = failure(&mut run(environment, &["serve"]));
                assert!(message.contains("search words are incomplete"), "{message}");
                let checked = run(environment, &["migrate", "--check"]).output().unwrap();
                assert_eq!(
                    (checked.status.code(), String::from_utf8(checked.stdout).unwrap().lines().count()),
                    (Some(1), 1)
                );
                stdout(&run(environment, &["migrate"]).output().unwrap());
            }
            let (server, url) = Running::start(&mut run(environment, &["serve"]));
            let found = graphql(&url, key, "{ customers(filter: { search: \"ada\" }) { totalCount } }").await;
            assert_eq!(found["data"]["customers"]["totalCount"], 1, "{environment}: {found}");
            server.stop();
            let to_production = "UPDATE deployment SET environment = 'production'; DELETE FROM customer_word; \
                                 DELETE FROM customer_event; DELETE FROM customer_operator; DELETE FROM customer; \
                                 DELETE FROM idempotency_key";
            execute(&database.url, to_production).await.unwrap();
        }
        database.remove().await;
    }
}

#[tokio::test]
async fn a_backup_is_restored_as_the_documentation_says() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |url: &str, arguments: &[&str]| {
            let mut command = vivamo(folder.path(), arguments);
            command.env("DATABASE_URL", url);
            command
        };
        let operator = json_output(&mut run(&database.url, &["operator", "create", "Acme", "--json"]));
        let key = operator["key"].as_str().unwrap();
        let (server, url) = Running::start(&mut run(&database.url, &["serve"]));
        graphql(&url, key, &create_with_key("ada@example.com", "k")).await;
        let restored = match backend {
            Backend::Sqlite => {
                let copied = stdout(&run(&database.url, &["backup", "it's.db"]).output().unwrap());
                assert!(copied.contains("it's.db"), "{copied}");
                let copy = folder.path().join("it's.db");
                assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
                // An existing file is not overwritten.
                let before = std::fs::read(&copy).unwrap();
                assert!(failure(&mut run(&database.url, &["backup", "it's.db"])).contains("exists"));
                assert_eq!(std::fs::read(&copy).unwrap(), before);
                let message = failure(&mut run(&database.url, &["backup", "missing/folder/x.db"]));
                assert!(message.contains("missing/folder/x.db"), "{message}");
                let message = failure(&mut run("sqlite://missing.db", &["backup", "copy.db"]));
                assert!(message.contains("missing.db does not exist") && !folder.path().join("copy.db").exists());
                // The copy is not in WAL mode until a server has used it. It can be copied too. SQLite would take the
                // name of this file for a URI.
                let file = "file:a%20?mode=memory";
                stdout(&run("sqlite://it's.db", &["backup", file]).output().unwrap());
                assert_eq!(std::fs::read(folder.path().join(file)).unwrap().len(), before.len());
                let no_text = OsStr::from_bytes(b"\xff.db");
                let message = failure(run(&database.url, &["backup"]).arg(no_text));
                assert!(message.contains("not valid UTF-8") && !folder.path().join(no_text).exists(), "{message}");
                let mut files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
                assert!(!files.any(|name| name.to_string_lossy().ends_with(".partial")));
                TestDatabase::existing("sqlite://it's.db".to_owned())
            }
            Backend::Postgres => {
                let message = failure(&mut run(&database.url, &["backup", "vivamo.dump"]));
                let dump = message.split(" run: ").nth(1).unwrap();
                let restored = TestDatabase::create(Backend::Postgres).await.unwrap();
                let restore = "pg_restore --no-owner --no-privileges --exit-on-error --dbname=\"${NEW_DATABASE_URL:?}\" vivamo.dump    # into an empty database";
                let operations =
                    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
                assert!(operations.contains(restore), "docs/operations.md does not have the command: {restore}");
                for command in [dump, restore] {
                    let mut shell = Command::new("sh");
                    shell.current_dir(folder.path()).env("BACKUP_URL", &database.url);
                    let output = shell.env("NEW_DATABASE_URL", &restored.url).args(["-c", command]).output().unwrap();
                    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
                }
                restored
            }
        };
        // This customer is created after the backup, so the copy does not have it.
        graphql(&url, key, &create_with_key("later@example.com", "k2")).await;
        let (restored_server, url) = Running::start(&mut run(&restored.url, &["serve"]));
        let found =
            graphql(&url, key, "{ customers(filter: { search: \"ada\" }) { nodes { email } totalCount } }").await;
        assert_eq!(found["data"]["customers"], json!({ "nodes": [{ "email": "ada@example.com" }], "totalCount": 1 }));
        assert_eq!(graphql(&url, key, "{ customers { totalCount } }").await["data"]["customers"]["totalCount"], 1);
        restored_server.stop();
        server.stop();
        restored.remove().await;
        database.remove().await;
    }
}

#[test]
fn a_file_without_tables_is_not_silently_taken_for_a_new_database() {
    let folder = TempDir::new().unwrap();
    let (server, _) = Running::start(&mut vivamo(folder.path(), &["serve"]));
    // The tables are still in the -wal file, so the copy has no tables.
    std::fs::copy(folder.path().join("vivamo.db"), folder.path().join("copy.db")).unwrap();
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    for file in ["copy.db", "empty.db"] {
        let mut listing = vivamo(folder.path(), &["operator", "list"]);
        let message = stderr(listing.env("DATABASE_URL", format!("sqlite://{file}")), 0);
        assert!(message.contains("had no tables") && message.contains("`vivamo backup`"), "{file}: {message}");
        // The warning is printed only once, and not for a file that did not exist.
        assert_eq!(stderr(&mut listing, 0), "");
    }
    assert_eq!(stderr(vivamo(folder.path(), &["operator", "list"]).env("DATABASE_URL", "sqlite://new.db"), 0), "");
    std::fs::write(folder.path().join("empty2.db"), "").unwrap();
    let mut serve = vivamo(folder.path(), &["serve"]);
    let (other, _, log) = Running::start_with_log(serve.env("DATABASE_URL", "sqlite://empty2.db"));
    assert!(log.contains("WARN") && log.contains("had no tables"), "{log}");
    other.stop();
    server.stop();
}

#[tokio::test]
async fn a_start_waits_for_postgres() {
    let Some(database) = TestDatabase::create(Backend::Postgres).await else { return };
    let folder = TempDir::new().unwrap();
    // The system refuses connections to a port that is bound and not listened to.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut url = reqwest::Url::parse(&database.url).unwrap();
    let target = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
    url.set_ip_host([127, 0, 0, 1].into()).unwrap();
    url.set_port(Some(port)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = vivamo(folder.path(), arguments);
        command.env("DATABASE_URL", url.as_str()).env("VIVAMO_LISTEN", "127.0.0.1:0");
        command
    };
    // By default, only `serve` waits. A missing database is no reason to wait.
    let since = Instant::now();
    assert!(failure(&mut run(&["operator", "list"])).contains("connection refused"));
    assert!(failure(&mut run(&["serve", "--wait-for-database", "0"])).contains("connection refused"));
    let missing = format!("{}_missing", database.url);
    let message = failure(run(&["operator", "list", "--wait-for-database", "600"]).env("DATABASE_URL", missing));
    assert!(message.contains("has no database"), "{message}");
    assert!(since.elapsed() < Duration::from_secs(60));

    let mut child = run(&["serve"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("WARN") && line.contains("waiting for the database")));
    // A proxy makes PostgreSQL reachable.
    let listener = socket.listen(1024).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(target.clone()).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    assert!(tokio::task::spawn_blocking(move || log.any(|line| line.contains("listening on"))).await.unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    database.remove().await;
}

#[test]
fn a_server_that_waits_for_its_database_can_be_stopped() {
    let folder = TempDir::new().unwrap();
    let mut command = vivamo(folder.path(), &["serve"]);
    command.env("DATABASE_URL", "postgres://127.0.0.1:1/vivamo").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("waiting for the database")));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(log.any(|line| line.contains("stopped before the start was complete")));
    assert!(child.wait().unwrap().success());
}

both!(the_log_has_the_address_that_the_limit_counts, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let send = async |key: &str, forwarded: &str| {
        let request =
            app.http.post(format!("{}/graphql", app.url)).bearer_auth(key).header("x-forwarded-for", forwarded);
        let answer = request.json(&json!({ "query": "{ viewer { role } }" })).send().await.unwrap();
        answer.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    for (key, forwarded, logged) in [
        (operator.key.as_str(), "203.0.113.7", "203.0.113.7"),
        ("wrong", "203.0.113.8, 127.0.0.1", "203.0.113.8"),
        ("wrong", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("wrong", "::ffff:203.0.113.9", "203.0.113.9"),
    ] {
        let id = send(key, forwarded).await;
        let log = app.log();
        let line = log.lines().find(|line| line.contains(&id) && line.contains("\"milliseconds\"")).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["address"], logged);
    }
});

/// Returns the log line of a request.
fn request_line(app: &TestApp, answer: &Answer) -> Value {
    let log = app.log();
    let id = request_id(answer);
    let line = log.lines().find(|line| line.contains(id) && line.contains("\"milliseconds\"")).unwrap();
    serde_json::from_str(line).unwrap()
}

fn request_id(answer: &Answer) -> &str {
    answer.headers["x-request-id"].to_str().unwrap()
}

both!(the_line_of_a_rejected_key_names_only_the_address, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    let revoked = app.key(&own, Access::ReadOnly).await;
    let limits = RateLimitSettings { auth_failures_per_minute: 2, cost_per_second: 1, ..RateLimitSettings::OFF };
    let replica = app.replica_with(app.database_url().to_owned(), limits).await;
    let change = async |sql: String| app.execute(&sql).await;
    change(format!("UPDATE api_key SET revoked_at = created_at WHERE prefix = '{}'", &revoked.key[..19])).await;
    let suspended = "WHERE name = 'Other'";
    change(format!("UPDATE operator SET status = 'suspended' {suspended}")).await;
    let send = async |key: &str, address: &str| {
        let query = "query Find { customer(by: { email: \"ada@example.com\" }) { id } }";
        let request = replica.http.post(format!("{}/graphql", replica.url)).bearer_auth(key);
        let request = request.header("x-forwarded-for", address).json(&json!({ "query": query }));
        Answer::read(request.send().await.unwrap()).await
    };
    for (key, address) in [("wrong", "203.0.113.20"), (&other.key, "203.0.113.21"), (&revoked.key, "203.0.113.22")] {
        for (status, code) in [(401, "UNAUTHENTICATED"), (401, "UNAUTHENTICATED"), (429, "RATE_LIMITED")] {
            let line = request_line(app, &send(key, address).await);
            assert_eq!(
                (&line["status"], &line["codes"], &line["address"]),
                (&json!(status), &json!(code), &json!(address))
            );
            for field in ["operator", "key", "operation"] {
                assert_eq!(line.get(field), None, "{line}");
            }
        }
    }
    // A valid key over its limit is named, because its operator is known.
    let mut answer = send(&own.key, "203.0.113.23").await;
    while answer.status != 429 {
        answer = send(&own.key, "203.0.113.23").await;
    }
    let line = request_line(app, &answer);
    assert_eq!((&line["operator"], &line["address"]), (&json!(own.operator), &json!("203.0.113.23")));
    assert!(line["key"].as_str().unwrap().starts_with("key_"), "{line}");
    replica.stop().await;
});

/// Sends a mutation that creates a customer, and disconnects while the mutation waits for a lock of a transaction that
/// this function begins. Returns the transaction. `server` has no other transactions that wait.
async fn create_and_disconnect(app: &TestApp, server: &str, caller: &TestCaller, operation: &str) -> Transaction {
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    }
    // Opens the connection for the query that looks for waiting transactions.
    app.wait_until_blocked(0).await;
    let create = "createCustomer(input: { externalCustomerId: \"1\", data: { email: \"a@example.com\" } })";
    let body = json!({ "query": format!("mutation {operation} {{ {create} {{ outcome }} }}") }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        caller.key,
        body.len()
    );
    let mut client = TcpStream::connect(server.trim_start_matches("http://")).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    app.wait_until_blocked(1).await;
    holder
}

both!(a_request_whose_client_disconnects_is_logged_and_its_mutation_is_applied, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let (_, port) = app.url.rsplit_once(':').unwrap();
    let operation = format!("Disconnects{port}");
    let holder = create_and_disconnect(app, &app.url, &caller, &operation).await;
    let line = wait_until("the request is logged", async || {
        let log = app.log();
        let line = log.lines().find(|line| line.contains(&operation) && line.contains("\"milliseconds\""))?;
        Some(serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    for (field, value) in [
        ("status", json!(499)),
        ("codes", json!("CLIENT_DISCONNECTED")),
        ("kind", json!("mutation")),
        ("operation", json!(operation)),
        ("operator", json!(caller.operator)),
        ("cost_used", json!(0)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(app.count_rows("customer").await, 0);
    holder.commit().await.unwrap();
    wait_until("the mutation is applied", async || (app.count_rows("customer").await > 0).then_some(())).await;
});

/// Starts a server on the database of the test. Returns the server, its URL, and the URL of its metrics.
fn start_with_metrics(app: &TestApp, folder: &Path) -> (Running, String, String) {
    let mut serve = vivamo(folder, &["serve"]);
    serve.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
    Running::start_with_metrics(&mut serve)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_client_disconnects_is_counted() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let caller = app.operator("A").await;
        let folder = TempDir::new().unwrap();
        let (server, url, metrics) = start_with_metrics(app, folder.path());
        let holder = create_and_disconnect(app, &url, &caller, "Disconnects").await;
        let counted = "vivamo_requests_total{kind=\"mutation\",code=\"CLIENT_DISCONNECTED\"} 1";
        scrape_until(&metrics, |shown| shown.lines().any(|line| line == counted)).await;
        holder.commit().await.unwrap();
        server.stop();
    })
    .await;
}

/// Returns the status of a probe, and its body.
async fn probe(address: &str, path: &str) -> (u16, String) {
    let answer = http_client().get(format!("{address}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_at_the_address_of_the_metrics_work_while_the_api_accepts_no_connection() {
    const LIMIT: usize = 4096;
    let earlier = logs::length();
    // Each client is an open file of the test.
    rlimit::increase_nofile_limit(10_000).unwrap();
    let folder = TempDir::new().unwrap();
    let (server, url, metrics) = Running::start_with_metrics(&mut vivamo(folder.path(), &["serve"]));
    let metrics = metrics.as_str();
    let address = metrics.trim_end_matches("/metrics");
    let has = |shown: &str, count: usize| shown.lines().any(|line| line == format!("vivamo_http_connections {count}"));
    scrape_until(metrics, |shown| has(shown, 0)).await;
    let mut clients = Vec::new();
    for _ in 0..LIMIT {
        clients.push(TcpStream::connect(url.trim_start_matches("http://")).await.unwrap());
    }
    scrape_until(metrics, |shown| has(shown, LIMIT)).await;
    assert_eq!(probe(address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(probe(address, "/readyz").await, (200, "ready\n".to_owned()));
    // The system accepts another connection, but the server reads its request only after a connection is closed. A
    // server without the limit would answer before it has answered all these probes.
    let mut waiting = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    for _ in 0..20 {
        assert_eq!(probe(address, "/healthz").await.0, 200);
    }
    let early = waiting.try_read(&mut [0; 64]);
    assert!(early.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{early:?}");
    assert!(has(&http_client().get(metrics).send().await.unwrap().text().await.unwrap(), LIMIT));
    drop(clients);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    scrape_until(metrics, |shown| has(shown, 0)).await;
    server.stop();
    let (log, address) = (logs::read_after(earlier), url.trim_start_matches("http://").to_owned());
    let warnings = log.lines().filter(|line| line.contains("limit of connections") && line.contains(&address));
    assert_eq!(warnings.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_is_alive_but_not_ready() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let caller = app.operator("A").await;
        let folder = TempDir::new().unwrap();
        let (server, url, metrics) = start_with_metrics(app, folder.path());
        let address = metrics.trim_end_matches("/metrics");
        assert_eq!(probe(address, "/readyz").await.0, 200);
        // The server waits for this request.
        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
        app.wait_until_blocked(0).await;
        let body = json!({ "query": create_with_key("a@example.com", "1") });
        let request = http_client().post(format!("{url}/graphql")).bearer_auth(&caller.key).json(&body);
        let request = tokio::spawn(request.send());
        app.wait_until_blocked(1).await;
        server.terminate();
        assert_eq!(wait_until_ready_is(address, 503).await, "the server is stopping\n");
        assert_eq!(probe(address, "/healthz").await.0, 200);
        holder.commit().await.unwrap();
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
        server.stop();
    })
    .await;
}

/// Asserts that the log has one line at level `ERROR` for these requests, which failed together.
fn assert_logged_as_one_error(app: &TestApp, failed: &[&Answer]) {
    let ids: Vec<_> = failed.iter().map(|answer| request_id(answer)).collect();
    let log = app.log();
    let of_failed = log.lines().filter(|line| ids.iter().any(|id| line.contains(id)));
    let (errors, others): (Vec<_>, Vec<_>) = of_failed.partition(|line| line.contains("\"level\":\"ERROR\""));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(&format!("\"requests\":{}", ids.len())), "{errors:?}");
    for id in ids {
        let has = |words: &str| others.iter().any(|line| line.contains(id) && line.contains(words));
        assert!(has("\"request failed\"") && has("\"milliseconds\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_shared_statement_fails_leave_one_error_in_the_log() {
    const REQUESTS: usize = 20;
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        for is_update in [false, true] {
            let mut next = 0;
            loop {
                let numbers = next..next + REQUESTS;
                next += REQUESTS;
                let send = async |number: usize| {
                    let customer = json!({ "externalCustomerId": number.to_string() });
                    match is_update {
                        true => replica.update(&operator, customer, json!({ "firstName": "Ada" })).await,
                        false => create(&replica, &operator, number).await,
                    }
                };
                if is_update {
                    join_all(numbers.clone().map(|number| create(app, &operator, number))).await;
                }
                proxy.set_trap(Cut::BeforeCommit);
                let answers = join_all(numbers.map(send)).await;
                let failed: Vec<_> = answers.iter().filter(|answer| answer.codes() == ["UNAVAILABLE"]).collect();
                // The first request may run in a statement of its own and be the only one that fails. Then the loop
                // tries again.
                if failed.len() >= 2 {
                    assert_logged_as_one_error(app, &failed);
                    break;
                }
            }
        }
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_whose_shared_statement_fails_leave_one_error_in_the_log() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let find = "{ customer(by: { email: \"1@example.com\" }) { id } }";
        app.query(&operator, find).await;
        let rename = async |from: &str, to: &str| {
            app.execute(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
        };
        rename("customer", "renamed").await;
        let answers = join_all((0..20).map(|_| app.graphql(&operator, find, json!({})))).await;
        rename("renamed", "customer").await;
        assert!(answers.iter().all(|answer| answer.codes() == ["INTERNAL"]));
        let log = app.log();
        let is_error = |line: &&str| line.contains("\"level\":\"ERROR\"");
        let is_of_these = |line: &&str| answers.iter().any(|answer| line.contains(request_id(answer)));
        let errors: Vec<Value> =
            log.lines().filter(is_error).filter(is_of_these).map(|line| serde_json::from_str(line).unwrap()).collect();
        // A read that arrives alone is no batch. Its line has no number of requests.
        let counted: u64 = errors.iter().map(|error| error["requests"].as_u64().unwrap_or(1)).sum();
        assert!(errors.len() < 20 && counted == 20, "{errors:?}");
    })
    .await;
}

both!(a_retried_conflict_logs_no_warning, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let replica = app.replica(app.database_url().to_owned()).await;
    create(app, &operator, 1).await.payload("createCustomer");
    // Both requests read the customer before one of them can write.
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    }
    let update = async |server: &TestApp, name: &str| {
        server.update(&operator, json!({ "externalCustomerId": "1" }), json!({ "firstName": name })).await
    };
    let release = async {
        app.wait_until_blocked(2).await;
        holder.commit().await.unwrap();
    };
    // On SQLite, `wait_until_blocked` counts only the requests to `app`.
    let second = if app.is_postgres() { &replica } else { app };
    let (one, other, ()) = tokio::join!(update(app, "Ada"), update(second, "Grace"), release);
    for answer in [&one, &other] {
        answer.payload("updateCustomer");
    }
    replica.stop().await;
    assert_raced_without_warning(app, &[&one, &other]);
});

/// Asserts that the log has a retry after a conflict for these requests, at level `DEBUG`, and no line at `WARN` or
/// `ERROR`.
#[track_caller]
fn assert_raced_without_warning(app: &TestApp, answers: &[&Answer]) {
    let log = app.log();
    let is_of_these = |line: &&str| answers.iter().any(|answer| line.contains(request_id(answer)));
    let lines: Vec<_> = log.lines().filter(is_of_these).collect();
    let has_level = |line: &str, level: &str| line.contains(&format!("\"level\":\"{level}\""));
    let is_race = |line: &&str| line.contains("\"transaction conflict, retrying\"");
    assert!(lines.iter().any(|line| is_race(line) && has_level(line, "DEBUG")), "no conflict: {lines:?}");
    let is_alarm = |line: &&&str| has_level(line, "WARN") || has_level(line, "ERROR");
    assert_eq!(lines.iter().find(is_alarm), None);
}

both!(a_conflict_that_ends_in_a_rejection_logs_no_warning, Sandbox, async |app| {
    let operator = app.operator("A").await;
    create(app, &operator, 1).await.payload("createCustomer");
    let replica = app.replica(app.database_url().to_owned()).await;
    // On SQLite, `wait_until_blocked` counts only the requests to `app`.
    let second = if app.is_postgres() { &replica } else { app };
    let disconnect = async |server: &TestApp| {
        let mutation =
            "mutation ($input: DisconnectCustomerInput!) { disconnectCustomer(input: $input) { customerId } }";
        let input = json!({ "customer": { "externalCustomerId": "1" }, "reason": "ENDED" });
        server.graphql(&operator, mutation, json!({ "input": input })).await
    };
    // Both requests read before one of them can write.
    let hold = async || {
        let holder = app.database.begin_write().await.unwrap();
        if app.is_postgres() {
            let lock = "LOCK TABLE customer, customer_operator, customer_event IN SHARE MODE";
            holder.execute_unprepared(lock).await.unwrap();
        }
        holder
    };
    let holder = hold().await;
    let release = async {
        app.wait_until_blocked(2).await;
        holder.commit().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(create(app, &operator, 2), create(second, &operator, 2), release);
    let holder = hold().await;
    let release = async {
        app.wait_until_blocked(2).await;
        holder.commit().await.unwrap();
    };
    let (first, last, ()) = tokio::join!(disconnect(app), disconnect(second), release);
    replica.stop().await;
    for (answers, rejection) in [
        ([&one, &other], &["EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"][..]),
        ([&first, &last], &["CUSTOMER_NOT_FOUND"]),
    ] {
        let mut codes = answers.map(Answer::codes);
        codes.iter_mut().for_each(|codes| codes.sort_unstable());
        codes.sort_unstable();
        assert_eq!(codes, [vec![], rejection.iter().map(|code| (*code).to_owned()).collect()]);
        assert_raced_without_warning(app, &answers);
    }
});
