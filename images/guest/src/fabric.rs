//! A fabric manager that asks the switches of this machine what they have, by their mailboxes (CXL 3.1 sections 7.6 and 8.2.8).
//! No driver of the kernel's does: from sysfs alone.

use crate::interface::{BACKGROUND_STARTED, Interface, Refusal, Target, Tunnel, field};
use crate::pci_sysfs::{Bar, Function};
use crate::requests;
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};

/// CXL fabric management host interface (PCI Code and ID Assignment Specification).
const CLASS: u64 = 0x0c_0b00;
/// DVSEC of the CXL Consortium with the register locator, and the block of device registers in it (section 8.1.9).
const DVSEC: u64 = 0x23;
const CXL: u64 = 0x1e98;
const REGISTER_LOCATOR: u64 = 8;
const DEVICE_REGISTERS: u64 = 3;
/// The primary mailbox in the capability array (section 8.2.8.2.1), and its registers (section 8.2.8.4).
const PRIMARY_MAILBOX: u64 = 2;
const CONTROL: u64 = 0x04;
const COMMAND: u64 = 0x08;
const STATUS: u64 = 0x10;
const PAYLOAD: u64 = 0x20;
/// How long a command may take (section 8.2.8.4.4), and how long this host to let a device go.
const PATIENCE: Duration = Duration::from_secs(2);
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Commands.
const IDENTIFY: u16 = 0x0001;
const BACKGROUND_OPERATION_STATUS: u16 = 0x0002;
const IDENTIFY_MEMORY_DEVICE: u16 = 0x4000;
const IDENTIFY_SWITCH: u16 = 0x5100;
const PORT_STATE: u16 = 0x5101;
const VIRTUAL_SWITCH_INFO: u16 = 0x5200;
const BIND: u16 = 0x5201;
const UNBIND: u16 = 0x5202;
const LD_INFO: u16 = 0x5400;

/// Types of devices behind a port (section 7.6.7.1.2).
const SINGLE: u8 = 4;
const SEVERAL: u8 = 5;
/// The state of a downstream port.
const DOWNSTREAM: u8 = 3;
/// A bridge of a virtual switch is bound to a port as a whole, or to a logical device.
const BOUND_PORT: u8 = 2;
const BOUND_LD: u8 = 3;

/// A mailbox.
struct Mailbox {
    registers: Bar,
    base: u64,
}

/// Where a function has its device registers.
fn device_registers(function: &Function) -> Result<(usize, u64)> {
    let mut at = 0x100;
    while at != 0 {
        let header = function.config_read(at, 4)?;
        let (vendor, id) = (
            function.config_read(at + 4, 2)?,
            function.config_read(at + 8, 2)?,
        );
        if header & 0xffff == DVSEC && vendor == CXL && id == REGISTER_LOCATOR {
            let len = function.config_read(at + 4, 4)? >> 20;
            for entry in (at + 0xc..at + len).step_by(8) {
                let low = function.config_read(entry, 4)?;
                if low >> 8 & 0xff == DEVICE_REGISTERS {
                    let offset = low & 0xffff_0000 | function.config_read(entry + 4, 4)? << 32;
                    return Ok((usize::try_from(low & 7)?, offset));
                }
            }
        }
        at = header >> 20;
    }
    bail!("no register locator leads to device registers")
}

impl Mailbox {
    fn of(function: &Function) -> Result<Self> {
        function.unbind();
        let (bar, block) = device_registers(function)?;
        let registers = function.map_bar(bar)?;
        let count = registers.read(block, 8) >> 32 & 0xffff;
        let headers = (1..=count).map(|index| registers.read(block + 0x10 * index, 8));
        let mailbox = headers
            .into_iter()
            .find(|header| header & 0xffff == PRIMARY_MAILBOX)
            .context("no mailbox")?;
        let base = block + (mailbox >> 32);
        Ok(Self { registers, base })
    }

