//! What the control socket lets go wrong, as the guest's registers show it.

use super::*;
use crate::control::{EventSeverity, FailureKind, Inject, Injection};
use crate::machine::inject::inject;

/// Event Status of the device registers (CXL 3.1 section 8.2.8.3.1): a bit for each log with a record.
const DEVICE_BAR: u8 = 2;
const EVENT_STATUS: u64 = 0x80;
/// The RAS structure: uncorrectable status, correctable status, first error, header log.
const RAS: [u64; 4] = [0x1100, 0x110c, 0x1114, 0x1118];

impl Machine {
    fn inject(&self, target: &str, what: Injection) -> Result<(), FailureKind> {
        let request = Inject {
            target: target.into(),
            what,
        };
        inject(&self.board, &request).map_err(|failure| failure.kind)
    }

    fn event_status(&self, number: u32) -> u64 {
        let registers = self.bar(self.expander(number), DEVICE_BAR).unwrap();
        self.read_u64(registers + EVENT_STATUS)
    }
}

#[test]
fn poison_comes_and_goes_by_device_address() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    machine.store(range.start + 0x1000, &[7; 64]);
    let (dpa, length) = (0x1000, 64);
    assert_eq!(
        machine.inject("mem0", Injection::Poison { dpa, length }),
        Ok(())
    );
    assert_eq!(machine.map.poisoned(), [range.start + dpa]);
    let clear = Injection::ClearPoison { dpa, length };
    assert_eq!(machine.inject("mem0", clear), Ok(()));
    assert_eq!(machine.map.poisoned(), [] as [u64; 0]);
    assert_eq!(machine.media(0, dpa, 64), [7; 64], "with its bytes");
}

#[test]
fn each_event_goes_into_the_log_of_its_severity() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let media = Injection::MediaEvent {
        severity: EventSeverity::Fatal,
        dpa: 0x40,
    };
    assert_eq!(machine.inject("mem1", media), Ok(()));
    assert_eq!(machine.event_status(1), 0b1000);
    let dram = Injection::DramEvent {
        severity: EventSeverity::Informational,
        dpa: 0x40,
        bank: Some(1),
        row: None,
        column: None,
    };
    assert_eq!(machine.inject("mem1", dram), Ok(()));
    assert_eq!(machine.event_status(1), 0b1001);
    let hot = Injection::Health {
        temperature: Some(120),
        life_used: None,
    };
    assert_eq!(machine.inject("mem1", hot), Ok(()));
    assert_eq!(
        machine.event_status(1),
        0b1101,
        "beyond the critical threshold"
    );
    assert_eq!(machine.event_status(0), 0, "mem0 has nothing to do with it");
}

#[test]
fn a_faulty_device_says_so_until_it_is_mended() {
    /// Memory Device Status (CXL 3.1 section 8.2.8.5.1.1).
    const MEMDEV_STATUS: u64 = 0x88;
    let failing = THREE_EXPANDERS.replace("serial = 2", "serial = 2\nfault = \"media-not-ready\"");
    let Some(machine) = Machine::new(&failing) else {
        return;
    };
    let status = |number| {
        let registers = machine.bar(machine.expander(number), DEVICE_BAR).unwrap();
        machine.read_u64(registers + MEMDEV_STATUS)
    };
    assert_eq!([status(0), status(1)], [0x14, 0x10]);
    let fault = |fault: Option<&str>| Injection::Fault {
        fault: fault.map(String::from),
    };
    assert_eq!(machine.inject("mem1", fault(None)), Ok(()));
    assert_eq!(machine.inject("mem0", fault(Some("fatal"))), Ok(()));
    assert_eq!([status(0), status(1)], [0x15, 0x14]);
    let unknown = machine.inject("mem0", fault(Some("rust")));
    assert_eq!(unknown, Err(FailureKind::BadRequest));
}

#[test]
fn viral_takes_the_memory_out_of_reach_where_the_guest_has_enabled_it() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let range = machine.commit_mem0();
    assert_eq!(
        machine.inject("mem0", Injection::Viral),
        Err(FailureKind::Conflict)
    );
    let node = machine.expander(0);
    let control = machine.dvsec(node) + 0x0c;
    machine.config_write(node, control, &(1_u16 << 14 | 1 << 2).to_le_bytes());
    assert_eq!(machine.mapped(), [(range.start, range.size, 0)]);
    assert_eq!(machine.inject("mem0", Injection::Viral), Ok(()));
    assert_eq!(machine.mapped(), []);
}

#[test]
fn protocol_errors_are_logged_where_they_were_met() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let error = |error: &str| Injection::Uncorrectable {
        error: error.into(),
        header: vec![0xabcd],
    };
    assert_eq!(machine.inject("mem2", error("mem-data-ecc")), Ok(()));
    let correctable = Injection::Correctable {
        error: "mem-data-ecc".into(),
    };
    assert_eq!(machine.inject("mem2", correctable), Ok(()));
    let logged = |number| {
        let registers = machine.device_registers(number);
        RAS.map(|at| machine.read_u64(registers + at) as u32)
    };
    // Masked, as nobody has unmasked them: seen, but the log is kept for what is told.
    assert_eq!(logged(2), [1 << 7, 1 << 1, 0, 0]);
    machine.write_u32(machine.device_registers(2) + RAS[0] + 4, 0);
    assert_eq!(machine.inject("mem2", error("internal")), Ok(()));
    assert_eq!(logged(2), [1 << 7 | 1 << 14, 1 << 1, 14, 0xabcd]);
    assert_eq!(logged(0), [0; 4]);
}

