//! What the binary says of itself, and whether the assets of GraphiQL are there to be embedded: `npm ci --ignore-scripts
//! --prefix graphiql` fetches them.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=graphiql");
    println!("cargo::rustc-check-cfg=cfg(graphiql)");
    if Path::new("graphiql/node_modules/graphiql/graphiql.min.js").exists() {
        println!("cargo::rustc-cfg=graphiql");
    }

    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match commit() {
        Some(commit) => println!("cargo::rustc-env=VIVAMO_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=VIVAMO_VERSION={version}"),
    }
}

/// The commit that this is built from; none in an archive of the sources, or where there is no git.
fn commit() -> Option<String> {
    // A repository further up is not ours.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // HEAD changes when another branch is checked out, and what it names with each commit; that is no file while it is
    // packed, and then its log tells.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let printed = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(printed.trim().to_owned())
}
