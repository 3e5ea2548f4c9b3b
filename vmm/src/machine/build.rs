//! From a configuration to a machine that is ready to run: hardware, then what a firmware does, then the kernel.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use cxl::decode::{Cfmws, EndpointId};
use cxl::hdm::{Coherency, DecoderSettings, Destination};
use cxl::memdev::Clock;
use cxl::{ComponentRegisters, Granularity, Interleave, Role, Ways, XorMaps};
use devices::{
    Device, DownstreamPort, DownstreamPortConfig, DownstreamPortKind, HostBridge, Type3,
    Type3Config, UpstreamPort, UpstreamPortConfig,
};
use pci::{Hierarchy, Link, NodeId, Parent, Pools, PortReserve};
use vm_memory::GuestMemoryAtomic;

use super::accelerators;
use super::hotplug::Slots;
use super::tables::{self, host_bridge_uid};
use super::{Running, Terminals};
use crate::board::{Board, CxlHostBridge, Effects, Expander, State, since_epoch};
use crate::boot::{self, BootRequest};
use crate::config::{self, Arithmetic, Config, LabelStorage, Place, RegionPlan};
use crate::error::{Error, Result};
use crate::kvm::{Bus, HypervisorBit, Vcpus, Vm, physical_bits, tsc_command_line};
use crate::layout::{CXL_BUSES, CXL_FIRST_BUS, Layout};
use crate::media::{Media, MediaSpec};
use crate::memory::{PageSize, Ram};
use crate::nonvolatile::NonVolatileStore;
use crate::serial::{COM1_GSI, Serial};
use crate::timing::Timing;
use crate::virtio::{self, DiskOptions, NetOptions};
use crate::windows::Windows;

/// Buses of the ordinary root complex.
const ROOT_BUSES: std::ops::RangeInclusive<u8> = 0..=0x1f;
/// What each port of a machine with slots has room for behind it: the BARs of an expander, which may come later; and as much as Linux asks for
/// behind a port with hot-plug.
const PORT_RESERVE: PortReserve = PortReserve {
    buses: 0,
    memory32: 2 << 20,
    memory64: 2 << 20,
};
/// The system control interrupt, as the FADT says.
const SCI_GSI: u32 = 9;

