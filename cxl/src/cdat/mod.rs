//! Coherent device attribute table: what a device's memory costs, for software to read over DOE.
//!
//! [`memory_device`] describes a Type 3 device, [`switch`] a switch; [`TableAccess`] is the DOE data object protocol through
//! which the table is read (CXL section 8.1.11). The mailbox itself belongs to the PCI side.

mod table;

pub use table::{Cdat, Cost, DataType, Dsemts, Dslbis, Dsmas, EfiMemoryType, Sslbis, Structure};

use crate::Error;
use crate::memdev::dynamic::DynamicRegion;

/// The cost of one range of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Performance {
    /// ns.
    pub read_latency: u64,
    /// ns.
    pub write_latency: u64,
    /// GB/s.
    pub read_bandwidth: f64,
    /// GB/s.
    pub write_bandwidth: f64,
}

/// The table of a device with `volatile` bytes from DPA 0 on, `persistent` bytes after them, and regions of dynamic capacity.
///
/// A part of no size has no structures. Fails if a latency is above 65534 ns or a bandwidth above 65534 GB/s.
pub fn memory_device(
    volatile: u64,
    persistent: u64,
    dynamic: &[DynamicRegion],
    performance: &Performance,
) -> Result<Cdat, Error> {
    let range = |handle, dpa, len| Dsmas {
        handle,
        non_volatile: false,
        dynamic_capacity: false,
        dpa,
        len,
    };
    let fixed = [
        (range(0, 0, volatile), EfiMemoryType::SpecificPurpose),
        (
            Dsmas {
                non_volatile: true,
                ..range(1, volatile, persistent)
            },
            EfiMemoryType::Reserved,
        ),
    ];
    let dynamic = dynamic.iter().map(|region| {
        let dsmas = Dsmas {
            dynamic_capacity: true,
            ..range(region.dsmas, region.base, region.decode_len)
        };
        // Nothing is there when firmware looks.
        (dsmas, EfiMemoryType::Reserved)
    });
    let mut structures = Vec::new();
    for (dsmas, memory_type) in fixed.into_iter().chain(dynamic) {
        let Dsmas { handle, len, .. } = dsmas;
        if len == 0 {
            continue;
        }
        structures.push(Structure::Dsmas(dsmas));
        structures.extend(costs(performance)?.map(|(data_type, cost)| {
            Structure::Dslbis(Dslbis {
                dsmas: handle,
                data_type,
                cost,
            })
        }));
        let whole = Dsemts {
            dsmas: handle,
            memory_type,
            offset: 0,
            len,
        };
        structures.push(Structure::Dsemts(whole));
    }
    Cdat::new(&structures, 0)
}

/// The table of a switch: what it adds on the way between its upstream port and each downstream port.
///
/// Fails as [`memory_device`] does.
pub fn switch(performance: &Performance) -> Result<Cdat, Error> {
    let structures =
        costs(performance)?.map(|(data_type, cost)| Structure::Sslbis(Sslbis { data_type, cost }));
    Cdat::new(&structures, 0)
}

fn costs(performance: &Performance) -> Result<[(DataType, Cost); 4], Error> {
    Ok([
        (
            DataType::ReadLatency,
            Cost::latency(performance.read_latency)?,
        ),
        (
            DataType::WriteLatency,
            Cost::latency(performance.write_latency)?,
        ),
        (
            DataType::ReadBandwidth,
            Cost::bandwidth(performance.read_bandwidth)?,
        ),
        (
            DataType::WriteBandwidth,
            Cost::bandwidth(performance.write_bandwidth)?,
        ),
    ])
}

/// The Table Access DOE protocol in front of a table (section 8.1.11.1).
///
/// Requests and responses are the dwords that follow the two DOE object header dwords.
#[derive(Clone, Debug)]
pub struct TableAccess {
    table: Cdat,
}

impl TableAccess {
    /// Vendor id of the DOE data object.
    pub const VENDOR: u16 = crate::CXL_VENDOR_ID;
    /// Data object type.
    pub const OBJECT_TYPE: u8 = 2;

    /// Next handle of the last entry.
    const NO_MORE: u16 = 0xffff;
    /// Table access request and response code: read entry.
    const READ_ENTRY: u8 = 0;
    /// Table type: CDAT.
    const TABLE_CDAT: u8 = 0;

    /// Gives access to `table`.
    pub fn new(table: Cdat) -> Self {
        Self { table }
    }

    /// The table.
    pub fn table(&self) -> &Cdat {
        &self.table
    }

