//! The tree of functions below the host bridges, and the way of an access down it.
//!
//! Nothing is cached: each access follows the bus numbers, windows and enable bits that the guest has programmed at that
//! moment, as it would in hardware.

use std::ops::RangeInclusive;

use crate::bar::Space;
use crate::{Bdf, ConfigSpace, Error, Function, ResetKind};

/// A root bus of the hierarchy: one host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(usize);

/// A function in the hierarchy. Stays valid until the function is [removed](Hierarchy::remove); another may have the same id
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// What a function hangs below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    Root(RootId),
    Bridge(NodeId),
}

impl From<RootId> for Parent {
    fn from(root: RootId) -> Self {
        Self::Root(root)
    }
}

impl From<NodeId> for Parent {
    fn from(bridge: NodeId) -> Self {
        Self::Bridge(bridge)
    }
}

/// Where a memory or I/O access ends: a byte of a function's BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub node: NodeId,
    pub bar: u8,
    pub offset: u64,
}

struct Root {
    buses: RangeInclusive<u8>,
    children: Vec<NodeId>,
}

struct Node<F> {
    function: F,
    parent: Parent,
    device: u8,
    number: u8,
    children: Vec<NodeId>,
}

/// All functions of one PCI segment.
pub struct Hierarchy<F: Function> {
    roots: Vec<Root>,
    /// By id; a place whose function was removed is taken by the next that comes.
    nodes: Vec<Option<Node<F>>>,
    scratch: Vec<F::Effect>,
}

impl<F: Function> Default for Hierarchy<F> {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            nodes: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

/// Building and looking around.
impl<F: Function> Hierarchy<F> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a host bridge that owns these buses; the first is its root bus.
    ///
    /// # Errors
    /// [`Error::BusesOverlap`] if another root owns one of them.
    pub fn add_root(&mut self, buses: RangeInclusive<u8>) -> Result<RootId, Error> {
        let overlaps = |taken: &RangeInclusive<u8>| {
            buses.start() <= taken.end() && taken.start() <= buses.end()
        };
        if let Some(root) = self.roots.iter().find(|root| overlaps(&root.buses)) {
            return Err(Error::BusesOverlap {
                new: buses,
                taken: root.buses.clone(),
            });
        }
        self.roots.push(Root {
            buses,
            children: Vec::new(),
        });
        Ok(RootId(self.roots.len() - 1))
    }

    /// Adds a function on a root bus or on the secondary bus of a bridge. Below a port only device 0 is on the link
    /// (7.3.1); the bus inside a switch has one device for each downstream port.
    ///
    /// # Errors
    /// If the parent does not exist or is no bridge, or the place is taken.
    pub fn add(
        &mut self,
        parent: impl Into<Parent>,
        device: u8,
        function: u8,
        model: F,
    ) -> Result<NodeId, Error> {
        let parent = parent.into();
        let siblings = match parent {
            Parent::Root(root) => &self.roots.get(root.0).ok_or(Error::NoSuchRoot)?.children,
            Parent::Bridge(bridge) => {
                let bridge = self.node(bridge).ok_or(Error::NoSuchNode)?;
                if !bridge.function.config().is_bridge() {
                    return Err(Error::NotABridge);
                }
                &bridge.children
            }
        };
        if device >= 32 || function >= 8 || self.child_at(siblings, device, function).is_some() {
            return Err(Error::SlotTaken { device, function });
        }
        let node = Some(Node {
            function: model,
            parent,
            device,
            number: function,
            children: Vec::new(),
        });
        let id = match self.nodes.iter().position(Option::is_none) {
            Some(place) => {
                self.nodes[place] = node;
                NodeId(place)
            }
            None => {
                self.nodes.push(node);
                NodeId(self.nodes.len() - 1)
            }
        };
        self.siblings_mut(parent)
            .into_iter()
            .for_each(|siblings| siblings.push(id));
        Ok(id)
    }

    /// Takes out a function and all below it; the parent comes before what is below. Nobody answers for them any more.
    pub fn remove(&mut self, node: NodeId) -> Vec<(NodeId, F)> {
        if let Some(parent) = self.parent(node)
            && let Some(siblings) = self.siblings_mut(parent)
        {
            siblings.retain(|sibling| *sibling != node);
        }
        let mut removed = Vec::new();
        let mut left = vec![node];
        while let Some(id) = left.pop() {
            if let Some(node) = self.nodes.get_mut(id.0).and_then(Option::take) {
                left.extend(node.children);
                removed.push((id, node.function));
            }
        }
        removed
    }

    fn siblings_mut(&mut self, parent: Parent) -> Option<&mut Vec<NodeId>> {
        match parent {
            Parent::Root(root) => Some(&mut self.roots.get_mut(root.0)?.children),
            Parent::Bridge(bridge) => Some(&mut self.node_mut(bridge)?.children),
        }
    }

