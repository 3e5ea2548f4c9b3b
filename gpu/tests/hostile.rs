//! Damaged texts and wild launches: any error will do, a panic or an endless call will not.

mod common;

use std::time::Duration;

use common::Device;
use gpu::ptx::{LaunchConfig, Module, Tier, compile};

const TEXTS: [&str; 7] = [
    include_str!("ptx/vector_add.ptx"),
    include_str!("ptx/matmul.ptx"),
    include_str!("ptx/reduce.ptx"),
    include_str!("ptx/histogram.ptx"),
    include_str!("ptx/softmax.ptx"),
    include_str!("ptx/attention.ptx"),
    include_str!("ptx/kernels.sm_75.O2.ptx"),
];

/// A small generator with a fixed seed, so that a failure comes again (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The words and the characters between them.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.chars() {
        let word = c.is_ascii_alphanumeric() || "%$_.".contains(c);
        match pieces.last_mut() {
            Some(last) if word && in_word => last.push(c),
            _ => pieces.push(c.to_string()),
        }
        in_word = word;
    }
    pieces
}

fn damage(random: &mut Random, pieces: &mut Vec<String>, pool: &[String]) {
    for _ in 0..=random.below(3) {
        let at = random.below(pieces.len());
        match random.below(6) {
            0 => {
                pieces.remove(at);
            }
            1 => {
                let copy = pieces[random.below(pieces.len())].clone();
                pieces.insert(at, copy);
            }
            2 => {
                pieces[at] =
                    ["0", "-1", "0xffffffffffffffff", "32", "4294967295"][random.below(5)].into()
            }
            _ => pieces[at] = pool[random.below(pool.len())].clone(),
        }
    }
}

/// What another context has in its memory; no kernel here computes it.
const SECRET: [u64; 4] = [
    0x5ec2_e70f_07e2_51de,
    0x9d15_44c0_f0cc_0bb1,
    0x1bad_b002_cafe_77aa,
    0xe1e1_0d7e_5a5a_9393,
];

#[test]
fn damaged_texts_compile_or_are_refused_and_their_kernels_end() {
    let pools: Vec<Vec<String>> = TEXTS.iter().map(|text| pieces(text)).collect();
    let pool: Vec<String> = pools.concat();
    let device_limit = Duration::from_millis(4);
    let mut random = Random(7);
    let (mut ran, mut seen) = (0, [0; 4096]);
    for _ in 0..2000 {
        let mut text = pools[random.below(TEXTS.len())].clone();
        damage(&mut random, &mut text, &pool);
        let text = text.concat();
        let tier = [Tier::Interpreter, Tier::Compiler][random.below(2)];
        let device = Device::with_watchdog(device_limit, tier);
        let victim = device.sibling();
        let theirs = victim.upload(&SECRET);
        let Ok(module) = Module::load(&device.context, &text) else {
            continue;
        };
        let names: Vec<String> = module.kernels().map(str::to_owned).collect();
        let buffer = device.buffer(4096);
        device.context.write(buffer, &[0; 4096]).unwrap();
        for name in names {
            let kernel = module.function(&name).unwrap();
            let params: Vec<u8> = (0..8)
                .flat_map(|_| {
                    match random.below(5) {
                        0 => random.next(),
                        1 => random.below(64) as u64,
                        2 => theirs,
                        _ => buffer,
                    }
                    .to_le_bytes()
                })
                .collect();
            let config = LaunchConfig {
                grid: [1 + random.below(3) as u32, 1, 1],
                block: [1 + random.below(70) as u32, 1 + random.below(2) as u32, 1],
                dynamic_shared: random.below(256) as u32,
            };
            // What comes of it is open; that it comes is not.
            let _ = kernel.launch(&config, &params);
            ran += 1;
        }
        // Nor can it reach what another context has.
        let secret = SECRET.map(u64::to_le_bytes).concat();
        assert_eq!(victim.download(theirs, secret.len()), secret, "{text}");
        let got = device.context.read(buffer, &mut seen);
        // After a fault nothing of the context answers.
        if got.is_ok() {
            let leaked = |word: &u64| seen.windows(8).any(|bytes| bytes == word.to_le_bytes());
            assert!(!SECRET.iter().any(leaked), "{text}");
        }
    }
    assert!(ran > 100, "{ran}");
}