/// Puts the machine together. The second value starts its processors.
pub(super) fn machine(
    config: &Arc<Config>,
    terminals: &Terminals,
    nonvolatile: &Arc<NonVolatileStore>,
) -> Result<(Running, impl FnOnce() -> Result<()> + use<>)> {
    let layout = Layout::new(&config.layout_request())?;
    layout.check_physical_bits(physical_bits())?;
    let pages = if config.machine.huge_pages {
        PageSize::Huge2M
    } else {
        PageSize::Base
    };
    let ram = Ram::new(&layout.ram, pages)?;
    let vm = Arc::new(Vm::new()?);
    if config.timing.clock != config::Clock::Off {
        vm.memslots().keep_pages_small();
    }
    vm.map_ram(&ram)?;
    let reachable = GuestMemoryAtomic::new(ram.guest().clone());
    let expanders = config.devices().map(|(_, device)| media_spec(device));
    let media = Media::open(expanders.chain(accelerators::media(config)).collect())?;
    let device_memory = accelerators::memory(config, &media)?;
    let windows = Arc::new(Windows::new(
        media,
        vm.memslots().clone(),
        ram.guest().clone(),
        reachable.clone(),
    ));

    let mut state = hardware(config, &layout, nonvolatile)?;
    let host = virtio::Host {
        vm: Arc::clone(&vm),
        memory: reachable,
    };
    add_virtio(&mut state, config, terminals, &host)?;
    accelerators::add(&mut state, config, &host, &device_memory)?;
    let (roots, effects) = place(&mut state, &layout)?;
    let plans = config.plan_regions(
        &layout
            .windows
            .iter()
            .map(|window| window.start)
            .collect::<Vec<_>>(),
    );
    for plan in &plans {
        commit(&mut state, plan)?;
    }
    let firmware = tables::describe(config, &layout, &roots, &plans)?;
    let rsdp = tables::install(&firmware, ram.guest())?;

    let serial = Serial::new(vm.interrupts().edge(COM1_GSI)?, terminals.serial.writer());
    let board = Board::new(
        state,
        serial,
        Arc::clone(vm.interrupts()),
        vm.interrupts().line(SCI_GSI),
    );
    let typed = Arc::downgrade(&board);
    terminals.serial.attach(move |bytes| {
        if let Some(board) = typed.upgrade() {
            board.serial().receive(bytes);
        }
    });
    board.set_windows(&windows);
    board.connect_accelerators();
    board.perform(board.lock(), effects);
    windows.update(&board);

    let hypervisor = if config.hypervisor_bit_is_shown() {
        HypervisorBit::Shown
    } else {
        HypervisorBit::Hidden
    };
    let mut vcpus = Vcpus::new(&vm, config.machine.vcpus, hypervisor, ram.guest())?;
    let mut command_line = config.boot.cmdline.clone();
    if let Some(words) = tsc_command_line(hypervisor, vcpus.tsc_khz()) {
        command_line.push(' ');
        command_line.push_str(&words);
    }
    let entry = boot::load(
        ram.guest(),
        &BootRequest {
            kernel: &config.boot.kernel,
            initrd: config.boot.initrd.as_deref(),
            command_line: &command_line,
            memory_map: &tables::memory_map(&firmware),
            rsdp,
        },
    )?;
    let timing = Timing::start(config, &vm, &board, &windows, &mut vcpus)?;
    let running = Running {
        config: Arc::clone(config),
        vm,
        slots: Slots::new(config, &board, &windows),
        board: Arc::clone(&board),
        windows,
        vcpus: vcpus.control(),
        timing,
    };
    let start = move || {
        let bus: Arc<dyn Bus> = board;
        vcpus.start(entry, &bus).map(drop)
    };
    Ok((running, start))
}

pub(super) fn media_spec(device: &config::Type3) -> MediaSpec {
    MediaSpec {
        name: device.name.clone(),
        capacity: device.address_space(),
        backing: device.backing.clone(),
        shared: device.shared,
    }
}

/// The PCI hierarchy and the CXL host bridges, as they are at power-on.
pub(super) fn hardware(
    config: &Config,
    layout: &Layout,
    nonvolatile: &Arc<NonVolatileStore>,
) -> Result<State> {
    let mut hierarchy = Hierarchy::new();
    let root = hierarchy.add_root(ROOT_BUSES).map_err(wiring)?;
    hierarchy
        .add(root, 0, 0, Device::Host(HostBridge::new()))
        .map_err(wiring)?;
    let mut host_bridges = Vec::new();
    let mut expanders = Vec::new();
    let surroundings = Surroundings {
        nonvolatile,
        timed: config.timing.clock != config::Clock::Off,
    };
    let places = config
        .host_bridges
        .iter()
        .zip(&layout.host_bridges)
        .enumerate();
    for ((index, bridge), first_bus) in
        places.zip((CXL_FIRST_BUS..).step_by(usize::from(CXL_BUSES)))
    {
        let (bridge, ranges) = bridge;
        let root = hierarchy
            .add_root(first_bus..=first_bus + (CXL_BUSES - 1))
            .map_err(wiring)?;
        for (number, port) in (0..).zip(&bridge.root_ports) {
            let kind = DownstreamPortKind::Root;
            plug(
                &mut hierarchy,
                &mut expanders,
                surroundings,
                root.into(),
                kind,
                number,
                port,
            )?;
        }
        let ports = (0..).take(bridge.root_ports.len()).collect();
        host_bridges.push(CxlHostBridge {
            name: bridge.name.clone(),
            uid: host_bridge_uid(index),
            root,
            registers: ranges.component_registers,
            component: ComponentRegisters::new(&Role::HostBridge {
                decoders: bridge.decoders,
                ports,
            })?,
        });
    }
    let windows = config
        .windows
        .iter()
        .zip(&layout.windows)
        .map(|(window, range)| {
            Ok(Cfmws {
                base: range.start,
                size: range.size,
                interleave: window_interleave(window)?,
                targets: window
                    .targets
                    .iter()
                    .map(|bridge| host_bridge_uid(*bridge))
                    .collect(),
            })
        });
    let windows = windows.collect::<Result<_>>()?;
    let mut state = State::new(hierarchy, host_bridges, windows, Arc::clone(nonvolatile));
    state.expanders.extend(expanders);
    Ok(state)
}

