//! Loads, stores, atomics and address conversion (PTX ISA 9.7.9 and 9.7.13).

use super::operand::Operands;
use crate::ptx::ir::{AtomOp, Op, Space, Value};
use crate::ptx::syntax::{Operand, Scalar, SyntaxError};

impl Operands<'_, '_, '_> {
    pub fn memory(&mut self) -> Result<Option<Op>, SyntaxError> {
        Ok(Some(match self.source.opcode {
            "ld" | "ldu" => self.load()?,
            "st" => self.store()?,
            "atom" => self.atomic(true)?,
            "red" => self.atomic(false)?,
            "cvta" => self.cvta()?,
            "isspacep" => {
                self.expect_count(2..=2)?;
                let space = self.space();
                Op::IsSpace {
                    dst: self.dst_pred(self.operand(0)?)?,
                    space,
                    a: self.value(1, Scalar::U64)?,
                }
            }
            "membar" | "fence" => {
                self.discard(|modifier| !modifier.starts_with("proxy"));
                Op::Fence
            }
            // Hints about caches.
            "prefetch" | "prefetchu" | "applypriority" | "discard" => {
                self.discard(|_| true);
                Op::Nop
            }
            _ => return Ok(None),
        }))
    }

    /// The state space among the modifiers; generic without one.
    fn space(&mut self) -> Space {
        self.choose(&[
            ("global", Space::Global),
            ("const", Space::Global),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("local", Space::Local),
            ("param", Space::Param),
            ("param::entry", Space::Param),
            ("param::func", Space::Param),
        ])
        .unwrap_or(Space::Generic)
    }

    /// Cache hints, and orders and scopes: every access here is atomic for itself, and read-modify-write
    /// operations and fences are sequentially consistent, which satisfies all of them.
    fn discard_hints(&mut self) {
        self.discard(|modifier| {
            matches!(
                modifier,
                "volatile"
                    | "weak"
                    | "relaxed"
                    | "acquire"
                    | "release"
                    | "acq_rel"
                    | "mmio"
                    | "cta"
                    | "cluster"
                    | "gpu"
                    | "sys"
                    | "gl"
                    | "nc"
                    | "ca"
                    | "cg"
                    | "cs"
                    | "lu"
                    | "cv"
                    | "wb"
                    | "wt"
                    | "noftz"
                    | "unified"
            ) || modifier.starts_with("L1::")
                || modifier.starts_with("L2::")
        });
    }

    fn vector(&mut self) -> usize {
        self.choose(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
    }

    /// The elements of a vector operand, whose number must be that of the modifier.
    fn elements<'o, 's>(
        &self,
        operand: &'o Operand<'s>,
        count: usize,
    ) -> Result<Vec<&'o Operand<'s>>, SyntaxError> {
        let elements = match operand {
            Operand::Vector(elements) => elements.iter().collect(),
            single => vec![single],
        };
        if elements.len() == count {
            Ok(elements)
        } else {
            Err(self.error(format!("{count} elements are needed")))
        }
    }

    fn load(&mut self) -> Result<Op, SyntaxError> {
        let space = self.space();
        let count = self.vector();
        self.discard_hints();
        // A cache policy may follow.
        self.expect_count(2..=3)?;
        let scalar = self.ty()?;
        if matches!(scalar, Scalar::Pred | Scalar::B128) {
            return Err(self.unsupported());
        }
        let mut dsts = Vec::new();
        for operand in self.elements(self.operand(0)?, count)? {
            let (reg, width) = self.dst_wide(operand)?;
            if width != 0 && width < scalar.bytes() as u32 * 8 {
                return Err(self.error(format!("a register of {width} bits is too narrow")));
            }
            dsts.push((width != 0).then_some((reg, width)));
        }
        let (address, space) = self.address(1, space)?;
        Ok(Op::Load {
            space,
            scalar,
            dsts,
            address,
        })
    }

    fn store(&mut self) -> Result<Op, SyntaxError> {
        let space = self.space();
        let count = self.vector();
        self.discard_hints();
        self.expect_count(2..=3)?;
        let scalar = self.ty()?;
        if matches!(scalar, Scalar::Pred | Scalar::B128) {
            return Err(self.unsupported());
        }
        let (address, space) = self.address(0, space)?;
        if space == Space::Param {
            return Err(self.error("a kernel cannot write its parameters"));
        }
        let mut srcs = Vec::new();
        for operand in self.elements(self.operand(1)?, count)? {
            let (value, width) = self.value_of(operand, scalar)?;
            if width.is_some_and(|width| width < scalar.bytes() as u32 * 8) {
                return Err(self.error("a register is narrower than what is stored"));
            }
            srcs.push(value);
        }
        Ok(Op::Store {
            space,
            bytes: scalar.bytes(),
            srcs,
            address,
        })
    }

    fn atomic(&mut self, returns: bool) -> Result<Op, SyntaxError> {
        let space = self.space();
        let op = self
            .choose(&[
                ("add", AtomOp::Add),
                ("min", AtomOp::Min),
                ("max", AtomOp::Max),
                ("and", AtomOp::And),
                ("or", AtomOp::Or),
                ("xor", AtomOp::Xor),
                ("exch", AtomOp::Exch),
                ("cas", AtomOp::Cas),
                ("inc", AtomOp::Inc),
                ("dec", AtomOp::Dec),
            ])
            .ok_or_else(|| self.unsupported())?;
        self.discard_hints();
        let ty = self.ty()?;
        let float = ty.is_float();
        let known = match ty.bytes() {
            2 => op == AtomOp::Cas && !float || float && op == AtomOp::Add,
            4 | 8 => !float || op == AtomOp::Add,
            _ => false,
        };
        if !known || matches!(ty, Scalar::Tf32 | Scalar::U16x2 | Scalar::S16x2) {
            return Err(self.unsupported());
        }
        let first = usize::from(returns);
        let count = first + 2 + usize::from(op == AtomOp::Cas);
        self.expect_count(count..=count + 1)?;
        let (address, space) = self.address(first, space)?;
        if matches!(space, Space::Local | Space::Param) {
            return Err(self.error("an atomic operation needs global or shared memory"));
        }
        Ok(Op::Atom {
            space,
            op,
            ty,
            dst: if returns {
                Some(self.dst(0, ty.bytes() as u32 * 8)?)
            } else {
                None
            },
            address,
            b: self.value(first + 1, ty)?,
            c: if op == AtomOp::Cas {
                self.value(first + 2, ty)?
            } else {
                Value::Imm(0)
            },
        })
    }

    fn cvta(&mut self) -> Result<Op, SyntaxError> {
        self.expect_count(2..=2)?;
        let to_space = self.take("to");
        let space = self.space();
        if self.ty()?.bytes() != 8 {
            return Err(self.unsupported());
        }
        let a = self.value(1, Scalar::U64)?;
        // A device function's parameters lie in local memory.
        let local =
            space == Space::Param && (matches!(a, Value::Local(_)) || !self.function.is_entry());
        Ok(Op::Cvta {
            dst: self.dst(0, 64)?,
            space: if local { Space::Local } else { space },
            to_space,
            a,
        })
    }
}
