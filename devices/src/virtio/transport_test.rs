use super::super::testing::Recorded;
use super::*;
use crate::virtio::spec::{DeviceType, NO_VECTOR, feature, isr, status};

/// A feature of the device type, so that there is something to negotiate.
const FEATURE: u64 = 1 << 5;
const STATUS_RUN: [u8; 4] = [
    status::ACKNOWLEDGE,
    status::ACKNOWLEDGE | status::DRIVER,
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK,
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
];
const BASE: u64 = 0x10_0000_0000;

struct Bench {
    function: PciFunction,
    interrupt: Arc<Recorded>,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let interrupt = Arc::new(Recorded::default());
        let identity = Identity {
            device_type: DeviceType::Net,
            features: FEATURE,
            queue_sizes: &[256, 128],
            config: vec![1, 2, 3, 4, 5, 6],
        };
        Self {
            function: PciFunction::new(identity, interrupt.clone()),
            interrupt,
            effects: Vec::new(),
        }
    }

    fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.function
            .bar_read(BAR, offset, &mut data[..len], &mut self.effects);
        u64::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, len: usize, value: u64) {
        self.function
            .bar_write(BAR, offset, &value.to_le_bytes()[..len], &mut self.effects);
    }

    fn accept(&mut self, features: u64) {
        for half in [0, 1] {
            self.write(common::DRIVER_FEATURE_SELECT, 4, half);
            self.write(
                common::DRIVER_FEATURE,
                4,
                features >> (32 * half) & 0xffff_ffff,
            );
        }
    }

    fn set_status(&mut self, value: u8) -> u8 {
        self.write(common::DEVICE_STATUS, 1, value.into());
        self.read(common::DEVICE_STATUS, 1) as u8
    }

    fn run(&mut self) {
        self.accept(feature::VERSION_1);
        for value in STATUS_RUN {
            assert_eq!(self.set_status(value), value);
        }
    }

    fn activation(&mut self) -> crate::virtio::Activation {
        match self.effects.pop() {
            Some(Effect::Activate(activation)) => activation,
            other => panic!("no activation but {other:?}"),
        }
    }

    /// Configuration space, as a guest reads it.
    fn config(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn set_config(&mut self, offset: u16, value: u32) {
        self.function
            .config_write(offset, &value.to_le_bytes(), &mut self.effects);
    }

    /// The vendor-specific capabilities: offset in configuration space, type, offset and length in the BAR.
    fn structures(&self) -> Vec<(u16, u8, u32, u32)> {
        let mut found = Vec::new();
        let mut at = self.config(0x34) as u16 & 0xff;
        while at != 0 {
            let head = self.config(at);
            if head & 0xff == 9 {
                found.push((
                    at,
                    (head >> 24) as u8,
                    self.config(at + 8),
                    self.config(at + 12),
                ));
            }
            at = (head >> 8 & 0xff) as u16;
        }
        found
    }
}

#[test]
fn the_function_is_a_modern_device_without_legacy() {
    let bench = Bench::new();
    assert_eq!(bench.config(0x00), 0x1041_1af4);
    assert_eq!(bench.config(0x08), 0x0200_0001);
    assert_eq!(bench.config(0x2c), 0x0041_1af4);
}

#[test]
fn each_structure_has_its_capability() {
    let bench = Bench::new();
    let places: Vec<_> = bench
        .structures()
        .into_iter()
        .map(|(_, kind, offset, len)| (kind, offset, len))
        .collect();
    assert_eq!(
        places,
        [
            (capability::TYPE_COMMON, COMMON as u32, 0x38),
            (capability::TYPE_ISR, ISR as u32, 1),
            (capability::TYPE_DEVICE, DEVICE as u32, 6),
            (capability::TYPE_NOTIFY, NOTIFY as u32, 8),
            (capability::TYPE_PCI, 0, 0),
        ]
    );
}

#[test]
fn features_are_offered_in_halves() {
    let mut bench = Bench::new();
    let mut halves = [0; 3];
    for (select, half) in (0..).zip(&mut halves) {
        bench.write(common::DEVICE_FEATURE_SELECT, 4, select);
        *half = bench.read(common::DEVICE_FEATURE, 4);
    }
    assert_eq!(
        halves,
        [
            FEATURE | feature::INDIRECT_DESC | feature::EVENT_IDX,
            feature::VERSION_1 >> 32,
            0
        ]
    );
}

