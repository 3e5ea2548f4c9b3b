//! Interleave arithmetic: which way of a set an address belongs to, and where it lies there.
//!
//! Sections 8.2.4.20.13 (implementation note, decode flow of a device) and 9.13.1 (the way counts and
//! granularities a system may use). In modulo arithmetic chunks of `granularity` bytes go round the ways in
//! position order; in XOR arithmetic (9.18.1.4) each round has an order of its own.

use crate::{CAPACITY_UNIT, Error};

/// Number of ways of an interleave set, kept as the specification's code (ENIW, IW).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ways(u8);

impl Ways {
    /// Not interleaved.
    pub const ONE: Self = Self(0);

    /// Every way count, in the order of the codes.
    pub const ALL: [Self; 8] = [
        Self(0),
        Self(1),
        Self(2),
        Self(3),
        Self(4),
        Self(8),
        Self(9),
        Self(10),
    ];

    /// The set of `count` ways: 1, 2, 4, 8, 16, 3, 6 or 12.
    pub fn new(count: u64) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|ways| ways.count() == count)
            .ok_or(Error::Ways(count))
    }

    /// Decodes an IW or ENIW field; `None` for a reserved code.
    pub fn from_code(code: u8) -> Option<Self> {
        matches!(code, 0..=4 | 8..=10).then_some(Self(code))
    }

    /// The code of an IW or ENIW field: 0 to 4 for powers of two, 8 to 10 for 3, 6 and 12.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The number of ways.
    pub const fn count(self) -> u64 {
        match self.0 {
            code @ 0..=4 => 1 << code,
            code => 3 << (code - 8),
        }
    }

    /// Address bits that choose among the ways; a factor of three is chosen by a remainder.
    pub const fn bits(self) -> usize {
        (self.0 % 8) as usize
    }

    /// True for 1, 2, 4, 8 and 16: the only counts a port may decode.
    pub const fn is_power_of_two(self) -> bool {
        self.0 <= 4
    }
}

/// Bytes of consecutive address space on one way, kept as the specification's code (HBIG, IG).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Granularity(u8);

impl Granularity {
    /// The smallest one, 256 bytes.
    pub const MIN: Self = Self(0);

    /// Every granularity, 256 B to 16 KiB.
    pub const ALL: [Self; 7] = [
        Self(0),
        Self(1),
        Self(2),
        Self(3),
        Self(4),
        Self(5),
        Self(6),
    ];

    /// The granularity of `bytes`: a power of two from 256 to 16384.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|granularity| granularity.bytes() == bytes)
            .ok_or(Error::Granularity(bytes))
    }

    /// Decodes an IG or HBIG field; `None` for a reserved code.
    pub fn from_code(code: u8) -> Option<Self> {
        (code <= 6).then_some(Self(code))
    }

    /// The code of an IG or HBIG field: 0 for 256 bytes to 6 for 16 KiB.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        256 << self.0
    }
}

/// The maps of a window with XOR arithmetic (CXIMS, section 9.18.1.4): each address bit that chooses among the window's
/// targets is replaced by the parity of the address bits in its map.
///
/// A map's lowest bit is the one that it replaces. No map here reaches beyond 256 MiB, so that where a range begins, which
/// is at a multiple of that, does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct XorMaps([u64; XorMaps::MOST]);

impl XorMaps {
    /// Modulo arithmetic.
    pub const NONE: Self = Self([0; Self::MOST]);
    /// The most maps there are: those of 16 ways.
    pub const MOST: usize = 4;

    /// The maps of one window, the lowest address bit's first; none for modulo arithmetic.
    ///
    /// [`Error::XorMaps`] unless they replace consecutive bits, and each has any other bits among those of bits 27:0 that lie
    /// above its own and are replaced by no other.
    pub fn new(maps: &[u64]) -> Result<Self, Error> {
        let replaced = |map: u64| map & map.wrapping_neg();
        let all = maps.iter().fold(0, |all, map| all | replaced(*map));
        let consecutive = maps
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if replaced(*b) == replaced(*a) << 1));
        let sound = |map: &u64| *map != 0 && *map < CAPACITY_UNIT && map & all == replaced(*map);
        if maps.len() > Self::MOST || !consecutive || !maps.iter().all(sound) {
            return Err(Error::XorMaps);
        }
        let mut result = Self::NONE;
        for (to, from) in result.0.iter_mut().zip(maps) {
            *to = *from;
        }
        Ok(result)
    }

    /// Maps of three bits each, whose upper two lie above the stripe of any set that the window can be part of.
    pub fn spread(ways: Ways, granularity: Granularity) -> Self {
        /// 16 ways take the first four bits; bits 14 to 17 with the largest granularity, and so up to bit 27 in all.
        const BITS: [u32; 3] = [0, 6, 10];
        let mut all = Self::NONE;
        for (n, map) in all.0.iter_mut().enumerate().take(ways.bits()) {
            *map = BITS
                .iter()
                .fold(0, |map, bit| map | granularity.bytes() << bit << n);
        }
        all
    }

    /// The maps, the lowest address bit's first; none for modulo arithmetic.
    pub fn maps(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied().filter(|map| *map != 0)
    }

    /// The offset that modulo arithmetic sends to where these maps send `offset`. The inverse is the same.
    fn turn(&self, offset: u64) -> u64 {
        self.maps().fold(offset, |turned, map| {
            let chooses = map & map.wrapping_neg();
            let others = (offset & (map ^ chooses)).count_ones() % 2;
            if others == 1 {
                turned ^ chooses
            } else {
                turned
            }
        })
    }
}

