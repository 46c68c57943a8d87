//! Build script: sets the version that the binary reports, and builds the web pages of `web/` into the binary.
//!
//! npm builds the pages in a copy of `web/` under `OUT_DIR`, so the source tree stays untouched. By default, npm runs
//! only in release profiles, so that `cargo check`, tests and editors do not wait for npm. `VIVAMO_BUILD_WEB=1` builds
//! the pages in every profile, `VIVAMO_BUILD_WEB=0` in none. The pages are kept until a file of `web/` changes. If npm
//! is to build the pages but is missing or fails, cargo prints a warning, and the binary serves a page that says what
//! to do.
//!
//! The script always writes `$OUT_DIR/web.rs`, which is a list of `(path, content)`. It sets `cfg(graphiql)` only if
//! the pages were built.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match commit() {
        Some(commit) => println!("cargo::rustc-env=VIVAMO_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=VIVAMO_VERSION={version}"),
    }
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: only cargo can run this script")?;
    embed_web_pages(Path::new("web"), Path::new(&out))
}

/// Returns the checked-out commit. `None` in an archive of the sources, or without git.
fn commit() -> Option<String> {
    // Git would also find a repository in a parent folder, which belongs to another project.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Cargo runs this script again when one of these files changes. A checkout changes `HEAD`, and a commit changes the
    // file of the branch. A packed branch has no file, but a commit also changes `logs/HEAD`.
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
    let stdout = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(stdout.trim().to_owned())
}

/// Writes `web.rs`: the built pages, or one page that says why there are none.
fn embed_web_pages(web: &Path, out: &Path) -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(graphiql)");
    println!("cargo::rerun-if-env-changed=VIVAMO_BUILD_WEB");
    let sources = watch_web_sources(web)?;
    let setting = env::var("VIVAMO_BUILD_WEB").unwrap_or_default();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let pages = if setting == "1" || (is_release && setting != "0") {
        let built = build_with_npm(web, &sources, out);
        if let Err(reason) = &built {
            println!("cargo::warning=GraphiQL is not part of this build: {reason}");
            println!("cargo::warning=VIVAMO_BUILD_WEB=0 leaves GraphiQL out without this warning.");
        }
        built
    } else if is_release {
        Err("VIVAMO_BUILD_WEB was 0. Build again without it: cargo run --release.".into())
    } else {
        Err("Debug builds leave GraphiQL out. Use cargo run --release, or VIVAMO_BUILD_WEB=1 cargo run.".into())
    };
    let pages = match pages {
        Ok(dist) => {
            println!("cargo::rustc-cfg=graphiql");
            dist
        }
        Err(reason) => {
            let page = fs::read_to_string(web.join("not-built.html"))?.replace("REASON", &reason.to_string());
            let pages = out.join("not-built");
            fs::create_dir_all(pages.join("graphiql"))?;
            fs::write(pages.join("graphiql/index.html"), page)?;
            pages
        }
    };
    let mut list = String::new();
    for file in files_under(&pages)? {
        list += &format!("    ({:?}, include_bytes!({file:?})),\n", file.strip_prefix(&pages)?);
    }
    fs::write(out.join("web.rs"), format!("&[\n{list}]\n"))?;
    Ok(())
}

/// Returns the files that the pages are built from, sorted. Tells cargo to run this script again if one of these files
/// changes.
fn watch_web_sources(web: &Path) -> io::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(web)? {
        let path = entry?.path();
        // npm creates these folders if a developer runs it in `web/`.
        if path.ends_with("node_modules") || path.ends_with("dist") {
            continue;
        }
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_dir() {
            sources.extend(files_under(&path)?);
        } else {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

fn files_under(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_under(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the folder of the built pages. The error says what went wrong and what to do.
fn build_with_npm(web: &Path, sources: &[PathBuf], out: &Path) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for source in sources {
        (source, fs::read(source)?).hash(&mut hasher);
    }
    let hash = hasher.finish().to_string();
    let (copy, hash_file) = (out.join("web"), out.join("web-hash"));
    let dist = copy.join("dist");
    if dist.is_dir() && fs::read_to_string(&hash_file).is_ok_and(|built| built == hash) {
        return Ok(dist);
    }

    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    for source in sources {
        let target = copy.join(source.strip_prefix(web)?);
        fs::create_dir_all(target.parent().unwrap_or(&copy))?;
        fs::copy(source, target)?;
    }
    npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-timeout=60000"], &copy)?;
    npm(&["run", "build"], &copy)?;
    fs::write(hash_file, hash)?;
    Ok(dist)
}

fn npm(arguments: &[&str], folder: &Path) -> Result<()> {
    let Ok(output) = Command::new("npm").args(arguments).current_dir(folder).output() else {
        // Makes cargo run this script again once npm is installed: the installation changes the PATH or one of its
        // folders.
        println!("cargo::rerun-if-env-changed=PATH");
        let path = env::var_os("PATH").unwrap_or_default();
        for folder in env::split_paths(&path).filter(|folder| folder.is_dir()) {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
        return Err("npm is not on the PATH. Install Node.js 18 or newer with npm, then build again: \
                    cargo run --release."
            .into());
    };
    if output.status.success() {
        return Ok(());
    }
    // Makes the next build try again: cargo runs this script whenever a watched file does not exist.
    println!("cargo::rerun-if-changed={}", folder.join("try-again").display());
    let log = folder.join("npm.log");
    fs::write(&log, [output.stdout, output.stderr].concat())?;
    Err(format!(
        "`npm {}` failed. Read {}, then build again: `cargo run --release`.",
        arguments.join(" "),
        log.display()
    )
    .into())
}
