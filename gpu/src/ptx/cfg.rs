//! Where lanes that part at a branch meet again: immediate post-dominators.

use super::ir::{Inst, Op, PredValue};

/// Sets `rejoin` of every branch to the first instruction that all its ways lead through.
///
/// The blocks' post-dominators are found by the usual fixpoint over the reversed graph (Cooper, Harvey and
/// Kennedy). Leaving the function or the kernel leads to one virtual end.
pub fn set_rejoin_points(code: &mut [Inst]) {
    let graph = Graph::new(code);
    let dominators = graph.post_dominators();
    for (block, &(_, end)) in graph.blocks.iter().enumerate() {
        let Some(last) = end.checked_sub(1).and_then(|last| code.get_mut(last)) else {
            continue;
        };
        if matches!(last.op, Op::Bra { .. } | Op::BrxIdx { .. }) {
            last.rejoin = dominators[block]
                .and_then(|dominator| graph.blocks.get(dominator))
                .map(|&(start, _)| start);
        }
    }
}

struct Graph {
    /// First instruction and the one after the last of each block.
    blocks: Vec<(usize, usize)>,
    successors: Vec<Vec<usize>>,
}

impl Graph {
    fn new(code: &[Inst]) -> Self {
        let mut leader = vec![false; code.len() + 1];
        leader[0] = true;
        for (pc, inst) in code.iter().enumerate() {
            for target in targets(inst) {
                leader[target] = true;
            }
            if ends_block(inst) {
                leader[pc + 1] = true;
            }
        }
        let starts: Vec<usize> = (0..code.len()).filter(|&pc| leader[pc]).collect();
        let mut block_of = vec![starts.len(); code.len() + 1];
        let mut blocks = Vec::with_capacity(starts.len());
        for (index, &start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(code.len());
            block_of[start] = index;
            blocks.push((start, end));
        }
        let successors = blocks
            .iter()
            .map(|&(_, end)| {
                let last = &code[end - 1];
                let mut next: Vec<usize> = targets(last).map(|pc| block_of[pc]).collect();
                let always = last.guard == PredValue::Const(true);
                let leaves = matches!(
                    last.op,
                    Op::Bra { .. } | Op::BrxIdx { .. } | Op::Ret | Op::Exit | Op::Trap
                );
                if !(always && leaves) {
                    next.push(block_of[end]);
                }
                if matches!(last.op, Op::Ret) || next.is_empty() {
                    next.push(blocks.len());
                }
                next
            })
            .collect();
        Self { blocks, successors }
    }

    /// The immediate post-dominator of each block; `blocks.len()` is the virtual end, `None` a block from
    /// which the end is not reached.
    fn post_dominators(&self) -> Vec<Option<usize>> {
        let end = self.blocks.len();
        let mut predecessors = vec![Vec::new(); end + 1];
        for (block, successors) in self.successors.iter().enumerate() {
            for &successor in successors {
                predecessors[successor].push(block);
            }
        }
        // Post-order of the reversed graph, from the end.
        let mut order = vec![None; end + 1];
        let mut visited = vec![false; end + 1];
        let mut sequence = Vec::with_capacity(end + 1);
        let mut stack = vec![(end, 0)];
        visited[end] = true;
        while let Some((block, next)) = stack.pop() {
            if let Some(&predecessor) = predecessors[block].get(next) {
                stack.push((block, next + 1));
                if !visited[predecessor] {
                    visited[predecessor] = true;
                    stack.push((predecessor, 0));
                }
            } else {
                order[block] = Some(sequence.len());
                sequence.push(block);
            }
        }
        let mut dominator = vec![None; end + 1];
        dominator[end] = Some(end);
        let mut changed = true;
        while changed {
            changed = false;
            for &block in sequence.iter().rev().filter(|&&block| block != end) {
                let found = self.successors[block]
                    .iter()
                    .filter(|&&successor| dominator[successor].is_some())
                    .copied()
                    .reduce(|a, b| common(a, b, &dominator, &order));
                if found.is_some() && dominator[block] != found {
                    dominator[block] = found;
                    changed = true;
                }
            }
        }
        dominator
    }
}

/// The nearest block that post-dominates both.
fn common(
    mut a: usize,
    mut b: usize,
    dominator: &[Option<usize>],
    order: &[Option<usize>],
) -> usize {
    while a != b {
        let lower = if order[a] < order[b] { &mut a } else { &mut b };
        match dominator[*lower] {
            Some(next) => *lower = next,
            None => break,
        }
    }
    a
}

fn targets(inst: &Inst) -> impl Iterator<Item = usize> + '_ {
    match &inst.op {
        Op::Bra { target } => std::slice::from_ref(target),
        Op::BrxIdx { targets, .. } => targets,
        _ => &[],
    }
    .iter()
    .copied()
}

fn ends_block(inst: &Inst) -> bool {
    matches!(
        inst.op,
        Op::Bra { .. } | Op::BrxIdx { .. } | Op::Ret | Op::Exit | Op::Trap
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inst(op: Op, guarded: bool) -> Inst {
        Inst {
            guard: if guarded {
                PredValue::Reg {
                    index: 0,
                    negated: false,
                }
            } else {
                PredValue::Const(true)
            },
            op,
            line: 0,
            rejoin: None,
        }
    }

    fn rejoin(mut code: Vec<Inst>) -> Vec<Option<usize>> {
        set_rejoin_points(&mut code);
        code.iter().map(|inst| inst.rejoin).collect()
    }

    #[test]
    fn both_ways_of_an_if_meet_after_it() {
        let code = vec![
            inst(Op::Bra { target: 3 }, true),
            inst(Op::Nop, false),
            inst(Op::Bra { target: 4 }, false),
            inst(Op::Nop, false),
            inst(Op::Ret, false),
        ];
        assert_eq!(rejoin(code), [Some(4), None, Some(4), None, None]);
    }

    #[test]
    fn lanes_that_leave_a_loop_wait_behind_it() {
        let code = vec![
            inst(Op::Nop, false),
            inst(Op::Bra { target: 0 }, true),
            inst(Op::Ret, false),
        ];
        assert_eq!(rejoin(code)[1], Some(2));
    }

    #[test]
    fn an_early_return_leaves_only_the_end() {
        let code = vec![
            inst(Op::Bra { target: 2 }, true),
            inst(Op::Ret, false),
            inst(Op::Nop, false),
            inst(Op::Ret, false),
        ];
        assert_eq!(rejoin(code)[0], None);
    }

    #[test]
    fn an_endless_loop_has_no_meeting_point() {
        let code = vec![
            inst(Op::Bra { target: 2 }, true),
            inst(Op::Bra { target: 0 }, false),
            inst(Op::Bra { target: 1 }, false),
        ];
        assert_eq!(rejoin(code), [None, None, None]);
    }
}