    /// Answers a Read Entry request: a header dword with the next handle, then the entry.
    ///
    /// `None` for any other request, another table, or a handle that no entry has: such a request
    /// gets no response.
    pub fn respond(&self, request: &[u32]) -> Option<Vec<u32>> {
        let [code, table, handle_low, handle_high] = request.first()?.to_le_bytes();
        if code != Self::READ_ENTRY || table != Self::TABLE_CDAT {
            return None;
        }
        let handle = u16::from_le_bytes([handle_low, handle_high]);
        let entry = self.table.entry(handle)?;
        let next = self.table.next(handle).unwrap_or(Self::NO_MORE);
        let [next_low, next_high] = next.to_le_bytes();
        let mut response = vec![u32::from_le_bytes([code, table, next_low, next_high])];
        response.extend(entry.chunks(4).map(|bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |dword, byte| dword << 8 | u32::from(*byte))
        }));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn performance() -> Performance {
        Performance {
            read_latency: 150,
            write_latency: 250,
            read_bandwidth: 16.0,
            write_bandwidth: 12.8,
        }
    }

    fn both() -> TableAccess {
        TableAccess::new(memory_device(256 * MIB, 512 * MIB, &[], &performance()).unwrap())
    }

    /// Reads the table as software does: from handle 0 on, following the next handles.
    fn read_all(access: &TableAccess) -> Vec<Vec<u8>> {
        let mut entries = Vec::new();
        let mut handle = 0_u32;
        while handle != 0xffff {
            let response = access.respond(&[handle << 16]).unwrap();
            assert_eq!(response[0] & 0xffff, 0, "code and table type");
            entries.push(
                response[1..]
                    .iter()
                    .flat_map(|dword| dword.to_le_bytes())
                    .collect(),
            );
            handle = response[0] >> 16;
        }
        entries
    }

    #[test]
    fn all_bytes_add_up_to_zero() {
        let bytes = both().table().bytes();
        assert_eq!(
            bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
            0
        );
        assert_eq!(bytes[0..4], (bytes.len() as u32).to_le_bytes());
        assert_eq!(bytes[4], 1);
    }

    #[test]
    fn following_the_handles_reads_the_whole_table() {
        let entries = read_all(&both());
        assert_eq!(entries.concat(), both().table().bytes());
        // Header; and per part a range, four costs, a memory type.
        let types: Vec<u8> = entries[1..].iter().map(|entry| entry[0]).collect();
        assert_eq!(types, [0, 1, 1, 1, 1, 4, 0, 1, 1, 1, 1, 4]);
        for entry in &entries[1..] {
            assert_eq!(entry[2..4], [24, 0], "length");
            assert_eq!(entry.len(), 24);
        }
    }

    #[test]
    fn the_persistent_range_follows_the_volatile_one() {
        let entries = read_all(&both());
        assert_eq!(entries[1][4..8], [0, 0, 0, 0], "handle 0, volatile");
        assert_eq!(entries[1][16..24], (256 * MIB).to_le_bytes());
        assert_eq!(entries[7][4..8], [1, 4, 0, 0], "handle 1, non-volatile");
        assert_eq!(entries[7][8..16], (256 * MIB).to_le_bytes());
        assert_eq!(entries[7][16..24], (512 * MIB).to_le_bytes());
        assert_eq!(entries[6][4..6], [0, 1], "specific purpose");
        assert_eq!(entries[12][4..6], [1, 2], "reserved");
    }

    /// Data type, base unit and value of the four costs of the first range.
    fn costs(access: &TableAccess) -> Vec<(u8, u64, u16)> {
        read_all(access)[2..6]
            .iter()
            .map(|entry| {
                let unit = u64::from_le_bytes(entry[8..16].try_into().unwrap());
                (entry[6], unit, u16::from_le_bytes([entry[16], entry[17]]))
            })
            .collect()
    }

    #[test]
    fn latencies_are_in_ns_and_bandwidths_in_mb_per_s() {
        let expected = [
            (1, 1000, 150),
            (2, 1000, 250),
            (4, 1, 16_000),
            (5, 1, 12_800),
        ];
        assert_eq!(costs(&both()), expected);
    }

    #[test]
    fn a_large_bandwidth_has_a_larger_unit() {
        for (gb_per_s, unit, value) in [
            (0.0, 1, 1),
            (0.0304, 1, 30),
            (65.534, 1, 65_534),
            (65.535, 10, 6554),
            (512.25, 10, 51_225),
            (1_024.0, 100, 10_240),
            (65_534.0, 1000, 65_534),
        ] {
            let cost = Performance {
                read_bandwidth: gb_per_s,
                ..performance()
            };
            let access = TableAccess::new(memory_device(256 * MIB, 0, &[], &cost).unwrap());
            assert_eq!(costs(&access)[2], (4, unit, value), "{gb_per_s} GB/s");
        }
    }

    #[test]
    fn a_volatile_device_has_one_range() {
        let access = TableAccess::new(memory_device(256 * MIB, 0, &[], &performance()).unwrap());
        assert_eq!(read_all(&access).len(), 7);
        assert_eq!(access.table().bytes().len(), 160);
    }

    #[test]
    fn a_switch_tells_what_it_adds_between_upstream_and_any_downstream_port() {
        let access = TableAccess::new(switch(&performance()).unwrap());
        let entries = read_all(&access);
        assert_eq!(entries.concat(), access.table().bytes());
        // Data type, unit, and the one entry: ports 0x100 and 0xffff, value, reserved.
        let expected = [
            (1, 1000_u64, 150_u16),
            (2, 1000, 250),
            (4, 1, 16_000),
            (5, 1, 12_800),
        ];
        for (entry, (data_type, unit, value)) in entries[1..].iter().zip(expected) {
            assert_eq!(entry[..8], [5, 0, 24, 0, data_type, 0, 0, 0]);
            assert_eq!(entry[8..16], unit.to_le_bytes());
            assert_eq!(entry[16..20], [0x00, 0x01, 0xff, 0xff]);
            assert_eq!(entry[20..22], value.to_le_bytes());
            assert_eq!(entry[22..], [0; 2]);
        }
        assert_eq!(entries.len(), 5);
    }

    #[test]
    fn other_requests_get_no_response() {
        for request in [&[][..], &[1], &[1 << 8], &[13 << 16], &[0xffff_0000]] {
            assert_eq!(both().respond(request), None, "{request:x?}");
        }
    }

    #[test]
    fn a_cost_that_does_not_fit_is_an_error() {
        let slow = Performance {
            read_latency: 65535,
            ..performance()
        };
        let fast = Performance {
            write_bandwidth: 65_535.0,
            ..performance()
        };
        let endless = Performance {
            read_bandwidth: f64::INFINITY,
            ..performance()
        };
        for cost in [slow, fast, endless] {
            let refused = memory_device(MIB, 0, &[], &cost);
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{cost:?}");
        }
    }
}
