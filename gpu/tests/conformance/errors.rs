//! What the JIT log says.

use gpu::Error;
use gpu::ptx::{Module, compile};

use super::HEADER;
use super::common::Device;

fn log(body: &str) -> String {
    compile(&format!(
        "{HEADER}.entry k() {{ .reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .pred %p<2>;\n{body}\n}}"
    ))
    .unwrap_err()
    .to_string()
}

#[test]
fn an_unsupported_instruction_is_named_with_its_line() {
    assert_eq!(
        log("add.u32 %r1, %r2, 1;\nwgmma.fence.sync.aligned;"),
        "line 6, column 1: unsupported instruction `wgmma.fence.sync.aligned`"
    );
    assert_eq!(
        log("ld.global.tensor.u32 %r1, [%rd1];"),
        "line 5, column 1: unsupported modifier `.tensor` of `ld.global.tensor.u32`"
    );
}

#[test]
fn every_error_is_listed_in_the_order_of_the_text() {
    let text = log(
        "frob.u32 %r1;\nadd.u32 %r1, %r9, 1;\nadd.u64 %rd1, %r1, 1;\nbra nowhere;\nmul.u32 %r1, %r1, %r1;",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(
        lines[0],
        "line 5, column 1: unsupported instruction `frob.u32`"
    );
    assert_eq!(lines[1], "line 6, column 1: `%r9` is not declared");
    assert!(
        lines[2].contains("operand 2 has 32 bits where 64 are read"),
        "{}",
        lines[2]
    );
    assert!(lines[3].contains("`nowhere` is no label"), "{}", lines[3]);
    assert!(lines[4].contains("unsupported instruction"), "{}", lines[4]);
}

#[test]
fn wrong_operands_are_refused() {
    for (body, part) in [
        ("add.u32 %r1, %r2;", "does not take 2 operands"),
        (
            "mov.u64 %r1, 1;",
            "the destination has 32 bits where 64 are written",
        ),
        ("setp.eq.u32 %r1, %r2, %r3;", "is no predicate register"),
        (
            "st.param.u32 [%rd1], %r1;",
            "a kernel cannot write its parameters",
        ),
        ("call missing;", "is no function"),
        ("lop3.b32 %r1, %r1, %r2, %r3, 256;", "from 0 to 255"),
        ("ld.global.v2.u32 %r1, [%rd1];", "2 elements are needed"),
        ("cvt.u64.u32 %r1, %r2;", "too narrow"),
        (
            "add.u32 %r1, %r2, 0f3F800000;",
            "a constant is no value of .u32",
        ),
        ("@%r1 ret;", "is no predicate register"),
        (".local .b8 big[1000000];", "local memory"),
    ] {
        let text = log(body);
        assert!(text.contains(part), "{body}: {text}");
    }
}

#[test]
fn a_text_that_does_not_compile_is_error_218() {
    let device = Device::new();
    let error = Module::load(&device.context, "hello").unwrap_err();
    assert_eq!(error.code(), 218);
    assert!(matches!(error, Error::InvalidPtx(_)));
    assert_eq!(device.context.check(), Ok(()));
}
