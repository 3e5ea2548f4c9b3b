//! Virtual Switch command set (section 7.6.7.2), opcode 0x5200. There is one virtual switch, the host's, whose virtual bridge
//! `n` is bound to physical port `n` and stays so: nobody else is there to bind it to.

use super::{Port, Switch};
use crate::Effect;
use crate::mailbox::{Command, CommandEffects, Input, Reply, Request, ReturnCode};

/// The number of the only virtual switch.
pub(super) const VCS_ID: u8 = 0;

/// Get Virtual CXL Switch Info (section 7.6.7.2.1).
pub(super) struct GetVirtualSwitchInfo;

pub(super) struct InfoRequest {
    start: u8,
    limit: u8,
    switches: Vec<u8>,
}

impl Request for InfoRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [start, limit, count] = input.array()?;
        let switches = (0..count).map(|_| input.u8()).collect::<Option<_>>()?;
        Some(Self {
            start,
            limit,
            switches,
        })
    }
}

/// A virtual switch with some of its virtual bridges.
struct Info {
    upstream: u8,
    vppbs: u8,
    list: Vec<Port>,
}

impl Info {
    fn encode(&self, output: &mut Vec<u8>) {
        const ENABLED: u8 = 1;
        const BOUND_PORT: u8 = 2;
        const BOUND_LD: u8 = 3;
        const NO_LD: u8 = 0xff;
        output.extend([VCS_ID, ENABLED, self.upstream, self.vppbs]);
        for port in &self.list {
            let (status, ld) = match port.logical_devices() {
                Some((_, own)) => (BOUND_LD, own),
                None => (BOUND_PORT, NO_LD),
            };
            output.extend([status, port.id, ld, 0]);
        }
    }
}

pub(super) struct InfoList(Vec<Info>);

impl Reply for InfoList {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([self.0.len() as u8, 0, 0, 0]);
        for info in &self.0 {
            info.encode(output);
        }
    }
}

impl Command<Switch> for GetVirtualSwitchInfo {
    const OPCODE: u16 = 0x5200;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = InfoRequest;
    type Reply = InfoList;

    fn run(
        switch: &mut Switch,
        request: InfoRequest,
        _: &mut Vec<Effect>,
    ) -> Result<InfoList, ReturnCode> {
        let InfoRequest {
            start,
            limit,
            switches,
        } = request;
        // Each is asked for once.
        if limit == 0 || switches != [VCS_ID] {
            return Err(ReturnCode::InvalidInput);
        }
        let list = switch.downstream().copied();
        let info = Info {
            upstream: switch.config.upstream,
            vppbs: switch.downstream().count() as u8,
            list: list.skip(start.into()).take(limit.into()).collect(),
        };
        Ok(InfoList(vec![info]))
    }
}
