//! Source: exact instrumentation, by valgrind's memory trace through a model of the caches.
//!
//! Slow, one to two orders of magnitude, and not for showing a delay: the target runs on a clock of
//! the model. It is the reference that faster sources are held against.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use anyhow::Context;
use memsim::cache::{Caches, Shape};
use memsim::kernel::{Demand, Run};
use memsim::law::LINE;
use memsim::placement::Placement;

use crate::dataflow::{Dataflow, Shapes};
use crate::maps::PAGE;
use crate::source::{self, AccessSource, Epoch, Facts};
use crate::sys::{self, Status};

/// Descriptor on which valgrind finds the pipe.
const TRACE_FD: i32 = 9;
/// Time of an instruction that does not wait for memory, ns: two in a cycle of 2.5 GHz.
const INSTRUCTION_NS: f64 = 0.2;
const LINE_BYTES: u64 = LINE as u64;

/// An instrumented run.
pub struct Lackey {
    child: Child,
    memory: Option<File>,
    trace: BufReader<io::PipeReader>,
    text: Vec<u8>,
    caches: Caches,
    shapes: Shapes,
    flow: Dataflow,
    pages: std::collections::HashSet<u64>,
    /// The instruction at hand and the lines that it missed.
    instruction: Option<u64>,
    missed: Vec<u64>,
    epoch_ns: f64,
    local_ns: f64,
    parallelism: Option<f64>,
    totals: Totals,
    done: bool,
    ending: Option<Status>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    instructions: u64,
    accesses: u64,
    fills: u64,
}

impl Lackey {
    /// Whether valgrind is there.
    pub fn probe() -> bool {
        Command::new("valgrind")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Starts a command under valgrind.
    pub fn launch(
        command: &[String],
        caches: &[Shape],
        epoch_ns: f64,
        local_ns: f64,
        parallelism: Option<f64>,
        environment: Vec<(&str, &str)>,
    ) -> anyhow::Result<Self> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut valgrind = Command::new("valgrind");
        valgrind
            .envs(environment)
            .args([
                "--tool=lackey",
                "--trace-mem=yes",
                "--basic-counts=no",
                "--trace-children=yes",
                "-q",
            ])
            .arg(format!("--log-fd={TRACE_FD}"))
            .arg("--")
            .args(command);
        let child =
            sys::spawn_with_pipe(valgrind, writer, TRACE_FD).context("cannot start valgrind")?;
        Ok(Self {
            child,
            memory: None,
            trace: BufReader::with_capacity(1 << 16, reader),
            text: Vec::new(),
            caches: Caches::new(caches)?,
            shapes: Shapes::default(),
            flow: Dataflow::default(),
            pages: std::collections::HashSet::new(),
            instruction: None,
            missed: Vec::new(),
            epoch_ns,
            local_ns,
            parallelism,
            totals: Totals::default(),
            done: false,
            ending: None,
        })
    }

    /// Hands the instruction at hand to the dataflow.
    fn finish_instruction(&mut self) {
        let Some(address) = self.instruction.take() else {
            return;
        };
        if self.memory.is_none() {
            // Not sooner: until the first instruction is reported the process is another program.
            self.memory = File::open(format!("/proc/{}/mem", self.child.id())).ok();
        }
        let memory = &self.memory;
        let shape = self.shapes.get(address, |code| {
            memory
                .as_ref()
                .and_then(|memory| memory.read_at(code, address).ok())
                .unwrap_or(0)
        });
        self.flow.step(shape, &self.missed);
        self.missed.clear();
    }

    /// One data access.
    fn access(
        &mut self,
        placement: &mut Placement,
        demands: &mut Vec<Demand>,
        address: u64,
        size: u64,
        write: bool,
    ) {
        self.totals.accesses += 1;
        let last = address.saturating_add(size.max(1) - 1) / LINE_BYTES;
        for line in address / LINE_BYTES..=last {
            if self.pages.insert(line * LINE_BYTES / PAGE) {
                self.zero_page(placement, demands, line * LINE_BYTES / PAGE);
            }
            let traffic = self.caches.access(line, write);
            if traffic.filled {
                self.totals.fills += 1;
                self.missed.push(line);
                let read = Demand {
                    reads: 1.0,
                    ..Demand::default()
                };
                source::add(demands, node(placement, line), read);
            }
            if let Some(victim) = traffic.written_back {
                write_back(placement, demands, victim);
            }
        }
    }

