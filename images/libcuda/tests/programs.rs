//! C programs, linked to the library as they would be to NVIDIA's.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Library, built, succeed};

/// PTX texts, shared with the tests of the compiler.
const PTX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../gpu/tests/ptx");

/// Compiles one of the programs beside this file.
fn compile(library: &Library, name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
    let program = library.path().join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(sources.join(name).with_extension("c"))
        .arg("-L")
        .arg(library.path())
        .args(["-lcuda", "-lm", "-pthread"]);
    succeed(&mut cc);
    program
}

#[test]
fn whole_kernels_of_a_c_program_are_right() {
    let library = Library::new();
    let program = compile(&library, "kernels");
    let output = succeed(library.command(program).arg(PTX));
    assert!(output.contains("all kernels are right"), "{output}");
}

#[test]
fn several_processes_use_it_at_once() {
    let library = Library::new();
    let program = compile(&library, "kernels");
    let children: Vec<_> = (0..3)
        .map(|_| library.command(&program).arg(PTX).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn calls_are_written_to_stderr_when_asked_for() {
    let library = Library::new();
    let program = compile(&library, "kernels");
    let mut command = library.command(program);
    let output = command.arg(PTX).env("CXL_CUDA_DEBUG", "1").output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(stderr.contains("cuInit(flags: 0) = ok"), "{stderr}");
    assert!(stderr.contains("= CUDA_ERROR_ILLEGAL_ADDRESS (700)"));
}

#[test]
fn without_a_device_initialization_says_so() {
    let library = Library::new();
    let program = compile(&library, "kernels");
    let mut command = library.command(program);
    let output = command.arg(PTX).env("CXL_CUDA_DEVICE", "/nowhere").output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(stderr.contains("CUDA_ERROR_NO_DEVICE"), "{stderr}");
}

#[test]
fn the_library_has_its_name_and_needs_no_other_than_the_systems() {
    let text = succeed(Command::new("readelf").arg("--dynamic").arg(built()));
    assert!(text.contains("Library soname: [libcuda.so.1]"), "{text}");
    let needed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Shared library: ["))
        .filter_map(|(_, name)| name.strip_suffix(']'))
        .collect();
    let of_libc = [
        "libc.so.6",
        "libm.so.6",
        "libgcc_s.so.1",
        "ld-linux-x86-64.so.2",
    ];
    for name in &needed {
        assert!(of_libc.contains(name), "{needed:?}");
    }
}
