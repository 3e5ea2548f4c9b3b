use pci::Function;

use crate::MOST_EFFECTS;
use crate::input::Input;
use crate::type3::expander;

/// Extended capability id of data object exchange (PCIe 6.2 section 7.9.24).
const DOE_CAPABILITY: u32 = 0x2e;
/// Registers of the capability.
const CONTROL: u16 = 0x8;
const WRITE_DATA: u16 = 0x10;
const READ_DATA: u16 = 0x14;
const GO: u32 = 1 << 31;
const ABORT: u32 = 1;
/// Bytes of configuration space in which extended capabilities may be.
const EXTENDED: u16 = 0x100;
/// Data words of the longest answer: the CDAT, and some room.
const LONGEST_ANSWER: usize = 1024;

fn read(function: &devices::Type3, offset: u16) -> u32 {
    let mut value = [0; 4];
    function.config_read(offset, &mut value);
    u32::from_le_bytes(value)
}

fn capability(function: &devices::Type3) -> u16 {
    let mut offset = EXTENDED;
    loop {
        let header = read(function, offset);
        if header & 0xffff == DOE_CAPABILITY {
            return offset;
        }
        offset = (header >> 20) as u16;
        assert!(offset >= EXTENDED, "no DOE capability");
    }
}

/// Data objects of any contents through DOE: each gets an answer of an end, or an error.
pub fn doe(data: &[u8]) {
    let mut input = Input::new(data);
    let mut function = expander();
    let base = capability(&function);
    let mut effects = Vec::new();
    while !input.is_empty() {
        match input.u8() {
            // A request for a structure of the CDAT, which a driver would make.
            0x80.. => {
                for word in [0x0002_1e98, 3, u32::from(input.u16()) << 16] {
                    function.config_write(base + WRITE_DATA, &word.to_le_bytes(), &mut effects);
                }
            }
            0x10.. => {
                function.config_write(base + WRITE_DATA, &input.padded(4), &mut effects);
                continue;
            }
            0x08.. => {
                let register = input.u16() % 0x18;
                function.config_write(base + register, &input.padded(4), &mut effects);
                continue;
            }
            0x01.. => {}
            0 => function.config_write(base + CONTROL, &ABORT.to_le_bytes(), &mut effects),
        }
        function.config_write(base + CONTROL, &GO.to_le_bytes(), &mut effects);
        let ready = |function: &devices::Type3| read(function, base + CONTROL + 4) & GO != 0;
        let mut words = 0;
        while ready(&function) {
            read(&function, base + READ_DATA);
            function.config_write(base + READ_DATA, &[0; 4], &mut effects);
            words += 1;
            assert!(words < LONGEST_ANSWER, "an answer without an end");
        }
        assert!(effects.len() < MOST_EFFECTS, "{} effects", effects.len());
        effects.clear();
    }
}
