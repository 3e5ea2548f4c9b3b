//! Which registers an instruction reads and writes.

use crate::ptx::ir::{Argument, BarOp, Callee, Function, Inst, Op, PredValue, Value};

/// Registers and predicates of a function in one numbering, the carry bit last.
pub type Var = usize;

#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub reads: Vec<Var>,
    pub writes: Vec<Var>,
}

/// The numbering of a function's variables.
#[derive(Clone, Copy, Debug)]
pub struct Vars {
    registers: usize,
    predicates: usize,
}

impl Vars {
    pub fn of(function: &Function) -> Self {
        Self {
            registers: function.registers.len(),
            predicates: function.predicates as usize,
        }
    }

    pub fn register(self, register: u32) -> Var {
        register as usize
    }

    pub fn predicate(self, predicate: u32) -> Var {
        self.registers + predicate as usize
    }

    /// The carry bit of extended-precision arithmetic.
    pub fn carry(self) -> Var {
        self.registers + self.predicates
    }

    pub fn count(self) -> usize {
        self.carry() + 1
    }

    /// The register that a variable is; `None` for a predicate or the carry bit.
    pub fn as_register(self, var: Var) -> Option<u32> {
        (var < self.registers).then_some(var as u32)
    }

    pub fn as_predicate(self, var: Var) -> Option<u32> {
        (self.registers..self.carry())
            .contains(&var)
            .then(|| (var - self.registers) as u32)
    }

    /// What an instruction reads, its guard included, and what it writes, each variable once.
    pub fn effects(self, inst: &Inst) -> Effects {
        let mut list = List {
            vars: self,
            effects: Effects::default(),
        };
        list.read_pred(inst.guard);
        list.op(&inst.op);
        for vars in [&mut list.effects.reads, &mut list.effects.writes] {
            vars.sort_unstable();
            vars.dedup();
        }
        list.effects
    }
}

struct List {
    vars: Vars,
    effects: Effects,
}

impl List {
    fn read(&mut self, value: Value) {
        if let Value::Reg(register) = value {
            self.effects.reads.push(self.vars.register(register));
        }
    }

    fn read_all(&mut self, values: &[Value]) {
        for &value in values {
            self.read(value);
        }
    }

    fn read_pred(&mut self, pred: PredValue) {
        if let PredValue::Reg { index, .. } = pred {
            self.effects.reads.push(self.vars.predicate(index));
        }
    }

    fn write(&mut self, register: u32) {
        self.effects.writes.push(self.vars.register(register));
    }

