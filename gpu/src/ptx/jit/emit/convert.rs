//! Conversions between formats.

use cranelift_codegen::ir::{InstBuilder, Value as Ir, types};

use super::Emitter;
use super::float::saturate;
use super::select::flush;
use super::value::{Val, as_float, as_int};
use crate::ptx::float::Rounding;
use crate::ptx::ir::{Convert, Reg, Value};
use crate::ptx::jit::plan::lane_bits;
use crate::ptx::jit::shape::Shape;
use crate::ptx::syntax::Scalar;

/// What a conversion reads or writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Integer { bits: u32, signed: bool },
    Float { bits: u32 },
}

fn kind(scalar: Scalar) -> Option<Kind> {
    let bits = scalar.bytes() as u32 * 8;
    match scalar {
        Scalar::F32 | Scalar::F64 => Some(Kind::Float { bits }),
        Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => Some(Kind::Integer {
            bits,
            signed: false,
        }),
        Scalar::B8 | Scalar::B16 | Scalar::B32 | Scalar::B64 => Some(Kind::Integer {
            bits,
            signed: false,
        }),
        Scalar::S8 | Scalar::S16 | Scalar::S32 | Scalar::S64 => {
            Some(Kind::Integer { bits, signed: true })
        }
        _ => None,
    }
}

impl Emitter<'_, '_> {
    /// Emits a conversion; false if it has no code of its own.
    pub fn convert(&mut self, convert: &Convert, dst: Reg, src: Value, shape: Shape) -> bool {
        if convert.relu {
            return false;
        }
        let (Some(from), Some(to)) = (kind(convert.from), kind(convert.to)) else {
            return false;
        };
        match (from, to) {
            (Kind::Integer { bits, signed }, Kind::Integer { bits: to, .. }) => {
                if convert.sat {
                    return false;
                }
                let val = self.source_integer(src, bits, signed, to);
                let val = self.cut(val, to);
                self.write(dst, val, shape);
            }
            (Kind::Integer { bits, signed }, Kind::Float { bits: to }) => {
                if convert.rounding != Rounding::NearestEven {
                    return false;
                }
                let val = self.floated(src, bits, signed, to);
                let val = self.finished(val, convert);
                self.write_float(dst, val);
            }
            (Kind::Float { bits }, Kind::Integer { bits: to, signed }) => {
                if to < 32 {
                    return false;
                }
                let Some(val) = self.truncated(convert, src, bits, to, signed) else {
                    return false;
                };
                self.write(dst, val, Shape::UNIFORM);
            }
            (Kind::Float { bits }, Kind::Float { bits: to }) => {
                let val = self.operand_raw(src, bits);
                let val = self.flushed(val, convert);
                let val = match (bits, to) {
                    (32, 64) => self.promoted(&val),
                    (64, 32) if convert.rounding == Rounding::NearestEven => self.demoted(&val),
                    (64, 32) => return false,
                    _ => val,
                };
                let val = if convert.integral {
                    let Some(val) = self.integral(val, convert.rounding) else {
                        return false;
                    };
                    val
                } else {
                    val
                };
                let val = self.finished(val, convert);
                self.write_float(dst, val);
            }
        }
        true
    }

    /// An integer of `bits` bits, extended or truncated to the lanes of `to` bits.
    fn source_integer(&mut self, src: Value, bits: u32, signed: bool, to: u32) -> Val {
        // A register may be wider than what is converted.
        let width = match src {
            Value::Reg(register) => self.register_bits(register).max(bits),
            _ => bits,
        };
        let val = self.operand(src, width);
        let val = self.resize(val, lane_bits(bits));
        let val = if signed {
            self.sign_narrow(val, bits)
        } else {
            self.cut(val, bits)
        };
        match (val.lane, lane_bits(to)) {
            (32, 64) if signed => self.sign_extended(&val),
            (_, lane) => self.resize(val, lane),
        }
    }

