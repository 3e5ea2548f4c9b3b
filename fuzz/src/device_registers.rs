use pci::{Function, ResetKind};

use crate::MOST_EFFECTS;
use crate::input::Input;
use crate::type3::expander;

/// The BAR with the device's registers and mailbox.
const DEVICE_BAR: u8 = 2;
const BAR_SIZE: u64 = 0x1000;

/// Memory device registers, byte by byte as a guest reaches them: reads, writes of any width, resets.
pub fn device_registers(data: &[u8]) {
    let mut input = Input::new(data);
    let mut function = expander();
    let mut effects = Vec::new();
    while !input.is_empty() {
        let operation = input.u8();
        let len = usize::from(operation >> 4);
        // The caller sees to it that an access lies in the BAR.
        let offset = u64::from(input.u16()) % (BAR_SIZE - len as u64 + 1);
        match operation & 0xf {
            0 => function.reset(ResetKind::FunctionLevel, &mut effects),
            1..=3 => function.bar_read(DEVICE_BAR, offset, &mut vec![0; len], &mut effects),
            4 => function.bar_write(DEVICE_BAR, offset, &input.padded(len), &mut effects),
            _ => function.bar_write(DEVICE_BAR, offset & !7, &input.padded(8), &mut effects),
        }
        assert!(effects.len() < MOST_EFFECTS, "{} effects", effects.len());
        effects.clear();
    }
}
