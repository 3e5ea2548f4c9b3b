//! Dynamic capacity: what the control socket gives and takes is mapped and unmapped.

use super::*;
use crate::control::{ChangeExtents, Extent, ExtentChange, FailureKind};
use crate::machine::extents;

const ADD_RESPONSE: u16 = 0x4802;
const RELEASE: u16 = 0x4803;
const BLOCK: u64 = 2 * MIB;
/// Where the second decoder shows the region.
const SHOWN: u64 = CAPACITY;

/// mem0 has 256 MiB of addresses for more behind its memory, and its second decoder shows them in window 0.
fn machine() -> Option<Machine> {
    let dynamic = "volatile = \"256MiB\"\n[[host_bridge.root_port.device.dynamic_capacity]]\nsize = \"256MiB\"";
    let machine = Machine::new(&THREE_EXPANDERS.replacen("volatile = \"256MiB\"", dynamic, 1))?;
    let window = machine.window(0);
    let range = |start, size| AddressRange { start, size };
    machine.commit_bridge(0, range(window, 2 * CAPACITY), interleaved(1, 256), 0);
    machine.commit_device(0, range(window, CAPACITY), interleaved(1, 256));
    let second = machine.device_registers(0) + 0x20;
    machine.commit(
        second,
        range(window + SHOWN, CAPACITY),
        interleaved(1, 256),
        0,
    );
    Some(machine)
}

/// So many blocks of the region, from one on.
fn blocks(first: u64, count: u64) -> Extent {
    Extent {
        dpa: CAPACITY + first * BLOCK,
        length: count * BLOCK,
        tag: String::new(),
    }
}

/// What a guest sends of extents.
fn list(extents: &[Extent]) -> Vec<u8> {
    let mut list = (extents.len() as u64).to_le_bytes().to_vec();
    for extent in extents {
        list.extend(
            [extent.dpa, extent.length, 0]
                .into_iter()
                .flat_map(u64::to_le_bytes),
        );
    }
    list
}

impl Machine {
    fn change(&self, change: ExtentChange) -> Result<(), FailureKind> {
        let request = ChangeExtents {
            device: "mem0".into(),
            change,
        };
        extents::change(&self.board, &request).map_err(|failure| failure.kind)
    }

    /// What is mapped of the region: first block, and how many.
    fn dynamic(&self) -> Vec<(u64, u64)> {
        let mapped = self.mapped().into_iter();
        let offset = |hpa: u64| hpa.checked_sub(self.window(0) + SHOWN);
        mapped
            .filter_map(|(hpa, len, at)| {
                let offset = offset(hpa)?;
                assert_eq!(at, CAPACITY + offset, "linear in the device's addresses");
                Some((offset / BLOCK, len / BLOCK))
            })
            .collect()
    }
}

#[test]
fn memory_is_there_from_the_guests_answer_to_its_release_and_comes_back_empty() {
    let Some(machine) = machine() else {
        return;
    };
    let at = |block: u64| machine.window(0) + SHOWN + block * BLOCK;
    assert_eq!(machine.mapped().len(), 1, "the memory that is always there");
    machine
        .change(ExtentChange::Add(vec![blocks(0, 4)]))
        .unwrap();
    assert_eq!(machine.dynamic(), [], "not accepted yet");
    assert_eq!(machine.read_u64(at(1)), u64::MAX);
    assert_eq!(machine.command(0, ADD_RESPONSE, &list(&[blocks(0, 4)])), 0);
    assert_eq!(machine.dynamic(), [(0, 4)]);
    for block in 0..4 {
        machine.store(at(block), b"a secret");
    }
    // What meets it does not touch it.
    machine
        .change(ExtentChange::Add(vec![blocks(4, 1)]))
        .unwrap();
    assert_eq!(machine.command(0, ADD_RESPONSE, &list(&[blocks(4, 1)])), 0);
    assert_eq!(machine.dynamic(), [(0, 4), (4, 1)]);

    assert_eq!(machine.command(0, RELEASE, &list(&[blocks(1, 2)])), 0);
    assert_eq!(machine.dynamic(), [(0, 1), (3, 1), (4, 1)]);
    assert_eq!(machine.read_u64(at(1)), u64::MAX);
    assert!(!machine.is_reachable(at(1)) && machine.is_reachable(at(3)));
    for (block, bytes) in [
        (0, b"a secret"),
        (1, &[0; 8]),
        (2, &[0; 8]),
        (3, b"a secret"),
    ] {
        assert_eq!(machine.media(0, CAPACITY + block * BLOCK, 8), bytes);
    }

    machine.change(ExtentChange::Release(blocks(3, 1))).unwrap();
    assert_eq!(machine.dynamic().len(), 3, "the guest is only asked");
    machine.change(ExtentChange::Take(blocks(3, 1))).unwrap();
    assert_eq!(machine.dynamic(), [(0, 1), (4, 1)]);
    assert_eq!(machine.media(0, CAPACITY + 3 * BLOCK, 8), [0; 8]);
}

