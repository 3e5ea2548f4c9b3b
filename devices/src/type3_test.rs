//! The memory expander, read like its data sheet: CXL 3.1 sections 8.1 and 8.2, PCIe 6.0 section 7.

use cxl::Interleave;
use cxl::hdm::{DecoderSettings, Destination};
use cxl::memdev::dynamic::{DynamicRegion, Extent};
use pci::{Function, MsiMessage, ResetKind, spec};

use crate::Type3;
use crate::testing::{Asked, LABELS, MIB, Probe, expander, expander_config};

/// BARs of the component registers, the device registers and the CPMU.
const COMPONENT: u8 = 0;
const DEVICE: u8 = 2;
const COUNTERS: u8 = 4;
/// Vectors and their pending bits, behind the counters.
const VECTORS: u64 = 0x1000;

/// The HDM decoder structure in the component registers, and its global control register.
const GLOBAL_CONTROL: u64 = 0x1204;
const GLOBAL_ENABLE: u32 = 1 << 1;
/// Base, size and control of decoder 0.
const BASE: u64 = 0x1210;
const SIZE: u64 = 0x1218;
const CONTROL: u64 = 0x1220;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;

/// CXL Control, CXL Lock and the base of range 1, from the start of the DVSEC.
const CXL_CONTROL: u16 = 0x0c;
const MEM_ENABLE: u16 = 1 << 2;
const IO_ENABLE: u16 = 1 << 1;
const CXL_CONTROL2: u16 = 0x10;
const INITIATE_CXL_RESET: u16 = 1 << 2;
const CXL_RESET_MEM_CLEAR: u16 = 1 << 3;
const CXL_STATUS2: u16 = 0x12;
const CXL_RESET_COMPLETE: u16 = 1 << 1;
const CXL_LOCK: u16 = 0x14;
const RANGE_BASE_HIGH: u16 = 0x20;

/// Device Control of the PCI Express capability, and its bit that resets the function.
const DEVICE_CONTROL: u16 = 0x08;
const INITIATE_FLR: u16 = 1 << 15;

const RESETS: [ResetKind; 3] = [
    ResetKind::Conventional,
    ResetKind::SecondaryBus,
    ResetKind::FunctionLevel,
];
/// Those that reach CXL.mem: all but a function level reset.
const CONVENTIONAL: [ResetKind; 2] = [ResetKind::Conventional, ResetKind::SecondaryBus];

fn probe() -> Probe<Type3> {
    Probe::new(expander())
}

/// Commits decoder 0 for 256 MiB at 64 GiB, as a driver does.
fn commit(device: &mut Probe<Type3>) {
    device.set_bar_u32(COMPONENT, GLOBAL_CONTROL, GLOBAL_ENABLE);
    device.set_bar_u64(COMPONENT, BASE, 64 << 30);
    device.set_bar_u64(COMPONENT, SIZE, 256 * MIB);
    device.set_bar_u32(COMPONENT, CONTROL, COMMIT);
}

#[test]
fn it_is_a_memory_expander() {
    let device = probe();
    assert_eq!(device.config_u32(spec::header::VENDOR_ID), 0x0d93_8086);
    assert_eq!(
        device.config_u32(spec::header::REVISION_ID) >> 8,
        0x05_0210,
        "CXL memory device"
    );
    assert_eq!(
        device.config_u8(spec::header::HEADER_TYPE),
        0,
        "one function, type 0"
    );
    let [serial] = device.extended(spec::extended::DEVICE_SERIAL_NUMBER)[..] else {
        panic!("one serial number")
    };
    let half = |at| u64::from(device.config_u32(serial + at));
    assert_eq!(half(4) | half(8) << 32, 0x1122_3344_5566_7788);
}

#[test]
fn it_has_the_dvsecs_of_a_type_3_device() {
    let ids: Vec<u16> = probe().dvsecs().into_iter().map(|(id, _)| id).collect();
    // Device, global persistent flush, Flex Bus port, register locator.
    assert_eq!(ids, [0, 5, 7, 8]);
}

#[test]
fn the_dvsec_tells_its_capacity_and_that_it_is_active() {
    let device = probe();
    let dvsec = device.dvsec(0);
    assert_eq!(device.config_u32(dvsec + 0x18), 0, "size, bits 63:32");
    let size = device.config_u32(dvsec + 0x1c);
    assert_eq!(u64::from(size & 0xf000_0000), 768 * MIB);
    assert_eq!(size & 3, 3, "valid and active");
}

