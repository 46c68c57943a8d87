//! The command line: commands, settings, messages and exit codes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::{Value, json};
use tempfile::TempDir;

use support::process::{Running, vivamo};
use support::{Backend, TestDatabase, http_client, seen_within_a_second};

use crate::build_script;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PLATFORM_KEY: &str = "fedcba9876543210fedcba9876543210";

/// Returns the standard output of a command that must succeed.
#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs a command that must exit with this code, and returns its standard error.
#[track_caller]
pub(crate) fn stderr(command: &mut Command, exit_code: i32) -> String {
    stderr_of(command.stdout(Stdio::piped()), exit_code)
}

/// Like [`stderr`], for a command whose standard output is already chosen. Kills a command that does not end, for
/// example a server that starts although its settings are wrong.
#[track_caller]
fn stderr_of(command: &mut Command, exit_code: i32) -> String {
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let (sender, receiver) = mpsc::channel();
    let wait = thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
        Command::new("kill").args(["-KILL", &id]).status().unwrap();
        receiver.recv().unwrap()
    });
    wait.join().unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{}{stderr}", String::from_utf8_lossy(&output.stdout));
    stderr
}

/// Runs a command that fails although its arguments and settings are valid, and returns its standard error.
#[track_caller]
pub(crate) fn failure(command: &mut Command) -> String {
    stderr(command, 1)
}

/// Runs a command that fails because of its arguments or settings, and returns its standard error.
#[track_caller]
pub(crate) fn usage_error(command: &mut Command) -> String {
    stderr(command, 2)
}

#[track_caller]
pub(crate) fn json_output(command: &mut Command) -> Value {
    serde_json::from_str(&stdout(&command.output().unwrap())).unwrap()
}

/// Sends a query and returns the response.
async fn send(url: &str, key: &str, query: &str) -> Value {
    let request = http_client().post(format!("{url}/graphql")).bearer_auth(key);
    request.json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap()
}

pub(crate) async fn role(url: &str, key: &str) -> Value {
    send(url, key, "{ viewer { environment role } }").await
}

