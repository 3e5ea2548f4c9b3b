//! The pieces together on this machine's own `/dev/kvm`, with payloads of a few instructions.

mod accesses;
mod interrupts;
mod life;
mod memory;
mod poison;
mod presence;
mod userfault;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libc::EFD_NONBLOCK;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::payload::Payload;
use super::*;
use crate::error::Error;
use crate::layout::AddressRange;
use crate::memory::{PageSize, Ram, memfd};

const RAM: AddressRange = AddressRange {
    start: 0,
    size: 2 << 20,
};
/// Where payloads begin.
const CODE: u32 = 0x10_0000;
/// Behind RAM, where nothing is mapped at first.
const WINDOW: u32 = 0x1000_0000;
/// A second such address.
const DOORBELL: u32 = 0x2000_0000;
/// The line of a page that the bus says is the poisoned one.
const POISONED_LINE: u64 = 0x40;
/// Values written here reach [`TestBus::seen`]; the byte `HOOK` also runs the test's hook.
const REPORT: u16 = 0x500;
const HOOK: u16 = 0x501;
/// A write ends the run.
const POWER: u16 = 0x502;
/// What ports and unmapped addresses read as.
const OPEN_BUS: u32 = 0xa5a5_a5a5;
/// How long a test waits for what must happen at once.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    PortRead(u16, usize),
    PortWrite(u16, Vec<u8>),
    MmioRead(u64, usize),
    MmioWrite(u64, Vec<u8>),
    Poison(u64),
}

fn report(value: u32) -> Access {
    Access::PortWrite(REPORT, value.to_le_bytes().to_vec())
}

fn load(address: u32) -> Access {
    Access::MmioRead(address.into(), 4)
}

fn store(address: u32, value: u32) -> Access {
    Access::MmioWrite(address.into(), value.to_le_bytes().to_vec())
}

/// Records every access but those to [`HOOK`] and [`POWER`].
struct TestBus {
    seen: Mutex<Vec<Access>>,
    hook: Box<dyn Fn() + Send + Sync>,
}

impl TestBus {
    fn record(&self, access: Access) {
        self.seen.lock().unwrap().push(access);
    }
}

fn float(data: &mut [u8]) {
    data.fill(OPEN_BUS.to_le_bytes()[0]);
}

impl Bus for TestBus {
    fn pio_read(&self, port: u16, data: &mut [u8]) {
        self.record(Access::PortRead(port, data.len()));
        float(data);
    }

    fn pio_write(&self, port: u16, data: &[u8]) -> Option<SystemRequest> {
        match port {
            HOOK => (self.hook)(),
            POWER if data == [0] => return Some(SystemRequest::PowerOff),
            POWER => return Some(SystemRequest::Reset),
            _ => self.record(Access::PortWrite(port, data.to_vec())),
        }
        None
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.record(Access::MmioRead(address, data.len()));
        float(data);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<SystemRequest> {
        self.record(Access::MmioWrite(address, data.to_vec()));
        None
    }

    fn poison(&self, page: u64) -> u64 {
        self.record(Access::Poison(page));
        page + POISONED_LINE
    }
}

/// A machine with 2 MiB of RAM.
struct Machine {
    vm: Vm,
    ram: Ram,
    hypervisor: HypervisorBit,
}

/// What a finished run leaves.
struct Run {
    outcome: Outcome,
    seen: Vec<Access>,
    control: VcpuControl,
}

impl Machine {
    /// `None`, with a line that says so, where there is no KVM.
    fn new() -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            println!("skipped: no /dev/kvm");
            return None;
        }
        let vm = Vm::new().unwrap();
        let ram = Ram::new(&[RAM], PageSize::Base).unwrap();
        vm.map_ram(&ram).unwrap();
        Some(Self {
            vm,
            ram,
            hypervisor: HypervisorBit::Shown,
        })
    }

    fn start(
        &self,
        count: u8,
        payload: &Payload,
        entry: EntryState,
        hook: impl Fn() + Send + Sync + 'static,
    ) -> (VcpuControl, Arc<TestBus>) {
        self.ram
            .guest()
            .write_slice(payload.bytes(), GuestAddress(CODE.into()))
            .unwrap();
        let bus = Arc::new(TestBus {
            seen: Mutex::default(),
            hook: Box::new(hook),
        });
        let vcpus = Vcpus::new(&self.vm, count, self.hypervisor, self.ram.guest()).unwrap();
        let shared: Arc<dyn Bus> = bus.clone();
        (vcpus.start(entry, &shared).unwrap(), bus)
    }

    fn run_with(&self, payload: Payload, hook: impl Fn() + Send + Sync + 'static) -> Run {
        let payload = payload.set(0).out8(POWER);
        let (control, bus) = self.start(1, &payload, protected(), hook);
        let outcome = control.wait();
        let seen = bus.seen.lock().unwrap().clone();
        Run {
            outcome,
            seen,
            control,
        }
    }

    fn run(&self, payload: Payload) -> Run {
        self.run_with(payload, || {})
    }

    fn backing(&self, value: u32) -> Arc<File> {
        let file = memfd("test", 1 << 20, PageSize::Base).unwrap();
        file.write_all_at(&value.to_le_bytes(), 0).unwrap();
        Arc::new(file)
    }

    fn word(&self, address: u32) -> u32 {
        self.ram
            .guest()
            .read_obj(GuestAddress(address.into()))
            .unwrap()
    }
}

fn protected() -> EntryState {
    EntryState::Pvh {
        eip: CODE,
        start_info: 0,
    }
}

fn first_word(file: &File) -> u32 {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    u32::from_le_bytes(bytes)
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < DEADLINE,
            "nothing happened in {DEADLINE:?}"
        );
        std::thread::yield_now();
    }
}
