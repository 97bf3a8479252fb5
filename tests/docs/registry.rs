//! Promise: what the registry gets of each crate is what a user needs: the library, its readme and
//! its licences, the documentation with all features; and not our tests.

use std::path::Path;
use std::process::Command;

const CRATES: [&str; 3] = ["applock", "applock-macros", "applock-runtime"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that `cargo publish` would send.
fn published(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "package",
            "--list",
            "--allow-dirty",
            "--offline",
            "-p",
            package,
        ])
        .current_dir(root())
        .output()
        .expect("cargo");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{package}: {error}");
    let files = String::from_utf8(output.stdout).expect("paths");
    files.lines().map(|file| file.replace('\\', "/")).collect()
}

#[test]
fn each_crate_has_what_a_user_needs_and_not_our_tests() {
    for package in CRATES {
        let files = published(package);
        for needed in ["README.md", "LICENSE-APACHE", "LICENSE-MIT", "src/lib.rs"] {
            assert!(
                files.iter().any(|file| file == needed),
                "{package}: {needed}"
            );
        }
        let top = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
        let cargos = [
            "Cargo.toml",
            "Cargo.toml.orig",
            "Cargo.lock",
            ".cargo_vcs_info.json",
        ];
        for file in &files {
            let known = top.contains(&&**file)
                || cargos.contains(&&**file)
                || ["src/", "examples/", "docs/"]
                    .iter()
                    .any(|at| file.starts_with(at));
            let is_test = file.contains("/tests/") || file.contains("/simulation/");
            assert!(known && !is_test, "{package} brings {file}");
        }
    }
    assert!(
        published("applock")
            .iter()
            .any(|file| file == "docs/GUARANTEES.md")
    );
}

#[test]
fn each_crate_brings_the_same_licences_and_its_documentation_has_all_features() {
    for package in CRATES {
        let home = match package {
            "applock" => root().to_owned(),
            other => root().join(other),
        };
        let read = |file: &str| std::fs::read_to_string(home.join(file)).expect(file);
        for (licence, text) in [
            ("LICENSE-APACHE", include_str!("../../LICENSE-APACHE")),
            ("LICENSE-MIT", include_str!("../../LICENSE-MIT")),
        ] {
            assert!(read(licence) == text, "{package}: {licence}");
        }
        let docs = "[package.metadata.docs.rs]\nall-features = true\n";
        assert!(read("Cargo.toml").contains(docs), "{package}");
    }
}
