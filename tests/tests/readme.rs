//! The README names tests for what it promises; they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Crates of the workspace, but for those whose tests the table does not name.
const CRATES: [&str; 9] = [
    "cxl", "devices", "firmware", "fuzz", "gpu", "images", "pci", "tests", "vmm",
];

/// Adds the names of the functions in the Rust files below `directory`.
fn functions(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let found = text.split("fn ").skip(1);
            names.extend(found.filter_map(|rest| Some(rest.split_once('(')?.0.to_string())));
        }
    }
}

#[test]
fn every_row_of_the_feature_table_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut known = BTreeSet::new();
    for name in CRATES {
        functions(&workspace.join(name), &mut known);
    }
    let readme = fs::read_to_string(workspace.join("README.md")).unwrap();
    let (_, table) = readme
        .split_once("| shown by |\n|---|---|---|---|\n")
        .unwrap();
    let rows: Vec<&str> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, memu, tests] = cells.as_slice() else {
            panic!("not four cells: {row}");
        };
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert_eq!(*memu == "–", tests.is_empty(), "{row}");
        for test in tests {
            assert!(known.contains(test), "there is no test {test}: {row}");
        }
    }
}
