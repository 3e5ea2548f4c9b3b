//! Values of lanes: scalars, vectors and masks.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, Type, Value as Ir, types};
use cranelift_frontend::FunctionBuilder;

use super::Emitter;
use crate::ptx::float::Format;
use crate::ptx::jit::shape::GROUP;

/// A value of every lane: one scalar, or vectors of 128 bits, the lowest lanes first.
#[derive(Clone, Debug)]
pub struct Val {
    pub parts: Vec<Ir>,
    /// Bits of a lane: 32 or 64. A narrower value is extended by zeros.
    pub lane: u32,
}

/// A predicate of every lane: a scalar of 0 or 1, or vectors of 32-bit lanes of zeros or ones.
#[derive(Clone, Debug)]
pub struct Mask {
    pub parts: Vec<Ir>,
}

impl Val {
    pub fn scalar(value: Ir, lane: u32) -> Self {
        Self {
            parts: vec![value],
            lane,
        }
    }

    pub fn is_scalar(&self) -> bool {
        self.parts.len() == 1
    }
}

impl Mask {
    pub fn is_scalar(&self) -> bool {
        self.parts.len() == 1
    }
}

/// The integer type of a scalar or vector with lanes of this width.
pub fn integer_type(lane: u32, vector: bool) -> Type {
    match (lane, vector) {
        (32, false) => types::I32,
        (_, false) => types::I64,
        (32, true) => types::I32X4,
        (_, true) => types::I64X2,
    }
}

pub fn float_type(ty: Type) -> Type {
    match ty {
        types::I32 => types::F32,
        types::I64 => types::F64,
        types::I32X4 => types::F32X4,
        types::I64X2 => types::F64X2,
        other => other,
    }
}

pub fn int_type(ty: Type) -> Type {
    match ty {
        types::F32 => types::I32,
        types::F64 => types::I64,
        types::F32X4 => types::I32X4,
        types::F64X2 => types::I64X2,
        other => other,
    }
}

/// Parts of a vector of lanes of this width.
pub fn part_count(lane: u32) -> usize {
    GROUP * lane as usize / 128
}

pub fn cast(b: &mut FunctionBuilder<'_>, value: Ir, ty: Type) -> Ir {
    if b.func.dfg.value_type(value) == ty {
        value
    } else {
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        b.ins().bitcast(ty, flags, value)
    }
}

/// A part as integers.
pub fn as_int(b: &mut FunctionBuilder<'_>, value: Ir) -> Ir {
    let ty = int_type(b.func.dfg.value_type(value));
    cast(b, value, ty)
}

/// A part as floating-point numbers.
pub fn as_float(b: &mut FunctionBuilder<'_>, value: Ir) -> Ir {
    let ty = float_type(b.func.dfg.value_type(value));
    cast(b, value, ty)
}

/// A number in every lane of an integer type.
pub fn integer(b: &mut FunctionBuilder<'_>, ty: Type, value: i64) -> Ir {
    let lane = ty.lane_type();
    let value = if lane == types::I32 {
        i64::from(value as u32)
    } else {
        value
    };
    let scalar = b.ins().iconst(lane, value);
    if ty.is_vector() {
        b.ins().splat(ty, scalar)
    } else {
        scalar
    }
}

impl Emitter<'_, '_> {
    pub fn immediate(&mut self, value: u64, lane: u32) -> Val {
        let ty = integer_type(lane, false);
        Val::scalar(integer(&mut self.b, ty, value as i64), lane)
    }

    /// Truncates lanes, or extends them by zeros.
    pub fn resize(&mut self, val: Val, lane: u32) -> Val {
        if val.lane == lane {
            return val;
        }
        let b = &mut self.b;
        let ints: Vec<Ir> = val.parts.iter().map(|&part| as_int(b, part)).collect();
        let parts = match (ints.as_slice(), lane) {
            ([scalar], 32) => vec![b.ins().ireduce(types::I32, *scalar)],
            ([scalar], _) => vec![b.ins().uextend(types::I64, *scalar)],
            (parts, 32) => parts
                .chunks(2)
                .map(|pair| narrow(b, pair[0], pair[1]))
                .collect(),
            (parts, _) => parts
                .iter()
                .flat_map(|&part| [b.ins().uwiden_low(part), b.ins().uwiden_high(part)])
                .collect(),
        };
        Val { parts, lane }
    }

