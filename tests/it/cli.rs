//! The binary, as people start it.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use support::process::{Running, vivamo};
use support::{Backend, TestDatabase, http_client};

use crate::build_script;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PLATFORM_KEY: &str = "fedcba9876543210fedcba9876543210";

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn json_of(command: &mut Command) -> Value {
    serde_json::from_str(&printed(&command.output().unwrap())).unwrap()
}

async fn role(url: &str, key: &str) -> Value {
    let request = http_client().post(format!("{url}/graphql")).bearer_auth(key);
    let answer = request.json(&json!({ "query": "{ viewer { environment role } }" })).send().await.unwrap();
    answer.json().await.unwrap()
}

#[test]
fn schema_needs_no_database() {
    let folder = TempDir::new().unwrap();
    let printed = printed(&vivamo(folder.path(), &["schema"]).env("DATABASE_URL", "nonsense").output().unwrap());
    assert_eq!(printed, vivamo::graphql::sdl());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_first_start_shows_a_key_and_a_line_that_works() {
    let folder = TempDir::new().unwrap();
    let (server, _) = Running::start(&mut vivamo(folder.path(), &[]));
    // The line is printed before the server says that it listens; it is read when the server has stopped, so the
    // same database is served once more for it.
    let printed = server.stop();
    assert!(folder.path().join("vivamo.db").exists());
    let line = printed.lines().map(str::trim).find(|line| line.starts_with("curl ")).unwrap();
    let quoted: Vec<&str> = line.split('\'').collect();
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
    // The key is shown once.
    assert_eq!(server.stop(), "");
}

#[test]
fn processes_that_start_at_once_on_a_new_file_take_turns() {
    for round in 0..5 {
        let folder = TempDir::new().unwrap();
        let migrate = || vivamo(folder.path(), &["migrate"]).stderr(Stdio::piped()).spawn().unwrap();
        for process in [migrate(), migrate(), migrate(), migrate()] {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // One of two that serve greets the newcomer.
        let start = || {
            std::thread::spawn({
                let folder = folder.path().to_owned();
                move || Running::start(&mut vivamo(&folder, &["serve"])).0.stop()
            })
        };
        let (one, two) = (start(), start());
        let printed = one.join().unwrap() + &two.join().unwrap();
        assert_eq!(printed.matches("curl ").count(), 1, "{printed}");
    }
}

#[tokio::test]
async fn operators_and_keys_are_made_and_ended_on_the_command_line() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = vivamo(folder.path(), arguments);
            command.env("DATABASE_URL", &database.url);
            command
        };
        let operator = json_of(&mut run(&["operator", "create", "Acme", "--json"]));
        assert_eq!(operator["name"], "Acme");
        let operator_id = operator["id"].as_str().unwrap();
        let reader = json_of(&mut run(&["key", "create", operator_id, "--name", "Dashboard", "--read-only", "--json"]));
        assert_eq!(reader["name"], "Dashboard");
        let (server, url) = Running::start(&mut run(&[]));
        assert_eq!(role(&url, operator["key"].as_str().unwrap()).await["data"]["viewer"]["role"], "OPERATOR");
        let of_reader = role(&url, reader["key"].as_str().unwrap()).await;
        assert_eq!(of_reader["data"]["viewer"]["role"], "OPERATOR_READ_ONLY");

        // While the server runs.
        let revoked = json_of(&mut run(&["key", "revoke", reader["id"].as_str().unwrap(), "--json"]));
        assert_eq!(revoked[0]["id"], reader["id"]);
        let since = Instant::now();
        while role(&url, reader["key"].as_str().unwrap()).await["errors"][0]["extensions"]["code"] != "UNAUTHENTICATED"
        {
            assert!(since.elapsed() < Duration::from_secs(1));
        }
        let keys = json_of(&mut run(&["key", "list", operator_id, "--json"]));
        assert_eq!(keys.as_array().unwrap().len(), 2);
        assert_eq!(keys[0]["revokedAt"], json!(null));
        assert_eq!(keys[1]["access"], "READ_ONLY");
        assert!(keys[1]["revokedAt"].is_string());
        let operators = json_of(&mut run(&["operator", "list", "--json"]));
        assert_eq!(operators[0]["id"], operator["id"]);
        let table = printed(&run(&["key", "list"]).output().unwrap());
        assert!(table.contains("Dashboard") && !table.contains(reader["key"].as_str().unwrap()), "{table}");

        for (arguments, words) in [
            (&["key", "create", "op_01h455vb4pex5vsknk084sn02q", "--name", "x"][..], "no such operator"),
            (&["key", "create", "nonsense", "--name", "x"], "not the id of an operator"),
            (&["key", "list", "op_01h455vb4pex5vsknk084sn02q"], "no such operator"),
            (&["key", "revoke", "key_01h455vb4pex5vsknk084sn02q"], "no such API key"),
            (&["key", "revoke", "nonsense"], "not the id of a key"),
            (&["operator", "create", " "], "The name is not valid"),
        ] {
            let words_printed = refused(&mut run(arguments));
            assert!(words_printed.contains(words), "{words_printed}");
        }
        server.stop();
        database.remove().await;
    }
}

