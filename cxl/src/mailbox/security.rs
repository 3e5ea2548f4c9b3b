//! Persistent memory security (section 8.2.9.9.6), opcodes 0x4500 to 0x4505.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::security::{Passphrase, PassphraseType};

/// Get Security State; also of a device without persistent memory, as Linux asks for it before a sanitize.
pub(super) struct GetSecurityState;

pub(super) struct SecurityState(u32);

impl Reply for SecurityState {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend(self.0.to_le_bytes());
    }
}

impl Command for GetSecurityState {
    const OPCODE: u16 = 0x4500;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = SecurityState;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<SecurityState, ReturnCode> {
        Ok(SecurityState(memdev.security_state()))
    }
}

/// True if there is anything to secure.
fn has_persistent_memory(memdev: &Memdev) -> bool {
    memdev.config().persistent > 0 || memdev.config().partitionable > 0
}

/// The type of a passphrase, and what follows it up to the passphrases.
fn decode_type(input: &mut Input<'_>) -> Option<u8> {
    let [kind, _reserved @ ..]: [u8; 0x20] = input.array()?;
    Some(kind)
}

fn passphrase_type(code: u8) -> Result<PassphraseType, ReturnCode> {
    match code {
        0 => Ok(PassphraseType::Master),
        1 => Ok(PassphraseType::User),
        _ => Err(ReturnCode::InvalidInput),
    }
}

/// Set Passphrase.
pub(super) struct SetPassphrase;

pub(super) struct SetRequest {
    kind: u8,
    current: Passphrase,
    new: Passphrase,
}

impl Request for SetRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            kind: decode_type(input)?,
            current: input.array()?,
            new: input.array()?,
        })
    }
}

impl Command for SetPassphrase {
    const OPCODE: u16 = 0x4501;
    const EFFECTS: CommandEffects = CommandEffects::SECURITY_STATE;
    type Request = SetRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_persistent_memory(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: SetRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let kind = passphrase_type(request.kind)?;
        memdev.set_passphrase(kind, &request.current, &request.new, effects)
    }
}

/// A type and a passphrase of it.
pub(super) struct PassphraseRequest {
    kind: u8,
    passphrase: Passphrase,
}

impl Request for PassphraseRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            kind: decode_type(input)?,
            passphrase: input.array()?,
        })
    }
}

/// Disable Passphrase.
pub(super) struct DisablePassphrase;

impl Command for DisablePassphrase {
    const OPCODE: u16 = 0x4502;
    const EFFECTS: CommandEffects = CommandEffects::SECURITY_STATE;
    type Request = PassphraseRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_persistent_memory(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: PassphraseRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let kind = passphrase_type(request.kind)?;
        memdev.disable_passphrase(kind, &request.passphrase, effects)
    }
}

/// Unlock.
pub(super) struct Unlock;

pub(super) struct UnlockRequest(Passphrase);

impl Request for UnlockRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self(input.array()?))
    }
}

impl Command for Unlock {
    const OPCODE: u16 = 0x4503;
    const EFFECTS: CommandEffects = CommandEffects::SECURITY_STATE;
    type Request = UnlockRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_persistent_memory(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        UnlockRequest(passphrase): UnlockRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        memdev.unlock(&passphrase, effects)
    }
}

/// Freeze Security State.
pub(super) struct FreezeSecurityState;

impl Command for FreezeSecurityState {
    const OPCODE: u16 = 0x4504;
    const EFFECTS: CommandEffects = CommandEffects::SECURITY_STATE;
    type Request = ();
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_persistent_memory(memdev)
    }

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<(), ReturnCode> {
        memdev.freeze_security();
        Ok(())
    }
}

/// Passphrase Secure Erase.
pub(super) struct PassphraseSecureErase;

impl Command for PassphraseSecureErase {
    const OPCODE: u16 = 0x4505;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_DATA.and(CommandEffects::SECURITY_STATE);
    const NEEDS_MEDIA: bool = true;
    type Request = PassphraseRequest;
    type Reply = ();

    fn is_supported(memdev: &Memdev) -> bool {
        has_persistent_memory(memdev)
    }

    fn run(
        memdev: &mut Memdev,
        request: PassphraseRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let kind = passphrase_type(request.kind)?;
        memdev.passphrase_secure_erase(kind, &request.passphrase, effects)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench, bench_of, config};
    use super::*;
    use crate::memdev::MemdevConfig;

    const MASTER: u8 = 0;
    const USER: u8 = 1;
    const NOTHING: u8 = 0;

