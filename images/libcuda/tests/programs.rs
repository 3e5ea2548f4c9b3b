//! C programs, linked to the library as they would be to NVIDIA's.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// What the device does, as a program asks it to; the program's output.
fn device(task: &str) -> String {
    let library = Library::new();
    let program = compile(&library, "device");
    // At the end of its input a program goes on.
    let mut command = library.command(program);
    succeed(command.args([PTX, task]).stdin(Stdio::null()))
}

#[test]
fn a_program_and_a_kernel_that_runs_send_each_other_messages_and_add_to_one_counter() {
    let output = device("litmus");
    assert!(output.contains("300 messages each way"), "{output}");
}

#[test]
fn a_stream_has_64_kernels_at_once_in_the_device() {
    let output = device("flight");
    assert!(output.contains("@@STEP behind the second gate"), "{output}");
}

#[test]
fn pointers_that_are_not_a_contexts_own_are_error_700_and_the_next_context_works() {
    device("pointers");
}

#[test]
fn copies_and_empty_launches_come_back_whole() {
    device("copies");
    let output = device("launches");
    assert!(output.contains("\"launches\":300"), "{output}");
}

#[test]
fn what_kernels_print_is_there_after_each_wait() {
    let output = device("print");
    assert_eq!(output, "Hi\nand 0\nHi\nHi\nand 1\nHi\nHi\nHi\nand 2\n");
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
