//! The thread that executes commands of version 1, one after the other.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, JoinHandle};

use devices::Device;
use devices::gpu;
use devices::gpu::protocol::registers::{Command, Outcome};
use pci::NodeId;
use vm_memory::{MmapRegion, VolatileMemory};

use crate::board::Board;
use crate::error::{HostContext, Result};

/// Where a function is.
type Place = OnceLock<(Weak<Board>, NodeId)>;

/// The thread, and the way to it. It ends when this is dropped.
pub struct Commands {
    send: Option<Sender<Command>>,
    place: Arc<Place>,
    thread: Option<JoinHandle<()>>,
}

impl Commands {
    /// Starts the thread of `device`, whose data buffer is `buffer`.
    pub fn start(device: Arc<gpu::Device>, buffer: MmapRegion) -> Result<Self> {
        let (send, commands) = mpsc::channel::<Command>();
        let place = Arc::new(Place::new());
        let connected = Arc::clone(&place);
        let body = move || {
            for command in commands {
                let outcome = device.command(&command, buffer.as_volatile_slice());
                complete(&connected, command.serial, outcome);
            }
        };
        let thread = thread::Builder::new()
            .name("accelerator".into())
            .spawn(body)
            .trying(|| "start the thread of an accelerator".into())?;
        Ok(Self {
            send: Some(send),
            place,
            thread: Some(thread),
        })
    }

    /// Tells the thread where the function is. Once only.
    pub fn connect(&self, board: Weak<Board>, node: NodeId) {
        // A second call would be a mistake of the machine's, and change nothing.
        let _ = self.place.set((board, node));
    }

    /// Has a command executed.
    pub fn send(&self, command: Command) {
        // The thread lives as long as this.
        if let Some(send) = &self.send
            && send.send(command).is_err()
        {
            log::error!("the thread of an accelerator has ended");
        }
    }
}

fn complete(place: &Place, serial: u64, outcome: Outcome) {
    let Some((board, node)) = place.get() else {
        return;
    };
    let Some(board) = board.upgrade() else {
        return;
    };
    let mut state = board.lock();
    if let Some(Device::Type2(function)) = state.hierarchy.get_mut(*node) {
        function.complete(serial, outcome);
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.send.take();
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last reference to the board may have been the thread's own.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            log::error!("the thread of an accelerator has panicked");
        }
    }
}