#[test]
fn schema_needs_no_database() {
    let folder = TempDir::new().unwrap();
    let schema = stdout(&vivamo(folder.path(), &["schema"]).env("DATABASE_URL", "nonsense").output().unwrap());
    assert_eq!(schema, vivamo::graphql::sdl());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn first_start_prints_a_key_and_a_request_that_works() {
    let folder = TempDir::new().unwrap();
    let (server, _) = Running::start(&mut vivamo(folder.path(), &[]));
    // Only `stop` returns the output of the server. The server is therefore started again for the request.
    let output = server.stop();
    assert!(folder.path().join("vivamo.db").exists());
    let curl = output.lines().map(str::trim).find(|line| line.starts_with("curl ")).unwrap();
    let quoted: Vec<&str> = curl.split('\'').collect();
    let (authorization, body) = (quoted[1].trim_start_matches("Authorization: "), quoted[5]);

    let (server, url) = Running::start(&mut vivamo(folder.path(), &["serve"]));
    let request = http_client().post(format!("{url}/graphql")).header("authorization", authorization);
    let answer = request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    for path in ["/graphiql", "/graphiql/", "/"] {
        let graphiql = http_client().get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!((graphiql.status().as_u16(), graphiql.url().path()), (200, "/graphiql"));
        assert!(graphiql.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    }
    assert_eq!(answer["data"]["createCustomer"]["outcome"], "CREATED");
    assert_eq!(answer["data"]["createCustomer"]["customer"]["email"], "ada@example.com");
    // The second start prints no key.
    assert_eq!(server.stop(), "");
}

#[test]
fn concurrent_first_starts_on_one_file_take_turns() {
    for round in 0..5 {
        let folder = TempDir::new().unwrap();
        let migrate = || vivamo(folder.path(), &["migrate"]).stderr(Stdio::piped()).spawn().unwrap();
        for process in [migrate(), migrate(), migrate(), migrate()] {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // Only one of two servers creates the demo operator.
        let start = || {
            thread::spawn({
                let folder = folder.path().to_owned();
                move || Running::start(&mut vivamo(&folder, &["serve"])).0.stop()
            })
        };
        let (one, two) = (start(), start());
        let output = one.join().unwrap() + &two.join().unwrap();
        assert_eq!(output.matches("curl ").count(), 1, "{output}");
    }
}

#[tokio::test]
async fn commands_create_list_and_revoke_operators_and_keys() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| database.vivamo(folder.path(), arguments);
        let operator = json_output(&mut run(&["operator", "create", "Acme", "--json"]));
        assert_eq!(operator["name"], "Acme");
        let operator_id = operator["id"].as_str().unwrap();
        let reader =
            json_output(&mut run(&["key", "create", operator_id, "--name", "Dashboard", "--read-only", "--json"]));
        assert_eq!(reader["name"], "Dashboard");
        let (server, url) = Running::start(&mut run(&[]));
        assert_eq!(role(&url, operator["key"].as_str().unwrap()).await["data"]["viewer"]["role"], "OPERATOR");
        let read_only = role(&url, reader["key"].as_str().unwrap()).await;
        assert_eq!(read_only["data"]["viewer"]["role"], "OPERATOR_READ_ONLY");

        // The key is revoked while the server runs.
        let revoked = json_output(&mut run(&["key", "revoke", reader["id"].as_str().unwrap(), "--json"]));
        assert_eq!(revoked[0]["id"], reader["id"]);
        let is_revoked = |answer: &Value| answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED";
        seen_within_a_second(async || role(&url, reader["key"].as_str().unwrap()).await, is_revoked).await;
        let keys = json_output(&mut run(&["key", "list", operator_id, "--json"]));
        assert_eq!(keys.as_array().unwrap().len(), 2);
        assert_eq!(keys[0]["revokedAt"], json!(null));
        assert_eq!(keys[1]["access"], "READ_ONLY");
        assert!(keys[1]["revokedAt"].is_string());
        let operators = json_output(&mut run(&["operator", "list", "--json"]));
        assert_eq!(operators[0]["id"], operator["id"]);
        let table = stdout(&run(&["key", "list"]).output().unwrap());
        assert!(
            table.starts_with("ID ") && table.contains("Dashboard") && !table.contains(reader["key"].as_str().unwrap()),
            "{table}"
        );

        for (arguments, message) in [
            (&["key", "create", "op_01h455vb4pex5vsknk084sn02q", "--name", "x"][..], "no such operator"),
            (&["key", "list", "op_01h455vb4pex5vsknk084sn02q"], "no such operator"),
            (&["key", "revoke", "key_01h455vb4pex5vsknk084sn02q"], "no such API key"),
        ] {
            let stderr = failure(&mut run(arguments));
            assert!(stderr.contains(message), "{stderr}");
        }
        let past = ["key", "create", operator_id, "--name", "x", "--expires-at", "2026-01-01T00:00:00Z"];
        for (arguments, message) in [
            (&["key", "create", "nonsense", "--name", "x"][..], "not the id of an operator"),
            (&["key", "create", operator_id, "--name", ""], "the name is empty"),
            (&["key", "create", operator_id], "--name <NAME>"),
            (&past, "for '--expires-at <TIME>': must be in the future"),
            (&["key", "create", operator_id, "--name", "x", "--expires-at", "soon"], "expected a time"),
            (&["key", "list", "nonsense"], "not the id of an operator"),
            (&["key", "revoke", "nonsense"], "not the id of a key"),
            (&["operator", "create", " "], "the name is empty"),
            (&["operator", "create", ""], "the name is empty"),
        ] {
            let stderr = usage_error(&mut run(arguments));
            assert!(stderr.contains(message), "{stderr}");
        }
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn commands_suspend_resume_and_change_operators() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY);
            command
        };
        let operator = json_output(&mut run(&["operator", "create", "Acme", "--json"]));
        let (id, key) = (operator["id"].as_str().unwrap(), operator["key"].as_str().unwrap());
        let changed = json_output(&mut run(&["operator", "update", id, "--name", "Bolt", "--json"]));
        assert_eq!((&changed[0]["name"], &changed[0]["disclosuresPerHour"]), (&json!("Bolt"), &json!(null)));
        let changed = json_output(&mut run(&["operator", "update", id, "--disclosures-per-hour", "5000", "--json"]));
        assert_eq!((&changed[0]["name"], &changed[0]["disclosuresPerHour"]), (&json!("Bolt"), &json!(5000)));
        let changed = json_output(&mut run(&["operator", "update", id, "--disclosures-per-hour", "default", "--json"]));
        assert_eq!(changed[0]["disclosuresPerHour"], json!(null));

        let (server, url) = Running::start(&mut run(&[]));
        for (command, status) in [("suspend", "SUSPENDED"), ("resume", "ACTIVE")] {
            assert_eq!(json_output(&mut run(&["operator", command, id, "--json"]))[0]["status"], status);
            let is_seen = |answer: &Value| answer["data"].is_object() == (command == "resume");
            seen_within_a_second(async || role(&url, key).await, is_seen).await;
        }
        let rejected = failure(&mut run(&["operator", "remove-customers", id]));
        assert!(rejected.contains("Run `vivamo operator suspend OPERATOR`"), "{rejected}");
        let create = "mutation { createCustomer(input: { externalCustomerId: \"1\", data: { email: \"a@example.com\" } }) { outcome } }";
        send(&url, key, create).await;
        stdout(&run(&["operator", "suspend", id]).output().unwrap());
        let removed = stdout(&run(&["operator", "remove-customers", id]).output().unwrap());
        assert_eq!(removed, format!("Customers disconnected from {id}: 1\n"));
        let removed = json_output(&mut run(&["operator", "remove-customers", id, "--json"]));
        assert_eq!(removed, json!({ "id": id, "disconnected": 0 }));
        stdout(&run(&["operator", "resume", id]).output().unwrap());
        let revoked = json_output(&mut run(&["key", "revoke-all", id, "--json"]));
        assert_eq!((revoked.as_array().unwrap().len(), &revoked[0]["name"]), (1, &json!("First key")));
        assert_eq!(json_output(&mut run(&["key", "revoke-all", id, "--json"])), json!([]));
        let table = stdout(&run(&["operator", "list"]).output().unwrap());
        assert!(
            table.starts_with("ID ") && table.contains("ACTIVE") && table.contains("DISCLOSURES PER HOUR"),
            "{table}"
        );

        let ask = async |query: &str| send(&url, PLATFORM_KEY, query).await;
        let answer = ask("{ adminEvents { nodes { type source osUser actor requestId } } }").await;
        let events = answer["data"]["adminEvents"]["nodes"].as_array().unwrap();
        assert_eq!(events.len(), 11, "{answer}");
        let user = stdout(&Command::new("id").arg("-un").output().unwrap());
        for event in events {
            assert_eq!((&event["source"], &event["osUser"]), (&json!("COMMAND_LINE"), &json!(user.trim())));
        }
        // With the id of a run, the platform finds the customers that the run disconnected.
        let removed = events.iter().find(|event| event["type"] == "OPERATOR_CUSTOMERS_REMOVED").unwrap();
        let run_id = &removed["requestId"];
        let answer = ask(&format!("{{ customerEvents(requestId: {run_id}) {{ nodes {{ type reason }} }} }}")).await;
        assert_eq!(answer["data"]["customerEvents"]["nodes"], json!([{ "type": "DISCONNECTED", "reason": "ENDED" }]));

        let unknown = "op_01h455vb4pex5vsknk084sn02q";
        for arguments in [
            &["operator", "suspend", unknown][..],
            &["operator", "resume", unknown],
            &["operator", "remove-customers", unknown],
            &["operator", "update", unknown, "--name", "x"],
            &["key", "revoke-all", unknown],
        ] {
            let stderr = failure(&mut run(arguments));
            assert!(stderr.contains("no such operator"), "{stderr}");
        }
        for (arguments, message) in [
            (&["operator", "suspend", "nonsense"][..], "not the id of an operator"),
            (&["operator", "update", id], "--name <NAME>|--disclosures-per-hour <COUNT>"),
            (&["operator", "update", id, "--name", " "], "the name is empty"),
            (&["operator", "update", id, "--disclosures-per-hour", "0"], "at least 1, or `default`"),
            (&["key", "revoke-all", "nonsense"], "not the id of an operator"),
        ] {
            let stderr = usage_error(&mut run(arguments));
            assert!(stderr.contains(message), "{stderr}");
        }
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn a_command_erases_a_customer() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY);
            command
        };
        let operator = json_output(&mut run(&["operator", "create", "Acme", "--json"]));
        let (server, url) = Running::start(&mut run(&[]));
        let ask = async |key: &str, query: &str| send(&url, key, query).await;
        let create = "mutation { createCustomer(input: { externalCustomerId: \"1\", \
            data: { email: \"ada@example.com\" } }) { customer { id } } }";
        let created = ask(operator["key"].as_str().unwrap(), create).await;
        let id = created["data"]["createCustomer"]["customer"]["id"].as_str().unwrap();

        // The first attempt fails, because another process writes. The command tries again.
        let holder = sea_orm::Database::connect(&database.url).await.unwrap();
        let writing = holder.begin().await.unwrap();
        writing.execute_unprepared("UPDATE customer SET id = id").await.unwrap();
        let mut command = run(&["customer", "erase", id, "Case 7", "--json"]);
        let mut erasing = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(erasing.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("trying again: customer.erase: "), "{line}");
        writing.rollback().await.unwrap();
        // On a slow machine, further attempts may have failed before the rollback.
        assert!(lines.all(|line| line.unwrap().starts_with("trying again: customer.erase: ")));
        let erased: Value = serde_json::from_slice(&erasing.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(
            (&erased[0]["customerId"], &erased[0]["operators"], &erased[0]["entries"]),
            (&json!(id), &json!(1), &json!(1))
        );
        let query = "{ erasures { nodes { id customerId reference } } customers { nodes { id } } }";
        let receipt = json!({ "id": erased[0]["id"], "customerId": id, "reference": "Case 7" });
        let expected = json!({ "erasures": { "nodes": [receipt] }, "customers": { "nodes": [] } });
        assert_eq!(ask(PLATFORM_KEY, query).await["data"], expected);

        let repeated = failure(&mut run(&["customer", "erase", id, "Case 7"]));
        assert!(repeated.contains("no such customer"), "{repeated}");
        for (arguments, message) in [
            (&["customer", "erase", "nonsense", "Case 7"][..], "not the id of a customer"),
            (&["customer", "erase", id, " "], "the reference is empty"),
            (&["customer", "erase", id], "<REFERENCE>"),
        ] {
            let stderr = usage_error(&mut run(arguments));
            assert!(stderr.contains(message), "{stderr}");
        }
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn production_requires_secrets_and_migrations() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = database.vivamo(folder.path(), arguments);
            command.env("VIVAMO_ENVIRONMENT", "production").env("VIVAMO_KEY_SECRET", SECRET);
            command
        };
        for (secret, message) in [
            (None, "VIVAMO_KEY_SECRET (--key-secret) is required in production"),
            (Some("short"), "at least 32 bytes"),
            (Some("vivamo-sandbox-key-secret-known-to-everyone"), "is the public default secret"),
        ] {
            let mut command = run(&["migrate"]);
            match secret {
                Some(secret) => command.env("VIVAMO_KEY_SECRET", secret),
                None => command.env_remove("VIVAMO_KEY_SECRET"),
            };
            assert!(usage_error(&mut command).contains(message));
        }
        for (key, message) in [
            ("short", "at least 32 characters"),
            ("schlüssel-der-plattform-für-tests-0123456789", "visible ASCII characters"),
        ] {
            assert!(usage_error(run(&["serve"]).env("VIVAMO_PLATFORM_KEY", key)).contains(message));
        }
        let stderr = failure(&mut run(&["serve"]));
        assert!(stderr.contains("`vivamo migrate`"), "{stderr}");
        stdout(&run(&["migrate"]).output().unwrap());
        stdout(&run(&["migrate"]).output().unwrap());

        let operator = json_output(&mut run(&["operator", "create", "Acme", "--json"]));
        let key = operator["key"].as_str().unwrap();
        assert!(key.starts_with("vivamo_production_"), "{key}");
        let (server, url) = Running::start(run(&["serve"]).env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY));
        assert_eq!(role(&url, key).await["data"]["viewer"], json!({ "environment": "PRODUCTION", "role": "OPERATOR" }));
        assert_eq!(role(&url, PLATFORM_KEY).await["data"]["viewer"]["role"], "PLATFORM");
        let graphiql = http_client().get(format!("{url}/graphiql")).send().await.unwrap();
        assert_eq!(graphiql.status(), 404);
        // Production creates no demo operator, and prints no key.
        assert_eq!(server.stop(), "");
        // A database of the other environment is rejected before anything is migrated.
        let remove_a_migration = "DELETE FROM seaql_migrations WHERE version LIKE '%history'; \
                                  DROP TABLE idempotency_key; DROP TABLE customer_event";
        support::postgres::execute(&database.url, remove_a_migration).await.unwrap();
        for command in [&["serve"][..], &["migrate"], &["migrate", "--check"], &["operator", "list"]] {
            let stderr = failure(run(command).env("VIVAMO_ENVIRONMENT", "sandbox"));
            assert!(stderr.contains("belongs to production"), "{stderr}");
        }
        assert!(failure(&mut run(&["serve"])).contains("has 1 pending migration"));
        database.remove().await;
    }
}