#[tokio::test]
async fn production_asks_for_more() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let Some(database) = TestDatabase::create(backend).await else { continue };
        let folder = TempDir::new().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = vivamo(folder.path(), arguments);
            command
                .env("DATABASE_URL", &database.url)
                .env("VIVAMO_ENVIRONMENT", "production")
                .env("VIVAMO_KEY_SECRET", SECRET);
            command
        };
        for (secret, words) in [
            (None, "VIVAMO_KEY_SECRET is required"),
            (Some("short"), "at least 32 bytes"),
            (Some("vivamo-sandbox-key-secret-known-to-everyone"), "which everyone knows"),
        ] {
            let mut command = run(&["migrate"]);
            match secret {
                Some(secret) => command.env("VIVAMO_KEY_SECRET", secret),
                None => command.env_remove("VIVAMO_KEY_SECRET"),
            };
            assert!(refused(&mut command).contains(words));
        }
        assert!(refused(run(&["serve"]).env("VIVAMO_PLATFORM_KEY", "short")).contains("at least 32 characters"));
        let words = refused(&mut run(&["serve"]));
        assert!(words.contains("`vivamo migrate`"), "{words}");
        printed(&run(&["migrate"]).output().unwrap());
        printed(&run(&["migrate"]).output().unwrap());

        let operator = json_of(&mut run(&["operator", "create", "Acme", "--json"]));
        let key = operator["key"].as_str().unwrap();
        assert!(key.starts_with("vivamo_production_"), "{key}");
        let (server, url) = Running::start(run(&["serve"]).env("VIVAMO_PLATFORM_KEY", PLATFORM_KEY));
        assert_eq!(role(&url, key).await["data"]["viewer"], json!({ "environment": "PRODUCTION", "role": "OPERATOR" }));
        assert_eq!(role(&url, PLATFORM_KEY).await["data"]["viewer"]["role"], "PLATFORM");
        let graphiql = http_client().get(format!("{url}/graphiql")).send().await.unwrap();
        assert_eq!(graphiql.status(), 404);
        // No demo operator, no key on standard output.
        assert_eq!(server.stop(), "");
        // The database remembers, and one that refuses is not changed.
        let forget = "DELETE FROM seaql_migrations WHERE version LIKE '%history'; DROP TABLE idempotency_key; DROP TABLE customer_event";
        support::postgres::execute(&database.url, forget).await.unwrap();
        for command in [&["serve"][..], &["migrate"], &["operator", "list"]] {
            let words = refused(run(command).env("VIVAMO_ENVIRONMENT", "sandbox"));
            assert!(words.contains("belongs to production"), "{words}");
        }
        assert!(refused(&mut run(&["serve"])).contains("lacks 1 migration"));
        database.remove().await;
    }
}

#[tokio::test]
async fn lists_of_domains_add_to_the_one_that_is_built_in() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("bad.txt"), "wegwerf.example # ours\n").unwrap();
    std::fs::write(folder.path().join("good.txt"), "yopmail.com\n").unwrap();
    let key = json_of(&mut vivamo(folder.path(), &["operator", "create", "Acme", "--json"]))["key"].clone();
    let mut command = vivamo(folder.path(), &[]);
    command.env("VIVAMO_DISPOSABLE_DOMAINS", "bad.txt").env("VIVAMO_ALLOWED_DOMAINS", "good.txt");
    let (server, url) = Running::start(&mut command);
    for (domain, codes) in [("x.wegwerf.example", 1), ("yopmail.com", 0), ("mailinator.com", 1)] {
        let query = format!(
            "{{ validateCustomer(input: {{ externalCustomerId: \"1\", data: {{ email: \"a@{domain}\" }} }}) {{ warnings {{ code }} }} }}"
        );
        let request = http_client().post(format!("{url}/graphql")).bearer_auth(key.as_str().unwrap());
        let answer: Value = request.json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["data"]["validateCustomer"]["warnings"].as_array().unwrap().len(), codes, "{domain}");
    }
    server.stop();
}

