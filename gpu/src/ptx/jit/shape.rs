//! How a register's values differ between the lanes of a group that runs together.

use super::effects::Vars;
use crate::ptx::ir::{Function, Inst, IntOp, Op, PredValue, Reg, Space, Special, Value};

/// Lanes that compiled code runs together.
pub const GROUP: usize = 16;

/// Strides beyond this are treated as [`Shape::Varying`], so that a whole group's span never overflows.
const MAX_STRIDE: i64 = 1 << 24;

/// The values of a variable in the lanes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Never written.
    Unknown,
    /// Lane n has lane 0's value plus n times this, modulo the register's width.
    Stride(i64),
    Varying,
}

impl Shape {
    pub const UNIFORM: Self = Self::Stride(0);

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, shape) | (shape, Self::Unknown) => shape,
            (a, b) if a == b => a,
            _ => Self::Varying,
        }
    }

    fn stride(stride: Option<i64>) -> Self {
        match stride {
            Some(stride) if stride.abs() <= MAX_STRIDE => Self::Stride(stride),
            _ => Self::Varying,
        }
    }
}

/// The shape of every variable of a function; `rows` if a group's threads always lie in one row of the block.
#[derive(Debug)]
pub struct Shapes {
    vars: Vars,
    rows: bool,
    shapes: Vec<Shape>,
}

impl Shapes {
    /// The least fixpoint over all instructions in any order.
    pub fn of(function: &Function, rows: bool) -> Self {
        let vars = Vars::of(function);
        let mut shapes = Self {
            vars,
            rows,
            shapes: vec![Shape::Unknown; vars.count()],
        };
        let effects: Vec<_> = function
            .code
            .iter()
            .map(|inst| vars.effects(inst))
            .collect();
        let mut changed = true;
        while changed {
            changed = false;
            for (inst, effects) in function.code.iter().zip(&effects) {
                let guard = shapes.pred(inst.guard);
                let mut shape = shapes.result(inst);
                if guard == Shape::Varying && shape != Shape::Unknown {
                    shape = Shape::Varying;
                }
                for &var in &effects.writes {
                    let joined = shapes.shapes[var].join(shape);
                    changed |= joined != shapes.shapes[var];
                    shapes.shapes[var] = joined;
                }
            }
        }
        // What is never written reads as zero.
        for shape in &mut shapes.shapes {
            if *shape == Shape::Unknown {
                *shape = Shape::UNIFORM;
            }
        }
        shapes
    }

    pub fn var(&self, var: usize) -> Shape {
        self.shapes[var]
    }

    pub fn register(&self, register: Reg) -> Shape {
        self.shapes[self.vars.register(register)]
    }

    pub fn pred(&self, pred: PredValue) -> Shape {
        match pred {
            PredValue::Const(_) => Shape::UNIFORM,
            PredValue::Reg { index, .. } => self.shapes[self.vars.predicate(index)],
        }
    }

    pub fn value(&self, value: Value) -> Shape {
        match value {
            Value::Reg(register) => self.register(register),
            Value::Special(special) => match special {
                Special::Tid(0) if self.rows => Shape::Stride(1),
                Special::Tid(_) if !self.rows => Shape::Varying,
                Special::LaneId => Shape::Stride(1),
                Special::LaneMaskEq
                | Special::LaneMaskLe
                | Special::LaneMaskLt
                | Special::LaneMaskGe
                | Special::LaneMaskGt => Shape::Varying,
                _ => Shape::UNIFORM,
            },
            _ => Shape::UNIFORM,
        }
    }

    /// The operand of 32 bits that an instruction extends to 64, with its stride and whether by its sign. What
    /// it gives has a stride only if the operand does not overflow within the group.
    pub fn widened(&self, inst: &Inst) -> Option<(Value, i64, bool)> {
        let stride = |value| match self.value(value) {
            Shape::Stride(stride) if stride != 0 => Some(stride),
            _ => None,
        };
        let (value, signed) = match &inst.op {
            Op::Int {
                op: IntOp::MulWide | IntOp::MadWide,
                bits: 32,
                signed,
                args: [a, b, ..],
                ..
            } => (if stride(*a).is_some() { *a } else { *b }, *signed),
            Op::Convert { convert, src, .. }
                if convert.to.bytes() == 8
                    && convert.from.bytes() == 4
                    && !convert.to.is_float()
                    && !convert.from.is_float() =>
            {
                (*src, convert.from.is_signed())
            }
            _ => return None,
        };
        match self.result(inst) {
            Shape::Stride(_) => Some((value, stride(value)?, signed)),
            _ => None,
        }
    }

