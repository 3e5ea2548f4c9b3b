//! Programs in a context.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::compile::compile;
use super::context::Context;
use super::function::Function;
use super::ir::{Program, RelocationTarget};
use super::jit::Kernel;
use super::lower::FUNCTION_BASE;
use crate::Error;

/// A program in a context: its global variables have addresses.
#[derive(Debug)]
pub struct Module {
    pub(super) context: Arc<Context>,
    pub(super) program: Arc<Program>,
    pub(super) globals: Vec<u64>,
    /// Each function's code, if it is a kernel, and the threads that it has run without.
    pub(super) kernels: Vec<(Kernel, AtomicU64)>,
}

impl Module {
    /// Compiles a text and loads it.
    pub fn load(context: &Arc<Context>, text: &str) -> Result<Arc<Self>, Error> {
        let program = compile(text).map_err(Error::InvalidPtx)?;
        Self::from_program(context, Arc::new(program))
    }

    /// Loads a program that may be in other contexts too.
    pub fn from_program(context: &Arc<Context>, program: Arc<Program>) -> Result<Arc<Self>, Error> {
        let mut module = Self {
            context: context.clone(),
            program: program.clone(),
            globals: Vec::new(),
            kernels: program
                .functions
                .iter()
                .map(|_| Default::default())
                .collect(),
        };
        for global in &program.globals {
            let address = context.alloc(global.bytes.max(1))?;
            module.globals.push(address);
            context.write(address, &global.image)?;
        }
        for (global, &address) in program.globals.iter().zip(&module.globals) {
            for relocation in &global.relocations {
                let base = match relocation.target {
                    RelocationTarget::Global(index) => module.globals[index],
                    RelocationTarget::Function(index) => FUNCTION_BASE + index as u64,
                };
                let value = base.wrapping_add_signed(relocation.offset) >> relocation.shift;
                let bytes = &value.to_le_bytes()[..relocation.bytes.min(8) as usize];
                context.write(address + relocation.at, bytes)?;
            }
        }
        Ok(Arc::new(module))
    }

    /// Address and size of a global variable.
    pub fn global(&self, name: &str) -> Result<(u64, u64), Error> {
        self.program
            .globals
            .iter()
            .zip(&self.globals)
            .find(|(global, _)| global.name == name)
            .map(|(global, &address)| (address, global.bytes))
            .ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// A kernel by name.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Function, Error> {
        let index = self
            .program
            .functions
            .iter()
            .position(|function| function.entry && function.name == name)
            .ok_or_else(|| Error::NotFound(name.to_owned()))?;
        Ok(Function {
            module: self.clone(),
            index,
        })
    }

    /// Names of all kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        let kernels = self
            .program
            .functions
            .iter()
            .filter(|function| function.entry);
        kernels.map(|function| function.name.as_str())
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for &address in &self.globals {
            // Every address of the list was allocated, and nobody else can have freed it but by its number.
            if let Err(error) = self.context.release(address) {
                log::debug!("a module's variable was freed before the module: {error}");
            }
        }
    }
}
