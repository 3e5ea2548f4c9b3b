//! Loads and stores: where an access lies is checked against what the instruction's last one was allowed.

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value as Ir, types};

use super::value::{Val, as_int, integer_type, part_count};
use super::{Emitter, constant, memory};
use crate::ptx::exec::WARP;
use crate::ptx::ir::{Address, Inst, Op, Reg, Space, Value};
use crate::ptx::jit::machine::{Machine, Site};
use crate::ptx::jit::plan::lane_bits;
use crate::ptx::jit::shape::{GROUP, Shape};
use crate::ptx::syntax::Scalar;

/// Groups of a warp.
const GROUPS: usize = WARP / GROUP;

/// What an instruction moves between lanes and memory.
struct Access<'i> {
    space: Space,
    /// Bytes of an element.
    bytes: u64,
    /// Elements that each lane moves.
    count: usize,
    address: Address,
    content: Content<'i>,
}

enum Content<'i> {
    Load {
        scalar: Scalar,
        dsts: &'i [Option<(Reg, u32)>],
    },
    Store(&'i [Value]),
}

/// Where the lanes' first elements are on the host.
enum Place {
    /// Lane 0's; the others follow at the stride.
    Stride(Ir, i64),
    Lanes(Vec<Ir>),
}

impl Emitter<'_, '_> {
    /// Emits a load or store; false if it has no code of its own.
    pub fn access(&mut self, inst: &Inst) -> bool {
        let access = match &inst.op {
            Op::Load {
                space,
                scalar,
                dsts,
                address,
            } => Access {
                space: *space,
                bytes: scalar.bytes(),
                count: dsts.len(),
                address: *address,
                content: Content::Load {
                    scalar: *scalar,
                    dsts,
                },
            },
            Op::Store {
                space,
                bytes,
                srcs,
                address,
            } => Access {
                space: *space,
                bytes: *bytes,
                count: srcs.len(),
                address: *address,
                content: Content::Store(srcs),
            },
            Op::Nop => return true,
            _ => return false,
        };
        let whole = access.bytes * access.count as u64;
        if !whole.is_power_of_two() || whole > 64 || access.bytes > 8 {
            return false;
        }
        match access.space {
            Space::Param => self.parameter(&access),
            Space::Local => self.local(&access, whole),
            Space::Global | Space::Shared | Space::Generic => {
                self.checked(&access, whole);
                true
            }
        }
    }

    /// Parameters lie at places that are known, and never change.
    fn parameter(&mut self, access: &Access<'_>) -> bool {
        let (Value::Imm(base), None) = (access.address.base, &self.mask) else {
            return false;
        };
        let at = base.wrapping_add_signed(access.address.offset);
        let end = self
            .source
            .function
            .kernel_params
            .last()
            .map_or(0, |&(offset, bytes)| offset + bytes);
        let whole = access.bytes * access.count as u64;
        if !at.is_multiple_of(whole) || at.checked_add(whole).is_none_or(|last| last > end) {
            return false;
        }
        let Content::Load { scalar, dsts } = access.content else {
            return false;
        };
        let params = self.field(types::I64, offset_of!(Machine, params));
        for (index, dst) in dsts.iter().enumerate() {
            let Some((dst, width)) = *dst else { continue };
            let offset = (at + index as u64 * access.bytes) as i32;
            let ty = memory_type(access.bytes);
            let flags = memory().with_readonly().with_can_move();
            let value = self.b.ins().load(ty, flags, params, offset);
            let val = self.extended(value, scalar, width);
            self.write(dst, val, Shape::UNIFORM);
        }
        true
    }

