//! Every form of the instructions that make values of values, on many operands, in the interpreter and compiled.

use std::fmt::Write;

use gpu::ptx::Tier;
use gpu::ptx::lower::forms::{COMPARISONS, CONVERSIONS, FLOAT, INTEGER};

use super::HEADER;
use super::common::Device;
use super::forms::{Form, bits_of, expand_all};
use super::model::{expected, integer};

/// All forms of the table.
pub fn forms() -> Vec<Form> {
    [INTEGER, FLOAT, COMPARISONS, CONVERSIONS]
        .into_iter()
        .flat_map(expand_all)
        .collect()
}

/// Threads of a kernel, each with operands of its own.
const THREADS: usize = 64;
/// Instructions of a kernel.
const FORMS: usize = 48;

/// What operands are drawn from, by the type of an instruction's sources.
const CLASSES: [&str; 7] = ["u64", "f16", "bf16", "f16x2", "bf16x2", "f32", "f64"];

fn class(form: &Form) -> usize {
    let ty = match &form.opcode[..] {
        "slct" if form.types[1] == "f32" => "f32",
        _ => form.source(),
    };
    CLASSES.iter().position(|class| *class == ty).unwrap_or(0)
}

/// Numbers at which results change, by class.
fn edges(class: usize) -> Vec<u64> {
    let double = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1.5,
        2.0,
        2.5,
        -3.5,
        3.0,
        0.5,
        -0.25,
        0.1,
        1e-3,
        -7.75,
        100.0,
        127.5,
        -128.5,
        255.5,
        300.0,
        65504.0,
        1e5,
        2147483648.0,
        -2147483649.0,
        4294967296.0,
        1e10,
        9.3e18,
        -1e19,
        1.9e19,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    match CLASSES[class] {
        "u64" => {
            let mut edges = vec![
                0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 31, 32, 33, 40, 63, 64, 65, 100, 255, 256,
            ];
            edges.extend([7, 8, 15, 16, 23, 24, 31, 32, 63].map(|bit| 1 << bit));
            edges.extend([7, 8, 15, 16, 23, 24, 31, 32, 63].map(|bit| (1u64 << bit) - 1));
            edges.extend([7, 15, 31].map(|bit| -(1i64 << bit) as u64));
            edges.extend([7, 15, 31].map(|bit| -(1i64 << bit) as u64 - 1));
            edges.extend([
                u64::MAX,
                u64::MAX - 1,
                0x1234_5678_9abc_def0,
                0x8000_0001_8001_8081,
            ]);
            edges
        }
        "f64" => {
            let mut edges: Vec<u64> = double.map(f64::to_bits).into();
            edges.extend([
                1,
                (1 << 52) - 1,
                1 << 52,
                (1 << 52) + 1,
                f64::MAX.to_bits(),
                f64::MIN.to_bits(),
            ]);
            // Between neighbours of the narrower formats, and at the ends of those.
            edges.extend(
                [
                    1.0 + 2f64.powi(-24),
                    1.0 + 2f64.powi(-11),
                    1.0 + 2f64.powi(-8),
                ]
                .map(f64::to_bits),
            );
            edges.extend(
                [
                    3.5e38,
                    1e-40,
                    -1e-46,
                    65519.0,
                    65520.0,
                    3e-8,
                    2f64.powi(-25),
                    -1e-6,
                ]
                .map(f64::to_bits),
            );
            edges
        }
        "f32" => {
            let mut edges: Vec<u64> = double.map(|x| u64::from((x as f32).to_bits())).into();
            edges.extend([
                1,
                0x8000_0001,
                0x007f_ffff,
                0x0080_0000,
                0x0080_0001,
                0x7f7f_ffff,
                0xff7f_ffff,
            ]);
            edges.extend([
                0x3f80_0001,
                0x3f80_1000,
                0x3f80_3000,
                0x3f80_8000,
                0x3f81_8000,
                0x477f_e000,
                0x477f_f000,
            ]);
            edges.extend([0x3300_0000, 0x3380_0000, 0xb580_0001, 0x8000]);
            edges
        }
        "f16" | "f16x2" => vec![
            0, 0x8000, 0x3c00, 0xbc00, 0x3e00, 0x4000, 0x4100, 0xc300, 0x3800, 0xb400, 0x2e66,
            0x1000, 1, 0x8001, 0x3ff, 0x400, 0x401, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x3c01,
            0x3bff, 0x5bf8, 0x5c00, 0x6400, 0x7800,
        ],
        _ => vec![
            0, 0x8000, 0x3f80, 0xbf80, 0x3fc0, 0x4000, 0x4020, 0xc060, 0x3f00, 0xbe80, 0x3dcd,
            0x3a80, 1, 0x8001, 0x7f, 0x80, 0x81, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0x3f81,
            0x3f7f, 0x437f, 0x4380, 0x4f00, 0xcf00, 0x5f00,
        ],
    }
}

