//! Functions and variables of a module.

use crate::ptx::syntax::Variable;

use super::{Inst, Op, Parameter};

/// A kernel or a device function.
#[derive(Clone, Debug, Default)]
pub struct Function {
    pub name: String,
    pub entry: bool,
    pub code: Vec<Inst>,
    /// Bits that each register is declared with; 0 for one that is only written.
    pub registers: Vec<u32>,
    pub predicates: u32,
    /// Bytes of a thread's local memory that a frame takes.
    pub local_bytes: u64,
    pub returns: Vec<Parameter>,
    /// Parameters of a device function.
    pub params: Vec<Parameter>,
    /// Offset and size of each parameter of a kernel.
    pub kernel_params: Vec<(u64, u64)>,
    pub max_block: Option<[u32; 3]>,
    pub required_block: Option<[u32; 3]>,
    /// Shared variables that the function or one it may call names.
    pub shared: Vec<usize>,
}

impl Function {
    /// Whether a branch leads back.
    pub fn has_loop(&self) -> bool {
        self.code
            .iter()
            .enumerate()
            .any(|(here, inst)| match &inst.op {
                Op::Bra { target } => *target <= here,
                Op::BrxIdx { targets, .. } => targets.iter().any(|target| *target <= here),
                _ => false,
            })
    }
}

/// A variable in global or constant memory.
#[derive(Clone, Debug)]
pub struct Global {
    pub name: String,
    pub bytes: u64,
    pub align: u64,
    /// Initial contents; shorter than `bytes` if the rest is zero.
    pub image: Vec<u8>,
    pub relocations: Vec<Relocation>,
}

/// An address that is part of an initial value.
#[derive(Clone, Debug)]
pub struct Relocation {
    /// Where in the variable, and how many bytes of the address, from which bit on.
    pub at: u64,
    pub bytes: u64,
    pub shift: u32,
    pub target: RelocationTarget,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug)]
pub enum RelocationTarget {
    Global(usize),
    Function(usize),
}

#[derive(Clone, Debug)]
pub struct Shared {
    pub bytes: u64,
    pub align: u64,
    /// `.extern .shared x[]`: begins where the static variables end.
    pub dynamic: bool,
}

/// A module, ready to be loaded into a context.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub functions: Vec<Function>,
    pub globals: Vec<Global>,
    pub shared: Vec<Shared>,
}

/// Bytes that a variable takes; `None` if they are too many to count.
pub fn size_of(variable: &Variable<'_>) -> Option<u64> {
    variable
        .dims
        .iter()
        .try_fold(variable.scalar.bytes() * variable.vector, |size, dim| {
            size.checked_mul(dim.unwrap_or(0))
        })
}

/// The alignment that a variable asks for, or its type's own.
pub fn align_of(variable: &Variable<'_>) -> u64 {
    variable
        .align
        .unwrap_or(variable.scalar.bytes() * variable.vector)
        .max(1)
}
