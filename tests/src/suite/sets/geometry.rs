//! What a set is: its members, their order, and where each byte of it belongs.

use anyhow::{Context, Result, ensure};

/// Bytes of every expander here; each set takes all of its members.
pub(super) const CAPACITY: u64 = 256 << 20;
/// Bytes compared at each of a set's ends and in its middle: a whole stripe of any set, and more.
pub(super) const AREA: u64 = 128 << 10;
/// What a dax device can be mapped by.
const PAGE: u64 = 2 << 20;

/// A set: its window, its granularity, and the expanders below each of the window's bridges in the order of their turns.
pub(super) struct Set {
    pub(super) window: usize,
    pub(super) granularity: u64,
    pub(super) below: Vec<Vec<String>>,
    /// Whether it is made without cxl-cli.
    pub(super) by_hand: bool,
}

/// Names like `a0`, `a1`, `a2`.
pub(super) fn some(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// The first of one switch, the first of the other, the second of one ...
pub(super) fn alternating(prefixes: [&str; 2], each: usize) -> Vec<String> {
    (0..each)
        .flat_map(|n| prefixes.map(|prefix| format!("{prefix}{n}")))
        .collect()
}

impl Set {
    pub(super) fn new(window: usize, granularity: u64, below: &[Vec<String>]) -> Self {
        Self {
            window,
            granularity,
            below: below.to_vec(),
            by_hand: false,
        }
    }

    pub(super) fn by_hand(self) -> Self {
        Self {
            by_hand: true,
            ..self
        }
    }

    pub(super) fn ways(&self) -> u64 {
        self.below.iter().map(|below| below.len() as u64).sum()
    }

    pub(super) fn name(&self) -> String {
        format!(
            "{} ways at {} in w{}",
            self.ways(),
            self.granularity,
            self.window
        )
    }

    pub(super) fn size(&self) -> u64 {
        CAPACITY * self.ways()
    }

    /// The members as a user names them: bridges take turns.
    pub(super) fn order(&self) -> Vec<&str> {
        let rounds = self.below.first().map_or(0, Vec::len);
        (0..rounds)
            .flat_map(|round| self.below.iter().map(move |below| below[round].as_str()))
            .collect()
    }

    /// The expander and device address of an offset from the set's first byte, which lies at a multiple of the window's
    /// ways times 256 MiB: CXL 3.1 sections 9.18.1.3 (window), 9.18.1.4 (its XOR `maps`), 9.13.1 (the ports below, which
    /// decode address bits even where three bridges take turns) and 8.2.4.20.13 (device).
    pub(super) fn oracle(&self, maps: &[u64], offset: u64) -> (&str, u64) {
        let chunk = offset / self.granularity;
        let bridges = self.below.len() as u64;
        let powers = if bridges.is_multiple_of(3) {
            bridges / 3
        } else {
            bridges
        };
        let mut bridge = chunk % bridges;
        if !maps.is_empty() {
            let parity = |map: &u64| u64::from((offset & map).count_ones() % 2);
            bridge = maps.iter().zip(0..).map(|(map, n)| parity(map) << n).sum();
        }
        let below = &self.below[bridge as usize];
        let device = &below[(chunk / powers) as usize % below.len()];
        let dpa = chunk / self.ways() * self.granularity + offset % self.granularity;
        (device, dpa)
    }

    /// First bytes of what is compared.
    pub(super) fn areas(&self) -> [u64; 3] {
        let middle = self.size() / 2 / PAGE * PAGE;
        [0, middle, self.size() - PAGE]
    }
}

/// The XOR maps of a granularity in the CEDT that the guest has (CXL 3.1 section 9.18.1.4, CXIMS).
pub(super) fn xor_maps(cedt: &[u8], granularity: u64) -> Result<Vec<u64>> {
    const HEADER: usize = 36;
    const CXIMS: u8 = 2;
    let mut rest = cedt.get(HEADER..).context("a CEDT has a header")?;
    while let [kind, _, low, high, ..] = *rest {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (structure, next) = rest
            .split_at_checked(length)
            .context("a structure ends behind the CEDT")?;
        rest = next;
        if kind == CXIMS && structure.get(6).is_some_and(|g| 256 << g == granularity) {
            let maps = structure[8..].chunks_exact(8).map(<[u8; 8]>::try_from);
            return Ok(maps
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .map(u64::from_le_bytes)
                .collect());
        }
        ensure!(length > 0, "an empty structure in the CEDT");
    }
    anyhow::bail!("the CEDT has no CXIMS for {granularity}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(granularity: u64, below: &[Vec<String>]) -> Set {
        Set::new(0, granularity, below)
    }

    #[test]
    fn four_ways_over_two_bridges_take_turns() {
        let set = set(256, &[some("a", 2), some("b", 2)]);
        let devices: Vec<&str> = (0..5).map(|n| set.oracle(&[], n * 256).0).collect();
        assert_eq!(devices, ["a0", "b0", "a1", "b1", "a0"]);
        assert_eq!(set.order(), ["a0", "b0", "a1", "b1"]);
        assert_eq!(set.oracle(&[], 0x1234), ("a1", 0x434));
    }

    #[test]
    fn six_ways_over_three_bridges_choose_ports_by_an_address_bit() {
        let set = set(1024, &[some("a", 2), some("b", 2), some("c", 2)]);
        let devices: Vec<&str> = (0..7).map(|n| set.oracle(&[], n * 1024).0).collect();
        assert_eq!(devices, ["a0", "b1", "c0", "a1", "b0", "c1", "a0"]);
        assert_eq!(set.oracle(&[], 7 * 1024 + 5), ("b1", 1024 + 5));
    }

    #[test]
    fn a_parity_chooses_the_bridge_and_a_bit_the_port() {
        let set = set(256, &[some("a", 2), some("b", 2)]);
        assert_eq!(set.oracle(&[0x4100], 0x4000), ("b0", 0x1000));
        assert_eq!(set.oracle(&[0x4100], 0x4300), ("a1", 0x1000));
    }

    #[test]
    fn the_maps_of_a_granularity_are_found_in_the_cedt() {
        let mut cedt = vec![0; 36];
        cedt.extend([0, 0, 8, 0, 1, 2, 3, 4]);
        for (code, map) in [(0, 0x4100_u64), (1, 0x8200)] {
            cedt.extend([2, 0, 16, 0, 0, 0, code, 1]);
            cedt.extend(map.to_le_bytes());
        }
        assert_eq!(xor_maps(&cedt, 512).unwrap(), [0x8200]);
        assert!(xor_maps(&cedt, 1024).is_err());
    }
}
