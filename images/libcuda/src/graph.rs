//! Graphs: work that is described once and launched often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::Driver;
use crate::ffi::{Address, HostFunction};
use crate::launch::Launch;
use crate::registry::Handle;
use crate::transfer::{Copy, Fill};
use crate::{Error, Result};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node does.
#[derive(Clone)]
pub enum Action {
    Empty,
    Launch(Launch),
    Copy(Copy),
    /// `None` for a fill of nothing.
    Fill(Option<Fill>),
    Call(HostFunction, Address),
    /// What another executable graph does, as it was then.
    Graph(Arc<[Action]>),
}

impl Action {
    pub fn perform(&self) -> Result<()> {
        match self {
            Self::Empty | Self::Fill(None) => Ok(()),
            Self::Launch(launch) => launch.perform(),
            Self::Copy(copy) => copy.perform(),
            Self::Fill(Some(fill)) => fill.perform(),
            Self::Call(function, data) => {
                function.call(*data);
                Ok(())
            }
            Self::Graph(actions) => actions.iter().try_for_each(Self::perform),
        }
    }

    /// Whether one can take the place of the other in an executable graph.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A node of a graph.
pub struct Node {
    action: Mutex<Action>,
}

impl Node {
    pub fn set(&self, action: Action) -> Result<()> {
        let mut place = lock(&self.action);
        if !place.is_like(&action) {
            return Err(Error::INVALID_VALUE);
        }
        *place = action;
        Ok(())
    }
}

/// A graph. A node names what it comes after when it is made, so the order of making is one in which all can run.
#[derive(Default)]
pub struct Graph {
    nodes: Mutex<Vec<Handle>>,
}

impl Graph {
    pub fn nodes(&self) -> Vec<Handle> {
        lock(&self.nodes).clone()
    }

    /// Adds a node that comes after others of the same graph.
    pub fn add(&self, driver: &Driver, after: &[Handle], action: Action) -> Result<Handle> {
        let mut nodes = lock(&self.nodes);
        if !after.iter().all(|before| nodes.contains(before)) {
            return Err(Error::INVALID_VALUE);
        }
        let node = driver.nodes.add(Arc::new(Node {
            action: Mutex::new(action),
        }));
        nodes.push(node);
        Ok(node)
    }

    /// Makes an executable graph of what the nodes are now.
    pub fn instantiate(&self, driver: &Driver) -> Result<Executable> {
        let mut steps = Vec::new();
        for handle in self.nodes() {
            let node = driver.nodes.get(handle)?;
            let action = lock(&node.action).clone();
            steps.push((handle, action));
        }
        let places = steps
            .iter()
            .enumerate()
            .map(|(place, (handle, _))| (*handle, place))
            .collect();
        let actions = steps.into_iter().map(|(_, action)| action).collect();
        Ok(Executable {
            actions: Mutex::new(actions),
            places,
        })
    }

    pub fn destroy(&self, driver: &Driver) {
        for node in self.nodes() {
            // Each was added by `add`, and is removed here alone.
            let _ = driver.nodes.remove(node);
        }
    }
}

/// A graph that can be launched.
pub struct Executable {
    actions: Mutex<Vec<Action>>,
    /// Where the action of each node is.
    places: BTreeMap<Handle, usize>,
}

impl Executable {
    /// Changes what a node does from the next launch on.
    pub fn set(&self, node: Handle, action: Action) -> Result<()> {
        let place = *self.places.get(&node).ok_or(Error::INVALID_VALUE)?;
        let mut actions = lock(&self.actions);
        let current = actions.get_mut(place).ok_or(Error::INVALID_VALUE)?;
        if !current.is_like(&action) {
            return Err(Error::INVALID_VALUE);
        }
        *current = action;
        Ok(())
    }

    /// The work of one launch.
    pub fn work(&self) -> Action {
        Action::Graph(lock(&self.actions).as_slice().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_comes_after_nodes_of_its_own_graph_only() {
        let driver = Driver::default();
        let (graph, other) = (Graph::default(), Graph::default());
        let first = graph.add(&driver, &[], Action::Empty).unwrap();
        assert!(graph.add(&driver, &[first], Action::Empty).is_ok());
        assert_eq!(
            other.add(&driver, &[first], Action::Empty),
            Err(Error::INVALID_VALUE)
        );
        assert_eq!(graph.nodes().len(), 2);
        graph.destroy(&driver);
        assert!(driver.nodes.find(first).is_none());
    }

    #[test]
    fn an_executable_graph_keeps_the_kind_of_its_nodes() {
        let driver = Driver::default();
        let graph = Graph::default();
        let node = graph.add(&driver, &[], Action::Empty).unwrap();
        let executable = graph.instantiate(&driver).unwrap();
        assert_eq!(executable.set(node, Action::Empty), Ok(()));
        assert_eq!(
            executable.set(node, Action::Fill(None)),
            Err(Error::INVALID_VALUE)
        );
        assert_eq!(
            executable.set(Handle(1), Action::Empty),
            Err(Error::INVALID_VALUE)
        );
        assert_eq!(executable.work().perform(), Ok(()));
    }
}
