//! One run from the command line to the report.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use memsim::kernel::{Debt, Demand, HostModel, Kernel};
use memsim::law::LINE;
use memsim::machine;
use memsim::placement::Placement;
use memsim::topology::{Host, Topology};

use crate::args::{self, Args, Source};
use crate::dataflow;
use crate::faults::PageFaults;
use crate::html;
use crate::lackey::Lackey;
use crate::perf::{self, Samples};
use crate::replay::Replay;
use crate::report::{Report, seconds};
use crate::source::{self, AccessSource, Epoch};
use crate::sys::{self, Status};
use crate::tree::Tree;

/// Time between two progress lines.
const PROGRESS: Duration = Duration::from_millis(500);

/// A target that cannot be started. What stands in the way is the source of the error.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program}")]
pub struct NoTarget {
    program: String,
    pub source: std::io::Error,
}

/// Runs what the command line asks for; returns the exit code to pass on.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    for complaint in args.original.idle() {
        log::warn!("{complaint}");
    }
    let environment = args.original.environment()?;
    let text = topology_text(args)?;
    let mut topology = Topology::parse(&text)?;
    topology.apply(&args.overrides()?);
    let epoch_ns = args.epoch_ns()?;
    let parallelism = args.known_parallelism()?;
    for path in [&args.json, &args.html].into_iter().flatten() {
        // Not only after a long run: a report that has nowhere to go.
        File::create(path).map_err(|error| unusable("report", path, &error))?;
    }
    let mut placements = placements(args, &topology)?;
    if args.trace.is_none() && topology.hosts.len() > 1 {
        let reason = "a target is one host; several hosts need a trace (--trace)".into();
        return Err(memsim::Error::Value {
            what: "topology",
            reason,
        }
        .into());
    }
    let mut caches = machine::caches();
    if let (Some(mib), Some(last)) = (args.llc, caches.last_mut()) {
        last.size = mib << 20;
    }
    let cache_bytes = caches.last().map_or(0, |last| last.size);
    let local = match args.dram_ns {
        Some(ns) if ns > 0.0 && ns.is_finite() => (ns, "given"),
        Some(_) => {
            let reason = "must be above zero, in ns".into();
            return Err(memsim::Error::Value {
                what: "dram latency (-d)",
                reason,
            }
            .into());
        }
        None => (machine::local_latency(cache_bytes), "measured"),
    };
    let (target_cpus, own_cpu) = args.cpu_sets(&online_cpus())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = HostModel {
        local_read_ns: local.0,
        local_write_ns: local.0,
        outstanding_lines: dataflow::MOST * cores as f64,
        writeback_ns: args.writeback_ns(local.0)?,
        ..HostModel::default()
    };

    let (mut source, command): (Box<dyn AccessSource>, String) = match &args.trace {
        Some(path) => {
            let hosts = topology
                .hosts
                .iter()
                .map(|host| host.name.clone())
                .collect();
            let parallelism = parallelism.unwrap_or(1.0);
            (
                Box::new(Replay::open(path, hosts, epoch_ns, parallelism)?),
                path.display().to_string(),
            )
        }
        None => {
            let command = args.target()?;
            check_target(&command[0])?;
            let source: Box<dyn AccessSource> = match args.source {
                Source::Valgrind if !Lackey::probe() => {
                    anyhow::bail!("valgrind is not installed here")
                }
                Source::Valgrind => Box::new(Lackey::launch(
                    &command,
                    &caches,
                    epoch_ns,
                    local.0,
                    parallelism,
                    environment,
                )?),
                wanted => {
                    sys::block_signals().context("cannot block signals")?;
                    let mut target = Command::new(&command[0]);
                    target.args(&command[1..]).envs(environment);
                    let tree = Tree::launch(target, &target_cpus).map_err(|source| NoTarget {
                        program: command[0].clone(),
                        source,
                    })?;
                    let epoch = Duration::from_nanos(epoch_ns as u64);
                    live(
                        args,
                        wanted,
                        tree,
                        epoch,
                        1 + topology.expanders.len(),
                        cache_bytes,
                        local.0,
                    )?
                }
            };
            (source, command.join(" "))
        }
    };
    if let Some(cpu) = own_cpu
        && let Err(error) = sys::set_affinity(0, &[cpu])
    {
        log::warn!("cannot move to CPU {cpu}: {error}");
    }
    let mut kernel = Kernel::new(&topology, model);
    let mut report = Report::new(&topology, text, command, source.facts(), local);
    simulate(
        args,
        source.as_mut(),
        &mut placements,
        &mut kernel,
        &mut report,
    )?;
    write_reports(args, &report, &topology)?;
    Ok(match source.ending() {
        Some(Status::Exited(code)) => code as u8,
        // The custom of shells.
        Some(Status::Killed(signal)) => 128 + signal as u8,
        _ => 0,
    })
}

