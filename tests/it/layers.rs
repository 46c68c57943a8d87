//! The dependencies between the modules of the source: layers, imports and manifests.
//!
//! The tests read the files, and find the modules that a file names in `use` declarations and in paths such as
//! `crate::error::Error`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, lowest first. A module uses modules of lower layers only.
const LAYERS: [&[&str]; 8] = [
    &["config", "error", "keyed_hash"],
    &["request"],
    &["database", "fatal_error"],
    &["service"],
    &["graphql", "open"],
    &["http", "jobs"],
    &["app"],
    &["cli"],
];

/// Modules that only `cli` uses, and that use no other module.
const CLI_ONLY: [&str; 1] = ["telemetry"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files in a folder and its subfolders.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The file without comments and without its unit tests.
fn read_code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The module of a file of `src`: `service::customers` for `service/customers/mod.rs`.
fn module_path(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut path: Vec<_> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if path.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        path.pop();
    }
    path
}

/// The names in a `use` tree, each with its path: `a::{b, c::D}` is `a::b` and `a::c::D`.
fn expand_use_tree(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        return vec![path.split_whitespace().collect()];
    };
    let inner = rest.rsplit_once('}').unwrap().0;
    let mut depth = 0;
    let branches = inner.split(|char| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        char == ',' && depth == 0
    });
    let branches = branches.filter(|branch| !branch.trim().is_empty()).flat_map(expand_use_tree);
    branches.map(|path| format!("{}{path}", prefix.trim())).collect()
}

/// The trees of all `use` declarations, with and without `pub`.
fn use_trees(code: &str) -> Vec<&str> {
    let declarations = code.match_indices("use ").filter(|(start, _)| {
        let line = code[..*start].rsplit('\n').next().unwrap().trim();
        line.is_empty() || line.starts_with("pub")
    });
    declarations.map(|(start, matched)| code[start + matched.len()..].split(';').next().unwrap()).collect()
}

/// The paths in the code of a file of `module`, from the root of the crate, for example `[["error", "Error"]]`.
fn used_paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let is_path = |char: char| char.is_ascii_alphanumeric() || "_:".contains(char);
    let in_code = ["crate::", "super::"].into_iter().flat_map(|start| {
        code.match_indices(start).filter_map(move |(at, _)| {
            // Skips the second `super` of a path such as `super::super::now`.
            let is_start = !code[..at].ends_with(is_path);
            is_start.then(|| code[at..].chars().take_while(|char| is_path(*char)).collect::<String>())
        })
    });
    let in_uses = use_trees(code).into_iter().flat_map(expand_use_tree);
    let absolute = in_code.chain(in_uses).filter_map(|path| {
        let mut segments: Vec<_> = path.split("::").filter(|segment| !segment.is_empty()).collect();
        let mut absolute = match *segments.first()? {
            "crate" => Vec::new(),
            "super" => module[..module.len() - 1].to_vec(),
            _ => return None,
        };
        segments.remove(0);
        while segments.first() == Some(&"super") {
            absolute.pop();
            segments.remove(0);
        }
        absolute.extend(segments.into_iter().map(str::to_owned));
        Some(absolute)
    });
    absolute.collect()
}

/// The imports between the modules of a folder. A subfolder counts as one module. `mod.rs`, which declares the modules,
/// is not counted. The use of a name that `mod.rs` re-exports counts as a use of the module that defines the name.
fn imports_of_folder(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let own_path = module_path(&folder.join("mod.rs"));
    let depth = own_path.len();
    let facade = ["mod.rs", "lib.rs"].map(|name| folder.join(name)).into_iter().find(|file| file.exists()).unwrap();
    let facade = read_code(&facade);
    let reexports: BTreeMap<_, _> = use_trees(&facade)
        .into_iter()
        .flat_map(expand_use_tree)
        .filter_map(|path| {
            let (module, name) = (path.split("::").next()?.to_owned(), path.rsplit("::").next()?.to_owned());
            (module != "super" && module != "crate").then_some((name, module))
        })
        .collect();
    let files: Vec<_> = rust_files(folder).into_iter().filter(|file| module_path(file).len() > depth).collect();
    let modules: BTreeSet<_> = files.iter().map(|file| module_path(file)[depth].clone()).collect();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in &files {
        let path = module_path(file);
        for used in used_paths(&read_code(file), &path) {
            if used.len() <= depth || used[..depth] != own_path {
                continue;
            }
            let name = &used[depth];
            let target = if modules.contains(name) { Some(name) } else { reexports.get(name) };
            if let Some(target) = target.filter(|target| modules.contains(*target) && **target != path[depth]) {
                imports.entry(path[depth].clone()).or_default().insert(target.clone());
            }
        }
    }
    imports
}

