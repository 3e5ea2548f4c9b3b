//! Host-managed device memory decoders (section 8.2.4.20).
//!
//! A port's decoder routes a range of host addresses to a list of its ports; an endpoint's decoder
//! turns a range of host addresses into device addresses, which follow those of the decoder before
//! it. Software programs a decoder, sets its commit bit, and the component answers with committed or
//! error. Decoders commit in increasing and are released in decreasing order; a committed decoder's
//! other registers do not change.

mod rules;
mod spec;
#[cfg(test)]
mod tests;

pub use rules::CommitFault;
pub use spec::{DecoderControl, GlobalControl, HdmCapability};

use crate::access::{high, low, set_high, set_low};
use crate::interleave::Interleave;
use crate::{Effect, Error};
use spec::decoder;

/// Entries of a target list: one byte each in two registers.
pub const MAX_TARGETS: usize = 8;

/// The decoders of one component, with their capability and global control registers.
#[derive(Debug)]
pub struct HdmDecoders {
    side: Side,
    capability: HdmCapability,
    global: GlobalControl,
    decoders: Vec<Decoder>,
}

/// What lies behind the decoders.
#[derive(Debug)]
enum Side {
    /// Host bridge or upstream switch port: the port numbers of its dports.
    Port { ports: Vec<u8> },
    /// Device: bytes of device address space, and who keeps it coherent.
    Endpoint { capacity: u64, coherency: Coherency },
}

/// Who keeps a device's memory coherent (section 8.2.4.20.7, Target Range Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherency {
    /// The host alone: HDM-H, of a Type 3 device.
    Host,
    /// The device: HDM-D, or HDM-DB where software sets Back-Invalidate, of a Type 2 device.
    Device,
}

impl Coherency {
    /// The code of the capability register (section 8.2.4.20.1, Supported Coherency Models).
    const fn code(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::Host => 2,
        }
    }
}

/// The registers of one decoder.
#[derive(Clone, Debug, Default)]
struct Decoder {
    base: u64,
    size: u64,
    control: DecoderControl,
    /// Target list of a port, DPA skip of an endpoint.
    destination: u64,
}

/// What to program into a decoder: see [`HdmDecoders::program`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderSettings {
    /// First host address, a multiple of 256 MiB.
    pub base: u64,
    /// Bytes of host address space, a multiple of 256 MiB times the ways.
    pub size: u64,
    /// Of this level: a port's own, the whole set's on an endpoint.
    pub interleave: Interleave,
    /// Of the memory there: the target range type of a port's decoder. A device has but one.
    pub coherency: Coherency,
    /// Keep the decoder as it is until the next reset.
    pub lock: bool,
    /// Where the range goes.
    pub destination: Destination,
}

/// Where a decoder's range goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Port numbers in position order, at most [`MAX_TARGETS`].
    Targets(Vec<u8>),
    /// Bytes of device address space to leave out before this range.
    DpaSkip(u64),
}

/// A committed decoder of a host bridge or an upstream switch port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDecoder {
    /// First host address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// How the range is spread over the targets.
    pub interleave: Interleave,
    /// Port numbers in position order, one per way.
    pub targets: Vec<u8>,
}

/// A committed decoder of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointDecoder {
    /// First host address.
    pub base: u64,
    /// Bytes of host address space of the whole set.
    pub size: u64,
    /// The whole set's interleave.
    pub interleave: Interleave,
    /// First device address.
    pub dpa: u64,
}

impl HdmDecoders {
    /// `count` decoders in front of `ports` (port numbers, as in their link capability registers).
    ///
    /// `count` is 1, 2, 4, 6, 8 or 10, else [`Error::DecoderCount`].
    pub fn port(count: usize, ports: &[u8]) -> Result<Self, Error> {
        let capability = capability(count)?.with_target_count(MAX_TARGETS as u8);
        let ports = ports.to_vec();
        Ok(Self::new(Side::Port { ports }, capability, count))
    }

    /// `count` decoders of a device with `capacity` bytes of device address space.
    ///
    /// `count` is 1, 2, 4, 6, 8 or 10, else [`Error::DecoderCount`].
    pub fn endpoint(count: usize, capacity: u64) -> Result<Self, Error> {
        let capability = capability(count)?
            .with_interleave_3_6_12(true)
            .with_interleave_16(true);
        let coherency = Coherency::Host;
        Ok(Self::new(
            Side::Endpoint {
                capacity,
                coherency,
            },
            capability,
            count,
        ))
    }