/// Where the pages of each host go: to its own local memory and to the expanders that it reaches. One that several reach has
/// an equal part for each.
fn placements(args: &Args, topology: &Topology) -> Result<Vec<Placement>, memsim::Error> {
    let bytes = args.capacities(topology)?;
    let (local, of_expanders) = bytes.split_at(1);
    let reach = |host: &Host, expander| host.paths.iter().any(|path| path.expander == expander);
    let part = |path: &memsim::topology::Path| {
        let hosts = topology.hosts.iter();
        let sharers = hosts.filter(|host| reach(host, path.expander)).count();
        of_expanders[path.expander] / sharers as u64
    };
    let placement = |host: &Host| {
        let parts = host.paths.iter().map(part);
        let capacity: Vec<u64> = local.iter().copied().chain(parts).collect();
        let policy = args.placement_policy(capacity.len())?;
        Placement::new(policy, args.page_size.bytes(), &capacity)
    };
    topology.hosts.iter().map(placement).collect()
}

/// The source of a live target: the one that is wanted, or the best that is here.
fn live(
    args: &Args,
    wanted: Source,
    tree: Tree,
    epoch: Duration,
    nodes: usize,
    cache_bytes: u64,
    local_ns: f64,
) -> anyhow::Result<Box<dyn AccessSource>> {
    let process = tree.leader();
    let samples = |tree, events| {
        let source = Samples::new(tree, events, epoch, local_ns, args.parallelism);
        Box::new(source) as Box<dyn AccessSource>
    };
    let faults = |tree| PageFaults::new(tree, epoch, nodes, cache_bytes, args.parallelism);
    Ok(match wanted {
        Source::Samples => samples(
            tree,
            perf::sample(process, &online_cpus(), args.original.period)
                .map_err(anyhow::Error::msg)?,
        ),
        Source::Counters => {
            Box::new(faults(tree).counted(perf::count(process).map_err(anyhow::Error::msg)?))
        }
        Source::Auto => match (
            perf::sample(process, &online_cpus(), args.original.period),
            perf::count(process),
        ) {
            (Ok(events), _) => samples(tree, events),
            (Err(_), Ok(counters)) => Box::new(faults(tree).counted(counters)),
            (Err(no_samples), Err(no_counters)) => {
                Box::new(faults(tree).because(format!("{no_samples}; {no_counters}")))
            }
        },
        Source::Faults | Source::Valgrind => Box::new(faults(tree)),
    })
}

/// The loop: an epoch, its penalty, its debt.
fn simulate(
    args: &Args,
    source: &mut dyn AccessSource,
    placements: &mut [Placement],
    kernel: &mut Kernel,
    report: &mut Report,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut progress = Progress::new(!args.quiet);
    let (mut debt, mut overhead_ns) = (Debt::default(), 0.0);
    while let Some(mut epoch) = source.next(placements)? {
        charge_moves(&mut epoch, placements);
        let demands: Vec<&[Demand]> = epoch
            .demands
            .iter()
            .map(|demands| demands.get(1..).unwrap_or_default())
            .collect();
        let penalties = kernel.epoch(&epoch.runs, &demands).to_vec();
        // A target is one host. The hosts of a replay stand still on paper only.
        debt.add(penalties.iter().map(|penalty| penalty.added_ns).sum());
        report.add(&epoch, &penalties, kernel);
        overhead_ns += debt.pay(source.stand_still(debt.owed_ns())?);
        progress.show(report, &debt);
    }
    // The target has ended with a debt: whoever waits for it waits for that too.
    if source.process().is_some() && debt.owed_ns() > 0.0 {
        std::thread::sleep(Duration::from_nanos(debt.owed_ns() as u64));
        debt.pay(debt.owed_ns());
    }
    progress.clear();
    report.settle(
        &debt,
        overhead_ns,
        start.elapsed().as_nanos() as f64,
        source.facts(),
    );
    Ok(())
}

