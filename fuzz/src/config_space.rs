use pci::{Function, ResetKind};

use crate::MOST_EFFECTS;
use crate::input::Input;
use crate::type3::expander;

/// Configuration space of a Type 3 device: reads, writes and resets, then back to the reset values.
pub fn config_space(data: &[u8]) {
    let mut input = Input::new(data);
    let mut function = expander();
    let whole = |function: &devices::Type3| {
        let mut image = vec![0; 4096];
        function.config_read(0, &mut image);
        image
    };
    let fresh = whole(&function);
    let mut effects = Vec::new();
    while !input.is_empty() {
        let operation = input.u8();
        let (offset, len) = (input.u16(), usize::from(operation >> 4));
        match operation & 0xf {
            0 => function.reset(
                input.choose(&[
                    ResetKind::Conventional,
                    ResetKind::SecondaryBus,
                    ResetKind::FunctionLevel,
                ]),
                &mut effects,
            ),
            1..=3 => function.config_read(offset, &mut vec![0; len]),
            _ => function.config_write(offset % 4096, &input.padded(len), &mut effects),
        }
        assert!(effects.len() < MOST_EFFECTS, "{} effects", effects.len());
        effects.clear();
    }
    function.reset(ResetKind::Conventional, &mut effects);
    assert_eq!(
        whole(&function),
        fresh,
        "a conventional reset restores the reset values"
    );
}