#[test]
fn a_driver_that_follows_the_steps_activates_the_device() {
    let mut bench = Bench::new();
    for value in STATUS_RUN[..2].iter() {
        bench.set_status(*value);
    }
    bench.accept(feature::VERSION_1 | feature::EVENT_IDX | FEATURE);
    assert_eq!(bench.set_status(STATUS_RUN[2]), STATUS_RUN[2]);
    bench.write(common::QUEUE_SELECT, 2, 1);
    bench.write(common::QUEUE_SIZE, 2, 64);
    bench.write(common::QUEUE_DESC_LOW, 4, 0x1000);
    bench.write(common::QUEUE_DESC_HIGH, 4, 1);
    bench.write(common::QUEUE_DRIVER_LOW, 8, 0x2_0000_2000);
    bench.write(common::QUEUE_DEVICE_LOW, 8, 0x3000);
    bench.write(common::QUEUE_ENABLE, 2, 1);
    assert!(bench.effects.is_empty());
    assert_eq!(bench.set_status(STATUS_RUN[3]), STATUS_RUN[3]);

    let activation = bench.activation();
    assert_eq!(
        activation.features,
        feature::VERSION_1 | feature::EVENT_IDX | FEATURE
    );
    let [first, second] = activation.queues[..] else {
        panic!("not two queues")
    };
    assert!(!first.ready);
    assert!(second.ready && second.event_idx_enabled);
    assert_eq!((second.max_size, second.size), (128, 64));
    assert_eq!(
        (second.desc_table, second.avail_ring, second.used_ring),
        (0x1_0000_1000, 0x2_0000_2000, 0x3000)
    );
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [
        0,
        FEATURE,
        feature::VERSION_1 | 1 << 40,
        feature::VERSION_1 | 1,
    ] {
        let mut bench = Bench::new();
        bench.accept(features);
        bench.set_status(STATUS_RUN[1]);
        assert_eq!(
            bench.set_status(STATUS_RUN[2]),
            STATUS_RUN[1],
            "{features:#x}"
        );
        assert_eq!(
            bench.set_status(STATUS_RUN[3]),
            STATUS_RUN[1],
            "{features:#x}"
        );
        assert!(bench.effects.is_empty());
    }
}

#[test]
fn features_are_settled_once_accepted() {
    let mut bench = Bench::new();
    bench.run();
    bench.accept(feature::VERSION_1 | FEATURE);
    bench.write(common::DRIVER_FEATURE_SELECT, 4, 0);
    assert_eq!(bench.read(common::DRIVER_FEATURE, 4), 0);
}

#[test]
fn status_bits_are_neither_cleared_nor_set_out_of_turn() {
    let mut bench = Bench::new();
    assert_eq!(bench.set_status(status::FEATURES_OK), 0);
    assert_eq!(bench.set_status(status::DRIVER_OK), 0);
    assert_eq!(bench.set_status(status::NEEDS_RESET), 0);
    bench.run();
    assert_eq!(bench.set_status(status::ACKNOWLEDGE), STATUS_RUN[3]);
    bench.set_status(STATUS_RUN[3]);
    assert_eq!(bench.effects.len(), 1, "activated twice");
}

#[test]
fn a_queue_is_fixed_once_enabled() {
    let mut bench = Bench::new();
    bench.write(common::QUEUE_DESC_LOW, 4, 0x1000);
    bench.write(common::QUEUE_ENABLE, 2, 1);
    bench.write(common::QUEUE_DESC_LOW, 4, 0x5000);
    bench.write(common::QUEUE_SIZE, 2, 4);
    bench.write(common::QUEUE_ENABLE, 2, 0);
    assert_eq!(bench.read(common::QUEUE_DESC_LOW, 4), 0x1000);
    assert_eq!(bench.read(common::QUEUE_SIZE, 2), 256);
    assert_eq!(bench.read(common::QUEUE_ENABLE, 2), 1);
}