/// The modules that a module reaches over one or more imports.
fn reachable<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&str> = imports.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(module) = pending.pop() {
        if reached.insert(module) {
            pending.extend(imports.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    reached
}

#[test]
fn a_module_uses_only_lower_layers() {
    let layer = |module: &str| LAYERS.iter().position(|modules| modules.contains(&module));
    let mut checked = 0;
    for file in rust_files(&root().join("src")) {
        let path = module_path(&file);
        let Some(module) = path.first() else { continue };
        let used: BTreeSet<_> =
            used_paths(&read_code(&file), &path).into_iter().filter_map(|used| used.into_iter().next()).collect();
        for other in used.iter().filter(|other| *other != module) {
            checked += 1;
            let file = file.display();
            assert!(!CLI_ONLY.contains(&module.as_str()), "{file} uses {other}, but {module} must use no other module");
            let own = layer(module).unwrap_or_else(|| panic!("add {module} to LAYERS"));
            let is_lower = match layer(other) {
                Some(layer) => layer < own,
                None => CLI_ONLY.contains(&other.as_str()) && module == "cli",
            };
            assert!(is_lower, "{file} uses {other}, which is not in a lower layer");
        }
    }
    assert!(checked > 30, "the test found too few imports: {checked}");
}

#[test]
fn modules_of_a_folder_do_not_import_each_other_in_cycles() {
    let source = root().join("src");
    let mut folders: BTreeSet<_> = rust_files(&source).iter().map(|file| file.parent().unwrap().to_owned()).collect();
    folders.insert(source.clone());
    let mut imports_in_cycles = Vec::new();
    let mut checked = 0;
    for folder in folders {
        let imports = imports_of_folder(&folder);
        checked += imports.values().map(BTreeSet::len).sum::<usize>();
        let name = folder.strip_prefix(root()).unwrap().display();
        for module in imports.keys() {
            let reaches_module = |other: &&str| reachable(&imports, other).contains(module.as_str());
            let cycle: Vec<_> = reachable(&imports, module).into_iter().filter(reaches_module).collect();
            if cycle.is_empty() {
                continue;
            }
            for other in cycle.iter().filter(|other| imports[module].contains(**other)) {
                imports_in_cycles.push(format!("{name}: {module} uses {other}"));
            }
        }
    }
    assert!(checked > 60, "the test found too few imports: {checked}");
    assert!(imports_in_cycles.is_empty(), "modules import each other in cycles: {imports_in_cycles:#?}");
}

#[test]
fn entity_and_migration_do_not_depend_on_the_service() {
    for (manifest, forbidden) in [
        ("entity/Cargo.toml", &["async-graphql", "axum", "tokio", "reqwest"][..]),
        ("migration/Cargo.toml", &["entity", "async-graphql", "axum"]),
    ] {
        let text = std::fs::read_to_string(root().join(manifest)).unwrap();
        for dependency in forbidden {
            assert!(!text.lines().any(|line| line.starts_with(dependency)), "{manifest} depends on {dependency}");
        }
    }
}

#[test]
fn services_use_nothing_of_async_graphql_but_enums() {
    for file in rust_files(&root().join("src/service")) {
        for line in std::fs::read_to_string(&file).unwrap().lines().filter(|line| line.contains("async_graphql")) {
            assert_eq!(line, "use async_graphql::Enum;", "{}", file.display());
        }
    }
}
