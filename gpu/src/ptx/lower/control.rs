//! Branches, calls and barriers (PTX ISA 9.7.12 and 9.7.13.1).

use super::Symbol;
use super::function::Name;
use super::operand::Operands;
use crate::ptx::ir::{Argument, BarOp, Callee, Op, Value};
use crate::ptx::syntax::{Operand, Scalar, SyntaxError};

impl<'a> Operands<'_, '_, 'a> {
    pub fn control(&mut self) -> Result<Option<Op>, SyntaxError> {
        let opcode = self.source.opcode;
        // A promise that all lanes go the same way, which needs no keeping.
        if matches!(opcode, "bra" | "brx" | "call" | "ret") {
            self.discard(|modifier| modifier == "uni");
        }
        Ok(Some(match opcode {
            "bra" => {
                self.expect_count(1..=1)?;
                let Operand::Name(name) = self.operand(0)? else {
                    return Err(self.unsupported());
                };
                Op::Bra {
                    target: self.label(name)?,
                }
            }
            "brx" if self.take("idx") => {
                self.expect_count(2..=2)?;
                let index = self.value(0, Scalar::U32)?;
                let Operand::Name(list) = self.operand(1)? else {
                    return Err(self.unsupported());
                };
                let Some(Name::Targets(names)) = self.function.lookup(list) else {
                    return Err(self.error(format!("`{list}` is no list of branch targets")));
                };
                let targets = names
                    .into_iter()
                    .map(|name| self.label(name))
                    .collect::<Result<_, _>>()?;
                Op::BrxIdx { index, targets }
            }
            "call" => self.call()?,
            "ret" => Op::Ret,
            "exit" => Op::Exit,
            "trap" => Op::Trap,
            // A breakpoint without a debugger, a performance event without a profiler.
            "brkpt" | "pmevent" => {
                self.discard(|_| true);
                Op::Nop
            }
            // Time passes as it will: any duration from zero on is allowed.
            "nanosleep" => Op::Nop,
            "bar" | "barrier" => self.barrier()?,
            _ => return Ok(None),
        }))
    }

    fn label(&mut self, name: &'a str) -> Result<usize, SyntaxError> {
        match self.function.lookup(name) {
            Some(Name::Label(label)) => Ok(label),
            _ => Err(self.error(format!("`{name}` is no label of this function"))),
        }
    }

    /// `call (results), function, (arguments), prototype;` with the lists and the prototype optional.
    fn call(&mut self) -> Result<Op, SyntaxError> {
        let operands = &self.source.operands;
        let mut rest = operands.iter();
        let mut next = rest.next();
        let mut returns = Vec::new();
        if let Some(Operand::List(list)) = next {
            for operand in list {
                returns.push(self.result(operand)?);
            }
            next = rest.next();
        }
        let Some(Operand::Name(name)) = next else {
            return Err(self.unsupported());
        };
        let mut args = Vec::new();
        if let Some(Operand::List(list)) = rest.next() {
            for operand in list {
                args.push(self.argument(operand)?);
            }
        }
        let callee = match self.function.lookup(name) {
            Some(Name::Symbol(Symbol::Function(index))) => Callee::Direct(index),
            Some(Name::Symbol(Symbol::External(callee))) => callee,
            Some(Name::Reg { index, .. }) => Callee::Indirect(Value::Reg(index)),
            Some(Name::Symbol(Symbol::Undefined)) => {
                return Err(self.error(format!("function `{name}` is declared and never defined")));
            }
            _ => return Err(self.error(format!("`{name}` is no function"))),
        };
        Ok(Op::Call {
            callee,
            returns,
            args,
        })
    }

    fn result(&mut self, operand: &Operand<'a>) -> Result<Argument, SyntaxError> {
        if let Operand::Name(name) = operand
            && let Some(Name::Local { offset, bytes }) = self.function.lookup(name)
        {
            return Ok(Argument::Memory { offset, bytes });
        }
        let (reg, _) = self.dst_wide(operand)?;
        Ok(Argument::Value(Value::Reg(reg)))
    }

    fn argument(&mut self, operand: &Operand<'a>) -> Result<Argument, SyntaxError> {
        if let Operand::Name(name) = operand
            && let Some(Name::Local { offset, bytes }) = self.function.lookup(name)
        {
            return Ok(Argument::Memory { offset, bytes });
        }
        let (value, _) = self.value_of(operand, Scalar::B64)?;
        Ok(Argument::Value(value))
    }

    /// `bar.sync`, `bar.arrive`, `bar.red`, `bar.warp.sync`, and the same as `barrier` and with `.cta`.
    fn barrier(&mut self) -> Result<Op, SyntaxError> {
        self.discard(|modifier| matches!(modifier, "cta" | "aligned"));
        if self.take("warp") {
            self.take("sync");
            self.expect_count(1..=1)?;
            return Ok(Op::WarpSync {
                members: self.value(0, Scalar::B32)?,
            });
        }
        if self.take("arrive") {
            self.expect_count(2..=2)?;
            return Ok(Op::Bar {
                op: BarOp::Arrive,
                id: self.value(0, Scalar::U32)?,
                threads: Some(self.value(1, Scalar::U32)?),
            });
        }
        if self.take("red") {
            self.expect_count(3..=4)?;
            let last = self.count() - 1;
            let pred = self.pred(last)?;
            let op = if self.take("popc") {
                BarOp::Popc {
                    dst: self.dst(0, 32)?,
                    pred,
                }
            } else {
                let dst = self.dst_pred(self.operand(0)?)?;
                if self.take("and") {
                    BarOp::And { dst, pred }
                } else if self.take("or") {
                    BarOp::Or { dst, pred }
                } else {
                    return Err(self.unsupported());
                }
            };
            return Ok(Op::Bar {
                op,
                id: self.value(1, Scalar::U32)?,
                threads: if last == 3 {
                    Some(self.value(2, Scalar::U32)?)
                } else {
                    None
                },
            });
        }
        if !self.take("sync") {
            return Err(self.unsupported());
        }
        self.expect_count(1..=2)?;
        Ok(Op::Bar {
            op: BarOp::Sync,
            id: self.value(0, Scalar::U32)?,
            threads: if self.count() == 2 {
                Some(self.value(1, Scalar::U32)?)
            } else {
                None
            },
        })
    }
}