    /// The kernel zeroes a page when it is first touched: its lines come into the cache written,
    /// without being read.
    fn zero_page(&mut self, placement: &mut Placement, demands: &mut Vec<Demand>, page: u64) {
        for line in page * (PAGE / LINE_BYTES)..(page + 1) * (PAGE / LINE_BYTES) {
            if let Some(victim) = self.caches.access(line, true).written_back {
                write_back(placement, demands, victim);
            }
        }
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.done = true;
        let status = self.child.wait().context("cannot wait for valgrind")?;
        self.ending = Some(match status.signal() {
            Some(signal) => Status::Killed(signal),
            None => Status::Exited(status.code().unwrap_or(1)),
        });
        Ok(())
    }
}

fn node(placement: &mut Placement, line: u64) -> usize {
    placement.touch(placement.page(0, line * LINE_BYTES))
}

fn write_back(placement: &mut Placement, demands: &mut Vec<Demand>, line: u64) {
    source::add(
        demands,
        node(placement, line),
        Demand {
            writes: 1.0,
            ..Demand::default()
        },
    );
}

/// A trace line as (kind, address, size); `None` for valgrind's own messages.
fn parse(line: &[u8]) -> Option<(u8, u64, u64)> {
    let text = std::str::from_utf8(line).ok()?;
    let kind = match text.as_bytes() {
        [b'I', b' ', b' ', ..] => b'I',
        [b' ', kind @ (b'L' | b'S' | b'M'), b' ', ..] => *kind,
        _ => return None,
    };
    let (address, size) = text.get(3..)?.trim_end().split_once(',')?;
    Some((
        kind,
        u64::from_str_radix(address, 16).ok()?,
        size.parse().ok()?,
    ))
}

impl AccessSource for Lackey {
    fn facts(&self) -> Facts {
        let Totals {
            instructions,
            accesses,
            fills,
        } = self.totals;
        Facts {
            name: "valgrind",
            method: format!(
                "{instructions} instructions and {accesses} accesses through a model of this \
                 machine's caches; {fills} lines read from memory"
            ),
            error: "counts are exact for the cache model (LRU, no prefetch); run time is modelled"
                .into(),
        }
    }

    fn next(&mut self, placements: &mut [Placement]) -> anyhow::Result<Option<Epoch>> {
        if self.done {
            return Ok(None);
        }
        let placement = &mut placements[0];
        let mut demands = Vec::new();
        let before = self.totals;
        self.flow = Dataflow::default();
        let time = loop {
            let instructions = (self.totals.instructions - before.instructions) as f64;
            let parallelism = self
                .parallelism
                .or_else(|| self.flow.parallelism())
                .unwrap_or(1.0);
            let fills = (self.totals.fills - before.fills) as f64;
            let time = instructions * INSTRUCTION_NS + fills * self.local_ns / parallelism;
            if time >= self.epoch_ns {
                break time;
            }
            self.text.clear();
            if self
                .trace
                .read_until(b'\n', &mut self.text)
                .context("cannot read the trace")?
                == 0
            {
                self.finish()?;
                break time;
            }
            match parse(&self.text) {
                Some((b'I', address, _)) => {
                    self.finish_instruction();
                    self.instruction = Some(address);
                    self.totals.instructions += 1;
                }
                Some((kind, address, size)) => {
                    self.access(placement, &mut demands, address, size, kind != b'L');
                }
                None => log::debug!(
                    "valgrind: {}",
                    String::from_utf8_lossy(&self.text).trim_end()
                ),
            }
        };
        let parallelism = self
            .parallelism
            .or_else(|| self.flow.parallelism())
            .unwrap_or(1.0);
        Ok(Some(Epoch {
            runs: vec![Run {
                time_ns: time,
                parallelism,
            }],
            demands: vec![demands],
        }))
    }

    fn ending(&self) -> Option<Status> {
        self.ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_lines_are_told_from_messages() {
        assert_eq!(parse(b"I  04001090,3\n"), Some((b'I', 0x400_1090, 3)));
        assert_eq!(parse(b" L 1ffeffe7e,8\n"), Some((b'L', 0x1_ffef_fe7e, 8)));
        assert_eq!(parse(b" M 0421c7cc,4\n"), Some((b'M', 0x421_c7cc, 4)));
        assert_eq!(parse(b"==12== Counted 1 call\n"), None);
        assert_eq!(parse(b"\n"), None);
    }
}
