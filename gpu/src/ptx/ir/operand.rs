//! What an instruction reads and writes.

/// Index of a register of a frame.
pub type Reg = u32;
/// Index of a predicate register of a frame.
pub type Pred = u32;

/// A source operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Reg(Reg),
    Imm(u64),
    Special(Special),
    /// Address of a global or constant variable of the module.
    Global {
        variable: usize,
        offset: i64,
    },
    /// Offset of a shared variable in the block's shared memory.
    Shared {
        variable: usize,
        offset: i64,
    },
    /// Offset from the frame's part of a thread's local memory.
    Local(i64),
}

/// A predicate operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredValue {
    Reg { index: Pred, negated: bool },
    Const(bool),
}

/// Special registers (PTX ISA, chapter 10). Dimensions are x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    Clock,
    Clock64,
    GlobalTimer,
    DynamicSharedSize,
    TotalSharedSize,
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Generic,
    /// Global memory, and constant memory, which lies in it.
    Global,
    Shared,
    Local,
    /// Parameters of the kernel.
    Param,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub base: Value,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    Direct(usize),
    /// A register with a function's address; its signature is that of a prototype.
    Indirect(Value),
    Vprintf,
    AssertFail,
}

/// An argument or result of a call, on the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    Value(Value),
    /// `.param` variable at this offset of the frame's local memory.
    Memory {
        offset: u64,
        bytes: u64,
    },
}

/// A parameter, on the function's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    Reg(Reg),
    Memory { offset: u64, bytes: u64 },
}
