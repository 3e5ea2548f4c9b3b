//! Alarms: calls a device model back when the time has passed that it asked for.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pci::NodeId;

/// Alarms of a machine. The thread that waits for them starts with the first one and ends when this is dropped.
#[derive(Debug, Default)]
pub struct Alarms(OnceLock<Sender<(Instant, NodeId)>>);

impl Alarms {
    /// Calls what `ring` makes, once `after` from now, with this function. Only the first `ring` counts: they are all
    /// the same.
    pub fn set<F>(&self, node: NodeId, after: Duration, ring: impl FnOnce() -> F)
    where
        F: Fn(NodeId) + Send + 'static,
    {
        let sender = self.0.get_or_init(|| {
            let (sender, receiver) = channel();
            let ring = ring();
            let thread = thread::Builder::new().name("alarms".into());
            if let Err(error) = thread.spawn(move || wait(&receiver, ring)) {
                log::error!("no background operation will end: {error}");
            }
            sender
        });
        if let Some(due) = Instant::now().checked_add(after) {
            // Nobody receives where there is no thread, and that has been said.
            let _ = sender.send((due, node));
        }
    }
}

/// Rings each alarm when it is due, until nobody can set any more.
fn wait(alarms: &Receiver<(Instant, NodeId)>, ring: impl Fn(NodeId)) {
    let mut set: BTreeSet<(Instant, NodeId)> = BTreeSet::new();
    loop {
        let alarm = match set.first().copied() {
            Some((due, node)) if due <= Instant::now() => {
                set.pop_first();
                ring(node);
                continue;
            }
            Some((due, _)) => alarms.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match alarm {
            Ok(alarm) => {
                set.insert(alarm);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::Hierarchy;

    /// Some functions, to have names of.
    fn nodes(count: u8) -> Vec<NodeId> {
        let mut hierarchy = Hierarchy::new();
        let root = hierarchy.add_root(0..=0).unwrap();
        (0..count)
            .map(|device| {
                let function = devices::HostBridge::new();
                hierarchy.add(root, device, 0, function).unwrap()
            })
            .collect()
    }

    #[test]
    fn alarms_ring_in_the_order_in_which_they_are_due() {
        let nodes = nodes(3);
        let (rung, heard) = channel();
        let (alarms, wait_for) = channel();
        let now = Instant::now();
        for (node, ms) in nodes.iter().zip([30, 10, 20]) {
            alarms
                .send((now + Duration::from_millis(ms), *node))
                .unwrap();
        }
        thread::spawn(move || wait(&wait_for, move |node| rung.send(node).unwrap()));
        let order: Vec<NodeId> = heard.iter().take(3).collect();
        assert_eq!(order, [nodes[1], nodes[2], nodes[0]]);
        drop(alarms);
        assert!(heard.recv().is_err(), "the thread has ended");
    }
}
