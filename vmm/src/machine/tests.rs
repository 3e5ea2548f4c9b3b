//! The board and the windows of small machines, driven by register accesses as a guest makes them.
//!
//! The memory map is the recording one, so that a test can say what is mapped; the last test has KVM's own.

mod accelerator;
mod dynamic;
mod fabric;
mod hostile;
mod hotplug;
mod inject;
mod mailbox;
mod poison;
mod registers;
mod shown;
mod tables;
mod topologies;

use std::io;
use std::path::Path;
use std::sync::Arc;

use pci::{Bdf, Function, NodeId};
use tempfile::TempDir;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap,
};

use super::accelerators;
use super::build::{commit, hardware, media_spec, place};
use super::hotplug::Slots;
use crate::board::{Board, Responder};
use crate::config::{Config, Overrides};
use crate::kvm::{Bus, Mapping, MemoryMap, Permission, RecordedMap, Vm};
use crate::layout::{AddressRange, ECAM_BASE, Layout};
use crate::media::Media;
use crate::memory::{PageSize, Ram};
use crate::nonvolatile::NonVolatileStore;
use crate::serial::Serial;
use crate::virtio::Host;
use crate::windows::Windows;

const MIB: u64 = 1 << 20;
/// Bytes of every expander here.
const CAPACITY: u64 = 256 * MIB;

/// Two host bridges. Below the first are mem0 and mem1, below the second is mem2, all of 256 MiB. Window 0 leads to the
/// first bridge, window 1 is spread over both.
const THREE_EXPANDERS: &str = r#"
[machine]
memory = "64MiB"
[boot]
kernel = "kernel"

