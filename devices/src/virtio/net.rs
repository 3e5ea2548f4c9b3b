//! The network device (section 5.1): one pair of queues, checksum and segmentation offload, mergeable receive buffers.

use std::io::{self, Read, Write};

use vm_memory::GuestMemory;

use super::spec::net as spec;
use super::{Broken, Chain, Device, DeviceType, Identity, Outcome, Progress, Virtqueue};

const QUEUE_SIZES: &[u16] = &[256, 256];
/// The largest frame with its header: an IP packet of 64 KiB, Ethernet header and VLAN tag.
const FRAME: usize = spec::HEADER + (64 << 10) + 18;
/// How many frames one call receives, as with `Virtqueue::serve`.
const BUDGET: usize = 128;

/// The host's end of the wire. A read or write is one frame behind a 12-byte `virtio_net_hdr`; a read without a frame gives
/// [`io::ErrorKind::WouldBlock`].
pub trait NetPort: Read + Write + Send {
    /// The driver agreed to these features: frames given to it may use the `GUEST_` offloads among them, no others.
    ///
    /// # Errors
    /// The host's error. The device then works on without offloads towards the guest.
    fn set_offloads(&mut self, features: u64) -> io::Result<()>;
}

/// A network card.
pub struct Net<P> {
    port: P,
    mac: [u8; 6],
    mergeable: bool,
    chain: Chain,
    /// Receive buffers taken from the driver and not yet filled are the first `held`; the others wait to be used again.
    buffers: Vec<Chain>,
    held: usize,
    used: Vec<(u16, u32)>,
    /// A frame that came from the host and waits for buffers has this many bytes.
    waiting: Option<usize>,
    receive: Box<[u8]>,
    transmit: Box<[u8]>,
}

impl<P: NetPort> Net<P> {
    /// A card with the hardware address `mac` on `port`.
    pub fn new(port: P, mac: [u8; 6]) -> Self {
        Self {
            port,
            mac,
            mergeable: false,
            chain: Chain::default(),
            buffers: Vec::new(),
            held: 0,
            used: Vec::new(),
            waiting: None,
            receive: vec![0; FRAME].into_boxed_slice(),
            transmit: vec![0; FRAME].into_boxed_slice(),
        }
    }

    /// Sends one frame of the driver. What the host does not take is lost, as on a wire.
    fn send<M: GuestMemory>(&mut self, chain: &Chain, mem: &M) -> Result<Outcome, Broken> {
        let len = usize::try_from(chain.readable.len()).unwrap_or(usize::MAX);
        if len < spec::HEADER {
            return Err(Broken::TooShort);
        }
        let Some(frame) = self.transmit.get_mut(..len) else {
            return Ok(Outcome::Done(0));
        };
        chain.readable.read(mem, 0, frame)?;
        if let Err(error) = self.port.write(frame) {
            log::debug!("virtio net: frame of {len} bytes not sent: {error}");
        }
        Ok(Outcome::Done(0))
    }

    /// Hands frames of the host to the driver until one side has no more.
    fn receive<M: GuestMemory>(
        &mut self,
        queue: &mut Virtqueue,
        mem: &M,
    ) -> Result<Progress, Broken> {
        for _ in 0..BUDGET {
            let Some(len) = self.waiting.take().or_else(|| self.next_frame()) else {
                return Ok(Progress::Idle);
            };
            while self.room() < len && (self.mergeable || self.held == 0) {
                if self.hold(queue, mem)? {
                    continue;
                }
                if !queue.listen(mem)? {
                    self.waiting = Some(len);
                    return Ok(Progress::Idle);
                }
            }
            // Without mergeable buffers a frame that one chain cannot hold is dropped (section 5.1.6.3).
            if self.room() >= len {
                self.deliver(len, queue, mem)?;
            }
        }
        Ok(Progress::More)
    }

