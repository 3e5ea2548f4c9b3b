//! A switch, and the devices of several logical devices or heads behind its ports (section 7.6.7).

use super::dynamic_capacity::dynamic_capacity;
use super::memory_device::{SWITCH, TYPE_3, information, managed};
use super::{Client, logs, media, settings};
use crate::interface::{INVALID_INPUT, Interface, RETRY_REQUIRED, TUNNEL, Target, Tunnel, field};
use anyhow::{Context, Result, ensure};

const IDENTIFY: u16 = 0x0001;
const GET_RESPONSE_MESSAGE_LIMIT: u16 = 0x0003;
const SET_RESPONSE_MESSAGE_LIMIT: u16 = 0x0004;
const IDENTIFY_SWITCH_DEVICE: u16 = 0x5100;
const GET_PHYSICAL_PORT_STATE: u16 = 0x5101;
const PHYSICAL_PORT_CONTROL: u16 = 0x5102;
const BIND_VPPB: u16 = 0x5201;
const UNBIND_VPPB: u16 = 0x5202;
const GET_LD_INFO: u16 = 0x5400;
const GET_LD_ALLOCATIONS: u16 = 0x5401;
const SET_LD_ALLOCATIONS: u16 = 0x5402;
const GET_QOS_CONTROL: u16 = 0x5403;
const SET_QOS_CONTROL: u16 = 0x5404;
const GET_QOS_STATUS: u16 = 0x5405;
const GET_QOS_ALLOCATED_BW: u16 = 0x5406;
const SET_QOS_ALLOCATED_BW: u16 = 0x5407;
const GET_QOS_BW_LIMIT: u16 = 0x5408;
const SET_QOS_BW_LIMIT: u16 = 0x5409;
const GET_MULTI_HEADED_INFO: u16 = 0x5500;

/// What is done to a port.
const ASSERT_PERST: u8 = 0;
const DEASSERT_PERST: u8 = 1;
const RESET: u8 = 2;
/// Devices behind a port: with one logical device, or with several.
const SINGLE: u8 = 4;
const SEVERAL: u8 = 5;
/// In the state of a port: what is behind it is held in reset.
const IN_RESET: u64 = 1 << 1;
/// Beginning of the UUID of records about physical ports.
const PHYSICAL_SWITCH: [u8; 4] = [0x77, 0xcf, 0x92, 0x71];
/// From the first logical device, or head, to the last.
const ALL: [u8; 2] = [0, 0xff];

/// All that can be asked of a switch and of what is behind its ports. The host does not have what is behind `spare`, which is held
/// in reset meanwhile.
///
/// # Errors
/// One of them does not do what it is asked for.
pub fn switch(interface: &dyn Interface, spare: u8) -> Result<()> {
    let client = Client::of("a switch", interface)?;
    ensure!(information(&client)? == SWITCH, "no switch");
    limit(&client)?;
    settings::timestamp(&client)?;
    logs::logs(&client)?;
    let event = media::event_of(&client, || reset(&client, spare))?;
    ensure!(
        event.starts_with(&PHYSICAL_SWITCH) && event[0x30..0x32] == [spare, 0],
        "a reset is no link state change: {event:02x?}"
    );
    // There is no such switch to bind a port of, nor to unbind one of.
    client.refused(
        BIND_VPPB,
        &[0xff, spare, spare, 0, 0xff, 0xff],
        INVALID_INPUT,
    )?;
    client.refused(UNBIND_VPPB, &[0xff, spare, 2], INVALID_INPUT)?;
    for port in downstream(&client)? {
        let [number, _, _, _, kind, ..] = port[..] else {
            continue;
        };
        let behind = Tunnel {
            through: interface,
            to: Target::Number(number),
        };
        match kind {
            SINGLE => managed(&behind),
            SEVERAL => logical_devices(&behind),
            _ => continue,
        }
        .with_context(|| format!("behind port {number}"))?;
        client.asked.borrow_mut().insert(TUNNEL);
    }
    client.finish()
}