    /// Runs a command that goes on in the background, and waits for its end.
    fn run_to_the_end(&self, opcode: u16, input: &[u8]) -> Result<()> {
        let (code, _) = self.send(opcode, input)?;
        ensure!(code == BACKGROUND_STARTED, Refusal { opcode, code });
        let begin = Instant::now();
        loop {
            let status = self.run(BACKGROUND_OPERATION_STATUS, &[])?;
            let [running, _, low, high, code, ..] = status[..] else {
                bail!("a short status");
            };
            let last = u16::from_le_bytes([low, high]);
            ensure!(last == opcode, "{last:#06x} runs, not {opcode:#06x}");
            if running & 1 == 0 {
                ensure!(code == 0, "command {opcode:#06x} ends with {code:#x}");
                return Ok(());
            }
            ensure!(begin.elapsed() < LONG_PATIENCE, "{opcode:#06x} has no end");
            self.pause();
        }
    }

    /// Runs a command of what is behind a port, and, if `ld` is there, of that logical device of it.
    fn ask(&self, port: u8, ld: Option<u8>, opcode: u16) -> Result<Vec<u8>> {
        let behind = Tunnel {
            through: self,
            to: Target::Number(port),
        };
        match ld {
            None => behind.run(opcode, &[]),
            Some(ld) => Tunnel {
                through: &behind,
                to: Target::Number(ld),
            }
            .run(opcode, &[]),
        }
    }
}

impl Interface for Mailbox {
    fn send(&self, opcode: u16, input: &[u8]) -> Result<(u16, Vec<u8>)> {
        for (line, chunk) in (0..).zip(input.chunks(8)) {
            let mut value = [0; 8];
            value[..chunk.len()].copy_from_slice(chunk);
            let at = self.base + PAYLOAD + 8 * line;
            self.registers.write(at, 8, u64::from_le_bytes(value));
        }
        let command = u64::from(opcode) | (input.len() as u64) << 16;
        self.registers.write(self.base + COMMAND, 8, command);
        self.registers.write(self.base + CONTROL, 4, 1);
        let begin = Instant::now();
        while self.registers.read(self.base + CONTROL, 4) & 1 != 0 {
            ensure!(begin.elapsed() < PATIENCE, "command {opcode:#06x} hangs");
        }
        let code = self.registers.read(self.base + STATUS, 8) >> 32 & 0xffff;
        let len = self.registers.read(self.base + COMMAND, 8) >> 16 & 0x1f_ffff;
        let bytes = (0..len).map(|at| self.registers.read(self.base + PAYLOAD + at, 1));
        Ok((code as u16, bytes.map(|byte| byte as u8).collect()))
    }
}

/// Prints a line for each switch with a mailbox, and for each of its ports, with what is behind it: what that says of itself,
/// or with which return code it does not. A device whose slot the host has switched off says nothing for now.
///
/// # Errors
/// There is no such switch, or it does not answer as the specification says.
pub fn show() -> Result<bool> {
    for mailbox in mailboxes()? {
        show_switch(&mailbox)?;
    }
    Ok(true)
}

/// The mailboxes of all switches; there is one.
fn mailboxes() -> Result<Vec<Mailbox>> {
    let mut found = Vec::new();
    for function in Function::all()? {
        // What is taken out meanwhile is no switch's.
        let class = function.config_read(8, 4);
        if class.is_ok_and(|class| class >> 8 == CLASS) {
            found.push(Mailbox::of(&function)?);
        }
    }
    ensure!(!found.is_empty(), "no switch has a mailbox");
    Ok(found)
}

/// Takes what is behind a port of the first switch from this host.
///
/// # Errors
/// As [`show`], or the host does not let it go.
pub fn unbind(port: u64, how: &str) -> Result<bool> {
    let option = match how {
        "wait" => 0,
        "orderly" => 1,
        "surprise" => 2,
        _ => bail!("{how} is no way to unbind a port"),
    };
    let mailbox = mailboxes()?.swap_remove(0);
    mailbox.run_to_the_end(UNBIND, &[0, u8::try_from(port)?, option])?;
    show_switch(&mailbox)?;
    Ok(true)
}

/// Gives this host what is behind a port of the first switch, which is no logical device.
///
/// # Errors
/// As [`show`].
pub fn bind(port: u64) -> Result<bool> {
    let mailbox = mailboxes()?.swap_remove(0);
    let port = u8::try_from(port)?;
    mailbox.run_to_the_end(BIND, &[0, port, port, 0, 0xff, 0xff])?;
    show_switch(&mailbox)?;
    Ok(true)
}