#[test]
fn the_register_locator_leads_to_component_device_and_cpmu_registers() {
    let mut device = probe();
    assert_eq!(
        device.register_blocks(),
        [(1, COMPONENT), (3, DEVICE), (4, COUNTERS)]
    );
    // The CXL capability header, with three structures; the device capabilities array, with three as well; the CPMU's version.
    assert_eq!(device.bar_u32(COMPONENT, 0x1000), 0x0311_0001);
    assert_eq!(device.bar_u64(DEVICE, 0), 0x0000_0003_0101_0000);
    assert_eq!(device.bar_u64(COUNTERS, 0) >> 60, 1);
    assert_eq!(device.bar_size(COMPONENT), 64 << 10);
    assert_eq!(device.bar_size(DEVICE), 4 << 10);
    assert_eq!(device.bar_size(COUNTERS), 8 << 10);
}

#[test]
fn a_commit_and_a_release_change_what_it_decodes() {
    let mut device = probe();
    commit(&mut device);
    assert_eq!(
        device.asked(),
        Asked {
            decoders_changed: true,
            ..Asked::default()
        }
    );
    assert_eq!(device.bar_u32(COMPONENT, CONTROL) & COMMITTED, COMMITTED);
    assert_eq!(
        device.function.component().endpoint_decoders()[0].base,
        64 << 30
    );

    device.set_bar_u32(COMPONENT, CONTROL, 0);
    assert_eq!(
        device.asked(),
        Asked {
            decoders_changed: true,
            ..Asked::default()
        }
    );
    assert!(device.function.component().endpoint_decoders().is_empty());
}

#[test]
fn mem_enable_changes_what_it_decodes() {
    let mut device = probe();
    let control = device.dvsec(0) + CXL_CONTROL;
    assert_eq!(device.config_u16(control), IO_ENABLE);
    let changed = Asked {
        decoders_changed: true,
        ..Asked::default()
    };
    for (value, enabled, asked) in [
        (MEM_ENABLE, true, &changed),
        (MEM_ENABLE, true, &Asked::default()),
        (0, false, &changed),
        (0, false, &Asked::default()),
    ] {
        device.set_config_u16(control, value);
        assert_eq!(device.function.mem_enable(), enabled);
        assert_eq!(device.asked(), *asked);
        assert_eq!(
            device.config_u16(control) & IO_ENABLE,
            IO_ENABLE,
            "CXL.io cannot be disabled"
        );
    }
}

#[test]
fn config_lock_freezes_the_dvsec_until_a_conventional_reset() {
    for kind in CONVENTIONAL {
        let mut device = probe();
        let dvsec = device.dvsec(0);
        device.set_config_u16(dvsec + CXL_CONTROL, MEM_ENABLE);
        device.set_config_u32(dvsec + RANGE_BASE_HIGH, 0x10);
        device.set_config_u16(dvsec + CXL_LOCK, 1);
        device.asked();

        device.set_config_u16(dvsec + CXL_CONTROL, 0);
        device.set_config_u32(dvsec + RANGE_BASE_HIGH, 0x20);
        device.set_config_u16(dvsec + CXL_LOCK, 0);
        assert_eq!(device.asked(), Asked::default());
        assert!(device.function.mem_enable());
        assert_eq!(device.config_u32(dvsec + RANGE_BASE_HIGH), 0x10);
        assert_eq!(device.config_u16(dvsec + CXL_LOCK), 1);

        device.reset(ResetKind::FunctionLevel);
        device.set_config_u32(dvsec + RANGE_BASE_HIGH, 0x20);
        assert!(device.function.mem_enable());
        assert_eq!(device.config_u32(dvsec + RANGE_BASE_HIGH), 0x10);

        device.reset(kind);
        assert_eq!(device.config_u16(dvsec + CXL_LOCK), 0, "{kind:?}");
        assert!(!device.function.mem_enable(), "{kind:?}");
        device.set_config_u32(dvsec + RANGE_BASE_HIGH, 0x30);
        assert_eq!(device.config_u32(dvsec + RANGE_BASE_HIGH), 0x30, "{kind:?}");
    }
}

#[test]
fn a_conventional_reset_releases_decoders_and_restores_reset_values() {
    for kind in CONVENTIONAL {
        let mut device = probe();
        let fresh = device.image();
        commit(&mut device);
        let control = device.dvsec(0) + CXL_CONTROL;
        device.set_config_u16(control, MEM_ENABLE);
        device.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
        assert_ne!(device.image(), fresh);
        device.asked();

        device.reset(kind);
        let asked = device.asked();
        assert!(
            asked.decoders_changed && asked.bars_changed,
            "{kind:?}: {asked:?}"
        );
        assert!(device.function.component().endpoint_decoders().is_empty());
        assert_eq!(device.image(), fresh, "{kind:?}");
    }
}