#[test]
fn an_error_that_is_let_through_reaches_the_root_port_with_its_source() {
    /// Extended capability of AER; masks of both kinds of errors, root error status and sources in it (PCIe 6.0 section 7.8.4).
    const AER: u16 = 0x0001;
    const MASKS: [u16; 2] = [0x08, 0x14];
    const ROOT_STATUS: u16 = 0x30;
    const SOURCES: u16 = 0x34;
    /// Device control, in the PCI Express capability: report all errors.
    const DEVICE_CONTROL: u16 = 0x08;
    const REPORT_ALL: u16 = 0x7;
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let node = machine.expander(1);
    let (aer, express, port) = {
        let state = machine.board.lock();
        let config = state.hierarchy.get(node).unwrap().config();
        (
            config.find_extended_capability(AER).unwrap(),
            config
                .find_capability(pci::spec::capability::PCI_EXPRESS)
                .unwrap(),
            state.hierarchy.path(node)[0],
        )
    };
    for mask in MASKS {
        machine.config_write(node, aer + mask, &[0; 4]);
    }
    machine.config_write(node, express + DEVICE_CONTROL, &REPORT_ALL.to_le_bytes());
    machine.write_u32(machine.device_registers(1) + RAS[0] + 4, 0);
    machine.write_u32(machine.device_registers(1) + RAS[1] + 4, 0);
    let correctable = Injection::Correctable {
        error: "crc-threshold".into(),
    };
    let uncorrectable = Injection::Uncorrectable {
        error: "mem-data-ecc".into(),
        header: Vec::new(),
    };
    assert_eq!(machine.inject("mem1", correctable), Ok(()));
    assert_eq!(machine.inject("mem1", uncorrectable), Ok(()));
    let aer = {
        let state = machine.board.lock();
        let config = state.hierarchy.get(port).unwrap().config();
        config.find_extended_capability(AER).unwrap()
    };
    // One correctable, one uncorrectable; the first of these was fatal, and a fatal one has come.
    assert_eq!(machine.config_u16(port, aer + ROOT_STATUS), 0b101_0101);
    let source = machine.bdf(node).bits();
    assert_eq!(machine.config_u16(port, aer + SOURCES), source);
    assert_eq!(machine.config_u16(port, aer + SOURCES + 2), source);
}

#[test]
fn what_cannot_happen_is_refused() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let poison = |dpa, length| Injection::Poison { dpa, length };
    for (target, what, kind) in [
        ("mem9", poison(0, 64), FailureKind::NotFound),
        ("rp0", poison(0, 64), FailureKind::BadRequest),
        ("mem0", poison(8, 64), FailureKind::BadRequest),
        ("mem0", poison(CAPACITY, 64), FailureKind::BadRequest),
        ("mem0", poison(0, CAPACITY), FailureKind::BadRequest),
        (
            "rp0",
            Injection::Correctable {
                error: "rain".into(),
            },
            FailureKind::BadRequest,
        ),
        (
            "rp0",
            Injection::Uncorrectable {
                error: "internal".into(),
                header: vec![0; 17],
            },
            FailureKind::BadRequest,
        ),
    ] {
        assert_eq!(machine.inject(target, what.clone()), Err(kind), "{what:?}");
    }
    assert_eq!(machine.event_status(0), 0);
}

#[test]
fn a_link_that_goes_down_takes_the_memory_behind_it_until_it_is_up_again() {
    let Some(machine) = Machine::new(&THREE_EXPANDERS.replacen(
        "name = \"rp0\"",
        "name = \"rp0\"\nhotplug = true",
        1,
    )) else {
        return;
    };
    let shown = || machine.board.lock().port_named("rp0").unwrap().1.link();
    machine.commit_mem0();
    let mem0 = machine.expander(0);
    assert!(shown().is_some() && machine.mapped().len() == 1);
    assert_eq!(machine.inject("rp0", Injection::LinkDown), Ok(()));
    assert_eq!((shown(), machine.mapped()), (None, vec![]));
    assert_eq!(machine.config_u16(mem0, 0), 0xffff, "nobody answers");
    let mend = || Injection::Fault { fault: None };
    assert_eq!(machine.inject("rp0", mend()), Ok(()));
    assert!(shown().is_some());
    assert_eq!(machine.mapped(), [], "its decoders were reset");
    let refused = machine.inject("mem0", Injection::LinkDown);
    assert_eq!(refused, Err(FailureKind::BadRequest));
}

#[test]
fn what_is_wrong_is_told_of_each_component() {
    let Some(machine) = Machine::new(THREE_EXPANDERS) else {
        return;
    };
    let errors = || {
        let mem0 = machine.expander(0);
        let state = machine.board.lock();
        let Some(devices::Device::Type3(device)) = state.hierarchy.get(mem0) else {
            panic!("mem0 is an expander");
        };
        crate::machine::errors::of_memory(device)
    };
    assert_eq!(errors(), [] as [String; 0]);
    let parity = Injection::Uncorrectable {
        error: "mem-data-parity".into(),
        header: vec![],
    };
    let ecc = Injection::Correctable {
        error: "mem-data-ecc".into(),
    };
    let fault = Injection::Fault {
        fault: Some("stuck-doorbell".into()),
    };
    for what in [parity, ecc, fault] {
        assert_eq!(machine.inject("mem0", what), Ok(()));
    }
    for line in 0..10 {
        let (dpa, length) = (line * 0x1000, 64);
        let poison = Injection::Poison { dpa, length };
        assert_eq!(machine.inject("mem0", poison), Ok(()));
    }
    let found = errors();
    assert_eq!(
        found[..4],
        [
            "uncorrectable mem-data-parity",
            "correctable mem-data-ecc",
            "fault stuck-doorbell",
            "poison 0x0, 64 bytes",
        ]
    );
    assert_eq!(found.last().unwrap(), "poison at 2 more places");
}
