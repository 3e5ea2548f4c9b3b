//! One instruction at a time: operands in, bits out.
//!
//! The expected values are written out from the definitions in the PTX ISA, or computed here by other means
//! than the interpreter's.

#[path = "conformance/access.rs"]
mod access;
mod common;
#[path = "conformance/control.rs"]
mod control;
#[path = "conformance/coverage.rs"]
mod coverage;
#[path = "conformance/errors.rs"]
mod errors;
#[path = "conformance/float.rs"]
mod float;
#[path = "conformance/forms.rs"]
mod forms;
#[path = "conformance/integer.rs"]
mod integer;
#[path = "conformance/memory.rs"]
mod memory;
#[path = "conformance/model/mod.rs"]
mod model;
#[path = "conformance/special.rs"]
mod special;
#[path = "conformance/table.rs"]
mod table;
#[path = "conformance/warp.rs"]
mod warp;

use common::Device;
use gpu::ptx::Tier;

pub const HEADER: &str = ".version 8.8\n.target sm_75\n.address_size 64\n";

/// Declarations that each case may use.
const REGISTERS: &str = ".reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %rd<16>;
.reg .f32 %f<8>; .reg .f64 %fd<8>; .reg .b32 %o<4>; .reg .b64 %od;\n";

/// Threads that run each case at once: groups of eight, and some that belong to no whole group.
const THREADS: u32 = 19;

/// Runs `body` with `inputs` in `%rd1`, `%rd2`, ..., and in `%r1`, ... and `%h1`, ... their low parts; returns what it
/// leaves in `%od`. The interpreter and compiled code run it, in many threads with inputs of their own.
pub fn run64(body: &str, inputs: &[u64]) -> u64 {
    let text = kernel(body, inputs.len());
    let results = [Tier::Interpreter, Tier::Compiler].map(|tier| {
        let results = run_threads(tier, &text, inputs, THREADS);
        for result in &results {
            assert_eq!(*result, results[0], "{tier:?}: {results:x?} of\n{body}");
        }
        results[0]
    });
    // Approximations may differ in the last place; each is compared with what is expected.
    if !body.contains(".approx") {
        assert_eq!(results[0], results[1], "{body}");
    }
    results[1]
}

/// As [`run64`] in a single thread, for a body that shares memory with others.
pub fn run_alone(body: &str, inputs: &[u64]) -> u64 {
    let text = kernel(body, inputs.len());
    let run = |tier| run_threads(tier, &text, inputs, 1)[0];
    let (interpreted, compiled) = (run(Tier::Interpreter), run(Tier::Compiler));
    assert_eq!(interpreted, compiled, "{body}");
    compiled
}

fn kernel(body: &str, inputs: usize) -> String {
    let mut text = format!("{HEADER}.entry k(.param .u64 out, .param .u64 in) {{\n{REGISTERS}");
    text.push_str("ld.param.u64 %rd15, [in];\nmov.u64 %od, 0; mov.u32 %r15, %tid.x;\n");
    // A word more than the inputs, for the body's own use.
    let bytes = 8 * (inputs + 1);
    text.push_str(&format!("mad.wide.u32 %rd15, %r15, {bytes}, %rd15;\n"));
    for index in 0..inputs {
        let (register, offset) = (index + 1, index * 8);
        text.push_str(&format!(
            "ld.global.b64 %rd{register}, [%rd15+{offset}]; cvt.u32.u64 %r{register}, %rd{register};
             cvt.u16.u64 %h{register}, %rd{register};\n"
        ));
    }
    text.push_str(body);
    text.push_str(
        "\nld.param.u64 %rd15, [out]; mov.u32 %r15, %tid.x; mad.wide.u32 %rd15, %r15, 8, %rd15;
         st.global.b64 [%rd15], %od; ret; }\n",
    );
    text
}

fn run_threads(tier: Tier, text: &str, inputs: &[u64], threads: u32) -> Vec<u64> {
    let device = Device::with_tier(tier);
    let kernel = device.kernel(text, "k");
    let out = device.buffer(8 * threads as usize);
    let mut padded = inputs.to_vec();
    padded.push(0);
    let input = device.upload(&padded.repeat(threads as usize));
    device.launch(&kernel, [1, 1, 1], [threads, 1, 1], 0, &[out, input]);
    let bytes = device.download(out, 8 * threads as usize);
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// As [`run64`] with the result in `%o0`.
pub fn run32(body: &str, inputs: &[u64]) -> u32 {
    run64(&format!("{body}\ncvt.u64.u32 %od, %o0;"), inputs) as u32
}

/// Cases of an instruction with a 32-bit destination and 32-bit sources.
pub fn table32(instruction: &str, cases: &[(&[u32], u32)]) {
    for (inputs, expected) in cases {
        let sources: Vec<String> = (1..=inputs.len()).map(|i| format!("%r{i}")).collect();
        let body = format!("{instruction} %o0, {};", sources.join(", "));
        let wide: Vec<u64> = inputs.iter().map(|&x| x.into()).collect();
        let result = run32(&body, &wide);
        assert_eq!(
            result, *expected,
            "{instruction} {inputs:x?} = {result:#x}, not {expected:#x}"
        );
    }
}

/// Cases of an instruction with a 64-bit destination and 64-bit sources.
pub fn table64(instruction: &str, cases: &[(&[u64], u64)]) {
    for (inputs, expected) in cases {
        let sources: Vec<String> = (1..=inputs.len()).map(|i| format!("%rd{i}")).collect();
        let result = run64(
            &format!("{instruction} %od, {};", sources.join(", ")),
            inputs,
        );
        assert_eq!(
            result, *expected,
            "{instruction} {inputs:x?} = {result:#x}, not {expected:#x}"
        );
    }
}

/// Cases of an instruction with a 16-bit destination and 16-bit sources.
pub fn table16(instruction: &str, cases: &[(&[u16], u16)]) {
    for (inputs, expected) in cases {
        let sources: Vec<String> = (1..=inputs.len()).map(|i| format!("%h{i}")).collect();
        let body = format!(
            "{instruction} %h0, {}; cvt.u32.u16 %o0, %h0;",
            sources.join(", ")
        );
        let wide: Vec<u64> = inputs.iter().map(|&x| x.into()).collect();
        let result = run32(&body, &wide);
        assert_eq!(
            result,
            u32::from(*expected),
            "{instruction} {inputs:x?} = {result:#x}"
        );
    }
}

/// Cases with sources of single precision.
pub fn table_f32(instruction: &str, cases: &[(&[f32], u32)]) {
    for (inputs, expected) in cases {
        let bits: Vec<u32> = inputs.iter().map(|x| x.to_bits()).collect();
        table32(instruction, &[(&bits, *expected)]);
    }
}

/// Cases with sources of double precision.
pub fn table_f64(instruction: &str, cases: &[(&[f64], f64)]) {
    for (inputs, expected) in cases {
        let bits: Vec<u64> = inputs.iter().map(|x| x.to_bits()).collect();
        table64(instruction, &[(&bits, expected.to_bits())]);
    }
}

/// Whether `setp` with these modifiers holds for the sources.
pub fn holds(setp: &str, register: &str, a: u64, b: u64) -> bool {
    let body = format!("{setp} %p1, {register}1, {register}2; selp.u32 %o0, 1, 0, %p1;");
    run32(&body, &[a, b]) == 1
}