    // Security state.
    const USER_SET: u8 = 1;
    const MASTER_SET: u8 = 2;
    const LOCKED: u8 = 4;
    const FROZEN: u8 = 8;
    const USER_LIMIT: u8 = 0x10;
    const MASTER_LIMIT: u8 = 0x20;

    const STATE: Result<Vec<u8>, ReturnCode> = Err(ReturnCode::IncorrectSecurityState);
    const WRONG: Result<Vec<u8>, ReturnCode> = Err(ReturnCode::IncorrectPassphrase);
    const DONE: Result<Vec<u8>, ReturnCode> = Ok(Vec::new());

    type Answer = Result<Vec<u8>, ReturnCode>;

    /// The commands, with passphrases of 32 times the same letter.
    impl Bench {
        fn set(&mut self, kind: u8, current: u8, new: u8) -> Answer {
            let mut request = vec![0; 0x20];
            request[0] = kind;
            request.extend([current; 32]);
            request.extend([new; 32]);
            self.run(0x4501, &request)
        }

        fn with(&mut self, opcode: u16, kind: u8, passphrase: u8) -> Answer {
            let mut request = vec![0; 0x20];
            request[0] = kind;
            request.extend([passphrase; 32]);
            self.run(opcode, &request)
        }

        fn disable(&mut self, kind: u8, passphrase: u8) -> Answer {
            self.with(0x4502, kind, passphrase)
        }

        fn unlock(&mut self, passphrase: u8) -> Answer {
            self.run(0x4503, &[passphrase; 32])
        }

        fn erase(&mut self, kind: u8, passphrase: u8) -> Answer {
            self.with(0x4505, kind, passphrase)
        }

        fn state(&mut self) -> u8 {
            let state = self.run(0x4500, &[]).unwrap();
            assert_eq!(state[1..], [0; 3]);
            state[0]
        }
    }

    /// A device with a user passphrase, after a cold reset.
    fn locked() -> Bench {
        let mut bench = bench();
        bench.set(USER, NOTHING, b'u').unwrap();
        bench.memdev.power_cycle();
        bench.effects.clear();
        bench
    }

    #[test]
    fn a_new_device_has_no_security() {
        assert_eq!(bench().state(), 0);
    }

    #[test]
    fn a_passphrase_locks_the_device_from_the_next_cold_reset_on() {
        let mut bench = bench();
        assert_eq!(bench.set(USER, NOTHING, b'u'), DONE);
        assert_eq!(bench.effects, [Effect::NonVolatileChanged]);
        assert_eq!(bench.state(), USER_SET);
        bench.memdev.reset();
        assert_eq!(bench.state(), USER_SET);
        bench.memdev.power_cycle();
        assert_eq!(bench.state(), USER_SET | LOCKED);
        assert!(bench.memdev.is_locked());
        bench.effects.clear();
        assert_eq!(bench.unlock(b'u'), DONE);
        assert_eq!(bench.effects, [Effect::AccessChanged]);
        assert_eq!(bench.state(), USER_SET);
        assert_eq!(bench.unlock(b'u'), STATE, "it is not locked");
    }

    #[test]
    fn a_passphrase_is_changed_and_disabled_by_who_knows_it() {
        let mut bench = bench();
        bench.set(USER, NOTHING, b'u').unwrap();
        assert_eq!(bench.set(USER, b'x', b'v'), WRONG);
        assert_eq!(bench.set(USER, b'u', b'v'), DONE);
        assert_eq!(bench.disable(USER, b'u'), WRONG);
        assert_eq!(bench.disable(USER, b'v'), DONE);
        assert_eq!(bench.state(), 0);
        assert_eq!(bench.disable(USER, b'v'), STATE);
        assert_eq!(bench.disable(MASTER, b'v'), STATE);
        bench.memdev.power_cycle();
        assert_eq!(bench.state(), 0);
    }

    #[test]
    fn three_wrong_passphrases_lock_out_until_a_cold_reset() {
        let mut bench = locked();
        for state in [0, 0, USER_LIMIT] {
            assert_eq!(bench.unlock(b'x'), WRONG);
            assert_eq!(bench.state(), USER_SET | LOCKED | state);
        }
        assert_eq!(bench.unlock(b'u'), STATE, "the right one comes too late");
        bench.memdev.power_cycle();
        assert_eq!(bench.unlock(b'x'), WRONG);
        assert_eq!(bench.unlock(b'x'), WRONG);
        assert_eq!(bench.unlock(b'u'), DONE);
        assert_eq!(bench.state(), USER_SET, "a right one begins the count anew");
    }

