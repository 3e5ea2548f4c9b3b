//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use memsim::Error;
use memsim::placement::{self, Policy};
use memsim::topology::{Overrides, Topology};

use crate::original::Originals;

/// What a CXL topology costs an unmodified program, in latency and bandwidth.
///
/// The options with a short form are those of CXLMemSim, with their meaning and units.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    allow_negative_numbers = true
)]
pub struct Args {
    #[command(subcommand)]
    pub action: Option<Action>,

    /// The target and its arguments, separated by blanks. COMMAND after -- does the same.
    #[arg(short = 't', long, value_name = "COMMAND")]
    pub target: Option<String>,

    /// Length of an epoch, ms
    #[arg(short = 'i', long = "epoch", value_name = "MS", default_value_t = 10.0)]
    pub epoch_ms: f64,

    /// CPUs: the last is for memsim, the others are for the target; a single one is the target's.
    /// Given a second time it is the capacity, as in CXLMemSim's example
    #[arg(short = 'c', long = "cpus", value_name = "CPU,...")]
    pub cpus: Vec<String>,

    /// Latency of this machine's memory, ns; measured when not given
    #[arg(short = 'd', long = "dram-latency", value_name = "NS")]
    pub dram_ns: Option<f64>,

    /// Bandwidth of each expander, read then write, GB/s; the last pair holds for the rest
    #[arg(
        short = 'b',
        long,
        allow_hyphen_values = true,
        value_name = "READ,WRITE,...",
        value_delimiter = ','
    )]
    pub bandwidth: Vec<f64>,

    /// Latency of each expander, read then write, ns; the last pair holds for the rest
    #[arg(
        short = 'l',
        long,
        allow_hyphen_values = true,
        value_name = "READ,WRITE,...",
        value_delimiter = ','
    )]
    pub latency: Vec<f64>,

    /// Write-back weights, ns: every written line costs what their mean exceeds the memory's latency
    #[arg(
        short = 'w',
        long,
        allow_hyphen_values = true,
        value_name = "NS,...",
        value_delimiter = ','
    )]
    pub weights: Vec<f64>,

    /// Topology in Newick syntax; a file where it begins with @
    #[arg(short = 'o', long, value_name = "TREE", default_value = "(1,(2,3))")]
    pub topology: String,

    /// Capacity of local memory and each expander, GB; the last holds for the rest
    #[arg(
        short = 'q',
        long,
        allow_hyphen_values = true,
        value_name = "GB,...",
        value_delimiter = ','
    )]
    pub capacity: Vec<f64>,

    /// Size of a page for placement
    #[arg(short = 'm', long = "page-size", value_enum, default_value_t = PageSize::Page)]
    pub page_size: PageSize,

    /// Placement: first-touch, interleave[:W0,W1,...] (local memory first), numa, promote[:TOUCHES]
    #[arg(long, value_name = "POLICY", default_value = "first-touch")]
    pub policy: String,

    /// Where access counts come from
    #[arg(long, value_enum, default_value_t = Source::Auto)]
    pub source: Source,

    /// Replay this trace instead of running a target
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Misses of a thread that overlap; found from its instructions when not given
    #[arg(long, value_name = "N")]
    pub parallelism: Option<f64>,

    /// Last-level cache, MiB; this machine's when not given
    #[arg(long, value_name = "MIB")]
    pub llc: Option<u64>,

    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// No progress line and no text report
    #[arg(long)]
    pub quiet: bool,

    #[command(flatten)]
    pub original: Originals,

    /// The target
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What to do instead of running a target.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Fit a device profile to a table of loaded latencies and print it
    Calibrate {
        /// Columns read_percent, bandwidth_gbs, latency_ns
        table: PathBuf,
        /// Name of the profile
        #[arg(long, default_value = "calibrated")]
        name: String,
    },
}

/// Sizes of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageSize {
    /// 4 KiB
    #[value(name = "page", alias = "4k")]
    Page,
    /// 2 MiB
    #[value(name = "hugepage_2M", alias = "2m")]
    Huge,
    /// 1 GiB
    #[value(name = "hugepage_1G", alias = "1g")]
    Giant,
}