#[test]
fn a_queue_takes_only_powers_of_two_up_to_its_largest_size() {
    let mut bench = Bench::new();
    for size in [0, 3, 255, 512, 0x8000] {
        bench.write(common::QUEUE_SIZE, 2, size);
        assert_eq!(bench.read(common::QUEUE_SIZE, 2), 256, "{size}");
    }
    bench.write(common::QUEUE_SIZE, 2, 1);
    assert_eq!(bench.read(common::QUEUE_SIZE, 2), 1);
}

#[test]
fn a_queue_that_does_not_exist_has_size_zero() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(common::NUM_QUEUES, 2), 2);
    for queue in [2, 0xffff] {
        bench.write(common::QUEUE_SELECT, 2, queue);
        bench.write(common::QUEUE_SIZE, 2, 16);
        bench.write(common::QUEUE_ENABLE, 2, 1);
        bench.write(common::QUEUE_MSIX_VECTOR, 2, 1);
        assert_eq!(bench.read(common::QUEUE_SIZE, 2), 0);
        assert_eq!(bench.read(common::QUEUE_ENABLE, 2), 0);
        assert_eq!(
            bench.read(common::QUEUE_MSIX_VECTOR, 2),
            u64::from(NO_VECTOR)
        );
    }
}

#[test]
fn a_vector_that_does_not_exist_is_none() {
    let mut bench = Bench::new();
    for register in [common::CONFIG_MSIX_VECTOR, common::QUEUE_MSIX_VECTOR] {
        assert_eq!(bench.read(register, 2), u64::from(NO_VECTOR));
        bench.write(register, 2, 2);
        assert_eq!(bench.read(register, 2), 2);
        bench.write(register, 2, 3);
        assert_eq!(bench.read(register, 2), u64::from(NO_VECTOR));
    }
}

#[test]
fn the_worker_interrupts_through_the_vectors_of_its_queues() {
    let mut bench = Bench::new();
    bench.write(common::QUEUE_SELECT, 2, 1);
    bench.write(common::QUEUE_MSIX_VECTOR, 2, 2);
    bench.write(common::CONFIG_MSIX_VECTOR, 2, 0);
    bench.run();
    let link = bench.activation().link;
    link.interrupt_queue(0);
    link.interrupt_queue(1);
    assert_eq!(
        *bench.interrupt.sent.lock().unwrap(),
        [2],
        "queue 0 has no vector"
    );
    assert_eq!(bench.read(ISR, 1), u64::from(isr::QUEUE));
    assert_eq!(bench.read(ISR, 1), 0, "reading clears");
    link.fail();
    assert_eq!(*bench.interrupt.sent.lock().unwrap(), [2, 0]);
    assert_eq!(bench.read(ISR, 1), u64::from(isr::CONFIG));
}

#[test]
fn a_broken_device_says_so_until_it_is_reset() {
    let mut bench = Bench::new();
    bench.run();
    let link = bench.activation().link;
    link.fail();
    assert_eq!(
        bench.read(common::DEVICE_STATUS, 1) as u8,
        STATUS_RUN[3] | status::NEEDS_RESET
    );
    assert_eq!(bench.set_status(0), 0);
    assert!(matches!(bench.effects[..], [Effect::Reset]));
    // A worker that has not heard of the reset does not spoil the next driver's device.
    link.fail();
    assert_eq!(bench.read(common::DEVICE_STATUS, 1), 0);
}

#[test]
fn a_kick_that_traps_is_passed_on_while_the_device_runs() {
    let mut bench = Bench::new();
    bench.write(NOTIFY, 2, 0);
    assert!(bench.effects.is_empty());
    bench.run();
    bench.activation();
    for len in [1, 2, 4] {
        bench.write(NOTIFY + 4, len, 1);
        assert!(matches!(
            bench.effects.pop(),
            Some(Effect::Kick { queue: 1 })
        ));
    }
    bench.write(NOTIFY + 8, 2, 2);
    assert!(bench.effects.is_empty());
}

