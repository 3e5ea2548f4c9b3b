//! Where a program's pages would live: node 0 is local memory, node `n` the host's `n`-th expander.
//!
//! The machine that `memsim` runs on has no expanders, so placement is decided here, by the policy
//! that an operating system would have used, at the moment a page is first seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::Error;

/// Number of a node: 0 is local memory.
pub type Node = usize;

/// How pages find their node.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// The first node, from local memory on, that has room.
    FirstTouch,
    /// Round robin by page number, each node as often as its weight says; local memory first.
    /// Nodes without a weight get none.
    Interleave(Vec<u32>),
    /// First touch, and a page that was seen this often moves to local memory. Where that is full
    /// it changes places with the local page that has been seen least.
    Promote(u32),
}

/// What tells one page from another: whose it is, and its number in pages of the chosen size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Page {
    /// Process, or host in a replayed trace.
    pub space: u32,
    /// Address divided by the page size.
    pub number: u64,
}

/// All pages that were seen, and where they are.
#[derive(Debug, Clone)]
pub struct Placement {
    policy: Policy,
    page_bytes: u64,
    /// Pages that each node still has room for.
    room: Vec<u64>,
    /// Runs of pages on one node: first page -> (number of pages, node).
    runs: BTreeMap<Page, (u64, Node)>,
    /// How often pages were seen.
    heat: HashMap<Page, u32>,
    /// Of those the local ones, the coolest first.
    local: BTreeSet<(u32, Page)>,
    /// Pages that are local, seen or not.
    local_pages: u64,
    moved: Vec<(u64, u64)>,
}

