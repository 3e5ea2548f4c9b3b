//! A register of a warp: one value for each of 32 threads.

/// Threads of a warp.
pub const WARP: usize = 32;

pub type Lanes = [u64; WARP];

pub fn map1(a: &Lanes, f: impl Fn(u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane]))
}

pub fn map2(a: &Lanes, b: &Lanes, f: impl Fn(u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

pub fn map3(a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(u64, u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]))
}

/// The lanes of a mask, lowest first.
pub fn lanes_of(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

/// The mask of the lanes for which `test` holds.
pub fn mask_of(test: impl Fn(usize) -> bool) -> u32 {
    (0..WARP).fold(0, |mask, lane| mask | u32::from(test(lane)) << lane)
}

/// The low `bits` bits, 1 to 64.
pub const fn low(value: u64, bits: u32) -> u64 {
    value & (u64::MAX >> (64 - bits))
}

/// The low `bits` bits, extended by their sign.
pub const fn signed(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}
