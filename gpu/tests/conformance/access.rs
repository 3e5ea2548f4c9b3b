//! Every form of loads, stores and atomic operations.

use std::fmt::Write;

use gpu::ptx::Tier;

use super::HEADER;
use super::common::Device;
use super::forms::{Form, bits_of, expand_all, is_signed};
use super::model::low;
use super::model::number::{BF16, Direction, F16, F32, F64};

/// Orders, scopes and hints, which change no value here, each with one type.
const LOADS: &str = "
ld{,.global,.shared,.local}{,.v2,.v4}.{u8,u16,u32,s8,s16,s32,b8,b16,b32,f16,bf16,f16x2,bf16x2,f32}
ld{,.global,.shared,.local}{,.v2}.{u64,s64,b64,f64}
ld.global{.v4.b64,.v8.b32}
ld.shared::cta.u32
ld{.volatile,.weak,.relaxed.cta,.relaxed.cluster,.acquire.gpu,.acquire.sys,.mmio.relaxed.sys}.global.u32
ld.global{.ca,.cg,.cs,.lu,.cv,.nc,.nc.L1::no_allocate,.L1::evict_last,.L2::128B,.nc.L2::256B}.u32
ldu.global.u32
";

const STORES: &str = "
st{,.global,.shared,.local}{,.v2,.v4}.{u8,u16,u32,s8,s16,s32,b8,b16,b32,f16,bf16,f16x2,bf16x2,f32}
st{,.global,.shared,.local}{,.v2}.{u64,s64,b64,f64}
st.global{.v4.b64,.v8.b32}
st.shared::cta.u32
st{.volatile,.weak,.relaxed.cta,.relaxed.cluster,.release.gpu,.release.sys,.mmio.relaxed.sys}.global.u32
st.global{.wb,.cg,.cs,.wt,.L1::evict_first}.u32
";

const ATOMICS: &str = "
{atom,red}{,.global,.shared}.add.{u32,s32,u64,f32,f64}
{atom,red}{,.global,.shared}{.min,.max}.{u32,s32,u64,s64}
{atom,red}{,.global,.shared}{.and,.or,.xor}.{b32,b64}
{atom,red}{,.global,.shared}{.inc,.dec}.u32
atom{,.global,.shared}.exch.{b32,b64}
atom{,.global,.shared}.cas.{b16,b32,b64}
{atom,red}{,.global,.shared}.add.noftz.{f16,f16x2,bf16,bf16x2}
{atom,red}{.relaxed.cta,.relaxed.gpu,.relaxed.sys,.relaxed.cluster,.release.gpu}.global.add.u32
atom{.acquire,.acq_rel}.gpu.global.add.u32
atom.shared::cta.add.u32
";

/// All forms of the tables.
pub fn forms() -> Vec<Form> {
    [LOADS, STORES, ATOMICS]
        .into_iter()
        .flat_map(expand_all)
        .collect()
}

/// The bytes that each thread's place holds at first.
const WORDS: [u64; 4] = [
    0xfedc_ba98_8654_3281,
    0x0123_4567_89ab_cdef,
    0x8000_7fff_ffff_0001,
    0x1122_3344_c155_6677,
];
/// What is stored there.
const STORED: [u64; 8] = [
    0x1111_2222_b333_4494,
    0x8899_aabb_ccdd_eeff,
    0x0f1e_2d3c_4b5a_6978,
    0xffff_fffe_fffd_fffc,
    0x0102_0304_0506_0708,
    0x90a0_b0c0_d0e0_f000,
    0x7777_7777_7777_7777,
    0x1357_9bdf_0246_8ace,
];

fn elements(form: &Form) -> usize {
    [2, 4, 8]
        .into_iter()
        .find(|count| form.has(&format!("v{count}")))
        .unwrap_or(1)
}

/// A register's name and width for an element.
fn register(bits: u32, index: usize) -> String {
    match bits {
        ..=16 => format!("%h{index}"),
        32 => format!("%r{index}"),
        _ => format!("%w{index}"),
    }
}

