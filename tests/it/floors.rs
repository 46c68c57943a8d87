//! The floors of the code: a file uses what stands below it.

use std::path::{Path, PathBuf};

/// From the ground up. What stands on one floor does not know of its neighbours, but for `beside`.
const FLOORS: [&[&str]; 7] =
    [&["error", "keyed_hash"], &["database"], &["service"], &["graphql"], &["http"], &["app"], &["cli"]];

/// Known to nobody but the top floor.
const BESIDE: [&str; 2] = ["config", "telemetry"];

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// The modules of the crate that a text names.
fn used(text: &str) -> Vec<String> {
    let is_name = |char: char| char.is_ascii_lowercase() || char == '_';
    let after = |part: &str| part.chars().take_while(|char| is_name(*char)).collect::<String>();
    text.split("crate::").skip(1).map(after).filter(|name| !name.is_empty()).collect()
}

#[test]
fn a_file_uses_what_stands_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for file in files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        for other in used(&std::fs::read_to_string(&file).unwrap()) {
            if other == module {
                continue;
            }
            seen += 1;
            if BESIDE.contains(&module.as_str()) {
                panic!("{} knows of {other}", relative.display());
            }
            let own_floor = floor(&module).unwrap_or_else(|| panic!("{module} stands on no floor"));
            let is_below = match floor(&other) {
                Some(floor) => floor < own_floor,
                None => BESIDE.contains(&other.as_str()) && own_floor == FLOORS.len() - 1,
            };
            assert!(is_below, "{} uses {other}, which does not stand below it", relative.display());
        }
    }
    assert!(seen > 30, "the law has looked at something");
}

#[test]
fn the_vocabulary_knows_no_graphql_and_no_http_and_history_knows_no_entity() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (manifest, strangers) in [
        ("entity/Cargo.toml", &["async-graphql", "axum", "tokio", "reqwest"][..]),
        ("migration/Cargo.toml", &["entity", "async-graphql", "axum"]),
    ] {
        let text = std::fs::read_to_string(root.join(manifest)).unwrap();
        for stranger in strangers {
            assert!(!text.lines().any(|line| line.starts_with(stranger)), "{manifest} depends on {stranger}");
        }
    }
}

#[test]
fn services_know_the_schema_only_by_its_enums() {
    let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service");
    for file in files(&service) {
        for line in std::fs::read_to_string(&file).unwrap().lines().filter(|line| line.contains("async_graphql")) {
            assert_eq!(line, "use async_graphql::Enum;", "{}", file.display());
        }
    }
}
