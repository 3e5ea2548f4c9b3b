//! Component registers (section 8.2.3): the 64 KiB block of a CXL port or device.
//!
//! The block of a host bridge is found through the CEDT, any other through the register locator DVSEC.
//! Only its CXL.cachemem part (0x1000 to 0x1fff) has registers here: a capability array, and the
//! RAS, link, back-invalidate and HDM decoder structures it points to. Everything else reads zero.

mod back_invalidate;
mod link;
mod ras;

pub use ras::{CorrectableError, ProtocolError, UncorrectableError};

use back_invalidate::BackInvalidate;

use crate::access;
use crate::hdm::{DecoderSettings, EndpointDecoder, HdmDecoders, PortDecoder};
use crate::register::RegisterBlock;
use crate::{Effect, Error};

/// Start of the CXL.cachemem primary range, and of its capability array (section 8.2.4).
const CACHEMEM: u64 = 0x1000;

/// Where the structures lie in the CXL.cachemem range.
const RAS: u64 = 0x100;
const LINK: u64 = 0x180;
const BACK_INVALIDATE: u64 = 0x1c0;
const HDM: u64 = 0x200;

/// Capability ids and versions (table 8-22).
const CAPABILITY_CXL: u32 = 1;
const CAPABILITY_RAS: u32 = 2;
const CAPABILITY_LINK: u32 = 4;
const CAPABILITY_HDM: u32 = 5;
const CAPABILITY_BI_ROUTE_TABLE: u32 = 0xb;
const CAPABILITY_BI_DECODER: u32 = 0xc;
const VERSION_CXL: u32 = 1;
const VERSION_CACHEMEM: u32 = 1;
const VERSION_RAS: u32 = 2;
const VERSION_LINK: u32 = 2;
const VERSION_HDM: u32 = 3;
const VERSION_BI: u32 = 1;

/// What kind of component a block belongs to; this decides which structures it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A host bridge with HDM decoders in front of its root ports, given by port number.
    HostBridge {
        /// Number of HDM decoders: 1, 2, 4, 6, 8 or 10.
        decoders: usize,
        /// Port numbers of the root ports.
        ports: Vec<u8>,
    },
    /// A root port: no HDM decoders.
    RootPort,
    /// An upstream switch port with HDM decoders in front of the downstream ports.
    UpstreamSwitchPort {
        /// Number of HDM decoders: 1, 2, 4, 6, 8 or 10.
        decoders: usize,
        /// Port numbers of the downstream ports.
        ports: Vec<u8>,
    },
    /// A downstream switch port: no HDM decoders.
    DownstreamSwitchPort,
    /// A memory device.
    Endpoint {
        /// Number of HDM decoders: 1, 2, 4, 6, 8 or 10.
        decoders: usize,
        /// Bytes of device address space.
        capacity: u64,
    },
    /// A Type 2 device with memory.
    Accelerator {
        /// Number of HDM decoders: 1, 2, 4, 6, 8 or 10.
        decoders: usize,
        /// Bytes of device address space.
        capacity: u64,
    },
}

/// A component register block.
#[derive(Debug)]
pub struct ComponentRegisters {
    /// The capability array: a header and one pointer per structure.
    array: Vec<u32>,
    ras: ras::Ras,
    link: RegisterBlock,
    back_invalidate: Option<BackInvalidate>,
    hdm: Option<HdmDecoders>,
}

/// One of the structures, and an offset in it.
enum Place {
    Array(u64),
    Ras(u64),
    Link(u64),
    BackInvalidate(u64),
    Hdm(u64),
    Reserved,
}

impl ComponentRegisters {
    /// Bytes of the block.
    pub const SIZE: u64 = 0x1_0000;

