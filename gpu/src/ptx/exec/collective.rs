//! Instructions in which lanes see each other's values.

use super::integer;
use super::lanes::{Lanes, WARP, lanes_of, mask_of, signed};
use super::step::Step;
use crate::ptx::ir::{Op, ShflMode, Value, VoteMode};

/// The lanes that have to be there, for an instruction that waits for them.
pub fn members(op: &Op) -> Option<Value> {
    match op {
        Op::Shfl { members, .. }
        | Op::Vote { members, .. }
        | Op::Match { members, .. }
        | Op::Redux { members, .. }
        | Op::WarpSync { members } => Some(*members),
        _ => None,
    }
}

/// Parts lanes by the members that they name: lanes that name the same ones, and those.
pub fn groups(active: u32, members: &Lanes) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = active;
    std::iter::from_fn(move || {
        let named = members[lanes_of(rest).next()?] as u32;
        let group = rest & mask_of(|lane| members[lane] as u32 == named);
        rest &= !group;
        Some((group, named))
    })
}

/// Executes an instruction for active lanes that name the same members.
pub fn execute(step: &mut Step<'_, '_, '_>, op: &Op) {
    let active = step.active;
    match op {
        Op::Shfl {
            mode,
            dst,
            pred,
            a,
            b,
            c,
            ..
        } => {
            let (a, b, c) = (step.value(*a), step.value(*b), step.value(*c));
            let (values, valid) = shuffle(*mode, &a, &b, &c);
            step.frame.set(*dst, active, &values);
            if let Some(pred) = pred {
                step.frame.set_pred(*pred, active, valid);
            }
        }
        Op::Vote {
            mode, dst, pred, ..
        } => {
            let holding = step.frame.pred(*pred) & active;
            let all = |truth: bool| if truth { u32::MAX } else { 0 };
            match mode {
                VoteMode::Ballot => step.frame.set(*dst, active, &[holding.into(); WARP]),
                VoteMode::All => step.frame.set_pred(*dst, active, all(holding == active)),
                VoteMode::Any => step.frame.set_pred(*dst, active, all(holding != 0)),
                VoteMode::Uni => {
                    let uniform = holding == active || holding == 0;
                    step.frame.set_pred(*dst, active, all(uniform));
                }
            }
        }
        Op::Match {
            all, dst, pred, a, ..
        } => {
            let a = step.value(*a);
            let equal = |lane: usize| {
                lanes_of(active)
                    .filter(|&other| a[other] == a[lane])
                    .fold(0u32, |mask, other| mask | 1 << other)
            };
            let first = equal(active.trailing_zeros() as usize) == active;
            for lane in lanes_of(active) {
                let mask = match (all, first) {
                    (false, _) => equal(lane),
                    (true, true) => active,
                    (true, false) => 0,
                };
                step.frame.set_lane(*dst, lane, mask.into());
            }
            if let Some(pred) = pred {
                step.frame
                    .set_pred(*pred, active, if first { u32::MAX } else { 0 });
            }
        }
        Op::Redux {
            op, signed, dst, a, ..
        } => {
            let a = step.value(*a);
            let result = lanes_of(active)
                .map(|lane| a[lane])
                .reduce(|x, y| integer::atomic(*op, 32, *signed, x, y, 0))
                .unwrap_or_default();
            step.frame.set(*dst, active, &[result; WARP]);
        }
        Op::ActiveMask { dst } => step.frame.set(*dst, active, &[active.into(); WARP]),
        _ => {}
    }
}

/// `shfl` (PTX ISA 9.7.8.6): values, and the lanes whose source lies within their segment.
fn shuffle(mode: ShflMode, a: &Lanes, b: &Lanes, c: &Lanes) -> (Lanes, u32) {
    let mut valid = 0;
    let values = std::array::from_fn(|lane| {
        let own = lane as i64;
        let b = (b[lane] & 0x1f) as i64;
        let clamp = (c[lane] & 0x1f) as i64;
        let segment = signed(c[lane] >> 8 & 0x1f, 6);
        let most = own & segment | clamp & !segment;
        let least = own & segment;
        let (source, inside) = match mode {
            ShflMode::Up => (own - b, own - b >= most),
            ShflMode::Down => (own + b, own + b <= most),
            ShflMode::Bfly => (own ^ b, (own ^ b) <= most),
            ShflMode::Idx => {
                let source = least | b & !segment;
                (source, source <= most)
            }
        };
        valid |= u32::from(inside) << lane;
        a[if inside {
            (source & 0x1f) as usize
        } else {
            lane
        }]
    });
    (values, valid)
}