/// Answers are no longer than a limit that is set.
fn limit(client: &Client<'_>) -> Result<()> {
    /// 256 bytes.
    const LEAST: u8 = 8;
    let before = client.ask_for(GET_RESPONSE_MESSAGE_LIMIT, &[], 1)?;
    for limit in [LEAST, before[0]] {
        let set = client.ask_for(SET_RESPONSE_MESSAGE_LIMIT, &[limit], 1)?;
        let now = client.ask_for(GET_RESPONSE_MESSAGE_LIMIT, &[], 1)?;
        ensure!(set == [limit] && now == [limit], "a limit of {now:?}");
    }
    Ok(())
}

/// The states of ports, 16 bytes each.
fn states(client: &Client<'_>, ports: &[u8]) -> Result<Vec<Vec<u8>>> {
    let request = [&[ports.len() as u8][..], ports].concat();
    let answer = client.ask_for(GET_PHYSICAL_PORT_STATE, &request, 4 + 16 * ports.len())?;
    let states: Vec<_> = answer[4..].chunks_exact(16).map(<[u8]>::to_vec).collect();
    let are_asked_for = states
        .iter()
        .map(|state| state[0])
        .eq(ports.iter().copied());
    ensure!(are_asked_for, "other ports than {ports:?}");
    Ok(states)
}

/// The states of all ports but the one to the host.
fn downstream(client: &Client<'_>) -> Result<Vec<Vec<u8>>> {
    let identity = client.ask_for(IDENTIFY_SWITCH_DEVICE, &[], 0x49)?;
    let is_downstream = |port: &u8| {
        identity[4 + usize::from(port / 8)] >> (port % 8) & 1 != 0 && *port != identity[0]
    };
    let ports: Vec<u8> = (0..=255).filter(is_downstream).collect();
    ensure!(
        ports.len() + 1 == usize::from(identity[2]),
        "{ports:?} are not {}",
        identity[2]
    );
    states(client, &ports)
}

/// What is held in reset answers nobody, and does again.
fn reset(client: &Client<'_>, port: u8) -> Result<()> {
    let flags = || field(&states(client, &[port])?[0], 13, 2);
    let behind = Tunnel {
        through: client.interface,
        to: Target::Number(port),
    };
    let identity = behind.run(IDENTIFY, &[])?;
    client.tell(PHYSICAL_PORT_CONTROL, &[port, ASSERT_PERST])?;
    ensure!(flags()? & IN_RESET != 0, "port {port} is not in reset");
    client.refused(PHYSICAL_PORT_CONTROL, &[port, ASSERT_PERST], INVALID_INPUT)?;
    client.refused(TUNNEL, &message(port), RETRY_REQUIRED)?;
    client.tell(PHYSICAL_PORT_CONTROL, &[port, DEASSERT_PERST])?;
    ensure!(flags()? & IN_RESET == 0, "port {port} stays in reset");
    client.tell(PHYSICAL_PORT_CONTROL, &[port, RESET])?;
    ensure!(behind.run(IDENTIFY, &[])? == identity, "another device");
    Ok(())
}