    /// The block of a component; the error is that of an impossible number of decoders.
    pub fn new(role: &Role) -> Result<Self, Error> {
        let hdm = match role {
            Role::HostBridge { decoders, ports } | Role::UpstreamSwitchPort { decoders, ports } => {
                Some(HdmDecoders::port(*decoders, ports)?)
            }
            Role::Endpoint { decoders, capacity } => {
                Some(HdmDecoders::endpoint(*decoders, *capacity)?)
            }
            Role::Accelerator { decoders, capacity } => {
                Some(HdmDecoders::accelerator(*decoders, *capacity)?)
            }
            Role::RootPort | Role::DownstreamSwitchPort => None,
        };
        let (bi, back_invalidate) = match role {
            // Host bridges have none; the memory of Type 3 devices here is HDM-H.
            Role::HostBridge { .. } | Role::Endpoint { .. } => (None, None),
            Role::UpstreamSwitchPort { .. } => (
                Some(CAPABILITY_BI_ROUTE_TABLE),
                Some(BackInvalidate::route_table()),
            ),
            Role::RootPort | Role::DownstreamSwitchPort => {
                (Some(CAPABILITY_BI_DECODER), Some(BackInvalidate::port()))
            }
            Role::Accelerator { .. } => {
                (Some(CAPABILITY_BI_DECODER), Some(BackInvalidate::device()))
            }
        };
        let mut array = vec![
            0,
            pointer(CAPABILITY_RAS, VERSION_RAS, RAS),
            pointer(CAPABILITY_LINK, VERSION_LINK, LINK),
        ];
        if hdm.is_some() {
            array.push(pointer(CAPABILITY_HDM, VERSION_HDM, HDM));
        }
        array.extend(bi.map(|id| pointer(id, VERSION_BI, BACK_INVALIDATE)));
        let structures = array.len() as u32 - 1;
        let header = CAPABILITY_CXL | VERSION_CXL << 16 | VERSION_CACHEMEM << 20 | structures << 24;
        array.splice(..1, [header]);
        Ok(Self {
            array,
            ras: ras::Ras::new(),
            link: RegisterBlock::new(&link::REGISTERS),
            back_invalidate,
            hdm,
        })
    }

    /// The HDM decoders; `None` for root ports and downstream switch ports.
    pub fn hdm(&self) -> Option<&HdmDecoders> {
        self.hdm.as_ref()
    }

    /// The committed decoders of a host bridge or upstream switch port.
    pub fn port_decoders(&self) -> Vec<PortDecoder> {
        self.hdm
            .as_ref()
            .map_or_else(Vec::new, HdmDecoders::port_decoders)
    }

    /// The committed decoders of a device.
    pub fn endpoint_decoders(&self) -> Vec<EndpointDecoder> {
        self.hdm
            .as_ref()
            .map_or_else(Vec::new, HdmDecoders::endpoint_decoders)
    }

    /// Programs and commits an HDM decoder as firmware does: see [`HdmDecoders::program`].
    pub fn program_decoder(
        &mut self,
        index: usize,
        settings: &DecoderSettings,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        self.hdm
            .as_mut()
            .ok_or(Error::NoSuchDecoder(index))?
            .program(index, settings, effects)
    }

    /// Sets the HDM Decoder Enable bit, as firmware does after the last decoder.
    pub fn enable_decoders(&mut self, enabled: bool, effects: &mut Vec<Effect>) {
        if let Some(hdm) = &mut self.hdm {
            hdm.set_enabled(enabled, effects);
        }
    }

    /// Logs an error of CXL.cache or CXL.mem. True if the PCI function is to report it as an internal error (section 12.2).
    pub fn log_error(&mut self, error: ProtocolError) -> bool {
        self.ras.log(error)
    }

    /// The names of the uncorrectable and of the correctable errors that were logged and not cleared by software.
    pub fn logged_errors(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        self.ras.logged()
    }

    /// Puts every register back to its reset value but for the errors that were logged; committed decoders are released.
    pub fn reset(&mut self, effects: &mut Vec<Effect>) {
        self.ras.reset();
        self.link.reset();
        if let Some(back_invalidate) = &mut self.back_invalidate {
            back_invalidate.reset();
        }
        if let Some(hdm) = &mut self.hdm {
            hdm.reset(effects);
        }
    }

