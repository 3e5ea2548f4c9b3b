//! A warp: which of its lanes are where, and how they part and meet again.
//!
//! Lanes that are at one place form a [`Split`]. A branch whose lanes disagree makes two splits of one and a
//! [`Join`] at the branch's post-dominator, where the early ones wait for the late ones. Every split runs in
//! turn, so lanes that wait for other lanes of their warp in a loop do not stop them; if lanes have looped for long while
//! others wait at a join, the waiting ones go on alone.

use std::collections::VecDeque;

use super::collective;
use super::frame::{Frame, Identity};
use super::lanes::{Lanes, lanes_of};
use super::launch::Launch;
use super::memory::{LocalMemory, Spaces};
use super::step::Step;
use crate::Fault;
use crate::ptx::ir::{BarOp, Inst, Op, Value};

/// Instructions that a split executes before another split of the warp has its turn.
const QUANTUM: u32 = 1024;
/// Turns without a meeting after which lanes that wait for others go on alone.
const PATIENCE: u32 = 8;

/// Lanes that execute together.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    pub pc: usize,
    pub mask: u32,
    pub frame: usize,
    pub(super) join: Option<usize>,
}

/// Where lanes wait for each other.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) frame: usize,
    /// `None`: where the function returns.
    pub(super) pc: Option<usize>,
    pending: u32,
    arrived: u32,
    parent: Option<usize>,
}

/// Lanes at a barrier of the block.
#[derive(Clone, Copy, Debug)]
pub struct AtBarrier {
    split: Split,
    pub id: usize,
    op: BarOp,
}

/// What a split tells the block when it comes to a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub id: usize,
    pub threads: u32,
    /// Threads whose predicate holds.
    pub holding: u32,
    /// Threads that complete the barrier; without it all of the block.
    pub expected: Option<u32>,
}

pub struct Warp {
    pub identity: Identity,
    /// Lanes that have not exited.
    pub alive: u32,
    pub(super) frames: Vec<Option<Frame>>,
    /// What all frames cost the host.
    pub(super) frame_bytes: usize,
    joins: Vec<Option<Join>>,
    pub(super) ready: VecDeque<Split>,
    /// Lanes at an instruction that needs other lanes of the warp, and those it needs.
    gathering: Vec<(Split, u32)>,
    at_barrier: Vec<AtBarrier>,
    pub(super) local: LocalMemory,
    turns: u32,
}

/// A fault with the instruction that caused it.
pub type Failure = (usize, u32, Fault);

/// What ends a split's turn.
enum Turn {
    /// It goes on later.
    Preempted(Split),
    /// Its lanes have left, or wait.
    Gone,
}

pub(super) fn put<T>(slab: &mut Vec<Option<T>>, value: T) -> usize {
    if let Some(index) = slab.iter().position(Option::is_none) {
        slab[index] = Some(value);
        return index;
    }
    slab.push(Some(value));
    slab.len() - 1
}

impl Warp {
    pub fn new(launch: &Launch<'_>, identity: Identity, alive: u32) -> Result<Self, Fault> {
        let frame = Frame::new(
            launch.function,
            &launch.program.functions[launch.function],
            0,
            alive,
        );
        let mut local = LocalMemory::default();
        local.grow(frame.local_end)?;
        let first = Split {
            pc: 0,
            mask: alive,
            frame: 0,
            join: None,
        };
        Ok(Self {
            identity,
            alive,
            frame_bytes: frame.host_bytes(),
            frames: vec![Some(frame)],
            joins: Vec::new(),
            ready: VecDeque::from([first]),
            gathering: Vec::new(),
            at_barrier: Vec::new(),
            local,
            turns: 0,
        })
    }

    /// Whether lanes can go on without other warps.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Runs one turn of every split; barriers that lanes come to are added to `arrivals`.
    pub fn run(
        &mut self,
        launch: &Launch<'_>,
        spaces: &mut Spaces<'_>,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), Failure> {
        for _ in 0..self.ready.len() {
            let Some(split) = self.ready.pop_front() else {
                break;
            };
            if let Turn::Preempted(split) = self.turn(launch, spaces, split, arrivals)? {
                self.ready.push_back(split);
                self.turns += 1;
            }
        }
        if self.turns >= PATIENCE {
            self.turns = 0;
            self.part(launch);
        }
        self.gather(launch, spaces)
    }