    fn floated(&mut self, src: Value, bits: u32, signed: bool, to: u32) -> Val {
        let val = self.source_integer(src, bits, signed, bits.max(32));
        let ty = if to == 32 { types::F32 } else { types::F64 };
        if val.lane == 32 && to == 32 {
            return self.map(&[val], 32, |b, args| {
                let value = as_int(b, args[0]);
                let ty = if b.func.dfg.value_type(value).is_vector() {
                    types::F32X4
                } else {
                    types::F32
                };
                if signed {
                    b.ins().fcvt_from_sint(ty, value)
                } else {
                    b.ins().fcvt_from_uint(ty, value)
                }
            });
        }
        // Lanes of different widths: one at a time.
        let convert = |b: &mut cranelift_frontend::FunctionBuilder<'_>, value: Ir| {
            if signed {
                b.ins().fcvt_from_sint(ty, value)
            } else {
                b.ins().fcvt_from_uint(ty, value)
            }
        };
        self.each(&[val], to, |b, args| {
            let value = as_int(b, args[0]);
            convert(b, value)
        })
    }

    fn truncated(
        &mut self,
        convert: &Convert,
        src: Value,
        bits: u32,
        to: u32,
        signed: bool,
    ) -> Option<Val> {
        let val = self.operand_raw(src, bits);
        let val = self.flushed(val, convert);
        let val = match convert.rounding {
            Rounding::Zero => val,
            rounding => self.integral(val, rounding)?,
        };
        if bits == 32 && to == 32 {
            return Some(self.map(&[val], 32, |b, args| {
                let value = as_float(b, args[0]);
                let ty = if b.func.dfg.value_type(value).is_vector() {
                    types::I32X4
                } else {
                    types::I32
                };
                if signed {
                    b.ins().fcvt_to_sint_sat(ty, value)
                } else {
                    b.ins().fcvt_to_uint_sat(ty, value)
                }
            }));
        }
        let ty = if to == 32 { types::I32 } else { types::I64 };
        Some(self.each(&[val], to, |b, args| {
            let value = as_float(b, args[0]);
            if signed {
                b.ins().fcvt_to_sint_sat(ty, value)
            } else {
                b.ins().fcvt_to_uint_sat(ty, value)
            }
        }))
    }

    fn integral(&mut self, val: Val, rounding: Rounding) -> Option<Val> {
        if rounding == Rounding::NearestAway {
            return None;
        }
        let lane = val.lane;
        Some(self.map(&[val], lane, |b, args| {
            let value = as_float(b, args[0]);
            match rounding {
                Rounding::Zero => b.ins().trunc(value),
                Rounding::Down => b.ins().floor(value),
                Rounding::Up => b.ins().ceil(value),
                _ => b.ins().nearest(value),
            }
        }))
    }

    fn flushed(&mut self, val: Val, convert: &Convert) -> Val {
        if !convert.ftz || convert.from != Scalar::F32 {
            return val;
        }
        self.map(&[val], 32, |b, args| {
            let value = as_float(b, args[0]);
            flush(b, value)
        })
    }

    fn finished(&mut self, val: Val, convert: &Convert) -> Val {
        let lane = val.lane;
        let (ftz, sat) = (convert.ftz && convert.to == Scalar::F32, convert.sat);
        if !ftz && !sat {
            return val;
        }
        self.map(&[val], lane, |b, args| {
            let value = as_float(b, args[0]);
            let value = if ftz { flush(b, value) } else { value };
            if sat { saturate(b, value) } else { value }
        })
    }

    fn promoted(&mut self, val: &Val) -> Val {
        if val.is_scalar() {
            let value = as_float(&mut self.b, val.parts[0]);
            return Val::scalar(self.b.ins().fpromote(types::F64, value), 64);
        }
        const HIGH: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15];
        let b = &mut self.b;
        let parts = val.parts.iter().flat_map(|&part| {
            let part = as_float(b, part);
            let bytes = super::value::cast(b, part, types::I8X16);
            let mask = b.func.dfg.immediates.push(HIGH.to_vec().into());
            let high = b.ins().shuffle(bytes, bytes, mask);
            let high = super::value::cast(b, high, types::F32X4);
            [b.ins().fvpromote_low(part), b.ins().fvpromote_low(high)]
        });
        Val {
            parts: parts.collect(),
            lane: 64,
        }
    }

    fn demoted(&mut self, val: &Val) -> Val {
        if val.is_scalar() {
            let value = as_float(&mut self.b, val.parts[0]);
            return Val::scalar(self.b.ins().fdemote(types::F32, value), 32);
        }
        const BOTH: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23];
        let b = &mut self.b;
        let parts = val.parts.chunks(2).map(|pair| {
            let half = |b: &mut cranelift_frontend::FunctionBuilder<'_>, part: Ir| {
                let part = as_float(b, part);
                let half = b.ins().fvdemote(part);
                super::value::cast(b, half, types::I8X16)
            };
            let (low, high) = (half(b, pair[0]), half(b, pair[1]));
            let mask = b.func.dfg.immediates.push(BOTH.to_vec().into());
            let both = b.ins().shuffle(low, high, mask);
            super::value::cast(b, both, types::I32X4)
        });
        Val {
            parts: parts.collect(),
            lane: 32,
        }
    }
}
