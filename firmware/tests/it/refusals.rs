//! Descriptions that no table could state.

use crate::machines::{GIB, MIB, cxl_machine};
use firmware::{Arithmetic, Error, Machine, Range, build};

#[test]
fn descriptions_that_contradict_themselves_are_refused() {
    let refused = |spoil: fn(&mut Machine)| {
        let mut machine = cxl_machine();
        spoil(&mut machine);
        build(&machine).unwrap_err()
    };
    assert_eq!(
        refused(|m| m.fixed_windows[1].targets = vec![1, 2, 1, 2, 1]),
        Error::InterleaveWays { window: 1, ways: 5 }
    );
    assert_eq!(
        refused(|m| m.fixed_windows[0].granularity = 768),
        Error::InterleaveGranularity {
            window: 0,
            granularity: 768
        }
    );
    assert_eq!(
        refused(|m| m.fixed_windows[0].targets = vec![0]),
        Error::UnknownTarget { window: 0, uid: 0 }
    );
    assert!(matches!(
        refused(|m| m.fixed_windows[1].range.size = 256 * MIB),
        Error::WindowAlignment { window: 1, .. }
    ));
    let xor = |maps: &[u64]| Arithmetic::Xor(maps.to_vec());
    for (first, second) in [
        (xor(&[0x400]), xor(&[0x100])),
        (xor(&[]), xor(&[])),
        (xor(&[]), xor(&[0x100, 0x200])),
    ] {
        let mut machine = cxl_machine();
        machine.fixed_windows[0].arithmetic = first;
        machine.fixed_windows[1].arithmetic = second;
        assert!(matches!(build(&machine), Err(Error::XorMaps { .. })));
    }
    let mut machine = cxl_machine();
    for (window, map) in machine.fixed_windows.iter_mut().zip([0x4100, 0x8100]) {
        window.targets = vec![1, 2];
        window.granularity = 256;
        window.arithmetic = xor(&[map]);
    }
    assert_eq!(build(&machine), Err(Error::XorMaps { window: 1 }));
    assert_eq!(
        refused(|m| m.pci_roots[2].uid = 1),
        Error::DuplicateUid { uid: 1 }
    );
    assert_eq!(refused(|m| m.cpus.clear()), Error::Missing { what: "vCPU" });
    assert!(matches!(refused(|m| m.ram.clear()), Error::Missing { .. }));
    assert!(matches!(
        refused(|m| m.ram[1].range.size = u64::MAX),
        Error::BadRange { what: "RAM", .. }
    ));
    assert!(matches!(
        refused(|m| m.pci_roots[1].last_bus = 1),
        Error::Backwards { .. }
    ));
    assert!(matches!(
        refused(|m| m.pci_roots[0].mmio32 = Some(Range {
            base: 0xF000_0000,
            size: GIB
        })),
        Error::BadRange { .. }
    ));
    assert_eq!(
        refused(|m| m.pci_roots[0].mmio32 = Some(Range {
            base: 0xDFFF_0000,
            size: 2 * MIB
        })),
        Error::Overlap {
            first: "the window of a PCI root",
            second: "ECAM",
            address: 0xE000_0000
        }
    );
    assert!(matches!(
        refused(|m| m.fixed_windows[0].range.base = 4 * GIB),
        Error::Overlap {
            address: 0x1_0000_0000,
            ..
        }
    ));
    assert!(matches!(
        refused(|m| m.soft_reserved[0].base -= MIB),
        Error::OutsideWindows { .. }
    ));
    assert_eq!(
        refused(|m| m.pci_roots[1].last_bus = 0x50),
        Error::Bus { uid: 2, bus: 0x50 }
    );
    assert_eq!(
        refused(|m| m.ecam.last_bus = 0x7E),
        Error::Bus { uid: 2, bus: 0x7F }
    );
    for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY, 5e6] {
        let mut machine = cxl_machine();
        machine.localities[0].performance.read_latency = nonsense;
        assert!(
            matches!(
                build(&machine),
                Err(Error::Performance {
                    what: "read latency",
                    ..
                })
            ),
            "{nonsense}"
        );
        let mut machine = cxl_machine();
        machine.qos_classes[0].slowest.write_bandwidth = nonsense;
        assert!(
            matches!(build(&machine), Err(Error::QosClass { qtg: 3, .. })),
            "{nonsense}"
        );
    }
    let twice = refused(|m| m.localities.push(m.localities[0]));
    assert_eq!(
        twice,
        Error::DuplicateLocality {
            initiator: 0,
            target: 0
        }
    );
}
