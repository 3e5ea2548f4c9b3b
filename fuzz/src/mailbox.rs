use pci::Function;

use crate::MOST_EFFECTS;
use crate::input::Input;
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

fn read_u64(function: &mut devices::Type3, offset: u64) -> u64 {
    let mut value = [0; 8];
    function.bar_read(DEVICE_BAR, offset, &mut value, &mut Vec::new());
    u64::from_le_bytes(value)
}

/// Where the capability array says that the mailbox is.
fn mailbox_offset(function: &mut devices::Type3) -> u64 {
    let count = read_u64(function, 0) >> 32 & 0xffff;
    (1..=count)
        .map(|index| {
            let low = read_u64(function, index * 0x10);
            (low as u16, low >> 32)
        })
        .find_map(|(id, offset)| (id == PRIMARY_MAILBOX).then_some(offset))
        .expect("a mailbox")
}

/// Commands through the mailbox's doorbell: opcodes of the sets there are, payloads of any length and contents.
pub fn mailbox(data: &[u8]) {
    let mut input = Input::new(data);
    let mut function = expander();
    let base = mailbox_offset(&mut function);
    let mut effects = Vec::new();
    while !input.is_empty() {
        let set = match input.u8() {
            wild @ 0xf0.. => wild,
            known @ 0x80.. => MORE_SETS[usize::from(known) % MORE_SETS.len()],
            known => SETS[usize::from(known) % SETS.len()],
        };
        let opcode = u64::from(set) << 8 | u64::from(input.u8());
        let len = usize::from(input.u16() % 0x120);
        // A length that is not the payload's, now and then.
        let told = match input.u8() {
            0 => input.u64() & 0x1f_ffff,
            _ => len as u64,
        };
        let payload = input.padded(len);
        for (line, chunk) in (0..).zip(payload.chunks(8)) {
            function.bar_write(DEVICE_BAR, base + PAYLOAD + line * 8, chunk, &mut effects);
        }
        let command = opcode | told << 16;
        function.bar_write(
            DEVICE_BAR,
            base + COMMAND,
            &command.to_le_bytes(),
            &mut effects,
        );
        function.bar_write(
            DEVICE_BAR,
            base + CONTROL,
            &1_u32.to_le_bytes(),
            &mut effects,
        );
        let code = read_u64(&mut function, base + STATUS) >> 32 & 0xffff;
        assert!(
            code <= LAST_RETURN_CODE,
            "opcode {opcode:#06x} returned {code:#x}"
        );
        assert!(
            effects.len() < MOST_EFFECTS,
            "opcode {opcode:#06x} has {} effects",
            effects.len()
        );
        effects.clear();
    }
}