/// SplitMix64: the same operands in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn operand(&mut self, class: usize, edges: &[u64]) -> u64 {
        let edge = |random: &mut Self| edges[(random.next() % edges.len() as u64) as usize];
        let near_one = |random: &mut Self| {
            let (x, near) = (random.next(), random.next() % 8);
            match CLASSES[class] {
                "f64" => x >> 63 << 63 | (1020 + near) << 52 | x >> 12,
                "f32" => x >> 63 << 31 | (124 + near) << 23 | x >> 41 & 0x7f_ffff,
                "f16" | "f16x2" => x >> 63 << 15 | (12 + near) << 10 | x >> 20 & 0x3ff,
                "bf16" | "bf16x2" => x >> 63 << 15 | (124 + near) << 7 | x >> 20 & 0x7f,
                _ => x,
            }
        };
        let packed = CLASSES[class].ends_with("x2");
        let mut one = || match self.next() % 8 {
            0..4 => edge(self),
            4..7 => near_one(self),
            _ => self.next(),
        };
        if packed {
            one() & 0xffff | one() << 16
        } else {
            one()
        }
    }

    fn operands(&mut self, class: usize) -> Vec<[u64; 4]> {
        let edges = edges(class);
        (0..THREADS)
            .map(|thread| {
                let mut x = [(); 4].map(|()| self.operand(class, &edges));
                // Each edge at least once.
                if thread < edges.len() {
                    x[0] = edges[thread]
                        | if CLASSES[class].ends_with("x2") {
                            edges[thread] << 16
                        } else {
                            0
                        };
                }
                x
            })
            .collect()
    }
}

/// The width of each source, and the operand whose low bits it is.
fn sources(form: &Form) -> Vec<(u32, usize)> {
    let bits = integer::register_of(form.source());
    let all = |count: usize| (0..count).map(|index| (bits, index)).collect();
    let combines = ["and", "or", "xor"].iter().any(|name| form.has(name));
    match &form.opcode[..] {
        "shl" | "shr" | "szext" => vec![(bits, 0), (32, 1)],
        "bfe" => vec![(bits, 0), (32, 1), (32, 2)],
        "bfi" => vec![(bits, 0), (bits, 1), (32, 2), (32, 3)],
        "setp" | "set" if combines => vec![(bits, 0), (bits, 1), (1, 2)],
        "selp" => vec![(bits, 0), (bits, 1), (1, 2)],
        "slct" => vec![(bits, 0), (bits, 1), (32, 2)],
        "mad" if form.has("wide") => vec![(bits, 0), (bits, 1), (2 * bits, 2)],
        "cvt" if form.ty().ends_with("x2") => all(2),
        "mov" | "cvt" | "neg" | "abs" | "not" | "cnot" | "popc" | "clz" | "brev" | "bfind"
        | "testp" | "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => all(1),
        "mad" | "madc" | "mad24" | "sad" | "fma" | "shf" | "fns" | "prmt" | "lop3" | "dp4a"
        | "dp2a" => all(3),
        _ => all(2),
    }
}

/// A register for a width; the last digit tells it from others.
fn register(bits: u32, index: usize) -> String {
    let name = match bits {
        1 => "%p",
        16 => "%h",
        32 => "%r",
        _ => "%w",
    };
    format!("{name}{index}")
}

const RESULT: usize = 8;
const SECOND: usize = 9;

/// The instruction with its operands from `%x0` to `%x3`, and its result in `%w8`.
pub fn instruction(form: &Form) -> String {
    let mut text = String::new();
    let mut operands = Vec::new();
    for (bits, index) in sources(form) {
        let register = register(bits, index);
        let x = format!("%x{index}");
        match bits {
            1 => writeln!(text, "and.b64 %w7, {x}, 1; setp.ne.u64 {register}, %w7, 0;"),
            64 => writeln!(text, "mov.b64 {register}, {x};"),
            _ => writeln!(text, "cvt.u{bits}.u64 {register}, {x};"),
        }
        .unwrap();
        operands.push(register);
    }
    if form.opcode == "lop3" {
        operands.push(integer::LOP3_TABLE.to_string());
    }
    let bits = match &form.opcode[..] {
        "setp" | "testp" => 1,
        _ => integer::result_bits(form),
    };
    let result = register(bits, RESULT);
    // The carry comes from the last operand and goes into the result, each by an instruction of its own kind.
    let subtracts = form.opcode.starts_with("sub");
    if matches!(&form.opcode[..], "addc" | "subc" | "madc") {
        text.push_str("cvt.u32.u64 %r7, %x3; and.b32 %r7, %r7, 1;\n");
        text.push_str(if subtracts {
            "sub.cc.u32 %r7, 0, %r7;\n"
        } else {
            "add.cc.u32 %r7, %r7, -1;\n"
        });
    }
    let second = if form.opcode == "setp" {
        format!("|{}", register(1, SECOND))
    } else {
        String::new()
    };
    writeln!(
        text,
        "{} {result}{second}, {};",
        form.name,
        operands.join(", ")
    )
    .unwrap();
    text.push_str(&match bits {
        1 if second.is_empty() => format!("selp.u64 %w8, 1, 0, {result};\n"),
        1 => format!("selp.u64 %w8, 1, 0, {result}; @%p{SECOND} or.b64 %w8, %w8, 2;\n"),
        64 => String::new(),
        _ => format!("cvt.u64.u{bits} %w8, {result};\n"),
    });
    if form.has("cc") {
        let carry = if subtracts {
            "subc.u32 %r7, 0, 0; and.b32 %r7, %r7, 1;"
        } else {
            "addc.u32 %r7, 0, 0;"
        };
        let place = if bits == 32 {
            "shl.b64 %w7, %w7, 32; or.b64 %w8, %w8, %w7;"
        } else {
            "mov.b64 %w8, %w7;"
        };
        writeln!(text, "{carry} cvt.u64.u32 %w7, %r7; {place}").unwrap();
    }
    text
}

