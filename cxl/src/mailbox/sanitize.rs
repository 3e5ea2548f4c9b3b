//! Sanitize and secure erase (sections 8.2.9.9.5.1 and 8.2.9.9.5.2), opcodes 0x4400 and 0x4401.

use super::{BackgroundCommand, Command, CommandEffects, ReturnCode, Start};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::background::{Operation, Work};

/// Sanitize: all that the host stored is gone, labels too. The media is disabled meanwhile.
pub(super) struct Sanitize;

impl BackgroundCommand for Sanitize {
    const OPCODE: u16 = 0x4400;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_DATA.and(CommandEffects::SECURITY_STATE);
    type Request = ();
    type Reply = ();

    fn start(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Start<()>, ReturnCode> {
        memdev.check_erasable(false)?;
        Ok(Start::Background(Operation {
            duration: Memdev::sanitize_time(memdev.address_space()),
            work: Work::Sanitize,
        }))
    }
}

/// Secure Erase: the media is encrypted with a new key, and so all zeroes as far as anyone can tell; labels stay.
pub(super) struct SecureErase;

impl Command for SecureErase {
    const OPCODE: u16 = 0x4401;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_DATA.and(CommandEffects::SECURITY_STATE);
    const NEEDS_MEDIA: bool = true;
    type Request = ();
    type Reply = ();

    fn run(memdev: &mut Memdev, _: (), effects: &mut Vec<Effect>) -> Result<(), ReturnCode> {
        memdev.check_erasable(true)?;
        memdev.zero_media(0, memdev.address_space(), effects);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench, config};
    use super::*;

    const CAPACITY: u64 = 3 << 30;
    /// To sanitize so much.
    const TIME: u64 = 800_000_000;

    fn dirty() -> Bench {
        let mut bench = bench();
        for dpa in [0x1000_u64, 0x4000_0000] {
            bench.run(0x4301, &dpa.to_le_bytes()).unwrap();
        }
        bench.effects.clear();
        bench
    }

    #[test]
    fn sanitize_empties_media_labels_and_poison_list() {
        let mut bench = dirty();
        bench.start(0x4400, &[], TIME);
        let lsa = config().lsa.len() as u32;
        let (dpa, len) = (0, CAPACITY);
        assert_eq!(
            bench.effects,
            [
                Effect::MediaZeroed { dpa, len },
                Effect::PoisonChanged { dpa, len },
                Effect::NonVolatileChanged,
                Effect::LsaWritten {
                    offset: 0,
                    len: lsa
                },
                Effect::AccessChanged,
            ]
        );
        bench.effects.clear();
        bench.finish(TIME, ReturnCode::Success);
        assert_eq!(bench.effects, [Effect::AccessChanged]);
        assert_eq!(bench.memdev.poison().found(0, CAPACITY), []);
        assert!(bench.memdev.lsa().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_media_is_disabled_while_it_is_sanitized() {
        let mut bench = dirty();
        let lsa = [0, 0, 0, 0, 1, 0, 0, 0];
        let poison = [[0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let erase: &[u8] = &[];
        let commands = [(0x4102, &lsa[..]), (0x4300, &poison[..]), (0x4401, erase)];
        bench.start(0x4400, &[], TIME);
        assert!(bench.memdev.is_media_disabled());
        for (opcode, input) in commands {
            assert_eq!(bench.run(opcode, input), Err(ReturnCode::MediaDisabled));
        }
        assert!(bench.run(0x4000, &[]).is_ok(), "Identify needs no media");
        bench.finish(TIME, ReturnCode::Success);
        for (opcode, input) in commands {
            assert!(bench.run(opcode, input).is_ok());
        }
    }

    #[test]
    fn a_sanitize_cannot_be_aborted() {
        let mut bench = bench();
        bench.start(0x4400, &[], TIME);
        assert_eq!(bench.run(0x0005, &[]), Err(ReturnCode::InvalidInput));
        assert_eq!(bench.run(0x4400, &[]), Err(ReturnCode::Busy));
        bench.finish(TIME, ReturnCode::Success);
    }

    #[test]
    fn secure_erase_empties_the_media_at_once_and_keeps_labels() {
        let mut bench = dirty();
        assert_eq!(bench.run(0x4401, &[]), Ok(vec![]));
        let (dpa, len) = (0, CAPACITY);
        let erased = [
            Effect::MediaZeroed { dpa, len },
            Effect::PoisonChanged { dpa, len },
            Effect::NonVolatileChanged,
        ];
        assert_eq!(bench.effects, erased);
        assert_eq!(bench.memdev.lsa(), config().lsa);
    }
}