#[tokio::test]
async fn domain_files_extend_the_built_in_list() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("bad.txt"), "wegwerf.example # ours\n").unwrap();
    std::fs::write(folder.path().join("good.txt"), "yopmail.com\n").unwrap();
    let key = json_output(&mut vivamo(folder.path(), &["operator", "create", "Acme", "--json"]))["key"].clone();
    let mut command = vivamo(folder.path(), &[]);
    command.env("VIVAMO_DISPOSABLE_DOMAINS", "bad.txt").env("VIVAMO_ALLOWED_DOMAINS", "good.txt");
    let (server, url) = Running::start(&mut command);
    for (domain, warnings) in [("x.wegwerf.example", 1), ("yopmail.com", 0), ("mailinator.com", 1)] {
        let query = format!(
            "{{ validateCustomer(input: {{ externalCustomerId: \"1\", data: {{ email: \"a@{domain}\" }} }}) \
             {{ warnings {{ code }} }} }}"
        );
        let request = http_client().post(format!("{url}/graphql")).bearer_auth(key.as_str().unwrap());
        let answer: Value = request.json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["data"]["validateCustomer"]["warnings"].as_array().unwrap().len(), warnings, "{domain}");
    }
    server.stop();
}

#[tokio::test]
async fn each_cause_of_a_connection_failure_has_its_own_message() {
    let folder = TempDir::new().unwrap();
    let listing = |url: &str| {
        let mut command = vivamo(folder.path(), &["operator", "list"]);
        command.env("DATABASE_URL", url);
        command
    };
    std::fs::write(folder.path().join("text.db"), "not a database, but a long enough text".repeat(100)).unwrap();
    let wrong_password = server_that_rejects("28P01", "password authentication failed for user \"ada\"");
    let wrong_user = server_that_rejects("28000", "role \"ada\" does not exist");
    for (url, message) in [
        (
            "sqlite://missing/folder/x.db",
            "Cannot open the database file missing/folder/x.db. Check that the folder of the file exists",
        ),
        ("sqlite://text.db", "text.db is not a SQLite database"),
        (
            "postgres://ada@127.0.0.1:1/x",
            "Cannot connect to PostgreSQL at 127.0.0.1:1: connection refused. Is it running?",
        ),
        ("postgres://ada@missing.invalid/x", "Cannot find the host `missing.invalid` of PostgreSQL"),
        (
            &format!("postgres://ada:hunter2@{wrong_password}/x?sslmode=disable"),
            "rejected user `ada` (password authentication failed",
        ),
        (&format!("postgres://ada@{wrong_user}/x?sslmode=disable"), "rejected user `ada` (role \"ada\" does not exist"),
    ] {
        let stderr = failure(&mut listing(url));
        assert!(stderr.contains(message) && stderr.contains("DATABASE_URL (--database-url)"), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }

    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let execute = async |sql: &str| support::postgres::execute(&database.url, sql).await.unwrap();
        if backend == Backend::Postgres {
            let missing = format!("{}_missing", database.url);
            let stderr = failure(&mut listing(&missing));
            assert!(stderr.contains("has no database `vivamo_test_"), "{stderr}");
        } else {
            std::fs::write(database.url.trim_start_matches("sqlite://"), "").unwrap();
        }
        execute("CREATE TABLE customer (id INTEGER)").await;
        let stderr = failure(&mut listing(&database.url));
        assert!(stderr.contains("has tables of another application"), "{stderr}");
        execute("DROP TABLE customer").await;
        stdout(&listing(&database.url).output().unwrap());
        execute("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_new', 1)").await;
        stdout(&listing(&database.url).output().unwrap());
        execute("UPDATE deployment SET required_migration = 'm20990101_000001_new'").await;
        let stderr = failure(&mut listing(&database.url));
        assert!(stderr.contains("migrated by a newer version") && stderr.contains("m20990101_000001_new"), "{stderr}");
        // This version does not migrate a database that it does not know.
        execute("DELETE FROM seaql_migrations WHERE version LIKE '%_webhooks'").await;
        let stderr = failure(&mut listing(&database.url));
        assert!(stderr.contains("migrated by a newer version") && stderr.contains("m20990101_000001_new"), "{stderr}");
        database.remove().await;
    }
}

