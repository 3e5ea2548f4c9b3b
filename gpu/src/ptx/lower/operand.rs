//! Modifiers and operands of one instruction.

use super::function::{FunctionLowerer, Name};
use super::variable::constant_bits;
use super::{FUNCTION_BASE, Symbol, error, forms};
use crate::ptx::float::Rounding;
use crate::ptx::ir::{Address, Op, Pred, PredValue, Reg, Space, Special, Value};
use crate::ptx::syntax::{Constant, Instruction, Operand, Scalar, SyntaxError};

/// An instruction with the modifiers that nobody has asked for yet.
pub struct Operands<'i, 'l, 'a> {
    pub function: &'i mut FunctionLowerer<'l, 'a>,
    pub source: &'i Instruction<'a>,
    modifiers: Vec<&'a str>,
    /// Types among the modifiers, in order.
    pub types: Vec<Scalar>,
    /// Whether it makes a value of values: such ones are in the tables of [`forms`].
    makes_values: bool,
}

impl<'i, 'l, 'a> Operands<'i, 'l, 'a> {
    pub fn new(function: &'i mut FunctionLowerer<'l, 'a>, source: &'i Instruction<'a>) -> Self {
        let (types, modifiers): (Vec<_>, Vec<_>) = source
            .modifiers
            .iter()
            .partition(|modifier| Scalar::from_name(modifier).is_some());
        Self {
            function,
            source,
            modifiers,
            types: types.into_iter().filter_map(Scalar::from_name).collect(),
            makes_values: false,
        }
    }

    pub fn error(&self, message: impl Into<String>) -> SyntaxError {
        error(self.source.position, message)
    }

    pub fn unsupported(&self) -> SyntaxError {
        self.error(format!(
            "unsupported instruction `{}`",
            self.source.mnemonic()
        ))
    }

    /// Every modifier must have been asked for: one that is ignored would change the meaning.
    pub fn finish(&self) -> Result<(), SyntaxError> {
        match self.modifiers.first() {
            None => Ok(()),
            Some(modifier) => Err(self.error(format!(
                "unsupported modifier `.{modifier}` of `{}`",
                self.source.mnemonic()
            ))),
        }
    }

    /// Every combination of modifiers must be one that there is.
    pub fn check_form(&self) -> Result<(), SyntaxError> {
        let words = self.source.modifiers.iter().copied();
        if self.makes_values && !forms::is_known(self.source.opcode, words) {
            return Err(self.unsupported());
        }
        Ok(())
    }

    /// Takes a modifier; false if it is not there.
    pub fn take(&mut self, modifier: &str) -> bool {
        let found = self.modifiers.iter().position(|&known| known == modifier);
        found.map(|index| self.modifiers.remove(index)).is_some()
    }

