//! Runs the blocks of a launch on compiled code: groups together where they can, lanes singly where they must.

mod interpreter;
mod waiting;

use std::cell::Cell;

use super::Variant;
use super::frames::Frames;
use super::machine::{EXCHANGE, Machine, Site, status};
use super::shape::GROUP;
use crate::Fault;
use crate::memory::BASE;
use crate::ptx::exec::block::BARRIERS;
use crate::ptx::exec::frame::{Frame, Identity};
use crate::ptx::exec::lanes::WARP;
use crate::ptx::exec::memory::{GlobalMemory, LocalMemory, Spaces};
use crate::ptx::exec::warp::Failure;
use crate::ptx::exec::{Launch, run_blocks};
use crate::ptx::ir::{Function, Op};

/// Groups of a warp.
const GROUPS: usize = WARP / GROUP;

/// Blocks after which a worker looks at the clock, and that it runs at once at most.
const CHECKED: u32 = 16;

/// A group whose lanes are at different places: see the lanes.
const APART: u32 = u32::MAX;

/// Runs all blocks of a grid on compiled code.
pub fn run(launch: &Launch<'_>, variant: &Variant) -> Result<(), Failure> {
    run_blocks(launch, CHECKED, |number| {
        let mut worker = Worker::new(launch, variant, number);
        move |first, count| worker.blocks(first, count)
    })
}

/// What one thread of the host needs to run blocks.
pub struct Worker<'a> {
    pub machine: Machine,
    launch: &'a Launch<'a>,
    variant: &'a Variant,
    function: &'a Function,
    threads: usize,
    groups: usize,
    spaces: Spaces<'a>,
    frames: Frames<'a>,
    /// The interpreter's registers and place for one instruction.
    registers: Frame,
    identities: Vec<Identity>,
    locals: Vec<LocalMemory>,
    local_addresses: Vec<*mut u8>,
    sites: Vec<Site>,
    exchange: Box<[[u64; GROUP]; EXCHANGE]>,
    tid: [Vec<u32>; 3],
    /// How each group has left compiled code; all at the kernel's end before a block begins.
    status: Vec<u32>,
    taken: Vec<u32>,
    /// Where each group is, or [`APART`].
    at: Vec<u32>,
    /// Where each lane of a group that is apart is.
    lanes: Vec<u32>,
    /// Groups that have come together from single lanes, whose registers are to be looked at.
    doubtful: Vec<bool>,
    /// Threads that have come to each barrier without waiting, and how many complete it.
    arrived: [(u32, Option<u32>); BARRIERS],
    lane_numbers: Vec<Option<u64>>,
    /// Blocks since the clock was looked at.
    unchecked: u32,
    failure: Option<Failure>,
}

fn kind(code: u32) -> u32 {
    code & status::KIND
}

fn place(code: u32) -> usize {
    (code & !status::KIND) as usize
}

/// Whether lanes with this code can run.
fn runs(code: u32) -> bool {
    matches!(
        kind(code),
        status::YIELDED | status::SINGLE | status::STOPPED
    )
}