    fn node(&self, node: NodeId) -> Option<&Node<F>> {
        self.nodes.get(node.0)?.as_ref()
    }

    fn node_mut(&mut self, node: NodeId) -> Option<&mut Node<F>> {
        self.nodes.get_mut(node.0)?.as_mut()
    }

    pub fn get(&self, node: NodeId) -> Option<&F> {
        self.node(node).map(|node| &node.function)
    }

    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut F> {
        self.node_mut(node).map(|node| &mut node.function)
    }

    /// Calls into one function and hands on the effects that it pushes, marked as its own.
    pub fn with<R>(
        &mut self,
        node: NodeId,
        out: &mut Vec<(NodeId, F::Effect)>,
        call: impl FnOnce(&mut F, &mut Vec<F::Effect>) -> R,
    ) -> Option<R> {
        let function = &mut self.nodes.get_mut(node.0)?.as_mut()?.function;
        let result = call(function, &mut self.scratch);
        out.extend(self.scratch.drain(..).map(|effect| (node, effect)));
        Some(result)
    }

    /// The roots with the buses they own.
    pub fn roots(&self) -> impl Iterator<Item = (RootId, RangeInclusive<u8>)> + '_ {
        self.roots
            .iter()
            .enumerate()
            .map(|(index, root)| (RootId(index), root.buses.clone()))
    }

    /// All functions, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &F)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((NodeId(index), &node.as_ref()?.function)))
    }

    /// The functions directly below a root or a bridge.
    pub fn children(&self, parent: impl Into<Parent>) -> &[NodeId] {
        match parent.into() {
            Parent::Root(root) => self.roots.get(root.0).map_or(&[], |root| &root.children),
            Parent::Bridge(bridge) => self.node(bridge).map_or(&[], |node| &node.children),
        }
    }

    pub fn parent(&self, node: NodeId) -> Option<Parent> {
        self.node(node).map(|node| node.parent)
    }

    /// The bridges above a function from the root bus down, and the function itself.
    pub fn path(&self, node: NodeId) -> Vec<NodeId> {
        let mut path = Vec::new();
        let mut at = self.node(node).map(|_| node);
        while let Some(id) = at {
            path.push(id);
            at = match self.parent(id) {
                Some(Parent::Bridge(bridge)) => Some(bridge),
                _ => None,
            };
        }
        path.reverse();
        path
    }

    /// A function's address by the bus numbers programmed at present; `None` while the bridge above has none.
    pub fn bdf(&self, node: NodeId) -> Option<Bdf> {
        let node = self.node(node)?;
        let bus = match node.parent {
            Parent::Root(root) => *self.roots.get(root.0)?.buses.start(),
            Parent::Bridge(bridge) => *self.get(bridge)?.config().buses_below()?.start(),
        };
        Some(Bdf::new(bus, node.device, node.number))
    }

    fn child_at(&self, children: &[NodeId], device: u8, function: u8) -> Option<NodeId> {
        let here = |id: &NodeId| {
            self.node(*id)
                .is_some_and(|node| node.device == device && node.number == function)
        };
        children.iter().copied().find(here)
    }
}

/// Guest accesses.
impl<F: Function> Hierarchy<F> {
    /// The function that answers configuration requests for `bdf` (7.3.3): each bridge turns a Type 1 request for its
    /// secondary bus into Type 0, and passes on one for a bus behind that.
    pub fn route_config(&self, bdf: Bdf) -> Option<NodeId> {
        let root = self
            .roots
            .iter()
            .find(|root| root.buses.contains(&bdf.bus()))?;
        let mut bus = *root.buses.start();
        let mut children = &root.children;
        while bus != bdf.bus() {
            let leads_there = |node: &&Node<F>| {
                let config = node.function.config();
                config.is_secondary_reachable()
                    && config
                        .buses_below()
                        .is_some_and(|buses| buses.contains(&bdf.bus()))
            };
            let bridge = children
                .iter()
                .filter_map(|id| self.node(*id))
                .find(leads_there)?;
            bus = *bridge.function.config().buses_below()?.start();
            children = &bridge.children;
        }
        self.child_at(children, bdf.device(), bdf.function())
    }

    /// Where a memory access of `len` bytes ends. It must lie wholly in one BAR.
    pub fn route_memory(&self, address: u64, len: u64) -> Option<Target> {
        self.roots
            .iter()
            .find_map(|root| self.route(&root.children, Space::Memory, address, len))
    }

    /// Where an I/O access of `len` bytes ends. It must lie wholly in one BAR.
    pub fn route_io(&self, port: u64, len: u64) -> Option<Target> {
        self.roots
            .iter()
            .find_map(|root| self.route(&root.children, Space::Io, port, len))
    }

