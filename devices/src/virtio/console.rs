//! The console device (section 5.3) with one port.

use std::io::{self, ErrorKind, Read, Write};

use vm_memory::GuestMemory;

use super::spec::console as spec;
use super::{Broken, Chain, Device, DeviceType, Identity, Outcome, Progress, Virtqueue};

const QUEUE_SIZES: &[u16] = &[64, 64];
/// Bytes moved in one step.
const STEP: usize = 4096;

/// A console between the guest and a host endpoint.
pub struct Console<I, O> {
    input: I,
    output: O,
    /// Bytes of the chain at the head of the transmit queue that the host has taken already.
    sent: u64,
    chain: Chain,
}

impl<I: Read + Send, O: Write + Send> Console<I, O> {
    /// `input` gives [`ErrorKind::WouldBlock`] while there is none. `output` may give it too; then the guest's bytes wait.
    pub fn new(input: I, output: O) -> Self {
        Self {
            input,
            output,
            sent: 0,
            chain: Chain::default(),
        }
    }

    /// Puts input of the host into a buffer of the driver.
    fn receive<M: GuestMemory>(&mut self, chain: &Chain, mem: &M) -> Result<Outcome, Broken> {
        let mut bytes = [0; STEP];
        let room = usize::try_from(chain.writable.len()).map_or(STEP, |room| room.min(STEP));
        let bytes = bytes.get_mut(..room).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Outcome::Done(0));
        }
        match retry(|| self.input.read(bytes)) {
            Ok(len @ 1..) => {
                let bytes = bytes.get(..len).unwrap_or_default();
                chain.writable.write(mem, 0, bytes)?;
                Ok(Outcome::Done(bytes.len() as u32))
            }
            // Nothing now, or the other end is closed: there will be an event when that changes.
            Ok(0) | Err(_) => Ok(Outcome::Later),
        }
    }

    /// Gives a buffer of the driver to the host. It stays with the driver until all of it is taken.
    fn transmit<M: GuestMemory>(&mut self, chain: &Chain, mem: &M) -> Result<Outcome, Broken> {
        let mut bytes = [0; STEP];
        while self.sent < chain.readable.len() {
            let left = chain.readable.len() - self.sent;
            let len = usize::try_from(left).map_or(STEP, |left| left.min(STEP));
            let bytes = bytes.get_mut(..len).unwrap_or_default();
            chain.readable.read(mem, self.sent, bytes)?;
            match retry(|| self.output.write(bytes)) {
                Ok(taken @ 1..) => self.sent += taken.min(len) as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Outcome::Later),
                // Nobody listens any more. A guest must not hang because of that.
                Ok(0) | Err(_) => break,
            }
        }
        self.sent = 0;
        // What the host buffers must be seen before the guest goes on; a failure here is one of nobody listening.
        self.output.flush().ok();
        Ok(Outcome::Done(0))
    }
}

/// Repeats a call that a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl<I: Read + Send, O: Write + Send> Device for Console<I, O> {
    fn identity(&self) -> Identity {
        Identity {
            device_type: DeviceType::Console,
            features: 0,
            queue_sizes: QUEUE_SIZES,
            config: vec![0; spec::CONFIG_SIZE],
        }
    }

    fn activate(&mut self, _features: u64) {}

    fn serve<M: GuestMemory>(
        &mut self,
        queues: &mut [Virtqueue],
        mem: &M,
    ) -> Result<Progress, Broken> {
        let [rx, tx, ..] = queues else {
            return Ok(Progress::Idle);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let received = rx.serve(mem, &mut chain, |chain| self.receive(chain, mem));
        let sent = tx.serve(mem, &mut chain, |chain| self.transmit(chain, mem));
        self.chain = chain;
        Ok(received?.and(sent?))
    }

    fn reset(&mut self) {
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::testing::{Access, Driver};
    use super::*;

    /// Both ends of a terminal, as the host holds them.
    #[derive(Clone, Default)]
    struct Terminal {
        keys: Arc<Mutex<Vec<u8>>>,
        screen: Arc<Mutex<Vec<u8>>>,
        /// How many bytes the screen takes before it would block.
        room: Arc<Mutex<usize>>,
    }

    impl Read for Terminal {
        fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
            let mut keys = self.keys.lock().unwrap();
            if keys.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = keys.len().min(data.len());
            data[..len].copy_from_slice(&keys[..len]);
            keys.drain(..len);
            Ok(len)
        }
    }

    impl Write for Terminal {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            if *room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = data.len().min(*room);
            *room -= len;
            self.screen.lock().unwrap().extend(&data[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        rx: Driver,
        tx: Driver,
        queues: [Virtqueue; 2],
        terminal: Terminal,
        console: Console<Terminal, Terminal>,
    }

    impl Bench {
        fn new() -> Self {
            let rx = Driver::new(4);
            let tx = rx.second();
            let queues = [rx.queue(), tx.queue()];
            let terminal = Terminal::default();
            *terminal.room.lock().unwrap() = usize::MAX;
            let console = Console::new(terminal.clone(), terminal.clone());
            Self {
                rx,
                tx,
                queues,
                terminal,
                console,
            }
        }

        fn serve(&mut self) {
            assert_eq!(
                self.console.serve(&mut self.queues, self.rx.mem()),
                Ok(Progress::Idle)
            );
        }
    }

    #[test]
    fn what_the_guest_writes_reaches_the_host() {
        let mut bench = Bench::new();
        bench.tx.put(Driver::DATA, b"hello, ");
        bench.tx.put(Driver::DATA + 0x100, b"world");
        let head = bench.tx.offer(&[
            (Driver::DATA, 7, Access::Read),
            (Driver::DATA + 0x100, 5, Access::Read),
        ]);
        bench.serve();
        assert_eq!(*bench.terminal.screen.lock().unwrap(), b"hello, world");
        assert_eq!(bench.tx.used(), [(head, 0)]);
    }

    #[test]
    fn keys_wait_for_a_buffer_and_fill_it() {
        let mut bench = Bench::new();
        bench.terminal.keys.lock().unwrap().extend(b"abcdef");
        bench.serve();
        assert_eq!(bench.rx.used(), []);
        let a = bench.rx.offer(&[(Driver::DATA, 4, Access::Write)]);
        let b = bench.rx.offer(&[(Driver::DATA + 0x10, 4, Access::Write)]);
        let _unused = bench.rx.offer(&[(Driver::DATA + 0x20, 4, Access::Write)]);
        bench.serve();
        assert_eq!(bench.rx.used(), [(a, 4), (b, 2)]);
        assert_eq!(bench.rx.bytes(Driver::DATA, 4), b"abcd");
        assert_eq!(bench.rx.bytes(Driver::DATA + 0x10, 2), b"ef");
    }

    #[test]
    fn no_byte_is_lost_or_doubled_when_the_host_is_slow() {
        let mut bench = Bench::new();
        *bench.terminal.room.lock().unwrap() = 3;
        bench.tx.put(Driver::DATA, b"slow host");
        let head = bench.tx.offer(&[(Driver::DATA, 9, Access::Read)]);
        bench.serve();
        assert_eq!(bench.tx.used(), []);
        *bench.terminal.room.lock().unwrap() = usize::MAX;
        bench.serve();
        assert_eq!(bench.tx.used(), [(head, 0)]);
        assert_eq!(*bench.terminal.screen.lock().unwrap(), b"slow host");
    }
}
