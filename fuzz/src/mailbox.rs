use cxl::memdev::dynamic::Extent;
use pci::Function;

use crate::MOST_EFFECTS;
use crate::input::Input;
use crate::switch::{self, Switch};
use crate::type3::expander;

/// The BAR with the device's registers, and the mailbox's registers in it.
const DEVICE_BAR: u8 = 2;
/// The capability id of the primary mailbox (CXL 3.1 section 8.2.8.2.1).
const PRIMARY_MAILBOX: u16 = 2;
/// Registers of a mailbox (section 8.2.8.4).
const CONTROL: u64 = 0x4;
const COMMAND: u64 = 0x8;
const STATUS: u64 = 0x10;
const PAYLOAD: u64 = 0x20;
/// The greatest return code that a 6.12 kernel has a name for.
const LAST_RETURN_CODE: u64 = 0x1e;
/// Command sets, opcode bits 15:8, that expanders have.
const SETS: [u8; 9] = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x43, 0x44, 0x48];
/// More command sets, of which Identify, partitions and our vendor commands are.
const MORE_SETS: [u8; 7] = [0x40, 0x41, 0x42, 0x45, 0x46, 0x00, 0xc0];

/// Where the expander's dynamic capacity begins.
const DYNAMIC: u64 = 768 << 20;

/// Reads eight bytes at an offset.
type Read<'a> = &'a mut dyn FnMut(u64) -> u64;

/// Where the capability array says that the mailbox is.
fn mailbox_offset(read: Read<'_>) -> u64 {
    let count = read(0) >> 32 & 0xffff;
    (1..=count)
        .map(|index| {
            let low = read(index * 0x10);
            (low as u16, low >> 32)
        })
        .find_map(|(id, offset)| (id == PRIMARY_MAILBOX).then_some(offset))
        .expect("a mailbox")
}

/// Commands through a mailbox's doorbell, of an expander or of a switch above some: opcodes of the sets there are, payloads of
/// any length and contents.
pub fn mailbox(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8().is_multiple_of(2) {
        of_expander(&mut input);
    } else {
        of_switch(&mut input);
    }
}

fn of_expander(input: &mut Input<'_>) {
    let mut function = expander();
    // Some memory for the host to accept.
    for number in 0..4 {
        let extent = Extent {
            dpa: DYNAMIC + number * (2 << 20),
            len: 2 << 20,
            ..Extent::default()
        };
        function
            .offer_extents(&[extent], &mut Vec::new())
            .expect("blocks of the region");
    }
    let read = |function: &mut devices::Type3, offset| {
        let mut value = [0; 8];
        function.bar_read(DEVICE_BAR, offset, &mut value, &mut Vec::new());
        u64::from_le_bytes(value)
    };
    let base = mailbox_offset(&mut |offset| read(&mut function, offset));
    while !input.is_empty() {
        let set = match input.u8() {
            wild @ 0xf0.. => wild,
            known @ 0x80.. => MORE_SETS[usize::from(known) % MORE_SETS.len()],
            known => SETS[usize::from(known) % SETS.len()],
        };
        let opcode = u16::from(set) << 8 | u16::from(input.u8());
        let len = usize::from(input.u16() % 0x120);
        let told = told_length(input, len);
        let payload = input.padded(len);
        let effects = ring(base, opcode, told, &payload, &mut |offset, data| {
            let mut effects = Vec::new();
            function.bar_write(DEVICE_BAR, offset, data, &mut effects);
            effects.len()
        });
        check(opcode, read(&mut function, base + STATUS), effects);
    }
}

fn of_switch(input: &mut Input<'_>) {
    let mut switch = Switch::new();
    let read = |switch: &mut Switch, offset| {
        let mut value = [0; 8];
        switch.read(offset, &mut value);
        u64::from_le_bytes(value)
    };
    let base = mailbox_offset(&mut |offset| read(&mut switch, offset));
    while !input.is_empty() {
        let (opcode, payload) = switch::command(input);
        let told = told_length(input, payload.len());
        let effects = ring(base, opcode, told, &payload, &mut |offset, data| {
            switch.write(offset, data)
        });
        assert_eq!(
            read(&mut switch, base) >> 32 & 1,
            0,
            "the command has ended"
        );
        check(opcode, read(&mut switch, base + STATUS), effects);
    }
}

/// A length that is not the payload's, now and then.
fn told_length(input: &mut Input<'_>, len: usize) -> u64 {
    match input.u8() {
        0 => input.u64() & 0x1f_ffff,
        _ => len as u64,
    }
}

/// Puts a command into the registers and rings the doorbell; gives how many effects that has.
fn ring(
    base: u64,
    opcode: u16,
    told: u64,
    payload: &[u8],
    write: &mut dyn FnMut(u64, &[u8]) -> usize,
) -> usize {
    for (line, chunk) in (0..).zip(payload.chunks(8)) {
        write(base + PAYLOAD + line * 8, chunk);
    }
    let command = u64::from(opcode) | told << 16;
    write(base + COMMAND, &command.to_le_bytes());
    write(base + CONTROL, &1_u32.to_le_bytes())
}

fn check(opcode: u16, status: u64, effects: usize) {
    let code = status >> 32 & 0xffff;
    assert!(
        code <= LAST_RETURN_CODE,
        "opcode {opcode:#06x} returned {code:#x}"
    );
    assert!(
        effects < MOST_EFFECTS,
        "opcode {opcode:#06x} has {effects} effects"
    );
}
