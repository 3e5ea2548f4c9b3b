//! What sampling costs here: a machine of its own is built and its pages are taken away, before the real one starts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::cpuid::HypervisorBit;
use super::memslots::{MemoryMap, Permission};
use super::presence::{PAGE, Pages, Presence};
use super::registers::EntryState;
use super::vcpu::{Bus, SystemRequest};
use super::vcpus::Vcpus;
use super::vm::Vm;
use crate::error::{Error, Result};
use crate::layout::AddressRange;
use crate::memory::{PageSize, Ram, memfd};

const RAM: AddressRange = AddressRange {
    start: 0,
    size: 2 << 20,
};
const CODE: u32 = 0x10_0000;
/// Where the pages are, and how many: enough for a mean, few enough for a KVM on which a fault takes 0.1 ms.
const WINDOW: u32 = 0x1000_0000;
const PAGES: u32 = 64;
/// The best of so many rounds counts: what disturbs can only add.
const ROUNDS: usize = 4;

/// What a page costs that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCosts {
    /// Taking it away, in the thread that does it.
    pub take_away: Duration,
    /// The guest's access that brings it back, beyond an access to a page that is there.
    pub visit: Duration,
}

/// Measures both on a guest of a few instructions.
///
/// # Errors
/// Those of a machine that cannot be built.
pub fn page_costs() -> Result<PageCosts> {
    let vm = Vm::new()?;
    let ram = Ram::new(&[RAM], PageSize::Base)?;
    vm.map_ram(&ram)?;
    let file = Arc::new(memfd(
        "calibration",
        u64::from(PAGES) * PAGE,
        PageSize::Base,
    )?);
    vm.memslots().map(
        WINDOW.into(),
        u64::from(PAGES) * PAGE,
        &file,
        0,
        Permission::ReadWrite,
    )?;
    ram.guest()
        .write_slice(&passes(), GuestAddress(CODE.into()))
        .map_err(|error| Error::Memory(error.to_string()))?;
    let stopwatch = Arc::new(Stopwatch {
        pages: Presence::new(vm.memslots())?,
        state: Mutex::default(),
    });
    let bus: Arc<dyn Bus> = stopwatch.clone();
    let entry = EntryState::Pvh {
        eip: CODE,
        start_info: 0,
    };
    let vcpus = Vcpus::new(&vm, 1, HypervisorBit::Shown, ram.guest())?;
    let _outcome = vcpus.start(entry, &bus)?.wait();
    let state = stopwatch.state.lock();
    let state = state.unwrap_or_else(PoisonError::into_inner);
    match (state.take_away, state.cold, state.warm) {
        (Some(take_away), Some(cold), Some(warm)) => Ok(PageCosts {
            take_away,
            visit: cold.saturating_sub(warm) / PAGES,
        }),
        _ => Err(Error::Timing(
            "the machine that measures what sampling costs did not run".into(),
        )),
    }
}

/// A write to each page, then a write to a port, for ever. Writes, since one read may bring back several pages.
fn passes() -> Vec<u8> {
    let end = WINDOW + PAGES * PAGE as u32;
    let mut code = vec![0xbf]; // mov edi, WINDOW
    code.extend(WINDOW.to_le_bytes());
    code.extend([0xff, 0x07]); // inc dword [edi]
    code.extend([0x81, 0xc7]); // add edi, PAGE
    code.extend((PAGE as u32).to_le_bytes());
    code.extend([0x81, 0xff]); // cmp edi, end
    code.extend(end.to_le_bytes());
    code.extend([0x72, 0xf0]); // jb to the inc, 16 bytes back
    code.extend([0xe6, 0x80]); // out 0x80, al
    code.extend([0xeb, 0xe7]); // jmp to the beginning, 25 bytes back
    code
}

/// Takes the time of every pass, and the pages away before every other.
struct Stopwatch {
    pages: Presence,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    passes: usize,
    began: Option<Instant>,
    /// The least that a pass took for which the pages had been taken away, and for which they had not.
    cold: Option<Duration>,
    warm: Option<Duration>,
    take_away: Option<Duration>,
}

impl State {
    /// A pass has ended, the first of which only makes the pages. Returns whether it was the last.
    fn pass(&mut self, pages: &Presence) -> bool {
        let took = self.began.map(|began| began.elapsed()).unwrap_or_default();
        let warm = self.passes.is_multiple_of(2);
        if !warm {
            keep_least(&mut self.cold, took);
        } else {
            if self.passes > 0 {
                keep_least(&mut self.warm, took);
            }
            let start = Instant::now();
            for page in 0..u64::from(PAGES) {
                pages.take_away(u64::from(WINDOW) + page * PAGE);
            }
            keep_least(&mut self.take_away, start.elapsed() / PAGES);
        }
        self.passes += 1;
        self.began = Some(Instant::now());
        self.passes > 2 * ROUNDS
    }
}

fn keep_least(least: &mut Option<Duration>, new: Duration) {
    *least = Some(least.map_or(new, |old| old.min(new)));
}

impl Bus for Stopwatch {
    fn pio_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn pio_write(&self, _: u16, _: &[u8]) -> Option<SystemRequest> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pass(&self.pages).then_some(SystemRequest::PowerOff)
    }

    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&self, _: u64, _: &[u8]) -> Option<SystemRequest> {
        None
    }
}
