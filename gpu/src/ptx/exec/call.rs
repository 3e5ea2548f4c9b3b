//! Calls, returns and exits: how lanes come into frames and out of them.

use super::frame::{Caller, Frame};
use super::lanes::{lanes_of, low};
use super::launch::Launch;
use super::memory::Spaces;
use super::step::{Step, Target};
use super::warp::{Split, Warp, put};
use crate::Fault;
use crate::ptx::ir::{Argument, Op, Parameter, Value};
use crate::ptx::lower::FUNCTION_BASE;

/// Bytes that the frames of a warp may cost the host: what bounds recursion beside local memory.
const MAX_FRAME_BYTES: usize = 8 << 20;

impl Warp {
    /// Lanes at a `ret`: they wait for the others of their function, if any part of it is shared.
    pub(super) fn leave_function(&mut self, launch: &Launch<'_>, mut split: Split) {
        let frame = split.frame;
        let mask = split.mask;
        split.join = self.withdraw(launch, split.join, mask, |join| {
            join.frame != frame || join.pc.is_none()
        });
        match split.join {
            Some(join) if self.meets(join, frame, None) => self.arrive(launch, join, mask),
            _ => self.return_from(launch, split),
        }
    }

    pub(super) fn return_from(&mut self, launch: &Launch<'_>, split: Split) {
        let Some(frame) = self.frames[split.frame].as_mut() else {
            return;
        };
        let Some(caller) = frame.caller else {
            self.exit(launch, split);
            return;
        };
        frame.live &= !split.mask;
        let left = frame.live == 0;
        self.copy_results(launch, &split, caller);
        if left {
            self.drop_frame(split.frame);
        }
        self.ready.push_front(Split {
            pc: caller.pc,
            frame: caller.frame,
            ..split
        });
    }

    fn copy_results(&mut self, launch: &Launch<'_>, split: &Split, caller: Caller) {
        let Some(mut target) = self.frames[caller.frame].take() else {
            return;
        };
        if let Some(source) = &self.frames[split.frame] {
            let call = &launch.program.functions[target.function].code[caller.pc - 1];
            if let Op::Call { returns, .. } = &call.op {
                let from = &launch.program.functions[source.function].returns;
                for (to, from) in returns.iter().zip(from) {
                    match (*to, *from) {
                        (Argument::Value(Value::Reg(reg)), Parameter::Reg(result)) => {
                            target.set(reg, split.mask, source.reg(result));
                        }
                        (
                            Argument::Memory { offset, bytes },
                            Parameter::Memory {
                                offset: from,
                                bytes: size,
                            },
                        ) => {
                            for lane in lanes_of(split.mask) {
                                let (from, to) = (source.local + from, target.local + offset);
                                self.local.copy(lane, from, to, bytes.min(size));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.frames[caller.frame] = Some(target);
    }

    fn drop_frame(&mut self, index: usize) {
        if let Some(frame) = self.frames[index].take() {
            self.frame_bytes = self.frame_bytes.saturating_sub(frame.host_bytes());
        }
    }

    /// Lanes end.
    pub(super) fn exit(&mut self, launch: &Launch<'_>, split: Split) {
        self.alive &= !split.mask;
        let mut next = Some(split.frame);
        while let Some(index) = next {
            let Some(frame) = &mut self.frames[index] else {
                break;
            };
            frame.live &= !split.mask;
            next = frame.caller.map(|caller| caller.frame);
            if frame.live == 0 {
                self.drop_frame(index);
            }
        }
        self.withdraw(launch, split.join, split.mask, |_| false);
    }

    pub(super) fn call(
        &mut self,
        launch: &Launch<'_>,
        spaces: &mut Spaces<'_>,
        split: Split,
        op: &Op,
    ) -> Result<Split, Fault> {
        let Op::Call { callee, args, .. } = op else {
            return Ok(split);
        };
        let Some(frame) = self.frames[split.frame].as_mut() else {
            return Ok(split);
        };
        let mut step = Step {
            launch,
            identity: &self.identity,
            frame,
            local: &mut self.local,
            spaces,
            active: split.mask,
        };
        let target = match step.resolve_callee(*callee, op)? {
            Target::Function(index) => index,
            Target::Done => {
                return Ok(Split {
                    pc: split.pc + 1,
                    ..split
                });
            }
            Target::Several(address) => {
                // Lanes call different functions: those that call the first one go, the others try again.
                let address = &address;
                let first = address[split.mask.trailing_zeros() as usize];
                let mask = lanes_of(split.mask)
                    .filter(|&lane| address[lane] == first)
                    .fold(0, |mask, lane| mask | 1 << lane);
                let join = Some(self.join_at(&split, Some(split.pc + 1)));
                let rest = split.mask & !mask;
                self.ready.push_front(Split {
                    mask: rest,
                    join,
                    ..split
                });
                return Ok(Split {
                    mask,
                    join,
                    ..split
                });
            }
        };
        let function = &launch.program.functions[target];
        let mut inner = Frame::new(target, function, step.frame.local_end, split.mask);
        step.local.grow(inner.local_end)?;
        if args.len() != function.params.len() {
            return Err(Fault::IllegalInstruction(
                "a call with another number of arguments",
            ));
        }
        for (arg, param) in args.iter().zip(&function.params) {
            match (*arg, *param) {
                (Argument::Value(value), Parameter::Reg(reg)) => {
                    let values = step.identity.value(launch, step.frame, value);
                    inner.set(reg, split.mask, &values);
                }
                (
                    Argument::Memory { offset, bytes },
                    Parameter::Memory {
                        offset: to,
                        bytes: size,
                    },
                ) => {
                    for lane in lanes_of(split.mask) {
                        let (from, to) = (step.frame.local + offset, inner.local + to);
                        step.local.copy(lane, from, to, bytes.min(size));
                    }
                }
                (Argument::Value(value), Parameter::Memory { offset, bytes }) => {
                    let values = step.identity.value(launch, step.frame, value);
                    for lane in lanes_of(split.mask) {
                        let bytes = bytes.min(8);
                        let bits = low(values[lane], bytes as u32 * 8);
                        step.store_local(lane, inner.local + offset, bytes, bits)?;
                    }
                }
                (Argument::Memory { .. }, Parameter::Reg(_)) => {
                    return Err(Fault::IllegalInstruction(
                        "a call with other kinds of arguments",
                    ));
                }
            }
        }
        inner.caller = Some(Caller {
            frame: split.frame,
            pc: split.pc + 1,
        });
        self.frame_bytes += inner.host_bytes();
        if self.frame_bytes > MAX_FRAME_BYTES {
            return Err(Fault::StackOverflow);
        }
        Ok(Split {
            pc: 0,
            frame: put(&mut self.frames, inner),
            ..split
        })
    }

    /// Indirect calls go to function addresses.
    pub(super) fn function_at(launch: &Launch<'_>, address: u64) -> Result<usize, Fault> {
        address
            .checked_sub(FUNCTION_BASE)
            .and_then(|index| usize::try_from(index).ok())
            .filter(|&index| index < launch.program.functions.len())
            .ok_or(Fault::InvalidProgramCounter(address))
    }
}