/// How a range is spread over a set of targets: everything in offsets from the start of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interleave {
    /// Number of targets.
    pub ways: Ways,
    /// Bytes on one target before the next one's turn.
    pub granularity: Granularity,
    /// XOR arithmetic of the window; ports and devices have none.
    pub xor: XorMaps,
}

impl Interleave {
    /// One target holds everything.
    pub const NONE: Self = Self::new(Ways::ONE, Granularity::MIN);

    /// Modulo arithmetic.
    pub const fn new(ways: Ways, granularity: Granularity) -> Self {
        Self {
            ways,
            granularity,
            xor: XorMaps::NONE,
        }
    }

    /// The same with XOR arithmetic.
    pub const fn with_xor(self, xor: XorMaps) -> Self {
        Self { xor, ..self }
    }

    /// Bytes after which the targets' turns repeat, in an order of its own with XOR arithmetic: `granularity * ways`, at
    /// most 256 KiB.
    pub const fn stripe(self) -> u64 {
        self.granularity.bytes() * self.ways.count()
    }

    /// The position in the set of the target that holds `hpa_offset`.
    pub fn position(self, hpa_offset: u64) -> u64 {
        self.xor.turn(hpa_offset) / self.granularity.bytes() % self.ways.count()
    }

    /// The offset within its target's part of the byte at `hpa_offset`.
    pub const fn dpa_offset(self, hpa_offset: u64) -> u64 {
        let granularity = self.granularity.bytes();
        hpa_offset / self.stripe() * granularity + hpa_offset % granularity
    }