impl<'a> Worker<'a> {
    fn new(launch: &'a Launch<'a>, variant: &'a Variant, number: u32) -> Self {
        let function = &launch.program.functions[launch.function];
        let threads = launch.threads() as usize;
        let groups = threads.div_ceil(GROUP);
        let warps = threads.div_ceil(WARP);
        let plan = &variant.plan;
        let local = function.local_bytes;
        let mut locals: Vec<LocalMemory> = (0..warps).map(|_| LocalMemory::default()).collect();
        for memory in &mut locals {
            // The function's own limit was checked when it was lowered.
            if memory.grow(local).is_err() {
                log::debug!("a kernel's local memory is beyond its limit");
            }
        }
        let local_addresses = locals.iter_mut().map(LocalMemory::as_mut_ptr).collect();
        let identities: Vec<Identity> = (0..warps)
            .map(|warp| Identity::new(launch, [0; 3], warp as u32, number))
            .collect();
        let tid = [0, 1, 2].map(|dimension| {
            (0..warps * WARP)
                .map(|thread| identities[thread / WARP].tid[dimension][thread % WARP] as u32)
                .collect::<Vec<u32>>()
        });
        let mut lane_numbers = vec![None; function.code.len()];
        let entries = plan.lane_entries.iter();
        for (number, &pc) in entries.filter(|pc| plan.leaders.contains(pc)).enumerate() {
            lane_numbers[pc] = Some(number as u64);
        }
        let mask = |f: fn(u32) -> u32| std::array::from_fn(|lane| f(lane as u32));
        let machine = Machine {
            tid: [std::ptr::null(); 3],
            frames: std::ptr::null_mut(),
            status: std::ptr::null_mut(),
            taken: std::ptr::null_mut(),
            params: launch.params.as_ptr(),
            shared: std::ptr::null_mut(),
            locals: std::ptr::null(),
            sites: std::ptr::null_mut(),
            exchange: std::ptr::null_mut(),
            delta: launch.memory.host_address().wrapping_sub(BASE),
            grid_id: launch.id,
            total_shared: launch.shared_bytes,
            callout: variant.callout.address(),
            worker_state: 0,
            ctaid: [0; 3],
            nctaid: launch.grid,
            ntid: launch.block,
            worker: number,
            workers: launch.workers,
            warps: warps as u32,
            dynamic_shared: launch.dynamic_shared,
            fault: 0,
            left: 0,
            alone: 0,
            lane_masks: [
                mask(|lane| 1 << lane),
                mask(|lane| u32::MAX >> (31 - lane)),
                mask(|lane| (1 << lane) - 1),
                mask(|lane| u32::MAX << lane),
                mask(|lane| !(u32::MAX >> (31 - lane))),
            ],
        };
        Self {
            machine,
            launch,
            variant,
            function,
            threads,
            groups,
            spaces: Spaces {
                global: GlobalMemory {
                    memory: launch.memory,
                    allocations: launch.allocations,
                    last: Cell::new(0),
                },
                shared: vec![0; launch.shared_bytes as usize],
                params: launch.params,
            },
            frames: Frames::new(plan, function, groups),
            registers: Frame::new(launch.function, function, 0, u32::MAX),
            identities,
            locals,
            local_addresses,
            sites: vec![Site::default(); 2 * function.code.len()],
            exchange: Box::new([[0; GROUP]; EXCHANGE]),
            tid,
            status: vec![status::EXIT; groups],
            taken: vec![0; groups],
            at: vec![0; groups],
            lanes: vec![0; groups * GROUP],
            doubtful: vec![false; groups],
            arrived: [(0, None); BARRIERS],
            lane_numbers,
            unchecked: 0,
            failure: None,
        }
    }

    /// Gives compiled code the addresses of what it works on.
    fn bind(&mut self, block: [u32; 3]) {
        let machine = &mut self.machine;
        machine.ctaid = block;
        machine.tid = [0, 1, 2].map(|dimension: usize| self.tid[dimension].as_ptr());
        machine.frames = self.frames.as_mut_ptr();
        machine.status = self.status.as_mut_ptr();
        machine.taken = self.taken.as_mut_ptr();
        machine.shared = self.spaces.shared.as_mut_ptr();
        machine.locals = self.local_addresses.as_ptr();
        machine.sites = self.sites.as_mut_ptr();
        machine.exchange = self.exchange.as_mut_ptr();
    }

    /// Runs blocks that follow each other in a row to their ends.
    fn blocks(&mut self, [mut x, y, z]: [u32; 3], count: u32) -> Result<(), Failure> {
        self.unchecked += count;
        if self.unchecked >= CHECKED {
            self.unchecked = 0;
            self.check_stop()?;
        }
        let variant = self.variant;
        let whole = self.threads / GROUP;
        let end = x + count;
        while x < end {
            self.bind([x, y, z]);
            if whole == self.groups {
                // Most blocks go from their beginning to their end without a stop.
                x = variant.first.run_blocks(self, x, end, whole as u64);
            } else if whole > 0 {
                variant.first.run_blocks(self, x, x + 1, whole as u64);
            }
            self.check_fault()?;
            if x < end {
                self.machine.ctaid = [x, y, z];
                self.rest(whole)?;
                x += 1;
            }
        }
        Ok(())
    }

