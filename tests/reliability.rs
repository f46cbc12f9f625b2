//! `docs/reliability.md` names a test, or a bug that the tests find, for every fault; each of them is there. So is each name in
//! the list of what was found.

use std::collections::BTreeSet;
use std::path::Path;

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of all functions that are tests.
fn tests_of(source: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    source.lines().filter_map(move |line| {
        let line = line.trim();
        let name = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
        let found = name.filter(|_| is_test);
        is_test = line.starts_with("#[test]") || (is_test && (line.starts_with("#[") || line.starts_with("//")));
        found
    })
}

#[test]
fn every_fault_has_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    sources(root, &mut found);
    let tests: BTreeSet<&str> = found.iter().flat_map(|source| tests_of(source)).collect();
    let is_there = |name: &str| match name.contains('-') {
        true => root.join("tests/planted").join(name).with_extension("patch").exists(),
        false => tests.contains(name),
    };
    let text = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows_of = |title: &str| {
        let part = text.split("## ").find(|part| part.starts_with(title)).unwrap();
        part.lines().filter(|line| line.starts_with("| ")).skip(1).collect::<Vec<_>>()
    };
    let (matrix, found) = (rows_of("Fault matrix"), rows_of("What the machinery has found"));
    assert!(matrix.len() > 25 && found.len() > 8, "{} and {} rows", matrix.len(), found.len());
    for row in matrix.into_iter().chain(found) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let names: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(is_there(name), "no test is called {name}: {row}");
        }
    }
}

/// The table of planted bugs has each of them, and no other.
#[test]
fn every_planted_bug_is_in_its_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let patches = std::fs::read_dir(root.join("tests/planted")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".patch").map(str::to_owned)
    });
    let text = std::fs::read_to_string(root.join("docs/planted.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    assert_eq!(rows.collect::<BTreeSet<_>>(), patches.collect::<BTreeSet<_>>());
}