#[test]
fn texts_cut_anywhere_are_refused() {
    // One body that the cut leaves open, up to its last brace.
    let text = TEXTS[1];
    let open = text.find('{').unwrap();
    let end = text.rfind('}').unwrap();
    for cut in (open..end).step_by(7) {
        assert!(compile(&text[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn copies_and_frees_outside_the_contexts_memory_are_refused() {
    let device = Device::new();
    let other = device.sibling();
    let (own, foreign) = (device.buffer(100), other.buffer(100));
    let context = &device.context;
    assert_eq!(context.write(own + 99, &[0; 2]).unwrap_err().code(), 1);
    assert_eq!(context.read(foreign, &mut [0; 1]).unwrap_err().code(), 1);
    assert_eq!(context.copy(own, foreign, 1).unwrap_err().code(), 1);
    assert_eq!(context.set(own, &[1, 2, 3], 1).unwrap_err().code(), 1);
    assert_eq!(context.set(own, &[1, 0], u64::MAX).unwrap_err().code(), 1);
    assert_eq!(context.free(foreign).unwrap_err().code(), 1);
    assert_eq!(context.free(own + 1).unwrap_err().code(), 1);
    assert_eq!(context.alloc(0).unwrap_err().code(), 1);
    assert_eq!(context.alloc(u64::MAX).unwrap_err().code(), 2);
    assert_eq!(context.free(own), Ok(()));
    assert_eq!(context.free(own).unwrap_err().code(), 1);
}

#[test]
fn copies_within_the_device_may_overlap() {
    let device = Device::new();
    let bytes: Vec<u8> = (0..200_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let buffer = device.upload(&bytes);
    device.context.copy(buffer + 1000, buffer, 199_000).unwrap();
    assert_eq!(device.download(buffer + 1000, 199_000), bytes[..199_000]);
    let buffer = device.upload(&bytes);
    device.context.copy(buffer, buffer + 1000, 199_000).unwrap();
    assert_eq!(device.download(buffer, 199_000), bytes[1000..]);
    device.context.set(buffer, &[1, 2, 3, 4], 10).unwrap();
    assert_eq!(device.download(buffer, 8), [1, 2, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn a_dropped_context_gives_its_memory_back() {
    let device = Device::new();
    let (before, total) = device.context.memory_info();
    let sibling = device.sibling();
    sibling.buffer(1 << 20);
    let kernel = sibling.kernel(
        ".version 7.5\n.target sm_75\n.global .u32 x[100]; .entry k() { ret; }",
        "k",
    );
    assert!(device.context.memory_info().0 < before);
    drop((kernel, sibling));
    assert_eq!(device.context.memory_info(), (before, total));
}

#[test]
fn a_cancelled_context_ends_its_kernels_with_error_702() {
    let device = Device::new();
    let kernel = device.kernel(
        ".version 7.5\n.target sm_75\n.entry spin() { $L: bra $L; }",
        "spin",
    );
    let once = LaunchConfig {
        grid: [1, 1, 1],
        block: [1, 1, 1],
        dynamic_shared: 0,
    };
    std::thread::scope(|scope| {
        let launch = scope.spawn(|| kernel.launch(&once, &[]));
        device.context.cancel();
        assert_eq!(launch.join().unwrap().unwrap_err().code(), 702);
    });
}

#[test]
fn mappable_memory_shares_no_page() {
    let device = Device::new();
    let context = &device.context;
    let pages: Vec<u64> = (0..3)
        .flat_map(|_| {
            device.buffer(300);
            [context.alloc_pages(1).unwrap()]
        })
        .collect();
    for page in pages {
        assert!(page.is_multiple_of(4096));
        assert_eq!(context.address_range(page + 4095), Ok(page..page + 4096));
        context.free(page).unwrap();
    }
}
