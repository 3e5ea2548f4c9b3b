//! Poison by device address: which pages of the windows the guest can no longer access, and what the device says of it.

use cxl::event::Severity;
use cxl::memdev::poison::PoisonSource;
use devices::Device;

use super::mailbox::{CLEAR_POISON, INJECT_POISON};
use super::*;

const PAGE: u64 = 4096;

impl Machine {
    /// Lets lines of expander `number` go bad by themselves.
    fn spoil(&self, number: u32, dpa: u64, len: u64) {
        let node = self.expander(number);
        let mut state = self.board.lock();
        let mut effects = Vec::new();
        let result = state.hierarchy.with(node, &mut effects, |device, out| {
            let Device::Type3(device) = device else {
                panic!("an expander is a type3");
            };
            device.add_poison(dpa, len, PoisonSource::Internal, out)
        });
        assert_eq!(result, Some(Ok(())));
        self.board.perform(state, effects);
    }

    /// What expander `number` has logged as failures.
    fn failures(&self, number: u32) -> Vec<Vec<u8>> {
        let node = self.expander(number);
        let state = self.board.lock();
        let Some(Device::Type3(device)) = state.hierarchy.get(node) else {
            panic!("an expander is a type3");
        };
        let log = device.memdev().events().log(Severity::Failure);
        log.records().map(|record| record.to_vec()).collect()
    }

    /// Window 1 over mem0 and mem2, line by line of 256 bytes.
    fn commit_both(&self) -> AddressRange {
        let range = AddressRange {
            start: self.window(1),
            size: 2 * CAPACITY,
        };
        self.commit_bridge(0, range, interleaved(1, 256), 0);
        self.commit_bridge(1, range, interleaved(1, 256), 0);
        self.commit_device(0, range, interleaved(2, 256));
        self.commit_device(2, range, interleaved(2, 256));
        range
    }
}

#[test]
fn poison_in_a_set_keeps_the_guest_from_the_page_that_shows_it() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_both();
    // The second device's chunks are the odd ones: its 0x1040 is byte 0x40 of chunk 2 * 0x10 + 1.
    let line = range.start + (2 * 0x10 + 1) * 256 + 0x40;
    let page = line - line % PAGE;
    assert_eq!(
        machine.command(2, INJECT_POISON, &0x1040_u64.to_le_bytes()),
        0
    );
    assert_eq!(machine.map.poisoned(), [page]);
    assert_eq!(machine.board.poison(page), line, "a load is told the line");
    let clear = [&0x1040_u64.to_le_bytes()[..], &[0x5a; 64]].concat();
    assert_eq!(machine.command(2, CLEAR_POISON, &clear), 0);
    assert_eq!(machine.map.poisoned(), [] as [u64; 0]);
    assert_eq!(machine.media(2, 0x1040, 64), [0x5a; 64]);
}

#[test]
fn a_page_is_healed_with_its_last_bad_line() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_both();
    let clear = |number, dpa: u64| {
        let input = [&dpa.to_le_bytes()[..], &[0; 64]].concat();
        assert_eq!(machine.command(number, CLEAR_POISON, &input), 0);
    };
    machine.spoil(0, 0x40, 64);
    machine.spoil(2, 0, 128);
    assert_eq!(machine.map.poisoned(), [range.start]);
    for (number, dpa, told) in [(0, 0x40, 0x100), (2, 0, 0x140)] {
        clear(number, dpa);
        assert_eq!(machine.map.poisoned(), [range.start]);
        assert_eq!(machine.board.poison(range.start), range.start + told);
    }
    clear(2, 0x40);
    assert_eq!(machine.map.poisoned(), [] as [u64; 0]);
}

#[test]
fn the_device_whose_line_is_met_logs_it() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_both();
    assert_eq!(machine.command(2, INJECT_POISON, &[0; 8]), 0);
    assert_eq!(machine.failures(2).len(), 0, "nobody has met it yet");
    machine.board.poison(range.start);
    assert_eq!(
        [machine.failures(0).len(), machine.failures(2).len()],
        [0, 1]
    );
    machine.board.poison(range.start + PAGE);
    assert_eq!(machine.failures(2).len(), 1, "that page is good");
}

#[test]
fn poison_shows_up_with_the_window_and_goes_with_it() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    machine.spoil(0, 0x2000, 64);
    assert_eq!(machine.map.poisoned(), [] as [u64; 0]);
    let range = machine.commit_mem0();
    assert_eq!(machine.map.poisoned(), [range.start + 0x2000]);
    machine.enable_memory(0, false);
    assert_eq!(machine.map.poisoned(), [] as [u64; 0]);
    machine.enable_memory(0, true);
    assert_eq!(machine.map.poisoned(), [range.start + 0x2000]);
}
