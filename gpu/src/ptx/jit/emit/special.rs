//! Special registers (PTX ISA, chapter 10).

use std::mem::offset_of;

use cranelift_codegen::ir::{InstBuilder, Value as Ir, types};

use super::value::{Val, part_count};
use super::{Emitter, constant, memory};
use crate::ptx::ir::{Special, Value};
use crate::ptx::jit::machine::Machine;
use crate::ptx::jit::shape::{GROUP, Shape};

impl Emitter<'_, '_> {
    pub fn special(&mut self, special: Special) -> Val {
        let thread = |emitter: &mut Self| {
            if emitter.wide {
                let shift = GROUP.trailing_zeros();
                emitter.b.ins().ishl_imm_u(emitter.index, i64::from(shift))
            } else {
                emitter.index
            }
        };
        let field32 =
            |emitter: &mut Self, offset: usize| Val::scalar(emitter.field(types::I32, offset), 32);
        let array = |base: usize, dimension: usize| base + 4 * dimension;
        match special {
            Special::Tid(dimension) => {
                let offset = offset_of!(Machine, tid) + 8 * dimension;
                let table = self.field(types::I64, offset);
                let at = thread(self);
                let at = self.b.ins().ishl_imm_u(at, 2);
                let at = self.b.ins().iadd(table, at);
                self.lanes_at(at, self.value_shape(Value::Special(special)))
            }
            Special::Ntid(d) => field32(self, array(offset_of!(Machine, ntid), d)),
            Special::Ctaid(0) if let Some(block) = self.row_block => {
                let index = self.b.ins().ireduce(types::I32, block);
                Val::scalar(index, 32)
            }
            Special::Ctaid(d) => field32(self, array(offset_of!(Machine, ctaid), d)),
            Special::Nctaid(d) => field32(self, array(offset_of!(Machine, nctaid), d)),
            Special::LaneId => {
                let thread = thread(self);
                let lane = self.b.ins().band_imm_u(thread, 31);
                Val::scalar(lane, 64)
            }
            Special::WarpId => {
                let thread = thread(self);
                Val::scalar(self.b.ins().ushr_imm_u(thread, 5), 64)
            }
            Special::NWarpId => field32(self, offset_of!(Machine, warps)),
            Special::SmId => field32(self, offset_of!(Machine, worker)),
            Special::NSmId => field32(self, offset_of!(Machine, workers)),
            Special::GridId => {
                Val::scalar(self.field(types::I64, offset_of!(Machine, grid_id)), 64)
            }
            Special::DynamicSharedSize => field32(self, offset_of!(Machine, dynamic_shared)),
            Special::TotalSharedSize => Val::scalar(
                self.field(types::I64, offset_of!(Machine, total_shared)),
                64,
            ),
            Special::LaneMaskEq
            | Special::LaneMaskLe
            | Special::LaneMaskLt
            | Special::LaneMaskGe
            | Special::LaneMaskGt => {
                let row = match special {
                    Special::LaneMaskEq => 0,
                    Special::LaneMaskLe => 1,
                    Special::LaneMaskLt => 2,
                    Special::LaneMaskGe => 3,
                    _ => 4,
                };
                let thread = thread(self);
                let lane = self.b.ins().band_imm_u(thread, 31);
                let at = self.b.ins().ishl_imm_u(lane, 2);
                let at = self.b.ins().iadd(self.machine, at);
                let offset = (offset_of!(Machine, lane_masks) + 128 * row) as i64;
                let at = self.b.ins().iadd_imm_s(at, offset);
                self.lanes_at(at, self.value_shape(Value::Special(special)))
            }
            // Instructions that read a clock are executed by the interpreter.
            Special::Clock | Special::Clock64 | Special::GlobalTimer => self.immediate(0, 64),
        }
    }

    /// Numbers of 32 bits in a table that stays as it is.
    fn lanes_at(&mut self, at: Ir, shape: Shape) -> Val {
        if shape != Shape::Varying {
            let value = self.b.ins().load(types::I32, constant(), at, 0);
            return Val::scalar(value, 32);
        }
        let parts = (0..part_count(32)).map(|index| {
            let flags = memory().with_readonly().with_can_move();
            self.b
                .ins()
                .load(types::I32X4, flags, at, 16 * index as i32)
        });
        Val {
            parts: parts.collect(),
            lane: 32,
        }
    }
}
