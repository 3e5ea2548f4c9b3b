//! Reads ACPI tables back, by the offsets that the specifications print. It shares nothing with the writer.

use std::collections::BTreeMap;

use firmware::Tables;

/// Bytes with little-endian fields in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn at(&self, offset: usize, len: usize) -> &[u8] {
        &self.0[offset..offset + len]
    }

    pub fn u8(&self, offset: usize) -> u8 {
        self.0[offset]
    }

    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.at(offset, 2).try_into().unwrap())
    }

    pub fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.at(offset, 4).try_into().unwrap())
    }

    pub fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.at(offset, 8).try_into().unwrap())
    }

    /// Whether the bytes add up to 0.
    pub fn checksum_holds(&self) -> bool {
        self.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    /// The structures from `start` to the end, each with a type of one byte and a length of one byte behind it.
    pub fn short_structures(&self, start: usize) -> Vec<Bytes> {
        self.structures(start, |rest| usize::from(rest.u8(1)))
    }

    /// The same with a reserved byte and a length of two bytes (CEDT).
    pub fn cedt_structures(&self, start: usize) -> Vec<Bytes> {
        self.structures(start, |rest| usize::from(rest.u16(2)))
    }

    /// The same with a type of two bytes, two reserved bytes and a length of four (HMAT).
    pub fn hmat_structures(&self, start: usize) -> Vec<Bytes> {
        self.structures(start, |rest| rest.u32(4) as usize)
    }

    fn structures(&self, start: usize, length: impl Fn(&Bytes) -> usize) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut rest = Bytes(self.0[start..].to_vec());
        while !rest.0.is_empty() {
            let length = length(&rest);
            assert!(
                length >= 4 && length <= rest.0.len(),
                "a structure of {length} bytes in {} left",
                rest.0.len()
            );
            found.push(Bytes(rest.0[..length].to_vec()));
            rest = Bytes(rest.0[length..].to_vec());
        }
        found
    }
}

/// Finds every table the way an operating system does: from the RSDP.
pub fn tables(tables: &Tables) -> BTreeMap<String, Bytes> {
    let blobs: BTreeMap<u64, Bytes> = tables
        .blobs
        .iter()
        .map(|(address, bytes)| (*address, Bytes(bytes.clone())))
        .collect();
    let rsdp = &blobs[&tables.rsdp];
    assert_eq!(rsdp.at(0, 8), b"RSD PTR ");
    assert_eq!(rsdp.u8(15), 2, "revision");
    assert_eq!(rsdp.u32(20), 36, "length");
    assert!(Bytes(rsdp.at(0, 20).to_vec()).checksum_holds() && rsdp.checksum_holds());

    let xsdt = &blobs[&rsdp.u64(24)];
    let mut found = BTreeMap::new();
    for entry in xsdt.0[36..].chunks_exact(8) {
        let table = &blobs[&u64::from_le_bytes(entry.try_into().unwrap())];
        found.insert(signature(table), table.clone());
    }
    let fadt = found["FACP"].clone();
    let (facs, dsdt) = (&blobs[&fadt.u64(132)], &blobs[&fadt.u64(140)]);
    assert_eq!(fadt.u64(140), u64::from(fadt.u32(40)), "DSDT and X_DSDT");
    found.insert(signature(facs), facs.clone());
    found.insert(signature(dsdt), dsdt.clone());
    found.insert(signature(xsdt), xsdt.clone());
    assert_eq!(
        found.len() + 1,
        blobs.len(),
        "tables that nothing points at"
    );
    found
}

fn signature(table: &Bytes) -> String {
    String::from_utf8(table.at(0, 4).to_vec()).unwrap()
}
