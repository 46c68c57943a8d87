//! The documentation: the targets of all links inside the repository exist, the files that a page names exist,
//! docs/operations.md lists all settings, commands and metrics of the program and quotes its log messages, and
//! docs/api.md lists all mutations and error codes. The service accepts the queries that a page shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use clap::{Command, CommandFactory};
use entity::deployment::Environment;
use serde_json::{Value, json};
use support::{Backend, run};
use vivamo::cli::Cli;

/// Folders whose files the documentation names in backticks.
const FOLDERS: [&str; 8] = ["src", "entity", "migration", "tests", "benches", "docs", "web", ".ci"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The paths of all pages, relative to the root.
fn pages() -> Vec<PathBuf> {
    let in_folder = |folder: &str| -> Vec<PathBuf> {
        let files = std::fs::read_dir(root().join(folder))
            .unwrap()
            .map(|file| Path::new(folder).join(file.unwrap().file_name()));
        files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
    };
    [in_folder(""), in_folder("docs")].concat()
}

/// The text of a page without its code blocks.
fn prose(page: &Path) -> String {
    read(page).split("```").step_by(2).collect()
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &Path) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// Returns the names in backticks in the first column of a table in docs/operations.md: the first table after this
/// heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let operations = read("docs/operations.md");
    let section = operations.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned())).collect()
}

#[test]
fn the_section_on_codes_names_each_error_code_and_each_mutation() {
    let api = read("docs/api.md");
    let codes = api.split("\n### Codes of each field\n").nth(1).unwrap().split("\n#").next().unwrap();
    let schema = read("schema.graphql");
    let schema = async_graphql::parser::parse_schema(&schema).unwrap();
    let mut checked = 0;
    for definition in &schema.definitions {
        let TypeSystemDefinition::Type(ty) = definition else { continue };
        let names: Vec<_> = match (ty.node.name.node.as_str(), &ty.node.kind) {
            ("Mutation", TypeKind::Object(mutation)) => {
                mutation.fields.iter().map(|field| &field.node.name.node).collect()
            }
            ("ErrorCode", TypeKind::Enum(code)) => code.values.iter().map(|value| &value.node.value.node).collect(),
            _ => continue,
        };
        for name in names {
            assert!(codes.contains(&format!("`{name}`")), "docs/api.md, \"Codes of each field\": `{name}` is missing");
            checked += 1;
        }
    }
    assert!(checked > 40, "the test found too few mutations and codes: {checked}");
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = prose(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            if !root().join(&file).exists() || !(anchor.is_empty() || anchors(&file).contains(anchor)) {
                broken.push(format!("{}: {target}", page.display()));
            }
            checked += 1;
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(checked > 50, "the test found too few links: {checked}");
}

#[test]
fn files_that_are_named_exist() {
    let mut missing = Vec::new();
    for page in pages() {
        let text = prose(&page);
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = name.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder));
            if is_path && !name.contains(' ') && !root().join(name).exists() {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() <= 150);
}

#[test]
fn every_setting_is_documented_with_its_flag_and_default() {
    let operations = read("docs/operations.md");
    let command = Cli::command();
    let mut variables = BTreeSet::from(["RUST_LOG".to_owned()]);
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().map(|variable| variable.to_str().unwrap()) else { continue };
        let row = format!("| `{variable}` | `--{}` | ", argument.get_long().unwrap());
        let row = operations.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        for default in argument.get_default_values() {
            assert!(row.contains(&format!("| `{}` |", default.to_str().unwrap())), "{row}");
        }
        variables.insert(variable.to_owned());
    }
    assert_eq!(documented("Settings"), variables);
}

