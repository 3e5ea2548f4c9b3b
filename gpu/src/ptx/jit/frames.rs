//! What the variables of a block's threads hold between pieces of compiled code.

use super::effects::Var;
use super::plan::{Plan, SLOT_WORDS};
use super::shape::{GROUP, Shape};
use crate::ptx::float::Format;
use crate::ptx::ir::Function;

/// The frames of a block's groups, one after the other: for each variable its lanes.
#[derive(Debug)]
pub struct Frames<'a> {
    plan: &'a Plan,
    function: &'a Function,
    words: Vec<u32>,
}

impl<'a> Frames<'a> {
    pub fn new(plan: &'a Plan, function: &'a Function, groups: usize) -> Self {
        Self {
            plan,
            function,
            words: vec![0; groups * plan.slot_count * SLOT_WORDS],
        }
    }

    pub fn as_mut_ptr(&mut self) -> *mut u32 {
        self.words.as_mut_ptr()
    }

    /// The words of a variable's lane: one, or two for 64 bits.
    fn place(&self, thread: usize, var: Var) -> Option<(usize, bool)> {
        let slot = self.plan.slots[var]?;
        let start = (thread / GROUP * self.plan.slot_count + slot) * SLOT_WORDS;
        let wide = self.plan.lane_bits(self.function, var) == 64;
        let lane = thread % GROUP;
        Some((start + if wide { 2 * lane } else { lane }, wide))
    }

    /// A thread's variable; a predicate is 0 or 1.
    pub fn get(&self, thread: usize, var: Var) -> u64 {
        let Some((place, wide)) = self.place(thread, var) else {
            return 0;
        };
        let low = u64::from(self.words[place]);
        let Some(register) = self.plan.vars.as_register(var) else {
            return low & 1;
        };
        let value = if wide {
            low | u64::from(self.words[place + 1]) << 32
        } else {
            low
        };
        let format = if wide { Format::F64 } else { Format::F32 };
        if self.plan.raw[register as usize] && format.is_nan(value) {
            format.nan
        } else {
            value
        }
    }

    pub fn set(&mut self, thread: usize, var: Var, value: u64) {
        let Some((place, wide)) = self.place(thread, var) else {
            return;
        };
        if self.plan.vars.as_register(var).is_none() {
            self.words[place] = 0u32.wrapping_sub(value as u32 & 1);
            return;
        }
        self.words[place] = value as u32;
        if wide {
            self.words[place + 1] = (value >> 32) as u32;
        }
    }

    /// Whether the live variables of a group have the shapes that its code at an entry counts on.
    pub fn hold(&self, group: usize, entry: usize) -> bool {
        let live = self.plan.live.get(&entry).map_or(&[][..], Vec::as_slice);
        live.iter().all(|&var| {
            let Shape::Stride(stride) = self.plan.shapes.var(var) else {
                return true;
            };
            let wide = self.plan.lane_bits(self.function, var) == 64;
            let first = self.get(group * GROUP, var);
            (1..GROUP).all(|lane| {
                let expected = first.wrapping_add_signed(stride * lane as i64);
                let expected = if wide {
                    expected
                } else {
                    u64::from(expected as u32)
                };
                self.get(group * GROUP + lane, var) == expected
            })
        })
    }
}
