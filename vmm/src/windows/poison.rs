//! Which pages of the windows hold bad lines.
//!
//! Poison is kept by line of 64 bytes and by device address; what the guest meets is a page of 4 KiB, in which lines of
//! several devices can lie side by side. A page with one bad line raises a machine check as a whole, and the check names the
//! line.

use std::collections::BTreeMap;

use cxl::decode::EndpointId;
use cxl::memdev::poison::{LINE, PoisonRecord};

use super::Shown;

/// The unit of what a processor can be kept from.
pub(super) const PAGE: u64 = 4096;

/// A bad line that a window shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Host-physical address.
    pub hpa: u64,
    /// The device it lies in.
    pub endpoint: EndpointId,
    /// Device-physical address.
    pub dpa: u64,
}

/// The first bad line of each page that has one, by the page's address.
pub(super) fn bad_pages(
    shown: &[Shown],
    bad: &[(EndpointId, PoisonRecord)],
) -> BTreeMap<u64, BadLine> {
    let mut pages: BTreeMap<u64, BadLine> = BTreeMap::new();
    for (endpoint, record) in bad {
        for dpa in (record.dpa..record.dpa.saturating_add(record.len)).step_by(LINE as usize) {
            for hpa in shown
                .iter()
                .filter_map(|shown| shown.mapping.dpa_to_hpa(*endpoint, dpa))
            {
                let line = BadLine {
                    hpa,
                    endpoint: *endpoint,
                    dpa,
                };
                let first = pages.entry(hpa - hpa % PAGE).or_insert(line);
                if hpa < first.hpa {
                    *first = line;
                }
            }
        }
    }
    pages
}