    /// Takes the first modifier that the table knows.
    pub fn choose<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (index, value) = self
            .modifiers
            .iter()
            .enumerate()
            .find_map(|(index, modifier)| {
                let &(_, value) = table.iter().find(|(name, _)| name == modifier)?;
                Some((index, value))
            })?;
        self.modifiers.remove(index);
        Some(value)
    }

    /// Takes all modifiers that `accept` knows.
    pub fn discard(&mut self, accept: impl Fn(&str) -> bool) {
        self.modifiers.retain(|modifier| !accept(modifier));
    }

    pub fn rounding(&mut self) -> Option<Rounding> {
        self.choose(&[
            ("rn", Rounding::NearestEven),
            ("rna", Rounding::NearestAway),
            ("rz", Rounding::Zero),
            ("rm", Rounding::Down),
            ("rp", Rounding::Up),
        ])
    }

    /// The instruction's first type.
    pub fn ty(&self) -> Result<Scalar, SyntaxError> {
        self.types
            .first()
            .copied()
            .ok_or_else(|| self.error(format!("`{}` lacks a type", self.source.mnemonic())))
    }

    pub fn count(&self) -> usize {
        self.source.operands.len()
    }

    pub fn expect_count(&self, counts: std::ops::RangeInclusive<usize>) -> Result<(), SyntaxError> {
        if counts.contains(&self.count()) {
            return Ok(());
        }
        Err(self.error(format!(
            "`{}` does not take {} operands",
            self.source.mnemonic(),
            self.count()
        )))
    }

    pub fn operand(&self, index: usize) -> Result<&'i Operand<'a>, SyntaxError> {
        self.source.operands.get(index).ok_or_else(|| {
            self.error(format!(
                "`{}` lacks operand {}",
                self.source.mnemonic(),
                index + 1
            ))
        })
    }

    fn wrong(&self, what: &str) -> SyntaxError {
        self.error(format!("`{}`: {what}", self.source.mnemonic()))
    }

    /// A destination of exactly `bits` bits.
    pub fn dst(&mut self, index: usize, bits: u32) -> Result<Reg, SyntaxError> {
        let (reg, width) = self.dst_wide(self.operand(index)?)?;
        if width != bits && width != 0 {
            return Err(self.wrong(&format!(
                "the destination has {width} bits where {bits} are written"
            )));
        }
        Ok(reg)
    }

    /// A destination of any width, with its width; 0 for `_`, which goes to a register nobody reads.
    pub fn dst_wide(&mut self, operand: &Operand<'a>) -> Result<(Reg, u32), SyntaxError> {
        match operand {
            Operand::Name("_") => Ok((self.function.new_register(0), 0)),
            Operand::Name(name) => match self.function.lookup(name) {
                Some(Name::Reg { index, scalar }) => Ok((index, scalar.bytes() as u32 * 8)),
                _ => Err(self.wrong(&format!("`{name}` is no register to write to"))),
            },
            Operand::Component(name, component) => self.component(name, component),
            _ => Err(self.wrong("the destination is no register")),
        }
    }

    /// An element of a vector register.
    fn component(&mut self, name: &'a str, component: &str) -> Result<(Reg, u32), SyntaxError> {
        let element = match component {
            "x" | "r" => 0,
            "y" | "g" => 1,
            "z" | "b" => 2,
            "w" | "a" => 3,
            _ => u32::MAX,
        };
        match self.function.lookup(name) {
            Some(Name::Vector {
                first,
                elements,
                scalar,
            }) if u64::from(element) < elements => Ok((first + element, scalar.bytes() as u32 * 8)),
            _ => Err(self.wrong(&format!("`{name}.{component}` is no register"))),
        }
    }

    pub fn dst_pred(&mut self, operand: &Operand<'a>) -> Result<Pred, SyntaxError> {
        match operand {
            Operand::Name("_") => Ok(self.function.new_predicate()),
            Operand::Name(name) => match self.function.lookup(name) {
                Some(Name::Pred(index)) => Ok(index),
                _ => Err(self.wrong(&format!("`{name}` is no predicate register"))),
            },
            _ => Err(self.wrong("the destination is no predicate register")),
        }
    }

    pub fn pred(&mut self, index: usize) -> Result<PredValue, SyntaxError> {
        let operand = self.operand(index)?;
        self.pred_of(operand)
    }

    pub fn pred_of(&mut self, operand: &Operand<'a>) -> Result<PredValue, SyntaxError> {
        match operand {
            Operand::Constant(Constant::Integer(value)) => Ok(PredValue::Const(*value != 0)),
            Operand::Not(inner) => Ok(match self.pred_of(inner)? {
                PredValue::Const(value) => PredValue::Const(!value),
                PredValue::Reg { index, negated } => PredValue::Reg {
                    index,
                    negated: !negated,
                },
            }),
            operand => Ok(PredValue::Reg {
                index: self.dst_pred(operand)?,
                negated: false,
            }),
        }
    }

    /// A source of exactly the width of `scalar`.
    pub fn value(&mut self, index: usize, scalar: Scalar) -> Result<Value, SyntaxError> {
        let operand = self.operand(index)?;
        let (value, bits) = self.value_of(operand, scalar)?;
        let wanted = scalar.bytes() as u32 * 8;
        if bits.is_some_and(|bits| bits != wanted) {
            return Err(self.wrong(&format!(
                "operand {} has {} bits where {wanted} are read",
                index + 1,
                bits.unwrap_or_default()
            )));
        }
        Ok(value)
    }

    /// A source and its width, if it has one of its own.
    pub fn value_of(
        &mut self,
        operand: &Operand<'a>,
        scalar: Scalar,
    ) -> Result<(Value, Option<u32>), SyntaxError> {
        match operand {
            Operand::Constant(constant) => constant_bits(*constant, scalar)
                .map(|bits| (Value::Imm(bits), None))
                .ok_or_else(|| {
                    self.wrong(&format!("a constant is no value of .{}", scalar.name()))
                }),
            Operand::Name(name) => self.named(name, 0),
            Operand::NameOffset(name, offset) => self.named(name, *offset),
            Operand::Element(name, 0) => self.named(name, 0),
            Operand::Element(name, index) => Err(self.error(format!(
                "`{name}[{index}]`: only element 0 can be named so; write the name and an offset in bytes"
            ))),
            Operand::Component(name, component) => {
                if let Some(special) = special(name, Some(component)) {
                    return Ok((Value::Special(special), None));
                }
                let (reg, bits) = self.component(name, component)?;
                Ok((Value::Reg(reg), Some(bits)))
            }
            _ => Err(self.wrong("an operand is no value")),
        }
    }

    fn named(&mut self, name: &'a str, offset: i64) -> Result<(Value, Option<u32>), SyntaxError> {
        if let Some(special) = special(name, None) {
            return Ok((Value::Special(special), None));
        }
        if name == "WARP_SZ" {
            return Ok((Value::Imm(32), None));
        }
        let value = match self.function.lookup(name) {
            Some(Name::Reg { index, scalar }) if offset == 0 => {
                return Ok((Value::Reg(index), Some(scalar.bytes() as u32 * 8)));
            }
            Some(Name::Local { offset: base, .. }) => {
                Value::Local((base as i64).wrapping_add(offset))
            }
            Some(Name::Param(base)) => Value::Imm(base.wrapping_add_signed(offset)),
            Some(Name::Symbol(Symbol::Global(variable))) => Value::Global { variable, offset },
            Some(Name::Symbol(Symbol::Shared(variable))) => {
                if !self.function.function.shared.contains(&variable) {
                    self.function.function.shared.push(variable);
                }
                Value::Shared { variable, offset }
            }
            Some(Name::Symbol(Symbol::Function(index))) => Value::Imm(FUNCTION_BASE + index as u64),
            Some(Name::Symbol(Symbol::Undefined)) => {
                return Err(self.error(format!("`{name}` is declared and never defined")));
            }
            Some(_) => return Err(self.wrong(&format!("`{name}` is no value"))),
            None => return Err(self.error(format!("`{name}` is not declared"))),
        };
        Ok((value, None))
    }

    /// `[base+offset]` and the space it lies in, given the space that the instruction names.
    pub fn address(&mut self, index: usize, space: Space) -> Result<(Address, Space), SyntaxError> {
        let Operand::Address { base, offset, .. } = self.operand(index)? else {
            return Err(self.wrong(&format!("operand {} is no address", index + 1)));
        };
        let (base, bits) = match base {
            Some(name) => self.named(name, 0)?,
            None => (Value::Imm(0), None),
        };
        if bits.is_some_and(|bits| bits < 32) {
            return Err(self.wrong("an address has 32 or 64 bits"));
        }
        // The parameters of a device function, and those of a call, lie in the frame's local memory.
        let space = match (space, base) {
            (Space::Param, Value::Local(_)) => Space::Local,
            (Space::Param, _) if !self.function.is_entry() => Space::Local,
            (Space::Generic, Value::Local(_)) => Space::Local,
            (Space::Generic, Value::Shared { .. }) => Space::Shared,
            (Space::Generic, Value::Global { .. }) => Space::Global,
            _ => space,
        };
        let address = Address {
            base,
            offset: *offset,
        };
        Ok((address, space))
    }

    /// Puts `op` before the instruction's own operation, under the same guard.
    pub fn emit(&mut self, op: Op) -> Result<(), SyntaxError> {
        self.function.emit(self.source, op)
    }

    /// Dispatches on the opcode.
    pub fn lower(&mut self) -> Result<Op, SyntaxError> {
        if let Some(op) = self.control()? {
            return Ok(op);
        }
        if let Some(op) = self.memory()? {
            return Ok(op);
        }
        if let Some(op) = self.warp()? {
            return Ok(op);
        }
        self.makes_values = true;
        if let Some(op) = self.move_or_compare()? {
            return Ok(op);
        }
        let float = self.types.first().is_some_and(|ty| ty.is_float());
        let op = if float {
            self.float()?
        } else {
            self.integer()?
        };
        op.ok_or_else(|| self.unsupported())
    }
}