pub const REGISTERS: &str = ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<10>; .reg .b64 %w<10>, %x<4>, %in, %out; .reg .b32 %tid;";

/// A kernel of some instructions, each with the operands of its class.
fn kernel(forms: &[Form]) -> String {
    let mut text = format!(
        "{HEADER}.entry k(.param .u64 out, .param .u64 in) {{
         {REGISTERS}
         mov.u32 %tid, %tid.x; ld.param.u64 %in, [in]; mad.wide.u32 %in, %tid, 32, %in;
         ld.param.u64 %out, [out]; mad.wide.u32 %out, %tid, 8, %out;\n"
    );
    for (index, form) in forms.iter().enumerate() {
        let carries = matches!(&form.opcode[..], "addc" | "subc" | "madc");
        let operands = sources(form).into_iter().map(|(_, x)| x);
        for x in operands.chain(carries.then_some(3)) {
            let offset = class(form) * THREADS * 32 + x * 8;
            writeln!(text, "ld.global.b64 %x{x}, [%in+{offset}];").unwrap();
        }
        text.push_str(&instruction(form));
        writeln!(text, "st.global.b64 [%out+{}], %w8;", index * THREADS * 8).unwrap();
    }
    text.push_str("ret; }\n");
    text
}

/// Whether code is made of a form, too: predicates combine in the same way whatever was compared, and making code takes long.
fn is_compiled(form: &Form) -> bool {
    let combines = ["and", "or", "xor"].iter().any(|name| form.has(name));
    let one_of_many = form.has("lt") && matches!(form.source(), "u32" | "s64" | "f32" | "f16x2");
    !combines || one_of_many
}

/// Runs all forms of some patterns; every result must be what the model allows.
fn check(patterns: &str) {
    let mut random = Random(4);
    let operands: Vec<Vec<[u64; 4]>> = (0..CLASSES.len())
        .map(|class| random.operands(class))
        .collect();
    let words: Vec<u64> = operands.iter().flatten().flatten().copied().collect();
    let mut wrong = Vec::new();
    let forms = expand_all(patterns);
    let compiled: Vec<Form> = forms
        .iter()
        .filter(|form| is_compiled(form))
        .cloned()
        .collect();
    for (tier, forms) in [(Tier::Interpreter, forms), (Tier::Compiler, compiled)] {
        for forms in forms.chunks(FORMS) {
            let text = kernel(forms);
            let device = Device::with_tier(tier);
            let kernel = device.kernel(&text, "k");
            let input = device.upload(&words);
            let bytes = 8 * THREADS * forms.len();
            let out = device.buffer(bytes);
            device.launch(&kernel, [1, 1, 1], [THREADS as u32, 1, 1], 0, &[out, input]);
            let results = device.download(out, bytes);
            let results = results
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            for (index, result) in results.enumerate() {
                let (form, x) = (
                    &forms[index / THREADS],
                    operands[class(&forms[index / THREADS])][index % THREADS],
                );
                let expected = expected(form, x);
                if !expected.allows(form, result) {
                    wrong.push(format!(
                        "{tier:?}: {} {x:x?} = {result:#x}, not {expected:x?}",
                        form.name
                    ));
                }
            }
        }
    }
    // One of each form, for a first look.
    wrong.dedup_by_key(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    assert!(
        wrong.is_empty(),
        "{} forms are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_integer_form_gives_what_its_definition_says() {
    check(INTEGER);
}

#[test]
fn every_form_of_floating_point_gives_what_its_definition_says() {
    check(FLOAT);
}

#[test]
fn every_comparison_gives_what_its_definition_says() {
    check(COMPARISONS);
}

#[test]
fn every_conversion_gives_what_its_definition_says() {
    check(CONVERSIONS);
}

#[test]
fn the_forms_of_the_table_differ() {
    let mut keys: Vec<_> = forms().iter().map(Form::key).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all);
    let types: Vec<u32> = forms().iter().map(|form| bits_of(form.ty())).collect();
    assert!(types.iter().all(|bits| *bits <= 64));
}