/// Identify in a tunnel to a port.
fn message(port: u8) -> Vec<u8> {
    vec![port, 0, 12, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// A device of several logical devices, each of which is asked if there is anyone to answer: one is.
fn logical_devices(interface: &dyn Interface) -> Result<()> {
    let client = Client::of("several logical devices", interface)?;
    ensure!(information(&client)? == TYPE_3, "no memory device");
    let info = client.ask_for(GET_LD_INFO, &[], 0xb)?;
    let (memory, count) = (field(&info, 0, 8)?, field(&info, 8, 2)?);
    let count = u8::try_from(count)?;
    let mut own = None;
    for number in 0..count {
        let behind = Tunnel {
            through: interface,
            to: Target::Number(number),
        };
        if behind.send(IDENTIFY, &[]).is_ok() {
            ensure!(own.is_none(), "two logical devices answer");
            own = Some(number);
            managed(&behind)?;
        }
    }
    client.asked.borrow_mut().insert(TUNNEL);
    let own = own.context("no logical device answers")?;
    allocations(&client, memory, count, own)?;
    qos(&client)?;
    for (get, set) in [
        (GET_QOS_ALLOCATED_BW, SET_QOS_ALLOCATED_BW),
        (GET_QOS_BW_LIMIT, SET_QOS_BW_LIMIT),
    ] {
        bandwidth(&client, count, get, set)?;
    }
    dynamic_capacity(&client, own)?;
    client.finish()
}

/// Capacity that is not this host's goes from one range of a logical device to the other, and back.
fn allocations(client: &Client<'_>, memory: u64, count: u8, own: u8) -> Result<()> {
    const RANGES: usize = 16;
    let len = 4 + RANGES * usize::from(count);
    let get = || client.ask_for(GET_LD_ALLOCATIONS, &ALL, len);
    let before = get()?;
    ensure!(
        before[0] == count && before[2..4] == [0, count],
        "allocations begin {:?}",
        &before[..4]
    );
    let granule = (256 << 20) << before[1];
    let total: u64 = (4..len)
        .step_by(8)
        .map(|at| field(&before, at, 8))
        .sum::<Result<u64>>()?;
    ensure!(total <= memory / granule, "{total} granules allocated");

    let other = (0..count)
        .find(|number| *number != own)
        .context("only one")?;
    let at = 4 + RANGES * usize::from(other);
    let (first, second) = (field(&before, at, 8)?, field(&before, at + 8, 8)?);
    let header = [count, 0, 0, 0];
    for ranges in [[second, first], [first, second]] {
        let mut wanted = before[4..].to_vec();
        wanted[at - 4..at + 12].copy_from_slice(ranges.map(u64::to_le_bytes).as_flattened());
        let set = client.ask_for(SET_LD_ALLOCATIONS, &[&header[..], &wanted].concat(), len)?;
        ensure!(set[4..] == wanted && get()?[4..] == wanted, "not allocated");
    }
    Ok(())
}

/// Thresholds of the telemetry are what was set.
fn qos(client: &Client<'_>) -> Result<()> {
    let get = || client.ask_for(GET_QOS_CONTROL, &[], 7);
    let before = get()?;
    let wanted = vec![3, before[1] ^ 1, before[2] ^ 1, 4, 0x34, 0x12, 99];
    for control in [&wanted, &before] {
        let set = client.ask_for(SET_QOS_CONTROL, control, 7)?;
        ensure!(set == *control && get()? == *control, "not in control");
    }
    let status = client.ask_for(GET_QOS_STATUS, &[], 1)?;
    ensure!(status[0] <= 100, "{} % of the time", status[0]);
    Ok(())
}

/// A logical device has less of the bandwidth, and then as much as before.
fn bandwidth(client: &Client<'_>, count: u8, get: u16, set: u16) -> Result<()> {
    let len = 2 + usize::from(count);
    let get = || client.ask_for(get, &[count, 0], len);
    let before = get()?;
    let mut wanted = before.clone();
    wanted[2] = before[2] / 2 + 1;
    for parts in [&wanted, &before] {
        let now = client.ask_for(set, parts, len)?;
        ensure!(now == *parts && get()? == *parts, "bandwidth {now:?}");
    }
    Ok(())
}

/// What the heads of a device have in common.
pub(super) fn pool(interface: &dyn Interface) -> Result<()> {
    let client = Client::of("several heads", interface)?;
    ensure!(information(&client)? == TYPE_3, "no memory device");
    let info = client.ask(GET_MULTI_HEADED_INFO, &ALL)?;
    let [logical_devices, heads, _, _, 0, len, _, _, map @ ..] = &info[..] else {
        anyhow::bail!("heads {info:02x?}");
    };
    let all_have_heads = map.iter().all(|head| head < heads);
    ensure!(
        *heads > 1 && len == logical_devices && map.len() == usize::from(*len) && all_have_heads,
        "heads {info:02x?}"
    );
    client.finish()
}