/// Pages that changed nodes were read from the one and written to the other.
fn charge_moves(epoch: &mut Epoch, placements: &mut [Placement]) {
    for (demands, placement) in epoch.demands.iter_mut().zip(placements) {
        let lines = placement.page_bytes() as f64 / LINE;
        for (node, (left, came)) in placement.take_moved().into_iter().enumerate() {
            if left + came > 0 {
                let more = Demand {
                    reads: left as f64 * lines,
                    writes: came as f64 * lines,
                    back_invalidates: 0.0,
                };
                source::add(demands, node, more);
            }
        }
    }
}

fn write_reports(args: &Args, report: &Report, topology: &Topology) -> anyhow::Result<()> {
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(report)? + "\n")?;
    }
    if let Some(path) = &args.html {
        write(path, html::page(report, topology))?;
    }
    if !args.quiet {
        // Standard output is the target's.
        eprint!("{}", report.text());
    }
    Ok(())
}

fn topology_text(args: &Args) -> anyhow::Result<String> {
    match args.topology.strip_prefix('@') {
        Some(path) => Ok(std::fs::read_to_string(path)
            .map_err(|error| unusable("topology", path.as_ref(), &error))?
            .trim()
            .to_owned()),
        None => Ok(args.topology.clone()),
    }
}

/// A file that the command line names and that cannot be used.
pub fn unusable(what: &'static str, path: &Path, error: &std::io::Error) -> memsim::Error {
    memsim::Error::Value {
        what,
        reason: format!("cannot use {}: {error}", path.display()),
    }
}

/// Finds out about a target that cannot run before anything is started.
fn check_target(program: &str) -> Result<(), NoTarget> {
    use std::io::ErrorKind;
    let fail = |kind: ErrorKind, why: &str| NoTarget {
        program: program.to_owned(),
        source: std::io::Error::new(kind, why),
    };
    if program.contains('/') && Path::new(program).is_dir() {
        return Err(fail(ErrorKind::IsADirectory, "it is a directory"));
    }
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![program.into()]
    } else {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(program))
            .collect()
    };
    let found = candidates.iter().find(|path| path.is_file());
    let found = found.ok_or_else(|| {
        let why = "there is none; give a path, or the name of a program in PATH";
        fail(ErrorKind::NotFound, why)
    })?;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &found
            .metadata()
            .map_err(|source| NoTarget {
                program: program.to_owned(),
                source,
            })?
            .permissions(),
    );
    if mode & 0o111 == 0 {
        Err(fail(
            ErrorKind::PermissionDenied,
            "it is not marked as executable",
        ))
    } else {
        Ok(())
    }
}

fn online_cpus() -> Vec<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let online = args::cpu_list(&text);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if online.is_empty() {
        (0..cores).collect()
    } else {
        online
    }
}

/// A line that tells how far a run is, on a terminal only.
struct Progress {
    shown: bool,
    wanted: bool,
    next: Instant,
}

impl Progress {
    fn new(wanted: bool) -> Self {
        Self {
            shown: false,
            wanted: wanted && std::io::stderr().is_terminal(),
            next: Instant::now() + PROGRESS,
        }
    }

    fn show(&mut self, report: &Report, debt: &Debt) {
        if !self.wanted || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + PROGRESS;
        self.shown = true;
        let Some(host) = report.hosts.first() else {
            return;
        };
        eprint!(
            "\r\x1b[Kmemsim: ran {}, delay {} ({:.2}x), owed {}",
            seconds(host.ran_ns),
            seconds(host.added_ns),
            host.slowdown(),
            seconds(debt.owed_ns())
        );
        // A progress line that cannot be written is no reason to stop.
        let _ = std::io::stderr().flush();
    }

    fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
