//! Perform Maintenance (section 8.2.9.7.1), opcode 0x0600.

use super::{BackgroundCommand, CommandEffects, Input, Request, ReturnCode, Start};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::repair::{Repair, RepairRequest};

pub(super) struct PerformMaintenance;

/// `None`: there is no such maintenance.
pub(super) struct MaintenanceRequest(Option<RepairRequest>);

impl MaintenanceRequest {
    /// Flags of all repairs: ask only whether there is a spare part.
    const QUERY: u8 = 1 << 0;
    /// Flags of sparing: for good.
    const HARD_SPARING: u8 = 1 << 1;
}

impl Request for MaintenanceRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let Some(repair) = Repair::with_code(input.array()?) else {
            input.rest();
            return Some(Self(None));
        };
        let flags = input.u8()?;
        let (hard, dpa) = if repair.is_ppr() {
            let dpa = input.u64()?;
            let _nibble_mask: [u8; 3] = input.array()?;
            (repair == Repair::HardPpr, Some(dpa))
        } else {
            // Channel, rank, nibble mask (3), bank group, bank, row (3), column (2), sub-channel: a place in a DRAM
            // that this device does not have.
            let _place: [u8; 13] = input.array()?;
            (flags & Self::HARD_SPARING != 0, None)
        };
        Some(Self(Some(RepairRequest {
            repair,
            query: flags & Self::QUERY != 0,
            hard,
            dpa,
        })))
    }
}

impl BackgroundCommand for PerformMaintenance {
    const OPCODE: u16 = 0x0600;
    const EFFECTS: CommandEffects =
        CommandEffects::IMMEDIATE_CONFIGURATION.and(CommandEffects::IMMEDIATE_DATA);
    const NEEDS_MEDIA: bool = true;
    type Request = MaintenanceRequest;
    type Reply = ();

    fn start(
        memdev: &mut Memdev,
        MaintenanceRequest(request): MaintenanceRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Start<()>, ReturnCode> {
        let request = request.ok_or(ReturnCode::Unsupported)?;
        let operation = memdev.perform_maintenance(request, effects)?;
        Ok(operation.map_or(Start::Done(()), Start::Background))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench};
    use super::*;
    use crate::memdev::repair::SPARES;

    const TIME: u64 = 10_000_000;
    const QUERY: u8 = 1;
    const HARD: u8 = 2;

    fn ppr(subclass: u8, flags: u8, dpa: u64) -> Vec<u8> {
        let mut request = vec![1, subclass, flags];
        request.extend(dpa.to_le_bytes());
        request.extend([0; 3]);
        request
    }

    fn sparing(subclass: u8, flags: u8) -> Vec<u8> {
        [&[2, subclass, flags][..], &[0; 13]].concat()
    }

    /// A hard repair goes on in the background, a soft one is done at once.
    fn repair(bench: &mut Bench, request: &[u8]) {
        let [class, subclass, flags, ..] = *request else {
            panic!("class, subclass and flags")
        };
        if (class, subclass) == (1, 1) || class == 2 && flags & HARD != 0 {
            bench.start(0x0600, request, TIME);
            bench.finish(TIME, ReturnCode::Success);
        } else {
            assert_eq!(bench.run(0x0600, request), Ok(vec![]));
        }
    }

    #[test]
    fn a_repaired_line_is_good_again() {
        for subclass in [0, 1] {
            let mut bench = bench();
            bench.run(0x4301, &0x1000_u64.to_le_bytes()).unwrap();
            repair(&mut bench, &ppr(subclass, 0, 0x1004));
            assert!(!bench.memdev.poison().is_poisoned(0x1000, 64));
        }
    }

    #[test]
    fn spare_parts_run_out_and_soft_repairs_end_with_a_cold_reset() {
        let (soft, hard) = (ppr(0, 0, 0), ppr(1, 0, 0));
        let exhausted = Err(ReturnCode::ResourcesExhausted);
        for (request, query, left) in [
            (&soft, ppr(0, QUERY, 0), Ok(vec![])),
            (&hard, ppr(1, QUERY, 0), exhausted.clone()),
            (&sparing(3, 0), sparing(3, QUERY), Ok(vec![])),
            (&sparing(3, HARD), sparing(3, QUERY), exhausted.clone()),
        ] {
            let mut bench = bench();
            for _ in 0..SPARES {
                assert_eq!(
                    bench.run(0x0600, &query),
                    Ok(vec![]),
                    "a query uses nothing"
                );
                repair(&mut bench, request);
            }
            assert_eq!(bench.run(0x0600, request), exhausted);
            assert_eq!(bench.run(0x0600, &query), exhausted);
            bench.memdev.reset();
            assert_eq!(bench.run(0x0600, &query), exhausted);
            bench.memdev.power_cycle();
            assert_eq!(bench.run(0x0600, &query), left);
        }
    }

    #[test]
    fn each_kind_has_spare_parts_of_its_own() {
        let mut bench = bench();
        for subclass in 0..4 {
            for _ in 0..SPARES {
                repair(&mut bench, &sparing(subclass, 0));
            }
        }
    }

    #[test]
    fn bad_maintenance_is_refused() {
        let mut bench = bench();
        let end = bench.memdev.capacity();
        for (request, code) in [
            (ppr(0, 0, end), ReturnCode::InvalidPhysicalAddress),
            (ppr(2, 0, 0), ReturnCode::Unsupported),
            (sparing(4, 0), ReturnCode::Unsupported),
            (vec![0, 0], ReturnCode::Unsupported),
            (vec![1], ReturnCode::InvalidPayloadLength),
            (
                ppr(0, 0, 0)[..13].to_vec(),
                ReturnCode::InvalidPayloadLength,
            ),
            (
                sparing(0, 0)[..15].to_vec(),
                ReturnCode::InvalidPayloadLength,
            ),
        ] {
            assert_eq!(bench.run(0x0600, &request), Err(code), "{request:?}");
        }
    }
}