    /// Reads `data.len()` bytes at `offset` in the block, of any width and alignment.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        access::read(offset, data, |offset| match self.place(offset) {
            Place::Array(offset) => self.array_entry(offset),
            Place::Ras(offset) => self.ras.read(offset),
            Place::Link(offset) => self.link.read(offset),
            Place::BackInvalidate(offset) => self
                .back_invalidate
                .as_ref()
                .map_or(0, |structure| structure.read(offset)),
            Place::Hdm(offset) => self.hdm.as_ref().map_or(0, |hdm| hdm.read(offset)),
            Place::Reserved => 0,
        });
    }

    /// Writes 4 or 8 naturally aligned bytes at `offset` in the block; other writes do nothing.
    pub fn write(&mut self, offset: u64, data: &[u8], effects: &mut Vec<Effect>) {
        access::write(offset, data, |offset, value| match self.place(offset) {
            Place::Ras(offset) => self.ras.write(offset, value),
            Place::Link(offset) => self.link.write(offset, value),
            Place::BackInvalidate(offset) => {
                if let Some(structure) = &mut self.back_invalidate {
                    structure.write(offset, value);
                }
            }
            Place::Hdm(offset) => {
                if let Some(hdm) = &mut self.hdm {
                    hdm.write(offset, value, effects);
                }
            }
            Place::Array(_) | Place::Reserved => {}
        });
    }

    fn array_entry(&self, offset: u64) -> u32 {
        let index = usize::try_from(offset / access::DWORD).ok();
        index
            .and_then(|index| self.array.get(index))
            .copied()
            .unwrap_or(0)
    }

    fn place(&self, offset: u64) -> Place {
        let Some(offset) = offset.checked_sub(CACHEMEM) else {
            return Place::Reserved;
        };
        let hdm_len = self.hdm.as_ref().map_or(0, HdmDecoders::size);
        let within =
            |start: u64, len: u64| offset.checked_sub(start).filter(|offset| *offset < len);
        if let Some(offset) = within(0, self.array.len() as u64 * access::DWORD) {
            Place::Array(offset)
        } else if let Some(offset) = within(RAS, ras::LEN) {
            Place::Ras(offset)
        } else if let Some(offset) = within(LINK, link::LEN) {
            Place::Link(offset)
        } else if let Some(offset) = within(BACK_INVALIDATE, back_invalidate::LEN) {
            Place::BackInvalidate(offset)
        } else if let Some(offset) = within(HDM, hdm_len) {
            Place::Hdm(offset)
        } else {
            Place::Reserved
        }
    }
}