/// Adds a port with all that is plugged into it. Expanders are numbered in the order in which they are met.
fn plug(
    hierarchy: &mut Hierarchy<Device>,
    expanders: &mut Vec<(NodeId, Expander)>,
    surroundings: Surroundings<'_>,
    above: Parent,
    kind: DownstreamPortKind,
    number: u8,
    port: &config::Port,
) -> Result<()> {
    let link = Link {
        speed: port.speed,
        width: port.width,
    };
    // Slots are numbered like the ports, in the order of the file.
    let is_port = |(_, device): &(NodeId, &Device)| matches!(device, Device::DownstreamPort(_));
    let slot = u16::try_from(hierarchy.iter().filter(is_port).count() + 1).ok();
    let mut model = DownstreamPort::new(DownstreamPortConfig {
        name: port.name.clone(),
        kind,
        port_number: number,
        link,
        slot: slot.filter(|_| port.hot_plug),
    })?;
    if port.device.is_some() {
        model.connect(link);
    }
    let model = Device::DownstreamPort(Box::new(model));
    let node = hierarchy.add(above, number, 0, model).map_err(wiring)?;
    match &port.device {
        Some(config::Device::Type3(device)) => {
            let endpoint = EndpointId(u32::try_from(expanders.len()).unwrap_or(u32::MAX));
            let (model, labels) = expander(device, link, surroundings)?;
            let model = Device::Type3(Box::new(model));
            let node = hierarchy.add(node, 0, 0, model).map_err(wiring)?;
            expanders.push((node, Expander { endpoint, labels }));
        }
        Some(config::Device::Switch(switch)) => {
            let mut model = upstream_port(switch, link)?;
            let cci = switch.mailbox_cci.then(|| model.add_cci(clock()));
            let model = Device::UpstreamPort(Box::new(model));
            let upstream = hierarchy.add(node, 0, 0, model).map_err(wiring)?;
            if let Some(cci) = cci {
                let model = Device::SwitchCci(Box::new(cci));
                hierarchy.add(node, 0, 1, model).map_err(wiring)?;
            }
            for (number, port) in (0..).zip(&switch.ports) {
                let kind = DownstreamPortKind::Switch;
                plug(
                    hierarchy,
                    expanders,
                    surroundings,
                    upstream.into(),
                    kind,
                    number,
                    port,
                )?;
            }
        }
        // It needs the machine, which comes with `accelerators::add`.
        Some(config::Device::Type2(_)) | None => {}
    }
    Ok(())
}

fn upstream_port(switch: &config::Switch, link: Link) -> Result<UpstreamPort> {
    Ok(UpstreamPort::new(UpstreamPortConfig {
        name: switch.name.clone(),
        serial: switch.serial,
        link,
        ports: (0..).take(switch.ports.len()).collect(),
        decoders: switch.decoders,
        performance: cdat_performance(&switch.performance),
    })?)
}

fn cdat_performance(performance: &config::Performance) -> cxl::cdat::Performance {
    cxl::cdat::Performance {
        read_latency: performance.read_latency.into(),
        write_latency: performance.write_latency.into(),
        read_bandwidth: performance.read_bandwidth,
        write_bandwidth: performance.write_bandwidth,
    }
}

