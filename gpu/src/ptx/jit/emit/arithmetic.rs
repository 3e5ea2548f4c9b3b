//! Instructions without effect beside their results: which have code of their own.

use super::Emitter;
use crate::ptx::ir::{FloatType, Inst, Op, Special};
use crate::ptx::jit::shape::{Shape, specials};

impl Emitter<'_, '_> {
    /// Emits arithmetic, moves and selections; false if the instruction has no code of its own.
    pub fn arithmetic(&mut self, inst: &Inst) -> bool {
        let clock = |special: &Special| {
            matches!(
                special,
                Special::Clock | Special::Clock64 | Special::GlobalTimer
            )
        };
        if specials(&inst.op).iter().any(clock) {
            return false;
        }
        let shape = if self.wide {
            self.source.plan.shapes.result(inst)
        } else {
            Shape::UNIFORM
        };
        self.strided = matches!(shape, Shape::Stride(k) if k != 0);
        let done = self.pure(&inst.op, shape);
        self.strided = false;
        done
    }

    fn pure(&mut self, op: &Op, shape: Shape) -> bool {
        match op {
            Op::Int {
                op,
                bits,
                signed,
                dst,
                args,
            } => match self.integer(*op, *bits, *signed, args) {
                Some(val) => self.write(*dst, val, shape),
                None => return false,
            },
            Op::Float {
                op,
                ty: ty @ (FloatType::F32 | FloatType::F64),
                mods,
                dst,
                args,
            } => return self.float(*op, *ty, mods, *dst, args),
            Op::Convert { convert, dst, src } => {
                return self.convert(convert, *dst, *src, shape);
            }
            _ => return self.select(op, shape),
        }
        true
    }
}