    #[test]
    fn a_locked_device_changes_nothing_but_by_unlock_or_master_erase() {
        let mut bench = locked();
        assert_eq!(bench.set(USER, b'u', b'v'), STATE);
        assert_eq!(bench.disable(USER, b'u'), STATE);
        assert_eq!(bench.erase(USER, b'u'), STATE);
        assert_eq!(bench.erase(MASTER, NOTHING), STATE, "no master passphrase");
        assert_eq!(bench.run(0x4400, &[]), STATE);
        assert_eq!(bench.run(0x4401, &[]), STATE);
        // 1 GiB of volatile memory lies before the persistent one.
        let clear = |dpa: u64| [&dpa.to_le_bytes()[..], &[0; 64]].concat();
        assert_eq!(bench.run(0x4302, &clear(1 << 30)), STATE);
        assert_eq!(bench.run(0x4301, &(1_u64 << 30).to_le_bytes()), STATE);
        assert_eq!(bench.run(0x4302, &clear(0)), DONE);
        let mut zero = vec![1, 1, 0, 0, 1, 0, 0, 0];
        zero.extend(
            [(1_u64 << 30) - 64, 128]
                .into_iter()
                .flat_map(u64::to_le_bytes),
        );
        assert_eq!(bench.run(0x4402, &zero), STATE);
    }

    #[test]
    fn the_master_passphrase_erases_a_locked_device_and_opens_it() {
        let mut bench = bench();
        bench.set(MASTER, NOTHING, b'm').unwrap();
        bench.set(USER, NOTHING, b'u').unwrap();
        assert_eq!(bench.state(), USER_SET | MASTER_SET);
        bench.memdev.power_cycle();
        bench.effects.clear();
        for state in [0, 0, MASTER_LIMIT] {
            assert_eq!(bench.erase(MASTER, b'x'), WRONG);
            assert_eq!(bench.state(), USER_SET | MASTER_SET | LOCKED | state);
        }
        assert_eq!(bench.erase(MASTER, b'm'), STATE);
        bench.memdev.power_cycle();
        assert_eq!(bench.erase(MASTER, b'm'), DONE);
        let len = bench.memdev.capacity();
        assert_eq!(
            bench.effects,
            [
                Effect::MediaZeroed { dpa: 0, len },
                Effect::NonVolatileChanged,
                Effect::AccessChanged,
            ]
        );
        assert_eq!(bench.state(), MASTER_SET);
    }

    #[test]
    fn the_user_passphrase_erases_an_unlocked_device() {
        let mut bench = bench();
        bench.set(USER, NOTHING, b'u').unwrap();
        assert_eq!(bench.erase(USER, b'x'), WRONG);
        assert_eq!(bench.erase(USER, b'u'), DONE);
        assert_eq!(bench.state(), 0);
        assert_eq!(bench.erase(USER, NOTHING), DONE, "as a secure erase");
    }

    #[test]
    fn a_frozen_state_stays_until_a_cold_reset() {
        let mut bench = bench();
        bench.set(USER, NOTHING, b'u').unwrap();
        for _ in 0..2 {
            assert_eq!(bench.run(0x4504, &[]), DONE);
        }
        assert_eq!(bench.state(), USER_SET | FROZEN);
        assert_eq!(bench.set(USER, b'u', b'v'), STATE);
        assert_eq!(bench.disable(USER, b'u'), STATE);
        assert_eq!(bench.unlock(b'u'), STATE);
        assert_eq!(bench.erase(USER, b'u'), STATE);
        bench.memdev.reset();
        assert_eq!(bench.state(), USER_SET | FROZEN);
        bench.memdev.power_cycle();
        assert_eq!(bench.state(), USER_SET | LOCKED);
    }

    #[test]
    fn sanitize_is_for_devices_without_a_passphrase_and_secure_erase_for_unlocked_ones() {
        let mut bench = bench();
        bench.set(USER, NOTHING, b'u').unwrap();
        assert_eq!(bench.run(0x4400, &[]), STATE);
        assert_eq!(bench.run(0x4401, &[]), DONE);
        assert_eq!(bench.state(), USER_SET);
    }

    #[test]
    fn an_unknown_type_of_passphrase_is_refused() {
        let mut bench = bench();
        for opcode in [0x4502, 0x4505] {
            let result = bench.with(opcode, 2, 0);
            assert_eq!(result, Err(ReturnCode::InvalidInput));
        }
        assert_eq!(bench.set(2, 0, 0), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn volatile_memory_has_a_state_and_nothing_to_secure() {
        let mut bench = bench_of(MemdevConfig {
            persistent: 0,
            ..config()
        });
        assert_eq!(bench.state(), 0);
        assert_eq!(bench.set(USER, 0, 1), Err(ReturnCode::Unsupported));
        assert_eq!(bench.run(0x4504, &[]), Err(ReturnCode::Unsupported));
    }
}
