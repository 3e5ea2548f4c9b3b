//! MLD Component command set (section 7.6.7.4), opcodes 0x5400 to 0x5409.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::memdev::Memdev;
use crate::memdev::fabric::{Allocation, BANDWIDTH_PARTS, Fabric, QosControl};

/// Get LD Info (section 7.6.7.4.1).
pub(super) struct GetInfo;

pub(super) struct Info {
    memory: u64,
    count: u8,
}

impl Info {
    /// Its egress port can be asked for congestion.
    const EGRESS_CONGESTION: u8 = 1 << 0;
}

impl Reply for Info {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.memory.to_le_bytes());
        output.extend(u16::from(self.count).to_le_bytes());
        output.push(Self::EGRESS_CONGESTION);
    }
}

impl Command for GetInfo {
    const OPCODE: u16 = 0x5400;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Info;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Info, ReturnCode> {
        let (count, _) = memdev.sharing().logical_devices();
        Ok(Info {
            memory: memdev.shared_capacity(),
            count,
        })
    }
}

/// Which logical devices a command is for, of `count`, if there are that many and any.
fn range(start: u8, len: usize, count: usize) -> Result<Range<usize>, ReturnCode> {
    let start = usize::from(start);
    let end = start
        .checked_add(len)
        .filter(|end| *end <= count && len != 0);
    end.map(|end| start..end).ok_or(ReturnCode::InvalidInput)
}

/// Get LD Allocations (section 7.6.7.4.2).
pub(super) struct GetAllocations;

/// First logical device, and how many at most.
pub(super) struct ListRequest {
    pub start: u8,
    pub limit: u8,
}

impl Request for ListRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [start, limit] = input.array()?;
        Some(Self { start, limit })
    }
}

impl ListRequest {
    /// Which of `count` they are; at least one.
    pub(super) fn of(&self, count: usize) -> Result<Range<usize>, ReturnCode> {
        let left = count.saturating_sub(self.start.into());
        range(self.start, left.min(self.limit.into()), count)
    }
}

pub(super) struct Allocations {
    count: u8,
    start: u8,
    list: Vec<Allocation>,
}

fn encode_list(list: &[Allocation], output: &mut Vec<u8>) {
    for allocation in list {
        output.extend(allocation.range1.to_le_bytes());
        output.extend(allocation.range2.to_le_bytes());
    }
}

impl Reply for Allocations {
    fn encode(&self, output: &mut Vec<u8>) {
        /// Memory granularity: 256 MiB.
        const GRANULARITY: u8 = 0;
        let len = self.list.len() as u8;
        output.extend([self.count, GRANULARITY, self.start, len]);
        encode_list(&self.list, output);
    }
}

impl Command for GetAllocations {
    const OPCODE: u16 = 0x5401;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ListRequest;
    type Reply = Allocations;

    fn run(
        memdev: &mut Memdev,
        request: ListRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Allocations, ReturnCode> {
        let allocations = &memdev.fabric().allocations;
        let which = request.of(allocations.len())?;
        Ok(Allocations {
            count: allocations.len() as u8,
            start: request.start,
            list: allocations[which].to_vec(),
        })
    }
}

/// Set LD Allocations (section 7.6.7.4.3). This host's is fixed, as long as its machine runs.
pub(super) struct SetAllocations;

/// Allocations from a logical device on.
pub(super) struct AllocationList {
    start: u8,
    list: Vec<Allocation>,
}

impl Request for AllocationList {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [count, start, _, _] = input.array()?;
        let list = (0..count).map(|_| {
            Some(Allocation {
                range1: input.u64()?,
                range2: input.u64()?,
            })
        });
        let list = list.collect::<Option<_>>()?;
        Some(Self { start, list })
    }
}

impl Reply for AllocationList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.list.len() as u8, self.start, 0, 0]);
        encode_list(&self.list, output);
    }
}

impl Command for SetAllocations {
    const OPCODE: u16 = 0x5402;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    type Request = AllocationList;
    type Reply = AllocationList;

    fn run(
        memdev: &mut Memdev,
        request: AllocationList,
        _: &mut Vec<Effect>,
    ) -> Result<AllocationList, ReturnCode> {
        let (_, own) = memdev.sharing().logical_devices();
        let mut wanted = memdev.fabric().allocations.clone();
        let which = range(request.start, request.list.len(), wanted.len())?;
        wanted[which].copy_from_slice(&request.list);
        let granules = memdev.shared_capacity() / crate::CAPACITY_UNIT;
        let ranges = wanted.iter().flat_map(|part| [part.range1, part.range2]);
        let total = ranges.map(u128::from).sum::<u128>();
        let own = usize::from(own);
        if total > granules.into() || wanted.get(own) != memdev.fabric().allocations.get(own) {
            return Err(ReturnCode::InvalidInput);
        }
        memdev.fabric_mut().allocations = wanted;
        Ok(request)
    }
}

/// Get QoS Control (section 7.6.7.4.4).
pub(super) struct GetQosControl;

impl Request for QosControl {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            telemetry: input.u8()?,
            moderate: input.u8()?,
            severe: input.u8()?,
            sample_interval: input.u8()?,
            completion_basis: input.u16()?,
            collection_interval: input.u8()?,
        })
    }
}

