//! The board: what lies behind the ports and the addresses without memory.
//!
//! The device models stand under one lock, as state machines that answer at once. What they ask for is done before the
//! vCPU goes on: interrupts and workers under the lock, the memory map ([`crate::windows`]) after it.

mod flush;
mod state;

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use cxl::decode::{Cfmws, EndpointId};
use devices::power::{PowerRequest, spec};
use devices::{Device, Effect, virtio as model};
use pci::{ConfigAddressPort, Ecam, ErrorMessage, NodeId};

use crate::alarms::Alarms;
use crate::kvm::{Bus, Interrupts, IrqLine, MsiMessage, SystemRequest};
use crate::layout::{ECAM_BASE, ECAM_SIZE};
use crate::serial::{COM1_PORT, COM1_PORTS, Serial};
use crate::windows::Windows;

pub use self::state::{CxlHostBridge, Expander, Responder, State};

/// Index and data port of the real-time clock.
const RTC_PORTS: u16 = 2;
/// PM1a event block; the control block and the timer lie behind it, as the FADT says.
pub const POWER_PORT: u16 = 0x600;
/// Ports of the configuration mechanism: address and data.
const CONFIG_PORTS: u16 = 8;

/// Effects of an access, with the functions that pushed them.
pub type Effects = Vec<(NodeId, Effect)>;

/// The board of a machine.
pub struct Board {
    state: Mutex<State>,
    /// Told whenever the guest switches a slot on or off.
    slots: Condvar,
    serial: Serial,
    interrupts: Arc<Interrupts>,
    sci: IrqLine,
    windows: OnceLock<Weak<Windows>>,
    alarms: Alarms,
    myself: Weak<Self>,
    started: Instant,
    /// How far the guest's time is ahead of the host's, ns.
    ahead: AtomicU64,
}

/// What a model asks of its media.
enum MediaWork {
    /// A line at a device address.
    Write(u64, [u8; 64]),
    /// Zeroes from a device address on, and how many.
    Zero(u64, u64),
}