/// Sources of access counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The best that this machine has
    Auto,
    /// Loads sampled by the processor, by address: PEBS or IBS
    Samples,
    /// Misses counted by the processor, their places from sampled page faults
    Counters,
    /// Sampled page faults
    Faults,
    /// Exact instrumentation by valgrind: slow, the reference
    Valgrind,
}

impl PageSize {
    /// Bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Page => 4 << 10,
            Self::Huge => 2 << 20,
            Self::Giant => 1 << 30,
        }
    }
}

impl Args {
    /// The target, from either spelling.
    ///
    /// # Errors
    /// [`Error::Value`] when there is none, or two.
    pub fn target(&self) -> Result<Vec<String>, Error> {
        let fail = |reason: &str| {
            Err(Error::Value {
                what: "target",
                reason: reason.into(),
            })
        };
        let split: Vec<String> = self
            .target
            .iter()
            .flat_map(|target| target.split_ascii_whitespace())
            .map(str::to_owned)
            .collect();
        let nameless = |words: &[String]| words.first().is_none_or(String::is_empty);
        match (nameless(&split), nameless(&self.command)) {
            (true, true) => fail("name a program: memsim [options] -- COMMAND"),
            (false, false) => fail("is given twice, as -t and after --"),
            (false, true) => Ok(split),
            (true, false) => Ok(self.command.clone()),
        }
    }

    /// (CPUs of the target, CPU of memsim) among those that this machine has.
    ///
    /// # Errors
    /// [`Error::Value`] for what is not a list of numbers.
    pub fn cpu_sets(&self, online: &[usize]) -> Result<(Vec<usize>, Option<usize>), Error> {
        let Some(text) = self.cpus.first() else {
            return Ok((Vec::new(), None));
        };
        let listed: Vec<usize> = numbers("-c", text)?;
        let mut cpus: Vec<usize> = Vec::new();
        for cpu in listed {
            if online.contains(&cpu) {
                cpus.push(cpu);
            } else {
                log::warn!("this machine has no CPU {cpu}; -c goes on without it");
            }
        }
        let own = if cpus.len() > 1 { cpus.pop() } else { None };
        Ok((cpus, own))
    }

    /// Capacities in bytes, local memory first, one for each of `nodes`.
    ///
    /// # Errors
    /// [`Error::Value`] for a negative one, or two lists.
    pub fn capacities(&self, topology: &Topology) -> Result<Vec<u64>, Error> {
        let second: Vec<f64> = match self.cpus.get(1) {
            Some(text) => numbers("-c", text)?,
            None => Vec::new(),
        };
        if !second.is_empty() && !self.capacity.is_empty() || self.cpus.len() > 2 {
            let reason = "the capacity is given twice, as -q and as a second -c".into();
            return Err(Error::Value {
                what: "capacity",
                reason,
            });
        }
        let listed = if second.is_empty() {
            &self.capacity
        } else {
            &second
        };
        if listed.iter().any(|gb| !(*gb >= 0.0 && gb.is_finite())) {
            return Err(Error::Value {
                what: "capacity",
                reason: "must be zero or more, in GB".into(),
            });
        }
        let given: Vec<u64> = listed.iter().map(|gb| (gb * 1e9) as u64).collect();
        let own = topology.expanders.iter().map(|expander| expander.capacity);
        // Without a list, nothing is local: the question is what the expanders would cost.
        Ok(std::iter::once(if topology.expanders.is_empty() {
            u64::MAX
        } else {
            0
        })
        .chain(own)
        .enumerate()
        .map(|(node, own)| match given.get(node).or(given.last()) {
            Some(&bytes) => bytes,
            None => own,
        })
        .collect())
    }