    /// Runs a block to its end whose first groups have left the code for blocks, and whose last one has not begun.
    fn rest(&mut self, whole: usize) -> Result<(), Failure> {
        self.doubtful.fill(false);
        for group in 0..whole {
            self.left(group)?;
        }
        if whole < self.groups {
            self.at[whole] = APART;
            let first = whole * GROUP;
            self.lanes[first..first + GROUP].fill(status::EXIT);
            self.lanes[first..self.threads].fill(status::STOPPED);
        }
        self.finish()?;
        self.status.fill(status::EXIT);
        self.machine.left = 0;
        Ok(())
    }

    /// Runs a block to its end, from wherever its groups are.
    fn finish(&mut self) -> Result<(), Failure> {
        loop {
            let ran = self.run_groups()?;
            if self.at.iter().all(|&code| code == status::EXIT) {
                return Ok(());
            }
            let mut passed = self.collectives()?;
            passed |= self.barriers()?;
            if ran || passed {
                continue;
            }
            return Err(self.deadlock());
        }
    }

    fn deadlock(&self) -> Failure {
        let waiting = (0..self.threads)
            .map(|thread| self.code_of(thread))
            .find(|&code| kind(code) == status::SUSPENDED);
        let line = waiting.map_or(0, |code| self.function.code[place(code)].line);
        (self.launch.function, line, Fault::Deadlock)
    }

    fn code_of(&self, thread: usize) -> u32 {
        match self.at[thread / GROUP] {
            APART => self.lanes[thread],
            code => code,
        }
    }

    /// Whether the groups from `group` on with this code can run together.
    fn entry_of(&self, code: u32) -> Option<usize> {
        let pc = place(code);
        let together = matches!(kind(code), status::YIELDED | status::STOPPED);
        (together && self.variant.plan.group_entries.contains(&pc)).then_some(pc)
    }

    /// Lets everything run that can; false if nothing could.
    fn run_groups(&mut self) -> Result<bool, Failure> {
        let mut ran = false;
        let mut group = 0;
        while group < self.groups {
            let code = self.at[group];
            if code == APART {
                ran |= self.run_apart(group)?;
                group += 1;
                continue;
            }
            if !runs(code) {
                group += 1;
                continue;
            }
            ran = true;
            let entry = self.entry_of(code);
            let ready = |worker: &Self, group: usize, entry: usize| {
                !worker.doubtful[group] || worker.frames.hold(group, entry)
            };
            let runnable = match entry {
                Some(entry) if ready(self, group, entry) => {
                    let code = self.variant.group(self.function, entry);
                    code.map(|code| (entry, code))
                }
                _ => None,
            };
            let Some((entry, routine)) = runnable else {
                self.part(group, code);
                self.run_apart(group)?;
                group += 1;
                continue;
            };
            let mut end = group + 1;
            while end < self.groups && self.at[end] == code && ready(self, end, entry) {
                end += 1;
            }
            self.doubtful[group..end].fill(false);
            routine.run_groups(self, group as u64, (end - group) as u64);
            self.check_fault()?;
            for group in group..end {
                self.left(group)?;
            }
            group = end;
        }
        Ok(ran)
    }

    fn check_fault(&mut self) -> Result<(), Failure> {
        if self.machine.fault == 0 {
            return Ok(());
        }
        let unknown = (
            self.launch.function,
            0,
            Fault::IllegalInstruction("unknown"),
        );
        Err(self.failure.take().unwrap_or(unknown))
    }

    fn check_stop(&self) -> Result<(), Failure> {
        let result = self.launch.check_stop();
        result.map_err(|fault| (self.launch.function, 0, fault))
    }

    /// Notes where a group has gone that ran together.
    fn left(&mut self, group: usize) -> Result<(), Failure> {
        let code = self.status[group];
        match kind(code) {
            status::PARTED => self.at_branch(group, place(code)),
            status::SINGLE => self.part(group, code),
            kind => {
                self.at[group] = code;
                if kind == status::YIELDED {
                    self.check_stop()?;
                }
            }
        }
        Ok(())
    }

    /// The lanes of a group are on their own from here.
    fn part(&mut self, group: usize, code: u32) {
        self.lanes[group * GROUP..][..GROUP].fill(code);
        self.at[group] = APART;
        self.doubtful[group] = true;
    }