#[test]
fn a_driver_resets_cxl_io_alone_through_device_control() {
    let mut device = probe();
    let express = device.capability(spec::capability::PCI_EXPRESS).unwrap();
    commit(&mut device);
    device.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
    device.asked();
    let value = device.config_u16(express + DEVICE_CONTROL);
    device.set_config_u16(express + DEVICE_CONTROL, value | INITIATE_FLR);
    let asked = device.asked();
    assert!(!asked.decoders_changed && asked.bars_changed, "{asked:?}");
    assert_eq!(device.config_u16(spec::header::COMMAND), 0);
    assert_eq!(device.bar_u32(COMPONENT, CONTROL) & COMMITTED, COMMITTED);
}

#[test]
fn a_cxl_reset_takes_the_memory_out_of_the_hosts_reach_and_says_when_it_is_done() {
    let mut device = probe();
    let dvsec = device.dvsec(0);
    commit(&mut device);
    assert_eq!(device.config_u16(dvsec + CXL_STATUS2), 0);
    device.asked();
    device.set_config_u16(dvsec + CXL_CONTROL2, INITIATE_CXL_RESET);
    let asked = device.asked();
    assert!(asked.decoders_changed && asked.bars_changed, "{asked:?}");
    assert_eq!(asked.zeroed, [], "nobody asked for that");
    assert!(device.function.component().endpoint_decoders().is_empty());
    assert_eq!(
        device.config_u16(dvsec + CXL_CONTROL2),
        0,
        "the order reads as zero"
    );
    assert_eq!(device.config_u16(dvsec + CXL_STATUS2), CXL_RESET_COMPLETE);
}

#[test]
fn a_cxl_reset_clears_volatile_memory_alone_even_when_the_configuration_is_locked() {
    let mut device = probe();
    let dvsec = device.dvsec(0);
    device.set_config_u16(dvsec + CXL_LOCK, 1);
    device.set_config_u16(dvsec + CXL_CONTROL2, CXL_RESET_MEM_CLEAR);
    assert_eq!(device.asked().zeroed, []);
    device.set_config_u16(
        dvsec + CXL_CONTROL2,
        INITIATE_CXL_RESET | CXL_RESET_MEM_CLEAR,
    );
    assert_eq!(device.asked().zeroed, [(0, 256 * MIB)]);
    assert_eq!(device.config_u16(dvsec + CXL_LOCK), 1);
}

#[test]
fn d3hot_hides_the_registers_and_keeps_their_state() {
    /// The power state field of the power management capability (PCIe 6.0 section 7.5.2.2).
    const CONTROL_STATUS: u16 = 0x04;
    const D3HOT: u16 = 3;
    const NO_SOFT_RESET: u16 = 1 << 3;
    let mut device = probe();
    let power = device
        .capability(spec::capability::POWER_MANAGEMENT)
        .unwrap()
        + CONTROL_STATUS;
    device.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
    commit(&mut device);
    let before = device.image();
    device.asked();

    device.set_config_u16(power, D3HOT);
    assert!(device.asked().bars_changed);
    for bar in [COMPONENT, DEVICE, COUNTERS] {
        assert_eq!(device.function.config().bar(bar), None, "BAR {bar}");
    }
    assert_eq!(device.config_u16(power), NO_SOFT_RESET | D3HOT);

    device.set_config_u16(power, 0);
    let asked = device.asked();
    assert!(asked.bars_changed && !asked.decoders_changed, "{asked:?}");
    assert_eq!(device.image(), before);
}

/// Mailbox registers in the device registers (section 8.2.8.4).
const MAILBOX: u64 = 0x100;
const MAILBOX_CONTROL: u64 = MAILBOX + 0x04;
const MAILBOX_COMMAND: u64 = MAILBOX + 0x08;
const MAILBOX_STATUS: u64 = MAILBOX + 0x10;
const MAILBOX_PAYLOAD: u64 = MAILBOX + 0x20;
const DOORBELL: u32 = 1 << 0;
const DOORBELL_INTERRUPT: u32 = 1 << 1;
const IDENTIFY: u64 = 0x4000;
const SET_LSA: u64 = 0x4103;