    /// `count` decoders of a Type 2 device with `capacity` bytes, which are not interleaved with others'.
    ///
    /// `count` is 1, 2, 4, 6, 8 or 10, else [`Error::DecoderCount`].
    pub fn accelerator(count: usize, capacity: u64) -> Result<Self, Error> {
        let coherency = Coherency::Device;
        let capability = capability(count)?.with_coherency_models(coherency.code());
        Ok(Self::new(
            Side::Endpoint {
                capacity,
                coherency,
            },
            capability,
            count,
        ))
    }

    fn new(side: Side, capability: HdmCapability, count: usize) -> Self {
        let mut decoders = Self {
            decoders: vec![Decoder::default(); count],
            global: GlobalControl::new(),
            capability,
            side,
        };
        decoders.reset(&mut Vec::new());
        decoders
    }

    /// Bytes of the capability structure.
    pub fn size(&self) -> u64 {
        spec::DECODERS + self.decoders.len() as u64 * spec::DECODER_STRIDE
    }

    /// Number of decoders; never zero.
    pub fn count(&self) -> usize {
        self.decoders.len()
    }

    /// True if committed decoders decode: on a device while the HDM Decoder Enable bit is set. A port has no such bit
    /// (section 8.2.4.20.2: it reads 0 on host bridges and upstream switch ports) and its decoders always decode.
    pub fn is_enabled(&self) -> bool {
        self.global.enable() || matches!(self.side, Side::Port { .. })
    }

    /// True if decoder `index` is committed, enabled or not.
    pub fn is_committed(&self, index: usize) -> bool {
        self.decoders
            .get(index)
            .is_some_and(|decoder| decoder.control.committed())
    }

    /// Releases every decoder, unlocks them and clears all registers.
    pub fn reset(&mut self, effects: &mut Vec<Effect>) {
        for index in (0..self.decoders.len()).rev() {
            if self.is_committed(index) {
                effects.push(Effect::DecoderReleased {
                    decoder: index as u8,
                });
            }
        }
        let host_only = matches!(self.side, Side::Endpoint { .. }) && !self.is_accelerator();
        self.decoders.fill(Decoder {
            control: DecoderControl::new().with_host_only(host_only),
            ..Decoder::default()
        });
        self.set_enabled(false, effects);
    }

    /// Sets the HDM Decoder Enable bit of a device.
    pub fn set_enabled(&mut self, enabled: bool, effects: &mut Vec<Effect>) {
        if matches!(self.side, Side::Endpoint { .. }) && self.global.enable() != enabled {
            self.global.set_enable(enabled);
            effects.push(Effect::DecodersEnabled(enabled));
        }
    }

    /// Programs and commits decoder `index`, as platform firmware does before the system starts.
    ///
    /// The settings go through the same rules as a guest's. After an error the decoder is as before.
    pub fn program(
        &mut self,
        index: usize,
        settings: &DecoderSettings,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        if self.is_committed(index) {
            return Err(Error::DecoderCommitted(index));
        }
        let mut decoder = self
            .decoders
            .get(index)
            .ok_or(Error::NoSuchDecoder(index))?
            .clone();
        for (what, bytes) in [
            ("decoder base", settings.base),
            ("decoder size", settings.size),
        ] {
            aligned(what, bytes)?;
        }
        decoder.base = settings.base;
        decoder.size = settings.size;
        decoder.destination = self.destination(&settings.destination)?;
        decoder.control = decoder
            .control
            .with_granularity(settings.interleave.granularity.code())
            .with_ways(settings.interleave.ways.code())
            .with_lock_on_commit(settings.lock)
            .with_host_only(match self.side {
                Side::Port { .. } => settings.coherency == Coherency::Host,
                Side::Endpoint { coherency, .. } => coherency == Coherency::Host,
            })
            .with_commit(true)
            .with_committed(true)
            .with_error(false);
        self.check(index, &decoder).map_err(|fault| Error::Commit {
            decoder: index,
            fault,
        })?;
        if let Some(slot) = self.decoders.get_mut(index) {
            *slot = decoder;
            effects.push(Effect::DecoderCommitted {
                decoder: index as u8,
            });
        }
        Ok(())
    }