    /// Lanes part at a control instruction, as the bits in `taken` say.
    fn at_branch(&mut self, group: usize, pc: usize) {
        let inst = &self.function.code[pc];
        let single = |pc: usize| status::SINGLE | pc as u32;
        let then = match &inst.op {
            Op::Bra { target } => single(*target),
            Op::Ret | Op::Exit => status::EXIT,
            Op::Trap | Op::BrxIdx { .. } => single(pc),
            // Executed by each lane that is to: its guard is known to hold.
            _ => status::SUSPENDED | pc as u32,
        };
        let taken = self.taken[group];
        self.part(group, single(pc + 1));
        for lane in 0..GROUP {
            if taken >> lane & 1 != 0 {
                self.lanes[group * GROUP + lane] = then;
            }
        }
    }

    /// Runs the lanes of a group singly until all wait or they are together again; false if none could run.
    fn run_apart(&mut self, group: usize) -> Result<bool, Failure> {
        let first = group * GROUP;
        let lanes = first..(first + GROUP).min(self.threads);
        let mut ran = false;
        let mut everyone = false;
        loop {
            let next = lanes
                .clone()
                .map(|lane| self.lanes[lane])
                .filter(|&code| runs(code))
                .map(place)
                .min();
            let Some(next) = next else { break };
            ran = true;
            let full =
                lanes.len() == GROUP && lanes.clone().all(|lane| self.lanes[lane] != status::EXIT);
            self.machine.alone = u32::from(!full);
            let mut yielded = false;
            for lane in lanes.clone() {
                let code = self.lanes[lane];
                if !runs(code) || place(code) != next && !everyone {
                    continue;
                }
                let left = self.run_lane(lane, place(code))?;
                yielded |= kind(left) == status::YIELDED;
                self.lanes[lane] = left;
            }
            if yielded {
                // Lanes that wait for it to happen must not keep others from making it happen.
                self.check_stop()?;
                if everyone {
                    break;
                }
                everyone = true;
            }
            if self.rejoin(group) {
                break;
            }
        }
        Ok(ran)
    }

    fn run_lane(&mut self, thread: usize, pc: usize) -> Result<u32, Failure> {
        let Some(number) = self.lane_numbers.get(pc).copied().flatten() else {
            let line = self.function.code.get(pc).map_or(0, |inst| inst.line);
            let fault = Fault::IllegalInstruction("a place that no lane can begin at");
            return Err((self.launch.function, line, fault));
        };
        let variant = self.variant;
        let left = variant.lane.run_lane(self, thread as u64, number);
        self.check_fault()?;
        Ok(left)
    }

    /// Puts a group together whose lanes are all at one place.
    fn rejoin(&mut self, group: usize) -> bool {
        let lanes = &self.lanes[group * GROUP..][..GROUP];
        let code = lanes[0];
        let all = lanes.iter().all(|&lane| lane == code);
        let useful = !runs(code) || self.entry_of(code).is_some();
        if all && useful && (!runs(code) || self.frames.hold(group, place(code))) {
            self.at[group] = code;
            self.doubtful[group] = true;
            return true;
        }
        false
    }

    /// A lane goes on behind the instruction that it has waited at.
    fn advance(&mut self, lanes: &[usize], pc: usize) {
        let next = status::STOPPED | (pc + 1) as u32;
        let mut rest = lanes;
        while let Some(&first) = rest.first() {
            let group = first / GROUP;
            let count = rest
                .iter()
                .take_while(|&&lane| lane / GROUP == group)
                .count();
            if self.at[group] != APART {
                if count == GROUP {
                    self.at[group] = next;
                    rest = &rest[count..];
                    continue;
                }
                let code = self.at[group];
                self.part(group, code);
            }
            for &lane in &rest[..count] {
                self.lanes[lane] = next;
            }
            self.rejoin(group);
            rest = &rest[count..];
        }
    }
}

/// The lanes for which `test` holds.
fn mask(count: usize, test: impl Fn(usize) -> bool) -> u32 {
    (0..count).fold(0, |mask, lane| mask | u32::from(test(lane)) << lane)
}