#[test]
fn what_cannot_be_done_is_said_in_words() {
    let folder = TempDir::new().unwrap();
    for (url, words) in [
        ("mysql://localhost/x", "must begin with sqlite:// or postgres://"),
        ("sqlite://missing/folder/x.db", "does its folder exist?"),
        ("postgres://nobody@127.0.0.1:1/x", "does it run where DATABASE_URL says"),
    ] {
        let words_printed = refused(vivamo(folder.path(), &["operator", "list"]).env("DATABASE_URL", url));
        assert!(words_printed.contains(words), "{words_printed}");
    }
    std::fs::write(folder.path().join("bad.txt"), "example.com\nnot a domain\n").unwrap();
    for (settings, words) in [
        (&["VIVAMO_PHONE_LOOKUP=twilio"][..], "needs VIVAMO_TWILIO_USER and VIVAMO_TWILIO_PASSWORD"),
        (
            &["VIVAMO_TWILIO_USER=SK1"],
            "VIVAMO_TWILIO_USER is set, but no carrier is asked. Set VIVAMO_PHONE_LOOKUP=twilio",
        ),
        (&["VIVAMO_TWILIO_PASSWORD=x"], "VIVAMO_TWILIO_PASSWORD is set, but no carrier is asked"),
        (&["VIVAMO_UNKNOWN_LINE_TYPE=accept"], "VIVAMO_UNKNOWN_LINE_TYPE is set, but no carrier is asked"),
        (&["VIVAMO_PHONE_LOOKUP=twilio", "VIVAMO_TWILIO_USER="], "VIVAMO_TWILIO_USER is set but empty"),
        (&["VIVAMO_DISPOSABLE_DOMAINS=missing.txt"], "Cannot read the domains of missing.txt"),
        (&["VIVAMO_ALLOWED_DOMAINS=bad.txt"], "line 2"),
        (&["VIVAMO_PLATFORM_KEY= "], "VIVAMO_PLATFORM_KEY is set but empty"),
        (&["VIVAMO_KEY_SECRET="], "VIVAMO_KEY_SECRET is set but empty"),
        (&["VIVAMO_KEY_SECRET=x", "VIVAMO_PLATFORM_KEY=x"], "VIVAMO_PLATFORM_KEY and VIVAMO_KEY_SECRET are the same"),
        (&["VIVAMO_LISTEN=127.0.0.1:9", "VIVAMO_METRICS=127.0.0.1:9"], "Give the metrics a port of their own"),
        (&["DATABASE_URL=sqlite://"], "Name one: sqlite://FILE"),
        (&["DATABASE_URL=sqlite::memory:"], "Name one: sqlite://FILE"),
        (&["DATABASE_URL=sqlite://x.db?mode=memory"], "Name one: sqlite://FILE"),
    ] {
        let settings = settings.iter().map(|setting| setting.split_once('=').unwrap());
        let words_printed = refused(vivamo(folder.path(), &["serve"]).envs(settings));
        assert!(words_printed.contains(words), "{words_printed}");
    }
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let words_printed = refused(vivamo(folder.path(), &[]).env("VIVAMO_LISTEN", address));
    assert!(words_printed.contains("Choose another address"), "{words_printed}");
}

fn misused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = TempDir::new().unwrap();
    for (arguments, words) in [
        (&["nonsense"][..], "unrecognized subcommand"),
        (&["operator"], "Usage: vivamo operator"),
        (&["operator", "list", "--listen", "127.0.0.1:0"], "unexpected argument '--listen'"),
        (&["--listen", "127.0.0.1:0", "operator", "list"], "--listen is an option of `vivamo serve`"),
        (&["--cost-per-second", "1", "serve"], "--cost-per-second is an option of `vivamo serve`"),
        (&["completions", "nonsense"], "possible values: bash"),
        (&["serve", "--twilio-url", "lookups.twilio.com"], "a URL is expected"),
        (&["serve", "--trusted-proxies", ""], "an address or a network"),
    ] {
        let words_printed = misused(&mut vivamo(folder.path(), arguments));
        assert!(words_printed.contains(words), "{words_printed}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn shared_options_stand_before_a_command_or_after_it() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| json_of(&mut vivamo(folder.path(), arguments));
    let url = "sqlite://named.db";
    let operator = run(&["--database-url", url, "operator", "create", "Acme", "--json"]);
    let listed = run(&["operator", "list", "--json", "--database-url", url]);
    assert_eq!(listed[0]["id"], operator["id"]);
    assert!(!folder.path().join("vivamo.db").exists());
    for arguments in [&["--listen", "127.0.0.1:0", "--database-url", url][..], &["serve", "--database-url", url]] {
        // The flag wins over the environment.
        Running::start(vivamo(folder.path(), arguments).env("DATABASE_URL", "sqlite://missing/folder/x.db")).0.stop();
    }
}

#[test]
fn help_shows_what_a_command_uses() {
    let folder = TempDir::new().unwrap();
    let shared = ["--database-url", "--environment", "--key-secret", "--help"];
    for (command, own) in [
        (&["schema"][..], &[][..]),
        (&["completions"], &[]),
        (&["migrate"], &shared),
        (&["operator", "list"], &["--json", "--database-url", "--environment", "--key-secret", "--help"]),
        (&["key", "list"], &["--json", "--database-url", "--environment", "--key-secret", "--help"]),
    ] {
        let help = printed(&vivamo(folder.path(), command).arg("-h").output().unwrap());
        let options = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
        let mut options: Vec<_> =
            options.filter_map(|line| line.split(' ').find(|word| word.starts_with("--"))).collect();
        options.sort_unstable();
        let mut own = own.to_vec();
        own.sort_unstable();
        assert_eq!(options, own, "{help}");
    }
    let serve = printed(&vivamo(folder.path(), &["serve", "-h"]).output().unwrap());
    assert!(serve.contains("--listen") && serve.contains("--database-url"), "{serve}");
}

#[test]
fn a_shell_completes_commands() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&vivamo(folder.path(), &["completions", shell]).output().unwrap());
        assert!(script.contains("expires-at"), "{shell}");
        std::fs::write(folder.path().join(shell), script).unwrap();
    }
    let complete = "source ./bash; COMP_WORDS=(vivamo operator cr); COMP_CWORD=2; _vivamo vivamo cr operator; echo ${COMPREPLY[@]}";
    let bash = Command::new("bash").current_dir(folder.path()).args(["-c", complete]).output().unwrap();
    assert_eq!(printed(&bash), "create\n");
}

