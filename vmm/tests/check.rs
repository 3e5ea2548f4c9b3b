//! `memu-vmm check`: a configuration is validated and drawn, without KVM.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn check(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memu-vmm"))
        .arg("check")
        .args(arguments)
        .output()
        .unwrap()
}

/// An example of the documentation, with the files that it names.
fn example(folder: &TempDir) -> std::path::PathBuf {
    for name in ["vmlinuz", "initramfs.img"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let file = folder.path().join("switches.toml");
    std::fs::write(&file, include_str!("../examples/switches.toml")).unwrap();
    file
}

#[test]
fn a_topology_is_drawn_as_a_tree_and_as_a_picture() {
    let folder = TempDir::new().unwrap();
    let (file, picture) = (example(&folder), folder.path().join("out.svg"));
    let output = check(&[&file, Path::new("--svg"), &picture]);
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{tree}");
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    let source = include_str!("../examples/switches.toml");
    let names = source
        .lines()
        .filter_map(|line| line.strip_prefix("name = "));
    let mut count = 0;
    for name in names.map(|name| name.trim_matches('"')) {
        assert!(tree.contains(name) && picture.contains(name), "{name}");
        count += 1;
    }
    assert!(count > 5, "{count} names");
}

#[test]
fn a_picture_that_cannot_be_written_and_a_file_with_a_mistake_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let file = example(&folder);
    let output = check(&[&file, Path::new("--svg"), Path::new("/absent/out.svg")]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("/absent/out.svg"), "{message}");
    let wrong =
        include_str!("../examples/switches.toml").replace("type = \"switch\"", "type = \"hub\"");
    std::fs::write(&file, wrong).unwrap();
    let output = check(&[&file]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("switches.toml:"), "{message}");
}
