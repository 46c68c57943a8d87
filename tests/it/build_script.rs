//! The build script: the conditions under which build.rs runs npm, and the page that a build without npm serves.
//!
//! The script runs on a copy of some files of `web/`, and finds a stub instead of npm. The stub writes each call of npm
//! to a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use support::process::install;
use tempfile::TempDir;

/// Compiles build.rs if this process has not done so yet, and returns the path of the program.
pub fn compiled() -> &'static Path {
    static SCRIPT: LazyLock<PathBuf> = LazyLock::new(|| {
        let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-script");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/build.rs");
        let status = Command::new("rustc").args(["--edition=2024", source, "-o"]).arg(&script).status().unwrap();
        assert!(status.success());
        script
    });
    &SCRIPT
}

/// A source tree with `web/`, a folder for the output, and a folder for the stub for npm.
struct Sources {
    folder: TempDir,
}

impl Sources {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["web/graphiql", "out", "bin"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in ["web/package.json", "web/package-lock.json", "web/not-built.html", "web/graphiql/page.js"] {
            fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn install_npm(&self, commands: &str) {
        let script = self.path("npm");
        let calls = self.path("calls");
        fs::write(&script, format!("#!/bin/sh\necho \"$1\" >>{}\n{commands}\n", calls.display())).unwrap();
        install(script, &self.path("bin/npm"));
    }

    /// Installs a stub for npm that builds a page.
    fn install_working_npm(&self) {
        self.install_npm("/bin/mkdir -p dist/graphiql; echo page >dist/graphiql/index.html");
    }

    /// Runs the build script, and returns what it tells cargo.
    fn build(&self, profile: &str, setting: &str) -> String {
        let mut command = Command::new(compiled());
        command.current_dir(self.folder.path()).env("OUT_DIR", self.path("out")).env("PATH", self.path("bin"));
        let output = command.env("PROFILE", profile).env("VIVAMO_BUILD_WEB", setting).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the calls of npm so far, one per line.
    fn npm_calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

const EMBEDS_GRAPHIQL: &str = "cargo::rustc-cfg=graphiql\n";
const ONE_BUILD: &str = "ci\nrun\n";

#[test]
fn a_release_build_runs_npm_once_and_leaves_the_sources_untouched() {
    let sources = Sources::new();
    sources.install_working_npm();
    for _ in 0..2 {
        assert!(sources.build("release", "").contains(EMBEDS_GRAPHIQL));
        assert_eq!(sources.npm_calls(), ONE_BUILD);
        assert!(sources.read("out/web.rs").contains("(\"graphiql/index.html\", include_bytes!("));
    }
    assert!(!sources.path("web/dist").exists());
}

#[test]
fn a_changed_source_or_lock_file_is_built_again() {
    let sources = Sources::new();
    sources.install_working_npm();
    for (builds, changed) in [(1, "web/package.json"), (2, "web/package-lock.json"), (3, "web/graphiql/page.js")] {
        let output = sources.build("release", "");
        assert!(output.contains("cargo::rerun-if-changed=web/graphiql\n"), "{output}");
        assert!(output.contains("cargo::rerun-if-changed=web/package-lock.json\n"), "{output}");
        assert_eq!(sources.npm_calls(), ONE_BUILD.repeat(builds), "before {changed} changed");
        fs::write(sources.path(changed), sources.read(changed) + "\n").unwrap();
    }
    sources.build("release", "");
    assert_eq!(sources.npm_calls(), ONE_BUILD.repeat(4));
}

#[test]
fn the_profile_and_the_setting_decide_whether_npm_runs() {
    for (profile, setting, runs) in [
        ("debug", "", false),
        ("debug", "0", false),
        ("release", "0", false),
        ("debug", "1", true),
        ("release", "1", true),
    ] {
        let sources = Sources::new();
        sources.install_working_npm();
        let output = sources.build(profile, setting);
        assert_eq!(output.contains(EMBEDS_GRAPHIQL), runs, "{profile} {setting}: {output}");
        assert_eq!(sources.npm_calls(), if runs { ONE_BUILD } else { "" }, "{profile} {setting}");
        assert!(!output.contains("cargo::warning"), "{output}");
    }
}

#[test]
fn a_build_without_npm_warns_and_serves_a_page_that_says_what_to_do() {
    let sources = Sources::new();
    let output = sources.build("release", "");
    let advice = "npm is not on the PATH. Install Node.js 18 or newer with npm, then build again: cargo run --release.";
    assert!(output.contains(&format!("cargo::warning=GraphiQL is not part of this build: {advice}\n")), "{output}");
    assert!(!output.contains(EMBEDS_GRAPHIQL));
    assert!(sources.read("out/not-built/graphiql/index.html").contains(advice));
    assert!(sources.read("out/web.rs").contains("not-built/graphiql/index.html"));
    // cargo runs the script again when npm is installed.
    assert!(output.contains(&format!("cargo::rerun-if-changed={}\n", sources.path("bin").display())), "{output}");
    sources.install_working_npm();
    assert!(sources.build("release", "").contains(EMBEDS_GRAPHIQL));
}

#[test]
fn a_build_with_a_failing_npm_names_its_log_and_tries_again() {
    let sources = Sources::new();
    sources.install_npm("echo no network; exit 1");
    let output = sources.build("release", "");
    let log = sources.path("out/web/npm.log");
    assert!(output.contains("cargo::warning=GraphiQL is not part of this build: `npm ci "), "{output}");
    assert!(output.contains(&format!("failed. Read {}, then build again", log.display())), "{output}");
    assert_eq!(fs::read_to_string(log).unwrap(), "no network\n");
    assert!(sources.read("out/not-built/graphiql/index.html").contains("`npm ci "));
    sources.install_working_npm();
    assert!(sources.build("release", "").contains(EMBEDS_GRAPHIQL));
}