/// Runs a command through the doorbell; gives its return code.
fn ring(device: &mut Probe<Type3>, opcode: u64, input: &[u8], control: u32) -> u64 {
    device.set_bar(DEVICE, MAILBOX_PAYLOAD, input);
    device.set_bar_u64(DEVICE, MAILBOX_COMMAND, opcode | (input.len() as u64) << 16);
    device.set_bar_u32(DEVICE, MAILBOX_CONTROL, control);
    assert_eq!(
        device.bar_u32(DEVICE, MAILBOX_CONTROL) & DOORBELL,
        0,
        "the doorbell is clear"
    );
    device.bar_u64(DEVICE, MAILBOX_STATUS) >> 32 & 0xffff
}

#[test]
fn identify_through_the_doorbell_tells_the_capacity() {
    let mut device = probe();
    assert_eq!(ring(&mut device, IDENTIFY, &[], DOORBELL), 0);
    assert_eq!(device.asked(), Asked::default(), "no interrupt was wanted");
    let mut reply = [0; 0x45];
    device.bar_read(DEVICE, MAILBOX_PAYLOAD, &mut reply);
    assert!(reply.starts_with(b"MEMU "), "firmware revision");
    let units = |at: usize| u64::from_le_bytes(reply[at..at + 8].try_into().unwrap());
    assert_eq!(
        [units(0x10), units(0x18), units(0x20)],
        [3, 1, 2],
        "total, volatile, persistent in 256 MiB"
    );
    assert_eq!(
        u32::from_le_bytes(reply[0x38..0x3c].try_into().unwrap()),
        LABELS as u32
    );
}

/// What the driver wrote into vector 0.
const MESSAGE: MsiMessage = MsiMessage {
    address: 0xfee0_0000,
    data: 0x41,
};

/// Programs a vector.
fn set_vector(device: &mut Probe<Type3>, vector: u64, message: MsiMessage) {
    let entry = VECTORS + 16 * vector;
    device.set_bar_u64(COUNTERS, entry, message.address);
    device.set_bar_u32(COUNTERS, entry + 8, message.data);
    device.set_bar_u32(COUNTERS, entry + 12, 0);
}

/// Programs vector 0 and turns MSI-X on.
fn enable_msix(device: &mut Probe<Type3>) {
    set_vector(device, 0, MESSAGE);
    device.set_config_u16(
        spec::header::COMMAND,
        spec::command::MEMORY_SPACE | spec::command::BUS_MASTER,
    );
    let msix = device.capability(spec::capability::MSIX).unwrap();
    device.set_config_u16(msix + 2, 1 << 15);
}

#[test]
fn the_mailbox_interrupts_through_msix() {
    let mut device = probe();
    enable_msix(&mut device);
    device.asked();
    assert_eq!(
        ring(&mut device, IDENTIFY, &[], DOORBELL | DOORBELL_INTERRUPT),
        0
    );
    assert_eq!(
        device.asked(),
        Asked {
            messages: vec![MESSAGE],
            ..Asked::default()
        }
    );
}

#[test]
fn an_interrupt_waits_until_msix_is_enabled() {
    const PENDING: u64 = VECTORS + 0x800;
    let mut device = probe();
    ring(&mut device, IDENTIFY, &[], DOORBELL | DOORBELL_INTERRUPT);
    assert_eq!(device.asked(), Asked::default());
    assert_eq!(device.bar_u64(COUNTERS, PENDING), 1);
    enable_msix(&mut device);
    assert_eq!(device.asked().messages, [MESSAGE]);
    assert_eq!(device.bar_u64(COUNTERS, PENDING), 0);
}

/// Registers of the CPMU (section 8.2.7).
const COUNTER_CONFIGURATION: u64 = 0x200;
const COUNTER_DATA: u64 = 0xc00;
const COUNTER_ENABLE: u64 = 1 << 8;
const INTERRUPT_ON_OVERFLOW: u64 = 1 << 9;
/// Counters of the expander's CPMU: clock ticks, MemRd, MemData, then four configurable ones.
const FIRST_FREE: u64 = 3;

/// Lets a counter count some events of the vendor's group.
fn count(device: &mut Probe<Type3>, counter: u64, events: u64, more: u64) {
    let configuration = events << 24 | COUNTER_ENABLE | more;
    device.set_bar_u64(COUNTERS, COUNTER_CONFIGURATION + 8 * counter, configuration);
}

