//! What libcxlmi asks of CXL components, request by request, each with what has to come of it (CXL 3.1 sections 7.6.7 and
//! 8.2.9). No package has that library for a guest.
//!
//! A component lists its commands in its Command Effects Log. Those of the library's that are in it are asked for, and do what
//! they say; the others are refused as unsupported. Whatever is changed is changed back, but for contents that are erased
//! and for an offer of dynamic capacity, which is the host's to answer.

mod background;
mod dynamic_capacity;
pub mod fabric;
mod firmware;
mod logs;
mod media;
pub mod memory_device;
mod security;
mod settings;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::interface::{BACKGROUND_STARTED, Interface, Refusal, SUCCESS, UNSUPPORTED, field};
use anyhow::{Result, bail, ensure};

/// Commands of every kind of component, which the primary mailbox of a memory device is not asked for: identity, operations in
/// the background, length of answers, MCTP events.
const COMMON: [u16; 7] = [0x0001, 0x0002, 0x0003, 0x0004, 0x0104, 0x0105, 0x0106];
/// Commands of a memory device.
const MEMORY_DEVICE: [u16; 47] = [
    0x0005, 0x0100, 0x0101, 0x0102, 0x0103, 0x0200, 0x0201, 0x0202, 0x0300, 0x0301, 0x0400, 0x0401,
    0x0402, 0x0403, 0x0404, 0x0405, 0x4000, 0x4100, 0x4101, 0x4102, 0x4103, 0x4200, 0x4201, 0x4202,
    0x4203, 0x4204, 0x4300, 0x4301, 0x4302, 0x4303, 0x4304, 0x4305, 0x4400, 0x4401, 0x4500, 0x4501,
    0x4502, 0x4503, 0x4504, 0x4505, 0x4700, 0x4701, 0x4702, 0x4800, 0x4801, 0x4802, 0x4803,
];
/// Commands of a fabric manager: to a switch, to a device of several logical devices, to
/// one of several heads, and about dynamic capacity.
const FABRIC: [u16; 30] = [
    0x5100, 0x5101, 0x5102, 0x5104, 0x5105, 0x5106, 0x5107, 0x5201, 0x5202, 0x5300, 0x5400, 0x5401,
    0x5402, 0x5403, 0x5404, 0x5405, 0x5406, 0x5407, 0x5408, 0x5409, 0x5500, 0x5600, 0x5601, 0x5602,
    0x5603, 0x5604, 0x5605, 0x5606, 0x5607, 0x5608,
];

/// How often one looks whether an operation in the background has ended.
const PATIENCE: usize = 500;

/// The library at the interface of a component.
struct Client<'a> {
    interface: &'a dyn Interface,
    /// What the component is, for whoever reads of it.
    name: &'static str,
    /// Opcodes of its commands.
    commands: BTreeSet<u16>,
    /// Opcodes that were sent, and served or refused as they had to be.
    asked: RefCell<BTreeSet<u16>>,
}

impl<'a> Client<'a> {
    /// Asks for the Command Effects Log.
    fn of(name: &'static str, interface: &'a dyn Interface) -> Result<Self> {
        let commands = logs::commands(interface)?;
        Ok(Self {
            interface,
            name,
            commands,
            asked: RefCell::new([0x0400, 0x0401].into()),
        })
    }

    fn has(&self, opcode: u16) -> bool {
        self.commands.contains(&opcode)
    }

    /// A command that succeeds.
    fn ask(&self, opcode: u16, input: &[u8]) -> Result<Vec<u8>> {
        self.asked.borrow_mut().insert(opcode);
        self.interface.run(opcode, input)
    }

    /// A command that succeeds, with an answer of `len` bytes.
    fn ask_for(&self, opcode: u16, input: &[u8], len: usize) -> Result<Vec<u8>> {
        let answer = self.ask(opcode, input)?;
        ensure!(
            answer.len() == len,
            "command {opcode:#06x} answers {} bytes, not {len}",
            answer.len()
        );
        Ok(answer)
    }

    /// A command that changes something, and has nothing to say.
    fn tell(&self, opcode: u16, input: &[u8]) -> Result<()> {
        self.ask_for(opcode, input, 0).map(|_| ())
    }

    /// A command that fails with this code.
    fn refused(&self, opcode: u16, input: &[u8], expected: u16) -> Result<()> {
        self.asked.borrow_mut().insert(opcode);
        let (code, _) = self.interface.send(opcode, input)?;
        ensure!(code == expected, Refusal { opcode, code });
        Ok(())
    }

    /// A command that goes on in the background, if its end was not there to be seen at once.
    fn begin(&self, opcode: u16, input: &[u8]) -> Result<()> {
        self.asked.borrow_mut().insert(opcode);
        let (code, _) = self.interface.send(opcode, input)?;
        ensure!(
            [BACKGROUND_STARTED, SUCCESS].contains(&code),
            Refusal { opcode, code }
        );
        Ok(())
    }

    /// Looks for something until it is there.
    fn until<T>(&self, what: &str, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
        for _ in 0..PATIENCE {
            if let Some(there) = look()? {
                return Ok(there);
            }
            self.interface.pause();
        }
        bail!("{what}: not in time");
    }

    /// Refuses what the library has and the component has not, and tells what was asked for. Nothing that both have is left out.
    fn finish(self) -> Result<()> {
        let known = COMMON.iter().chain(&MEMORY_DEVICE).chain(&FABRIC);
        let (common, others): (BTreeSet<u16>, BTreeSet<u16>) =
            known.partition(|opcode| self.has(**opcode));
        for opcode in &others {
            self.refused(*opcode, &[], UNSUPPORTED)?;
        }
        let asked = self.asked.borrow();
        let left_out: Vec<_> = common.difference(&asked).collect();
        ensure!(left_out.is_empty(), "not asked for: {left_out:04x?}");
        println!(
            r#"{{"test":"requests","of":"{}","served":{},"unsupported":{}}}"#,
            self.name,
            common.len(),
            others.len()
        );
        Ok(())
    }
}

/// What of `bytes` is at `at`, in units of 256 MiB, as bytes.
fn capacity(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(field(bytes, at, 8)? << 28)
}