    fn turn(
        &mut self,
        launch: &Launch<'_>,
        spaces: &mut Spaces<'_>,
        mut split: Split,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<Turn, Failure> {
        for _ in 0..QUANTUM {
            if let Some(join) = split.join
                && self.meets(join, split.frame, Some(split.pc))
            {
                self.arrive(launch, join, split.mask);
                return Ok(Turn::Gone);
            }
            let Some(frame) = self.frames.get_mut(split.frame).and_then(Option::as_mut) else {
                return Ok(Turn::Gone);
            };
            let function = frame.function;
            let inst: &Inst = &launch.program.functions[function].code[split.pc];
            let active = split.mask & frame.pred(inst.guard);
            if active == 0 {
                split.pc += 1;
                continue;
            }
            let fail = |fault| (function, inst.line, fault);
            match &inst.op {
                Op::Bra { target } => {
                    if active != split.mask {
                        split.join = Some(self.join_at(&split, inst.rejoin));
                        self.ready.push_front(Split {
                            pc: split.pc + 1,
                            mask: split.mask & !active,
                            ..split
                        });
                        split.mask = active;
                    }
                    split.pc = *target;
                }
                Op::BrxIdx { index, targets } => {
                    let index = self.identity.value(launch, frame, *index);
                    if active != split.mask
                        || lanes_of(active)
                            .any(|l| index[l] != index[active.trailing_zeros() as usize])
                    {
                        split.join = Some(self.join_at(&split, inst.rejoin));
                    }
                    if active != split.mask {
                        let mask = split.mask & !active;
                        self.ready.push_front(Split {
                            pc: split.pc + 1,
                            mask,
                            ..split
                        });
                    }
                    for (number, &pc) in targets.iter().enumerate() {
                        let mask = lanes_of(active)
                            .filter(|&lane| index[lane] == number as u64)
                            .fold(0, |mask, lane| mask | 1 << lane);
                        if mask != 0 {
                            self.ready.push_front(Split { pc, mask, ..split });
                        }
                    }
                    if lanes_of(active).any(|lane| index[lane] >= targets.len() as u64) {
                        return Err(fail(Fault::IllegalInstruction(
                            "a branch index beyond its list",
                        )));
                    }
                    return Ok(Turn::Gone);
                }
                Op::Ret => {
                    if active != split.mask {
                        split.join = Some(self.join_at(&split, None));
                        let mask = split.mask & !active;
                        self.ready.push_front(Split {
                            pc: split.pc + 1,
                            mask,
                            ..split
                        });
                        split.mask = active;
                    }
                    self.leave_function(launch, split);
                    return Ok(Turn::Gone);
                }
                Op::Exit => {
                    let left = Split {
                        mask: active,
                        ..split
                    };
                    split.mask &= !active;
                    split.pc += 1;
                    self.exit(launch, left);
                    if split.mask == 0 {
                        return Ok(Turn::Gone);
                    }
                }
                Op::Trap => return Err(fail(Fault::Trap)),
                Op::Call { .. } => {
                    split = self.separate(split, active);
                    split = self.call(launch, spaces, split, &inst.op).map_err(fail)?;
                }
                Op::Bar { op, id, threads } => {
                    let arrival = self
                        .arrival(launch, &split, active, *op, *id, *threads)
                        .map_err(fail)?;
                    arrivals.push(arrival);
                    split = self.separate(split, active);
                    split.pc += 1;
                    if *op != BarOp::Arrive {
                        self.at_barrier.push(AtBarrier {
                            split,
                            id: arrival.id,
                            op: *op,
                        });
                        return Ok(Turn::Gone);
                    }
                }
                op => {
                    let mut step = Step {
                        launch,
                        identity: &self.identity,
                        frame,
                        local: &mut self.local,
                        spaces,
                        active,
                    };
                    match collective::members(op) {
                        None => step.execute(op).map_err(fail)?,
                        Some(members) => {
                            let members = step.value(members);
                            let alive = self.alive;
                            let groups = || collective::groups(active, &members);
                            if groups().any(|(group, named)| named & alive & !group != 0) {
                                self.wait_for_members(split, active, &members);
                                return Ok(Turn::Gone);
                            }
                            for (group, _) in groups() {
                                step.active = group;
                                step.execute(op).map_err(fail)?;
                            }
                        }
                    }
                    split.pc += 1;
                }
            }
        }
        Ok(Turn::Preempted(split))
    }

    pub(super) fn meets(&self, join: usize, frame: usize, pc: Option<usize>) -> bool {
        matches!(&self.joins[join], Some(join) if join.frame == frame && join.pc == pc)
    }

    /// The join of a split that parts here and meets at `pc`: the one it has already, if that is the same.
    pub(super) fn join_at(&mut self, split: &Split, pc: Option<usize>) -> usize {
        match split.join {
            Some(join) if self.meets(join, split.frame, pc) => join,
            parent => {
                let join = Join {
                    frame: split.frame,
                    pc,
                    pending: split.mask,
                    arrived: 0,
                    parent,
                };
                put(&mut self.joins, join)
            }
        }
    }

    /// Lanes whose guard is false wait behind the instruction; the others remain.
    fn separate(&mut self, mut split: Split, active: u32) -> Split {
        if active != split.mask {
            let join = self.join_at(&split, Some(split.pc + 1));
            split.join = Some(join);
            self.ready.push_front(Split {
                pc: split.pc + 1,
                mask: split.mask & !active,
                ..split
            });
            split.mask = active;
        }
        split
    }

    /// Lanes that name the same members wait for those, and all lanes meet again behind the instruction.
    fn wait_for_members(&mut self, split: Split, active: u32, members: &Lanes) {
        let mut split = self.separate(split, active);
        if collective::groups(active, members).nth(1).is_some() {
            split.join = Some(self.join_at(&split, Some(split.pc + 1)));
        }
        for (mask, named) in collective::groups(active, members) {
            let needed = named & self.alive;
            self.gathering.push((Split { mask, ..split }, needed));
        }
    }

    pub(super) fn arrive(&mut self, launch: &Launch<'_>, index: usize, mask: u32) {
        if let Some(join) = &mut self.joins[index] {
            join.pending &= !mask;
            join.arrived |= mask;
            if join.pending == 0 {
                self.complete(launch, index);
            }
        }
    }

    /// Nobody is awaited any more: those who wait go on together.
    fn complete(&mut self, launch: &Launch<'_>, index: usize) {
        if let Some(join) = self.joins[index].take() {
            self.turns = 0;
            self.go_on(launch, &join, join.arrived);
        }
    }

    fn go_on(&mut self, launch: &Launch<'_>, join: &Join, mask: u32) {
        if mask == 0 {
            return;
        }
        let split = Split {
            pc: join.pc.unwrap_or_default(),
            mask,
            frame: join.frame,
            join: join.parent,
        };
        match join.pc {
            Some(_) => self.ready.push_front(split),
            None => self.return_from(launch, split),
        }
    }

    /// Lets lanes that wait at a join go on alone; false if there are none.
    pub fn part(&mut self, launch: &Launch<'_>) -> bool {
        let mut any = false;
        for index in 0..self.joins.len() {
            let Some(join) = &mut self.joins[index] else {
                continue;
            };
            let waiting = Join {
                arrived: std::mem::take(&mut join.arrived),
                ..*join
            };
            any |= waiting.arrived != 0;
            self.go_on(launch, &waiting, waiting.arrived);
        }
        any
    }

    /// Takes lanes out of the joins from `join` outwards, up to the first that `stop` names.
    pub(super) fn withdraw(
        &mut self,
        launch: &Launch<'_>,
        mut next: Option<usize>,
        mask: u32,
        stop: impl Fn(&Join) -> bool,
    ) -> Option<usize> {
        while let Some(index) = next {
            let Some(join) = &mut self.joins[index] else {
                return None;
            };
            if stop(join) {
                return Some(index);
            }
            join.pending &= !mask;
            next = join.parent;
            if join.pending == 0 {
                self.complete(launch, index);
            }
        }
        None
    }

    fn arrival(
        &self,
        launch: &Launch<'_>,
        split: &Split,
        active: u32,
        op: BarOp,
        id: Value,
        threads: Option<Value>,
    ) -> Result<Arrival, Fault> {
        let Some(frame) = &self.frames[split.frame] else {
            return Err(Fault::Deadlock);
        };
        let lane = active.trailing_zeros() as usize;
        let value = |value| self.identity.value(launch, frame, value)[lane];
        let id = value(id) as usize;
        if id >= super::block::BARRIERS {
            return Err(Fault::IllegalInstruction("a barrier above 15"));
        }
        let holding = match op {
            BarOp::Popc { pred, .. } | BarOp::And { pred, .. } | BarOp::Or { pred, .. } => {
                frame.pred(pred) & active
            }
            BarOp::Sync | BarOp::Arrive => 0,
        };
        Ok(Arrival {
            id,
            threads: active.count_ones(),
            holding: holding.count_ones(),
            expected: threads.map(|threads| value(threads) as u32),
        })
    }

    /// A barrier is complete: `threads` have come, for `holding` of them the predicate holds.
    pub fn pass_barrier(&mut self, id: usize, threads: u32, holding: u32) {
        let (passing, waiting) = self.at_barrier.drain(..).partition(|lanes| lanes.id == id);
        self.at_barrier = waiting;
        let passing: Vec<AtBarrier> = passing;
        for AtBarrier { split, op, .. } in passing {
            if let Some(frame) = &mut self.frames[split.frame] {
                match op {
                    BarOp::Popc { dst, .. } => {
                        frame.set(dst, split.mask, &[holding.into(); 32]);
                    }
                    BarOp::And { dst, .. } => {
                        let all = if holding == threads { u32::MAX } else { 0 };
                        frame.set_pred(dst, split.mask, all);
                    }
                    BarOp::Or { dst, .. } => {
                        let any = if holding != 0 { u32::MAX } else { 0 };
                        frame.set_pred(dst, split.mask, any);
                    }
                    BarOp::Sync | BarOp::Arrive => {}
                }
            }
            self.ready.push_back(split);
        }
    }

    /// Executes instructions whose lanes have come one after the other, once all are there.
    fn gather(&mut self, launch: &Launch<'_>, spaces: &mut Spaces<'_>) -> Result<(), Failure> {
        for index in 0..self.gathering.len() {
            let (first, needed) = self.gathering[index];
            let Some(function) = self.frames[first.frame]
                .as_ref()
                .map(|frame| frame.function)
            else {
                continue;
            };
            let inst = &launch.program.functions[function].code[first.pc];
            let sync_only = matches!(inst.op, Op::WarpSync { .. });
            let together = |&(split, other): &(Split, u32)| {
                other & needed != 0
                    && (sync_only || split.pc == first.pc && split.frame == first.frame)
            };
            let here = self.gathering.iter().filter(|lanes| together(lanes));
            let mask = here.fold(0, |mask, (split, _)| mask | split.mask);
            if needed & self.alive & !mask != 0 {
                continue;
            }
            if !sync_only && let Some(frame) = self.frames[first.frame].as_mut() {
                let mut step = Step {
                    launch,
                    identity: &self.identity,
                    frame,
                    local: &mut self.local,
                    spaces,
                    active: mask,
                };
                step.execute(&inst.op)
                    .map_err(|fault| (function, inst.line, fault))?;
            }
            let (passing, waiting) = self.gathering.drain(..).partition(together);
            self.gathering = waiting;
            let passing: Vec<(Split, u32)> = passing;
            for (split, _) in passing {
                self.ready.push_back(Split {
                    pc: split.pc + 1,
                    ..split
                });
            }
            return Ok(());
        }
        Ok(())
    }

    /// The address of the instruction at which a warp stands, for a report.
    pub fn place(&self, launch: &Launch<'_>) -> (usize, u32) {
        let split = self
            .at_barrier
            .first()
            .map(|lanes| lanes.split)
            .or(self.gathering.first().map(|&(split, _)| split));
        let place = split.and_then(|split| {
            let function = self.frames[split.frame].as_ref()?.function;
            let code = &launch.program.functions[function].code;
            Some((function, code.get(split.pc)?.line))
        });
        place.unwrap_or((launch.function, 0))
    }
}