#[test]
fn every_command_is_documented() {
    fn commands(command: &Command, path: &str) -> Vec<String> {
        let inner: Vec<_> = command
            .get_subcommands()
            .flat_map(|inner| commands(inner, &format!("{path} {}", inner.get_name())))
            .collect();
        if inner.is_empty() { vec![path.to_owned()] } else { inner }
    }
    // A row of the table names one or two commands in backticks, and their arguments in capital letters.
    let name = |command: &str| {
        let is_name = |word: &&str| word.chars().all(|char| char.is_lowercase() || char == '-');
        command.split_whitespace().take_while(is_name).collect::<Vec<_>>().join(" ")
    };
    let operations = read("docs/operations.md");
    let rows = operations.lines().filter(|line| line.starts_with("| `vivamo`") || line.starts_with("| `vivamo "));
    let commands_of = |row: &str| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(name).collect();
    let documented: BTreeSet<String> = rows.flat_map(|row| -> Vec<_> { commands_of(row) }).collect();
    let others = ["vivamo", "vivamo --version"].map(str::to_owned);
    assert_eq!(documented, commands(&Cli::command(), "vivamo").into_iter().chain(others).collect());
}

#[test]
fn every_metric_is_documented() {
    let mut metrics = BTreeSet::new();
    let source: String = crate::layers::rust_files(&root().join("src")).iter().map(read).collect();
    for kind in ["counter!(", "gauge!(", "histogram!("] {
        let names =
            source.split(kind).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
        metrics.extend(names.map(str::to_owned));
    }
    assert_eq!(documented("Metrics and traces"), metrics);
}

#[test]
fn the_log_messages_to_watch_are_those_of_the_program() {
    let operations = read("docs/operations.md");
    let (_, section) = operations.split_once("\n## Logs\n").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `ERROR` | `") || line.starts_with("| `WARN` | `"));
    let messages: Vec<_> = rows.flat_map(|row| row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2)).collect();
    // Line breaks in the literals of the source are removed.
    let source: String = crate::layers::rust_files(&root().join("src")).iter().map(read).collect();
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "");
    for message in &messages {
        // The program fills in which rows it cannot delete.
        let start = message.trim_end_matches(" …");
        let start = if start.starts_with("cannot delete ") { "cannot delete " } else { start };
        assert!(source.contains(&format!("\"{start}")), "no message of the program begins with `{message}`");
    }
    assert!(messages.len() > 15, "the test found too few messages: {messages:?}");
}

/// The queries and mutations of a page: blocks of GraphQL, arguments of the shell function `graphql`, and bodies of
/// curl.
fn queries(page: &str) -> Vec<String> {
    let parts = |start: &str, end: &str| -> Vec<String> {
        page.split(start).skip(1).map(|rest| rest.split(end).next().unwrap().to_owned()).collect()
    };
    let bodies = parts("-d '{\"query\"", "'").into_iter().map(|rest| {
        let body: Value = serde_json::from_str(&format!("{{\"query\"{rest}")).unwrap();
        body["query"].as_str().unwrap().to_owned()
    });
    [parts("```graphql\n", "```"), parts("$ graphql '", "'"), bodies.collect()].concat()
}

#[tokio::test]
async fn the_service_accepts_each_query_of_the_pages() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let callers = [app.operator("Acme").await, app.platform()];
        let mut checked = 0;
        for page in ["README.md", "docs/api.md", "docs/support.md"] {
            for query in queries(&read(page)) {
                let mut codes = Vec::new();
                for caller in &callers {
                    codes.push(app.graphql(caller, &query, json!({})).await.codes());
                }
                // Each query is for one of the two callers. The rows that the pages name do not exist here.
                let is_accepted = |codes: &Vec<String>| {
                    !["BAD_REQUEST", "INVALID_ARGUMENT", "FORBIDDEN"]
                        .iter()
                        .any(|code| codes.contains(&(*code).to_owned()))
                };
                assert!(codes.iter().any(is_accepted), "{page}: {query}: {codes:?}");
                checked += 1;
            }
        }
        assert!(checked > 15, "the test found too few queries: {checked}");
    })
    .await;
}