#[test]
fn counters_count_what_the_driver_does_but_not_that_it_looks_at_them() {
    const EVENTS: [(&str, u64); 6] = [
        ("mailbox commands", 1),
        ("register reads", 2),
        ("register writes", 3),
        ("configuration writes", 1),
        ("CDAT requests", 0),
        ("interrupts", 1),
    ];
    // The doorbell rings once: payload, command and control are written, control and status read.
    for (event, (name, expected)) in (0..).zip(EVENTS) {
        let mut device = probe();
        count(&mut device, FIRST_FREE, 1 << event, 0);
        device.set_config_u16(spec::header::COMMAND, spec::command::MEMORY_SPACE);
        ring(
            &mut device,
            IDENTIFY,
            &[0; 4],
            DOORBELL | DOORBELL_INTERRUPT,
        );
        let data = COUNTER_DATA + 8 * FIRST_FREE;
        assert_eq!(device.bar_u64(COUNTERS, data), expected, "{name}");
        assert_eq!(device.bar_u64(COUNTERS, data), expected, "{name}, again");
    }
    let mut device = probe();
    count(&mut device, FIRST_FREE, 1 << 4, 0);
    let table = device.cdat();
    assert!(!table.is_empty());
    let requests = device.bar_u64(COUNTERS, COUNTER_DATA + 8 * FIRST_FREE);
    assert!(requests > 1, "an entry each: {requests}");
}

#[test]
fn a_counter_that_overflows_interrupts_by_its_own_vector() {
    let overflow = MsiMessage {
        address: 0xfee0_1000,
        data: 0x55,
    };
    let mut device = probe();
    enable_msix(&mut device);
    set_vector(&mut device, 5, overflow);
    assert_eq!(device.bar_u64(COUNTERS, 0) >> 44 & 0xf, 5);
    device.asked();
    let data = COUNTER_DATA + 8 * FIRST_FREE;
    device.set_bar_u64(COUNTERS, data, (1 << 48) - 1);
    count(&mut device, FIRST_FREE, 1, INTERRUPT_ON_OVERFLOW);
    assert_eq!(device.asked(), Asked::default());
    ring(&mut device, IDENTIFY, &[], DOORBELL);
    assert_eq!(device.asked().messages, [overflow]);
    assert_eq!(device.bar_u64(COUNTERS, data), 0);
    device.reset(ResetKind::FunctionLevel);
    assert_eq!(
        device.bar_u64(COUNTERS, COUNTER_CONFIGURATION + 8 * FIRST_FREE),
        1 << 16 | 2,
        "a reset ends it"
    );
}

#[test]
fn lines_that_the_host_read_are_counted() {
    let mut device = probe();
    for counter in [1, 2] {
        device.set_bar_u64(
            COUNTERS,
            COUNTER_CONFIGURATION + 8 * counter,
            COUNTER_ENABLE,
        );
    }
    device.function.count_reads(1000, &mut Vec::new());
    let counted = [1, 2].map(|counter| device.bar_u64(COUNTERS, COUNTER_DATA + 8 * counter));
    assert_eq!(counted, [1000, 1000]);
}

/// Input of Set LSA (section 8.2.9.9.2.4): offset, reserved, data.
fn label_write(offset: u32, data: &[u8]) -> Vec<u8> {
    [&offset.to_le_bytes(), &[0; 4], data].concat()
}

#[test]
fn label_writes_are_told_and_survive_every_reset() {
    let mut device = probe();
    assert_eq!(
        ring(&mut device, SET_LSA, &label_write(256, b"label"), DOORBELL),
        0
    );
    assert_eq!(
        device.asked(),
        Asked {
            labels: vec![(256, 5)],
            ..Asked::default()
        }
    );
    for kind in RESETS {
        device.reset(kind);
        assert_eq!(&device.function.labels()[256..261], b"label", "{kind:?}");
    }
}

#[test]
fn a_label_write_past_the_end_changes_nothing() {
    const INVALID_INPUT: u64 = 2;
    let mut device = probe();
    for offset in [LABELS as u32 - 2, LABELS as u32, u32::MAX] {
        assert_eq!(
            ring(
                &mut device,
                SET_LSA,
                &label_write(offset, b"label"),
                DOORBELL
            ),
            INVALID_INPUT
        );
    }
    assert_eq!(device.asked(), Asked::default());
    assert!(device.function.labels().iter().all(|byte| *byte == 0));
}

#[test]
fn the_cdat_is_read_over_doe() {
    let config = expander_config();
    let expected =
        cxl::cdat::memory_device(config.volatile, config.persistent, &[], &config.performance)
            .unwrap();
    assert_eq!(probe().cdat(), expected.bytes());
}