    /// Looks for the BAR that claims an access on one bus and below its bridges. As deep as the tree was built.
    fn route(&self, children: &[NodeId], space: Space, address: u64, len: u64) -> Option<Target> {
        children.iter().find_map(|&id| {
            let node = self.node(id)?;
            let config = node.function.config();
            let claimed = config
                .bars()
                .filter(|(_, bar)| bar.space() == space)
                .find_map(|(bar, _)| {
                    let offset = config.bar(bar)?.offset_of(address, len)?;
                    Some(Target {
                        node: id,
                        bar,
                        offset,
                    })
                });
            claimed.or_else(|| {
                (!node.children.is_empty() && forwards(config, space, address))
                    .then(|| self.route(&node.children, space, address, len))?
            })
        })
    }

    /// Configuration read. All ones if nobody answers, as an unsupported request completes (2.3.2).
    pub fn config_read(&self, bdf: Bdf, register: u16, data: &mut [u8]) {
        match self.route_config(bdf).and_then(|node| self.get(node)) {
            Some(function) => function.config_read(register, data),
            None => data.fill(0xff),
        }
    }

    /// Configuration write; lost if nobody answers. A secondary bus reset, a disabled link and a slot without power
    /// reset all below the bridge.
    pub fn config_write(
        &mut self,
        bdf: Bdf,
        register: u16,
        data: &[u8],
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        if let Some(node) = self.route_config(bdf) {
            self.function_write(node, register, data, out);
        }
    }

    /// Configuration write to one function, wherever it comes from.
    pub fn function_write(
        &mut self,
        node: NodeId,
        register: u16,
        data: &[u8],
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        let states = self.with(node, out, |function, out| {
            let before = function.config().secondary_reset();
            function.config_write(register, data, out);
            (before, function.config().secondary_reset())
        });
        match states {
            // Who comes from no power has been reset as thoroughly as can be.
            Some((before, Some(kind)))
                if before != Some(kind) && before != Some(ResetKind::Conventional) =>
            {
                self.reset_below(node, kind, out)
            }
            _ => {}
        }
    }

    /// Memory read. All ones if nobody answers; see [`route_memory`](Self::route_memory).
    pub fn memory_read(
        &mut self,
        address: u64,
        data: &mut [u8],
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        let target = self.route_memory(address, data.len() as u64);
        self.bar_read(target, data, out);
    }

    /// Memory write; lost if nobody answers.
    pub fn memory_write(&mut self, address: u64, data: &[u8], out: &mut Vec<(NodeId, F::Effect)>) {
        let target = self.route_memory(address, data.len() as u64);
        self.bar_write(target, data, out);
    }

    /// I/O read. All ones if nobody answers.
    pub fn io_read(&mut self, port: u64, data: &mut [u8], out: &mut Vec<(NodeId, F::Effect)>) {
        let target = self.route_io(port, data.len() as u64);
        self.bar_read(target, data, out);
    }

    /// I/O write; lost if nobody answers.
    pub fn io_write(&mut self, port: u64, data: &[u8], out: &mut Vec<(NodeId, F::Effect)>) {
        let target = self.route_io(port, data.len() as u64);
        self.bar_write(target, data, out);
    }

    fn bar_read(
        &mut self,
        target: Option<Target>,
        data: &mut [u8],
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        match target {
            Some(Target { node, bar, offset }) => {
                self.with(node, out, |function, out| {
                    function.bar_read(bar, offset, data, out)
                });
            }
            None => data.fill(0xff),
        }
    }

    fn bar_write(
        &mut self,
        target: Option<Target>,
        data: &[u8],
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        if let Some(Target { node, bar, offset }) = target {
            self.with(node, out, |function, out| {
                function.bar_write(bar, offset, data, out)
            });
        }
    }

    /// Resets every function, as the machine's reset line does.
    pub fn reset(&mut self, out: &mut Vec<(NodeId, F::Effect)>) {
        for index in 0..self.nodes.len() {
            self.with(NodeId(index), out, |function, out| {
                function.reset(ResetKind::Conventional, out)
            });
        }
    }

    /// Resets every function below a bridge, not the bridge itself.
    pub fn reset_below(
        &mut self,
        bridge: NodeId,
        kind: ResetKind,
        out: &mut Vec<(NodeId, F::Effect)>,
    ) {
        let mut below = self.children(bridge).to_vec();
        while let Some(node) = below.pop() {
            below.extend_from_slice(self.children(node));
            self.with(node, out, |function, out| function.reset(kind, out));
        }
    }
}

/// Whether a bridge passes an access on to its secondary side (7.5.1.3.6, 7.5.1.3.8, 7.5.1.3.9).
fn forwards(config: &ConfigSpace, space: Space, address: u64) -> bool {
    let windows = config.bridge_windows();
    let inside = |window: Option<RangeInclusive<u64>>| {
        window.is_some_and(|window| window.contains(&address))
    };
    config.is_secondary_reachable()
        && match space {
            Space::Io => inside(windows.io),
            Space::Memory => inside(windows.memory) || inside(windows.prefetchable),
        }
}

#[cfg(test)]
mod tests;
