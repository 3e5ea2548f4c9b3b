//! Instructions in which the lanes of a warp see each other (PTX ISA 9.7.9.6 and 9.7.13).

use super::operand::Operands;
use crate::ptx::ir::{AtomOp, Op, ShflMode, VoteMode};
use crate::ptx::syntax::{Operand, Scalar, SyntaxError};

impl Operands<'_, '_, '_> {
    pub fn warp(&mut self) -> Result<Option<Op>, SyntaxError> {
        Ok(Some(match self.source.opcode {
            "shfl" => self.shuffle()?,
            "vote" => self.vote()?,
            "match" => self.match_lanes()?,
            "redux" => self.redux()?,
            "activemask" => {
                self.expect_count(1..=1)?;
                Op::ActiveMask {
                    dst: self.dst(0, 32)?,
                }
            }
            _ => return Ok(None),
        }))
    }

    /// Forms without `.sync` are gone since sm_70.
    fn expect_sync(&mut self) -> Result<(), SyntaxError> {
        if self.take("sync") {
            Ok(())
        } else {
            Err(self.unsupported())
        }
    }

    fn shuffle(&mut self) -> Result<Op, SyntaxError> {
        self.expect_sync()?;
        let mode = self
            .choose(&[
                ("up", ShflMode::Up),
                ("down", ShflMode::Down),
                ("bfly", ShflMode::Bfly),
                ("idx", ShflMode::Idx),
            ])
            .ok_or_else(|| self.unsupported())?;
        self.expect_count(5..=5)?;
        let (dst, pred) = match self.operand(0)? {
            Operand::Pair(dst, pred) => (self.dst_wide(dst)?, Some(self.dst_pred(pred)?)),
            operand => (self.dst_wide(operand)?, None),
        };
        if !matches!(dst.1, 0 | 32) {
            return Err(self.error("`shfl` moves 32 bits"));
        }
        Ok(Op::Shfl {
            mode,
            dst: dst.0,
            pred,
            a: self.value(1, Scalar::B32)?,
            b: self.value(2, Scalar::B32)?,
            c: self.value(3, Scalar::B32)?,
            members: self.value(4, Scalar::B32)?,
        })
    }

    fn vote(&mut self) -> Result<Op, SyntaxError> {
        self.expect_sync()?;
        let mode = self
            .choose(&[
                ("all", VoteMode::All),
                ("any", VoteMode::Any),
                ("uni", VoteMode::Uni),
                ("ballot", VoteMode::Ballot),
            ])
            .ok_or_else(|| self.unsupported())?;
        self.expect_count(3..=3)?;
        Ok(Op::Vote {
            mode,
            dst: if mode == VoteMode::Ballot {
                self.dst(0, 32)?
            } else {
                self.dst_pred(self.operand(0)?)?
            },
            pred: self.pred(1)?,
            members: self.value(2, Scalar::B32)?,
        })
    }

    fn match_lanes(&mut self) -> Result<Op, SyntaxError> {
        let all = self.take("all");
        if !all && !self.take("any") {
            return Err(self.unsupported());
        }
        self.expect_sync()?;
        self.expect_count(3..=3)?;
        let ty = self.ty()?;
        let (dst, pred) = match self.operand(0)? {
            Operand::Pair(dst, pred) if all => (self.dst_wide(dst)?, Some(self.dst_pred(pred)?)),
            operand => (self.dst_wide(operand)?, None),
        };
        Ok(Op::Match {
            all,
            bits: ty.bytes() as u32 * 8,
            dst: dst.0,
            pred,
            a: self.value(1, ty)?,
            members: self.value(2, Scalar::B32)?,
        })
    }

    fn redux(&mut self) -> Result<Op, SyntaxError> {
        self.expect_sync()?;
        let op = self
            .choose(&[
                ("add", AtomOp::Add),
                ("min", AtomOp::Min),
                ("max", AtomOp::Max),
                ("and", AtomOp::And),
                ("or", AtomOp::Or),
                ("xor", AtomOp::Xor),
            ])
            .ok_or_else(|| self.unsupported())?;
        self.expect_count(3..=3)?;
        let ty = self.ty()?;
        if ty.is_float() {
            return Err(self.unsupported());
        }
        Ok(Op::Redux {
            op,
            signed: ty.is_signed(),
            dst: self.dst(0, 32)?,
            a: self.value(1, ty)?,
            members: self.value(2, Scalar::B32)?,
        })
    }
}