impl Reply for QosControl {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([
            self.telemetry,
            self.moderate,
            self.severe,
            self.sample_interval,
        ]);
        output.extend(self.completion_basis.to_le_bytes());
        output.push(self.collection_interval);
    }
}

impl QosControl {
    fn is_valid(&self) -> bool {
        /// What there is to be enabled.
        const TELEMETRY: u8 = 0b11;
        const PERCENT: std::ops::RangeInclusive<u8> = 1..=100;
        const MAX_SAMPLE_INTERVAL: u8 = 15;
        self.telemetry & !TELEMETRY == 0
            && PERCENT.contains(&self.moderate)
            && PERCENT.contains(&self.severe)
            && self.sample_interval <= MAX_SAMPLE_INTERVAL
    }
}

impl Command for GetQosControl {
    const OPCODE: u16 = 0x5403;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = QosControl;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<QosControl, ReturnCode> {
        Ok(memdev.fabric().qos)
    }
}

/// Set QoS Control (section 7.6.7.4.5).
pub(super) struct SetQosControl;

impl Command for SetQosControl {
    const OPCODE: u16 = 0x5404;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = QosControl;
    type Reply = QosControl;

    fn run(
        memdev: &mut Memdev,
        control: QosControl,
        _: &mut Vec<Effect>,
    ) -> Result<QosControl, ReturnCode> {
        if !control.is_valid() {
            return Err(ReturnCode::InvalidInput);
        }
        memdev.fabric_mut().qos = control;
        Ok(control)
    }
}

/// Get QoS Status (section 7.6.7.4.6).
pub(super) struct GetQosStatus;

/// Percent of the time in which the egress port was held up.
pub(super) struct Backpressure(u8);

impl Reply for Backpressure {
    fn encode(&self, output: &mut Vec<u8>) {
        output.push(self.0);
    }
}

impl Command for GetQosStatus {
    const OPCODE: u16 = 0x5405;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Backpressure;

    fn run(_: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Backpressure, ReturnCode> {
        // A load is the host's own, from mapped memory: none waits in a queue of the device's.
        Ok(Backpressure(0))
    }
}

/// One of the two parts of the bandwidth that each logical device has.
pub(super) trait Bandwidth {
    const GET: u16;
    const SET: u16;
    /// The most that all parts may come to.
    const MOST: u16;

    fn of(fabric: &mut Fabric) -> &mut Vec<u8>;
}

/// What it is sure of (sections 7.6.7.4.7 and 7.6.7.4.8); all are sure of no more than there is.
pub(super) struct Allocated;

impl Bandwidth for Allocated {
    const GET: u16 = 0x5406;
    const SET: u16 = 0x5407;
    const MOST: u16 = BANDWIDTH_PARTS;

    fn of(fabric: &mut Fabric) -> &mut Vec<u8> {
        &mut fabric.bandwidth
    }
}

/// What it does not exceed (sections 7.6.7.4.9 and 7.6.7.4.10).
pub(super) struct Limit;

impl Bandwidth for Limit {
    const GET: u16 = 0x5408;
    const SET: u16 = 0x5409;
    const MOST: u16 = u16::MAX;

    fn of(fabric: &mut Fabric) -> &mut Vec<u8> {
        &mut fabric.limits
    }
}

/// Get QoS Allocated BW, Get QoS BW Limit.
pub(super) struct GetBandwidth<B>(PhantomData<B>);

/// How many, and the first logical device.
pub(super) struct BandwidthRequest {
    count: u8,
    start: u8,
}

impl Request for BandwidthRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [count, start] = input.array()?;
        Some(Self { count, start })
    }
}

/// Parts of the bandwidth from a logical device on.
pub(super) struct Fractions {
    start: u8,
    list: Vec<u8>,
}

impl Request for Fractions {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [count, start] = input.array()?;
        let list = (0..count).map(|_| input.u8()).collect::<Option<_>>()?;
        Some(Self { start, list })
    }
}

impl Reply for Fractions {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.list.len() as u8, self.start]);
        output.extend(&self.list);
    }
}

impl<B: Bandwidth> Command for GetBandwidth<B> {
    const OPCODE: u16 = B::GET;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = BandwidthRequest;
    type Reply = Fractions;

    fn run(
        memdev: &mut Memdev,
        BandwidthRequest { count, start }: BandwidthRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Fractions, ReturnCode> {
        let parts = B::of(memdev.fabric_mut());
        let which = range(start, count.into(), parts.len())?;
        let list = parts[which].to_vec();
        Ok(Fractions { start, list })
    }
}

/// Set QoS Allocated BW, Set QoS BW Limit.
pub(super) struct SetBandwidth<B>(PhantomData<B>);

impl<B: Bandwidth> Command for SetBandwidth<B> {
    const OPCODE: u16 = B::SET;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_CONFIGURATION;
    type Request = Fractions;
    type Reply = Fractions;

    fn run(
        memdev: &mut Memdev,
        request: Fractions,
        _: &mut Vec<Effect>,
    ) -> Result<Fractions, ReturnCode> {
        let parts = B::of(memdev.fabric_mut());
        let mut wanted = parts.clone();
        let which = range(request.start, request.list.len(), wanted.len())?;
        wanted[which].copy_from_slice(&request.list);
        if wanted.iter().copied().map(u16::from).sum::<u16>() > B::MOST {
            return Err(ReturnCode::InvalidInput);
        }
        *parts = wanted;
        Ok(request)
    }
}