#[test]
fn the_version_names_the_commit_where_there_is_one() {
    let root = env!("CARGO_MANIFEST_DIR");
    let folder = TempDir::new().unwrap();
    let number = env!("CARGO_PKG_VERSION");
    let git = |arguments: &[&str]| Command::new("git").current_dir(root).args(arguments).output();
    let expected = match git(&["rev-parse", "--short=12", "HEAD"]) {
        Ok(commit) if commit.status.success() && std::fs::exists(format!("{root}/.git")).unwrap() => {
            format!("vivamo {number} ({})\n", printed(&commit).trim())
        }
        _ => format!("vivamo {number}\n"),
    };
    assert_eq!(printed(&vivamo(folder.path(), &["--version"]).output().unwrap()), expected);

    // The build script by itself, with neither a repository nor git.
    let script = build_script::compile(folder.path());
    std::fs::create_dir(folder.path().join("web")).unwrap();
    std::fs::write(folder.path().join("web/not-built.html"), "").unwrap();
    let said = |source: &std::path::Path, path: &str| {
        let mut command = Command::new(&script);
        command.current_dir(source).env("OUT_DIR", folder.path()).env("VIVAMO_BUILD_WEB", "0");
        printed(&command.env("CARGO_PKG_VERSION", "1.2.3").env("PATH", path).output().unwrap())
    };
    let path = std::env::var("PATH").unwrap();
    let bare = "cargo::rustc-env=VIVAMO_VERSION=1.2.3\n";
    assert!(said(folder.path(), &path).contains(bare));
    assert!(said(root.as_ref(), "").contains(bare));
}

#[tokio::test]
async fn figures_are_shown_at_an_address_of_their_own() {
    let folder = TempDir::new().unwrap();
    let (server, url, log) = Running::start_and_read(
        vivamo(folder.path(), &[]).env("VIVAMO_METRICS", "127.0.0.1:0").env("VIVAMO_AUTH_FAILURES_PER_MINUTE", "1"),
    );
    let metrics = log.split("metrics on ").nth(1).unwrap().split_whitespace().next().unwrap();
    for code in ["UNAUTHENTICATED", "RATE_LIMITED"] {
        assert_eq!(role(&url, "wrong").await["errors"][0]["extensions"]["code"], code);
    }
    let shown = http_client().get(metrics).send().await.unwrap().text().await.unwrap();
    for figure in [
        "vivamo_requests_total{kind=\"none\",code=\"UNAUTHENTICATED\"} 1",
        "vivamo_requests_total{kind=\"none\",code=\"RATE_LIMITED\"} 1",
        "vivamo_rate_limited_total{limit=\"address\"} 1",
        "vivamo_request_duration_seconds_count{kind=\"none\"} 2",
        "vivamo_database_connections{state=\"busy\"} 0",
    ] {
        assert!(shown.contains(figure), "{figure}: {shown}");
    }
    // Not where clients are.
    assert_eq!(http_client().get(format!("{url}/metrics")).send().await.unwrap().status(), 404);
    server.stop();
}
