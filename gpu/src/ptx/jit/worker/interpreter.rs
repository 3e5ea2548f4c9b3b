//! Single instructions on the interpreter.

use super::{Worker, mask};
use crate::Fault;
use crate::ptx::exec::lanes::{Lanes, WARP, lanes_of};
use crate::ptx::exec::memory::{SHARED_WINDOW, lies_in, resolve};
use crate::ptx::exec::step::Step;
use crate::ptx::exec::warp::Failure;
use crate::ptx::ir::{Inst, Op, PredValue, Space, Value};
use crate::ptx::jit::TOGETHER;
use crate::ptx::jit::effects::Var;
use crate::ptx::jit::machine::Site;
use crate::ptx::jit::shape::{GROUP, Shape};

impl Worker<'_> {
    /// Has the interpreter execute an instruction for lanes of a warp, on what their frames hold.
    pub(super) fn together(&mut self, pc: usize, warp: usize, active: u32) -> Result<(), Failure> {
        let effects = &self.variant.plan.effects[pc];
        let first = warp * WARP;
        for &var in &effects.reads {
            let values: Lanes = std::array::from_fn(|lane| {
                if active >> lane & 1 != 0 {
                    self.frames.get(first + lane, var)
                } else {
                    0
                }
            });
            self.set_register(var, active, &values);
        }
        self.interpret(pc, warp, active)?;
        for &var in &effects.writes {
            let values = self.register(var);
            for lane in lanes_of(active) {
                self.frames.set(first + lane, var, values[lane]);
            }
        }
        Ok(())
    }

    fn set_register(&mut self, var: Var, active: u32, values: &Lanes) {
        let vars = self.variant.plan.vars;
        if let Some(register) = vars.as_register(var) {
            self.registers.set(register, active, values);
            return;
        }
        let bits = mask(WARP, |lane| values[lane] & 1 != 0);
        match vars.as_predicate(var) {
            Some(predicate) => self.registers.set_pred(predicate, active, bits),
            None => self.registers.carry = self.registers.carry & !active | bits & active,
        }
    }

    fn register(&self, var: Var) -> Lanes {
        let vars = self.variant.plan.vars;
        if let Some(register) = vars.as_register(var) {
            return *self.registers.reg(register);
        }
        let bits = match vars.as_predicate(var) {
            Some(index) => self.registers.pred(PredValue::Reg {
                index,
                negated: false,
            }),
            None => self.registers.carry,
        };
        std::array::from_fn(|lane| u64::from(bits >> lane & 1))
    }

    fn interpret(&mut self, pc: usize, warp: usize, active: u32) -> Result<(), Failure> {
        let inst: &Inst = &self.function.code[pc];
        let identity = &mut self.identities[warp];
        identity.block = self.machine.ctaid;
        let mut step = Step {
            launch: self.launch,
            identity,
            frame: &mut self.registers,
            local: &mut self.locals[warp],
            spaces: &mut self.spaces,
            active,
        };
        let result = match &inst.op {
            Op::Call { callee, .. } => step.resolve_callee(*callee, &inst.op).map(|_| ()),
            Op::Trap => Err(Fault::Trap),
            Op::BrxIdx { .. } => Err(Fault::IllegalInstruction("a branch index beyond its list")),
            op => step.execute(op),
        };
        result.map_err(|fault| (self.launch.function, inst.line, fault))
    }

    /// Has the interpreter execute an instruction for lanes of a group, on what compiled code has put into
    /// the exchange.
    pub fn execute(&mut self, pc: u32, first: u32, lanes: u32) {
        let (pc, first) = (pc as usize, first as usize);
        let together = lanes & TOGETHER != 0;
        let lanes = lanes & ((1 << GROUP) - 1);
        let shift = first % WARP;
        let active = lanes << shift;
        let effects = &self.variant.plan.effects[pc];
        for (place, &var) in effects.reads.iter().enumerate() {
            let mut values = [0; WARP];
            if let Some(row) = self.exchange.get(place) {
                values[shift..shift + GROUP].copy_from_slice(row);
            }
            self.set_register(var, active, &values);
        }
        match self.interpret(pc, first / WARP, active) {
            Ok(()) => self.remember(pc, active, together),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                self.machine.fault = 1;
            }
        }
        for (place, &var) in effects.writes.iter().enumerate() {
            let values = self.register(var);
            // Compiled code takes a predicate's truth from all bits of its lane.
            let is_register = self.variant.plan.vars.as_register(var).is_some();
            if let Some(row) = self.exchange.get_mut(place) {
                for (lane, value) in row.iter_mut().enumerate() {
                    let bits = values[shift + lane];
                    *value = if is_register {
                        bits
                    } else {
                        0u64.wrapping_sub(bits)
                    };
                }
            }
        }
    }

    /// The interpreter has panicked, which it must not.
    pub fn panicked(&mut self, pc: u32) {
        let line = self
            .function
            .code
            .get(pc as usize)
            .map_or(0, |inst| inst.line);
        let fault = Fault::IllegalInstruction("an instruction that the interpreter cannot take");
        self.failure
            .get_or_insert((self.launch.function, line, fault));
        self.machine.fault = 1;
    }

    /// After an access that was allowed: where compiled code may make the instruction's next ones itself.
    fn remember(&mut self, pc: usize, active: u32, together: bool) {
        let (space, address, whole) = match &self.function.code[pc].op {
            Op::Load {
                space,
                scalar,
                dsts,
                address,
            } => (*space, *address, scalar.bytes() * dsts.len() as u64),
            Op::Store {
                space,
                bytes,
                srcs,
                address,
            } => (*space, *address, bytes * srcs.len() as u64),
            _ => return,
        };
        let lane = active.trailing_zeros() as usize;
        let base = match address.base {
            Value::Reg(register) => self.registers.reg(register)[lane],
            Value::Global { variable, offset } => self
                .launch
                .globals
                .get(variable)
                .map_or(0, |at| at.wrapping_add_signed(offset)),
            _ => 0,
        };
        let address_shape = self.variant.plan.shapes.value(address.base);
        let at = base.wrapping_add_signed(address.offset);
        let shared = self.launch.shared_bytes;
        let host = self.spaces.shared.as_mut_ptr() as u64;
        let (start, bytes, delta) = match resolve(space, at) {
            (Space::Shared, _) if space == Space::Shared => (0, shared, host),
            (Space::Shared, _) if lies_in(Space::Shared, at) => {
                (SHARED_WINDOW, shared, host.wrapping_sub(SHARED_WINDOW))
            }
            (Space::Global | Space::Generic, _) => {
                let after = self
                    .launch
                    .allocations
                    .partition_point(|range| range.start <= at);
                let Some(range) = after
                    .checked_sub(1)
                    .and_then(|index| self.launch.allocations.get(index))
                else {
                    return;
                };
                (range.start, range.end - range.start, self.machine.delta)
            }
            _ => return,
        };
        let span = match address_shape {
            Shape::Stride(k) if together => {
                if !k.unsigned_abs().is_multiple_of(whole) {
                    return;
                }
                k.unsigned_abs() * (GROUP as u64 - 1) + whole
            }
            _ => whole,
        };
        let places = bytes.checked_sub(span).map_or(0, |rest| rest / whole + 1);
        let room = bytes.checked_sub(whole).map_or(0, |rest| rest + 1);
        if let Some(site) = self.sites.get_mut(2 * pc + usize::from(together)) {
            *site = Site {
                start,
                places,
                room,
                delta,
            };
        }
    }
}
