//! Request Abort Background Operation (section 8.2.9.1.5), opcode 0x0005.

use super::{Command, CommandEffects, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;

pub(super) struct RequestAbort;

impl Command for RequestAbort {
    const OPCODE: u16 = 0x0005;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = ();

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<(), ReturnCode> {
        memdev.abort_background()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bench;
    use super::*;

    /// Scan Media of 1 GiB from 0 on, without events.
    const SCAN: u16 = 0x4304;
    const SCAN_REQUEST: [u8; 17] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    const SCAN_TIME: u64 = 100_000_000;

    #[test]
    fn an_operation_goes_on_from_0_to_99_percent_and_is_at_100_when_it_has_ended() {
        let mut bench = bench();
        assert_eq!(bench.memdev.background_status(), Default::default());
        bench.start(SCAN, &SCAN_REQUEST, SCAN_TIME);
        for percent in [0, 25, 50, 75] {
            let status = bench.memdev.background_status();
            assert_eq!((status.opcode, status.percent), (SCAN, percent));
            assert!(!bench.memdev.advance(&mut Vec::new()));
            bench.pass(SCAN_TIME / 4);
        }
        assert_eq!(bench.memdev.background_status().percent, 99);
        assert!(bench.memdev.advance(&mut Vec::new()));
        assert_eq!(bench.memdev.background_status().percent, 100);
    }

    #[test]
    fn there_is_one_operation_at_a_time() {
        let mut bench = bench();
        bench.start(SCAN, &SCAN_REQUEST, SCAN_TIME);
        assert_eq!(bench.run(SCAN, &SCAN_REQUEST), Err(ReturnCode::Busy));
        assert_eq!(bench.run(0x4000, &[]).map(|reply| reply.len()), Ok(0x45));
        bench.finish(SCAN_TIME, ReturnCode::Success);
        bench.start(SCAN, &SCAN_REQUEST, SCAN_TIME);
    }

    #[test]
    fn nothing_is_aborted_where_nothing_runs() {
        let mut bench = bench();
        assert_eq!(bench.run(0x0005, &[]), Err(ReturnCode::InvalidInput));
    }

    #[test]
    fn a_reset_ends_an_operation_without_a_result() {
        let mut bench = bench();
        bench.start(SCAN, &SCAN_REQUEST, SCAN_TIME);
        bench.memdev.reset();
        assert!(!bench.memdev.is_background_running());
        assert_eq!(bench.memdev.background_status(), Default::default());
    }
}