    /// A thread's own memory, when all lanes access the same place of theirs.
    fn local(&mut self, access: &Access<'_>, whole: u64) -> bool {
        if self.value_shape(access.address.base) != Shape::UNIFORM || self.mask.is_some() {
            return false;
        }
        let size = self.source.function.local_bytes;
        if size < whole {
            return false;
        }
        let at = self.address(access.address);
        let turned = self.b.ins().rotr_imm_u(at, i64::from(whole.ilog2()));
        let places = ((size - whole) / whole + 1) as i64;
        let limit = self.b.ins().iconst(types::I64, places);
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, turned, limit);
        self.otherwise_callout(fits, |emitter| {
            let stride = size.next_multiple_of(16) as i64;
            let table = emitter.field(types::I64, offset_of!(Machine, locals));
            let shift = if emitter.wide {
                GROUPS.trailing_zeros()
            } else {
                WARP.trailing_zeros()
            };
            let shift = i64::from(shift);
            let warp = emitter.b.ins().ushr_imm_u(emitter.index, shift);
            let entry = emitter.b.ins().ishl_imm_u(warp, 3);
            let entry = emitter.b.ins().iadd(table, entry);
            let base = emitter.b.ins().load(types::I64, constant(), entry, 0);
            let lane = if emitter.wide {
                let group = emitter.b.ins().band_imm_u(emitter.index, GROUPS as i64 - 1);
                emitter
                    .b
                    .ins()
                    .ishl_imm_u(group, i64::from(GROUP.trailing_zeros()))
            } else {
                emitter.b.ins().band_imm_u(emitter.index, WARP as i64 - 1)
            };
            let offset = emitter.b.ins().imul_imm_s(lane, stride);
            let base = emitter.b.ins().iadd(base, offset);
            let host = emitter.b.ins().iadd(base, at);
            emitter.transfer(access, &Place::Stride(host, stride));
        });
        true
    }

    /// An address of 64 bits, of lane 0 if it has a stride.
    fn address(&mut self, address: Address) -> Ir {
        let base = self.base(address.base, 64).parts[0];
        let base = as_int(&mut self.b, base);
        self.b.ins().iadd_imm_s(base, address.offset)
    }

    /// Emits `fast` for where `fits` holds, and a call of the interpreter for where it does not.
    fn otherwise_callout(&mut self, fits: Ir, fast: impl FnOnce(&mut Self)) {
        let (near, far, after) = (
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
        );
        self.b.set_cold_block(far);
        self.b.ins().brif(fits, near, &[], far, &[]);
        self.b.switch_to_block(far);
        self.callout();
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(near);
        let mask = self.mask.take();
        fast(self);
        self.mask = mask;
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(after);
    }

    /// An access that the instruction's [`Site`] allows, or the interpreter.
    fn checked(&mut self, access: &Access<'_>, whole: u64) {
        let shape = self.value_shape(access.address.base);
        let number = 2 * self.pc + usize::from(self.wide);
        let sites = self.field(types::I64, offset_of!(Machine, sites));
        let site = (number * size_of::<Site>()) as i32;
        let start = |emitter: &mut Self| {
            if access.space == Space::Shared {
                emitter.b.ins().iconst(types::I64, 0)
            } else {
                let offset = site + offset_of!(Site, start) as i32;
                emitter.b.ins().load(types::I64, memory(), sites, offset)
            }
        };
        match shape {
            Shape::Stride(k) => {
                let at = self.address(access.address);
                // The lowest lane's place counts; the others lie behind it.
                let reach = k * (GROUP as i64 - 1);
                let lowest = if k < 0 {
                    self.b.ins().iadd_imm_s(at, reach)
                } else {
                    at
                };
                let start = start(self);
                let offset = self.b.ins().isub(lowest, start);
                let turned = self.b.ins().rotr_imm_u(offset, i64::from(whole.ilog2()));
                let field = site + offset_of!(Site, places) as i32;
                let places = self.b.ins().load(types::I64, memory(), sites, field);
                let fits = self.b.ins().icmp(IntCC::UnsignedLessThan, turned, places);
                let fits = self.all_lanes(fits);
                self.otherwise_callout(fits, |emitter| {
                    let host = emitter.host(access.space, at, sites, site);
                    emitter.transfer(access, &Place::Stride(host, k));
                });
            }
            _ => {
                let base = self.operand(access.address.base, 64);
                let offset = self.immediate(access.address.offset as u64, 64);
                let at = self.map(&[base, offset], 64, |b, args| {
                    let base = as_int(b, args[0]);
                    b.ins().iadd(base, args[1])
                });
                let start = start(self);
                let field = site + offset_of!(Site, room) as i32;
                let room = self.b.ins().load(types::I64, memory(), sites, field);
                let (start, room) = (Val::scalar(start, 64), Val::scalar(room, 64));
                let low_bits = self.immediate(whole - 1, 64);
                let inside = self.map(&[at.clone(), start, room, low_bits], 64, |b, args| {
                    let offset = b.ins().isub(args[0], args[1]);
                    // Both are below 2^63, so that a comparison with a sign does for one without.
                    let low = b.ins().icmp(IntCC::SignedLessThan, offset, args[2]);
                    let ty = b.func.dfg.value_type(offset);
                    let low = super::value::cast(b, low, ty);
                    let wrong = b.ins().band(offset, args[3]);
                    let wrong = b.ins().ineg(wrong);
                    let bad = b.ins().bor(offset, wrong);
                    // The sign says that the offset is negative or no multiple.
                    let not_bad = b.ins().bnot(bad);
                    b.ins().band(low, not_bad)
                });
                let fits = self.all_signs(&inside);
                let fits = self.all_lanes(fits);
                self.otherwise_callout(fits, |emitter| {
                    let hosts = (0..GROUP)
                        .map(|lane| {
                            let address = emitter.extract(&at, lane);
                            emitter.host(access.space, address, sites, site)
                        })
                        .collect();
                    emitter.transfer(access, &Place::Lanes(hosts));
                });
            }
        }
    }

    /// Whether a condition holds and the guard of all lanes does.
    fn all_lanes(&mut self, fits: Ir) -> Ir {
        let Some(mask) = self.mask.clone() else {
            return fits;
        };
        let bits = self.mask_bits(&mask);
        let all = self
            .b
            .ins()
            .icmp_imm_s(IntCC::Equal, bits, (1 << GROUP) - 1);
        self.b.ins().band(fits, all)
    }

    /// Whether every lane's upper bit is set.
    fn all_signs(&mut self, val: &Val) -> Ir {
        let b = &mut self.b;
        let all = val.parts[1..]
            .iter()
            .fold(val.parts[0], |all, &part| b.ins().band(all, part));
        let bits = b.ins().vhigh_bits(types::I32, all);
        b.ins().icmp_imm_s(IntCC::Equal, bits, 0b11)
    }

    fn host(&mut self, space: Space, address: Ir, sites: Ir, site: i32) -> Ir {
        let delta = match space {
            Space::Global => self.field(types::I64, offset_of!(Machine, delta)),
            Space::Shared => self.field(types::I64, offset_of!(Machine, shared)),
            _ => {
                let offset = site + offset_of!(Site, delta) as i32;
                self.b.ins().load(types::I64, memory(), sites, offset)
            }
        };
        self.b.ins().iadd(address, delta)
    }

    fn transfer(&mut self, access: &Access<'_>, place: &Place) {
        match access.content {
            Content::Load { scalar, dsts } => {
                for (index, dst) in dsts.iter().enumerate() {
                    if let Some((dst, width)) = *dst {
                        let offset = (index as u64 * access.bytes) as i32;
                        self.load(scalar, dst, width, offset, place);
                    }
                }
            }
            Content::Store(srcs) => {
                for (index, &src) in srcs.iter().enumerate() {
                    let offset = (index as u64 * access.bytes) as i32;
                    self.store(access.bytes, src, offset, place);
                }
            }
        }
    }

    fn load(&mut self, scalar: Scalar, dst: Reg, width: u32, offset: i32, place: &Place) {
        let bytes = scalar.bytes();
        let ty = memory_type(bytes);
        let width = if width == 0 { 64 } else { width };
        let lane = lane_bits(width);
        match place {
            Place::Stride(host, k) if !self.wide || *k == 0 && !self.is_varying(dst) => {
                let value = self.b.ins().load(ty, memory(), *host, offset);
                let val = self.extended(value, scalar, width);
                self.write(dst, val, Shape::UNIFORM);
            }
            Place::Stride(host, k) if *k == bytes as i64 && bytes >= 4 => {
                let from = bytes as u32 * 8;
                let parts = (0..part_count(from))
                    .map(|index| {
                        let at = offset + 16 * index as i32;
                        let ty = integer_type(from, true);
                        self.b.ins().load(ty, memory(), *host, at)
                    })
                    .collect();
                let val = Val { parts, lane: from };
                let val = if scalar.is_signed() && lane > from {
                    self.sign_extended(&val)
                } else {
                    val
                };
                self.write(dst, val, Shape::UNIFORM);
            }
            _ => {
                let lanes: Vec<Ir> = (0..GROUP)
                    .map(|index| {
                        let (host, offset) = self.lane_place(place, index, offset);
                        let value = self.b.ins().load(ty, memory(), host, offset);
                        self.extended(value, scalar, width).parts[0]
                    })
                    .collect();
                let val = self.assemble(&lanes, lane);
                self.write(dst, val, Shape::UNIFORM);
            }
        }
    }

    fn is_varying(&self, register: Reg) -> bool {
        self.value_shape(Value::Reg(register)) == Shape::Varying
    }

    fn lane_place(&self, place: &Place, lane: usize, offset: i32) -> (Ir, i32) {
        match place {
            // A group's reach is below 2^31.
            Place::Stride(host, k) => (*host, offset + (*k * lane as i64) as i32),
            Place::Lanes(hosts) => (hosts[lane], offset),
        }
    }

    fn store(&mut self, bytes: u64, src: Value, offset: i32, place: &Place) {
        let bits = bytes as u32 * 8;
        // A source may be wider than what is stored.
        let width = match src {
            Value::Reg(register) => lane_bits(self.register_bits(register)),
            _ => lane_bits(bits),
        };
        let val = self.operand(src, width);
        let val = self.resize(val, lane_bits(bits));
        match place {
            Place::Stride(host, k) if !self.wide || *k == 0 => {
                // Of lanes that store to one place one wins.
                let value = self.extract(&val, GROUP - 1);
                self.store_scalar(bytes, value, *host, offset);
            }
            Place::Stride(host, k) if *k == bytes as i64 && bytes >= 4 => {
                let val = self.broadcast(&val);
                for (index, &part) in val.parts.iter().enumerate() {
                    let at = offset + 16 * index as i32;
                    self.b.ins().store(memory(), part, *host, at);
                }
            }
            _ => {
                for lane in 0..GROUP {
                    let value = self.extract(&val, lane);
                    let (host, offset) = self.lane_place(place, lane, offset);
                    self.store_scalar(bytes, value, host, offset);
                }
            }
        }
    }

    fn store_scalar(&mut self, bytes: u64, value: Ir, host: Ir, offset: i32) {
        let b = &mut self.b;
        match bytes {
            1 => {
                let value = as_int(b, value);
                b.ins().istore8(memory(), value, host, offset);
            }
            2 => {
                let value = as_int(b, value);
                b.ins().istore16(memory(), value, host, offset);
            }
            _ => {
                b.ins().store(memory(), value, host, offset);
            }
        }
    }

    /// What a load makes of a scalar: extended as the type says to `width` bits, and by zeros to a lane.
    fn extended(&mut self, value: Ir, scalar: Scalar, width: u32) -> Val {
        let width = if width == 0 { 64 } else { width };
        let lane = lane_bits(width);
        let ty = integer_type(lane, false);
        let b = &mut self.b;
        let from = scalar.bytes() as u32 * 8;
        let value = if from == lane {
            value
        } else if scalar.is_signed() {
            let value = b.ins().sextend(ty, value);
            if width < lane {
                b.ins().band_imm_u(value, (1 << width) - 1)
            } else {
                value
            }
        } else {
            b.ins().uextend(ty, value)
        };
        Val::scalar(value, lane)
    }

    /// Lanes of 32 bits, extended by their sign to 64.
    pub fn sign_extended(&mut self, val: &Val) -> Val {
        let b = &mut self.b;
        let parts = val.parts.iter().flat_map(|&part| {
            let part = as_int(b, part);
            if b.func.dfg.value_type(part).is_vector() {
                vec![b.ins().swiden_low(part), b.ins().swiden_high(part)]
            } else {
                vec![b.ins().sextend(types::I64, part)]
            }
        });
        Val {
            parts: parts.collect(),
            lane: 64,
        }
    }
}

fn memory_type(bytes: u64) -> Type {
    match bytes {
        1 => types::I8,
        2 => types::I16,
        4 => types::I32,
        _ => types::I64,
    }
}