/// Special registers by name (PTX ISA, chapter 10).
fn special(name: &str, component: Option<&str>) -> Option<Special> {
    let dimension = match component {
        Some("x") => Some(0),
        Some("y") => Some(1),
        Some("z") => Some(2),
        _ => None,
    };
    Some(match (name, dimension) {
        ("%tid", Some(dimension)) => Special::Tid(dimension),
        ("%ntid", Some(dimension)) => Special::Ntid(dimension),
        ("%ctaid", Some(dimension)) => Special::Ctaid(dimension),
        ("%nctaid", Some(dimension)) => Special::Nctaid(dimension),
        (_, Some(_)) => return None,
        ("%laneid", _) => Special::LaneId,
        ("%warpid", _) => Special::WarpId,
        ("%nwarpid", _) => Special::NWarpId,
        ("%smid", _) => Special::SmId,
        ("%nsmid", _) => Special::NSmId,
        ("%gridid", _) => Special::GridId,
        ("%lanemask_eq", _) => Special::LaneMaskEq,
        ("%lanemask_le", _) => Special::LaneMaskLe,
        ("%lanemask_lt", _) => Special::LaneMaskLt,
        ("%lanemask_ge", _) => Special::LaneMaskGe,
        ("%lanemask_gt", _) => Special::LaneMaskGt,
        ("%clock", _) => Special::Clock,
        ("%clock64", _) => Special::Clock64,
        ("%globaltimer", _) => Special::GlobalTimer,
        ("%dynamic_smem_size", _) => Special::DynamicSharedSize,
        ("%total_smem_size", _) => Special::TotalSharedSize,
        _ => return None,
    })
}
