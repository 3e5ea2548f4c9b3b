//! A function's registers, and the lanes that are in it.

use super::lanes::{Lanes, WARP};
use super::launch::Launch;
use crate::ptx::ir::{Function, Pred, PredValue, Reg, Special, Value};

/// Where a frame's lanes go when they return.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub frame: usize,
    /// The instruction after the call.
    pub pc: usize,
}

#[derive(Debug, Default)]
pub struct Frame {
    pub function: usize,
    regs: Vec<Lanes>,
    preds: Vec<u32>,
    /// The carry bit of each lane.
    pub carry: u32,
    /// Where the frame's part of each thread's local memory begins, and where it ends.
    pub local: u64,
    pub local_end: u64,
    pub caller: Option<Caller>,
    /// Lanes that have entered and not left.
    pub live: u32,
}

impl Frame {
    pub fn new(index: usize, function: &Function, local: u64, live: u32) -> Self {
        let local = local.next_multiple_of(16);
        Self {
            function: index,
            regs: vec![[0; WARP]; function.registers.len()],
            preds: vec![0; function.predicates as usize],
            carry: 0,
            local,
            local_end: local + function.local_bytes,
            caller: None,
            live,
        }
    }

    /// What the frame costs the host: its registers, and a page for what stands beside them.
    pub fn host_bytes(&self) -> usize {
        self.regs.len() * size_of::<Lanes>() + 4096
    }

    pub fn reg(&self, reg: Reg) -> &Lanes {
        &self.regs[reg as usize]
    }

    /// Writes the lanes of `mask`.
    pub fn set(&mut self, reg: Reg, mask: u32, values: &Lanes) {
        let target = &mut self.regs[reg as usize];
        if mask == u32::MAX {
            *target = *values;
            return;
        }
        for lane in 0..WARP {
            if mask >> lane & 1 != 0 {
                target[lane] = values[lane];
            }
        }
    }

    pub fn set_lane(&mut self, reg: Reg, lane: usize, value: u64) {
        self.regs[reg as usize][lane] = value;
    }

    /// The lanes for which a predicate holds.
    pub fn pred(&self, pred: PredValue) -> u32 {
        match pred {
            PredValue::Const(true) => u32::MAX,
            PredValue::Const(false) => 0,
            PredValue::Reg { index, negated } => {
                let value = self.preds[index as usize];
                if negated { !value } else { value }
            }
        }
    }

    pub fn set_pred(&mut self, pred: Pred, mask: u32, value: u32) {
        let target = &mut self.preds[pred as usize];
        *target = *target & !mask | value & mask;
    }
}

/// What distinguishes a warp from others of its grid.
#[derive(Debug)]
pub struct Identity {
    pub block: [u32; 3],
    pub warp: u32,
    pub worker: u32,
    /// Thread index in the block, by dimension.
    pub tid: [Lanes; 3],
}

impl Identity {
    pub fn new(launch: &Launch<'_>, block: [u32; 3], warp: u32, worker: u32) -> Self {
        let [width, height, _] = launch.block.map(u64::from);
        let thread = |lane: usize| u64::from(warp) * WARP as u64 + lane as u64;
        Self {
            block,
            warp,
            worker,
            tid: [
                std::array::from_fn(|lane| thread(lane) % width),
                std::array::from_fn(|lane| thread(lane) / width % height),
                std::array::from_fn(|lane| thread(lane) / (width * height)),
            ],
        }
    }

    fn special(&self, launch: &Launch<'_>, special: Special) -> Lanes {
        let by_lane = |f: fn(u32) -> u32| std::array::from_fn(|lane| u64::from(f(lane as u32)));
        let same = |value: u64| [value; WARP];
        match special {
            Special::Tid(dimension) => self.tid[dimension],
            Special::Ntid(dimension) => same(launch.block[dimension].into()),
            Special::Ctaid(dimension) => same(self.block[dimension].into()),
            Special::Nctaid(dimension) => same(launch.grid[dimension].into()),
            Special::LaneId => by_lane(|lane| lane),
            Special::WarpId => same(self.warp.into()),
            Special::NWarpId => same(u64::from(launch.threads().div_ceil(WARP as u32))),
            Special::SmId => same(self.worker.into()),
            Special::NSmId => same(launch.workers.into()),
            Special::GridId => same(launch.id),
            Special::LaneMaskEq => by_lane(|lane| 1 << lane),
            Special::LaneMaskLe => by_lane(|lane| u32::MAX >> (31 - lane)),
            Special::LaneMaskLt => by_lane(|lane| (1 << lane) - 1),
            Special::LaneMaskGe => by_lane(|lane| u32::MAX << lane),
            Special::LaneMaskGt => by_lane(|lane| !(u32::MAX >> (31 - lane))),
            Special::Clock => same(launch.nanoseconds() & u64::from(u32::MAX)),
            Special::Clock64 | Special::GlobalTimer => same(launch.nanoseconds()),
            Special::DynamicSharedSize => same(launch.dynamic_shared.into()),
            Special::TotalSharedSize => same(launch.shared_bytes),
        }
    }

    /// A source operand for all lanes.
    pub fn value(&self, launch: &Launch<'_>, frame: &Frame, value: Value) -> Lanes {
        match value {
            Value::Reg(reg) => *frame.reg(reg),
            Value::Imm(value) => [value; WARP],
            Value::Special(special) => self.special(launch, special),
            Value::Global { variable, offset } => {
                [launch.globals[variable].wrapping_add_signed(offset); WARP]
            }
            Value::Shared { variable, offset } => {
                [launch.shared_offsets[variable].wrapping_add_signed(offset); WARP]
            }
            Value::Local(offset) => [frame.local.wrapping_add_signed(offset); WARP],
        }
    }
}
