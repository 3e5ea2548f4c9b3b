//! Instructions that a device model which traps memory cannot serve: wide vector moves, locked
//! read-modify-writes, XSAVE areas. Here they run on memory of the current policy.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_storeu_si256};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, ensure};

use crate::mapping::Mapping;
use crate::{node, pattern};

/// Locked additions of each thread.
const ADDITIONS: u64 = 10_000;
/// x87, SSE and AVX state (Intel SDM volume 1, section 13.1).
const XSAVE_COMPONENTS: u32 = 0b111;
/// Words of an XSAVE area with those components, rounded up to whole cache lines.
const XSAVE_WORDS: usize = 1024 / 8;
/// Words that the locked operations and the XSAVE area use, at the memory's end.
const SCRATCH_WORDS: usize = 2 * XSAVE_WORDS;

/// Runs all three on `bytes` of memory and prints which of them held.
pub fn exercise(bytes: usize) -> Result<bool> {
    ensure!(
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("xsave")
            && is_x86_feature_detected!("cmpxchg16b"),
        "this processor lacks AVX2, XSAVE or CMPXCHG16B"
    );
    let mut memory = Mapping::anonymous(bytes)?;
    let words = memory.as_mut_slice();
    let (blocks, scratch) = words.split_at_mut(words.len() - SCRATCH_WORDS);
    let (locks, area) = scratch.split_at_mut(XSAVE_WORDS);
    // Both are cache-line aligned: the mapping is page aligned, and the parts are whole lines.
    let copies = copies_match(blocks);
    let atomics = counts_add_up(&mut locks[..2]);
    let xsave = state_survives(area);
    let node = node::of(blocks.as_ptr().addr());
    let ok = copies && atomics && xsave;
    println!(
        r#"{{"test":"avx","node":{node},"mib":{},"avx2_copy":{copies},"atomics":{atomics},"xsave":{xsave},"ok":{ok}}}"#,
        bytes >> 20
    );
    Ok(ok)
}

/// Fills the first half with a pattern, copies it to the second in 32-byte moves and compares.
fn copies_match(words: &mut [u64]) -> bool {
    let (from, to) = words.split_at_mut(words.len() / 2);
    for (index, word) in from.iter_mut().enumerate() {
        *word = pattern::word(0xa5, index as u64);
    }
    // SAFETY: the caller checked that the processor has AVX2.
    unsafe { copy_avx2(from, to) };
    let length = from.len() / 4 * 4;
    from[..length] == to[..length]
}

#[target_feature(enable = "avx2")]
fn copy_avx2(from: &[u64], to: &mut [u64]) {
    for (source, target) in from.chunks_exact(4).zip(to.chunks_exact_mut(4)) {
        // SAFETY: each chunk has the 32 bytes of one vector; the unaligned forms are used.
        unsafe {
            let vector = _mm256_loadu_si256(source.as_ptr().cast::<__m256i>());
            _mm256_storeu_si256(target.as_mut_ptr().cast::<__m256i>(), vector);
        }
    }
}

/// Two threads add to one word by `lock xadd` and to a pair of words by `lock cmpxchg16b`.
fn counts_add_up(pair: &mut [u64]) -> bool {
    let address = pair.as_mut_ptr();
    pair.fill(0);
    // SAFETY: the word is aligned, borrowed mutably, and accessed through this reference alone.
    let counter = unsafe { AtomicU64::from_ptr(address) };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ADDITIONS {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let added = counter.load(Ordering::SeqCst) == 2 * ADDITIONS;

    for round in 0..ADDITIONS {
        // SAFETY: the caller checked that the processor has CMPXCHG16B; the pair lies on a cache
        // line's beginning, so it is 16-byte aligned, and nobody else uses it now.
        if !unsafe { exchange_pair(address, [2 * ADDITIONS, round], [2 * ADDITIONS, round + 1]) } {
            return false;
        }
    }
    added && pair[0] == 2 * ADDITIONS && pair[1] == ADDITIONS
}

/// Replaces the pair at `address` by `new` in one locked operation, if it is `old`.
///
/// # Safety
/// The processor must have CMPXCHG16B, and `address` be valid for a pair and 16-byte aligned.
unsafe fn exchange_pair(address: *mut u64, old: [u64; 2], new: [u64; 2]) -> bool {
    let exchanged: u8;
    // SAFETY: the caller answers for the address; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg rbx, rsi",
            "lock cmpxchg16b [rdi]",
            "sete {exchanged}",
            "mov rbx, rsi",
            inout("rsi") new[0] => _,
            in("rdi") address,
            exchanged = lateout(reg_byte) exchanged,
            in("rcx") new[1],
            inout("rax") old[0] => _,
            inout("rdx") old[1] => _,
            options(nostack),
        );
    }
    exchanged == 1
}

/// Saves the vector state to `area`, clears a register, restores, and looks whether it is back.
fn state_survives(area: &mut [u64]) -> bool {
    let expected: [u64; 4] = std::array::from_fn(|index| pattern::word(0x5a, index as u64));
    let mut found = [0u64; 4];
    area.fill(0);
    // SAFETY: the caller checked for AVX2 and XSAVE; `area` is 64-byte aligned and larger than the
    // standard-format area of the components asked for (832 bytes); all it restores is the state
    // that it saved a moment ago, but for ymm0, which is declared clobbered.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{expected}]",
            "xsave64 [{area}]",
            "vpxor ymm0, ymm0, ymm0",
            "xrstor64 [{area}]",
            "vmovdqu [{found}], ymm0",
            expected = in(reg) expected.as_ptr(),
            found = in(reg) found.as_mut_ptr(),
            area = in(reg) area.as_mut_ptr(),
            in("eax") XSAVE_COMPONENTS,
            in("edx") 0,
            out("ymm0") _,
            options(nostack),
        );
    }
    // The saved copy is in the area too: low halves of ymm at 160, high halves at 576 (SDM, 13.4).
    found == expected
        && area[160 / 8..][..2] == expected[..2]
        && area[576 / 8..][..2] == expected[2..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_memory_serves_all_of_it() {
        assert!(exercise(1 << 20).unwrap());
    }
}
