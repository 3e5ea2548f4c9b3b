//! A whole accelerator on the real KVM, but for the guest: accesses of registers in, effects applied.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use devices::Device;
use devices::gpu::protocol::spec::{cmd, cmd_status, control, op, reg, ring, ring_bytes};
use pci::{Ecam, Hierarchy, LinkSpeed, LinkWidth};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use super::*;
use crate::board::State;
use crate::kvm::{Bus, Vm};
use crate::layout::ECAM_BASE;
use crate::serial::Serial;

const MEMORY: u64 = 256 << 20;
const VECTOR_ADD: &str = include_str!("../../../gpu/tests/ptx/vector_add.ptx");
/// Where the guest puts the BARs, and memory of the guest's.
const COMPONENT: u64 = 0x10_0000_0000;
const COMMAND: u64 = 0x10_1000_0000;
const MEMORY_BAR: u64 = 0x20_0000_0000;
const RING: u64 = 0x1_0000;
const DATA: u64 = 0x8_0000;

struct Machine {
    board: Arc<Board>,
    node: NodeId,
    guest: GuestMemoryAtomic<GuestMemoryMmap>,
    vm: Arc<Vm>,
}

impl Machine {
    /// One whose kernels run on this machine's processors; `None`, with a line that says so, where there is no KVM.
    fn new() -> Option<Self> {
        let backend = BackendOptions::Ptx {
            compute_capability: (7, 5),
            driver_version: 12090,
        };
        Self::with_backend(backend).map(|machine| machine.unwrap())
    }

    fn with_backend(backend: BackendOptions) -> Option<Result<Self>> {
        if !Path::new("/dev/kvm").exists() {
            println!("skipped: no /dev/kvm");
            return None;
        }
        let guest = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let guest = GuestMemoryAtomic::new(guest);
        let vm = Arc::new(Vm::new().unwrap());
        let host = Host {
            vm: Arc::clone(&vm),
            memory: guest.clone(),
        };
        let options = Options {
            name: "gpu0".into(),
            serial: 1,
            cache: 128 << 20,
            link: Link {
                speed: LinkSpeed::Gt32,
                width: LinkWidth::X16,
            },
            performance: Performance {
                read_latency: 150,
                write_latency: 150,
                read_bandwidth: 32.0,
                write_bandwidth: 32.0,
            },
            backend,
            snoop_filter: 1024,
            coherence: Coherence::Mapped,
            watchdog: None,
        };
        let file = Arc::new(memfd("gpu0", MEMORY, PageSize::Base).unwrap());
        let (function, handle) = match attach(&host, &options, &file, MEMORY) {
            Ok(attached) => attached,
            Err(error) => return Some(Err(error)),
        };
        let mut hierarchy = Hierarchy::new();
        let root = hierarchy.add_root(0..=0).unwrap();
        let node = hierarchy
            .add(root, 1, 0, Device::Type2(Box::new(function)))
            .unwrap();
        let mut state = State::new(hierarchy, Vec::new(), Vec::new(), Arc::default());
        state.accelerators.insert(node, handle);
        let interrupts = vm.interrupts();
        let serial = Serial::new(interrupts.edge(4).unwrap(), io::sink());
        let board = Board::new(state, serial, Arc::clone(interrupts), interrupts.line(9));
        board.connect_accelerators();
        let machine = Self {
            board,
            node,
            guest,
            vm,
        };
        for (bar, base) in [(0, COMPONENT), (2, COMMAND), (4, MEMORY_BAR)] {
            machine.config(0x10 + 4 * bar, base as u32);
            machine.config(0x14 + 4 * bar, (base >> 32) as u32);
        }
        machine.config(0x04, 6);
        Some(Ok(machine))
    }

    fn config(&self, register: u64, value: u32) {
        let bdf = self.board.lock().hierarchy.bdf(self.node).unwrap();
        let address = ECAM_BASE + (u64::from(bdf.bits()) << 12) + register;
        assert!(Ecam::decode(address - ECAM_BASE).is_some());
        self.write(address, &value.to_le_bytes());
    }