    fn is_accelerator(&self) -> bool {
        matches!(
            self.side,
            Side::Endpoint {
                coherency: Coherency::Device,
                ..
            }
        )
    }

    /// The register value for a destination of the right kind.
    fn destination(&self, destination: &Destination) -> Result<u64, Error> {
        match (&self.side, destination) {
            (Side::Port { .. }, Destination::Targets(targets)) if targets.len() <= MAX_TARGETS => {
                let mut list = [0; MAX_TARGETS];
                for (entry, port) in list.iter_mut().zip(targets) {
                    *entry = *port;
                }
                Ok(u64::from_le_bytes(list))
            }
            (Side::Endpoint { .. }, Destination::DpaSkip(skip)) => aligned("DPA skip", *skip),
            (_, Destination::Targets(targets)) => Err(Error::TooLarge {
                what: "number of targets",
                value: targets.len() as u64,
                max: match self.side {
                    Side::Port { .. } => MAX_TARGETS as u64,
                    Side::Endpoint { .. } => 0,
                },
            }),
            (_, Destination::DpaSkip(skip)) => Err(Error::TooLarge {
                what: "DPA skip of a port",
                value: *skip,
                max: 0,
            }),
        }
    }

    /// The committed decoders of a port; none on an endpoint.
    pub fn port_decoders(&self) -> Vec<PortDecoder> {
        if !matches!(self.side, Side::Port { .. }) {
            return Vec::new();
        }
        let decode = |decoder: &Decoder| {
            let interleave = decoder.interleave().ok()?;
            let ways = interleave.ways.count() as usize;
            Some(PortDecoder {
                base: decoder.base,
                size: decoder.size,
                interleave,
                targets: decoder.targets().into_iter().take(ways).collect(),
            })
        };
        self.committed()
            .filter_map(|(_, decoder)| decode(decoder))
            .collect()
    }

    /// The committed decoders of a device; none while the enable bit is clear, or on a port.
    pub fn endpoint_decoders(&self) -> Vec<EndpointDecoder> {
        if !self.global.enable() || !matches!(self.side, Side::Endpoint { .. }) {
            return Vec::new();
        }
        let decode = |(index, decoder): (usize, &Decoder)| {
            Some(EndpointDecoder {
                base: decoder.base,
                size: decoder.size,
                interleave: decoder.interleave().ok()?,
                dpa: self.dpa_base(index, decoder.destination)?,
            })
        };
        self.committed().filter_map(decode).collect()
    }

    fn committed(&self) -> impl Iterator<Item = (usize, &Decoder)> {
        self.decoders
            .iter()
            .enumerate()
            .filter(|(_, decoder)| decoder.control.committed())
    }

    /// First device address of decoder `index`: all skips and sizes before it, and its own `skip`.
    ///
    /// Section 8.2.4.20.9. Only committed decoders precede a committed one.
    fn dpa_base(&self, index: usize, skip: u64) -> Option<u64> {
        self.decoders
            .iter()
            .take(index)
            .try_fold(skip, |dpa, decoder| {
                dpa.checked_add(decoder.destination)?
                    .checked_add(decoder.dpa_size()?)
            })
    }

