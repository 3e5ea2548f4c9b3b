//! A function's scopes, registers and statements.

use std::collections::HashMap;

use super::{Lowerer, Symbol, error};
use crate::ptx::ir::{Function, Inst, Op, Parameter, Pred, PredValue, Reg, align_of, size_of};
use crate::ptx::syntax::{
    self, Guard, Instruction, Position, Scalar, Space, Statement, SyntaxError, Variable,
};

/// A thread's local memory, frames of all calls included, is at most this large.
pub const MAX_LOCAL: u64 = 512 << 10;

/// Bytes of parameters that a kernel may have (PTX ISA 8.1).
const MAX_PARAMS: u64 = 32764;

/// What a name in a function stands for.
#[derive(Clone, Debug)]
pub enum Name<'a> {
    Reg {
        index: Reg,
        scalar: Scalar,
    },
    Pred(Pred),
    /// Consecutive registers.
    Vector {
        first: Reg,
        elements: u64,
        scalar: Scalar,
    },
    /// Bytes of the frame's local memory.
    Local {
        offset: u64,
        bytes: u64,
    },
    /// Offset of a kernel's parameter.
    Param(u64),
    Symbol(Symbol),
    Label(usize),
    Targets(Vec<&'a str>),
    Prototype,
}

#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Name<'a>>,
    /// `.reg .b32 %r<10>`: registers that get an index when they are first used.
    ranges: HashMap<&'a str, (Scalar, u64)>,
}

pub struct FunctionLowerer<'l, 'a> {
    pub module: &'l mut Lowerer<'a>,
    source: &'l syntax::Function<'a>,
    scopes: Vec<Scope<'a>>,
    pub function: Function,
    /// Instruction that follows each label.
    labels: Vec<usize>,
}

impl<'l, 'a> FunctionLowerer<'l, 'a> {
    pub fn new(module: &'l mut Lowerer<'a>, source: &'l syntax::Function<'a>) -> Self {
        Self {
            module,
            source,
            scopes: vec![Scope::default()],
            function: Function {
                name: source.name.to_owned(),
                entry: source.entry,
                max_block: source.max_block,
                required_block: source.required_block,
                ..Function::default()
            },
            labels: Vec::new(),
        }
    }

    pub fn lower(mut self) -> Function {
        if let Err(error) = self.parameters() {
            self.module.errors.push(error);
        }
        if let Some(body) = &self.source.body {
            self.statements(body);
        }
        self.push(Op::Ret, PredValue::Const(true), 0);
        for inst in &mut self.function.code {
            match &mut inst.op {
                Op::Bra { target } => *target = self.labels[*target],
                Op::BrxIdx { targets, .. } => {
                    for target in targets {
                        *target = self.labels[*target];
                    }
                }
                _ => {}
            }
        }
        self.function
    }

    pub fn is_entry(&self) -> bool {
        self.source.entry
    }

    fn push(&mut self, op: Op, guard: PredValue, line: u32) {
        self.function.code.push(Inst {
            guard,
            op,
            line,
            rejoin: None,
        });
    }

    fn parameters(&mut self) -> Result<(), SyntaxError> {
        let source = self.source;
        if source.entry {
            let mut end = 0u64;
            for param in &source.params {
                let bytes = size_of(param).unwrap_or(u64::MAX);
                let offset = end.next_multiple_of(align_of(param));
                end = offset.saturating_add(bytes);
                if end > MAX_PARAMS {
                    return Err(error(param.position, "more than 32764 bytes of parameters"));
                }
                self.function.kernel_params.push((offset, bytes));
                self.define(param.name, Name::Param(offset));
            }
            return Ok(());
        }
        for param in &source.params {
            let parameter = self.parameter(param)?;
            self.function.params.push(parameter);
        }
        for param in &source.returns {
            let parameter = self.parameter(param)?;
            self.function.returns.push(parameter);
        }
        Ok(())
    }

    fn parameter(&mut self, param: &Variable<'a>) -> Result<Parameter, SyntaxError> {
        if param.space.is_none() {
            let scalar = param.scalar;
            let index = self.new_register(scalar.bytes() as u32 * 8);
            self.define(param.name, Name::Reg { index, scalar });
            return Ok(Parameter::Reg(index));
        }
        let (offset, bytes) = self.new_local(param)?;
        Ok(Parameter::Memory { offset, bytes })
    }

    pub fn new_register(&mut self, bits: u32) -> Reg {
        self.function.registers.push(bits);
        self.function.registers.len() as u32 - 1
    }

    pub fn new_predicate(&mut self) -> Pred {
        self.function.predicates += 1;
        self.function.predicates - 1
    }

    /// Places a variable in the frame's local memory.
    fn new_local(&mut self, variable: &Variable<'a>) -> Result<(u64, u64), SyntaxError> {
        // The widest vector access takes 16 bytes, whatever alignment the variable declares.
        let bytes = size_of(variable).unwrap_or(u64::MAX);
        let offset = self
            .function
            .local_bytes
            .next_multiple_of(align_of(variable).max(16));
        let end = offset.saturating_add(bytes);
        if end > MAX_LOCAL {
            let message = format!(
                "`{}`: more than {MAX_LOCAL} bytes of local memory",
                variable.name
            );
            return Err(error(variable.position, message));
        }
        self.function.local_bytes = end;
        self.define(variable.name, Name::Local { offset, bytes });
        Ok((offset, bytes))
    }

