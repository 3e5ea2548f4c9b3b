//! The `ptx` backend: PTX text executed on the CPU.
//!
//! | module | does |
//! |---|---|
//! | [`syntax`] | text to tokens to a syntax tree, with positions |
//! | [`lower`] | syntax tree to the typed form; what is not supported is named here |
//! | [`ir`] | the typed form: [`ir::Program`], [`ir::Function`], [`ir::Op`] |
//! | `cfg` | where lanes that part at a branch meet again |
//! | [`float`] | correctly rounded arithmetic for every format and direction |
//! | `exec` | the interpreter: grid, block, warp, and one instruction for the lanes of a warp |
//! | `jit` | kernels compiled to machine code: sixteen threads at once |
//! | `compile`, `context`, `module`, `function` | what a client sees: [`compile()`], [`Context`], [`Module`], [`Function`] |
//!
//! The interpreter is the reference. A guest can make it do anything that PTX can say, and nothing else: every address is an
//! offset that is checked against memory of the context just before use, every loop is under the watchdog, every frame and
//! every buffer has a limit.

mod cfg;
mod compile;
mod context;
mod exec;
pub mod float;
mod function;
pub mod ir;
mod jit;
pub mod lower;
mod module;
mod options;
pub mod syntax;

pub use compile::{JitLog, compile};
pub use context::Context;
pub use exec::WARP;
pub use function::{
    Attributes, Function, LaunchConfig, MAX_BLOCK, MAX_GRID, MAX_SHARED, MAX_THREADS, PRINTF_LIMIT,
};
pub use jit::Uncovered;
pub use module::Module;
pub use options::{Options, Tier};
