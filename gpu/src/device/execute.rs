//! Commands of version 2, one at a time.

use crate::Error;
use crate::backend::{LaunchConfig, Placement};
use crate::protocol::region::Span;
use crate::protocol::spec::{
    MAX_MODULE, MAX_NAME, MAX_PARAMS, Param, Submission, bias, flags, op, result,
};

use super::session::{BiasChange, Session};

/// What a command leaves in its completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// `CUresult`.
    pub result: u32,
    pub values: [u64; 4],
}

impl From<Result<[u64; 4], Error>> for Done {
    fn from(outcome: Result<[u64; 4], Error>) -> Self {
        match outcome {
            Ok(values) => Self {
                result: result::SUCCESS,
                values,
            },
            Err(error) => Self {
                result: error.code(),
                values: [0; 4],
            },
        }
    }
}

const NOTHING: [u64; 4] = [0; 4];

/// Executes everything but [`op::WAIT`], which is the queue's.
pub fn execute(session: &Session, command: &Submission) -> Done {
    let known = match command.opcode {
        op::MEM_ALLOC => flags::MAPPABLE,
        _ => 0,
    };
    if command.flags & !known != 0 || command.reserved != 0 {
        return Err(Error::InvalidValue("flags that the command does not have")).into();
    }
    match command.opcode {
        op::MODULE_LOAD => module_load(session, command),
        op::MEM_COPY_HTOD
        | op::MEM_COPY_DTOH
        | op::MEM_COPY_DTOD
        | op::MEM_SET
        | op::LAUNCH_KERNEL => session.apart(|| simple(session, command)).into(),
        _ => simple(session, command).into(),
    }
}

fn simple(session: &Session, command: &Submission) -> Result<[u64; 4], Error> {
    let [a0, a1, a2, a3] = command.args;
    let span = span(command);
    let values = match command.opcode {
        op::NOP => {
            session.check()?;
            NOTHING
        }
        op::MEM_ALLOC => {
            let placement = if command.flags & flags::MAPPABLE == 0 {
                Placement::Device
            } else {
                Placement::Mappable
            };
            [session.alloc(a0, placement)?, 0, 0, 0]
        }
        op::MEM_FREE => {
            session.free(a0)?;
            NOTHING
        }
        op::MEM_COPY_HTOD => {
            session.copy_in(a0, command.region, span)?;
            NOTHING
        }
        op::MEM_COPY_DTOH => {
            session.copy_out(a0, command.region, span)?;
            NOTHING
        }
        op::MEM_COPY_DTOD => {
            session.context()?.copy(a0, a1, a2)?;
            NOTHING
        }
        op::MEM_SET => {
            let pattern = a1.to_le_bytes();
            let pattern = usize::try_from(a2)
                .ok()
                .and_then(|width| pattern.get(..width))
                .ok_or(Error::InvalidValue("a pattern has 1, 2 or 4 bytes"))?;
            session.context()?.set(a0, pattern, a3)?;
            NOTHING
        }
        op::MEM_INFO => {
            session.check()?;
            let (free, total) = session.memory_info();
            [free, total, 0, 0]
        }
        op::MEM_RANGE => {
            let range = session.context()?.address_range(a0)?;
            [range.start, range.end - range.start, 0, 0]
        }
        op::MODULE_UNLOAD => {
            session.unload(a0)?;
            NOTHING
        }
        op::FUNC_GET => {
            let (function, kernel) = session.function(a0, &name(session, command)?)?;
            let params = kernel.params();
            let bytes = params
                .last()
                .map_or(0, |&(offset, bytes)| offset.saturating_add(bytes));
            [function.into(), params.len() as u64, bytes, 0]
        }
        op::GLOBAL_GET => {
            let (address, bytes) = session.global(a0, &name(session, command)?)?;
            [address, bytes, 0, 0]
        }
        op::FUNC_PARAMS => {
            let kernel = session.kernel(a0)?;
            let params = kernel.params();
            let most = command.bytes as usize / size_of::<Param>();
            let table: Vec<u8> = params
                .iter()
                .take(most)
                .flat_map(|&(offset, bytes)| (offset | bytes << 32).to_le_bytes())
                .collect();
            put(session, command.region, span, &table)?;
            [params.len() as u64, 0, 0, 0]
        }
        op::FUNC_ATTRIBUTES => {
            let attributes = session.kernel(a0)?.attributes();
            let (major, minor) = session.compute_capability();
            [
                u64::from(attributes.max_threads_per_block) | u64::from(attributes.registers) << 32,
                attributes.shared_bytes | attributes.const_bytes << 32,
                attributes.local_bytes,
                u64::from(major) * 10 + u64::from(minor),
            ]
        }
        op::LAUNCH_KERNEL => {
            let [function, dynamic_shared] = halves(a0);
            let [[grid_x, grid_y], [grid_z, block_x], [block_y, block_z]] =
                [a1, a2, a3].map(halves);
            let config = LaunchConfig {
                grid: [grid_x, grid_y, grid_z],
                block: [block_x, block_y, block_z],
                dynamic_shared,
            };
            let kernel = session.kernel(function.into())?;
            // Read once: what the guest changes from now on does not matter.
            let params = match command.bytes {
                0 => Vec::new(),
                _ => get(session, command, MAX_PARAMS)?,
            };
            session.launch(&*kernel, &config, &params)?;
            [session.output_waiting()?, 0, 0, 0]
        }
        op::BIAS_SET => {
            let change = match a2 {
                bias::HOST => BiasChange::ToHost,
                bias::DEVICE => BiasChange::ToDevice,
                _ => return Err(Error::InvalidValue("a bias that there is not")),
            };
            [session.set_bias(a0, a1, change)?, 0, 0, 0]
        }
        op::BIAS_GET => [session.is_device_biased(a0)?.into(), 0, 0, 0],
        op::BIAS_FLIP => [session.set_bias(a0, a1, BiasChange::Flip)?, 0, 0, 0],
        op::COHERENCE_STATISTICS => {
            let counters = session.coherence_statistics()?;
            let most = command.bytes as usize / size_of::<u64>();
            let known = counters.iter().take(most);
            let bytes: Vec<u8> = known.flat_map(|counter| counter.to_le_bytes()).collect();
            put(session, command.region, span, &bytes)?;
            [counters.len() as u64, 0, 0, 0]
        }
        op::TAKE_OUTPUT => {
            let output = session.take_output(span.bytes)?;
            [put(session, command.region, span, &output)?, 0, 0, 0]
        }
        other => return Err(Error::NotSupported(other.into())),
    };
    Ok(values)
}

