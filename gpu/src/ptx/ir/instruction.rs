//! Instructions with their operands.

use crate::ptx::syntax::Scalar;

use super::{
    Address, Argument, AtomOp, BarOp, BoolOp, Callee, CarryOp, Compare, Convert, FloatClass,
    FloatMods, FloatOp, FloatType, IntOp, Pred, PredValue, Reg, ShflMode, Space, Value, VoteMode,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An instruction that has no effect here, such as a prefetch.
    Nop,
    Mov {
        dst: Reg,
        src: Value,
    },
    /// `mov.b32 d, {a, b}`: elements of `bits` bits, the first lowest.
    Pack {
        dst: Reg,
        bits: u32,
        srcs: Vec<Value>,
    },
    Unpack {
        dsts: Vec<Option<Reg>>,
        bits: u32,
        src: Value,
    },
    MovPred {
        dst: Pred,
        src: PredValue,
    },
    LogicPred {
        op: BoolOp,
        dst: Pred,
        a: PredValue,
        b: PredValue,
    },
    Int {
        op: IntOp,
        bits: u32,
        signed: bool,
        dst: Reg,
        args: [Value; 4],
    },
    /// An operation on each half of 32 bits.
    IntHalves {
        op: IntOp,
        signed: bool,
        dst: Reg,
        a: Value,
        b: Value,
    },
    Carry {
        op: CarryOp,
        bits: u32,
        signed: bool,
        carry_in: bool,
        carry_out: bool,
        dst: Reg,
        args: [Value; 3],
    },
    Float {
        op: FloatOp,
        ty: FloatType,
        mods: FloatMods,
        dst: Reg,
        args: [Value; 3],
    },
    Convert {
        convert: Convert,
        dst: Reg,
        src: Value,
    },
    /// `cvt.f16x2.f32 d, a, b`: `a` goes to the upper half.
    ConvertPair {
        convert: Convert,
        dst: Reg,
        high: Value,
        low: Value,
    },
    Setp {
        compare: Compare,
        ty: Scalar,
        ftz: bool,
        combine: Option<(BoolOp, PredValue)>,
        dst: Option<Pred>,
        /// The complement, or the upper half's result for packed types.
        dst2: Option<Pred>,
        a: Value,
        b: Value,
    },
    /// `set`: all ones or 1.0 for true, in `result`'s format.
    Set {
        compare: Compare,
        ty: Scalar,
        ftz: bool,
        combine: Option<(BoolOp, PredValue)>,
        result: Scalar,
        dst: Reg,
        a: Value,
        b: Value,
    },
    Testp {
        class: FloatClass,
        ty: FloatType,
        dst: Pred,
        a: Value,
    },
    Selp {
        dst: Reg,
        a: Value,
        b: Value,
        pred: PredValue,
    },
    /// `a` if `c` is not negative, else `b`.
    Slct {
        float: bool,
        ftz: bool,
        dst: Reg,
        a: Value,
        b: Value,
        c: Value,
    },
    IsSpace {
        dst: Pred,
        space: Space,
        a: Value,
    },
    /// From `space` to generic addresses, or the other way with `to_space`.
    Cvta {
        dst: Reg,
        space: Space,
        to_space: bool,
        a: Value,
    },
    /// Each element is extended as `scalar` says to the width of its register.
    Load {
        space: Space,
        scalar: Scalar,
        dsts: Vec<Option<(Reg, u32)>>,
        address: Address,
    },
    Store {
        space: Space,
        bytes: u64,
        srcs: Vec<Value>,
        address: Address,
    },
    Atom {
        space: Space,
        op: AtomOp,
        ty: Scalar,
        dst: Option<Reg>,
        address: Address,
        b: Value,
        c: Value,
    },
    Fence,
    Shfl {
        mode: ShflMode,
        dst: Reg,
        pred: Option<Pred>,
        a: Value,
        b: Value,
        c: Value,
        members: Value,
    },
    Vote {
        mode: VoteMode,
        dst: Reg,
        pred: PredValue,
        members: Value,
    },
    /// `match.any`, or `match.all` with its predicate.
    Match {
        all: bool,
        bits: u32,
        dst: Reg,
        pred: Option<Pred>,
        a: Value,
        members: Value,
    },
    Redux {
        op: AtomOp,
        signed: bool,
        dst: Reg,
        a: Value,
        members: Value,
    },
    /// `bar.warp.sync`.
    WarpSync {
        members: Value,
    },
    ActiveMask {
        dst: Reg,
    },
    Bar {
        op: BarOp,
        id: Value,
        threads: Option<Value>,
    },
    Bra {
        target: usize,
    },
    BrxIdx {
        index: Value,
        targets: Vec<usize>,
    },
    Call {
        callee: Callee,
        returns: Vec<Argument>,
        args: Vec<Argument>,
    },
    Ret,
    Exit,
    Trap,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Inst {
    pub guard: PredValue,
    pub op: Op,
    /// Line of the text.
    pub line: u32,
    /// Where lanes that part at this branch meet again; `None`: only at the function's end.
    pub rejoin: Option<usize>,
}