impl Placement {
    /// No pages yet. `capacity` is in bytes, local memory first; `page_bytes` a power of two.
    ///
    /// # Errors
    /// [`Error::Value`] when no page can be placed.
    pub fn new(policy: Policy, page_bytes: u64, capacity: &[u64]) -> Result<Self, Error> {
        let fail = |what, reason: &str| {
            Err(Error::Value {
                what,
                reason: reason.into(),
            })
        };
        if !page_bytes.is_power_of_two() {
            return fail("page size", "must be a power of two");
        }
        let room: Vec<u64> = capacity.iter().map(|bytes| bytes / page_bytes).collect();
        if room.iter().all(|&pages| pages == 0) {
            return fail("capacity", "no node has room for a single page");
        }
        if let Policy::Interleave(weights) = &policy {
            if weights.len() > room.len() {
                return fail(
                    "interleave weights",
                    "there are more weights than nodes (local memory counts)",
                );
            }
            if weights.iter().all(|&weight| weight == 0) {
                return fail("interleave weights", "at least one must be above zero");
            }
        }
        Ok(Self {
            policy,
            page_bytes,
            room,
            runs: BTreeMap::new(),
            heat: HashMap::new(),
            local: BTreeSet::new(),
            local_pages: 0,
            moved: vec![(0, 0); capacity.len()],
        })
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// The page that an address of a space is in.
    pub fn page(&self, space: u32, address: u64) -> Page {
        Page {
            space,
            number: address / self.page_bytes,
        }
    }

    /// Node of a page that was seen before.
    pub fn find(&self, page: Page) -> Option<Node> {
        let (first, (count, node)) = self.runs.range(..=page).next_back()?;
        (first.space == page.space && page.number - first.number < *count).then_some(*node)
    }

    /// Node of a page; places it if it is new.
    pub fn touch(&mut self, page: Page) -> Node {
        let node = match self.find(page) {
            Some(node) => node,
            None => self.place(page),
        };
        let Policy::Promote(after) = self.policy else {
            return node;
        };
        let heat = self.warm(page, node);
        if node == 0 || heat < after || !self.make_room(heat, node) {
            return node;
        }
        self.relocate(page, node, 0);
        0
    }

    /// For each node, pages that left it and pages that came to it since the last call.
    pub fn take_moved(&mut self) -> Vec<(u64, u64)> {
        let none = vec![(0, 0); self.room.len()];
        std::mem::replace(&mut self.moved, none)
    }

    /// Places the new ones among `count` pages from `first` on. Returns how many of all and how many
    /// new ones are on each node.
    pub fn touch_run(&mut self, first: Page, count: u64) -> Vec<(u64, u64)> {
        let mut found = vec![(0, 0); self.room.len()];
        let end = first.number.saturating_add(count);
        let mut number = first.number;
        while number < end {
            let page = Page { number, ..first };
            let known = self
                .runs
                .range(..=page)
                .next_back()
                .filter(|(start, (length, _))| {
                    start.space == page.space && number - start.number < *length
                });
            if let Some((start, &(length, node))) = known {
                let next = end.min(start.number + length);
                found[node].0 += next - number;
                number = next;
            } else {
                let node = self.place(page);
                found[node].0 += 1;
                found[node].1 += 1;
                number += 1;
            }
        }
        found
    }

    /// Pages on each node that belong to one space.
    pub fn census(&self, space: u32) -> Vec<u64> {
        let mut census = vec![0; self.room.len()];
        for (count, node) in self.runs_of(space).map(|(_, run)| run) {
            census[node] += count;
        }
        census
    }

    /// Runs of consecutive pages of one space: first page number, (count, node).
    pub fn runs_of(&self, space: u32) -> impl Iterator<Item = (u64, (u64, Node))> {
        let range = Page { space, number: 0 }..=Page {
            space,
            number: u64::MAX,
        };
        self.runs
            .range(range)
            .map(|(page, &run)| (page.number, run))
    }

    /// Forgets a space whose process has ended or become another program; its room is free again.
    pub fn forget(&mut self, space: u32) {
        let gone: Vec<(u64, (u64, Node))> = self.runs_of(space).collect();
        for (number, (count, node)) in gone {
            self.runs.remove(&Page { space, number });
            self.room[node] += count;
            if node == 0 {
                self.local_pages -= count;
            }
        }
        self.heat.retain(|page, _| page.space != space);
        self.local.retain(|(_, page)| page.space != space);
    }

    fn place(&mut self, page: Page) -> Node {
        let wanted = match &self.policy {
            Policy::Interleave(weights) => by_weight(weights, page.number),
            Policy::FirstTouch | Policy::Promote(_) => 0,
        };
        // Where every node is full the last one holds the rest: a program must not fail here.
        let nodes = self.room.len();
        let node = (0..nodes)
            .map(|i| (wanted + i) % nodes)
            .find(|&node| self.room[node] > 0)
            .unwrap_or(nodes - 1);
        self.room[node] = self.room[node].saturating_sub(1);
        if node == 0 {
            self.local_pages += 1;
        }
        self.insert(page, node);
        node
    }

    fn insert(&mut self, page: Page, node: Node) {
        if let Some((first, (count, run_node))) = self.runs.range_mut(..page).next_back()
            && first.space == page.space
            && first.number + *count == page.number
            && *run_node == node
        {
            *count += 1;
            return;
        }
        self.runs.insert(page, (1, node));
    }

    /// Takes a page out of its run.
    fn remove(&mut self, page: Page) {
        let Some((&first, &(count, node))) = self.runs.range(..=page).next_back() else {
            return;
        };
        let before = page.number - first.number;
        let after = count - before - 1;
        self.runs.remove(&first);
        if before > 0 {
            self.runs.insert(first, (before, node));
        }
        if after > 0 {
            self.runs.insert(
                Page {
                    number: page.number + 1,
                    ..page
                },
                (after, node),
            );
        }
    }

    /// Counts that a page was seen; returns how often it has been.
    fn warm(&mut self, page: Page, node: Node) -> u32 {
        let heat = self.heat.entry(page).or_default();
        let before = *heat;
        *heat = before.saturating_add(1);
        if node == 0 {
            self.local.remove(&(before, page));
            self.local.insert((*heat, page));
        }
        *heat
    }

    /// Makes sure that local memory has room for a page of `node`, if need be that of a page that was seen less than
    /// `heat` times. Returns whether it has.
    fn make_room(&mut self, heat: u32, node: Node) -> bool {
        if self.room[0] > 0 {
            return true;
        }
        let coolest = self.coolest().filter(|(seen, _)| *seen < heat);
        if let Some((_, page)) = coolest {
            self.relocate(page, 0, node);
        }
        coolest.is_some()
    }

    /// The local page that was seen least, and how often.
    fn coolest(&self) -> Option<(u32, Page)> {
        if self.local_pages == self.local.len() as u64 {
            return self.local.first().copied();
        }
        // Some were placed and never seen.
        let runs = self.runs.iter().filter(|(_, run)| run.1 == 0);
        let mut pages = runs.flat_map(|(&first, &(count, _))| {
            let numbers = first.number..first.number + count;
            numbers.map(move |number| Page { number, ..first })
        });
        let unseen = pages.find(|page| !self.heat.contains_key(page));
        unseen.map(|page| (0, page))
    }

    fn relocate(&mut self, page: Page, from: Node, to: Node) {
        self.remove(page);
        self.insert(page, to);
        self.room[from] += 1;
        self.room[to] = self.room[to].saturating_sub(1);
        self.moved[from].0 += 1;
        self.moved[to].1 += 1;
        let heat = self.heat.get(&page).copied().unwrap_or(0);
        if from == 0 {
            self.local.remove(&(heat, page));
            self.local_pages -= 1;
        } else if to == 0 {
            self.local.insert((heat, page));
            self.local_pages += 1;
        }
    }
}

/// Weighted round robin by page number.
fn by_weight(weights: &[u32], number: u64) -> Node {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let mut place = number % total.max(1);
    for (node, &weight) in weights.iter().enumerate() {
        if place < u64::from(weight) {
            return node;
        }
        place -= u64::from(weight);
    }
    0
}

/// The policy of a process, from the text of its `/proc/PID/numa_maps`; NUMA node `n` stands for
/// topology node `n`. `interleave:0-1` spreads pages over its nodes, `bind:1` and `prefer:1` fill
/// the first node that they name and go on from there, `default` is first touch.
pub fn numa_policy(numa_maps: &str) -> Policy {
    let policies = numa_maps
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(_, rest)| rest));
    let Some((mode, nodes)) = policies
        .filter(|rest| !rest.starts_with("default"))
        .filter_map(|rest| rest.split_once(':'))
        .next()
    else {
        return Policy::FirstTouch;
    };
    let list = nodes.split_ascii_whitespace().next().unwrap_or_default();
    let mut weights = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            continue;
        };
        for node in first..=last.min(MOST_NODES) {
            weights.resize(weights.len().max(node + 1), 0);
            weights[node] = 1;
            if !mode.contains("interleave") {
                return Policy::Interleave(weights);
            }
        }
    }
    if weights.is_empty() {
        Policy::FirstTouch
    } else {
        Policy::Interleave(weights)
    }
}