/// Asks the first switch, and what is behind each of its ports, all that a fabric manager's library does; holds what is behind
/// `port`, which is not bound, in reset meanwhile.
///
/// # Errors
/// As [`show`], or one of them does not do what it was asked for.
pub fn ask_all(port: u64) -> Result<bool> {
    let mailbox = mailboxes()?.swap_remove(0);
    requests::fabric::switch(&mailbox, u8::try_from(port)?)?;
    Ok(true)
}

fn show_switch(mailbox: &Mailbox) -> Result<()> {
    let identity = mailbox.run(IDENTIFY, &[])?;
    ensure!(identity.get(17) == Some(&0), "no switch: {identity:x?}");
    let switch = mailbox.run(IDENTIFY_SWITCH, &[])?;
    let [upstream, _, ports, ..] = switch[..] else {
        bail!("a short identity");
    };
    println!(
        r#"{{"switch": {}, "upstream": {upstream}, "ports": {ports}, "decoders": {}}}"#,
        field(&identity, 8, 8)?,
        switch.get(72).context("a short identity")?,
    );
    let is_active = |port: &u8| switch[4 + usize::from(port / 8)] >> (port % 8) & 1 != 0;
    let active: Vec<u8> = (0..=255).filter(is_active).collect();
    ensure!(
        active.len() == usize::from(ports),
        "{active:?} are not {ports}"
    );
    let request = [&[ports][..], &active].concat();
    let states = mailbox.run(PORT_STATE, &request)?;
    let bridges = mailbox.run(VIRTUAL_SWITCH_INFO, &[0, 0xff, 1, 0])?;
    for state in states[4..].chunks_exact(16) {
        show_port(mailbox, state, &bridges[8..])?;
    }
    Ok(())
}

fn show_port(mailbox: &Mailbox, state: &[u8], bridges: &[u8]) -> Result<()> {
    let (port, kind, width, speed) = (state[0], state[4], state[7], state[10]);
    let mut bridges = bridges.chunks_exact(4);
    let bound = bridges.find(|bridge| bridge[0] >= BOUND_PORT && bridge[1] == port);
    let ld = bound.filter(|bridge| bridge[0] == BOUND_LD);
    let ld = ld.map(|bridge| bridge[2]).filter(|_| kind == SEVERAL);
    let behind = match kind {
        SEVERAL if ld.is_none() => String::new(),
        SINGLE | SEVERAL => device(mailbox, port, ld).or_else(without_answer)?,
        _ => String::new(),
    };
    let state = state[1] & 0xf;
    let note = match bound {
        None if state == DOWNSTREAM => r#", "bound": false"#,
        _ => "",
    };
    println!(
        r#"{{"port": {port}, "state": {state}, "type": {kind}, "width": {width}, "speed": {speed}{behind}{note}}}"#
    );
    Ok(())
}

/// What a device behind a port says of itself.
fn device(mailbox: &Mailbox, port: u8, ld: Option<u8>) -> Result<String> {
    let identity = mailbox.ask(port, None, IDENTIFY)?;
    let memory = mailbox.ask(port, ld, IDENTIFY_MEMORY_DEVICE)?;
    let whole = match ld {
        Some(_) => field(&mailbox.ask(port, None, LD_INFO)?, 0, 8)?,
        None => field(&memory, 0x10, 8)? << 28,
    };
    Ok(format!(
        r#", "serial": {}, "memory": {}, "of": {whole}"#,
        field(&identity, 8, 8)?,
        field(&memory, 0x10, 8)? << 28,
    ))
}

/// What there is to say of a device that refuses to say anything.
fn without_answer(error: anyhow::Error) -> Result<String> {
    let refusal: Refusal = error.downcast()?;
    Ok(format!(r#", "returns": {}"#, refusal.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refuses_to_answer_is_listed_with_its_code() {
        let refusal = Refusal {
            opcode: 0x4000,
            code: 5,
        };
        assert_eq!(refusal.to_string(), "command 0x4000 returns 0x5");
        let listed = without_answer(refusal.into()).unwrap();
        assert_eq!(listed, r#", "returns": 5"#);
        let garbled = field(&[], 0, 8).unwrap_err();
        assert!(without_answer(garbled).is_err());
    }
}