    /// The shape of what an instruction writes, its guard aside.
    pub fn result(&self, inst: &Inst) -> Shape {
        match &inst.op {
            Op::Mov { src, .. } => self.value(*src),
            Op::Cvta { a, .. } => self.value(*a),
            Op::Int { op, bits, args, .. } => self.integer(*op, *bits, args),
            Op::Convert { convert, src, .. } => {
                let integer = !convert.to.is_float() && !convert.from.is_float();
                match self.value(*src) {
                    Shape::Stride(k)
                        if k != 0
                            && !(integer
                                && !convert.sat
                                && convert.to.bytes() >= 4
                                && convert.from.bytes() >= 4) =>
                    {
                        Shape::Varying
                    }
                    shape => shape,
                }
            }
            Op::Selp { a, b, pred, .. } => match self.pred(*pred) {
                Shape::Stride(_) => self.value(*a).join(self.value(*b)),
                other => other,
            },
            Op::Load { space, address, .. } => match (space, self.value(address.base)) {
                (_, Shape::Unknown) => Shape::Unknown,
                // Threads have different local memory at one address.
                (Space::Global | Space::Shared | Space::Param, Shape::Stride(0)) => Shape::UNIFORM,
                _ => Shape::Varying,
            },
            Op::Atom { .. }
            | Op::Call { .. }
            | Op::Shfl { .. }
            | Op::Match { .. }
            | Op::Vote { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. } => Shape::Varying,
            // Every thread of the block gets the same answer.
            Op::Bar { .. } => Shape::UNIFORM,
            _ => self.all_uniform(inst),
        }
    }

    /// Uniform if every operand is.
    fn all_uniform(&self, inst: &Inst) -> Shape {
        let unguarded = Inst {
            guard: PredValue::Const(true),
            ..inst.clone()
        };
        let mut varying = false;
        for &var in &self.vars.effects(&unguarded).reads {
            match self.shapes[var] {
                Shape::Unknown => return Shape::Unknown,
                Shape::Stride(0) => {}
                _ => varying = true,
            }
        }
        // Special registers are no variables.
        varying |= specials(&inst.op)
            .into_iter()
            .any(|special| self.value(Value::Special(special)) != Shape::UNIFORM);
        if varying {
            Shape::Varying
        } else {
            Shape::UNIFORM
        }
    }

    fn integer(&self, op: IntOp, bits: u32, args: &[Value; 4]) -> Shape {
        let used = match op {
            IntOp::Add | IntOp::Sub | IntOp::MulLo | IntOp::MulWide | IntOp::Shl => 2,
            IntOp::MadLo | IntOp::MadWide => 3,
            _ => 4,
        };
        let shapes = args.map(|arg| self.value(arg));
        if shapes.contains(&Shape::Unknown) {
            return Shape::Unknown;
        }
        if shapes[..used].iter().all(|&shape| shape == Shape::UNIFORM) {
            return Shape::UNIFORM;
        }
        if bits < 32 {
            return Shape::Varying;
        }
        let stride = |index: usize| match shapes[index] {
            Shape::Stride(stride) => Some(stride),
            _ => None,
        };
        let factor = |index: usize| match args[index] {
            Value::Imm(value) if bits == 32 => Some(i64::from(value as u32 as i32)),
            Value::Imm(value) => Some(value as i64),
            _ => None,
        };
        let product = || match (stride(0)?, stride(1)?) {
            (0, 0) => Some(0),
            (k, 0) => k.checked_mul(factor(1)?),
            (0, k) => k.checked_mul(factor(0)?),
            _ => None,
        };
        // A factor below 2^31 is the same number signed and unsigned.
        let wide_product = || {
            let product = product()?;
            let negative = [0, 1]
                .into_iter()
                .any(|index| factor(index).is_some_and(|factor| factor < 0));
            (!negative).then_some(product)
        };
        let sum = |a: Option<i64>, b: Option<i64>| a?.checked_add(b?);
        Shape::stride(match op {
            IntOp::Add => sum(stride(0), stride(1)),
            IntOp::Sub => stride(0).and_then(|a| a.checked_sub(stride(1)?)),
            IntOp::MulLo => product(),
            IntOp::MadLo => sum(product(), stride(2)),
            IntOp::MulWide if bits == 32 => wide_product(),
            IntOp::MadWide if bits == 32 => sum(wide_product(), stride(2)),
            IntOp::Shl => match (stride(0), stride(1), factor(1)) {
                (Some(k), Some(0), Some(shift)) if (0..24).contains(&shift) => {
                    k.checked_mul(1 << shift)
                }
                _ => None,
            },
            _ => None,
        })
    }
}

/// Special registers among the operands of an instruction.
pub fn specials(op: &Op) -> Vec<Special> {
    let values: Vec<Value> = match op {
        Op::Mov { src, .. } | Op::Unpack { src, .. } | Op::Convert { src, .. } => vec![*src],
        Op::Pack { srcs, .. } => srcs.clone(),
        Op::Int { args, .. } => args.to_vec(),
        Op::IntHalves { a, b, .. } | Op::Setp { a, b, .. } | Op::Set { a, b, .. } => vec![*a, *b],
        Op::Selp { a, b, .. } => vec![*a, *b],
        Op::Carry { args, .. } | Op::Float { args, .. } => args.to_vec(),
        Op::ConvertPair { high, low, .. } => vec![*high, *low],
        Op::Testp { a, .. } | Op::IsSpace { a, .. } | Op::Cvta { a, .. } => vec![*a],
        Op::Slct { a, b, c, .. } => vec![*a, *b, *c],
        Op::Store { srcs, address, .. } => srcs.iter().copied().chain([address.base]).collect(),
        Op::Load { address, .. } => vec![address.base],
        Op::Atom { address, b, c, .. } => vec![address.base, *b, *c],
        Op::BrxIdx { index, .. } => vec![*index],
        _ => Vec::new(),
    };
    values
        .into_iter()
        .filter_map(|value| match value {
            Value::Special(special) => Some(special),
            _ => None,
        })
        .collect()
}
