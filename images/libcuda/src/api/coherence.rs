//! Beyond CUDA: memory that processor and accelerator share line by line, and whose accesses need no permission of the other.
//!
//! Every allocation is reached by both at one address. What these calls add is the bias of its pages, and counters of what the
//! two sides had to tell each other. In C:
//!
//! ```c
//! CUresult cxlCoherentAlloc(CUdeviceptr *address, size_t bytes);
//! CUresult cxlCoherentFree(CUdeviceptr address);
//! CUresult cxlSetBias(CUdeviceptr address, size_t bytes, unsigned bias);   // 0: host, 1: device
//! CUresult cxlGetBias(unsigned *bias, CUdeviceptr address);
//! CUresult cxlBiasFlip(CUdeviceptr address, size_t bytes);
//! CUresult cxlGetCoherencyStats(unsigned long long *counters, size_t count, size_t *there_are);
//! const char *cxlCoherencyStatName(size_t index);                         // NULL behind the last
//! ```

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use crate::context;
use crate::driver::Driver;
use crate::ffi::{Out, driver_api};
use crate::memory::Kind;
use crate::registry::Handle;
use crate::transport::{COHERENCE_STATISTICS, PAGE};
use crate::{Error, Result};

const HOST: u32 = 0;
const DEVICE: u32 = 1;

/// The pages that a range lies in.
fn pages(address: u64, bytes: usize) -> Result<(u64, u64)> {
    let first = address - address % PAGE;
    let end = address
        .checked_add(bytes as u64)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .ok_or(Error::INVALID_VALUE)?;
    Ok((first, end - first))
}

driver_api! {
    12000 fn cxlCoherentAlloc(address: Out<u64>, bytes: usize) {
        let context = context::current()?;
        let allocations = &Driver::get()?.allocations;
        address.set(allocations.allocate(&context, bytes as u64, Kind::Managed, Handle::NULL)?)
    }

    12000 fn cxlCoherentFree(address: u64) {
        match super::memory::cuMemFree_v2(address) {
            0 => Ok(()),
            error => Err(Error(error)),
        }
    }

    12000 fn cxlSetBias(address: u64, bytes: usize, bias: u32) {
        let device = match bias {
            HOST => false,
            DEVICE => true,
            _ => return Err(Error::INVALID_VALUE),
        };
        let (first, bytes) = pages(address, bytes)?;
        context::current()?.channel.set_bias(first, bytes, device)
    }

    12000 fn cxlGetBias(bias: Out<u32>, address: u64) {
        let device = context::current()?.channel.is_device_biased(address)?;
        bias.set(if device { DEVICE } else { HOST })
    }

    12000 fn cxlBiasFlip(address: u64, bytes: usize) {
        let (first, bytes) = pages(address, bytes)?;
        context::current()?.channel.flip_bias(first, bytes)
    }

    12000 fn cxlGetCoherencyStats(counters: Out<u64>, count: usize, there_are: Out<usize>) {
        let found = context::current()?.channel.coherence_statistics()?;
        for (index, counter) in found.iter().take(count).enumerate() {
            counters.set_at(index, *counter)?;
        }
        there_are.set_if_wanted(found.len());
        Ok(())
    }
}

/// The name of a counter, or null.
#[allow(unsafe_code, non_snake_case)]
// SAFETY: nothing else in a program has this name.
#[unsafe(no_mangle)]
pub extern "C" fn cxlCoherencyStatName(index: usize) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let names = COHERENCE_STATISTICS.into_iter();
        names.filter_map(|name| CString::new(name).ok()).collect()
    });
    names
        .get(index)
        .map_or(std::ptr::null(), |name| name.as_ptr())
}
