use super::*;
use crate::protocol::spec::{cmd, control};

fn properties() -> Properties {
    Properties {
        name: "An accelerator".into(),
        backend: spec::backend::PTX,
        memory: 0x1_2345_6000,
        compute_capability: (7, 5),
        driver_version: 12090,
        multiprocessors: 4,
        max_threads: 1024,
    }
}

fn registers() -> Registers {
    Registers::new(properties())
}

fn read32(registers: &mut Registers, offset: u64) -> u32 {
    let mut data = [0; 4];
    registers.read(offset, &mut data, || 0x2_0000_0001);
    u32::from_le_bytes(data)
}

fn read64(registers: &mut Registers, offset: u64) -> u64 {
    let mut data = [0; 8];
    registers.read(offset, &mut data, || 0x2_0000_0001);
    u64::from_le_bytes(data)
}

fn write32(registers: &mut Registers, offset: u64, value: u32) -> Option<Request> {
    registers.write(offset, &value.to_le_bytes())
}

#[test]
fn version_1_has_the_offsets_and_values_of_the_seed() {
    let mut registers = registers();
    for (offset, value) in [
        (0x0000, 0x4358_4c32),
        (0x0004, 0x0001_0000),
        (0x0008, 1),
        (0x0010, 0),
        (0x0014, 0),
        (0x0018, 0),
    ] {
        assert_eq!(read32(&mut registers, offset), value, "{offset:#x}");
    }
    assert_eq!(read64(&mut registers, 0x140), 0x1_2345_6000);
    assert_eq!(read64(&mut registers, 0x148), 0x2_0000_0001);
    for param in 0..8 {
        let offset = 0x40 + 8 * param;
        registers.write(offset, &(param + (7 << 40)).to_le_bytes());
        assert_eq!(read64(&mut registers, offset), param + (7 << 40));
    }
    assert_eq!(
        [spec::DATA, spec::DATA + spec::DATA_SIZE],
        [0x1000, 0x1_0000]
    );
    assert_eq!(
        [
            cmd::INIT,
            cmd::GET_DEVICE_COUNT,
            cmd::CTX_CREATE,
            cmd::CTX_SYNC,
            cmd::MEM_ALLOC,
            cmd::MEM_FREE,
            cmd::MEM_COPY_HTOD,
            cmd::MEM_COPY_DTOH,
            cmd::MODULE_LOAD_PTX,
            cmd::FUNC_GET,
            cmd::LAUNCH_KERNEL,
        ],
        [
            0x01, 0x02, 0x10, 0x12, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32, 0x40
        ]
    );
}

#[test]
fn a_command_runs_from_the_write_until_it_is_completed() {
    let mut registers = registers();
    registers.write(0x40, &0x100_u64.to_le_bytes());
    let started = write32(&mut registers, 0x10, cmd::MEM_ALLOC);
    let mut params = [0; 8];
    params[0] = 0x100;
    assert_eq!(
        started,
        Some(Request::Command(Command {
            code: 0x20,
            params,
            serial: 1
        }))
    );
    assert_eq!(read32(&mut registers, 0x14), cmd_status::RUNNING);
    assert_eq!(read32(&mut registers, 0x08), status::READY | status::BUSY);
    assert_eq!(
        write32(&mut registers, 0x10, cmd::INIT),
        None,
        "none starts while one runs"
    );

    let outcome = Outcome {
        result: 2,
        results: [0xaa_0000_0001, 2, 3, 4],
        context: true,
    };
    registers.complete(1, outcome);
    assert_eq!(read32(&mut registers, 0x14), cmd_status::COMPLETE);
    assert_eq!(read32(&mut registers, 0x18), 2);
    assert_eq!(
        read32(&mut registers, 0x08),
        status::READY | status::ERROR | status::CTX_ACTIVE
    );
    let results = [0x80, 0x88, 0x90, 0x98].map(|offset| read64(&mut registers, offset));
    assert_eq!(results, outcome.results);
}

#[test]
fn a_command_from_before_a_reset_completes_nothing() {
    let mut registers = registers();
    write32(&mut registers, 0x10, cmd::INIT);
    registers.reset();
    assert_eq!(read32(&mut registers, 0x14), cmd_status::IDLE);
    write32(&mut registers, 0x10, cmd::INIT);
    registers.complete(1, Outcome::default());
    assert_eq!(read32(&mut registers, 0x14), cmd_status::RUNNING);
    registers.complete(2, Outcome::default());
    assert_eq!(read32(&mut registers, 0x14), cmd_status::COMPLETE);
}

#[test]
fn the_name_is_text_that_ends_with_nul() {
    let mut registers = Registers::new(Properties {
        name: "n".repeat(100),
        ..properties()
    });
    let mut name = Vec::new();
    for offset in (0x100..0x140).step_by(8) {
        name.extend(read64(&mut registers, offset).to_le_bytes());
    }
    assert_eq!(name, [&[b'n'; 63][..], &[0]].concat());
}

#[test]
fn rings_are_off_until_they_are_asked_for() {
    let mut registers = registers();
    assert_eq!(read32(&mut registers, reg::VERSION_MAX), 0x0002_0000);
    assert_eq!(
        write32(&mut registers, reg::CONTROL, control::SESSION_OPEN),
        None
    );
    assert_eq!(
        read32(&mut registers, reg::CONTROL_RESULT),
        result::NOT_INITIALIZED
    );
    assert_eq!(write32(&mut registers, reg::VERSION_SELECT, 3), None);
    assert!(!registers.has_rings());
    write32(&mut registers, reg::VERSION_SELECT, spec::VERSION_2);
    registers.write(reg::CONTROL_ARG0 + 8, &5_u64.to_le_bytes());
    assert_eq!(
        write32(&mut registers, reg::CONTROL, control::PIN),
        Some(Request::Control(Control {
            code: control::PIN,
            args: [0, 5, 0, 0]
        }))
    );
    registers.reply(Reply {
        result: 0,
        outs: [1 << 33, 6],
    });
    assert_eq!(read32(&mut registers, reg::CONTROL_RESULT), 0);
    assert_eq!(read64(&mut registers, reg::CONTROL_OUT0), 1 << 33);
    assert_eq!(read32(&mut registers, reg::CONTROL_OUT0 + 8), 6);
    assert_eq!(
        write32(&mut registers, reg::VERSION_SELECT, spec::VERSION_1),
        Some(Request::CloseSessions)
    );
}

#[test]
fn odd_accesses_read_zero_and_write_nothing() {
    let mut registers = registers();
    for (offset, len) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 3), (u64::MAX, 1)] {
        let mut data = vec![0xff; len];
        assert_eq!(registers.write(offset, &data), None);
        registers.read(offset, &mut data, || 0);
        assert_eq!(data, vec![0; len], "{offset:#x} {len}");
    }
    for offset in [0, 4, 8, 0x14, 0x18, 0x80, 0x100, 0x140, 0x800, 0x844, 0x880] {
        let before = read32(&mut registers, offset);
        write32(&mut registers, offset, !before);
        assert_eq!(
            read32(&mut registers, offset),
            before,
            "{offset:#x} is read only"
        );
    }
}
