//! Floating-point arithmetic, conversions, moves and comparisons (PTX ISA 9.7.3 to 9.7.7 and 9.7.9).

use super::operand::Operands;
use crate::ptx::float::{Rounding, approx::Function};
use crate::ptx::ir::{
    BoolOp, Compare, Convert, FloatClass, FloatMods, FloatOp, FloatType, Op, Test, Value,
};
use crate::ptx::syntax::{Operand, Scalar, SyntaxError};

const NONE: Value = Value::Imm(0);

fn float_type(scalar: Scalar) -> Option<FloatType> {
    Some(match scalar {
        Scalar::F16 => FloatType::F16,
        Scalar::F16x2 => FloatType::F16x2,
        Scalar::Bf16 => FloatType::Bf16,
        Scalar::Bf16x2 => FloatType::Bf16x2,
        Scalar::F32 => FloatType::F32,
        Scalar::F64 => FloatType::F64,
        _ => return None,
    })
}

impl Operands<'_, '_, '_> {
    pub fn float(&mut self) -> Result<Option<Op>, SyntaxError> {
        let scalar = self.ty()?;
        let Some(ty) = float_type(scalar) else {
            return Ok(None);
        };
        if self.source.opcode == "testp" {
            return self.testp(scalar, ty).map(Some);
        }
        let approx = self.take("approx");
        let full = self.take("full");
        let rounding = self.rounding();
        let mods = FloatMods {
            rounding: rounding.unwrap_or(Rounding::NearestEven),
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            relu: self.take("relu"),
            nan: self.take("NaN"),
            xorsign_abs: self.take("xorsign") && self.take("abs"),
        };
        let approximate = |function| {
            if ty == FloatType::F64 {
                FloatOp::ApproxHigh(function)
            } else {
                FloatOp::Approx(function)
            }
        };
        let (op, count) = match self.source.opcode {
            "add" => (FloatOp::Add, 2),
            "sub" => (FloatOp::Sub, 2),
            "mul" => (FloatOp::Mul, 2),
            "fma" | "mad" => (FloatOp::Fma, 3),
            "div" if approx || full || rounding.is_some() => (FloatOp::Div, 2),
            "min" => (FloatOp::Min, 2),
            "max" => (FloatOp::Max, 2),
            "neg" => (FloatOp::Neg, 1),
            "abs" => (FloatOp::Abs, 1),
            "copysign" => (FloatOp::CopySign, 2),
            "rcp" if approx => (approximate(Function::Rcp), 1),
            "rcp" if rounding.is_some() => (FloatOp::Rcp, 1),
            "sqrt" if approx => (FloatOp::Approx(Function::Sqrt), 1),
            "sqrt" if rounding.is_some() => (FloatOp::Sqrt, 1),
            "rsqrt" if approx && mods.ftz => (approximate(Function::Rsqrt), 1),
            "rsqrt" if approx => (FloatOp::Approx(Function::Rsqrt), 1),
            "sin" if approx => (FloatOp::Approx(Function::Sin), 1),
            "cos" if approx => (FloatOp::Approx(Function::Cos), 1),
            "lg2" if approx => (FloatOp::Approx(Function::Lg2), 1),
            "ex2" if approx => (FloatOp::Approx(Function::Ex2), 1),
            "tanh" if approx => (FloatOp::Approx(Function::Tanh), 1),
            _ => return Ok(None),
        };
        self.expect_count(count + 1..=count + 1)?;
        let mut args = [NONE; 3];
        for (index, arg) in args.iter_mut().enumerate().take(count) {
            *arg = self.value(index + 1, scalar)?;
        }
        Ok(Some(Op::Float {
            op,
            ty,
            mods,
            dst: self.dst(0, scalar.bytes() as u32 * 8)?,
            args,
        }))
    }

    fn testp(&mut self, scalar: Scalar, ty: FloatType) -> Result<Op, SyntaxError> {
        let class = self
            .choose(&[
                ("finite", FloatClass::Finite),
                ("infinite", FloatClass::Infinite),
                ("number", FloatClass::Number),
                ("notanumber", FloatClass::NotANumber),
                ("normal", FloatClass::Normal),
                ("subnormal", FloatClass::Subnormal),
            ])
            .ok_or_else(|| self.unsupported())?;
        self.expect_count(2..=2)?;
        Ok(Op::Testp {
            class,
            ty,
            dst: self.dst_pred(self.operand(0)?)?,
            a: self.value(1, scalar)?,
        })
    }

    /// Instructions of any type: moves, conversions, comparisons and selections.
    pub fn move_or_compare(&mut self) -> Result<Option<Op>, SyntaxError> {
        Ok(Some(match self.source.opcode {
            "mov" => self.mov()?,
            "cvt" => self.convert()?,
            "setp" => self.setp()?,
            "set" => self.set()?,
            "selp" => {
                self.expect_count(4..=4)?;
                let ty = self.ty()?;
                Op::Selp {
                    dst: self.dst(0, ty.bytes() as u32 * 8)?,
                    a: self.value(1, ty)?,
                    b: self.value(2, ty)?,
                    pred: self.pred(3)?,
                }
            }
            "slct" => {
                self.expect_count(4..=4)?;
                let (ty, by) = match self.types[..] {
                    [ty, by @ (Scalar::S32 | Scalar::F32)] => (ty, by),
                    _ => return Err(self.unsupported()),
                };
                Op::Slct {
                    float: by == Scalar::F32,
                    ftz: self.take("ftz"),
                    dst: self.dst(0, ty.bytes() as u32 * 8)?,
                    a: self.value(1, ty)?,
                    b: self.value(2, ty)?,
                    c: self.value(3, by)?,
                }
            }
            _ => return Ok(None),
        }))
    }

    fn mov(&mut self) -> Result<Op, SyntaxError> {
        self.expect_count(2..=2)?;
        let ty = self.ty()?;
        let bits = ty.bytes() as u32 * 8;
        let element = |count: usize| {
            let bits = bits / count.max(1) as u32;
            let scalar = match bits {
                8 => Scalar::B8,
                16 => Scalar::B16,
                32 => Scalar::B32,
                _ => return None,
            };
            Some((bits, scalar))
        };
        if ty == Scalar::Pred {
            return Ok(Op::MovPred {
                dst: self.dst_pred(self.operand(0)?)?,
                src: self.pred(1)?,
            });
        }
        match (self.operand(0)?, self.operand(1)?) {
            (Operand::Vector(elements), _) => {
                let (bits, _) = element(elements.len()).ok_or_else(|| self.unsupported())?;
                let mut dsts = Vec::new();
                for operand in elements {
                    let (reg, width) = self.dst_wide(operand)?;
                    if width != 0 && width != bits {
                        return Err(
                            self.error(format!("an element of {bits} bits is written to {width}"))
                        );
                    }
                    dsts.push((width != 0).then_some(reg));
                }
                let src = self.value(1, ty)?;
                Ok(Op::Unpack { dsts, bits, src })
            }
            (_, Operand::Vector(elements)) => {
                let (bits, scalar) = element(elements.len()).ok_or_else(|| self.unsupported())?;
                let mut srcs = Vec::new();
                for operand in elements {
                    let (value, width) = self.value_of(operand, scalar)?;
                    if width.is_some_and(|width| width != bits) {
                        return Err(self.error(format!("an element is not {bits} bits wide")));
                    }
                    srcs.push(value);
                }
                let dst = self.dst(0, ty.bytes() as u32 * 8)?;
                Ok(Op::Pack { dst, bits, srcs })
            }
            _ => Ok(Op::Mov {
                dst: self.dst(0, bits)?,
                src: self.value(1, ty)?,
            }),
        }
    }

    fn convert(&mut self) -> Result<Op, SyntaxError> {
        let (to, from) = match self.types[..] {
            [to, from] => (to, from),
            _ => return Err(self.unsupported()),
        };
        let (rounding, integral) = self
            .choose(&[
                ("rni", (Rounding::NearestEven, true)),
                ("rzi", (Rounding::Zero, true)),
                ("rmi", (Rounding::Down, true)),
                ("rpi", (Rounding::Up, true)),
            ])
            .or_else(|| self.rounding().map(|rounding| (rounding, false)))
            .unwrap_or((Rounding::NearestEven, false));
        let mut convert = Convert {
            to,
            from,
            rounding,
            integral,
            ftz: self.take("ftz"),
            sat: self.take("sat"),
            relu: self.take("relu"),
        };
        if let (Scalar::F16x2 | Scalar::Bf16x2, Scalar::F32) = (to, from) {
            self.expect_count(3..=3)?;
            convert.to = if to == Scalar::F16x2 {
                Scalar::F16
            } else {
                Scalar::Bf16
            };
            return Ok(Op::ConvertPair {
                convert,
                dst: self.dst(0, 32)?,
                high: self.value(1, from)?,
                low: self.value(2, from)?,
            });
        }
        let known = |scalar: Scalar| {
            !matches!(
                scalar,
                Scalar::Pred
                    | Scalar::B8
                    | Scalar::B16
                    | Scalar::B32
                    | Scalar::B64
                    | Scalar::B128
                    | Scalar::F16x2
                    | Scalar::Bf16x2
                    | Scalar::U16x2
                    | Scalar::S16x2
            )
        };
        if !known(to) || !known(from) || from == Scalar::Tf32 {
            return Err(self.unsupported());
        }
        self.expect_count(2..=2)?;
        // Registers may be wider than the types: the low part is read, and the result is extended.
        let (dst, width) = self.dst_wide(self.operand(0)?)?;
        let (src, bits) = self.value_of(self.operand(1)?, from)?;
        let narrow = width != 0 && width < to.bytes() as u32 * 8
            || bits.is_some_and(|bits| bits < from.bytes() as u32 * 8);
        if narrow {
            return Err(self.error(format!(
                "`{}`: a register is too narrow",
                self.source.mnemonic()
            )));
        }
        // A signed result in a wider register is extended by its sign.
        if width > to.bytes() as u32 * 8 && to.is_signed() {
            convert.to = match width {
                16 => Scalar::S16,
                32 => Scalar::S32,
                _ => Scalar::S64,
            };
            let whole = from.bytes() < to.bytes() || from.bytes() == to.bytes() && from.is_signed();
            if convert.sat || from.is_float() || !whole {
                return self.convert_wide(convert, to, dst, src);
            }
        }
        Ok(Op::Convert { convert, dst, src })
    }

    /// `cvt.s8.s32` into a wider register: first to the type, then to the register's width.
    fn convert_wide(
        &mut self,
        wide: Convert,
        to: Scalar,
        dst: u32,
        src: Value,
    ) -> Result<Op, SyntaxError> {
        let middle = self.function.new_register(to.bytes() as u32 * 8);
        let first = Op::Convert {
            convert: Convert { to, ..wide },
            dst: middle,
            src,
        };
        self.emit(first)?;
        Ok(Op::Convert {
            convert: Convert {
                from: to,
                sat: false,
                ..wide
            },
            dst,
            src: Value::Reg(middle),
        })
    }

    fn comparison(&mut self) -> Result<Compare, SyntaxError> {
        const fn compare(test: Test, unordered: bool) -> Compare {
            Compare { test, unordered }
        }
        self.choose(&[
            ("eq", compare(Test::Eq, false)),
            ("ne", compare(Test::Ne, false)),
            ("lt", compare(Test::Lt, false)),
            ("le", compare(Test::Le, false)),
            ("gt", compare(Test::Gt, false)),
            ("ge", compare(Test::Ge, false)),
            ("lo", compare(Test::Lt, false)),
            ("ls", compare(Test::Le, false)),
            ("hi", compare(Test::Gt, false)),
            ("hs", compare(Test::Ge, false)),
            ("equ", compare(Test::Eq, true)),
            ("neu", compare(Test::Ne, true)),
            ("ltu", compare(Test::Lt, true)),
            ("leu", compare(Test::Le, true)),
            ("gtu", compare(Test::Gt, true)),
            ("geu", compare(Test::Ge, true)),
            ("num", compare(Test::Num, false)),
            ("nan", compare(Test::Nan, true)),
        ])
        .ok_or_else(|| self.unsupported())
    }

    fn bool_op(&mut self) -> Option<BoolOp> {
        self.choose(&[
            ("and", BoolOp::And),
            ("or", BoolOp::Or),
            ("xor", BoolOp::Xor),
        ])
    }

    fn setp(&mut self) -> Result<Op, SyntaxError> {
        let compare = self.comparison()?;
        let bool_op = self.bool_op();
        let ty = self.ty()?;
        let count = 3 + usize::from(bool_op.is_some());
        self.expect_count(count..=count)?;
        let combine = match bool_op {
            Some(op) => Some((op, self.pred(3)?)),
            None => None,
        };
        let (dst, dst2) = match self.operand(0)? {
            Operand::Pair(first, second) => {
                (Some(self.dst_pred(first)?), Some(self.dst_pred(second)?))
            }
            operand => (Some(self.dst_pred(operand)?), None),
        };
        Ok(Op::Setp {
            compare,
            ty,
            ftz: self.take("ftz"),
            combine,
            dst,
            dst2,
            a: self.value(1, ty)?,
            b: self.value(2, ty)?,
        })
    }

    fn set(&mut self) -> Result<Op, SyntaxError> {
        let compare = self.comparison()?;
        let bool_op = self.bool_op();
        let (result, ty) = match self.types[..] {
            [result, ty] => (result, ty),
            _ => return Err(self.unsupported()),
        };
        let count = 3 + usize::from(bool_op.is_some());
        self.expect_count(count..=count)?;
        let combine = match bool_op {
            Some(op) => Some((op, self.pred(3)?)),
            None => None,
        };
        Ok(Op::Set {
            compare,
            ty,
            ftz: self.take("ftz"),
            combine,
            result,
            dst: self.dst(0, result.bytes() as u32 * 8)?,
            a: self.value(1, ty)?,
            b: self.value(2, ty)?,
        })
    }
}
