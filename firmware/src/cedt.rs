//! CXL Early Discovery Table (CXL 3.1 section 9.18.1): where the host bridges' component registers are, and which
//! addresses go to which host bridges.

use std::collections::BTreeMap;

use acpi_tables::sdt::Sdt;

use crate::machine::{Arithmetic, FixedWindow, PciRoot, PciRootKind, WindowRestrictions};
use crate::table::{Fields, HEADER_LEN, table};

const REVISION: u8 = 1;

/// Structure types.
const CHBS: u8 = 0;
const CFMWS: u8 = 1;
const CXIMS: u8 = 2;

/// CXL Host Bridge Structure (section 9.18.1.2).
const CHBS_LEN: u16 = 32;
/// The base is that of component registers of CXL 2.0 or later, not of an RCRB.
const CHBS_COMPONENT_REGISTERS: u32 = 1;
/// Bytes of a component register block (CXL 3.1 section 8.2.3).
pub(crate) const CHBCR_SIZE: u64 = 0x1_0000;

/// CXL Fixed Memory Window Structure (section 9.18.1.3) before its list of targets.
const CFMWS_LEN: u16 = 36;
const ARITHMETIC_MODULO: u8 = 0;
const ARITHMETIC_XOR: u8 = 1;

/// CXL XOR Interleave Math Structure (section 9.18.1.4) before its list of maps.
const CXIMS_LEN: u16 = 8;

/// The CEDT of these roots and windows.
pub(crate) fn cedt(roots: &[PciRoot], windows: &[FixedWindow]) -> Sdt {
    let mut cedt = table(b"CEDT", REVISION, HEADER_LEN);
    for root in roots {
        if let PciRootKind::Cxl { chbcr, .. } = root.kind {
            cedt.append_slice(chbs(root.uid, chbcr).as_slice());
        }
    }
    for window in windows {
        cedt.append_slice(cfmws(window).as_slice());
    }
    for (granularity, maps) in xor_maps(windows) {
        cedt.append_slice(cxims(granularity, maps).as_slice());
    }
    cedt
}

/// The maps of each granularity: those of the window that has most of them.
fn xor_maps(windows: &[FixedWindow]) -> BTreeMap<u64, &[u64]> {
    let mut all: BTreeMap<u64, &[u64]> = BTreeMap::new();
    for window in windows {
        if let Arithmetic::Xor(maps) = &window.arithmetic
            && !maps.is_empty()
        {
            let longest = all.entry(window.granularity).or_default();
            if maps.len() > longest.len() {
                *longest = maps;
            }
        }
    }
    all
}

fn cxims(granularity: u64, maps: &[u64]) -> Fields {
    let length = CXIMS_LEN + 8 * maps.len() as u16;
    let fields = Fields::new()
        .u8(CXIMS)
        .reserved(1)
        .u16(length)
        .reserved(2)
        .u8(encoded_granularity(granularity).unwrap_or_default() as u8)
        .u8(maps.len() as u8);
    maps.iter().fold(fields, |fields, &map| fields.u64(map))
}

fn chbs(uid: u32, chbcr: u64) -> Fields {
    Fields::new()
        .u8(CHBS)
        .reserved(1)
        .u16(CHBS_LEN)
        .u32(uid)
        .u32(CHBS_COMPONENT_REGISTERS)
        .reserved(4)
        .u64(chbcr)
        .u64(CHBCR_SIZE)
}

/// The machine's check has seen to it that ways and granularity can be encoded.
fn cfmws(window: &FixedWindow) -> Fields {
    let length = CFMWS_LEN + 4 * window.targets.len() as u16;
    let fields = Fields::new()
        .u8(CFMWS)
        .reserved(1)
        .u16(length)
        .reserved(4)
        .u64(window.range.base)
        .u64(window.range.size)
        .u8(encoded_ways(window.targets.len()).unwrap_or_default())
        .u8(match window.arithmetic {
            Arithmetic::Modulo => ARITHMETIC_MODULO,
            Arithmetic::Xor(_) => ARITHMETIC_XOR,
        })
        .reserved(2)
        .u32(encoded_granularity(window.granularity).unwrap_or_default())
        .u16(restrictions(window.restrictions))
        .u16(window.qtg);
    window
        .targets
        .iter()
        .fold(fields, |fields, &uid| fields.u32(uid))
}

/// Encoded number of interleave ways (ENIW), if there is such an interleave.
pub(crate) fn encoded_ways(ways: usize) -> Option<u8> {
    Some(match ways {
        1 => 0,
        2 => 1,
        4 => 2,
        8 => 3,
        16 => 4,
        3 => 8,
        6 => 9,
        12 => 10,
        _ => return None,
    })
}

/// Address bits that choose among so many targets, and so the maps that XOR arithmetic needs (section 9.18.1.4).
pub(crate) fn encoded_bits(ways: usize) -> usize {
    // Codes from 8 on are those of three ways times a power of two.
    encoded_ways(ways).map_or(0, |code| usize::from(code % 8))
}

/// Host bridge interleave granularity (HBIG), if there is one of so many bytes.
pub(crate) fn encoded_granularity(bytes: u64) -> Option<u32> {
    const FINEST_LOG2: u32 = 8;
    const COARSEST_LOG2: u32 = 14;
    let log2 = bytes.checked_ilog2().filter(|_| bytes.is_power_of_two())?;
    (FINEST_LOG2..=COARSEST_LOG2)
        .contains(&log2)
        .then(|| log2 - FINEST_LOG2)
}

/// Window restrictions (CXL 3.1 table 9-22).
fn restrictions(allowed: WindowRestrictions) -> u16 {
    [
        allowed.device_coherent,
        allowed.host_only_coherent,
        allowed.volatile,
        allowed.persistent,
        allowed.fixed,
        allowed.back_invalidate,
    ]
    .into_iter()
    .zip(0..)
    .map(|(allowed, bit)| u16::from(allowed) << bit)
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granularities_are_powers_of_two_from_256_bytes_to_16_kib() {
        assert_eq!(encoded_granularity(256), Some(0));
        assert_eq!(encoded_granularity(16384), Some(6));
        for bytes in [0, 1, 128, 300, 768, 32768] {
            assert_eq!(encoded_granularity(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn ways_are_those_of_the_specification() {
        let encoded: Vec<_> = (0..=17)
            .filter_map(|ways| encoded_ways(ways).map(|code| (ways, code)))
            .collect();
        assert_eq!(
            encoded,
            [
                (1, 0),
                (2, 1),
                (3, 8),
                (4, 2),
                (6, 9),
                (8, 3),
                (12, 10),
                (16, 4)
            ]
        );
    }
}