    fn write_pred(&mut self, predicate: Option<u32>) {
        if let Some(predicate) = predicate {
            self.effects.writes.push(self.vars.predicate(predicate));
        }
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Nop | Op::Fence | Op::Bra { .. } | Op::Ret | Op::Exit | Op::Trap => {}
            Op::Mov { dst, src } => {
                self.read(*src);
                self.write(*dst);
            }
            Op::Pack { dst, srcs, .. } => {
                self.read_all(srcs);
                self.write(*dst);
            }
            Op::Unpack { dsts, src, .. } => {
                self.read(*src);
                for &dst in dsts.iter().flatten() {
                    self.write(dst);
                }
            }
            Op::MovPred { dst, src } => {
                self.read_pred(*src);
                self.write_pred(Some(*dst));
            }
            Op::LogicPred { dst, a, b, .. } => {
                self.read_pred(*a);
                self.read_pred(*b);
                self.write_pred(Some(*dst));
            }
            Op::Int { dst, args, .. } => {
                self.read_all(args);
                self.write(*dst);
            }
            Op::IntHalves { dst, a, b, .. } => {
                self.read_all(&[*a, *b]);
                self.write(*dst);
            }
            Op::Carry {
                carry_in,
                carry_out,
                dst,
                args,
                ..
            } => {
                self.read_all(args);
                self.write(*dst);
                if *carry_in {
                    self.effects.reads.push(self.vars.carry());
                }
                if *carry_out {
                    self.effects.writes.push(self.vars.carry());
                }
            }
            Op::Float { dst, args, .. } => {
                self.read_all(args);
                self.write(*dst);
            }
            Op::Convert { dst, src, .. } => {
                self.read(*src);
                self.write(*dst);
            }
            Op::ConvertPair { dst, high, low, .. } => {
                self.read_all(&[*high, *low]);
                self.write(*dst);
            }
            Op::Setp {
                combine,
                dst,
                dst2,
                a,
                b,
                ..
            } => {
                self.read_all(&[*a, *b]);
                if let Some((_, pred)) = combine {
                    self.read_pred(*pred);
                }
                self.write_pred(*dst);
                self.write_pred(*dst2);
            }
            Op::Set {
                combine, dst, a, b, ..
            } => {
                self.read_all(&[*a, *b]);
                if let Some((_, pred)) = combine {
                    self.read_pred(*pred);
                }
                self.write(*dst);
            }
            Op::Testp { dst, a, .. } | Op::IsSpace { dst, a, .. } => {
                self.read(*a);
                self.write_pred(Some(*dst));
            }
            Op::Selp { dst, a, b, pred } => {
                self.read_all(&[*a, *b]);
                self.read_pred(*pred);
                self.write(*dst);
            }
            Op::Slct { dst, a, b, c, .. } => {
                self.read_all(&[*a, *b, *c]);
                self.write(*dst);
            }
            Op::Cvta { dst, a, .. } => {
                self.read(*a);
                self.write(*dst);
            }
            Op::Load { dsts, address, .. } => {
                self.read(address.base);
                for &(dst, _) in dsts.iter().flatten() {
                    self.write(dst);
                }
            }
            Op::Store { srcs, address, .. } => {
                self.read(address.base);
                self.read_all(srcs);
            }
            Op::Atom {
                dst, address, b, c, ..
            } => {
                self.read_all(&[address.base, *b, *c]);
                if let Some(dst) = dst {
                    self.write(*dst);
                }
            }
            _ => self.warp(op),
        }
    }

    /// Instructions in which lanes see each other, and control flow.
    fn warp(&mut self, op: &Op) {
        match op {
            Op::Shfl {
                dst,
                pred,
                a,
                b,
                c,
                members,
                ..
            } => {
                self.read_all(&[*a, *b, *c, *members]);
                self.write(*dst);
                self.write_pred(*pred);
            }
            Op::Vote {
                mode,
                dst,
                pred,
                members,
            } => {
                self.read_pred(*pred);
                self.read(*members);
                match mode {
                    crate::ptx::ir::VoteMode::Ballot => self.write(*dst),
                    _ => self.write_pred(Some(*dst)),
                }
            }
            Op::Match {
                dst,
                pred,
                a,
                members,
                ..
            } => {
                self.read_all(&[*a, *members]);
                self.write(*dst);
                self.write_pred(*pred);
            }
            Op::Redux {
                dst, a, members, ..
            } => {
                self.read_all(&[*a, *members]);
                self.write(*dst);
            }
            Op::WarpSync { members } => self.read(*members),
            Op::ActiveMask { dst } => self.write(*dst),
            Op::Bar { op, id, threads } => {
                self.read(*id);
                if let Some(threads) = threads {
                    self.read(*threads);
                }
                match op {
                    BarOp::Sync | BarOp::Arrive => {}
                    BarOp::Popc { dst, pred } => {
                        self.read_pred(*pred);
                        self.write(*dst);
                    }
                    BarOp::And { dst, pred } | BarOp::Or { dst, pred } => {
                        self.read_pred(*pred);
                        self.write_pred(Some(*dst));
                    }
                }
            }
            Op::BrxIdx { index, .. } => self.read(*index),
            Op::Call {
                callee,
                returns,
                args,
            } => {
                if let Callee::Indirect(value) = callee {
                    self.read(*value);
                }
                for arg in args {
                    if let Argument::Value(value) = arg {
                        self.read(*value);
                    }
                }
                for result in returns {
                    if let Argument::Value(Value::Reg(register)) = result {
                        self.write(*register);
                    }
                }
            }
            _ => {}
        }
    }
}
