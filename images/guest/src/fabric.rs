//! A fabric manager that asks the switches of this machine what they have, by their mailboxes (CXL 3.1 sections 7.6 and 8.2.8).
//! No driver of the kernel's does: from sysfs alone.

use crate::pci_sysfs::{Bar, Function};
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::thread;
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
/// Return code of a command that goes on in the background.
const BACKGROUND_STARTED: u64 = 1;

/// Commands.
const IDENTIFY: u16 = 0x0001;
const BACKGROUND_OPERATION_STATUS: u16 = 0x0002;
const IDENTIFY_MEMORY_DEVICE: u16 = 0x4000;
const IDENTIFY_SWITCH: u16 = 0x5100;
const PORT_STATE: u16 = 0x5101;
const VIRTUAL_SWITCH_INFO: u16 = 0x5200;
const BIND: u16 = 0x5201;
const UNBIND: u16 = 0x5202;
const TUNNEL: u16 = 0x5300;
const LD_INFO: u16 = 0x5400;

/// Types of devices behind a port (section 7.6.7.1.2).
const SINGLE: u8 = 4;
const SEVERAL: u8 = 5;
/// The state of a downstream port.
const DOWNSTREAM: u8 = 3;
/// A bridge of a virtual switch is bound to a port as a whole, or to a logical device.
const BOUND_PORT: u8 = 2;
const BOUND_LD: u8 = 3;

/// A command that has ended with another return code than success.
#[derive(Debug)]
struct Refusal {
    opcode: u16,
    code: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opcode, code } = self;
        write!(f, "command {opcode:#06x} returns {code:#x}")
    }
}

impl std::error::Error for Refusal {}

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

    /// Runs a command that succeeds.
    fn run(&self, opcode: u16, input: &[u8]) -> Result<Vec<u8>> {
        let (code, reply) = self.begin(opcode, input)?;
        ensure!(code == 0, Refusal { opcode, code });
        Ok(reply)
    }

    /// Runs a command that goes on in the background, and waits for its end.
    fn run_to_the_end(&self, opcode: u16, input: &[u8]) -> Result<()> {
        let (code, _) = self.begin(opcode, input)?;
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
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command, and gives its return code and its output.
    fn begin(&self, opcode: u16, input: &[u8]) -> Result<(u64, Vec<u8>)> {
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
        Ok((code, bytes.map(|byte| byte as u8).collect()))
    }

    /// Runs a command of what is behind a port, and, if `ld` is there, of that logical device of it.
    fn ask(&self, port: u8, ld: Option<u8>, opcode: u16) -> Result<Vec<u8>> {
        let mut message = request(opcode, &[]);
        if let Some(ld) = ld {
            message = request(TUNNEL, &tunnel(ld, &message));
        }
        let mut reply = self.run(TUNNEL, &tunnel(port, &message))?;
        for _ in 0..=usize::from(ld.is_some()) {
            reply = answer(reply.get(4..).context("a short answer")?)?;
        }
        Ok(reply)
    }
}

/// A message that asks for a command (section 7.6.3).
fn request(opcode: u16, payload: &[u8]) -> Vec<u8> {
    let [low, high] = opcode.to_le_bytes();
    let [len_low, len_high] = (payload.len() as u16).to_le_bytes();
    let header = [0, 0, 0, low, high, len_low, len_high, 0, 0, 0, 0, 0];
    [&header[..], payload].concat()
}

/// The payload of a message that answers, if the command has succeeded.
fn answer(message: &[u8]) -> Result<Vec<u8>> {
    let header = message.get(..12).context("a short message")?;
    ensure!(header[0] & 0xf == 1, "no answer: {header:x?}");
    let code = u64::from(u16::from_le_bytes([header[8], header[9]]));
    let opcode = u16::from_le_bytes([header[3], header[4]]);
    ensure!(code == 0, Refusal { opcode, code });
    Ok(message[12..].to_vec())
}

/// The input payload of a tunnel.
fn tunnel(number: u8, message: &[u8]) -> Vec<u8> {
    let [low, high] = (message.len() as u16).to_le_bytes();
    [&[number, 0, low, high][..], message].concat()
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + 8).context("a short payload")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
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

fn show_switch(mailbox: &Mailbox) -> Result<()> {
    let identity = mailbox.run(IDENTIFY, &[])?;
    ensure!(identity.get(17) == Some(&0), "no switch: {identity:x?}");
    let switch = mailbox.run(IDENTIFY_SWITCH, &[])?;
    let [upstream, _, ports, ..] = switch[..] else {
        bail!("a short identity");
    };
    println!(
        r#"{{"switch": {}, "upstream": {upstream}, "ports": {ports}, "decoders": {}}}"#,
        u64_at(&identity, 8)?,
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
        Some(_) => u64_at(&mailbox.ask(port, None, LD_INFO)?, 0)?,
        None => u64_at(&memory, 0x10)? << 28,
    };
    Ok(format!(
        r#", "serial": {}, "memory": {}, "of": {whole}"#,
        u64_at(&identity, 8)?,
        u64_at(&memory, 0x10)? << 28,
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
    fn an_answer_gives_its_payload_or_its_code() {
        let mut message = request(0x4000, &[7]);
        assert!(answer(&message).is_err(), "a request");
        message[0] = 1;
        assert_eq!(answer(&message).unwrap(), [7]);
        message[8] = 2;
        let error = answer(&message).unwrap_err().to_string();
        assert_eq!(error, "command 0x4000 returns 0x2");
        assert!(answer(&message[..11]).is_err());
    }

    #[test]
    fn what_refuses_to_answer_is_listed_with_its_code() {
        let mut message = request(0x4000, &[]);
        message[0] = 1;
        message[8] = 5;
        let refusal = answer(&message).unwrap_err();
        assert_eq!(without_answer(refusal).unwrap(), r#", "returns": 5"#);
        let garbled = answer(&[]).unwrap_err();
        assert!(without_answer(garbled).is_err());
    }
}