/// What the model of an expander finds in its machine.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// What expanders remember without power.
    pub nonvolatile: &'a NonVolatileStore,
    /// Somebody counts the lines that the guest reads of it: see [`Board::count_reads`].
    pub timed: bool,
}

/// The model of an expander, and the file of its labels.
pub(super) fn expander(
    device: &config::Type3,
    link: Link,
    Surroundings { nonvolatile, timed }: Surroundings<'_>,
) -> Result<(Type3, Option<std::fs::File>)> {
    let (labels, file) = match &device.labels {
        Some(storage) => {
            let (bytes, file) = open_labels(storage)?;
            (bytes, Some(file))
        }
        None => (Vec::new(), None),
    };
    let remembered = nonvolatile.load(device)?;
    let config = Type3Config {
        name: device.name.clone(),
        serial: device.serial,
        volatile: device.volatile,
        persistent: device.persistent,
        partitionable: device.partitionable,
        dynamic: device.dynamic_regions(),
        labels,
        nonvolatile: remembered.clone(),
        link,
        decoders: device.decoders,
        performance: cdat_performance(&device.performance),
        part: device.part,
        counts_reads: timed,
    };
    let mut model = Type3::new(config, clock())?;
    // Power-on itself counts dirty shutdowns and activates firmware.
    let now_remembered = model.memdev().nonvolatile();
    if now_remembered != remembered {
        let what = format!("keep the state of {}", device.name);
        let saved = nonvolatile.save(&device.name, now_remembered);
        saved.map_err(|source| Error::Host { what, source })?;
    }
    // Nobody has asked it for anything yet, so there is nothing to do.
    model.set_fault(device.fault, &mut Vec::new());
    Ok((model, file))
}