    fn write(&self, address: u64, data: &[u8]) {
        assert!(self.board.mmio_write(address, data).is_none());
    }

    fn read(&self, register: u64) -> u64 {
        let mut data = [0; 8];
        self.board.mmio_read(COMMAND + register, &mut data);
        u64::from_le_bytes(data)
    }

    fn read32(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.board.mmio_read(COMMAND + register, &mut data);
        u32::from_le_bytes(data)
    }

    /// A command of version 1 that succeeds.
    fn command(&self, code: u32, params: &[u64]) -> u64 {
        for (register, param) in (reg::PARAM0..).step_by(8).zip(params) {
            self.write(COMMAND + register, &param.to_le_bytes());
        }
        self.write(COMMAND + reg::CMD, &code.to_le_bytes());
        while self.read32(reg::CMD_STATUS) != cmd_status::COMPLETE {
            std::thread::yield_now();
        }
        assert_eq!(self.read32(reg::CMD_RESULT), 0, "command {code:#x}");
        self.read(reg::RESULT0)
    }

    /// A control command: its result and first output.
    fn control(&self, code: u32, args: [u64; 4]) -> (u32, u64) {
        for (register, arg) in (reg::CONTROL_ARG0..).step_by(8).zip(args) {
            self.write(COMMAND + register, &arg.to_le_bytes());
        }
        self.write(COMMAND + reg::CONTROL, &code.to_le_bytes());
        (
            self.read32(reg::CONTROL_RESULT),
            self.read(reg::CONTROL_OUT0),
        )
    }

    /// What the guest stores to the data buffer, which is memory of its own.
    fn put(&self, bytes: &[u8]) {
        let state = self.board.lock();
        let file = &state.accelerators[&self.node].data;
        file.write_all_at(bytes, 0).unwrap();
        file.write_all_at(&[0], bytes.len() as u64).unwrap();
    }

    fn get(&self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let state = self.board.lock();
        let file = &state.accelerators[&self.node].data;
        file.read_exact_at(&mut data, 0).unwrap();
        data
    }

    fn slots(&self) -> Vec<(u64, u64)> {
        let slots = self.vm.memslots().list();
        slots.iter().map(|slot| (slot.hpa, slot.len)).collect()
    }
}

#[test]
fn the_memory_behind_the_bars_is_mapped_where_they_decode() {
    let Some(machine) = Machine::new() else {
        return;
    };
    assert_eq!(
        machine.slots(),
        [(COMMAND + 0x1000, 0xf000), (MEMORY_BAR, MEMORY)]
    );
    machine.config(0x04, 0);
    assert_eq!(machine.slots(), []);
    machine.config(0x20, 0x4000_0000);
    machine.config(0x04, 2);
    assert_eq!(machine.slots()[1], (MEMORY_BAR + 0x4000_0000, MEMORY));
    // On the command window: whoever comes second finds nothing there.
    machine.config(0x04, 0);
    machine.config(0x20, COMMAND as u32);
    machine.config(0x24, (COMMAND >> 32) as u32);
    machine.config(0x04, 2);
    assert!(machine.slots().len() < 2);
    machine.config(0x24, (MEMORY_BAR >> 32) as u32);
    assert_eq!(machine.slots().len(), 2);
}

#[test]
fn a_vector_sum_goes_through_the_registers() {
    if let Some(machine) = Machine::new() {
        adds_vectors(&machine);
    }
}

#[test]
fn a_driver_of_the_host_executes_what_goes_through_the_registers() {
    // Cargo builds examples of the workspace before its tests, beside them.
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let library = target.join("examples/libstand_in_driver.so");
    if !library.exists() {
        println!("skipped: cargo build -p gpu --examples builds the driver");
        return;
    }
    let backend = BackendOptions::Cuda { library, device: 0 };
    if let Some(machine) = Machine::with_backend(backend) {
        adds_vectors(&machine.unwrap());
    }
}

