//! The serial port: a 16550 at COM1 (vm-superio's model) between the guest and a terminal.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};
use vmm_sys_util::eventfd::EventFd;

/// First I/O port of COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// Number of its ports.
pub const COM1_PORTS: u16 = 8;
/// Its interrupt.
pub const COM1_GSI: u32 = 4;
/// Most input bytes that wait for the guest; a paste of more than that loses its end.
const BACKLOG: usize = 64 << 10;

/// The interrupt line as an event.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// A serial port. Input that does not fit into its FIFO waits in a backlog, so that neither the
/// terminal nor the guest waits for the other.
pub struct Serial(Mutex<State>);

struct State {
    uart: Uart<Interrupt, NoEvents, Box<dyn Write + Send>>,
    backlog: VecDeque<u8>,
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

impl Serial {
    /// A port that raises `interrupt` and writes to `out`, which must not block.
    #[must_use]
    pub fn new(interrupt: EventFd, out: impl Write + Send + 'static) -> Self {
        let uart = Uart::new(Interrupt(interrupt), Box::new(out) as Box<dyn Write + Send>);
        Self(Mutex::new(State {
            uart,
            backlog: VecDeque::new(),
        }))
    }

    /// Reads the register at `offset` from [`COM1_PORT`].
    pub fn read(&self, offset: u8) -> u8 {
        let mut state = self.lock();
        let value = state.uart.read(offset);
        state.refill();
        value
    }

    /// Writes the register at `offset` from [`COM1_PORT`].
    pub fn write(&self, offset: u8, value: u8) {
        let mut state = self.lock();
        if let Err(error) = state.uart.write(offset, value) {
            log::debug!("serial port: {error}");
        }
        state.refill();
    }

    /// Takes input from the terminal. Bytes beyond the backlog are dropped.
    pub fn receive(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let room = BACKLOG - state.backlog.len();
        state.backlog.extend(bytes.iter().take(room));
        state.refill();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves waiting input into the FIFO, as far as it fits.
    fn refill(&mut self) {
        let room = self.uart.fifo_capacity().min(self.backlog.len());
        if room == 0 {
            return;
        }
        let (bytes, _) = self.backlog.make_contiguous().split_at(room);
        // In loopback mode the port takes nothing.
        let taken = self.uart.enqueue_raw_bytes(bytes).unwrap_or(0);
        self.backlog.drain(..taken);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// 16550 registers and bits (PC16550D data sheet, table II).
    const DATA: u8 = 0;
    const INTERRUPT_ENABLE: u8 = 1;
    const MODEM_CONTROL: u8 = 4;
    const LINE_STATUS: u8 = 5;
    const RECEIVED: u8 = 1 << 0;
    const DATA_READY: u8 = 1 << 0;
    const LOOPBACK: u8 = 1 << 4;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn serial() -> (Serial, EventFd, Output) {
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let output = Output::default();
        (
            Serial::new(interrupt.try_clone().unwrap(), output.clone()),
            interrupt,
            output,
        )
    }

    fn read_all(serial: &Serial) -> Vec<u8> {
        std::iter::from_fn(|| {
            (serial.read(LINE_STATUS) & DATA_READY != 0).then(|| serial.read(DATA))
        })
        .collect()
    }

    #[test]
    fn what_the_guest_writes_comes_out() {
        let (serial, _, output) = serial();
        for &byte in b"Linux" {
            serial.write(DATA, byte);
        }
        assert_eq!(*output.0.lock().unwrap(), b"Linux");
    }

    #[test]
    fn input_interrupts_the_guest() {
        let (serial, interrupt, _) = serial();
        serial.write(INTERRUPT_ENABLE, RECEIVED);
        assert!(interrupt.read().is_err(), "nothing has come yet");
        serial.receive(b"ls\r");
        assert!(interrupt.read().is_ok());
        assert_eq!(read_all(&serial), b"ls\r");
    }

    #[test]
    fn input_longer_than_the_fifo_waits_its_turn() {
        let (serial, _, _) = serial();
        let paste: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        serial.receive(&paste);
        assert_eq!(read_all(&serial), paste);
    }

    #[test]
    fn input_beyond_the_backlog_is_dropped() {
        let (serial, _, _) = serial();
        for _ in 0..3 {
            serial.receive(&vec![b'x'; BACKLOG]);
        }
        let kept = read_all(&serial).len();
        assert!((BACKLOG..BACKLOG + 256).contains(&kept), "{kept}");
    }

    #[test]
    fn input_during_loopback_comes_after_it() {
        let (serial, _, _) = serial();
        serial.write(MODEM_CONTROL, LOOPBACK);
        serial.receive(b"early");
        serial.write(DATA, b'!');
        assert_eq!(serial.read(DATA), b'!');
        serial.write(MODEM_CONTROL, 0);
        assert_eq!(read_all(&serial), b"early");
    }

    #[test]
    fn ten_thousand_hostile_accesses_leave_a_port_that_works() {
        const LINE_CONTROL: u8 = 3;
        let (serial, _, output) = serial();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut written = 0;
        for _ in 0..10_000 {
            // Marsaglia's xorshift: the same numbers in every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let [kind, offset, value, ..] = random.to_le_bytes();
            // Offsets that the port does not have, too.
            let offset = offset % 10;
            match kind % 4 {
                0 => {
                    serial.read(offset);
                }
                1 => serial.receive(&random.to_le_bytes()),
                _ => {
                    written += usize::from(offset == DATA);
                    serial.write(offset, value);
                }
            }
            assert!(output.0.lock().unwrap().len() <= written);
        }
        for register in [INTERRUPT_ENABLE, LINE_CONTROL, MODEM_CONTROL] {
            serial.write(register, 0);
        }
        read_all(&serial);
        serial.write(DATA, b'!');
        assert_eq!(output.0.lock().unwrap().last(), Some(&b'!'));
        serial.receive(b"after all");
        assert_eq!(read_all(&serial), b"after all");
    }
}