impl Board {
    /// A board with these models, a serial port, and `sci` as its system control interrupt.
    pub fn new(
        state: State,
        serial: Serial,
        interrupts: Arc<Interrupts>,
        sci: IrqLine,
    ) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            state: Mutex::new(state),
            slots: Condvar::new(),
            serial,
            interrupts,
            sci,
            windows: OnceLock::new(),
            alarms: Alarms::default(),
            myself: Weak::clone(myself),
            started: Instant::now(),
            ahead: AtomicU64::new(0),
        })
    }

    /// Tells the board who shows CXL memory in the windows. Once only.
    pub fn set_windows(&self, windows: &Arc<Windows>) {
        // A second call would be a mistake of the machine's, and change nothing.
        let _ = self.windows.set(Arc::downgrade(windows));
    }

    /// Tells what is behind each accelerator where its function is.
    pub fn connect_accelerators(&self) {
        for (node, handle) in &self.lock().accelerators {
            handle.connect(Weak::clone(&self.myself), *node);
        }
    }

    fn windows(&self) -> Option<Arc<Windows>> {
        self.windows.get()?.upgrade()
    }

    /// The models. No other lock may be taken by this thread, and none by what it calls.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `wanted` holds, which may come to hold when the guest switches a slot, or until the time is over. True
    /// if it holds.
    pub fn wait_for_slot(&self, patience: Duration, wanted: impl Fn(&State) -> bool) -> bool {
        let waited = self
            .slots
            .wait_timeout_while(self.lock(), patience, |state| !wanted(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&state)
    }

    /// The serial port.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        let mut state = self.lock();
        state.power.press_power_button();
        self.drive_sci(&state);
    }

    /// Moves the guest's PM timer forward by so many ns.
    pub fn move_clock(&self, ns: u64) {
        self.ahead.fetch_add(ns, Ordering::Relaxed);
    }

    /// The guest's time since it was switched on.
    fn elapsed(&self) -> Duration {
        let ahead = Duration::from_nanos(self.ahead.load(Ordering::Relaxed));
        self.started.elapsed() + ahead
    }

    fn drive_sci(&self, state: &State) {
        if let Err(error) = self.sci.set(state.power.sci()) {
            log::error!("{error}");
        }
    }

    /// The guest has read so many lines of an expander since the last call; see [`devices::Type3::count_reads`].
    pub fn count_reads(&self, endpoint: EndpointId, lines: u64) {
        let mut state = self.lock();
        let mut effects = Effects::new();
        if let Some(node) = state.expander(endpoint) {
            state.hierarchy.with(node, &mut effects, |device, out| {
                if let Device::Type3(device) = device {
                    device.count_reads(lines, out);
                }
            });
        }
        self.perform(state, effects);
    }

    /// Lets a function go on, as it asked for.
    fn ring(&self, node: NodeId) {
        let mut state = self.lock();
        let mut effects = Effects::new();
        state.hierarchy.with(node, &mut effects, Device::advance);
        self.perform(state, effects);
    }

    /// Does what the models ask for, and then sees to the windows if that is among it.
    pub fn perform(&self, mut state: MutexGuard<'_, State>, effects: Effects) {
        let mut decoders_changed = false;
        let mut bars_changed = false;
        let mut poison_changed = false;
        let mut media: Vec<(usize, MediaWork)> = Vec::new();
        let mut effects = VecDeque::from(effects);
        while let Some((node, effect)) = effects.pop_front() {
            match effect {
                Effect::DecodersChanged => decoders_changed = true,
                Effect::SlotPowerChanged => self.slots.notify_all(),
                Effect::PoisonChanged { .. } => poison_changed = true,
                Effect::LabelsWritten { offset, len } => {
                    write_labels(&mut state, node, offset, len)
                }
                Effect::NonVolatileChanged => state.save_nonvolatile(node),
                Effect::MediaWritten { dpa, data } => {
                    let device = state.media_number(node);
                    media.extend(device.zip(Some(MediaWork::Write(dpa, data))));
                }
                Effect::MediaZeroed { dpa, len } => {
                    let device = state.media_number(node);
                    media.extend(device.zip(Some(MediaWork::Zero(dpa, len))));
                }
                Effect::Alarm { after } => self.set_alarm(node, Duration::from_nanos(after)),
                Effect::Error(message) => effects.extend(to_root_port(&mut state, node, message)),
                Effect::Pci(pci::Effect::Msi(message)) => self.send(message),
                Effect::SwitchCommand => {
                    effects.extend(devices::run_switch_command(&mut state.hierarchy, node));
                }
                Effect::PortChanged => {
                    effects.extend(devices::tell_switch(&mut state.hierarchy, node));
                }
                Effect::Accelerator(request) => state.accelerate(node, request),
                Effect::Pci(effect) => {
                    bars_changed |= effect == pci::Effect::BarsChanged;
                    apply(&state, node, model::Effect::Pci(effect));
                }
                Effect::Virtio(effect) => apply(&state, node, effect),
            }
        }
        // A bridge's windows concern all that is below it.
        if bars_changed {
            state.place_accelerators();
        }
        // The windows' lock comes before the models'.
        drop(state);
        if !decoders_changed && !poison_changed && media.is_empty() {
            return;
        }
        let Some(windows) = self.windows() else {
            return;
        };
        // What is no longer to be reached is out of reach before its bytes change.
        if decoders_changed {
            windows.update(self);
        }
        for (device, work) in media {
            let done = match work {
                MediaWork::Write(dpa, data) => windows.write_media(device, dpa, &data),
                MediaWork::Zero(dpa, len) => windows.zero_media(device, dpa, len),
            };
            if let Err(error) = done {
                log::error!("{error}");
            }
        }
        // What is good again has its bytes before it is within reach.
        if poison_changed {
            windows.update(self);
        }
    }

    fn set_alarm(&self, node: NodeId, after: Duration) {
        self.alarms.set(node, after, || {
            let board = self.myself.clone();
            move |node| {
                if let Some(board) = board.upgrade() {
                    board.ring(node);
                }
            }
        });
    }

    fn send(&self, message: pci::MsiMessage) {
        let message = MsiMessage {
            address: message.address,
            data: message.data,
        };
        if let Err(error) = self.interrupts.signal_msi(message) {
            // The guest chose the address; it may be one that KVM cannot deliver to.
            log::debug!("{error}");
        }
    }

    fn config(&self, register: Option<(pci::Bdf, u16)>, access: Access<'_>) {
        let mut state = self.lock();
        state.count(Responder::PciConfig);
        let mut effects = Effects::new();
        match (register, access) {
            (Some((bdf, register)), Access::Read(data)) => {
                state.hierarchy.config_read(bdf, register, data)
            }
            (Some((bdf, register)), Access::Write(data)) => {
                state
                    .hierarchy
                    .config_write(bdf, register, data, &mut effects);
            }
            (None, Access::Read(data)) => data.fill(0xff),
            (None, Access::Write(_)) => {}
        }
        self.perform(state, effects);
    }

    fn memory(&self, address: u64, mut access: Access<'_>) {
        let len = access.len();
        if let Some(offset) = address
            .checked_sub(ECAM_BASE)
            .filter(|offset| *offset < ECAM_SIZE)
        {
            return self.config_by_dwords(offset, access);
        }
        let mut state = self.lock();
        let mut effects = Effects::new();
        if let Some((index, offset, bridge)) = state.host_bridge_at(address, len) {
            let mut asked = Vec::new();
            match access {
                Access::Read(data) => bridge.component.read(offset, data),
                Access::Write(data) => bridge.component.write(offset, data, &mut asked),
            }
            state.count(Responder::HostBridge(index));
            drop(state);
            if !asked.is_empty()
                && let Some(windows) = self.windows()
            {
                windows.update(self);
            }
            return;
        }
        let in_window = |window: &Cfmws| {
            address
                .checked_sub(window.base)
                .is_some_and(|offset| offset < window.size)
        };
        let responder = match state.hierarchy.route_memory(address, len) {
            Some(target) => Responder::Function(target.node),
            None => state
                .windows
                .iter()
                .position(in_window)
                .map_or(Responder::Nobody, Responder::UnmappedWindow),
        };
        if matches!(responder, Responder::UnmappedWindow(_)) {
            drop(state);
            // What is kept of a range is away for a moment when the rest of it goes.
            if self
                .windows()
                .is_some_and(|windows| windows.access(address, &mut access))
            {
                return;
            }
            state = self.lock();
        }
        state.count(responder);
        match access {
            Access::Read(data) => state.hierarchy.memory_read(address, data, &mut effects),
            Access::Write(data) => state.hierarchy.memory_write(address, data, &mut effects),
        }
        self.perform(state, effects);
    }

    /// A configuration request carries at most a dword (PCIe 6.0 section 2.2.7): a root complex splits what is longer.
    fn config_by_dwords(&self, offset: u64, access: Access<'_>) {
        let places = (offset..).step_by(4);
        match access {
            Access::Read(data) => {
                for (offset, part) in places.zip(data.chunks_mut(4)) {
                    self.config(Ecam::decode(offset), Access::Read(part));
                }
            }
            Access::Write(data) => {
                for (offset, part) in places.zip(data.chunks(4)) {
                    self.config(Ecam::decode(offset), Access::Write(part));
                }
            }
        }
    }
}

