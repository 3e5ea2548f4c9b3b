//! What an instruction does to values: opcodes with the modifiers that change them.

use crate::ptx::float::{Rounding, approx};
use crate::ptx::syntax::Scalar;

use super::{Pred, PredValue, Reg};

/// Integer operations. Operands are zero-extended to 64 bits, results truncated to the operation's width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOp {
    Add,
    Sub,
    /// `.sat`: clamped to the range of s32.
    AddSat,
    SubSat,
    MulLo,
    MulHi,
    MulWide,
    Mul24Lo,
    Mul24Hi,
    MadLo,
    MadHi,
    MadHiSat,
    MadWide,
    Mad24Lo,
    Mad24Hi,
    Sad,
    Div,
    Rem,
    Min,
    Max,
    Neg,
    Abs,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    /// `shf`; `left`, and `wrap` rather than clamp.
    Shf {
        left: bool,
        wrap: bool,
    },
    Bfe,
    Bfi,
    /// `bfind`; `shift` for `.shiftamt`.
    Bfind {
        shift: bool,
    },
    Bmsk {
        wrap: bool,
    },
    Szext {
        wrap: bool,
    },
    Brev,
    Clz,
    Popc,
    Fns,
    Lop3(u8),
    Prmt(PrmtMode),
    /// `dp4a` with the signedness of each operand; `dp2a` takes a half.
    Dp4a {
        a_signed: bool,
        b_signed: bool,
    },
    Dp2a {
        a_signed: bool,
        b_signed: bool,
        high: bool,
    },
}

/// `prmt` modes (PTX ISA 9.7.8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

/// Operations with the carry bit (PTX ISA 9.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// Number formats of floating-point instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Min,
    Max,
    Neg,
    Abs,
    CopySign,
    /// `rcp.rn` and the like: correctly rounded.
    Rcp,
    Sqrt,
    /// One of the approximated functions.
    Approx(approx::Function),
    /// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64`: the upper half of the result.
    ApproxHigh(approx::Function),
}

/// Modifiers of a floating-point instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatMods {
    pub rounding: Rounding,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
    /// `.NaN`: minimum and maximum give NaN if an operand is.
    pub nan: bool,
    pub xorsign_abs: bool,
}

/// Comparisons (PTX ISA 9.7.5): `unordered` ones are true if an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare {
    pub test: Test,
    pub unordered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Both operands are numbers.
    Num,
    /// An operand is NaN.
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolOp {
    And,
    Or,
    Xor,
}

/// What `testp` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatClass {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convert {
    pub to: Scalar,
    pub from: Scalar,
    pub rounding: Rounding,
    /// The result is an integer in a floating-point format (`.rni` and the like).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

/// Atomic operations (PTX ISA 9.7.13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// What a barrier does beside waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarOp {
    Sync,
    Arrive,
    /// Number of threads whose predicate holds.
    Popc {
        dst: Reg,
        pred: PredValue,
    },
    And {
        dst: Pred,
        pred: PredValue,
    },
    Or {
        dst: Pred,
        pred: PredValue,
    },
}