    /// A value that differs from lane to lane by `stride`, as vectors.
    pub fn spread(&mut self, base: &Val, stride: i64) -> Val {
        let vector = self.broadcast(base);
        let lane = base.lane;
        let ty = integer_type(lane, true);
        let per_part = 128 / lane as i64;
        let parts = vector.parts.iter().enumerate().map(|(index, &part)| {
            let first = index as i64 * per_part;
            let bytes: Vec<u8> = (0..per_part)
                .flat_map(|n| {
                    let value = (first + n).wrapping_mul(stride);
                    value.to_le_bytes()[..lane as usize / 8].to_vec()
                })
                .collect();
            let handle = self.b.func.dfg.constants.insert(bytes.into());
            let steps = self.b.ins().vconst(ty, handle);
            let part = as_int(&mut self.b, part);
            self.b.ins().iadd(part, steps)
        });
        Val {
            parts: parts.collect(),
            lane,
        }
    }

    /// A value as vectors.
    pub fn broadcast(&mut self, val: &Val) -> Val {
        if !val.is_scalar() || !self.wide {
            return val.clone();
        }
        let scalar = val.parts[0];
        let ty = self.b.func.dfg.value_type(scalar);
        let vector = ty.by(128 / ty.bits()).unwrap_or(types::I32X4);
        let part = self.b.ins().splat(vector, scalar);
        Val {
            parts: vec![part; part_count(val.lane)],
            lane: val.lane,
        }
    }

    pub fn broadcast_mask(&mut self, mask: &Mask) -> Mask {
        if !mask.is_scalar() || !self.wide {
            return mask.clone();
        }
        let wide = self.b.ins().uextend(types::I32, mask.parts[0]);
        let all = self.b.ins().ineg(wide);
        let part = self.b.ins().splat(types::I32X4, all);
        Mask {
            parts: vec![part; part_count(32)],
        }
    }

    /// A mask in lanes of `lane` bits.
    pub fn mask_lanes(&mut self, mask: &Mask, lane: u32) -> Vec<Ir> {
        if lane == 32 {
            return mask.parts.clone();
        }
        let b = &mut self.b;
        mask.parts
            .iter()
            .flat_map(|&part| [b.ins().swiden_low(part), b.ins().swiden_high(part)])
            .collect()
    }

    /// The mask that lanes of a comparison's result make.
    pub fn mask_of(&mut self, parts: Vec<Ir>) -> Mask {
        let b = &mut self.b;
        if parts.len() == 1 || b.func.dfg.value_type(parts[0]) == types::I32X4 {
            return Mask { parts };
        }
        let parts = parts
            .chunks(2)
            .map(|pair| narrow(b, pair[0], pair[1]))
            .collect();
        Mask { parts }
    }

    pub fn complement(&mut self, mask: &Mask) -> Mask {
        let b = &mut self.b;
        let parts = if mask.is_scalar() {
            vec![b.ins().bxor_imm_u(mask.parts[0], 1)]
        } else {
            mask.parts.iter().map(|&part| b.ins().bnot(part)).collect()
        };
        Mask { parts }
    }

    /// One bit a lane.
    pub fn mask_bits(&mut self, mask: &Mask) -> Ir {
        let b = &mut self.b;
        let mut bits = b.ins().vhigh_bits(types::I32, mask.parts[0]);
        for (index, &part) in mask.parts.iter().enumerate().skip(1) {
            let part = b.ins().vhigh_bits(types::I32, part);
            let part = b.ins().ishl_imm_u(part, 4 * index as i64);
            bits = b.ins().bor(bits, part);
        }
        bits
    }

    /// Takes the payload from NaNs, as every instruction's result has none.
    pub fn canonical(&mut self, val: Val) -> Val {
        let nan = match val.lane {
            32 => Format::F32.nan,
            _ => Format::F64.nan,
        };
        let lane = val.lane;
        if val.parts.len() > 1 {
            return self.canonical_parts(val, nan);
        }
        self.map(&[val], lane, |b, args| {
            let bits = as_int(b, args[0]);
            let number = as_float(b, args[0]);
            let ty = b.func.dfg.value_type(bits);
            let nan = integer(b, ty, nan as i64);
            let is_nan = b.ins().fcmp(FloatCC::Unordered, number, number);
            choose(b, is_nan, nan, bits)
        })
    }