/// A read to be answered or a write to be taken.
pub enum Access<'a> {
    /// The data that the guest gets.
    Read(&'a mut [u8]),
    /// The data that it stores.
    Write(&'a [u8]),
}

impl Access<'_> {
    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Read(data) => data.len() as u64,
            Self::Write(data) => data.len() as u64,
        }
    }
}

fn apply(state: &State, node: NodeId, effect: model::Effect) {
    match (state.hierarchy.get(node), effect) {
        (Some(Device::Virtio(function)), effect) => {
            if let Some(worker) = state.workers.get(&node) {
                worker.apply(effect, function);
            }
        }
        (
            Some(Device::Type2(function)),
            model::Effect::Pci(pci::Effect::MsixChanged { vector }),
        ) => {
            if let Some(handle) = state.accelerators.get(&node) {
                handle.set_vector(vector, function);
            }
        }
        _ => {}
    }
}

/// Takes an error message up the links to the root port, which may be the sender itself.
fn to_root_port(state: &mut State, node: NodeId, message: ErrorMessage) -> Effects {
    let mut effects = Effects::new();
    if let (Some(source), Some(&root)) = (
        state.hierarchy.bdf(node),
        state.hierarchy.path(node).first(),
    ) {
        state.hierarchy.with(root, &mut effects, |device, out| {
            if let Device::DownstreamPort(port) = device {
                port.receive(message, source, out);
            }
        });
    }
    effects
}

/// Puts what the guest wrote to the label storage area into its file, and waits for the disk: labels say what is where.
fn write_labels(state: &mut State, node: NodeId, offset: u32, len: u32) {
    let (
        Some(Device::Type3(device)),
        Some(Expander {
            labels: Some(file), ..
        }),
    ) = (state.hierarchy.get(node), state.expanders.get(&node))
    else {
        return;
    };
    let range = offset as usize..offset.saturating_add(len) as usize;
    let Some(bytes) = device.labels().get(range) else {
        return;
    };
    let written = file
        .write_all_at(bytes, u64::from(offset))
        .and_then(|()| file.sync_data());
    if let Err(error) = written {
        log::error!("{}: cannot keep its labels: {error}", device.name());
    }
}