    /// The offset in the range of the byte at `dpa_offset` of the target at `position`.
    ///
    /// `None` if there is no such position or the offset is past 2^64.
    pub fn hpa_offset(self, position: u64, dpa_offset: u64) -> Option<u64> {
        if position >= self.ways.count() {
            return None;
        }
        let granularity = self.granularity.bytes();
        let stripe = (dpa_offset / granularity).checked_mul(self.stripe())?;
        let offset = stripe.checked_add(position * granularity + dpa_offset % granularity)?;
        Some(self.xor.turn(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits `high..=low` of `value`, moved down to bit 0: the `[high:low]` of the specification.
    fn bits(value: u64, high: u32, low: u32) -> u64 {
        (value >> low) & (u64::MAX >> (63 - (high - low)))
    }

    /// DPAOffset as the note of section 8.2.4.20.13 builds it, field by field.
    fn spec_dpa_offset(iw: u32, ig: u32, hpa_offset: u64) -> u64 {
        let low = bits(hpa_offset, 7 + ig, 0);
        let high = if iw < 8 {
            bits(hpa_offset, 51, ig + 8 + iw)
        } else {
            bits(hpa_offset, 51, ig + iw) / 3
        };
        high << (ig + 8) | low
    }

    /// HPAOffset of a device at `position`, by the inverse the same note gives.
    fn spec_hpa_offset(iw: u32, ig: u32, position: u64, dpa_offset: u64) -> u64 {
        let low = bits(dpa_offset, 7 + ig, 0);
        let high = bits(dpa_offset, 51, ig + 8);
        if iw < 8 {
            high << (ig + 8 + iw) | position << (ig + 8) | low
        } else {
            // The low bits of the position are address bits, its third is the remainder by three.
            let thirds = high * 3 + (position >> (iw - 8));
            thirds << (ig + iw) | (position & ((1 << (iw - 8)) - 1)) << (ig + 8) | low
        }
    }

    /// Offsets around every boundary that matters, and some large odd ones.
    fn offsets(interleave: Interleave) -> Vec<u64> {
        let granularity = interleave.granularity.bytes();
        let stripe = interleave.stripe();
        let mut offsets = vec![0, 1, (1 << 40) - 1, 0x3_1234_5678_9abc, 0xf_f0f0_a5a5_1e2d];
        for n in 0..40 {
            for delta in [0, 1, 63, 255] {
                offsets.push(n * granularity + delta);
                offsets.push(n * stripe + delta);
                offsets.push((n + 1) * stripe - 1 - delta);
            }
        }
        offsets
    }

    fn every_interleave() -> impl Iterator<Item = Interleave> {
        Ways::ALL.into_iter().flat_map(|ways| {
            Granularity::ALL
                .into_iter()
                .map(move |granularity| Interleave::new(ways, granularity))
        })
    }

    #[test]
    fn every_way_and_granularity_decodes_as_the_specification_says() {
        for interleave in every_interleave() {
            let iw = interleave.ways.code().into();
            let ig = interleave.granularity.code().into();
            for hpa in offsets(interleave) {
                let dpa = interleave.dpa_offset(hpa);
                let position = interleave.position(hpa);
                assert_eq!(dpa, spec_dpa_offset(iw, ig, hpa), "{interleave:?} {hpa:#x}");
                assert_eq!(interleave.hpa_offset(position, dpa), Some(hpa));
                assert_eq!(spec_hpa_offset(iw, ig, position, dpa), hpa);
            }
        }
    }

    #[test]
    fn two_ways_of_256_bytes_alternate() {
        let interleave = Interleave::new(Ways::new(2).unwrap(), Granularity::MIN);
        let table = [
            (0x000, 0, 0x000),
            (0x0ff, 0, 0x0ff),
            (0x100, 1, 0x000),
            (0x1ff, 1, 0x0ff),
            (0x200, 0, 0x100),
            (0x3ff, 1, 0x1ff),
        ];
        for (hpa, position, dpa) in table {
            assert_eq!(interleave.position(hpa), position);
            assert_eq!(interleave.dpa_offset(hpa), dpa);
        }
    }

    #[test]
    fn positions_of_a_six_way_set_go_round_in_order() {
        let interleave = Interleave::new(Ways::new(6).unwrap(), Granularity::new(1024).unwrap());
        let positions: Vec<u64> = (0..12).map(|n| interleave.position(n * 1024)).collect();
        assert_eq!(positions, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    }

    /// The target that the note of section 9.18.1.4 computes: an address bit's parity for each map, then the remainder by
    /// three of what lies above.
    fn spec_xor_position(interleave: Interleave, maps: &[u64], hpa: u64) -> u64 {
        let parities = maps.iter().zip(0..);
        let low = parities.map(|(map, n)| u64::from((hpa & map).count_ones() % 2) << n);
        let above = hpa >> (interleave.granularity.code() + 8) >> maps.len();
        let three = interleave.ways.count().is_multiple_of(3);
        low.sum::<u64>() | if three { (above % 3) << maps.len() } else { 0 }
    }

    #[test]
    fn xor_arithmetic_chooses_by_parities_and_is_undone_exactly() {
        for interleave in every_interleave() {
            let xor = XorMaps::spread(interleave.ways, interleave.granularity);
            let maps: Vec<u64> = xor.maps().collect();
            assert_eq!(XorMaps::new(&maps), Ok(xor));
            let turned = interleave.with_xor(xor);
            for hpa in offsets(interleave) {
                let position = turned.position(hpa);
                assert_eq!(position, spec_xor_position(interleave, &maps, hpa));
                let dpa = turned.dpa_offset(hpa);
                assert_eq!(
                    dpa,
                    interleave.dpa_offset(hpa),
                    "the device removes the same bits"
                );
                assert_eq!(turned.hpa_offset(position, dpa), Some(hpa));
            }
        }
    }

    #[test]
    fn two_ways_by_xor_turn_round_where_the_map_has_its_other_bits() {
        let xor = XorMaps::new(&[0x4100]).unwrap();
        let interleave = Interleave::new(Ways::new(2).unwrap(), Granularity::MIN).with_xor(xor);
        let table = [
            (0x0000, 0),
            (0x0100, 1),
            (0x3f00, 1),
            (0x4000, 1),
            (0x4100, 0),
            (0x8000, 0),
            (0xc000, 1),
        ];
        for (hpa, position) in table {
            assert_eq!(interleave.position(hpa), position, "{hpa:#x}");
        }
    }

    #[test]
    fn maps_that_do_not_replace_a_bit_each_are_refused() {
        for maps in [
            &[0][..],
            &[0x0200, 0x0100],
            &[0x0100, 0x0400],
            &[0x0300, 0x0200],
            &[0x1000_0100, 0x0200],
            &[0x0100, 0x0200, 0x0400, 0x0800, 0x1000],
        ] {
            assert_eq!(XorMaps::new(maps), Err(Error::XorMaps), "{maps:x?}");
        }
        assert_eq!(XorMaps::new(&[]), Ok(XorMaps::NONE));
    }

    #[test]
    fn an_address_past_the_end_of_the_address_space_has_no_offset() {
        let interleave = Interleave::new(Ways::new(16).unwrap(), Granularity::MIN);
        assert_eq!(interleave.hpa_offset(0, u64::MAX / 8), None);
        assert_eq!(interleave.hpa_offset(16, 0), None);
    }

    #[test]
    fn codes_and_counts_are_inverse() {
        for ways in Ways::ALL {
            assert_eq!(Ways::from_code(ways.code()), Some(ways));
            assert_eq!(Ways::new(ways.count()), Ok(ways));
        }
        for granularity in Granularity::ALL {
            assert_eq!(
                Granularity::from_code(granularity.code()),
                Some(granularity)
            );
            assert_eq!(Granularity::new(granularity.bytes()), Ok(granularity));
        }
        assert_eq!(Ways::from_code(5), None);
        assert_eq!(Ways::new(5), Err(Error::Ways(5)));
        assert_eq!(Granularity::from_code(7), None);
        assert_eq!(Granularity::new(300), Err(Error::Granularity(300)));
    }
}