#[test]
fn a_reset_forgets_a_half_written_request() {
    let mut device = probe();
    device.doe_write(0xdead_beef);
    device.reset(ResetKind::FunctionLevel);
    // Discovery of protocol 0 (PCIe 6.0 section 6.30.1.1).
    assert_eq!(
        device.exchange(&[0x0000_0001, 3, 0]),
        [0x0000_0001, 3, 0x0100_0001]
    );
}

#[test]
fn a_remembered_partition_shows_in_capacity_and_cdat() {
    let config = || crate::Type3Config {
        partitionable: 512 * MIB,
        nonvolatile: cxl::memdev::NonVolatile {
            partition_volatile: 256 * MIB,
            ..Default::default()
        },
        ..expander_config()
    };
    let device = Type3::new(config(), Box::new(|| 0)).unwrap();
    assert_eq!(device.capacity(), (512 * MIB, 768 * MIB));
    let mut device = Probe::new(device);
    // The first entry behind the header is the DSMAS of the volatile part: its base and length.
    let response = device.exchange(&[0x0002_1e98, 3, 1 << 16]);
    assert_eq!(response[5..9], [0, 0, 512 << 20, 0]);
    let config = crate::Type3Config {
        partitionable: 0,
        ..config()
    };
    assert!(
        Type3::new(config, Box::new(|| 0)).is_err(),
        "nothing to partition"
    );
}

#[test]
fn capacities_that_registers_cannot_express_are_refused() {
    for (volatile, persistent) in [(0, 0), (1, 0), (0, 256 * MIB - 1)] {
        let config = crate::Type3Config {
            volatile,
            persistent,
            ..expander_config()
        };
        assert!(
            Type3::new(config, Box::new(|| 0)).is_err(),
            "{volatile} {persistent}"
        );
    }
    let config = crate::Type3Config {
        decoders: 3,
        ..expander_config()
    };
    assert!(Type3::new(config, Box::new(|| 0)).is_err());
}

#[test]
fn dynamic_capacity_shows_in_cdat_and_decoders_and_interrupts_by_a_vector_of_its_own() {
    const DYNAMIC_VECTOR: u64 = 6;
    const SET_EVENT_INTERRUPT_POLICY: u64 = 0x0103;
    let region = DynamicRegion {
        base: 768 * MIB,
        decode_len: 256 * MIB,
        len: 256 * MIB,
        block_size: 2 * MIB,
        dsmas: 2,
    };
    let config = crate::Type3Config {
        dynamic: vec![region],
        ..expander_config()
    };
    let mut device = Type3::new(config.clone(), Box::new(|| 0)).unwrap();
    let range = DecoderSettings {
        base: 0x10_0000_0000,
        size: 1024 * MIB,
        interleave: Interleave::NONE,
        coherency: cxl::hdm::Coherency::Host,
        lock: false,
        destination: Destination::DpaSkip(0),
    };
    device.commit(0, &range).unwrap();
    assert!(expander().commit(0, &range).is_err(), "beyond its capacity");
    let extent = Extent {
        dpa: region.base,
        len: 2 * MIB,
        ..Extent::default()
    };
    let added = MsiMessage {
        address: 0xfee0_1000,
        data: 0x56,
    };
    let mut device = Probe::new(device);
    enable_msix(&mut device);
    set_vector(&mut device, DYNAMIC_VECTOR, added);
    ring(
        &mut device,
        SET_EVENT_INTERRUPT_POLICY,
        &[0, 0, 0, 0, 1],
        DOORBELL,
    );
    device.asked();
    let mut effects = Vec::new();
    device
        .function
        .offer_extents(&[extent], &mut effects)
        .unwrap();
    assert_eq!(Asked::of(effects.drain(..)).messages, [added]);
    let memory = device.function.memdev().memory();
    assert!(
        memory.len() == 1 && memory[0] == (0..768 * MIB),
        "not accepted yet"
    );

    let table = cxl::cdat::memory_device(256 * MIB, 512 * MIB, &[region], &config.performance);
    let table = table.unwrap();
    // Its DSMAS is behind the structures of the two others: one, four costs and a memory type each.
    let entry = table.entry(1 + 2 * 6).unwrap();
    assert_eq!(entry[..8], [0, 0, 24, 0, 2, 1 << 5, 0, 0]);
    assert_eq!(entry[8..16], (768 * MIB).to_le_bytes());
}
