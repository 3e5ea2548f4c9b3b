use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::Part;
use pci::{Function, ResetKind};

use crate::MOST_EFFECTS;
use crate::input::Input;
use crate::type3::expander_with;

/// The BAR with the device's registers and mailbox, and that with the CPMU and the interrupt vectors behind it.
const DEVICE_BAR: (u8, u64) = (2, 0x1000);
const CPMU_BAR: (u8, u64) = (4, 0x2000);

/// Memory device registers and the CPMU, byte by byte as a guest reaches them: reads, writes of any width, resets; and time
/// that passes.
pub fn device_registers(data: &[u8]) {
    let mut input = Input::new(data);
    let time = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&time);
    let mut function = expander_with(Part::Whole, Box::new(move || clock.load(Ordering::Relaxed)));
    let mut effects = Vec::new();
    while !input.is_empty() {
        let operation = input.u8();
        let len = usize::from(operation >> 4);
        let (bar, size) = match operation & 0xf {
            10.. => CPMU_BAR,
            _ => DEVICE_BAR,
        };
        // The caller sees to it that an access lies in the BAR.
        let offset = u64::from(input.u16()) % (size - len as u64 + 1);
        match operation & 0xf {
            0 => function.reset(ResetKind::FunctionLevel, &mut effects),
            1..=3 => function.bar_read(bar, offset, &mut vec![0; len], &mut effects),
            4 => function.bar_write(bar, offset, &input.padded(len), &mut effects),
            5..=9 => function.bar_write(bar, offset & !7, &input.padded(8), &mut effects),
            10 => {
                let passed = input.u64();
                let _ = time.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                    Some(now.saturating_add(passed))
                });
                function.advance(&mut effects);
            }
            11 => function.bar_read(bar, offset, &mut vec![0; len], &mut effects),
            12 => function.count_reads(input.u64(), &mut effects),
            // Where the counters are.
            13 => {
                let register = [0x10, 0x18, 0x200, 0xc00][usize::from(operation >> 4) % 4];
                let offset = register + (offset & 0x38);
                function.bar_write(bar, offset, &input.padded(8), &mut effects);
            }
            _ => function.bar_write(bar, offset & !7, &input.padded(8), &mut effects),
        }
        assert!(effects.len() < MOST_EFFECTS, "{} effects", effects.len());
        effects.clear();
    }
}