#[test]
fn doorbells_stand_where_the_bar_is() {
    let mut bench = Bench::new();
    assert_eq!(bench.function.doorbells().count(), 0);
    bench.set_config(0x14, (BASE >> 32) as u32);
    bench.set_config(0x04, 0x6);
    assert_eq!(
        bench.function.doorbells().collect::<Vec<_>>(),
        [(0, BASE + NOTIFY), (1, BASE + NOTIFY + 4)]
    );
}

#[test]
fn vectors_are_programmed_through_the_bar() {
    let mut bench = Bench::new();
    bench.set_config(0x04, 0x6);
    let msix = bench.function.config.find_capability(0x11).unwrap();
    bench.set_config(msix, 0x8000_0000);
    bench.effects.clear();
    bench.write(MSIX_TABLE + 16, 4, 0xfee0_0000);
    bench.write(MSIX_TABLE + 24, 4, 0x31);
    bench.write(MSIX_TABLE + 28, 4, 0);
    assert!(matches!(
        bench.effects[..],
        [Effect::Pci(pci::Effect::MsixChanged { vector: 1 })]
    ));
    assert_eq!(
        bench.function.msix().message(1),
        Some(pci::MsiMessage {
            address: 0xfee0_0000,
            data: 0x31
        })
    );
}

#[test]
fn pending_bits_are_those_of_the_interrupt() {
    let mut bench = Bench::new();
    bench.interrupt.pending.lock().unwrap().extend([0, 2, 5]);
    assert_eq!(bench.read(MSIX_PBA, 8), 0b101, "vector 5 does not exist");
    assert_eq!(bench.read(MSIX_PBA, 4), 0b101);
}

#[test]
fn the_device_configuration_is_read_at_any_width_and_never_written() {
    let mut bench = Bench::new();
    assert_eq!(bench.read(DEVICE, 4), 0x0403_0201);
    assert_eq!(bench.read(DEVICE + 4, 2), 0x0605);
    assert_eq!(bench.read(DEVICE + 4, 4), 0x0605, "zeros behind the end");
    bench.write(DEVICE, 4, 0);
    assert_eq!(bench.read(DEVICE, 1), 1);
}

#[test]
fn the_configuration_window_reaches_the_registers() {
    let mut bench = Bench::new();
    let window = bench.function.window;
    bench.set_config(window + capability::OFFSET, DEVICE as u32 + 4);
    bench.set_config(window + capability::LENGTH, 2);
    assert_eq!(bench.config(window + capability::CFG_DATA), 0x0605);

    bench.set_config(window + capability::OFFSET, common::QUEUE_SIZE as u32);
    bench.set_config(window + capability::CFG_DATA, 32);
    assert_eq!(bench.read(common::QUEUE_SIZE, 2), 32);

    for (bar, offset, len) in [
        (1, 0, 4),
        (0, BAR_SIZE as u32, 4),
        (0, 2, 4),
        (0, 0, 3),
        (0, 0, 0),
        (0, u32::MAX, 1),
    ] {
        bench.set_config(window + capability::BAR, bar);
        bench.set_config(window + capability::OFFSET, offset);
        bench.set_config(window + capability::LENGTH, len);
        assert_eq!(
            bench.config(window + capability::CFG_DATA),
            0,
            "{bar} {offset:#x} {len}"
        );
    }
}

#[test]
fn a_reset_restores_every_register() {
    let mut bench = Bench::new();
    let fresh: Vec<u64> = (0..u64::from(common::SIZE))
        .step_by(4)
        .map(|at| bench.read(at, 4))
        .collect();
    bench.write(common::QUEUE_DESC_LOW, 4, 0x1000);
    bench.write(common::QUEUE_ENABLE, 2, 1);
    bench.write(common::CONFIG_MSIX_VECTOR, 2, 1);
    bench.run();
    bench.effects.clear();
    bench
        .function
        .reset(ResetKind::Conventional, &mut bench.effects);
    assert!(
        bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Reset))
    );
    let again: Vec<u64> = (0..u64::from(common::SIZE))
        .step_by(4)
        .map(|at| bench.read(at, 4))
        .collect();
    assert_eq!(again, fresh);
    assert_eq!(bench.read(common::DEVICE_STATUS, 1), 0);
    assert_eq!(
        bench.read(common::CONFIG_MSIX_VECTOR, 2),
        u64::from(NO_VECTOR)
    );
}
