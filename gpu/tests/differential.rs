//! Generated kernels: the same program as PTX, through the interpreter and the compiler, and as C, through the host's
//! compiler. All three must leave the same bits.

#[path = "differential/c.rs"]
mod c;
mod common;
#[path = "differential/program.rs"]
mod program;
#[path = "differential/ptx.rs"]
mod ptx;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Device, integers};
use gpu::ptx::Tier;
use program::{BLOCKS, INPUTS, OUTPUTS, Program};

const KERNELS: u64 = 320;

/// The words that every program reads.
fn inputs() -> Vec<u32> {
    let mut random = program::Random(99);
    (0..INPUTS)
        .map(|index| {
            let word = random.next() as u32;
            // Small numbers and plain floating-point numbers among the wild ones.
            match index % 4 {
                0 => word % 100,
                1 => ((word % 2000) as f32 * 0.125 - 100.0).to_bits(),
                _ => word,
            }
        })
        .collect()
}

/// What the programs give in C: one line of words each.
fn expected(programs: &[Program]) -> Vec<Vec<u32>> {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("programs.c");
    let binary = directory.path().join("programs");
    std::fs::write(&source, c::text(programs, &inputs())).unwrap();
    // Neither contraction nor excess precision: each operation rounds once.
    let status = Command::new("cc")
        .args(["-O1", "-ffp-contract=off", "-fwrapv", "-w", "-o"])
        .arg(&binary)
        .arg(&source)
        .arg("-lm")
        .status()
        .expect("a C compiler is needed");
    assert!(status.success());
    let output = Command::new(&binary).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            line.split_whitespace()
                .map(|word| u32::from_str_radix(word, 16).unwrap())
                .collect()
        })
        .collect()
}

fn run(tier: Tier, program: &Program) -> Vec<u32> {
    let device = Device::with_tier(tier);
    let text = ptx::text(program);
    let kernel = device.kernel(&text, "k");
    if tier == Tier::Compiler {
        assert_eq!(kernel.compile(program.block), Ok(()), "{text}");
    }
    let threads: u32 = program.block.iter().product();
    let words = (BLOCKS * threads) as usize * OUTPUTS;
    let (out, input) = (device.buffer(4 * words), device.upload(&inputs()));
    device.launch(&kernel, [BLOCKS, 1, 1], program.block, 0, &[out, input]);
    integers(&device, out, words)
}

#[test]
fn generated_kernels_give_the_same_on_both_tiers_and_in_c() {
    let programs: Vec<Program> = (0..KERNELS).map(Program::generate).collect();
    let expected = expected(&programs);
    assert_eq!(expected.len(), programs.len());
    let divergent = programs.iter().filter(|program| program.branches > 0);
    assert!(divergent.count() > programs.len() / 2);
    // Compiling is most of the work, and each program is on its own.
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(program) = programs.get(number) else {
                        return;
                    };
                    check(number, program, &expected[number]);
                }
            });
        }
    });
}

fn check(number: usize, program: &Program, expected: &[u32]) {
    for tier in [Tier::Interpreter, Tier::Compiler] {
        let result = run(tier, program);
        if let Some(word) = (0..expected.len()).find(|&word| result[word] != expected[word]) {
            panic!(
                "program {number}, {tier:?}, thread {}, output {}: {:#x}, not {:#x}\n{}",
                word / OUTPUTS,
                word % OUTPUTS,
                result[word],
                expected[word],
                ptx::text(program)
            );
        }
    }
}