/// NUMA nodes beyond this are not believed.
const MOST_NODES: usize = 1023;

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn placement(policy: Policy, pages: &[u64]) -> Placement {
        let capacity: Vec<u64> = pages.iter().map(|pages| pages * PAGE).collect();
        Placement::new(policy, PAGE, &capacity).unwrap()
    }

    fn page(number: u64) -> Page {
        Page { space: 1, number }
    }

    #[test]
    fn first_touch_fills_local_memory_then_the_expanders_in_order() {
        let mut placement = placement(Policy::FirstTouch, &[2, 1, 5]);
        let nodes: Vec<Node> = (0..5).map(|number| placement.touch(page(number))).collect();
        assert_eq!(nodes, [0, 0, 1, 2, 2]);
        assert_eq!(placement.touch(page(2)), 1);
        assert_eq!(placement.census(1), [2, 1, 2]);
    }

    #[test]
    fn pages_are_interleaved_by_weight() {
        let mut placement = placement(Policy::Interleave(vec![2, 1]), &[100, 100]);
        let nodes: Vec<Node> = (0..6).map(|number| placement.touch(page(number))).collect();
        assert_eq!(nodes, [0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn a_full_node_passes_its_pages_on() {
        let mut placement = placement(Policy::Interleave(vec![1, 1]), &[1, 9]);
        let nodes: Vec<Node> = (0..4).map(|number| placement.touch(page(number))).collect();
        assert_eq!(nodes, [0, 1, 1, 1]);
    }

    #[test]
    fn a_page_that_is_often_seen_moves_to_local_memory() {
        let mut placement = placement(Policy::Promote(3), &[1, 9]);
        placement.touch(page(0));
        assert_eq!([0; 3].map(|_| placement.touch(page(7))), [1, 1, 0]);
        assert_eq!(placement.take_moved(), [(1, 1), (1, 1)]);
        assert_eq!(placement.take_moved(), [(0, 0), (0, 0)]);
        assert_eq!(placement.find(page(0)), Some(1));
        assert_eq!(placement.census(1), [1, 1]);
    }

    #[test]
    fn a_promoted_page_changes_places_with_the_local_page_that_was_seen_least() {
        // Three local pages in one run, the one in the middle the coolest; then one that was never seen.
        for (seen, leaves) in [([0, 0, 1, 2, 2], 1), ([0, 0, 1, 1, 0], 2)] {
            let mut placement = placement(Policy::Promote(2), &[3, 9]);
            placement.touch_run(page(0), 3);
            for number in seen {
                placement.touch(page(number));
            }
            assert_eq!([0; 2].map(|_| placement.touch(page(7))), [1, 0]);
            assert_eq!(placement.find(page(leaves)), Some(1));
            assert_eq!(placement.census(1), [3, 1]);
            // The one that came is now as cool as any, and not cooler than the next.
            assert_eq!([0; 2].map(|_| placement.touch(page(8))), [1, 1]);
        }
    }

    #[test]
    fn a_run_of_pages_is_placed_once() {
        let mut placement = placement(Policy::FirstTouch, &[3, 9]);
        placement.touch(page(1));
        assert_eq!(placement.touch_run(page(0), 4), [(3, 2), (1, 1)]);
        assert_eq!(placement.touch_run(page(0), 4), [(3, 0), (1, 0)]);
    }

    #[test]
    fn a_space_that_ends_frees_its_room() {
        let mut placement = placement(Policy::FirstTouch, &[1, 1]);
        placement.touch(page(0));
        placement.touch(page(1));
        placement.forget(1);
        assert_eq!(
            placement.touch(Page {
                space: 2,
                number: 5
            }),
            0
        );
    }

    #[test]
    fn spaces_do_not_run_into_each_other() {
        let mut placement = placement(Policy::FirstTouch, &[9]);
        placement.touch(Page {
            space: 1,
            number: 4,
        });
        assert_eq!(
            placement.find(Page {
                space: 2,
                number: 4
            }),
            None
        );
    }

    #[test]
    fn the_numa_policy_of_a_process_is_followed() {
        let maps = |policy: &str| format!("7f00 default N0=1\n7f10 {policy} anon=3 N0=100\n");
        assert_eq!(numa_policy(&maps("default")), Policy::FirstTouch);
        assert_eq!(
            numa_policy(&maps("interleave:0,2-3")),
            Policy::Interleave(vec![1, 0, 1, 1])
        );
        assert_eq!(
            numa_policy(&maps("bind:1-2")),
            Policy::Interleave(vec![0, 1])
        );
        assert_eq!(
            numa_policy(&maps("prefer:2")),
            Policy::Interleave(vec![0, 0, 1])
        );
    }

    #[test]
    fn what_cannot_hold_a_page_is_refused() {
        assert!(Placement::new(Policy::FirstTouch, PAGE, &[0, 0]).is_err());
        assert!(Placement::new(Policy::FirstTouch, 3000, &[PAGE]).is_err());
        assert!(Placement::new(Policy::Interleave(vec![1, 1]), PAGE, &[PAGE]).is_err());
    }
}