#[test]
fn an_access_that_was_stopped_finds_what_is_back_in_its_window() {
    let Some(machine) = machine() else {
        return;
    };
    let window = machine.window(0);
    machine.store(window + 0x1000, b"a number");
    // As if the range had been away when the guest came, and is back.
    let number = u64::from_le_bytes(*b"a number");
    assert_eq!(machine.read_u64(window + 0x1000), number);
    machine.write_u64(window + 0x2000, number);
    assert_eq!(machine.media(0, 0x2000, 8), b"a number");
    assert_eq!(machine.count(Responder::UnmappedWindow(0)), 0);
    // Half in it, and at a bad line.
    machine
        .change(ExtentChange::Add(vec![blocks(0, 1)]))
        .unwrap();
    assert_eq!(machine.command(0, ADD_RESPONSE, &list(&[blocks(0, 1)])), 0);
    assert_eq!(machine.read_u64(window + SHOWN + BLOCK - 4), u64::MAX);
    let poison = (CAPACITY + 0x1000).to_le_bytes();
    assert_eq!(machine.command(0, mailbox::INJECT_POISON, &poison), 0);
    assert_eq!(machine.read_u64(window + SHOWN + 0x1040), u64::MAX);
}

#[test]
fn what_a_device_cannot_be_given_is_refused() {
    let Some(machine) = machine() else {
        return;
    };
    let half = Extent {
        length: BLOCK / 2,
        ..blocks(0, 1)
    };
    let tagged = |tag: &str| Extent {
        tag: tag.into(),
        ..blocks(0, 1)
    };
    for (change, kind) in [
        (ExtentChange::Add(vec![half]), FailureKind::BadRequest),
        (
            ExtentChange::Add(vec![blocks(128, 1)]),
            FailureKind::BadRequest,
        ),
        (ExtentChange::Add(vec![]), FailureKind::Conflict),
        (
            ExtentChange::Add(vec![tagged("c0f")]),
            FailureKind::BadRequest,
        ),
        (
            ExtentChange::Add(vec![tagged("gg")]),
            FailureKind::BadRequest,
        ),
        (
            ExtentChange::Add(vec![tagged(&"0".repeat(34))]),
            FailureKind::BadRequest,
        ),
        (ExtentChange::Release(blocks(0, 1)), FailureKind::Conflict),
        (ExtentChange::Take(blocks(0, 1)), FailureKind::Conflict),
    ] {
        assert_eq!(machine.change(change.clone()), Err(kind), "{change:?}");
    }
    machine
        .change(ExtentChange::Add(vec![tagged("c0ffee")]))
        .unwrap();
    let none = ChangeExtents {
        device: "mem1".into(),
        change: ExtentChange::Add(vec![blocks(0, 1)]),
    };
    let refused = extents::change(&machine.board, &none).unwrap_err();
    assert_eq!(refused.message, "mem1 has no dynamic capacity");
}
