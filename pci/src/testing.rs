//! Functions to test with: small, whole, and strict about what reaches them.

use crate::*;

pub const LINK: Link = Link {
    speed: LinkSpeed::Gt32,
    width: LinkWidth::X8,
};

pub fn ids(device: u16, class: u32) -> Ids {
    Ids {
        vendor: 0x8086,
        device,
        revision: 1,
        class,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    }
}

/// Reads a register as a guest.
pub fn read_u32(config: &ConfigSpace, offset: u16) -> u32 {
    let mut data = [0; 4];
    config.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Reads a register as a guest.
pub fn read_u16(config: &ConfigSpace, offset: u16) -> u16 {
    let mut data = [0; 2];
    config.read(offset, &mut data);
    u16::from_le_bytes(data)
}

/// Writes a register as a guest, and says whether the function decodes otherwise than before.
pub fn write(config: &mut ConfigSpace, offset: u16, data: &[u8]) -> bool {
    let mut out: Vec<Effect> = Vec::new();
    config.write(offset, data, &mut out);
    out == [Effect::BarsChanged]
}

pub fn write_u32(config: &mut ConfigSpace, offset: u16, value: u32) -> bool {
    write(config, offset, &value.to_le_bytes())
}

pub fn write_u16(config: &mut ConfigSpace, offset: u16, value: u16) -> bool {
    write(config, offset, &value.to_le_bytes())
}

/// What a register shows after reset, what of it a guest can set, and what of it a guest can only clear.
pub struct Rule {
    pub name: &'static str,
    pub offset: u16,
    pub reset: u32,
    pub writable: u32,
    pub write_1_clear: u32,
}

pub const fn rule(
    name: &'static str,
    offset: u16,
    reset: u32,
    writable: u32,
    write_1_clear: u32,
) -> Rule {
    Rule {
        name,
        offset,
        reset,
        writable,
        write_1_clear,
    }
}

/// Walks a capability dword by dword: reset value, read-only bits stay, RW bits take, RW1C bits clear, reset undoes.
pub fn walk(config: &mut ConfigSpace, base: u16, rules: &[Rule]) {
    let mut none: Vec<Effect> = Vec::new();
    for Rule {
        name,
        offset,
        reset,
        writable,
        write_1_clear,
    } in rules
    {
        let at = base + offset;
        assert_eq!(read_u32(config, at), *reset, "{name}: reset value");
        config.write(at, &[0xff; 4], &mut none);
        assert_eq!(
            read_u32(config, at),
            (reset | writable) & !write_1_clear,
            "{name}: written with ones"
        );
        config.write(at, &[0; 4], &mut none);
        assert_eq!(
            read_u32(config, at),
            reset & !writable & !write_1_clear,
            "{name}: written with zeros"
        );
        config.set_u32(at, reset | write_1_clear);
        config.write(at, &[0; 4], &mut none);
        assert_eq!(
            read_u32(config, at) & write_1_clear,
            *write_1_clear,
            "{name}: RW1C bits stay when written with 0"
        );
        config.write(at, &[0xff; 4], &mut none);
        assert_eq!(
            read_u32(config, at) & write_1_clear,
            0,
            "{name}: RW1C bits clear when written with 1"
        );
    }
    config.reset(ResetKind::Conventional);
    for Rule {
        name,
        offset,
        reset,
        ..
    } in rules
    {
        assert_eq!(read_u32(config, base + offset), *reset, "{name}: reset");
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEffect {
    Pci(Effect),
    Reset(ResetKind),
}

impl From<Effect> for ModelEffect {
    fn from(effect: Effect) -> Self {
        Self::Pci(effect)
    }
}

/// A function with every capability that its kind has. Its BARs are plain bytes, except where MSI-X lives.
pub struct Model {
    pub config: ConfigSpace,
    pub express: PciExpress,
    pub msix: Option<MsixTable>,
    pub msi: Option<Msi>,
    pub doe: Option<DoeMailbox>,
    memory: [Vec<u8>; 6],
}

impl Model {
    const PROTOCOL: DoeProtocol = DoeProtocol {
        vendor: 0x1e98,
        object_type: 2,
    };

    pub fn endpoint() -> Self {
        let mut config = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
        let sizes = [0x1_0000, 0, 0x1000, 0, 0x1000, 0];
        for (index, size) in (0..).zip(sizes).filter(|(_, size)| *size != 0) {
            let prefetchable = index != 4;
            config.add_bar(
                index,
                Bar {
                    size,
                    kind: BarKind::Memory64 { prefetchable },
                },
            );
        }
        let layout = MsixLayout {
            bar: 4,
            table_offset: 0,
            pba_offset: 0x800,
            vectors: 8,
        };
        let msix = MsixTable::new(&mut config, layout);
        let express = PciExpress::new(&mut config, ExpressConfig::endpoint(LINK));
        add_power_management(&mut config);
        Aer::new(&mut config, DevicePortType::Endpoint, 0);
        add_serial_number(&mut config, 0x1122_3344_5566_7788);
        add_link_capabilities(&mut config, DevicePortType::Endpoint, LINK);
        Dvsec {
            vendor: 0x1e98,
            revision: 3,
            id: 0,
        }
        .add_to(&mut config, &[0; 0x3c], &[0; 0x0c], &[]);
        let doe = DoeMailbox::new(&mut config, &[Self::PROTOCOL]);
        add_ari(&mut config, 0);
        let memory = sizes.map(|size| vec![0; size as usize]);
        Self {
            config,
            express,
            msix: Some(msix),
            msi: None,
            doe: Some(doe),
            memory,
        }
    }

    pub fn port(port_type: DevicePortType, number: u8) -> Self {
        let mut config = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
        config.add_bar(0, Bar::memory64(0x1_0000));
        let slot = Slot {
            number: u16::from(number) + 1,
            hot_plug: true,
        };
        let shape = ExpressConfig::port(port_type, LINK, number);
        let slot = port_type.is_downstream().then_some(slot);
        let mut express = PciExpress::new(&mut config, ExpressConfig { slot, ..shape });
        express.set_link(&mut config, Some(LINK));
        let msi = Msi::new(&mut config, 2);
        add_power_management(&mut config);
        Aer::new(&mut config, port_type, 1);
        if port_type.is_downstream() {
            add_acs(&mut config);
        }
        add_link_capabilities(&mut config, port_type, LINK);
        let memory = [0x1_0000, 0, 0, 0, 0, 0].map(|size| vec![0; size]);
        Self {
            config,
            express,
            msix: None,
            msi: Some(msi),
            doe: None,
            memory,
        }
    }

    pub fn root_port(number: u8) -> Self {
        Self::port(DevicePortType::RootPort, number)
    }

    /// Everything that a guest can see of it.
    pub fn image(&self) -> Vec<u8> {
        let mut image: Vec<u8> = (0..4096).map(|at| self.config.u8(at)).collect();
        if let Some(msix) = &self.msix {
            for offset in (0..0x1000).step_by(4) {
                let mut dword = [0; 4];
                msix.bar_read(offset, &mut dword);
                image.extend(dword);
            }
        }
        image
    }
}

impl Function for Model {
    type Effect = ModelEffect;

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&mut self, offset: u16, data: &[u8], out: &mut Vec<ModelEffect>) {
        let Some(written) = self.config.write(offset, data, out) else {
            return;
        };
        match self.express.written(&mut self.config, &written) {
            Some(ExpressEvent::FunctionLevelReset) => {
                return self.reset(ResetKind::FunctionLevel, out);
            }
            Some(ExpressEvent::Interrupt) => {
                let message = self.msi.and_then(|msi| msi.trigger(&mut self.config, 0));
                out.extend(message.map(|message| Effect::Msi(message).into()));
            }
            None => {}
        }
        if let Some(msi) = self.msi {
            msi.written(&mut self.config, &written, out);
        }
        if let Some(msix) = &mut self.msix {
            msix.written(&self.config, &written, out);
        }
        if let Some(doe) = &mut self.doe {
            doe.written(&mut self.config, &written, |_, body| {
                (!body.is_empty()).then(|| body.to_vec())
            });
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _: &mut Vec<ModelEffect>) {
        match &self.msix {
            Some(msix) if msix.layout().bar == bar => msix.bar_read(offset, data),
            _ => {
                let start = offset as usize;
                data.copy_from_slice(&self.memory[usize::from(bar)][start..start + data.len()]);
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], out: &mut Vec<ModelEffect>) {
        match &mut self.msix {
            Some(msix) if msix.layout().bar == bar => msix.bar_write(offset, data, out),
            _ => {
                let start = offset as usize;
                self.memory[usize::from(bar)][start..start + data.len()].copy_from_slice(data);
            }
        }
    }

    fn reset(&mut self, kind: ResetKind, out: &mut Vec<ModelEffect>) {
        self.config.reset(kind);
        if let Some(msix) = &mut self.msix {
            msix.reset(&self.config, out);
        }
        if let Some(doe) = &mut self.doe {
            doe.reset();
        }
        out.push(ModelEffect::Reset(kind));
    }
}

/// Two host bridges: one with an endpoint on its root bus; one with two root ports, an endpoint below the first and a
/// switch with two downstream ports below the second, an endpoint below the first of those.
pub struct Tree {
    pub hierarchy: Hierarchy<Model>,
    pub on_root: NodeId,
    pub port0: NodeId,
    pub below_port0: NodeId,
    pub port1: NodeId,
    pub upstream: NodeId,
    pub downstream: NodeId,
    pub below_switch: NodeId,
}

pub fn tree() -> Tree {
    let mut hierarchy = Hierarchy::new();
    let plain = hierarchy.add_root(0..=0x1f).unwrap();
    let cxl = hierarchy.add_root(0x20..=0x4f).unwrap();
    let on_root = hierarchy.add(plain, 1, 0, Model::endpoint()).unwrap();
    let port0 = hierarchy.add(cxl, 0, 0, Model::root_port(0)).unwrap();
    let port1 = hierarchy.add(cxl, 1, 0, Model::root_port(1)).unwrap();
    let below_port0 = hierarchy.add(port0, 0, 0, Model::endpoint()).unwrap();
    let upstream = hierarchy
        .add(port1, 0, 0, Model::port(DevicePortType::UpstreamPort, 0))
        .unwrap();
    let downstream = hierarchy
        .add(
            upstream,
            0,
            0,
            Model::port(DevicePortType::DownstreamPort, 1),
        )
        .unwrap();
    hierarchy
        .add(
            upstream,
            1,
            0,
            Model::port(DevicePortType::DownstreamPort, 2),
        )
        .unwrap();
    let below_switch = hierarchy.add(downstream, 0, 0, Model::endpoint()).unwrap();
    Tree {
        hierarchy,
        on_root,
        port0,
        below_port0,
        port1,
        upstream,
        downstream,
        below_switch,
    }
}

pub fn pools() -> Pools {
    Pools {
        io: 0x1000..0x1_0000,
        memory32: 0xc000_0000..0xe000_0000,
        memory64: 0x1_4000_0000..0x11_4000_0000,
    }
}

/// The tree, with everything assigned.
pub fn assigned_tree() -> Tree {
    let mut tree = tree();
    assign(
        &mut tree.hierarchy,
        &pools(),
        &PortReserve::default(),
        &mut Vec::new(),
    )
    .unwrap();
    tree
}
