//! The typed form of a module: what the interpreter executes.
//!
//! Every register has an index, every branch a target, every instruction one meaning. A register holds 64
//! bits; the bits above its declared width are zero. Predicates live in registers of their own, one bit a lane.

mod instruction;
mod operand;
mod operation;
mod program;

pub use instruction::*;
pub use operand::*;
pub use operation::*;
pub use program::*;