    /// Reads the register at `offset` from the start of the structure.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            spec::CAPABILITY => self.capability.into_bits(),
            spec::GLOBAL_CONTROL => self.global.into_bits(),
            _ => locate(offset).map_or(0, |(index, register)| {
                self.decoders
                    .get(index)
                    .map_or(0, |decoder| decoder.read(register))
            }),
        }
    }

    /// Writes the register at `offset` from the start of the structure.
    pub fn write(&mut self, offset: u64, value: u32, effects: &mut Vec<Effect>) {
        if offset == spec::GLOBAL_CONTROL {
            self.set_enabled(GlobalControl::from_bits(value).enable(), effects);
        } else if let Some((index, register)) = locate(offset) {
            if register == decoder::CONTROL {
                self.write_control(index, DecoderControl::from_bits(value), effects);
            } else {
                self.write_settings(index, register, value);
            }
        }
    }

    /// Writes any register of a decoder but its control register; a committed decoder's do not change.
    fn write_settings(&mut self, index: usize, register: u64, value: u32) {
        let is_endpoint = matches!(self.side, Side::Endpoint { .. });
        let Some(decoder) = self.decoders.get_mut(index) else {
            return;
        };
        if decoder.control.committed() {
            return;
        }
        let aligned = value & spec::LOW_WRITABLE;
        match register {
            decoder::BASE_LOW => set_low(&mut decoder.base, aligned),
            decoder::BASE_HIGH => set_high(&mut decoder.base, value),
            decoder::SIZE_LOW => set_low(&mut decoder.size, aligned),
            decoder::SIZE_HIGH => set_high(&mut decoder.size, value),
            decoder::DESTINATION_LOW if is_endpoint => set_low(&mut decoder.destination, aligned),
            decoder::DESTINATION_LOW => set_low(&mut decoder.destination, value),
            decoder::DESTINATION_HIGH => set_high(&mut decoder.destination, value),
            _ => {}
        }
    }

    fn write_control(&mut self, index: usize, value: DecoderControl, effects: &mut Vec<Effect>) {
        let writable = match self.side {
            Side::Port { .. } => DecoderControl::PORT_WRITABLE,
            Side::Endpoint {
                coherency: Coherency::Host,
                ..
            } => DecoderControl::ENDPOINT_WRITABLE,
            Side::Endpoint {
                coherency: Coherency::Device,
                ..
            } => DecoderControl::ACCELERATOR_WRITABLE,
        };
        let next_is_committed = self.is_committed(index + 1);
        let Some(decoder) = self.decoders.get_mut(index) else {
            return;
        };
        let control = decoder.control;
        if control.committed() {
            // Nothing but a release changes a committed decoder, and the last one goes first.
            if !value.commit() && !control.lock_on_commit() && !next_is_committed {
                decoder.control = control.with_commit(false).with_committed(false);
                effects.push(Effect::DecoderReleased {
                    decoder: index as u8,
                });
            }
            return;
        }
        let bits = control.into_bits() & !writable | value.into_bits() & writable;
        decoder.control = DecoderControl::from_bits(bits).with_error(false);
        if value.commit() {
            let candidate = decoder.clone();
            let accepted = self.check(index, &candidate).is_ok();
            if let Some(decoder) = self.decoders.get_mut(index) {
                decoder.control.set_committed(accepted);
                decoder.control.set_error(!accepted);
            }
            if accepted {
                effects.push(Effect::DecoderCommitted {
                    decoder: index as u8,
                });
            }
        }
    }
}

impl Decoder {
    fn read(&self, register: u64) -> u32 {
        match register {
            decoder::BASE_LOW => low(self.base),
            decoder::BASE_HIGH => high(self.base),
            decoder::SIZE_LOW => low(self.size),
            decoder::SIZE_HIGH => high(self.size),
            decoder::CONTROL => self.control.into_bits(),
            decoder::DESTINATION_LOW => low(self.destination),
            decoder::DESTINATION_HIGH => high(self.destination),
            _ => 0,
        }
    }

    /// First address after the range; a committed range does not wrap.
    fn end(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// Bytes of device address space on each way.
    fn dpa_size(&self) -> Option<u64> {
        let interleave = self.interleave().ok()?;
        Some(self.size / interleave.ways.count())
    }

    fn targets(&self) -> [u8; MAX_TARGETS] {
        self.destination.to_le_bytes()
    }
}

/// The capability register of every block here: all granularities, no poison on decode errors.
fn capability(count: usize) -> Result<HdmCapability, Error> {
    let code = match count {
        1 => 0,
        2 | 4 | 6 | 8 | 10 => (count / 2) as u8,
        _ => return Err(Error::DecoderCount(count)),
    };
    Ok(HdmCapability::new()
        .with_decoder_count(code)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true))
}

/// Splits an offset into the decoder's index and the register within the decoder.
fn locate(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(spec::DECODERS)?;
    let index = usize::try_from(offset / spec::DECODER_STRIDE).ok()?;
    Some((index, offset % spec::DECODER_STRIDE))
}

/// Checks that a value fits a register pair of bits 63:28.
fn aligned(what: &'static str, bytes: u64) -> Result<u64, Error> {
    let unit = crate::CAPACITY_UNIT;
    if bytes.is_multiple_of(unit) {
        Ok(bytes)
    } else {
        Err(Error::Unaligned { what, bytes, unit })
    }
}
