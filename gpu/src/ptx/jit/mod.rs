//! Kernels compiled to machine code of the host.
//!
//! Sixteen threads that run together are a group: compiled code executes an instruction for all of them at once. Of
//! what registers hold, [`shape`] knows what is the same in all lanes or has a stride; that takes scalar instructions,
//! and memory accesses with a stride are checked and made once for the group.
//!
//! From a kernel's beginning one call runs all groups of several blocks that follow each other in a row, as a loop over blocks
//! and groups in compiled code: what is the same for all of them is computed once. It returns at the first block one of whose
//! groups does not come to the kernel's end, and the [`worker`] runs that block from where its groups are.
//!
//! Where the lanes of a group disagree at a branch, its variables go to a frame and each lane goes on in code for
//! single lanes, until all have come to the instruction where the ways meet, and run together again. Barriers, and instructions
//! in which lanes see each other, end a piece of code too: the [`worker`] waits until all threads have come, and enters
//! the next piece.
//!
//! | module | does |
//! |---|---|
//! | `effects` | what an instruction reads and writes |
//! | `shape` | how a register differs between lanes |
//! | `plan` | blocks, live variables, places to enter |
//! | `emit` | instructions to Cranelift's intermediate form |
//! | `machine` | what compiled code sees of a launch |
//! | `edge` | executable memory and the calls across |
//! | `worker` | groups, lanes and barriers of a block |

mod edge;
mod effects;
mod emit;
mod frames;
mod machine;
mod plan;
mod shape;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function as Clif, InstBuilder, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetFrontendConfig};
use cranelift_codegen::settings::{self, Configurable, Flags};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::ir::Function;
use edge::Code;
use emit::Source;
use emit::TOGETHER;
use plan::Plan;
pub use plan::Uncovered;
pub use worker::run;

/// A kernel's code for both kinds of blocks.
#[derive(Debug, Default)]
pub struct Kernel {
    /// For blocks whose rows are not whole groups, and for the others.
    variants: [OnceLock<Result<Variant, Uncovered>>; 2],
}

/// A kernel's code for one kind of block.
pub struct Variant {
    plan: Plan,
    globals: Vec<u64>,
    shared_offsets: Vec<u64>,
    isa: OwnedTargetIsa,
    /// Code for blocks from the kernel's beginning.
    first: Code,
    /// Code for groups by entry, made when first needed; an empty place for one that could not be made.
    groups: Vec<OnceLock<Option<Code>>>,
    lane: Code,
    callout: Code,
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variant").finish_non_exhaustive()
    }
}

impl Kernel {
    /// The code for blocks of these dimensions, or why there is none.
    pub fn variant(
        &self,
        function: &Function,
        globals: &[u64],
        shared_offsets: &[u64],
        block: [u32; 3],
    ) -> Result<&Variant, Uncovered> {
        let [width, height, depth] = block;
        let rows = width.is_multiple_of(shape::GROUP as u32) || height == 1 && depth == 1;
        self.variants[usize::from(rows)]
            .get_or_init(|| {
                let make = || Variant::new(function, globals, shared_offsets, rows);
                // A defect of the compiler must not be the end of the machine.
                catch_unwind(AssertUnwindSafe(make)).unwrap_or(Err(Uncovered {
                    line: 0,
                    what: "code that the compiler cannot take",
                }))
            })
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn failed(what: &'static str) -> Uncovered {
    Uncovered { line: 0, what }
}

fn native() -> Result<OwnedTargetIsa, Uncovered> {
    let unknown = |_| failed("this host's processor");
    let mut flags = settings::builder();
    for (name, value) in [("opt_level", "speed"), ("is_pic", "true")] {
        flags
            .set(name, value)
            .map_err(|_| failed("this host's processor"))?;
    }
    if !cfg!(debug_assertions) {
        flags
            .set("enable_verifier", "false")
            .map_err(|_| failed("this host's processor"))?;
    }
    cranelift_native::builder()
        .map_err(unknown)?
        .finish(Flags::new(flags))
        .map_err(|_| failed("this host's processor"))
}

fn compile(isa: &OwnedTargetIsa, clif: Clif) -> Result<Code, Uncovered> {
    let mut context = cranelift_codegen::Context::for_function(clif);
    let compiled = context
        .compile(&**isa, &mut ControlPlane::default())
        .map_err(|error| {
            log::debug!("a kernel is not compiled: {:?}", error.inner);
            failed("code that the compiler cannot take")
        })?;
    if !compiled.buffer.relocs().is_empty() {
        return Err(failed("an instruction that this host's processor lacks"));
    }
    Code::new(compiled.code_buffer()).ok_or(failed("more code than the host has memory for"))
}

/// Calls the interpreter without touching a register of the caller.
fn trampoline(target: TargetFrontendConfig) -> Clif {
    let signature = emit::callout_signature(CallConv::PreserveAll);
    let mut clif = Clif::with_name_signature(Default::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut clif, &mut context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let args = builder.block_params(entry).to_vec();
    let signature = builder.import_signature(emit::callout_signature(CallConv::SystemV));
    let address = edge::callout as *const () as usize;
    let routine = builder.ins().iconst(types::I64, address as i64);
    builder.ins().call_indirect(signature, routine, &args);
    builder.ins().return_(&[]);
    builder.seal_all_blocks();
    builder.finalize(target);
    clif
}

impl Variant {
    fn new(
        function: &Function,
        globals: &[u64],
        shared_offsets: &[u64],
        rows: bool,
    ) -> Result<Self, Uncovered> {
        let plan = Plan::new(function, rows)?;
        let isa = native()?;
        let source = Source {
            function,
            plan: &plan,
            globals,
            shared_offsets,
            target: isa.frontend_config(),
        };
        let lane = compile(&isa, emit::lane(source))?;
        let first = compile(&isa, emit::blocks(source))?;
        let callout = compile(&isa, trampoline(isa.frontend_config()))?;
        Ok(Self {
            first,
            groups: function.code.iter().map(|_| OnceLock::new()).collect(),
            globals: globals.to_vec(),
            shared_offsets: shared_offsets.to_vec(),
            plan,
            isa,
            lane,
            callout,
        })
    }

    /// The code for groups from an entry on; `None` if there can be none.
    fn group(&self, function: &Function, entry: usize) -> Option<&Code> {
        let make = || {
            let source = Source {
                function,
                plan: &self.plan,
                globals: &self.globals,
                shared_offsets: &self.shared_offsets,
                target: self.isa.frontend_config(),
            };
            compile(&self.isa, emit::group(source, entry)).ok()
        };
        self.groups
            .get(entry)?
            .get_or_init(|| catch_unwind(AssertUnwindSafe(make)).ok().flatten())
            .as_ref()
    }
}
