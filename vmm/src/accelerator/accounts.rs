//! What is known of accesses to device memory, and who keeps account of it.

use std::fs::File;
use std::sync::Arc;

use devices::Trapped;
use devices::coherence::{SharedEngine, Traced};
use devices::gpu::DeviceMemory;
use vm_memory::MmapRegion;

use super::Options;
use super::observer::{Epochs, Observer};
use crate::config::Coherence;
use crate::error::Result;
use crate::virtio::Host;

/// Gives at most so many of the steps of the protocol that are kept, from a number on.
pub type Trace = Box<dyn Fn(u64, usize) -> Traced + Send + Sync>;

/// What keeps account, as far as somebody does.
#[derive(Default)]
pub struct Accounts {
    /// The memory, if it is not to be shown to the guest.
    pub trapped: Option<Trapped>,
    pub trace: Option<Trace>,
    pub epochs: Option<Epochs>,
}

/// Device memory in a mapping of `file`, with its accounts.
pub fn keep(
    host: &Host,
    options: &Options,
    file: &Arc<File>,
    region: Arc<MmapRegion>,
) -> Result<(Arc<DeviceMemory>, Accounts)> {
    let memory = region.size() as u64;
    if options.coherence == Coherence::Observed {
        let observer = Observer::new(host.vm.memslots(), file, &region, memory)?;
        let epochs = Epochs::start(&observer)?;
        let arena = DeviceMemory::coherent(region, Some(Arc::clone(&observer) as _), false);
        let trace: Trace = Box::new(move |from, most| observer.trace(from, most));
        let accounts = Accounts {
            trapped: None,
            trace: Some(trace),
            epochs: Some(epochs),
        };
        return Ok((arena, accounts));
    }
    let exact = options.coherence == Coherence::Trapped;
    let engine = SharedEngine::new(memory, options.cache, options.snoop_filter, exact)?;
    let engine = Arc::new(engine);
    let arena = DeviceMemory::coherent(region, Some(Arc::clone(&engine) as _), exact);
    if !exact {
        return Ok((arena, Accounts::default()));
    }
    let told = Arc::clone(&engine);
    let accounts = Accounts {
        trapped: Some(Trapped {
            memory: Arc::clone(&arena),
            engine,
        }),
        trace: Some(Box::new(move |from, most| told.trace(from, most))),
        epochs: None,
    };
    Ok((arena, accounts))
}