/// The time that the real-time clock and the devices show.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

impl From<PowerRequest> for SystemRequest {
    fn from(request: PowerRequest) -> Self {
        match request {
            PowerRequest::PowerOff => Self::PowerOff,
            PowerRequest::Reset => Self::Reset,
        }
    }
}

/// The offset of `port` from `first`, if it is one of `count`.
fn within(port: u16, first: u16, count: u16) -> Option<u16> {
    port.checked_sub(first).filter(|offset| *offset < count)
}

impl Bus for Board {
    fn pio_read(&self, port: u16, data: &mut [u8]) {
        if let (Some(offset), [byte]) = (within(port, COM1_PORT, COM1_PORTS), &mut *data) {
            *byte = self.serial.read(offset as u8);
            return self.lock().count(Responder::Serial);
        }
        if within(port, ConfigAddressPort::DATA_PORT, 4).is_some() {
            let target = self.lock().config_port.target(port);
            return self.config(target, Access::Read(data));
        }
        let mut state = self.lock();
        if port == spec::RESET_PORT {
            data.fill(state.reset.read());
            state.count(Responder::Power);
        } else if within(port, ConfigAddressPort::ADDRESS_PORT, CONFIG_PORTS).is_some() {
            state.config_port.read(data);
            state.count(Responder::PciConfig);
        } else if within(port, devices::rtc::spec::INDEX_PORT, RTC_PORTS).is_some() {
            let value = state.rtc.read(port, since_epoch());
            data.fill(0xff);
            data.iter_mut().take(1).for_each(|byte| *byte = value);
            state.count(Responder::Clock);
        } else if let Some(offset) = within(port, POWER_PORT, spec::LENGTH) {
            state.power.read(offset, data, self.elapsed());
            state.count(Responder::Power);
            self.drive_sci(&state);
        } else {
            let mut effects = Effects::new();
            state.hierarchy.io_read(u64::from(port), data, &mut effects);
            state.count(Responder::Nobody);
            self.perform(state, effects);
        }
    }

    fn pio_write(&self, port: u16, data: &[u8]) -> Option<SystemRequest> {
        if let (Some(offset), [byte]) = (within(port, COM1_PORT, COM1_PORTS), data) {
            self.serial.write(offset as u8, *byte);
            self.lock().count(Responder::Serial);
            return None;
        }
        if within(port, ConfigAddressPort::DATA_PORT, 4).is_some() {
            let target = self.lock().config_port.target(port);
            self.config(target, Access::Write(data));
            return None;
        }
        let mut state = self.lock();
        match (port, data) {
            (spec::RESET_PORT, [value]) => {
                state.count(Responder::Power);
                return state.reset.write(*value).map(SystemRequest::from);
            }
            _ if within(port, ConfigAddressPort::ADDRESS_PORT, CONFIG_PORTS).is_some() => {
                state.count(Responder::PciConfig);
                if port == ConfigAddressPort::ADDRESS_PORT {
                    state.config_port.write(data);
                }
            }
            (_, [value, ..])
                if within(port, devices::rtc::spec::INDEX_PORT, RTC_PORTS).is_some() =>
            {
                state.count(Responder::Clock);
                state.rtc.write(port, *value, since_epoch());
            }
            _ => {
                if let Some(offset) = within(port, POWER_PORT, spec::LENGTH) {
                    state.count(Responder::Power);
                    let request = state.power.write(offset, data);
                    self.drive_sci(&state);
                    return request.map(SystemRequest::from);
                }
                let mut effects = Effects::new();
                state.count(Responder::Nobody);
                state
                    .hierarchy
                    .io_write(u64::from(port), data, &mut effects);
                self.perform(state, effects);
            }
        }
        None
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.memory(address, Access::Read(data));
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<SystemRequest> {
        self.memory(address, Access::Write(data));
        None
    }

    fn poison(&self, page: u64) -> u64 {
        let Some(line) = self.windows().and_then(|windows| windows.bad_line(page)) else {
            // Memory of the host itself, or poison that is just being cleared.
            return page;
        };
        let mut state = self.lock();
        let mut effects = Effects::new();
        if let Some(node) = state.expander(line.endpoint) {
            state.hierarchy.with(node, &mut effects, |device, out| {
                if let Device::Type3(device) = device {
                    device.poison_read(line.dpa, out);
                }
            });
        }
        self.perform(state, effects);
        line.hpa
    }
}