    /// Reads a frame from the host; its length with header.
    fn next_frame(&mut self) -> Option<usize> {
        loop {
            match self.port.read(&mut self.receive) {
                Ok(0) => return None,
                // Nothing the driver could understand.
                Ok(len) if len < spec::HEADER => {}
                Ok(len) => return Some(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        log::warn!("virtio net: {error}");
                    }
                    return None;
                }
            }
        }
    }

    /// Takes one more receive buffer from the driver, if it offers one.
    fn hold<M: GuestMemory>(&mut self, queue: &mut Virtqueue, mem: &M) -> Result<bool, Broken> {
        // A driver cannot have more chains outstanding than descriptors.
        if self.held >= usize::from(queue.size()) {
            return Err(Broken::Available);
        }
        if self.held == self.buffers.len() {
            self.buffers.push(Chain::default());
        }
        let Some(chain) = self.buffers.get_mut(self.held) else {
            return Ok(false);
        };
        let popped = queue.pop(mem, chain)?;
        if popped && self.held == 0 && chain.writable.len() < spec::HEADER as u64 {
            // The header must lie in the first buffer as a whole.
            return Err(Broken::TooShort);
        }
        self.held += usize::from(popped);
        Ok(popped)
    }

    /// Bytes in the receive buffers held.
    fn room(&self) -> usize {
        let bytes: u64 = self
            .buffers
            .iter()
            .take(self.held)
            .map(|chain| chain.writable.len())
            .sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Spreads a frame of `len` bytes over the buffers held and returns all of them.
    fn deliver<M: GuestMemory>(
        &mut self,
        len: usize,
        queue: &mut Virtqueue,
        mem: &M,
    ) -> Result<(), Broken> {
        let count = u16::try_from(self.held).unwrap_or(u16::MAX).to_le_bytes();
        for (byte, value) in self
            .receive
            .iter_mut()
            .skip(spec::HEADER_NUM_BUFFERS)
            .zip(count)
        {
            *byte = value;
        }
        self.used.clear();
        let mut rest = self.receive.get(..len).unwrap_or_default();
        for chain in self.buffers.iter().take(self.held) {
            let part = usize::try_from(chain.writable.len())
                .map_or(rest.len(), |room| room.min(rest.len()));
            let (piece, tail) = rest.split_at_checked(part).ok_or(Broken::TooShort)?;
            chain.writable.write(mem, 0, piece)?;
            // No piece is longer than a frame.
            self.used.push((chain.head(), part as u32));
            rest = tail;
        }
        self.held = 0;
        queue.complete(mem, &self.used)
    }
}

impl<P: NetPort> Device for Net<P> {
    fn identity(&self) -> Identity {
        Identity {
            device_type: DeviceType::Net,
            features: spec::F_MAC
                | spec::F_CSUM
                | spec::F_HOST_TSO4
                | spec::F_HOST_TSO6
                | spec::F_GUEST_CSUM
                | spec::F_GUEST_TSO4
                | spec::F_GUEST_TSO6
                | spec::F_MRG_RXBUF,
            queue_sizes: QUEUE_SIZES,
            config: self.mac.to_vec(),
        }
    }

    fn activate(&mut self, features: u64) {
        self.mergeable = features & spec::F_MRG_RXBUF != 0;
        if let Err(error) = self.port.set_offloads(features) {
            log::warn!("virtio net: cannot set the tap's offloads: {error}");
        }
    }

    fn serve<M: GuestMemory>(
        &mut self,
        queues: &mut [Virtqueue],
        mem: &M,
    ) -> Result<Progress, Broken> {
        let [rx, tx, ..] = queues else {
            return Ok(Progress::Idle);
        };
        let received = self.receive(rx, mem)?;
        let mut chain = std::mem::take(&mut self.chain);
        let sent = tx.serve(mem, &mut chain, |chain| self.send(chain, mem));
        self.chain = chain;
        Ok(received.and(sent?))
    }

    fn reset(&mut self) {
        self.mergeable = false;
        self.held = 0;
        self.waiting = None;
    }
}

#[cfg(test)]
#[path = "net_test.rs"]
mod tests;