    /// The same of vectors, which mostly hold no NaN at all.
    fn canonical_parts(&mut self, val: Val, nan: u64) -> Val {
        let b = &mut self.b;
        let numbers: Vec<Ir> = val.parts.iter().map(|&part| as_float(b, part)).collect();
        let ints = int_type(b.func.dfg.value_type(numbers[0]));
        let pairs = numbers.chunks(2);
        let unordered: Vec<Ir> = pairs
            .map(|pair| {
                let unordered = b
                    .ins()
                    .fcmp(FloatCC::Unordered, pair[0], pair[pair.len() - 1]);
                cast(b, unordered, types::I32X4)
            })
            .collect();
        let any = unordered[1..]
            .iter()
            .fold(unordered[0], |any, &part| b.ins().bor(any, part));
        let any = b.ins().vany_true(any);
        let (some, after) = (b.create_block(), b.create_block());
        b.set_cold_block(some);
        let results: Vec<Ir> = val
            .parts
            .iter()
            .map(|_| b.append_block_param(after, ints))
            .collect();
        let bits: Vec<Ir> = val.parts.iter().map(|&part| as_int(b, part)).collect();
        let args: Vec<BlockArg> = bits.iter().map(|&part| part.into()).collect();
        b.ins().brif(any, some, &[], after, &args);
        b.switch_to_block(some);
        let nan = integer(b, ints, nan as i64);
        let args: Vec<BlockArg> = numbers
            .iter()
            .zip(&bits)
            .map(|(&number, &bits)| {
                let is_nan = b.ins().fcmp(FloatCC::Unordered, number, number);
                choose(b, is_nan, nan, bits).into()
            })
            .collect();
        b.ins().jump(after, &args);
        b.switch_to_block(after);
        Val {
            parts: results,
            lane: val.lane,
        }
    }

    /// `f` of scalars, or of each part of vectors; what it returns has lanes of `lane` bits, like all of `args`.
    pub fn map(
        &mut self,
        args: &[Val],
        lane: u32,
        f: impl Fn(&mut FunctionBuilder<'_>, &[Ir]) -> Ir,
    ) -> Val {
        if args.iter().all(Val::is_scalar) {
            let scalars: Vec<Ir> = args.iter().map(|arg| arg.parts[0]).collect();
            return Val::scalar(f(&mut self.b, &scalars), lane);
        }
        let vectors: Vec<Val> = args.iter().map(|arg| self.broadcast(arg)).collect();
        let parts = (0..vectors[0].parts.len()).map(|index| {
            let column: Vec<Ir> = vectors.iter().map(|vector| vector.parts[index]).collect();
            f(&mut self.b, &column)
        });
        Val {
            parts: parts.collect(),
            lane,
        }
    }

    /// `f` of the scalars of each lane, for what has no vector instruction.
    pub fn each(
        &mut self,
        args: &[Val],
        lane: u32,
        f: impl Fn(&mut FunctionBuilder<'_>, &[Ir]) -> Ir,
    ) -> Val {
        if args.iter().all(Val::is_scalar) {
            let scalars: Vec<Ir> = args.iter().map(|arg| arg.parts[0]).collect();
            return Val::scalar(f(&mut self.b, &scalars), lane);
        }
        let results: Vec<Ir> = (0..GROUP)
            .map(|index| {
                let scalars: Vec<Ir> = args.iter().map(|arg| self.extract(arg, index)).collect();
                let result = f(&mut self.b, &scalars);
                as_int(&mut self.b, result)
            })
            .collect();
        self.assemble(&results, lane)
    }

    /// A lane as a scalar.
    pub fn extract(&mut self, val: &Val, lane: usize) -> Ir {
        if val.is_scalar() {
            return val.parts[0];
        }
        let per_part = 128 / val.lane as usize;
        let part = val.parts[lane / per_part];
        self.b.ins().extractlane(part, (lane % per_part) as u8)
    }

    /// Vectors of scalars.
    pub fn assemble(&mut self, lanes: &[Ir], lane: u32) -> Val {
        let per_part = 128 / lane as usize;
        let ty = integer_type(lane, true);
        let b = &mut self.b;
        let parts = lanes.chunks(per_part).map(|chunk| {
            let first = b.ins().scalar_to_vector(ty, chunk[0]);
            chunk
                .iter()
                .enumerate()
                .skip(1)
                .fold(first, |part, (index, &value)| {
                    b.ins().insertlane(part, value, index as u8)
                })
        });
        Val {
            parts: parts.collect(),
            lane,
        }
    }
}

/// The low halves of the lanes of two vectors.
fn narrow(b: &mut FunctionBuilder<'_>, low: Ir, high: Ir) -> Ir {
    const EVEN: [u8; 16] = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
    let low = cast(b, low, types::I8X16);
    let high = cast(b, high, types::I8X16);
    let mask = b.func.dfg.immediates.push(EVEN.to_vec().into());
    let result = b.ins().shuffle(low, high, mask);
    cast(b, result, types::I32X4)
}

/// `then` where a condition holds, of scalars or vectors.
pub fn choose(b: &mut FunctionBuilder<'_>, condition: Ir, then: Ir, other: Ir) -> Ir {
    let ty = b.func.dfg.value_type(then);
    if ty.is_vector() {
        let mask = cast(b, condition, ty);
        b.ins().bitselect(mask, then, other)
    } else {
        b.ins().select(condition, then, other)
    }
}