/// An entry of the capability array (section 8.2.4.2).
const fn pointer(id: u32, version: u32, offset: u64) -> u32 {
    id | version << 16 | (offset as u32) << 20
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::register::tests::walk;

    fn roles() -> [Role; 6] {
        let ports = vec![0, 1, 2, 3];
        [
            Role::HostBridge {
                decoders: 4,
                ports: ports.clone(),
            },
            Role::RootPort,
            Role::UpstreamSwitchPort {
                decoders: 10,
                ports,
            },
            Role::DownstreamSwitchPort,
            Role::Endpoint {
                decoders: 4,
                capacity: 4 << 30,
            },
            Role::Accelerator {
                decoders: 2,
                capacity: 4 << 30,
            },
        ]
    }

    fn dword(block: &ComponentRegisters, offset: u64) -> u32 {
        let mut data = [0; 4];
        block.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// The whole cachemem range and the first bytes of every other part.
    fn snapshot(block: &ComponentRegisters) -> Vec<u8> {
        let mut data = vec![0; 0x2000];
        block.read(0, &mut data);
        data
    }

    #[test]
    fn ras_registers_follow_their_table() {
        walk(&ras::REGISTERS);
    }

    #[test]
    fn link_registers_follow_their_table() {
        walk(&link::REGISTERS);
    }

    #[test]
    fn the_capability_array_leads_to_every_structure() {
        for role in roles() {
            let block = ComponentRegisters::new(&role).unwrap();
            let header = dword(&block, 0x1000);
            assert_eq!(header & 0x00ff_ffff, 0x0011_0001, "{role:?}");
            let ids: Vec<u32> = (1..=u64::from(header >> 24))
                .map(|n| dword(&block, 0x1000 + 4 * n) & 0xffff)
                .collect();
            match role {
                Role::RootPort | Role::DownstreamSwitchPort => assert_eq!(ids, [2, 4, 0xc]),
                Role::UpstreamSwitchPort { .. } => assert_eq!(ids, [2, 4, 5, 0xb]),
                Role::Accelerator { .. } => assert_eq!(ids, [2, 4, 5, 0xc]),
                Role::HostBridge { .. } | Role::Endpoint { .. } => assert_eq!(ids, [2, 4, 5]),
            }
        }
    }

    #[test]
    fn the_hdm_pointer_leads_to_the_decoder_count() {
        let block = ComponentRegisters::new(&roles()[2]).unwrap();
        let pointer = u64::from(dword(&block, 0x100c) >> 20);
        assert_eq!(dword(&block, 0x1000 + pointer) & 0xf, 5, "ten decoders");
    }

    #[test]
    fn ras_masks_are_set_after_reset() {
        let block = ComponentRegisters::new(&Role::RootPort).unwrap();
        let ras = 0x1000 + u64::from(dword(&block, 0x1004) >> 20);
        assert_eq!(dword(&block, ras + 4), 0x0001_cfff);
        assert_eq!(dword(&block, ras + 0x10), 0x7f);
    }

    #[test]
    fn back_invalidation_is_enabled_from_the_device_up() {
        const ENABLE: u32 = 0b10;
        const COMMIT: u32 = 0b100;
        let [_, root, upstream, downstream, expander, accelerator] =
            roles().map(|role| ComponentRegisters::new(&role).unwrap());
        let control = 0x11c4;
        let written = |mut block: ComponentRegisters, value: u32| {
            block.write(control, &value.to_le_bytes(), &mut Vec::new());
            (dword(&block, control), dword(&block, control + 4))
        };
        assert_eq!(written(accelerator, ENABLE), (ENABLE, 0));
        for port in [root, downstream] {
            assert_eq!(written(port, ENABLE | COMMIT), (ENABLE | COMMIT, 1));
        }
        assert_eq!(written(upstream, 1), (1, 1), "the route table");
        assert_eq!(written(expander, u32::MAX), (0, 0), "HDM-H needs none");
    }

    #[test]
    fn a_decoder_commits_through_qword_writes() {
        let mut block = ComponentRegisters::new(&roles()[4]).unwrap();
        let mut effects = Vec::new();
        let base = 0x10_0000_0000_u64;
        block.write(0x1210, &base.to_le_bytes(), &mut effects);
        block.write(0x1218, &(1_u64 << 30).to_le_bytes(), &mut effects);
        block.write(0x1220, &0x200_u32.to_le_bytes(), &mut effects);
        assert_eq!(effects, [Effect::DecoderCommitted { decoder: 0 }]);
        let mut data = [0; 8];
        block.read(0x1210, &mut data);
        assert_eq!(u64::from_le_bytes(data), base);

        block.enable_decoders(true, &mut effects);
        assert_eq!(block.endpoint_decoders()[0].base, base);
        assert!(block.port_decoders().is_empty());
    }

    #[test]
    fn a_port_without_decoders_has_none_to_program() {
        let mut block = ComponentRegisters::new(&Role::RootPort).unwrap();
        let settings = DecoderSettings {
            base: 0,
            size: 1 << 30,
            interleave: crate::Interleave::NONE,
            coherency: crate::hdm::Coherency::Host,
            lock: false,
            destination: crate::hdm::Destination::Targets(vec![0]),
        };
        assert_eq!(
            block.program_decoder(0, &settings, &mut Vec::new()),
            Err(Error::NoSuchDecoder(0))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// 64 cases of 256 accesses: more than 16,000.
        #[test]
        fn no_access_panics_and_reset_restores_reset_values(
            role in 0..6_usize,
            accesses in prop::collection::vec(
                (any::<bool>(), prop_oneof![0x1000..0x1400_u64, any::<u64>()],
                 any::<[u8; 8]>(), prop_oneof![Just(4_usize), Just(8), 0..9_usize], any::<bool>()),
                256,
            ),
        ) {
            let mut block = ComponentRegisters::new(&roles()[role]).unwrap();
            let fresh = snapshot(&block);
            let mut effects = Vec::new();
            for (write, offset, mut data, len, align) in accesses {
                let offset = if align { offset & !7 } else { offset };
                if write {
                    block.write(offset, &data[..len], &mut effects);
                } else {
                    block.read(offset, &mut data[..len]);
                }
            }
            block.reset(&mut effects);
            prop_assert_eq!(snapshot(&block), fresh);
            let changes = |wanted: fn(&Effect) -> bool| effects.iter().filter(|e| wanted(e)).count();
            prop_assert_eq!(
                changes(|e| matches!(e, Effect::DecoderCommitted { .. })),
                changes(|e| matches!(e, Effect::DecoderReleased { .. }))
            );
        }
    }
}