/// A space's own 64 bytes of a thread.
fn place(form: &Form) -> &'static str {
    let has = |word| form.has(word);
    if has("shared") || has("shared::cta") {
        "%s"
    } else if has("local") {
        "%l"
    } else {
        "%g"
    }
}

fn space(form: &Form) -> &'static str {
    match place(form) {
        "%s" => "shared",
        "%l" => "local",
        _ => "global",
    }
}

/// A sum in which each word counts otherwise, in `%w8`.
fn fold(text: &mut String, words: &[String]) {
    text.push_str("mov.b64 %w8, 0;\n");
    for (index, word) in words.iter().enumerate() {
        writeln!(text, "mad.lo.u64 %w8, {word}, {}, %w8;", FACTORS[index]).unwrap();
    }
}

const FACTORS: [u64; 8] = [1, 3, 0x1_0001, 0x1_0000_0001_0001, 5, 7, 11, 13];

fn folded(words: &[u64]) -> u64 {
    words.iter().zip(FACTORS).fold(0, |sum, (word, factor)| {
        sum.wrapping_add(word.wrapping_mul(factor))
    })
}

/// The instruction, and what it is to leave in `%w8`.
fn row(form: &Form, seed: u64) -> (String, u64) {
    let mut text = String::new();
    let (place, space) = (place(form), space(form));
    let ty = form.ty();
    let bits = bits_of(ty);
    let bytes = bits as usize / 8;
    let count = elements(form);
    let fill = |text: &mut String, words: &[u64]| {
        for (index, word) in words.iter().enumerate() {
            writeln!(
                text,
                "mov.b64 %w7, {word:#x}; st.{space}.b64 [{place}+{}], %w7;",
                8 * index
            )
            .unwrap();
        }
    };
    let names: Vec<String> = (0..count).map(|index| register(bits, index)).collect();
    let vector = if count == 1 {
        names[0].clone()
    } else {
        format!("{{{}}}", names.join(", "))
    };
    match &form.opcode[..] {
        "ld" | "ldu" => {
            fill(&mut text, &WORDS);
            writeln!(text, "{} {vector}, [{place}];", form.name).unwrap();
            let memory: Vec<u8> = WORDS.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut words = Vec::new();
            let mut values = Vec::new();
            for (index, name) in names.iter().enumerate() {
                let mut raw = [0; 8];
                raw[..bytes].copy_from_slice(&memory[index * bytes..][..bytes]);
                let raw = u64::from_le_bytes(raw);
                // Extended to the register, which is 16 bits wide at least, and from there by zeros.
                let width = bits.max(16);
                let negative = is_signed(ty) && raw >> (bits - 1) & 1 == 1;
                values.push(low(
                    if negative && bits < 64 {
                        raw | u64::MAX << bits
                    } else {
                        raw
                    },
                    width,
                ));
                match width {
                    64 => words.push(name.clone()),
                    _ => {
                        writeln!(text, "cvt.u64.u{width} %w{}, {name};", 10 + index).unwrap();
                        words.push(format!("%w{}", 10 + index));
                    }
                }
            }
            fold(&mut text, &words);
            (text, folded(&values))
        }
        "st" => {
            fill(&mut text, &WORDS);
            for (name, value) in names.iter().zip(STORED) {
                match bits {
                    ..=16 => writeln!(text, "mov.b16 {name}, {:#x};", value & 0xffff),
                    32 => writeln!(text, "mov.b32 {name}, {:#x};", value & 0xffff_ffff),
                    _ => writeln!(text, "mov.b64 {name}, {value:#x};"),
                }
                .unwrap();
            }
            writeln!(text, "{} [{place}], {vector};", form.name).unwrap();
            let mut memory: Vec<u8> = WORDS.iter().flat_map(|word| word.to_le_bytes()).collect();
            for (index, value) in STORED.iter().take(count).enumerate() {
                memory[index * bytes..][..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            let words: Vec<String> = (0..4)
                .map(|index| {
                    writeln!(
                        text,
                        "ld.{space}.b64 %w{}, [{place}+{}];",
                        10 + index,
                        8 * index
                    )
                    .unwrap();
                    format!("%w{}", 10 + index)
                })
                .collect();
            fold(&mut text, &words);
            let words: Vec<u64> = memory
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .collect();
            (text, folded(&words))
        }
        _ => {
            let (old, b, c) = atomic_operands(form, seed);
            fill(&mut text, &[old, WORDS[1]]);
            for (index, value) in [b, c].into_iter().enumerate() {
                let name = register(bits, index);
                writeln!(
                    text,
                    "mov.b{} {name}, {:#x};",
                    bits.max(16),
                    low(value, bits)
                )
                .unwrap();
            }
            let sources = if form.has("cas") { 2 } else { 1 };
            let sources: Vec<String> = (0..sources).map(|index| register(bits, index)).collect();
            let returned = register(bits, 2);
            let left = new_value(form, low(old, bits), low(b, bits), low(c, bits));
            if form.opcode == "atom" {
                writeln!(
                    text,
                    "{} {returned}, [{place}], {};",
                    form.name,
                    sources.join(", ")
                )
                .unwrap();
            } else {
                writeln!(text, "{} [{place}], {};", form.name, sources.join(", ")).unwrap();
            }
            let mut words = vec!["%w4".to_owned(), "%w5".to_owned()];
            writeln!(
                text,
                "ld.{space}.b64 %w4, [{place}]; ld.{space}.b64 %w5, [{place}+8];"
            )
            .unwrap();
            let whole = if bits == 64 {
                left
            } else {
                old & u64::MAX << bits | left
            };
            let mut values = vec![whole, WORDS[1]];
            if form.opcode == "atom" {
                if bits != 64 {
                    writeln!(text, "cvt.u64.u{bits} %w6, {returned};").unwrap();
                } else {
                    writeln!(text, "mov.b64 %w6, {returned};").unwrap();
                }
                words.push("%w6".to_owned());
                values.push(low(old, bits));
            }
            fold(&mut text, &words);
            (text, folded(&values))
        }
    }
}

/// The old value and the operands, of which some rounds have equal ones and ones at the ends.
fn atomic_operands(form: &Form, seed: u64) -> (u64, u64, u64) {
    let floats: [u64; 4] = match form.ty() {
        "f32" => [1.5f32, -0.25, 3e38, 1e-40].map(|x| x.to_bits().into()),
        "f64" => [1.5f64, -0.25, 1e308, 5e-324].map(f64::to_bits),
        "f16" | "f16x2" => [0x3e00_3c00, 0x0001_b400, 0x7bff_7bff, 0x8001_3c01],
        "bf16" | "bf16x2" => [0x3fc0_3f80, 0x0001_be80, 0x7f7f_7f7f, 0x8001_3f81],
        _ => {
            let values = [
                5,
                u64::MAX,
                1 << 31,
                0x1234_5678_9abc_def0,
                0,
                6,
                1 << 63,
                5,
            ];
            let pick = |step: u64| values[(seed * step + step) as usize % values.len()];
            let (old, b) = (pick(1), pick(3));
            // A comparison that finds what it looks for, and one that does not.
            return (
                old,
                if form.has("cas") && seed.is_multiple_of(2) {
                    old
                } else {
                    b
                },
                pick(5),
            );
        }
    };
    let pick = |step: u64| floats[(seed * step) as usize % 4];
    (
        pick(1),
        pick(2) ^ if seed >= 4 { floats[1] ^ floats[0] } else { 0 },
        0,
    )
}

/// What an atomic operation leaves (PTX ISA 9.7.13.5).
fn new_value(form: &Form, old: u64, b: u64, c: u64) -> u64 {
    let ty = form.ty();
    let bits = bits_of(ty);
    let signed = |x: u64| {
        if bits == 32 {
            i64::from(x as i32)
        } else {
            x as i64
        }
    };
    let less = if is_signed(ty) {
        signed(old) < signed(b)
    } else {
        old < b
    };
    let value = if form.has("add") {
        match ty {
            "f32" | "f64" | "f16" | "bf16" => add(ty, old, b),
            "f16x2" | "bf16x2" => {
                let ty = &ty[..ty.len() - 2];
                add(ty, old & 0xffff, b & 0xffff) | add(ty, old >> 16, b >> 16) << 16
            }
            _ => old.wrapping_add(b),
        }
    } else if form.has("min") {
        if less { old } else { b }
    } else if form.has("max") {
        if less { b } else { old }
    } else if form.has("and") {
        old & b
    } else if form.has("or") {
        old | b
    } else if form.has("xor") {
        old ^ b
    } else if form.has("inc") {
        if old >= b { 0 } else { old + 1 }
    } else if form.has("dec") {
        if old == 0 || old > b { b } else { old - 1 }
    } else if form.has("exch") {
        b
    } else if old == b {
        c
    } else {
        old
    };
    low(value, bits)
}

/// Sums are rounded to nearest. Those of single precision in global memory flush subnormal numbers, so there are none that matter.
fn add(ty: &str, a: u64, b: u64) -> u64 {
    let format = match ty {
        "f16" => F16,
        "bf16" => BF16,
        "f32" => F32,
        _ => F64,
    };
    format
        .round(
            format.decode(a).plus(format.decode(b), Direction::Nearest),
            Direction::Nearest,
        )
        .unwrap()
}

const THREADS: u32 = 24;

/// Every round runs in the interpreter, the first ones compiled too: making code takes long.
fn check(patterns: &str, rounds: u64) {
    check_in(Tier::Interpreter, patterns, rounds);
    check_in(Tier::Compiler, patterns, rounds.min(2));
}

fn check_in(tier: Tier, patterns: &str, rounds: u64) {
    let mut forms = expand_all(patterns);
    if tier == Tier::Compiler {
        // Elements of vectors go as single ones do.
        let some = |form: &Form| matches!(form.ty(), "s8" | "u16" | "b32" | "b64");
        forms.retain(|form| elements(form) == 1 || some(form));
    }
    let rows: Vec<(&Form, String, u64)> = forms
        .iter()
        .flat_map(|form| {
            (0..rounds).map(move |seed| {
                let (text, value) = row(form, seed);
                (form, text, value)
            })
        })
        .collect();
    for rows in rows.chunks(40) {
        let mut text = format!(
            "{HEADER}.entry k(.param .u64 out, .param .u64 places) {{
             .shared .align 32 .b8 shared[{}]; .local .align 32 .b8 local[64];
             .reg .b16 %h<10>; .reg .b32 %r<10>, %tid; .reg .b64 %w<20>, %g, %s, %l, %out;
             mov.u32 %tid, %tid.x; ld.param.u64 %g, [places]; mad.wide.u32 %g, %tid, 64, %g;
             mov.u64 %s, shared; mad.wide.u32 %s, %tid, 64, %s; mov.u64 %l, local;
             ld.param.u64 %out, [out]; mad.wide.u32 %out, %tid, 8, %out;\n",
            64 * THREADS
        );
        for (index, (_, row, _)) in rows.iter().enumerate() {
            writeln!(
                text,
                "{row} st.global.b64 [%out+{}], %w8;",
                index * 8 * THREADS as usize
            )
            .unwrap();
        }
        text.push_str("ret; }\n");
        let device = Device::with_tier(tier);
        let kernel = device.kernel(&text, "k");
        let bytes = 8 * THREADS as usize * rows.len();
        let (out, places) = (device.buffer(bytes), device.buffer(64 * THREADS as usize));
        device.launch(&kernel, [1, 1, 1], [THREADS, 1, 1], 0, &[out, places]);
        let results = device.download(out, bytes);
        for (index, (form, row, expected)) in rows.iter().enumerate() {
            for result in
                results[index * 8 * THREADS as usize..][..8 * THREADS as usize].chunks_exact(8)
            {
                let result = u64::from_le_bytes(result.try_into().unwrap());
                assert_eq!(
                    result, *expected,
                    "{tier:?}: {}: {result:#x}, not {expected:#x} after\n{row}",
                    form.name
                );
            }
        }
    }
}

#[test]
fn every_form_of_a_load_extends_what_lies_there() {
    check(LOADS, 1);
}

#[test]
fn every_form_of_a_store_writes_its_bytes_and_no_others() {
    check(STORES, 1);
}

#[test]
fn every_atomic_operation_returns_the_old_value_and_leaves_the_new_one() {
    check(ATOMICS, 8);
}
