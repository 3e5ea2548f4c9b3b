//! One instruction for the active lanes of a split: everything that is not control flow.

use super::frame::{Frame, Identity};
use super::lanes::{Lanes, WARP, lanes_of, low, map1, map2, signed};
use super::launch::Launch;
use super::memory::{LocalMemory, Spaces, lies_in, window};
use super::warp::Warp;
use super::{collective, float, integer, printf};
use crate::Fault;
use crate::ptx::ir::{Address, Argument, BoolOp, Callee, Compare, Op, PredValue, Space, Value};
use crate::ptx::syntax::Scalar;

/// Longest format or string that `vprintf` reads, and longest assertion text.
const MAX_STRING: usize = 4096;

pub struct Step<'s, 'l, 'm> {
    pub launch: &'s Launch<'l>,
    pub identity: &'s Identity,
    pub frame: &'s mut Frame,
    pub local: &'s mut LocalMemory,
    pub spaces: &'s mut Spaces<'m>,
    pub active: u32,
}

/// Where a call goes.
pub enum Target {
    Function(usize),
    /// A function of the system, which has been executed.
    Done,
    /// The lanes call several functions.
    Several(Box<Lanes>),
}

impl Step<'_, '_, '_> {
    pub fn value(&self, value: Value) -> Lanes {
        self.identity.value(self.launch, self.frame, value)
    }

    fn set(&mut self, dst: u32, values: &Lanes) {
        self.frame.set(dst, self.active, values);
    }

    fn set_pred(&mut self, dst: u32, mask: u32) {
        self.frame.set_pred(dst, self.active, mask);
    }

    pub fn execute(&mut self, op: &Op) -> Result<(), Fault> {
        match op {
            Op::Mov { dst, src } => {
                let values = self.value(*src);
                self.set(*dst, &values);
            }
            Op::Int {
                op,
                bits,
                signed,
                dst,
                args,
            } => {
                let args = args.map(|arg| self.value(arg));
                let result = integer::evaluate(*op, *bits, *signed, &args);
                self.set(*dst, &result);
            }
            Op::IntHalves {
                op,
                signed,
                dst,
                a,
                b,
            } => {
                let result = integer::halves(*op, *signed, &self.value(*a), &self.value(*b));
                self.set(*dst, &result);
            }
            Op::Carry {
                op,
                bits,
                signed,
                carry_in,
                carry_out,
                dst,
                args,
            } => {
                let args = args.map(|arg| self.value(arg));
                let carry = if *carry_in { self.frame.carry } else { 0 };
                let (result, carry) = integer::carry(*op, *bits, *signed, carry, &args);
                self.set(*dst, &result);
                if *carry_out {
                    self.frame.carry = self.frame.carry & !self.active | carry & self.active;
                }
            }
            Op::Float {
                op,
                ty,
                mods,
                dst,
                args,
            } => {
                let args = args.map(|arg| self.value(arg));
                let result = float::evaluate(*op, *ty, mods, &args);
                self.set(*dst, &result);
            }
            Op::Convert { convert, dst, src } => {
                let result = float::convert(convert, &self.value(*src));
                self.set(*dst, &result);
            }
            Op::ConvertPair {
                convert,
                dst,
                high,
                low,
            } => {
                let high = float::convert(convert, &self.value(*high));
                let low = float::convert(convert, &self.value(*low));
                self.set(*dst, &map2(&high, &low, |high, low| high << 16 | low));
            }
            Op::Load {
                space,
                scalar,
                dsts,
                address,
            } => self.load(*space, *scalar, dsts, *address)?,
            Op::Store {
                space,
                bytes,
                srcs,
                address,
            } => self.store(*space, *bytes, srcs, *address)?,
            Op::Atom {
                space,
                op,
                ty,
                dst,
                address,
                b,
                c,
            } => {
                let at = self.addresses(*address);
                let (b, c) = (self.value(*b), self.value(*c));
                for lane in lanes_of(self.active) {
                    let old = self
                        .spaces
                        .atomic(*space, at[lane], *op, *ty, b[lane], c[lane])?;
                    if let Some(dst) = dst {
                        self.frame.set_lane(*dst, lane, old);
                    }
                }
            }
            Op::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
            Op::Cvta {
                dst,
                space,
                to_space,
                a,
            } => {
                let base = window(*space);
                let convert = |a: u64| {
                    if *to_space {
                        a.wrapping_sub(base)
                    } else {
                        a.wrapping_add(base)
                    }
                };
                let result = map1(&self.value(*a), convert);
                self.set(*dst, &result);
            }
            Op::IsSpace { dst, space, a } => {
                let a = self.value(*a);
                let mask = super::lanes::mask_of(|lane| lies_in(*space, a[lane]));
                self.set_pred(*dst, mask);
            }
            Op::Nop
            | Op::WarpSync { .. }
            | Op::Bra { .. }
            | Op::BrxIdx { .. }
            | Op::Call { .. }
            | Op::Ret
            | Op::Exit
            | Op::Trap
            | Op::Bar { .. } => {}
            Op::Shfl { .. }
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Redux { .. }
            | Op::ActiveMask { .. } => collective::execute(self, op),
            _ => self.select(op),
        }
        Ok(())
    }

    /// Predicates, selections and elements of vectors.
    fn select(&mut self, op: &Op) {
        match op {
            Op::MovPred { dst, src } => self.set_pred(*dst, self.frame.pred(*src)),
            Op::LogicPred { op, dst, a, b } => {
                let mask = float::combine(*op, self.frame.pred(*a), self.frame.pred(*b));
                self.set_pred(*dst, mask);
            }
            Op::Setp {
                compare,
                ty,
                ftz,
                combine,
                dst,
                dst2,
                a,
                b,
            } => {
                let (first, second) = self.compare(*compare, *ty, *ftz, *combine, *a, *b);
                for (dst, mask) in [(dst, first), (dst2, second)] {
                    if let Some(dst) = dst {
                        self.set_pred(*dst, mask);
                    }
                }
            }
            Op::Set {
                compare,
                ty,
                ftz,
                combine,
                result,
                dst,
                a,
                b,
            } => {
                let (mask, _) = self.compare(*compare, *ty, *ftz, *combine, *a, *b);
                let truth = float::truth(*result);
                let values = choose(mask, &[truth; WARP], &[0; WARP]);
                self.set(*dst, &values);
            }
            Op::Testp { class, ty, dst, a } => {
                let mask = float::classify(*class, *ty, &self.value(*a));
                self.set_pred(*dst, mask);
            }
            Op::Selp { dst, a, b, pred } => {
                let values = choose(self.frame.pred(*pred), &self.value(*a), &self.value(*b));
                self.set(*dst, &values);
            }
            Op::Slct {
                float,
                ftz,
                dst,
                a,
                b,
                c,
            } => {
                let c = self.value(*c);
                let flush = |bits| {
                    if *ftz {
                        crate::ptx::float::Format::F32.flush(bits)
                    } else {
                        bits
                    }
                };
                let mask = super::lanes::mask_of(|lane| {
                    float::at_least_zero(*float, if *float { flush(c[lane]) } else { c[lane] })
                });
                let values = choose(mask, &self.value(*a), &self.value(*b));
                self.set(*dst, &values);
            }
            Op::Pack { dst, bits, srcs } => {
                let mut values = [0; WARP];
                for (index, src) in srcs.iter().enumerate() {
                    let shift = bits * index as u32;
                    values = map2(&values, &self.value(*src), |all, part| all | part << shift);
                }
                self.set(*dst, &values);
            }
            Op::Unpack { dsts, bits, src } => {
                let src = self.value(*src);
                for (index, dst) in dsts.iter().enumerate() {
                    if let Some(dst) = dst {
                        let part = map1(&src, |all| low(all >> (bits * index as u32), *bits));
                        self.set(*dst, &part);
                    }
                }
            }
            _ => {}
        }
    }

    /// The result of a comparison and its complement, or the results of both halves.
    fn compare(
        &self,
        compare: Compare,
        ty: Scalar,
        ftz: bool,
        combine: Option<(BoolOp, PredValue)>,
        a: Value,
        b: Value,
    ) -> (u32, u32) {
        let (a, b) = (self.value(a), self.value(b));
        let (first, second) = match float::packed_format(ty) {
            Some(format) => float::compare_halves(compare, format, ftz, &a, &b),
            None => {
                let mask = float::compare(compare, ty, ftz, &a, &b);
                (mask, !mask)
            }
        };
        match combine {
            None => (first, second),
            Some((op, pred)) => {
                let pred = self.frame.pred(pred);
                let with = |mask| float::combine(op, mask, pred);
                (with(first), with(second))
            }
        }
    }

    fn addresses(&self, address: Address) -> Lanes {
        map1(&self.value(address.base), |base| {
            base.wrapping_add_signed(address.offset)
        })
    }

    /// A vector lies at a multiple of its whole size (PTX ISA 5.4.5).
    fn check_vector(&self, at: &Lanes, bytes: u64) -> Result<(), Fault> {
        match lanes_of(self.active).find(|&lane| !at[lane].is_multiple_of(bytes)) {
            Some(lane) => Err(Fault::Misaligned {
                address: at[lane],
                bytes,
            }),
            None => Ok(()),
        }
    }

    fn load(
        &mut self,
        space: Space,
        scalar: Scalar,
        dsts: &[Option<(u32, u32)>],
        address: Address,
    ) -> Result<(), Fault> {
        let at = self.addresses(address);
        let bytes = scalar.bytes();
        self.check_vector(&at, bytes * dsts.len() as u64)?;
        for (index, dst) in dsts.iter().enumerate() {
            for lane in lanes_of(self.active) {
                let at = at[lane].wrapping_add(index as u64 * bytes);
                let value = self
                    .spaces
                    .load(self.local.thread(lane), space, at, bytes)?;
                if let Some((dst, width)) = *dst {
                    let value = if scalar.is_signed() {
                        low(signed(value, bytes as u32 * 8) as u64, width)
                    } else {
                        value
                    };
                    self.frame.set_lane(dst, lane, value);
                }
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        space: Space,
        bytes: u64,
        srcs: &[Value],
        address: Address,
    ) -> Result<(), Fault> {
        let at = self.addresses(address);
        self.check_vector(&at, bytes * srcs.len() as u64)?;
        for (index, src) in srcs.iter().enumerate() {
            let values = self.value(*src);
            for lane in lanes_of(self.active) {
                let at = at[lane].wrapping_add(index as u64 * bytes);
                let local = self.local.thread(lane);
                self.spaces.store(local, space, at, bytes, values[lane])?;
            }
        }
        Ok(())
    }

    pub fn store_local(
        &mut self,
        lane: usize,
        at: u64,
        bytes: u64,
        value: u64,
    ) -> Result<(), Fault> {
        let local = self.local.thread(lane);
        self.spaces.store(local, Space::Local, at, bytes, value)
    }

    pub fn resolve_callee(&mut self, callee: Callee, op: &Op) -> Result<Target, Fault> {
        let Op::Call { args, returns, .. } = op else {
            return Ok(Target::Done);
        };
        match callee {
            Callee::Direct(index) => Ok(Target::Function(index)),
            Callee::Indirect(value) => {
                let address = self.value(value);
                let first = address[self.active.trailing_zeros() as usize];
                if lanes_of(self.active).any(|lane| address[lane] != first) {
                    return Ok(Target::Several(Box::new(address)));
                }
                Warp::function_at(self.launch, first).map(Target::Function)
            }
            Callee::Vprintf => {
                for lane in lanes_of(self.active) {
                    let printed = self.print(lane, args)?;
                    match returns.first() {
                        Some(&Argument::Value(Value::Reg(reg))) => {
                            self.frame.set_lane(reg, lane, printed);
                        }
                        Some(&Argument::Memory { offset, bytes: 4 }) => {
                            self.store_local(lane, self.frame.local + offset, 4, printed)?;
                        }
                        _ => {}
                    }
                }
                Ok(Target::Done)
            }
            Callee::AssertFail => Err(self.assertion(args)?),
        }
    }

    /// Argument `index` of a call, for one lane.
    fn argument(&mut self, lane: usize, args: &[Argument], index: usize) -> Result<u64, Fault> {
        match args.get(index) {
            Some(&Argument::Value(value)) => Ok(self.value(value)[lane]),
            Some(&Argument::Memory {
                offset,
                bytes: bytes @ (1 | 2 | 4 | 8),
            }) => {
                let at = self.frame.local + offset;
                self.spaces
                    .load(self.local.thread(lane), Space::Local, at, bytes)
            }
            _ => Err(Fault::IllegalInstruction("a call with other arguments")),
        }
    }

    /// `vprintf(format, arguments)`: the number of characters, as a 32-bit number.
    fn print(&mut self, lane: usize, args: &[Argument]) -> Result<u64, Fault> {
        let format = self.argument(lane, args, 0)?;
        let buffer = self.argument(lane, args, 1)?;
        let spaces = &*self.spaces;
        let local = &*self.local.thread(lane);
        let format = spaces.string(local, format, MAX_STRING)?;
        let text = printf::format(
            &format,
            |at, bytes| spaces.load(local, Space::Generic, buffer.wrapping_add(at), bytes),
            |address| spaces.string(local, address, MAX_STRING),
        )?;
        let mut output = super::lock(self.launch.output);
        if output.len() + text.len() <= self.launch.output_limit {
            output.extend_from_slice(&text);
        }
        Ok(text.len() as u64)
    }

    /// `__assertfail(message, file, line, function, size)`.
    fn assertion(&mut self, args: &[Argument]) -> Result<Fault, Fault> {
        let lane = self.active.trailing_zeros() as usize;
        let mut texts = Vec::new();
        for index in [0, 1, 3] {
            let address = self.argument(lane, args, index)?;
            let text = self
                .spaces
                .string(self.local.thread(lane), address, MAX_STRING)?;
            texts.push(String::from_utf8_lossy(&text).into_owned());
        }
        let line = self.argument(lane, args, 2)?;
        let [message, file, function] = &texts[..] else {
            return Ok(Fault::Assert(String::new()));
        };
        Ok(Fault::Assert(format!(
            "{message}, {file}:{line}, {function}"
        )))
    }
}

/// `a` in the lanes of `mask`, `b` in the others.
fn choose(mask: u32, a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| {
        if mask >> lane & 1 != 0 {
            a[lane]
        } else {
            b[lane]
        }
    })
}
