//! PTX to Cranelift's intermediate form, once for a group of lanes and once for a single lane.
//!
//! The same code emits both: a value that is the same in all lanes is a scalar, and in a single lane every value
//! is. Of values that differ, those with a stride are the scalar of lane 0, the others are vectors of 128 bits. What has
//! no code of its own here is executed by the interpreter, one instruction for the lanes that need it.

mod arithmetic;
mod callout;
mod control;
mod convert;
mod float;
mod integer;
mod math;
mod memory;
mod register;
mod select;
mod special;
mod value;

pub use callout::{TOGETHER, signature as callout_signature};

use std::collections::BTreeMap;
use std::mem::offset_of;

use cranelift_codegen::ir::{
    AbiParam, Block, Function as Clif, InstBuilder, MemFlagsData, Signature, Type, Value as Ir,
    types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use super::effects::Var;
use super::machine::Machine;
use super::plan::{Plan, is_control};
use super::shape::{GROUP, Shape};
use crate::ptx::ir::{Function, Inst, PredValue};
use value::Mask;

/// Turns of loops that a group takes before it lets others run.
const GROUP_FUEL: i64 = 1 << 14;
/// Those of a single lane, which may be waiting for another one of its group.
const LANE_FUEL: i64 = 1 << 10;

/// What a kernel's code is made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub function: &'a Function,
    pub plan: &'a Plan,
    /// Device address of each global variable.
    pub globals: &'a [u64],
    /// Offset of each shared variable.
    pub shared_offsets: &'a [u64],
    pub target: TargetFrontendConfig,
}

/// Code for blocks of a row from the kernel's beginning on: `(machine, first block, block behind the last, groups of each)`.
/// It gives the first block whose groups do not all come to the kernel's end, or the one behind the last.
pub fn blocks(source: Source<'_>) -> Clif {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I64); 4];
    signature.returns = vec![AbiParam::new(types::I64)];
    build(signature, |builder| {
        let mut emitter = Emitter::new(source, builder, true);
        emitter.row_region();
        emitter.finish();
    })
}

/// Code for groups from one entry on: `(machine, first group, number of groups)`.
pub fn group(source: Source<'_>, entry: usize) -> Clif {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I64); 3];
    build(signature, |builder| {
        let mut emitter = Emitter::new(source, builder, true);
        emitter.group_region(entry);
        emitter.finish();
    })
}

/// Code for a single lane from any entry on: `(machine, thread, index of the entry)` gives a status.
pub fn lane(source: Source<'_>) -> Clif {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I64); 3];
    signature.returns = vec![AbiParam::new(types::I32)];
    build(signature, |builder| {
        let mut emitter = Emitter::new(source, builder, false);
        emitter.lane_regions();
        emitter.finish();
    })
}

