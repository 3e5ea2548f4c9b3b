//! Variables of module scope and their initial values.

use super::{Lowerer, Symbol, error};
use crate::ptx::float::{Format, Rounding};
use crate::ptx::ir::{Global, Relocation, RelocationTarget, Shared, align_of, size_of};
use crate::ptx::syntax::{Constant, Initializer, Linkage, Scalar, Space, SyntaxError, Variable};

/// A variable may take at most this many bytes.
const MAX_VARIABLE: u64 = 1 << 32;

/// The bits of a constant in a type; `None` if the type cannot hold such a constant.
pub fn constant_bits(constant: Constant, scalar: Scalar) -> Option<u64> {
    let convert =
        |from: Format, bits: u64, to: Format| to.pack(from.unpack(bits), Rounding::NearestEven);
    Some(match (constant, scalar) {
        (Constant::Integer(value), Scalar::F32 | Scalar::F64) => {
            let format = if scalar == Scalar::F32 {
                Format::F32
            } else {
                Format::F64
            };
            let number = crate::ptx::float::Number::from_integer(i128::from(value as i64));
            format.pack(number, Rounding::NearestEven)
        }
        (Constant::Integer(value), _) => match scalar.bytes() {
            0 => value & 1,
            8 | 16 => value,
            bytes => value & ((1 << (bytes * 8)) - 1),
        },
        (Constant::Single(bits), Scalar::F32 | Scalar::B32) => u64::from(bits),
        (Constant::Single(bits), Scalar::F64) => convert(Format::F32, u64::from(bits), Format::F64),
        (Constant::Double(bits), Scalar::F64 | Scalar::B64) => bits,
        (Constant::Double(bits), Scalar::F32) => convert(Format::F64, bits, Format::F32),
        (Constant::Double(bits), Scalar::F16) => convert(Format::F64, bits, Format::F16),
        (Constant::Double(bits), Scalar::Bf16) => convert(Format::F64, bits, Format::BF16),
        _ => return None,
    })
}

impl<'a> Lowerer<'a> {
    /// Enters a variable of module scope, or of a function in a space that outlives it.
    pub fn declare_variable(&mut self, variable: &Variable<'a>) -> Result<(), SyntaxError> {
        let symbol = self.new_variable(variable)?;
        self.symbols.insert(variable.name, symbol);
        Ok(())
    }

    pub fn new_variable(&mut self, variable: &Variable<'a>) -> Result<Symbol, SyntaxError> {
        let mut sized = variable.clone();
        let open = variable.dims.first() == Some(&None);
        if open && let Some(Initializer::List(list)) = &variable.init {
            sized.dims[0] = Some(list.len() as u64);
        }
        let bytes = size_of(&sized)
            .filter(|&bytes| bytes <= MAX_VARIABLE)
            .ok_or_else(|| {
                error(
                    variable.position,
                    format!("`{}` is too large", variable.name),
                )
            })?;
        let align = align_of(variable);
        if variable.space == Some(Space::Shared) {
            self.program.shared.push(Shared {
                bytes,
                align,
                dynamic: open,
            });
            return Ok(Symbol::Shared(self.program.shared.len() - 1));
        }
        if variable.linkage == Linkage::Extern {
            return Ok(Symbol::Undefined);
        }
        self.program.globals.push(Global {
            name: variable.name.to_owned(),
            bytes,
            align,
            image: Vec::new(),
            relocations: Vec::new(),
        });
        Ok(Symbol::Global(self.program.globals.len() - 1))
    }

    pub fn initialize_variable(&mut self, variable: &Variable<'a>) -> Result<(), SyntaxError> {
        let (Some(init), Some(&Symbol::Global(index))) =
            (&variable.init, self.symbols.get(variable.name))
        else {
            return Ok(());
        };
        let mut image = Image {
            bytes: Vec::new(),
            limit: self.program.globals[index].bytes,
            relocations: Vec::new(),
        };
        let element = variable.scalar.bytes();
        // Bytes of one element of each dimension, innermost last.
        let mut sizes = vec![element * variable.vector];
        for dim in variable.dims.iter().skip(1).rev() {
            let size = sizes.last().copied().unwrap_or(1);
            sizes.push(size.saturating_mul(dim.unwrap_or(0)));
        }
        if variable.vector > 1 {
            sizes.insert(0, element);
        }
        sizes.reverse();
        if variable.dims.is_empty() && variable.vector == 1 {
            self.initial_value(variable, init, 0, &mut image)?;
        } else {
            self.initial_list(variable, init, 0, &sizes, &mut image)?;
        }
        let global = &mut self.program.globals[index];
        global.image = image.bytes;
        global.relocations = image.relocations;
        Ok(())
    }

    fn initial_list(
        &self,
        variable: &Variable<'a>,
        init: &Initializer<'a>,
        at: u64,
        sizes: &[u64],
        image: &mut Image,
    ) -> Result<(), SyntaxError> {
        let (Initializer::List(list), Some((&size, inner))) = (init, sizes.split_first()) else {
            return self.initial_value(variable, init, at, image);
        };
        let mut at = at;
        for item in list {
            if matches!(item, Initializer::List(_)) {
                self.initial_list(variable, item, at, inner, image)?;
                at = at.saturating_add(size);
            } else {
                // A flat list fills the innermost elements in order.
                self.initial_value(variable, item, at, image)?;
                at = at.saturating_add(variable.scalar.bytes());
            }
        }
        Ok(())
    }

    fn initial_value(
        &self,
        variable: &Variable<'a>,
        init: &Initializer<'a>,
        at: u64,
        image: &mut Image,
    ) -> Result<(), SyntaxError> {
        let wrong = |what: &str| error(variable.position, format!("`{}`: {what}", variable.name));
        let bytes = variable.scalar.bytes();
        if at.saturating_add(bytes) > image.limit {
            return Err(wrong("more initial values than elements"));
        }
        match init {
            Initializer::Value(constant) => {
                let bits = constant_bits(*constant, variable.scalar)
                    .ok_or_else(|| wrong("an initial value has another type"))?;
                image.write(at, bytes, bits);
                Ok(())
            }
            Initializer::Address {
                symbol,
                position,
                offset,
                mask,
                ..
            } => {
                let target = match self.symbols.get(symbol) {
                    Some(&Symbol::Global(index)) => RelocationTarget::Global(index),
                    Some(&Symbol::Function(index)) => RelocationTarget::Function(index),
                    _ => {
                        let message = format!("`{symbol}` has no address that a variable can hold");
                        return Err(error(*position, message));
                    }
                };
                image.relocations.push(Relocation {
                    at,
                    bytes,
                    shift: mask.map_or(0, u64::trailing_zeros),
                    target,
                    offset: *offset,
                });
                Ok(())
            }
            Initializer::List(_) => Err(wrong("initial values are nested too deep")),
        }
    }
}

struct Image {
    bytes: Vec<u8>,
    limit: u64,
    relocations: Vec<Relocation>,
}

impl Image {
    /// The caller has checked that the range lies below the limit.
    fn write(&mut self, at: u64, bytes: u64, bits: u64) {
        let (start, end) = (at as usize, (at + bytes) as usize);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let source = u128::from(bits).to_le_bytes();
        self.bytes[start..end].copy_from_slice(&source[..end - start]);
    }
}