/// The log is written whether the module loads or not.
fn module_load(session: &Session, command: &Submission) -> Done {
    let loaded = get(session, command, MAX_MODULE).and_then(|text| session.load(&text));
    let log = loaded.as_ref().err().and_then(Error::log);
    let log = log.unwrap_or_default();
    let [region, offset, bytes, _] = command.args;
    let logged = match (u32::try_from(region), bytes) {
        (_, 0) => Ok(0),
        (Ok(region), _) => put(session, region, Span { offset, bytes }, log.as_bytes()),
        (Err(_), _) => Err(Error::InvalidHandle(region)),
    };
    let mut done = Done::from(loaded.map(|module| [module.into(), 0, 0, 0]));
    match logged {
        Ok(bytes) => done.values[1] = bytes,
        // A module that nobody is told of would never be unloaded.
        Err(error) if done.result == result::SUCCESS => {
            if let Err(error) = session.unload(done.values[0]) {
                log::debug!("{error}");
            }
            done = Err(error).into();
        }
        Err(_) => {}
    }
    done
}

fn span(command: &Submission) -> Span {
    Span {
        offset: command.offset,
        bytes: command.bytes.into(),
    }
}

/// Copies what the command's span holds, which has at most `most` bytes.
fn get(session: &Session, command: &Submission, most: u32) -> Result<Vec<u8>, Error> {
    if command.bytes > most {
        return Err(Error::InvalidValue("a span that is too long"));
    }
    let region = session.region(command.region)?;
    let guest = session.guest().ok_or(Error::InvalidContext)?;
    region.copy_out(guest.memory(), span(command))
}

/// Copies to a span of the client's memory, and returns how many bytes found room there.
fn put(session: &Session, region: u32, span: Span, bytes: &[u8]) -> Result<u64, Error> {
    let region = session.region(region)?;
    let guest = session.guest().ok_or(Error::InvalidContext)?;
    region.copy_in(guest.memory(), span, bytes)
}

fn name(session: &Session, command: &Submission) -> Result<String, Error> {
    let bytes = get(session, command, MAX_NAME)?;
    String::from_utf8(bytes).map_err(|_| Error::NotFound("a name that is no text".into()))
}

/// Low and high half.
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