#[test]
fn a_driver_that_is_not_there_is_named_at_the_start() {
    let backend = BackendOptions::Cuda {
        library: "/absent/libcuda.so.1".into(),
        device: 0,
    };
    if let Some(machine) = Machine::with_backend(backend) {
        let error = machine.err().unwrap().to_string();
        for part in ["gpu0", "/absent/libcuda.so.1"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

/// A program of version 1.
fn adds_vectors(machine: &Machine) {
    assert_eq!(machine.read(reg::MAGIC), 0x0001_0000_4358_4c32);
    machine.command(cmd::INIT, &[]);
    machine.command(cmd::CTX_CREATE, &[]);
    let n = 256_u64;
    let buffers = [0; 3].map(|_| machine.command(cmd::MEM_ALLOC, &[4 * n]));
    let floats = |factor: u64| -> Vec<u8> {
        let values = (0..n).map(|i| (i * factor) as f32);
        values.flat_map(f32::to_le_bytes).collect()
    };
    for (factor, buffer) in [1, 4].into_iter().zip(buffers) {
        machine.put(&floats(factor));
        machine.command(cmd::MEM_COPY_HTOD, &[buffer, 4 * n]);
    }
    machine.put(VECTOR_ADD.as_bytes());
    let module = machine.command(cmd::MODULE_LOAD_PTX, &[]);
    machine.put(b"vector_add");
    let function = machine.command(cmd::FUNC_GET, &[module]);
    let [a, b, c] = buffers;
    let slots: Vec<u8> = [a, b, c, n]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    machine.put(&slots);
    let one = 1 << 32 | 1;
    machine.command(
        cmd::LAUNCH_KERNEL,
        &[function, 1 << 32 | 2, 128 << 32 | 1, one, 4 << 32],
    );
    machine.command(cmd::MEM_COPY_DTOH, &[c, 4 * n]);
    assert_eq!(machine.get(4 * n as usize), floats(5));
    let view = machine.board.lock().accelerators[&machine.node].view();
    assert_eq!(view.sessions[&0].kernels["vector_add"].launches, 1);
}

#[test]
fn a_queue_is_served_by_its_thread_and_interrupts() {
    use devices::virtio::Interrupt;
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.write(COMMAND + reg::VERSION_SELECT, &0x2_0000_u32.to_le_bytes());
    let (result, session) = machine.control(control::SESSION_OPEN, [0; 4]);
    assert_eq!(result, 0);
    let args = [session, RING, 64, 3];
    let (result, queue) = machine.control(control::QUEUE_CREATE, args);
    assert_eq!((result, queue), (0, 0));
    assert!(ring_bytes(64) <= DATA - RING);
    let guest = machine.guest.memory();
    let at = |offset: u64| GuestAddress(RING + offset);
    guest.write_obj(op::MEM_INFO, at(ring::ENTRIES)).unwrap();
    guest.write_obj(1_u32, at(ring::WANT_INTERRUPT)).unwrap();
    guest.write_obj(1_u32, at(ring::SQ_TAIL)).unwrap();
    let vectors = {
        let state = machine.board.lock();
        let handle = &state.accelerators[&machine.node];
        gpu::Host::wake(&*handle.queues, 0);
        Arc::clone(&handle.vectors)
    };
    // The vector is masked, so its interrupt stays pending.
    while !vectors.is_pending(3) {
        std::thread::yield_now();
    }
    assert_eq!(guest.read_obj::<u32>(at(ring::CQ_TAIL)).unwrap(), 1);
    let completion = ring::ENTRIES + 64 * 64;
    let values: [u64; 2] = guest.read_obj(at(completion + 32)).unwrap();
    assert_eq!(values, [MEMORY, MEMORY]);
    let mut pending = [0; 8];
    machine.board.mmio_read(COMPONENT + 0x1_1000, &mut pending);
    assert_eq!(u64::from_le_bytes(pending), 1 << 3);
    while machine
        .control(control::SESSION_CLOSE, [session, 0, 0, 0])
        .0
        == 600
    {
        std::thread::yield_now();
    }
    assert!(
        machine.board.lock().accelerators[&machine.node]
            .view()
            .sessions
            .is_empty()
    );
}
