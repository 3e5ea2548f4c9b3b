//! Integer, logic, shift and bit-field instructions (PTX ISA 9.7.1, 9.7.2, 9.7.8).

use super::operand::Operands;
use crate::ptx::ir::{BoolOp, CarryOp, IntOp, Op, PrmtMode, Value};
use crate::ptx::syntax::{Scalar, SyntaxError};

const NONE: Value = Value::Imm(0);

impl Operands<'_, '_, '_> {
    pub fn integer(&mut self) -> Result<Option<Op>, SyntaxError> {
        let ty = match self.types.first() {
            Some(ty) => *ty,
            None => return Ok(None),
        };
        if ty == Scalar::Pred {
            return self.logic();
        }
        if matches!(ty, Scalar::U16x2 | Scalar::S16x2) {
            return self.halves(ty);
        }
        if ty.bytes() < 2 || ty == Scalar::B128 {
            return Ok(None);
        }
        if let Some(op) = self.carry(ty)? {
            return Ok(Some(op));
        }
        let narrow = Scalar::U32;
        // Result width, then the type of each source.
        let same = |count: usize| (ty, vec![ty; count]);
        let opcode = self.source.opcode;
        let only32 = matches!(
            opcode,
            "mul24" | "mad24" | "shf" | "bmsk" | "szext" | "fns" | "prmt" | "lop3"
        );
        if only32 && ty.bytes() != 4 {
            return Ok(None);
        }
        let saturates = ty == Scalar::S32;
        let (op, (result, sources)) = match opcode {
            "add" if saturates && self.take("sat") => (IntOp::AddSat, same(2)),
            "add" => (IntOp::Add, same(2)),
            "sub" if saturates && self.take("sat") => (IntOp::SubSat, same(2)),
            "sub" => (IntOp::Sub, same(2)),
            "mul" | "mad" => return self.multiply(ty).map(Some),
            "mul24" if self.take("hi") => (IntOp::Mul24Hi, same(2)),
            "mul24" if self.take("lo") => (IntOp::Mul24Lo, same(2)),
            "mad24" if self.take("hi") => (IntOp::Mad24Hi, same(3)),
            "mad24" if self.take("lo") => (IntOp::Mad24Lo, same(3)),
            "sad" => (IntOp::Sad, same(3)),
            "div" => (IntOp::Div, same(2)),
            "rem" => (IntOp::Rem, same(2)),
            "min" => (IntOp::Min, same(2)),
            "max" => (IntOp::Max, same(2)),
            "neg" => (IntOp::Neg, same(1)),
            "abs" => (IntOp::Abs, same(1)),
            "and" => (IntOp::And, same(2)),
            "or" => (IntOp::Or, same(2)),
            "xor" => (IntOp::Xor, same(2)),
            "not" => (IntOp::Not, same(1)),
            "cnot" => (IntOp::Cnot, same(1)),
            "shl" => (IntOp::Shl, (ty, vec![ty, narrow])),
            "shr" => (IntOp::Shr, (ty, vec![ty, narrow])),
            "shf" => {
                let left = self.take("l") || !self.take("r");
                let wrap = self.take("wrap") || !self.take("clamp");
                (IntOp::Shf { left, wrap }, same(3))
            }
            "bfe" => (IntOp::Bfe, (ty, vec![ty, narrow, narrow])),
            "bfi" => (IntOp::Bfi, (ty, vec![ty, ty, narrow, narrow])),
            "bfind" => {
                let shift = self.take("shiftamt");
                (IntOp::Bfind { shift }, (narrow, vec![ty]))
            }
            "bmsk" => {
                let wrap = self.take("wrap") || !self.take("clamp");
                (IntOp::Bmsk { wrap }, same(2))
            }
            "szext" => {
                let wrap = self.take("wrap") || !self.take("clamp");
                (IntOp::Szext { wrap }, (ty, vec![ty, narrow]))
            }
            "brev" => (IntOp::Brev, same(1)),
            "clz" => (IntOp::Clz, (narrow, vec![ty])),
            "popc" => (IntOp::Popc, (narrow, vec![ty])),
            "fns" => (IntOp::Fns, (narrow, vec![narrow; 3])),
            "lop3" => return self.lop3().map(Some),
            "prmt" => {
                let mode = self.choose(&[
                    ("f4e", PrmtMode::F4e),
                    ("b4e", PrmtMode::B4e),
                    ("rc8", PrmtMode::Rc8),
                    ("ecl", PrmtMode::Ecl),
                    ("ecr", PrmtMode::Ecr),
                    ("rc16", PrmtMode::Rc16),
                ]);
                (IntOp::Prmt(mode.unwrap_or(PrmtMode::Index)), same(3))
            }
            "dp4a" | "dp2a" => return self.dot_product().map(Some),
            _ => return Ok(None),
        };
        self.int_op(op, ty, result, &sources).map(Some)
    }

    fn int_op(
        &mut self,
        op: IntOp,
        ty: Scalar,
        result: Scalar,
        sources: &[Scalar],
    ) -> Result<Op, SyntaxError> {
        self.expect_count(sources.len() + 1..=sources.len() + 1)?;
        let mut args = [NONE; 4];
        for (index, (arg, &source)) in args.iter_mut().zip(sources).enumerate() {
            *arg = self.value(index + 1, source)?;
        }
        Ok(Op::Int {
            op,
            bits: ty.bytes() as u32 * 8,
            signed: ty.is_signed(),
            dst: self.dst(0, result.bytes() as u32 * 8)?,
            args,
        })
    }

    /// `mul` and `mad` with `.lo`, `.hi` and `.wide`.
    fn multiply(&mut self, ty: Scalar) -> Result<Op, SyntaxError> {
        let add = self.source.opcode == "mad";
        let wide = match ty {
            Scalar::U16 => Scalar::U32,
            Scalar::S16 => Scalar::S32,
            Scalar::U32 => Scalar::U64,
            _ => Scalar::S64,
        };
        let (op, result) = if self.take("wide") {
            if ty.bytes() > 4 {
                return Err(self.unsupported());
            }
            (if add { IntOp::MadWide } else { IntOp::MulWide }, wide)
        } else if self.take("hi") {
            let op = match (add, ty == Scalar::S32 && self.take("sat")) {
                (true, true) => IntOp::MadHiSat,
                (true, false) => IntOp::MadHi,
                (false, false) => IntOp::MulHi,
                (false, true) => return Err(self.unsupported()),
            };
            (op, ty)
        } else if self.take("lo") {
            (if add { IntOp::MadLo } else { IntOp::MulLo }, ty)
        } else {
            return Err(self.unsupported());
        };
        let mut sources = vec![ty, ty];
        if add {
            sources.push(result);
        }
        self.int_op(op, ty, result, &sources)
    }

    fn lop3(&mut self) -> Result<Op, SyntaxError> {
        let table = match self.value(4, Scalar::B32)? {
            Value::Imm(table @ 0..=255) => table as u8,
            _ => return Err(self.error("the table of `lop3` is a constant from 0 to 255")),
        };
        self.expect_count(5..=5)?;
        let args = [
            self.value(1, Scalar::B32)?,
            self.value(2, Scalar::B32)?,
            self.value(3, Scalar::B32)?,
            NONE,
        ];
        Ok(Op::Int {
            op: IntOp::Lop3(table),
            bits: 32,
            signed: false,
            dst: self.dst(0, 32)?,
            args,
        })
    }

    fn dot_product(&mut self) -> Result<Op, SyntaxError> {
        let (a_signed, b_signed) = match self.types[..] {
            [a, b] if a.bytes() == 4 && b.bytes() == 4 => (a.is_signed(), b.is_signed()),
            _ => return Err(self.unsupported()),
        };
        let op = if self.source.opcode == "dp4a" {
            IntOp::Dp4a { a_signed, b_signed }
        } else {
            let high = self.take("hi") || !self.take("lo");
            IntOp::Dp2a {
                a_signed,
                b_signed,
                high,
            }
        };
        self.int_op(op, Scalar::B32, Scalar::B32, &[Scalar::B32; 3])
    }

    /// Extended-precision arithmetic: `.cc` sets the carry, `addc`, `subc` and `madc` use it.
    fn carry(&mut self, ty: Scalar) -> Result<Option<Op>, SyntaxError> {
        let carry_out = self.take("cc");
        let opcode = self.source.opcode;
        let (op, carry_in) = match opcode {
            "addc" => (CarryOp::Add, true),
            "subc" => (CarryOp::Sub, true),
            "add" if carry_out => (CarryOp::Add, false),
            "sub" if carry_out => (CarryOp::Sub, false),
            "madc" if self.take("hi") => (CarryOp::MadHi, true),
            "madc" if self.take("lo") => (CarryOp::MadLo, true),
            "mad" if carry_out && self.take("hi") => (CarryOp::MadHi, false),
            "mad" if carry_out && self.take("lo") => (CarryOp::MadLo, false),
            _ if carry_out => return Err(self.unsupported()),
            _ => return Ok(None),
        };
        let sources = if matches!(op, CarryOp::MadLo | CarryOp::MadHi) {
            3
        } else {
            2
        };
        self.expect_count(sources + 1..=sources + 1)?;
        let mut args = [NONE; 3];
        for (index, arg) in args.iter_mut().enumerate().take(sources) {
            *arg = self.value(index + 1, ty)?;
        }
        let bits = ty.bytes() as u32 * 8;
        Ok(Some(Op::Carry {
            op,
            bits,
            signed: ty.is_signed(),
            carry_in,
            carry_out,
            dst: self.dst(0, bits)?,
            args,
        }))
    }

    /// `add.u16x2` and the like.
    fn halves(&mut self, ty: Scalar) -> Result<Option<Op>, SyntaxError> {
        let op = match self.source.opcode {
            "add" => IntOp::Add,
            "min" => IntOp::Min,
            "max" => IntOp::Max,
            _ => return Ok(None),
        };
        self.expect_count(3..=3)?;
        Ok(Some(Op::IntHalves {
            op,
            signed: ty == Scalar::S16x2,
            dst: self.dst(0, 32)?,
            a: self.value(1, ty)?,
            b: self.value(2, ty)?,
        }))
    }

    /// `and.pred` and the like.
    fn logic(&mut self) -> Result<Option<Op>, SyntaxError> {
        let op = match self.source.opcode {
            "and" => BoolOp::And,
            "or" => BoolOp::Or,
            "xor" => BoolOp::Xor,
            "not" => {
                self.expect_count(2..=2)?;
                let dst = self.dst_pred(self.operand(0)?)?;
                let a = self.pred(1)?;
                let b = crate::ptx::ir::PredValue::Const(true);
                let op = BoolOp::Xor;
                return Ok(Some(Op::LogicPred { op, dst, a, b }));
            }
            _ => return Ok(None),
        };
        self.expect_count(3..=3)?;
        Ok(Some(Op::LogicPred {
            op,
            dst: self.dst_pred(self.operand(0)?)?,
            a: self.pred(1)?,
            b: self.pred(2)?,
        }))
    }
}