/// The clock of a device. Alarms go by it too: one that somebody sets would let a background command start and never end.
fn clock() -> Clock {
    let (epoch, started) = (since_epoch(), Instant::now());
    Box::new(move || {
        let now = epoch.saturating_add(started.elapsed());
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The label storage area's bytes and its file, which is made if it is not there.
fn open_labels(storage: &LabelStorage) -> Result<(Vec<u8>, std::fs::File)> {
    let failed = |source| Error::Host {
        what: format!("use the labels in {}", storage.path.display()),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&storage.path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        file.set_len(storage.size).map_err(failed)?;
    }
    let mut bytes = vec![0; usize::try_from(storage.size).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok((bytes, file))
}

/// virtio functions on the ordinary root bus, one device each.
fn add_virtio(
    state: &mut State,
    config: &Config,
    terminals: &Terminals,
    host: &virtio::Host,
) -> Result<()> {
    let mut made = Vec::new();
    for (index, disk) in config.disks.iter().enumerate() {
        let options = DiskOptions {
            path: disk.path.clone(),
            read_only: disk.read_only,
            id: format!("disk{index}"),
        };
        made.push(virtio::block(host, &options)?);
    }
    for net in &config.nets {
        made.push(virtio::net(
            host,
            &NetOptions {
                tap: net.tap.clone(),
                mac: net.mac.0,
            },
        )?);
    }
    if config.rng {
        made.push(virtio::rng(host)?);
    }
    for terminal in &terminals.virtio {
        made.push(virtio::console(host, terminal)?);
    }
    let (root, _) = state
        .hierarchy
        .roots()
        .next()
        .ok_or(pci::Error::NoSuchRoot)
        .map_err(wiring)?;
    for (device, (function, handle)) in (1..).zip(made) {
        let node = state
            .hierarchy
            .add(root, device, 0, Device::Virtio(Box::new(function)))
            .map_err(wiring)?;
        state.workers.insert(node, handle);
    }
    Ok(())
}

/// Numbers the buses and places the BARs, as a firmware does.
pub(super) fn place(
    state: &mut State,
    layout: &Layout,
) -> Result<(Vec<pci::RootWindows>, Effects)> {
    let mut effects = Effects::new();
    let pools = Pools {
        io: 0x1000..0x1_0000,
        memory32: layout.mmio32(),
        memory64: layout.mmio64(),
    };
    let has_slot =
        |device: &Device| matches!(device, Device::DownstreamPort(port) if port.slot().is_some());
    let reserve = if state.hierarchy.iter().any(|(_, device)| has_slot(device)) {
        PORT_RESERVE
    } else {
        PortReserve::default()
    };
    let windows =
        pci::assign(&mut state.hierarchy, &pools, &reserve, &mut effects).map_err(wiring)?;
    Ok((windows, effects))
}

/// Commits the decoders of one region at every level, as a firmware does: host bridges and switches first.
pub(super) fn commit(state: &mut State, plan: &RegionPlan) -> Result<()> {
    let mut effects = Vec::new();
    let coherency = match plan.is_accelerators {
        true => Coherency::Device,
        false => Coherency::Host,
    };
    for decoder in &plan.ports {
        let ways = decoder.targets.len() as u64;
        let settings = DecoderSettings {
            base: decoder.hpa,
            size: decoder.size,
            interleave: interleave(ways, decoder.granularity)?,
            coherency,
            lock: plan.lock,
            destination: Destination::Targets(decoder.targets.clone()),
        };
        if let Some(Device::UpstreamPort(switch)) = device_at(state, &decoder.component) {
            switch.commit(decoder.decoder, &settings)?;
        } else if let Some(bridge) = state.host_bridges.get_mut(decoder.component.host_bridge) {
            bridge
                .component
                .program_decoder(decoder.decoder, &settings, &mut effects)?;
        }
    }
    for decoder in &plan.endpoints {
        let settings = DecoderSettings {
            base: decoder.hpa,
            size: decoder.size,
            interleave: interleave(decoder.ways, decoder.granularity)?,
            coherency,
            lock: plan.lock,
            destination: Destination::DpaSkip(decoder.dpa_skip),
        };
        match device_at(state, &decoder.device) {
            Some(Device::Type2(device)) => device.commit(decoder.decoder, &settings)?,
            Some(Device::Type3(device)) => device.commit(decoder.decoder, &settings)?,
            _ => {}
        }
    }
    Ok(())
}

/// What is plugged in at a place of the configuration; `None` for a host bridge.
fn device_at<'s>(state: &'s mut State, place: &Place) -> Option<&'s mut Device> {
    let port = port_at(state, place)?;
    let plugged = *state.hierarchy.children(port).first()?;
    state.hierarchy.get_mut(plugged)
}

/// The port at a place of the configuration; `None` for a host bridge.
pub(super) fn port_at(state: &State, place: &Place) -> Option<NodeId> {
    let root = state.host_bridges.get(place.host_bridge)?.root;
    let (last, way) = place.ports.split_last()?;
    let mut above = Parent::Root(root);
    for index in way {
        let port = *state.hierarchy.children(above).get(*index)?;
        above = (*state.hierarchy.children(port).first()?).into();
    }
    state.hierarchy.children(above).get(*last).copied()
}

/// How a window is spread over its host bridges.
pub(super) fn window_interleave(window: &config::Window) -> Result<Interleave> {
    let modulo = interleave(window.ways() as u64, window.granularity)?;
    Ok(match window.arithmetic {
        Arithmetic::Modulo => modulo,
        Arithmetic::Xor => modulo.with_xor(XorMaps::spread(modulo.ways, modulo.granularity)),
    })
}

fn interleave(ways: u64, granularity: u64) -> Result<Interleave> {
    Ok(Interleave::new(
        Ways::new(ways)?,
        Granularity::new(granularity)?,
    ))
}

/// The configuration was checked, so this names a limit of the machine itself.
pub(super) fn wiring(error: pci::Error) -> Error {
    Error::Layout(error.to_string())
}
