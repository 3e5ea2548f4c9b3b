//! Syntax tree to typed form: names become indices, opcodes and modifiers become operations.
//!
//! What is not supported is an error that names the instruction and its place, never an operation that
//! does something else.

mod control;
mod float;
pub mod forms;
mod function;
mod integer;
mod memory;
mod operand;
mod variable;
mod warp;

use std::collections::HashMap;

use super::cfg::set_rejoin_points;
use super::ir::{Callee, Function, Op, Program, RelocationTarget, Value};
use super::syntax::{self, Position, SyntaxError};

pub use function::MAX_LOCAL;

/// Function addresses begin here: no memory lies there, so a function used as data faults.
pub const FUNCTION_BASE: u64 = 0x5000_0000_0000;

/// What a name of module scope stands for.
#[derive(Clone, Copy, Debug)]
enum Symbol {
    Global(usize),
    Shared(usize),
    Function(usize),
    /// A function that is only declared.
    External(Callee),
    Undefined,
}

/// Gives a module its meaning, or all that is wrong with it, in the order of the text.
pub fn lower(module: &syntax::Module<'_>) -> Result<Program, Vec<SyntaxError>> {
    let mut lowerer = Lowerer::default();
    lowerer.declare(module);
    for function in &module.functions {
        lowerer.function(function);
    }
    lowerer.close_shared();
    if lowerer.errors.is_empty() {
        Ok(lowerer.program)
    } else {
        lowerer.errors.sort_by_key(|error| error.position);
        Err(lowerer.errors)
    }
}

#[derive(Default)]
struct Lowerer<'a> {
    program: Program,
    symbols: HashMap<&'a str, Symbol>,
    errors: Vec<SyntaxError>,
}

fn error(position: Position, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        position,
        message: message.into(),
    }
}

impl<'a> Lowerer<'a> {
    /// Enters every symbol, so that functions and initial values may name later ones.
    fn declare(&mut self, module: &syntax::Module<'a>) {
        let mut defined = 0;
        for function in &module.functions {
            let symbol = if function.body.is_some() {
                defined += 1;
                Symbol::Function(defined - 1)
            } else {
                match function.name {
                    "vprintf" => Symbol::External(Callee::Vprintf),
                    "__assertfail" => Symbol::External(Callee::AssertFail),
                    _ => Symbol::Undefined,
                }
            };
            let known = self.symbols.get(function.name);
            match (known, symbol) {
                (Some(Symbol::Function(_)), Symbol::Function(_)) => self.errors.push(error(
                    function.position,
                    format!("`{}` is defined twice", function.name),
                )),
                (Some(Symbol::Function(_)), _) => {}
                _ => {
                    self.symbols.insert(function.name, symbol);
                }
            }
        }
        for variable in &module.variables {
            if let Err(error) = self.declare_variable(variable) {
                self.errors.push(error);
            }
        }
        for variable in &module.variables {
            if let Err(error) = self.initialize_variable(variable) {
                self.errors.push(error);
            }
        }
    }

    fn function(&mut self, source: &syntax::Function<'a>) {
        if source.body.is_none() {
            return;
        }
        let mut function = function::FunctionLowerer::new(self, source).lower();
        set_rejoin_points(&mut function.code);
        self.program.functions.push(function);
    }

    /// Completes each function's list of shared variables by those of the functions it may call.
    fn close_shared(&mut self) {
        let functions = &mut self.program.functions;
        let mut indirect: Vec<usize> = Vec::new();
        for function in functions.iter() {
            for_each_address(function, |target| indirect.push(target));
        }
        for relocation in self
            .program
            .globals
            .iter()
            .flat_map(|global| &global.relocations)
        {
            if let RelocationTarget::Function(target) = relocation.target {
                indirect.push(target);
            }
        }
        let calls: Vec<Vec<usize>> = functions
            .iter()
            .map(|function| callees(function, &indirect))
            .collect();
        let mut changed = true;
        while changed {
            changed = false;
            for (caller, callees) in calls.iter().enumerate() {
                for &callee in callees {
                    for variable in functions[callee].shared.clone() {
                        if !functions[caller].shared.contains(&variable) {
                            functions[caller].shared.push(variable);
                            changed = true;
                        }
                    }
                }
            }
        }
        for function in functions {
            function.shared.sort_unstable();
        }
    }
}

fn callees(function: &Function, indirect: &[usize]) -> Vec<usize> {
    let mut callees = Vec::new();
    for inst in &function.code {
        match &inst.op {
            Op::Call {
                callee: Callee::Direct(index),
                ..
            } => callees.push(*index),
            Op::Call {
                callee: Callee::Indirect(_),
                ..
            } => callees.extend_from_slice(indirect),
            _ => {}
        }
    }
    callees.sort_unstable();
    callees.dedup();
    callees
}

/// Functions whose address is taken by a `mov`.
fn for_each_address(function: &Function, mut found: impl FnMut(usize)) {
    for inst in &function.code {
        if let Op::Mov {
            src: Value::Imm(value),
            ..
        } = inst.op
            && let Some(index) = value.checked_sub(FUNCTION_BASE)
            && index < 1 << 32
        {
            found(index as usize);
        }
    }
}