fn build(signature: Signature, emit: impl FnOnce(FunctionBuilder<'_>)) -> Clif {
    let mut clif = Clif::with_name_signature(Default::default(), signature);
    let mut context = FunctionBuilderContext::new();
    emit(FunctionBuilder::new(&mut clif, &mut context));
    clif
}

/// Memory that does not change while compiled code runs.
pub(super) fn constant() -> MemFlagsData {
    MemFlagsData::trusted().with_readonly().with_can_move()
}

/// Memory of any alignment, which may change at any time.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

struct Emitter<'a, 'f> {
    source: Source<'a>,
    b: FunctionBuilder<'f>,
    /// Whether the code is for a group of lanes.
    wide: bool,
    machine: Ir,
    /// The group, or the thread.
    index: Ir,
    /// Frame of the group.
    frame: Ir,
    /// The lane's place among 4-byte and 8-byte lanes, for a single lane.
    lane4: Ir,
    lane8: Ir,
    variables: Vec<Vec<Variable>>,
    fuel: Variable,
    /// Clif block by first instruction.
    blocks: BTreeMap<usize, Block>,
    /// Where lanes go on that need not stop, by first instruction.
    bodies: BTreeMap<usize, Block>,
    todo: Vec<usize>,
    /// Where a group's code goes for the next group.
    next_group: Option<Block>,
    /// The block's index in its row, in code for blocks.
    row_block: Option<Ir>,
    /// The instruction in hand and its guard, if that is a mask.
    pc: usize,
    mask: Option<Mask>,
    /// Whether its operands are lane 0's, because its result has a stride as they have.
    strided: bool,
}

impl<'a, 'f> Emitter<'a, 'f> {
    fn new(source: Source<'a>, mut b: FunctionBuilder<'f>, wide: bool) -> Self {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let machine = b.block_params(entry)[0];
        let index = b.block_params(entry)[1];
        let fuel = b.declare_var(types::I64);
        let zero = b.ins().iconst(types::I64, 0);
        Self {
            source,
            b,
            wide,
            machine,
            index,
            frame: zero,
            lane4: zero,
            lane8: zero,
            variables: vec![Vec::new(); source.plan.vars.count()],
            fuel,
            blocks: BTreeMap::new(),
            bodies: BTreeMap::new(),
            todo: Vec::new(),
            next_group: None,
            row_block: None,
            pc: 0,
            mask: None,
            strided: false,
        }
    }

    fn finish(mut self) {
        self.b.seal_all_blocks();
        self.b.finalize(self.source.target);
    }

    fn code(&self) -> &'a [Inst] {
        &self.source.function.code
    }

    /// Bytes of a group's frame.
    fn frame_bytes(&self) -> i64 {
        (self.source.plan.slot_count * 8 * GROUP) as i64
    }

    /// Loops over blocks and over their groups around the kernel.
    fn row_region(&mut self) {
        let (first, end, groups) = {
            let block = self
                .b
                .current_block()
                .unwrap_or_else(|| self.b.create_block());
            let params = self.b.block_params(block);
            (params[1], params[2], params[3])
        };
        let [head, body, done, start, next, behind] = [(); 6].map(|()| self.b.create_block());
        let block = self.b.append_block_param(head, types::I64);
        let group = self.b.append_block_param(start, types::I64);
        let below = cranelift_codegen::ir::condcodes::IntCC::UnsignedLessThan;
        self.b.ins().jump(head, &[first.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(below, block, end);
        self.b.ins().brif(more, body, &[], done, &[]);
        self.b.switch_to_block(done);
        self.b.ins().return_(&[block]);
        self.b.switch_to_block(body);
        // For the interpreter's side.
        let index = self.b.ins().ireduce(types::I32, block);
        let offset = offset_of!(Machine, ctaid) as i32;
        let flags = MemFlagsData::trusted();
        self.b.ins().store(flags, index, self.machine, offset);
        let zero = self.b.ins().iconst(types::I64, 0);
        self.b.ins().jump(start, &[zero.into()]);
        self.b.switch_to_block(next);
        let following = self.b.ins().iadd_imm_s(group, 1);
        let more = self.b.ins().icmp(below, following, groups);
        self.b
            .ins()
            .brif(more, start, &[following.into()], behind, &[]);
        self.b.switch_to_block(behind);
        let offset = offset_of!(Machine, left) as i32;
        let left = self.b.ins().load(types::I32, flags, self.machine, offset);
        let following = self.b.ins().iadd_imm_s(block, 1);
        self.b
            .ins()
            .brif(left, done, &[], head, &[following.into()]);
        self.next_group = Some(next);
        self.row_block = Some(block);

        self.b.switch_to_block(start);
        self.begin(group, 0);
    }

    /// A loop over groups around the region that begins at `entry`.
    fn group_region(&mut self, entry: usize) {
        let (first, count) = {
            let block = self
                .b
                .current_block()
                .unwrap_or_else(|| self.b.create_block());
            let params = self.b.block_params(block);
            (params[1], params[2])
        };
        let end = self.b.ins().iadd(first, count);
        let head = self.b.create_block();
        let start = self.b.create_block();
        let done = self.b.create_block();
        let next = self.b.create_block();
        let group = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[first.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(
            cranelift_codegen::ir::condcodes::IntCC::UnsignedLessThan,
            group,
            end,
        );
        self.b.ins().brif(more, start, &[], done, &[]);
        self.b.switch_to_block(done);
        self.b.ins().return_(&[]);
        self.b.switch_to_block(next);
        let following = self.b.ins().iadd_imm_s(group, 1);
        self.b.ins().jump(head, &[following.into()]);
        self.next_group = Some(next);

        self.b.switch_to_block(start);
        self.begin(group, entry);
    }

    /// The code of a group from an entry on.
    fn begin(&mut self, group: Ir, entry: usize) {
        self.index = group;
        self.set_frame(group);
        self.refuel();
        self.enter(entry);
        let block = self.block_at(entry);
        self.b.ins().jump(block, &[]);
        self.emit_blocks();
    }

    /// All blocks, and a dispatch to the entries.
    fn lane_regions(&mut self) {
        let entry = {
            let block = self
                .b
                .current_block()
                .unwrap_or_else(|| self.b.create_block());
            self.b.block_params(block)[2]
        };
        let thread = self.index;
        let group = self
            .b
            .ins()
            .ushr_imm_u(thread, i64::from(GROUP.trailing_zeros()));
        self.set_frame(group);
        let lane = self.b.ins().band_imm_u(thread, GROUP as i64 - 1);
        let lane4 = self.b.ins().ishl_imm_u(lane, 2);
        let lane8 = self.b.ins().ishl_imm_u(lane, 3);
        self.lane4 = self.b.ins().iadd(self.frame, lane4);
        self.lane8 = self.b.ins().iadd(self.frame, lane8);
        self.refuel();
        let mut switch = cranelift_frontend::Switch::new();
        let entries: Vec<usize> = self.lane_entries();
        let mut doors = Vec::new();
        for (number, &pc) in entries.iter().enumerate() {
            let door = self.b.create_block();
            switch.set_entry(number as u128, door);
            doors.push((door, pc));
        }
        let none = self.b.create_block();
        self.b.set_cold_block(none);
        switch.emit(&mut self.b, entry, none);
        self.b.switch_to_block(none);
        self.leave(&[], super::machine::status::FAULT);
        for (door, pc) in doors {
            self.b.switch_to_block(door);
            self.enter(pc);
            let body = self.body_at(pc);
            self.b.ins().jump(body, &[]);
        }
        self.emit_blocks();
    }

    /// The instructions at which a single lane can begin, in the order of their numbers.
    fn lane_entries(&self) -> Vec<usize> {
        let leaders = &self.source.plan.leaders;
        let entries = self.source.plan.lane_entries.iter();
        entries.copied().filter(|pc| leaders.contains(pc)).collect()
    }

    fn set_frame(&mut self, group: Ir) {
        let frames = self.field(types::I64, offset_of!(Machine, frames));
        let bytes = self.frame_bytes();
        let offset = self.b.ins().imul_imm_s(group, bytes);
        self.frame = self.b.ins().iadd(frames, offset);
    }

    fn refuel(&mut self) {
        let fuel = if self.wide { GROUP_FUEL } else { LANE_FUEL };
        let fuel = self.b.ins().iconst(types::I64, fuel);
        self.b.def_var(self.fuel, fuel);
    }

    /// A field of the machine that stays as it is while code runs.
    fn field(&mut self, ty: Type, offset: usize) -> Ir {
        self.b
            .ins()
            .load(ty, constant(), self.machine, offset as i32)
    }

    fn block_at(&mut self, pc: usize) -> Block {
        if let Some(&block) = self.blocks.get(&pc) {
            return block;
        }
        let block = self.b.create_block();
        self.blocks.insert(pc, block);
        self.todo.push(pc);
        block
    }

    /// Where lanes go that are not to stop: behind the stop of `pc`, if it has one.
    fn body_at(&mut self, pc: usize) -> Block {
        let block = self.block_at(pc);
        if self.wide || !self.source.plan.stops.contains(&pc) {
            return block;
        }
        if let Some(&body) = self.bodies.get(&pc) {
            return body;
        }
        let body = self.b.create_block();
        self.bodies.insert(pc, body);
        body
    }

    fn emit_blocks(&mut self) {
        while let Some(leader) = self.todo.pop() {
            let block = self.blocks[&leader];
            self.b.switch_to_block(block);
            if !self.wide && self.source.plan.stops.contains(&leader) {
                self.stop(leader);
            }
            let end = self.source.plan.block_end(leader, self.code());
            let mut open = true;
            for pc in leader..end {
                open = self.instruction(pc);
                if !open {
                    break;
                }
            }
            if open {
                self.go(end - 1, end);
            }
        }
    }

    /// Emits an instruction; false if control does not reach the next one from here.
    fn instruction(&mut self, pc: usize) -> bool {
        let inst = &self.code()[pc];
        self.pc = pc;
        if is_control(&inst.op) {
            self.control(pc, inst);
            return false;
        }
        if self.wide {
            self.check_width(pc, inst);
        }
        match self.guard_shape(inst.guard) {
            None => {}
            Some(Shape::Varying) => {
                self.mask = Some(self.pred(inst.guard));
                self.operation(inst);
                self.mask = None;
                return true;
            }
            Some(_) => {
                let holds = self.pred_scalar(inst.guard);
                let (then, after) = (self.b.create_block(), self.b.create_block());
                self.b.ins().brif(holds, then, &[], after, &[]);
                self.b.switch_to_block(then);
                self.operation(inst);
                self.b.ins().jump(after, &[]);
                self.b.switch_to_block(after);
                return true;
            }
        }
        self.operation(inst);
        true
    }

    /// `None`: the instruction is always executed.
    fn guard_shape(&self, guard: PredValue) -> Option<Shape> {
        match guard {
            PredValue::Const(true) => None,
            guard => Some(self.pred_shape(guard)),
        }
    }

    fn operation(&mut self, inst: &Inst) {
        let done = self.arithmetic(inst) || self.access(inst);
        if !done {
            self.callout();
        }
    }

    /// Variables that are live at an instruction which begins a block.
    fn live_at(&self, pc: usize) -> &'a [Var] {
        self.source.plan.live.get(&pc).map_or(&[], Vec::as_slice)
    }

    /// Takes the live variables from the frame; at the kernel's beginning all are zero.
    fn enter(&mut self, pc: usize) {
        for &var in self.live_at(pc) {
            if pc == 0 {
                self.clear(var);
            } else {
                self.take(var);
            }
        }
    }
}