    /// What `-l` and `-b` replace.
    ///
    /// # Errors
    /// [`Error::Value`] for an odd number of figures, or an impossible one.
    pub fn overrides(&self) -> Result<Overrides, Error> {
        let pairs =
            |what, list: &[f64], least: f64, unit: &str| -> Result<Vec<(f64, f64)>, Error> {
                if !list.len().is_multiple_of(2) {
                    let reason = "needs pairs: read,write,read,write,...".to_owned();
                    return Err(Error::Value { what, reason });
                }
                if list
                    .iter()
                    .any(|&value| !(value >= least && value.is_finite()))
                {
                    return Err(Error::Value {
                        what,
                        reason: format!("every figure must be at least {least} {unit}"),
                    });
                }
                Ok(list
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect())
            };
        Ok(Overrides {
            latency: pairs("latency (-l)", &self.latency, 0.0, "ns")?,
            bandwidth: pairs("bandwidth (-b)", &self.bandwidth, 1e-3, "GB/s")?,
            capacity: Vec::new(),
        })
    }

    /// ns that a written line costs by `-w`.
    ///
    /// # Errors
    /// [`Error::Value`] for a negative weight.
    pub fn writeback_ns(&self, dram_ns: f64) -> Result<f64, Error> {
        if self
            .weights
            .iter()
            .any(|weight| !(*weight >= 0.0 && weight.is_finite()))
        {
            return Err(Error::Value {
                what: "weights (-w)",
                reason: "must be zero or more, in ns".into(),
            });
        }
        if self.weights.is_empty() {
            return Ok(0.0);
        }
        let mean = self.weights.iter().sum::<f64>() / self.weights.len() as f64;
        Ok((mean - dram_ns).max(0.0))
    }

    /// The placement policy of a host with so many nodes, local memory among them.
    ///
    /// # Errors
    /// [`Error::Value`] for one that is not known.
    pub fn placement_policy(&self, nodes: usize) -> Result<Policy, Error> {
        let policy = self.original.policy()?.unwrap_or(&self.policy);
        let (name, rest) = policy.split_once(':').unwrap_or((policy, ""));
        match (name, rest) {
            // By 1 to 1 over all nodes.
            ("interleave", "") => Ok(Policy::Interleave(vec![1; nodes])),
            ("first-touch", "") => Ok(Policy::FirstTouch),
            ("interleave", weights) => {
                Ok(Policy::Interleave(numbers("interleave weights", weights)?))
            }
            ("numa", "") => {
                let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
                Ok(placement::numa_policy(&maps))
            }
            ("promote", "") => Ok(Policy::Promote(4)),
            ("promote", touches) => match numbers::<u32>("promote", touches)?[..] {
                [touches] if touches > 0 => Ok(Policy::Promote(touches)),
                _ => Err(Error::Value {
                    what: "promote",
                    reason: "needs one number of touches".into(),
                }),
            },
            _ => Err(Error::Value {
                what: "policy",
                reason: format!(
                    "'{policy}' is none of first-touch, interleave[:W0,W1,...], numa, promote[:N]"
                ),
            }),
        }
    }

    /// Misses that overlap, if the user knows.
    ///
    /// # Errors
    /// [`Error::Value`] for less than one.
    pub fn known_parallelism(&self) -> Result<Option<f64>, Error> {
        match self.parallelism {
            Some(misses) if !(misses >= 1.0 && misses.is_finite()) => Err(Error::Value {
                what: "parallelism",
                reason: "must be one or more".into(),
            }),
            known => Ok(known),
        }
    }

    /// Length of an epoch, ns, checked.
    ///
    /// # Errors
    /// [`Error::Value`] outside 0.1 ms to 10 s.
    pub fn epoch_ns(&self) -> Result<f64, Error> {
        if (0.1..=10_000.0).contains(&self.epoch_ms) {
            return Ok(self.epoch_ms * 1e6);
        }
        Err(Error::Value {
            what: "epoch (-i)",
            reason: "must be from 0.1 to 10000 ms".into(),
        })
    }
}

/// A list of numbers, separated by commas.
pub fn numbers<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<Vec<T>, Error> {
    text.split(',')
        .map(|field| {
            let fail = || Error::Value {
                what,
                reason: format!("'{field}' is not a number that fits here"),
            };
            field.trim().parse().map_err(|_| fail())
        })
        .collect()
}