/// Starts a server that sends this error to each PostgreSQL client, and returns its address.
fn server_that_rejects(code: &'static str, message: &'static str) -> String {
    server_at("127.0.0.1:0", code, message)
}

pub(crate) fn server_at(address: &str, code: &'static str, message: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut read_startup = || {
                let mut length = [0; 4];
                client.read_exact(&mut length).unwrap();
                let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
                client.read_exact(&mut startup).unwrap();
                startup
            };
            // If the client asks for TLS, the server rejects. It then closes the connection, because in these tests
            // such a client requires TLS and would not continue without it.
            if read_startup() == 80_877_103_u32.to_be_bytes() {
                client.write_all(b"N").unwrap();
                continue;
            }
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            client.write_all(&[b"E", &length[..], fields.as_bytes()].concat()).unwrap();
        }
    });
    address
}

#[test]
fn wrong_settings_are_usage_errors_that_say_what_to_change() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("bad.txt"), "example.com\nnot a domain\n").unwrap();
    for (settings, message) in [
        (&["VIVAMO_PHONE_LOOKUP=twilio"][..], "requires VIVAMO_TWILIO_USER (--twilio-user) and VIVAMO_TWILIO_PASSWORD"),
        (
            &["VIVAMO_TWILIO_USER=SK1"],
            "VIVAMO_TWILIO_USER (--twilio-user) has no effect without Twilio. Set VIVAMO_PHONE_LOOKUP=twilio",
        ),
        (&["VIVAMO_TWILIO_PASSWORD=x"], "VIVAMO_TWILIO_PASSWORD (--twilio-password) has no effect without Twilio"),
        (&["VIVAMO_UNKNOWN_LINE_TYPE=accept"], "VIVAMO_UNKNOWN_LINE_TYPE (--unknown-line-type) has no effect"),
        (&["VIVAMO_PHONE_LOOKUP=twilio", "VIVAMO_TWILIO_USER="], "VIVAMO_TWILIO_USER (--twilio-user) is set but empty"),
        (&["VIVAMO_TWILIO_PASSWORD="], "VIVAMO_TWILIO_PASSWORD (--twilio-password) is set but empty"),
        (&["RUST_LOG=loud"], "RUST_LOG has an invalid part: `loud`. Write a level"),
        (&["VIVAMO_DISPOSABLE_DOMAINS=missing.txt"], "Cannot read the domains in missing.txt"),
        (&["VIVAMO_ALLOWED_DOMAINS=bad.txt"], "line 2"),
        (&["VIVAMO_PLATFORM_KEY= "], "VIVAMO_PLATFORM_KEY (--platform-key) is set but empty"),
        (&["VIVAMO_KEY_SECRET="], "VIVAMO_KEY_SECRET (--key-secret) is set but empty"),
        (
            &["VIVAMO_KEY_SECRET=x", "VIVAMO_PLATFORM_KEY=x"],
            "VIVAMO_PLATFORM_KEY (--platform-key) and VIVAMO_KEY_SECRET (--key-secret) are the same",
        ),
        (
            &["VIVAMO_KEY_SECRET=y", "VIVAMO_KEY_SECRET_OLD=x", "VIVAMO_PLATFORM_KEY=x"],
            "VIVAMO_PLATFORM_KEY (--platform-key) and VIVAMO_KEY_SECRET_OLD (--key-secret-old) are the same",
        ),
        (&["VIVAMO_LISTEN=127.0.0.1:9", "VIVAMO_METRICS=127.0.0.1:9"], "Use another port for the metrics"),
        (
            &[
                "VIVAMO_ENVIRONMENT=production",
                "VIVAMO_KEY_SECRET=0123456789abcdef0123456789abcdef",
                "VIVAMO_WEBHOOK_NETWORKS=::1",
            ],
            "VIVAMO_WEBHOOK_NETWORKS (--webhook-networks) is only for sandbox",
        ),
        (&["VIVAMO_WEBHOOK_NETWORKS=localhost"], "expected an address or a network"),
        (
            &["DATABASE_URL=mysql://localhost/x"],
            "DATABASE_URL (--database-url) must start with sqlite:// or postgres://",
        ),
        (&["DATABASE_URL=sqlite://"], "Use sqlite://FILE"),
        (&["DATABASE_URL=sqlite::memory:"], "Use sqlite://FILE"),
        (&["DATABASE_URL=sqlite://x.db?mode=memory"], "has the parameter `mode=memory`. Remove it."),
    ] {
        let settings = settings.iter().map(|setting| setting.split_once('=').unwrap());
        let stderr = usage_error(vivamo(folder.path(), &["serve"]).envs(settings));
        assert!(stderr.contains(message), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a command created a database");
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    for (listen, metrics) in [(address.as_str(), ""), ("127.0.0.1:0", &address)] {
        let mut command = vivamo(folder.path(), &[]);
        let stderr = failure(command.env("VIVAMO_LISTEN", listen).env("VIVAMO_METRICS", metrics));
        assert!(stderr.contains("Choose another address with VIVAMO_"), "{stderr}");
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let folder = TempDir::new().unwrap();
    let help = stdout(&vivamo(folder.path(), &["serve", "-h"]).output().unwrap());
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let names = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    let credentials = [
        "VIVAMO_KEY_SECRET",
        "VIVAMO_KEY_SECRET_OLD",
        "VIVAMO_PLATFORM_KEY",
        "VIVAMO_TWILIO_USER",
        "VIVAMO_TWILIO_PASSWORD",
    ];
    let (credentials, others): (Vec<_>, Vec<_>) = names.partition(|name| credentials.contains(name));
    assert_eq!((credentials.len(), others.len()), (5, 23));
    let with_empty_variables = |arguments: &[&str]| {
        let mut command = vivamo(folder.path(), arguments);
        command.envs(others.iter().map(|name| (name, "")));
        command
    };
    stdout(&with_empty_variables(&["operator", "list"]).output().unwrap());
    for arguments in [&[][..], &["serve"]] {
        Running::start(&mut with_empty_variables(arguments)).0.stop();
    }
}

#[test]
fn unknown_variables_are_rejected() {
    let folder = TempDir::new().unwrap();
    for command in [&["serve"][..], &[], &["migrate"], &["operator", "list"], &["key", "list"]] {
        let stderr = usage_error(
            vivamo(folder.path(), command).env("VIVAMO_LISTEN_ADDRESS", "127.0.0.1:0").env("VIVAMO_RATE_LIMIT", "0"),
        );
        assert!(stderr.contains("VIVAMO_LISTEN_ADDRESS is not a setting. Did you mean VIVAMO_LISTEN?"), "{stderr}");
        assert!(stderr.contains("VIVAMO_RATE_LIMIT is not a setting"), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // A command without settings accepts unknown variables. All commands accept empty variables, and the variables of
    // the tests and the build.
    stdout(&vivamo(folder.path(), &["schema"]).env("VIVAMO_RATE_LIMIT", "0").output().unwrap());
    for (name, value) in
        [("VIVAMO_RATE_LIMIT", ""), ("VIVAMO_TEST_ISOLATION", "serializable"), ("VIVAMO_BUILD_WEB", "1")]
    {
        stdout(&vivamo(folder.path(), &["operator", "list"]).env(name, value).output().unwrap());
    }
}

#[test]
fn messages_name_the_variable_of_an_invalid_value() {
    let folder = TempDir::new().unwrap();
    for (command, variable, value) in [
        (&["serve"][..], "VIVAMO_ENVIRONMENT", "prod"),
        (&["operator", "list"], "VIVAMO_ENVIRONMENT", "prod"),
        (&["serve"], "VIVAMO_LISTEN", "8000"),
        (&[], "VIVAMO_LISTEN", "8000"),
        (&["--environment", "sandbox"], "VIVAMO_LISTEN", "8000"),
        (&["serve"], "VIVAMO_TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
    ] {
        let stderr = usage_error(vivamo(folder.path(), command).env(variable, value));
        assert!(stderr.contains(&format!("the value comes from {variable}")), "{stderr}");
    }
    for listen in ["x", "8000", ""] {
        let mut command = vivamo(folder.path(), &["serve", "--listen", listen]);
        for stderr in [usage_error(&mut command), usage_error(command.env("VIVAMO_LISTEN", "127.0.0.1:8000"))] {
            assert!(!stderr.contains("comes from"), "{stderr}");
        }
    }
}

#[test]
fn a_flag_replaces_an_invalid_variable() {
    let folder = TempDir::new().unwrap();
    for command in [&["serve"][..], &[]] {
        let mut command = vivamo(folder.path(), &[command, &["--cost-per-second", "100"]].concat());
        // The address of the database is checked after all flags and variables.
        let command = command.env("VIVAMO_COST_PER_SECOND", "many").env("DATABASE_URL", "nowhere");
        assert!(usage_error(command).contains("must start with sqlite://"));
    }
}

#[test]
fn only_serve_reads_the_settings_of_the_server() {
    let folder = TempDir::new().unwrap();
    for command in [&["schema"][..], &["operator", "list"], &["--environment", "sandbox", "operator", "list"]] {
        let mut command = vivamo(folder.path(), command);
        let command = command.env("VIVAMO_LISTEN", "8000").env("VIVAMO_CHANGES_DAYS", "many");
        stdout(&command.output().unwrap());
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let folder = TempDir::new().unwrap();
    for (arguments, message) in [
        (&["nonsense"][..], "unrecognized subcommand"),
        (&["operator"], "Usage: vivamo operator"),
        (&["operator", "list", "--listen", "127.0.0.1:0"], "unexpected argument '--listen'"),
        (&["--listen", "127.0.0.1:0", "operator", "list"], "--listen is an option of `vivamo serve`"),
        (&["--cost-per-second", "1", "serve"], "--cost-per-second is an option of `vivamo serve`"),
        (&["completions", "nonsense"], "possible values: bash"),
        (&["serve", "--twilio-url", "lookups.twilio.com"], "expected a URL with https"),
        (&["serve", "--twilio-url", "http://lookups.twilio.com"], "expected a URL with https"),
        (&["serve", "--twilio-url", "http://127.0.0.1.example.com"], "expected a URL with https"),
        (&["serve", "--trusted-proxies", ""], "expected an address or a network"),
        (&["serve", "--cors-origins", "https://example.com/page"], "expected an origin without a path"),
        (&["serve", "--listen", "8000"], "expected an address and a port, for example 127.0.0.1:8000"),
    ] {
        let stderr = usage_error(&mut vivamo(folder.path(), arguments));
        assert!(stderr.contains(message), "{stderr}");
    }
    let with_password = ["serve", "--twilio-url", "https://user:a-password@lookups.twilio.com"];
    let stderr = usage_error(&mut vivamo(folder.path(), &with_password));
    assert!(stderr.contains("without a user name, a password") && !stderr.contains("a-password"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn help_succeeds_and_incomplete_commands_are_usage_errors() {
    let folder = TempDir::new().unwrap();
    for (arguments, exit_code) in [
        (&["--help"][..], 0),
        (&["help", "key"], 0),
        (&["operator", "create", "--help"], 0),
        (&["key"], 2),
        (&["backup"], 2),
        (&["completions"], 2),
        (&["operator", "suspend"], 2),
        (&["migrate", "now"], 2),
        (&["schema", "customer"], 2),
        (&["webhook", "listen"], 2),
        (&["webhook", "listen", "--secret", "x"], 2),
        (&["migrate", "--check"], 1),
        (&["backup", "copy.db"], 1),
    ] {
        stderr(&mut vivamo(folder.path(), arguments), exit_code);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let folder = TempDir::new().unwrap();
    // This device of Linux behaves like a file on a full disk.
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    for arguments in [
        &["schema"][..],
        &["completions", "bash"],
        &["migrate"],
        &["operator", "create", "Acme", "--json"],
        &["operator", "list"],
        &["key", "list", "--json"],
    ] {
        let message = stderr_of(vivamo(folder.path(), arguments).stdout(full.try_clone().unwrap()), 1);
        assert!(message.contains("Cannot write to standard output"), "{arguments:?}: {message}");
    }
    // A closed pipe is not a failure, because the reader has read enough.
    let mut child = vivamo(folder.path(), &["schema"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn shared_options_work_before_and_after_a_command() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| json_output(&mut vivamo(folder.path(), arguments));
    let url = "sqlite://named.db";
    let operator = run(&["--database-url", url, "operator", "create", "Acme", "--json"]);
    let listed = run(&["operator", "list", "--json", "--database-url", url]);
    assert_eq!(listed[0]["id"], operator["id"]);
    assert_eq!(run(&["operator", "--json", "--database-url", url, "list"]), listed);
    assert!(!folder.path().join("vivamo.db").exists());
    for arguments in [&["--listen", "127.0.0.1:0", "--database-url", url][..], &["serve", "--database-url", url]] {
        // The flag has priority over the environment variable.
        Running::start(vivamo(folder.path(), arguments).env("DATABASE_URL", "sqlite://missing/folder/x.db")).0.stop();
    }
}

#[test]
fn help_lists_only_the_options_of_a_command() {
    let folder = TempDir::new().unwrap();
    let shared = [
        "--database-url",
        "--database-url-file",
        "--environment",
        "--key-secret",
        "--key-secret-file",
        "--key-secret-old",
        "--key-secret-old-file",
        "--wait-for-database",
        "--help",
    ];
    let shared_and = |own: &'static str| [&shared[..], &[own]].concat();
    for (command, own) in [
        (&[][..], shared_and("--version")),
        (&["schema"], Vec::new()),
        (&["completions"], Vec::new()),
        (&["migrate"], shared_and("--check")),
        (&["backup"], shared.to_vec()),
        (&["rotate-key-secret"], shared.to_vec()),
        (&["operator", "list"], shared_and("--json")),
        (&["key", "list"], shared_and("--json")),
        (&["customer", "erase"], shared_and("--json")),
    ] {
        let help = stdout(&vivamo(folder.path(), command).arg("-h").output().unwrap());
        let options = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
        let mut options: Vec<_> =
            options.filter_map(|line| line.split(' ').find(|word| word.starts_with("--"))).collect();
        options.sort_unstable();
        let mut own = own;
        own.sort_unstable();
        assert_eq!(options, own, "{help}");
    }
    let serve = stdout(&vivamo(folder.path(), &["serve", "-h"]).output().unwrap());
    assert!(serve.contains("--listen") && serve.contains("--database-url"), "{serve}");
}

#[test]
fn completions_work_in_bash() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&vivamo(folder.path(), &["completions", shell]).output().unwrap());
        assert!(script.contains("expires-at"), "{shell}");
        std::fs::write(folder.path().join(shell), script).unwrap();
    }
    let complete = "source ./bash; COMP_WORDS=(vivamo operator cr); COMP_CWORD=2; \
                    _vivamo vivamo cr operator; echo ${COMPREPLY[@]}";
    let bash = Command::new("bash").current_dir(folder.path()).args(["-c", complete]).output().unwrap();
    assert_eq!(stdout(&bash), "create\n");
}

#[test]
fn version_names_the_commit_if_there_is_one() {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = TempDir::new().unwrap();
    let number = env!("CARGO_PKG_VERSION");
    let git = |arguments: &[&str]| Command::new("git").current_dir(root).args(arguments).output();
    let expected = match git(&["rev-parse", "--short=12", "HEAD"]) {
        Ok(commit) if commit.status.success() && std::fs::exists(format!("{root}/.git")).unwrap() => {
            format!("vivamo {number} ({})\n", stdout(&commit).trim())
        }
        _ => format!("vivamo {number}\n"),
    };
    assert_eq!(stdout(&vivamo(folder.path(), &["--version"]).output().unwrap()), expected);

    // Runs only the build script, once without a repository and once without git.
    std::fs::create_dir(folder.path().join("web")).unwrap();
    std::fs::write(folder.path().join("web/not-built.html"), "").unwrap();
    let run_script = |source: &std::path::Path, path: &str| {
        let mut command = Command::new(build_script::compiled());
        command.current_dir(source).env("OUT_DIR", folder.path()).env("VIVAMO_BUILD_WEB", "0");
        stdout(&command.env("CARGO_PKG_VERSION", "1.2.3").env("PATH", path).output().unwrap())
    };
    let path = std::env::var("PATH").unwrap();
    let without_commit = "cargo::rustc-env=VIVAMO_VERSION=1.2.3\n";
    assert!(run_script(folder.path(), &path).contains(without_commit));
    assert!(run_script(root.as_ref(), "").contains(without_commit));
}

#[tokio::test]
async fn metrics_are_served_at_their_own_address() {
    let folder = TempDir::new().unwrap();
    let mut serve = vivamo(folder.path(), &[]);
    let (server, url, metrics) = Running::start_with_metrics(serve.env("VIVAMO_AUTH_FAILURES_PER_MINUTE", "1"));
    let metrics = metrics.as_str();
    // Series that start with their first event would hide this event from the alerts.
    let shown = http_client().get(metrics).send().await.unwrap().text().await.unwrap();
    let mut expected = Vec::new();
    for kind in ["query", "mutation", "none"] {
        expected.push(format!("vivamo_cost_total{{kind=\"{kind}\"}} 0"));
        for code in ["OK", "INTERNAL", "UNAVAILABLE", "CLIENT_DISCONNECTED"] {
            expected.push(format!("vivamo_requests_total{{kind=\"{kind}\",code=\"{code}\"}} 0"));
        }
    }
    for (counter, label, values) in [
        ("rate_limited", "limit", &["cost", "in_flight", "auth_failures", "disclosures"][..]),
        ("disclosures", "kind", &["connected", "identity_conflict", "taken_on_update", "rejected_create"]),
        ("phone_lookups", "outcome", &["answered", "failed", "busy"]),
        ("webhook_deliveries", "outcome", &["delivered", "status", "timeout", "connection", "forbidden_address"]),
        ("webhooks_disabled", "reason", &["failing", "gone", "cursor_expired"]),
    ] {
        expected.extend(values.iter().map(|value| format!("vivamo_{counter}_total{{{label}=\"{value}\"}} 0")));
    }
    for series in expected {
        assert!(shown.lines().any(|line| line == series), "{series}: {shown}");
    }
    for code in ["UNAUTHENTICATED", "RATE_LIMITED"] {
        assert_eq!(role(&url, "wrong").await["errors"][0]["extensions"]["code"], code);
    }
    let shown = http_client().get(metrics).send().await.unwrap().text().await.unwrap();
    for metric in [
        "vivamo_requests_total{kind=\"none\",code=\"UNAUTHENTICATED\"} 1",
        "vivamo_requests_total{kind=\"none\",code=\"RATE_LIMITED\"} 1",
        "vivamo_rate_limited_total{limit=\"auth_failures\"} 1",
        "vivamo_request_duration_seconds_count{kind=\"none\"} 2",
        // The background jobs may use connections at this time.
        "vivamo_database_connections{state=\"busy\"} ",
    ] {
        assert!(shown.contains(metric), "{metric}: {shown}");
    }
    // The API does not serve the metrics.
    assert_eq!(http_client().get(format!("{url}/metrics")).send().await.unwrap().status(), 404);
    server.stop();
}