[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "256MiB"
[[host_bridge.root_port]]
name = "rp1"
[host_bridge.root_port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "256MiB"

[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "type3"
name = "mem2"
serial = 3
volatile = "256MiB"

[[window]]
name = "w0"
size = "1GiB"
targets = ["hb0"]
[[window]]
name = "w1"
size = "512MiB"
targets = ["hb0", "hb1"]
granularity = "256B"
"#;

/// The HDM decoder structure in a block of component registers, and its global control register.
const HDM: u64 = 0x1200;
const GLOBAL_CONTROL: u64 = HDM + 0x04;
const ENABLE: u64 = 1 << 1;
/// Registers of decoder 0 (CXL 3.1 section 8.2.4.20).
const BASE: u64 = HDM + 0x10;
const SIZE: u64 = HDM + 0x18;
const CONTROL: u64 = HDM + 0x20;
const TARGETS: u64 = HDM + 0x24;
/// Commit, and host-only coherent.
const COMMIT: u32 = 1 << 9 | 1 << 12;

/// Codes of the control register for `ways` of `granularity` bytes each.
fn interleaved(ways: u64, granularity: u64) -> u32 {
    ways.trailing_zeros() << 4 | (granularity.trailing_zeros() - 8)
}

/// A machine without processors.
struct Machine {
    board: Arc<Board>,
    windows: Arc<Windows>,
    layout: Layout,
    map: Arc<RecordedMap>,
    /// What devices reach by direct memory access.
    reachable: GuestMemoryAtomic<GuestMemoryMmap>,
    vm: Arc<Vm>,
    slots: Slots,
    files: TempDir,
}

impl Machine {
    /// The machine that `source` describes, as its firmware leaves it; `None`, with a line that says so, where there is
    /// no KVM.
    fn new(source: &str) -> Option<Self> {
        let map = Arc::new(RecordedMap::default());
        let recorded = Arc::clone(&map);
        Self::with_map(source, map, |_| recorded)
    }

    fn with_map(
        source: &str,
        map: Arc<RecordedMap>,
        choose: impl FnOnce(&Vm) -> Arc<dyn MemoryMap>,
    ) -> Option<Self> {
        if !Path::new("/dev/kvm").exists() {
            println!("skipped: no /dev/kvm");
            return None;
        }
        let files = TempDir::new().unwrap();
        std::fs::write(files.path().join("kernel"), "").unwrap();
        let file = files.path().join("host0.toml");
        let config = Config::parse(&file, source, &Overrides::default()).unwrap();
        let layout = Layout::new(&config.layout_request()).unwrap();
        let vm = Arc::new(Vm::new().unwrap());
        let ram = Ram::new(&layout.ram, PageSize::Base).unwrap();
        let reachable = GuestMemoryAtomic::new(ram.guest().clone());
        let expanders = config.devices().map(|(_, device)| media_spec(device));
        let media = expanders.chain(accelerators::media(&config)).collect();
        let media = Media::open(media).unwrap();
        let device_memory = accelerators::memory(&config, &media).unwrap();
        let windows = Arc::new(Windows::new(
            media,
            choose(&vm),
            ram.guest().clone(),
            reachable.clone(),
        ));
        let nonvolatile = Arc::new(NonVolatileStore::default());
        let mut state = hardware(&config, &layout, &nonvolatile).unwrap();
        let host = Host {
            vm: Arc::clone(&vm),
            memory: reachable.clone(),
        };
        accelerators::add(&mut state, &config, &host, &device_memory).unwrap();
        let (_, effects) = place(&mut state, &layout).unwrap();
        let starts: Vec<u64> = layout.windows.iter().map(|window| window.start).collect();
        for plan in &config.plan_regions(&starts) {
            commit(&mut state, plan).unwrap();
        }
        let interrupts = vm.interrupts();
        let serial = Serial::new(interrupts.edge(4).unwrap(), io::sink());
        let board = Board::new(state, serial, Arc::clone(interrupts), interrupts.line(9));
        board.set_windows(&windows);
        board.connect_accelerators();
        board.perform(board.lock(), effects);
        windows.update(&board);
        Some(Self {
            layout,
            map,
            reachable,
            vm,
            slots: Slots::new(&Arc::new(config), &board, &windows),
            board,
            windows,
            files,
        })
    }

    /// Where a CXL window begins.
    fn window(&self, index: usize) -> u64 {
        self.layout.windows[index].start
    }

    /// The function of the expander with this number, in the order of the file.
    fn expander(&self, number: u32) -> NodeId {
        let state = self.board.lock();
        let mut found = state
            .expanders
            .iter()
            .filter(|(_, expander)| expander.endpoint.0 == number);
        *found.next().unwrap().0
    }

    fn bdf(&self, node: NodeId) -> Bdf {
        self.board.lock().hierarchy.bdf(node).unwrap()
    }

    /// Where a BAR of a function is, if it decodes.
    fn bar(&self, node: NodeId, index: u8) -> Option<u64> {
        let state = self.board.lock();
        Some(state.hierarchy.get(node)?.config().bar(index)?.base)
    }

    /// Component registers of host bridge `index`.
    fn bridge_registers(&self, index: usize) -> u64 {
        self.layout.host_bridges[index].component_registers.start
    }

    /// Component registers of expander `number`.
    fn device_registers(&self, number: u32) -> u64 {
        self.bar(self.expander(number), 0).unwrap()
    }

    /// The upstream ports of all switches.
    fn upstream_ports(&self) -> Vec<NodeId> {
        let state = self.board.lock();
        let switches = state
            .hierarchy
            .iter()
            .filter(|(_, device)| matches!(device, devices::Device::UpstreamPort(_)));
        switches.map(|(node, _)| node).collect()
    }

    /// Component registers of the switches that have a place.
    fn switch_registers(&self) -> Vec<u64> {
        let ports = self.upstream_ports().into_iter();
        ports.filter_map(|node| self.bar(node, 0)).collect()
    }

    fn write_u32(&self, address: u64, value: u32) {
        assert!(
            self.board
                .mmio_write(address, &value.to_le_bytes())
                .is_none()
        );
    }

    fn write_u64(&self, address: u64, value: u64) {
        assert!(
            self.board
                .mmio_write(address, &value.to_le_bytes())
                .is_none()
        );
    }

    fn read_u64(&self, address: u64) -> u64 {
        let mut data = [0; 8];
        self.board.mmio_read(address, &mut data);
        u64::from_le_bytes(data)
    }

    fn ecam(&self, node: NodeId, register: u16) -> u64 {
        ECAM_BASE + (u64::from(self.bdf(node).bits()) << 12) + u64::from(register)
    }

    fn config_write(&self, node: NodeId, register: u16, data: &[u8]) {
        assert!(
            self.board
                .mmio_write(self.ecam(node, register), data)
                .is_none()
        );
    }

    fn config_u16(&self, node: NodeId, register: u16) -> u16 {
        let mut data = [0; 2];
        self.board.mmio_read(self.ecam(node, register), &mut data);
        u16::from_le_bytes(data)
    }

    /// Programs decoder 0 of a block of component registers and commits it.
    fn commit(&self, registers: u64, range: AddressRange, interleave: u32, destination: u64) {
        self.write_u64(registers + BASE, range.start);
        self.write_u64(registers + SIZE, range.size);
        self.write_u32(registers + TARGETS, destination as u32);
        self.write_u32(registers + TARGETS + 4, (destination >> 32) as u32);
        self.write_u32(registers + CONTROL, COMMIT | interleave);
    }

    /// Commits decoder 0 of host bridge `index`; `targets` has a port number in each byte, position 0 the lowest.
    fn commit_bridge(&self, index: usize, range: AddressRange, interleave: u32, targets: u64) {
        self.commit(self.bridge_registers(index), range, interleave, targets);
    }

    /// Commits decoder 0 of expander `number` from its first byte on, and enables its memory.
    fn commit_device(&self, number: u32, range: AddressRange, interleave: u32) {
        let registers = self.device_registers(number);
        self.write_u32(registers + GLOBAL_CONTROL, ENABLE as u32);
        self.commit(registers, range, interleave, 0);
        self.enable_memory(number, true);
    }

    /// Mem_Enable in the DVSEC for CXL devices (CXL 3.1 section 8.1.3.2).
    fn enable_memory(&self, number: u32, enable: bool) {
        let node = self.expander(number);
        let value = u16::from(enable) << 2;
        self.config_write(node, self.dvsec(node) + 0x0c, &value.to_le_bytes());
    }

    /// The DVSEC for CXL devices: identifier 0 of the CXL Consortium.
    fn dvsec(&self, node: NodeId) -> u16 {
        self.dvsec_of(node, 0)
    }

    /// The root port above a function.
    fn root_port(&self, node: NodeId) -> NodeId {
        self.board.lock().hierarchy.path(node)[0]
    }

    /// Sets how long a port waits in either phase of a global persistent flush (CXL 3.1 section 8.1.6).
    fn set_gpf_timeouts(&self, port: NodeId, phase1: u16, phase2: u16) {
        let controls = [phase1, phase2].map(u16::to_le_bytes).concat();
        self.config_write(port, self.dvsec_of(port, 4) + 0x0c, &controls);
    }

    /// A DVSEC of the CXL Consortium.
    fn dvsec_of(&self, node: NodeId, id: u16) -> u16 {
        let mut at = 0x100;
        loop {
            let header = self.config_u16(node, at);
            if header == 0x23
                && self.config_u16(node, at + 4) == 0x1e98
                && self.config_u16(node, at + 8) == id
            {
                return at;
            }
            at = self.config_u16(node, at + 2) >> 4;
            assert_ne!(at, 0, "the function has the DVSEC");
        }
    }

    /// mem0 alone, at the beginning of window 0: all that it takes.
    fn commit_mem0(&self) -> AddressRange {
        let range = AddressRange {
            start: self.window(0),
            size: CAPACITY,
        };
        self.commit_bridge(0, range, interleaved(1, 256), 0);
        self.commit_device(0, range, interleaved(1, 256));
        range
    }

    /// Whether direct memory access reaches this address.
    fn is_reachable(&self, hpa: u64) -> bool {
        self.reachable
            .memory()
            .find_region(GuestAddress(hpa))
            .is_some()
    }

    fn count(&self, responder: Responder) -> u64 {
        self.board
            .lock()
            .counts
            .get(&responder)
            .copied()
            .unwrap_or_default()
    }

    /// What is mapped, as address, length and offset in the file.
    fn mapped(&self) -> Vec<(u64, u64, u64)> {
        let whole = |mapping: Mapping| {
            assert_eq!(mapping.permission, Permission::ReadWrite);
            (mapping.hpa, mapping.len, mapping.offset)
        };
        self.map.list().into_iter().map(whole).collect()
    }

    /// Stores bytes at an address that is shown, as the guest would without an exit.
    fn store(&self, hpa: u64, data: &[u8]) {
        let shown = self.windows.shown();
        let inside = |piece: &&crate::windows::Shown| {
            (piece.piece.hpa..piece.piece.hpa + piece.piece.len).contains(&hpa)
        };
        let piece = &shown.iter().find(inside).unwrap().piece;
        piece
            .store
            .write(piece.offset + (hpa - piece.hpa), data)
            .unwrap();
    }

    fn media(&self, number: usize, dpa: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.windows.read_media(number, dpa, &mut data).unwrap();
        data
    }
}