/// CPUs from a list such as `0-3,8`.
pub fn cpu_list(text: &str) -> Vec<usize> {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::try_parse_from(std::iter::once("memsim").chain(line.split_ascii_whitespace()))
            .unwrap()
    }

    #[test]
    fn the_example_of_the_originals_readme_reads() {
        let args = args(
            "-t ./microbench/ld -i 5 -c 0,2 -d 85 -c 100,100 \
             -w 85.5,86.5,87.5,85.5,86.5,87.5,88. -o (1,(2,3))",
        );
        assert_eq!(args.target().unwrap(), ["./microbench/ld"]);
        assert_eq!(args.epoch_ns().unwrap(), 5e6);
        assert_eq!(args.cpu_sets(&[0, 1, 2, 3]).unwrap(), (vec![0], Some(2)));
        let topology = Topology::parse(&args.topology).unwrap();
        assert_eq!(args.capacities(&topology).unwrap(), [100_000_000_000; 4]);
        assert!((args.writeback_ns(85.0).unwrap() - 1.714_286).abs() < 1e-5);
    }

    #[test]
    fn latency_and_bandwidth_are_pairs_of_read_and_write() {
        let overrides = args("-l 200,250,300,350 -b 50,40 -- x")
            .overrides()
            .unwrap();
        assert_eq!(overrides.latency, [(200.0, 250.0), (300.0, 350.0)]);
        assert_eq!(overrides.bandwidth, [(50.0, 40.0)]);
        assert!(args("-l 200 -- x").overrides().is_err());
        assert!(args("-l -1,2 -- x").overrides().is_err());
        assert!(args("-b 0,5 -- x").overrides().is_err());
    }

    #[test]
    fn cpus_that_do_not_exist_are_left_out() {
        assert_eq!(
            args("-c 0,2 -- x").cpu_sets(&[0, 1]).unwrap(),
            (vec![0], None)
        );
        assert_eq!(
            args("-c 0,1,2 -- x").cpu_sets(&[0, 1, 2]).unwrap(),
            (vec![0, 1], Some(2))
        );
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
    }

    #[test]
    fn nothing_is_local_unless_asked_for() {
        let topology = Topology::parse("(1,2[&cap=5])").unwrap();
        let bytes = args("-- x").capacities(&topology).unwrap();
        assert_eq!(bytes, [0, 20_000_000_000, 5_000_000_000]);
        assert_eq!(
            args("-q 1,2 -- x").capacities(&topology).unwrap()[2],
            2_000_000_000
        );
        assert!(args("-c 0 -c 1 -q 1 -- x").capacities(&topology).is_err());
        assert_eq!(
            args("-- x")
                .capacities(&Topology::parse("()").unwrap())
                .unwrap(),
            [u64::MAX]
        );
    }

    #[test]
    fn a_target_is_named_once() {
        assert_eq!(args("-- ls -l").target().unwrap(), ["ls", "-l"]);
        assert!(args("-i 5").target().is_err());
        assert!(args("-t ls -- ls").target().is_err());
        let nameless = Args::try_parse_from(["memsim", "--", ""]).unwrap();
        assert!(nameless.target().is_err());
    }

    #[test]
    fn at_least_one_miss_is_under_way() {
        let known = |line: &str| args(line).known_parallelism();
        assert_eq!(known("-- x").unwrap(), None);
        assert_eq!(known("--parallelism 2.5 -- x").unwrap(), Some(2.5));
        for bad in ["0", "-3", "nan", "inf"] {
            assert!(
                known(&format!("--parallelism {bad} -- x")).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn policies_are_known_by_name() {
        let policy = |name: &str| args(&format!("--policy {name} -- x")).placement_policy(3);
        assert_eq!(
            args("-k interleave,none,none,none -- x")
                .placement_policy(3)
                .unwrap(),
            Policy::Interleave(vec![1, 1, 1])
        );
        assert_eq!(
            policy("interleave:3,1").unwrap(),
            Policy::Interleave(vec![3, 1])
        );
        assert_eq!(policy("promote:7").unwrap(), Policy::Promote(7));
        assert!(policy("promote:0").is_err());
        assert!(policy("lru").is_err());
    }
}
