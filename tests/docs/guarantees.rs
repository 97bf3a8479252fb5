//! Promise: what docs/GUARANTEES.md says is proved by a test is proved by a test of that
//! name.

use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/GUARANTEES.md");

/// The rows of the table of faults: the fault, and the tests that prove it.
fn rows() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let (_, table) = PAGE.split_once("## The faults").expect("the section");
    table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("::"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            let tests = cells.last().unwrap().split('`').skip(1).step_by(2);
            let tests = tests
                .map(|test| test.rsplit_once("::").expect(line))
                .collect();
            (cells[0].trim(), tests)
        })
        .collect()
}

/// `PROGRAM::FILE` is `tests/PROGRAM/FILE.rs`; all else is a path from the root.
fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let short = root
        .join("tests")
        .join(file.replace("::", "/"))
        .with_extension("rs");
    let path = if short.is_file() {
        short
    } else {
        root.join(file)
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn every_test_that_the_table_of_faults_names_is_there() {
    for (fault, tests) in rows() {
        assert!(!tests.is_empty(), "{fault} has no test");
        for (file, test) in tests {
            let declared = format!("fn {test}(");
            assert!(read(file).contains(&declared), "{fault}: {file}::{test}");
        }
    }
}

/// Cargo compiles a folder's `main.rs` and what that names: a file that it forgets is a
/// test that never runs.
#[test]
fn every_file_of_a_program_is_one_of_its_modules() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files = 0;
    for folder in fs::read_dir(tests)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let Ok(main) = fs::read_to_string(folder.join("main.rs")) else {
            continue;
        };
        for file in fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let module = file.file_stem().unwrap().to_str().unwrap();
            if file.extension().is_none_or(|kind| kind != "rs") || module == "main" {
                continue;
            }
            assert!(
                main.contains(&format!("mod {module};")),
                "{}",
                file.display()
            );
            files += 1;
        }
    }
    assert!(files > 60, "only {files}");
}

#[test]
fn every_fault_has_its_row() {
    let rows = rows();
    let faults = 1..=51;
    for fault in faults.map(|number| format!("F{number}")) {
        assert!(rows.iter().any(|(name, _)| *name == fault), "{fault}");
    }
}
