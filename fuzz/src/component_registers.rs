use cxl::{ComponentRegisters, Role};

use crate::MOST_EFFECTS;
use crate::input::Input;

/// Component registers of each kind of component: reads, writes and resets, then back to the reset values.
pub fn component_registers(data: &[u8]) {
    let mut input = Input::new(data);
    let ports = vec![0, 1, 2, 3];
    let role = match input.u8() % 5 {
        0 => Role::HostBridge { decoders: 4, ports },
        1 => Role::RootPort,
        2 => Role::UpstreamSwitchPort {
            decoders: 10,
            ports,
        },
        3 => Role::DownstreamSwitchPort,
        _ => Role::Endpoint {
            decoders: 2,
            capacity: 512 << 20,
        },
    };
    let mut registers = ComponentRegisters::new(&role).expect("a legal component");
    let cachemem = |registers: &ComponentRegisters| {
        let mut image = vec![0; 0x1000];
        registers.read(0x1000, &mut image);
        image
    };
    let fresh = cachemem(&registers);
    let mut effects = Vec::new();
    while !input.is_empty() {
        let operation = input.u8();
        let len = usize::from(operation >> 4);
        match operation & 0xf {
            0 => registers.reset(&mut effects),
            1 => registers.read(input.u64(), &mut vec![0; len]),
            2 => registers.write(input.u64(), &input.padded(len), &mut effects),
            // Where the registers are.
            _ => {
                let offset = 0x1000 + u64::from(input.u16() % 0x500);
                registers.write(offset & !3, &input.padded(4), &mut effects);
            }
        }
        assert!(effects.len() < MOST_EFFECTS, "{} effects", effects.len());
        effects.clear();
    }
    registers.reset(&mut effects);
    assert_eq!(
        cachemem(&registers),
        fresh,
        "a reset restores the reset values"
    );
}