    fn define(&mut self, name: &'a str, meaning: Name<'a>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name, meaning);
        }
    }

    /// The meaning of a name, from the innermost scope outwards.
    pub fn lookup(&mut self, name: &'a str) -> Option<Name<'a>> {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[prefix.len()..].parse::<u64>().ok();
        for depth in (0..self.scopes.len()).rev() {
            if let Some(found) = self.scopes[depth].names.get(name) {
                return Some(found.clone());
            }
            let range = self.scopes[depth].ranges.get(prefix).copied();
            if let (Some((scalar, count)), Some(number)) = (range, number)
                && number < count
            {
                let meaning = self.register(scalar);
                self.scopes[depth].names.insert(name, meaning.clone());
                return Some(meaning);
            }
        }
        self.module.symbols.get(name).copied().map(Name::Symbol)
    }

    fn register(&mut self, scalar: Scalar) -> Name<'a> {
        if scalar == Scalar::Pred {
            Name::Pred(self.new_predicate())
        } else {
            let index = self.new_register(scalar.bytes() as u32 * 8);
            Name::Reg { index, scalar }
        }
    }

    fn statements(&mut self, statements: &[Statement<'a>]) {
        for statement in statements {
            match statement {
                Statement::Label(name, _) => {
                    self.labels.push(0);
                    self.define(name, Name::Label(self.labels.len() - 1));
                }
                Statement::BranchTargets(name, targets) | Statement::CallTargets(name, targets) => {
                    self.define(name, Name::Targets(targets.clone()));
                }
                Statement::CallPrototype { label, .. } => self.define(label, Name::Prototype),
                _ => {}
            }
        }
        for statement in statements {
            if let Err(error) = self.statement(statement) {
                self.module.errors.push(error);
            }
        }
    }

    fn statement(&mut self, statement: &Statement<'a>) -> Result<(), SyntaxError> {
        match statement {
            Statement::Label(name, _) => {
                if let Some(Name::Label(label)) = self.lookup(name) {
                    self.labels[label] = self.function.code.len();
                }
            }
            Statement::Registers {
                position,
                scalar,
                vector,
                names,
            } => self.registers(*position, *scalar, *vector, names)?,
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Block(inner) => {
                self.scopes.push(Scope::default());
                self.statements(inner);
                self.scopes.pop();
            }
            Statement::Instruction(instruction) => {
                let guard = self.guard(instruction.position, instruction.guard)?;
                let op = self.instruction(instruction)?;
                self.push(op, guard, instruction.position.line);
            }
            Statement::BranchTargets(..)
            | Statement::CallTargets(..)
            | Statement::CallPrototype { .. } => {}
        }
        Ok(())
    }

    fn registers(
        &mut self,
        position: Position,
        scalar: Scalar,
        vector: u64,
        names: &[(&'a str, Option<u64>)],
    ) -> Result<(), SyntaxError> {
        if scalar == Scalar::B128 {
            return Err(error(position, "128-bit registers are not supported"));
        }
        for &(name, count) in names {
            match count {
                Some(count) if vector == 1 => {
                    if let Some(scope) = self.scopes.last_mut() {
                        scope.ranges.insert(name, (scalar, count));
                    }
                }
                Some(_) => return Err(error(position, "a range of vector registers")),
                None if vector == 1 => {
                    let register = self.register(scalar);
                    self.define(name, register);
                }
                None => {
                    let bits = scalar.bytes() as u32 * 8;
                    let first = self.new_register(bits);
                    for _ in 1..vector {
                        self.new_register(bits);
                    }
                    let elements = vector;
                    self.define(
                        name,
                        Name::Vector {
                            first,
                            elements,
                            scalar,
                        },
                    );
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable<'a>) -> Result<(), SyntaxError> {
        match variable.space {
            Some(Space::Local | Space::Param) => self.new_local(variable).map(|_| ()),
            _ => {
                let symbol = self.module.new_variable(variable)?;
                // Initial values are looked up by name, which an outer variable may have too.
                let outer = self.module.symbols.insert(variable.name, symbol);
                let result = self.module.initialize_variable(variable);
                match outer {
                    Some(outer) => self.module.symbols.insert(variable.name, outer),
                    None => self.module.symbols.remove(variable.name),
                };
                self.define(variable.name, Name::Symbol(symbol));
                result
            }
        }
    }

    fn guard(
        &mut self,
        position: Position,
        guard: Option<Guard<'a>>,
    ) -> Result<PredValue, SyntaxError> {
        let Some(guard) = guard else {
            return Ok(PredValue::Const(true));
        };
        match self.lookup(guard.predicate) {
            Some(Name::Pred(index)) => Ok(PredValue::Reg {
                index,
                negated: guard.negated,
            }),
            _ => Err(error(
                position,
                format!("`{}` is no predicate register", guard.predicate),
            )),
        }
    }

    pub fn emit(&mut self, instruction: &Instruction<'a>, op: Op) -> Result<(), SyntaxError> {
        let guard = self.guard(instruction.position, instruction.guard)?;
        self.push(op, guard, instruction.position.line);
        Ok(())
    }

    fn instruction(&mut self, instruction: &Instruction<'a>) -> Result<Op, SyntaxError> {
        let mut inst = super::operand::Operands::new(self, instruction);
        let op = inst.lower()?;
        inst.finish()?;
        inst.check_form()?;
        Ok(op)
    }
}
