//! `tree`: host bridges, and the ports, switches and expanders below them, as one Newick string.
//!
//! `(mem0,(mem1,mem2)sw0)` is a host bridge with an expander on its first root port and a switch with two on its second.
//! Several bridges are several trees: `hb0=(mem0);hb1=(mem1)`. The strings of memsim and of CXLMemSim are these: a number is
//! the expander of that number, a branch length the ns that a round trip takes more, and `[&bw=32]` sets what the node has.

use memsim::newick::{Clade, Forest, SyntaxError};

use super::each;
use super::hierarchy::{DEFAULT_DECODERS, DEFAULT_PERFORMANCE, DEFAULT_SWITCH_PERFORMANCE};
use crate::config::model::{Device, HostBridge, Performance, Port, Switch, Type3};
use crate::config::reader::{Section, is_name};
use crate::config::report::Report;
use crate::config::units::parse_size;

/// Volatile capacity of an expander that does not say, in bytes.
const DEFAULT_CAPACITY: u64 = 1 << 30;
/// Most ns that a branch can add.
const MOST_LATENCY: f64 = 1e6;
const MEND: &str =
    "write it like \"(mem0,(mem1,mem2)sw0)\", with hb0=(...);hb1=(...) for several host bridges";

/// The host bridges, from the string or from their tables.
pub(super) fn host_bridges(root: &Section, report: &mut Report) -> Vec<HostBridge> {
    let tree = root.string(report, "tree");
    let tables = each(root, "host_bridge", report, super::hierarchy::host_bridge);
    let Some(tree) = tree else {
        return tables;
    };
    if root.has("host_bridge") {
        report.error(
            "tree",
            "there are [[host_bridge]] tables as well",
            "remove the tree, or the tables",
        );
    }
    match read(tree) {
        Ok(bridges) => bridges,
        Err(error) => {
            report.error("tree", error.to_string(), MEND);
            Vec::new()
        }
    }
}

fn read(text: &str) -> Result<Vec<HostBridge>, SyntaxError> {
    let mut reader = Reader {
        forest: Forest::parse(text)?,
        expanders: 0,
        switches: 0,
    };
    let trees = reader.forest.trees.clone();
    (0..)
        .zip(&trees)
        .map(|(index, tree)| {
            let label = tree.host.as_ref().or(tree.root.label.as_ref());
            let name = label.map_or_else(|| format!("hb{index}"), Clone::clone);
            Ok(HostBridge {
                root_ports: reader.ports(&name, &tree.root)?,
                name,
                decoders: DEFAULT_DECODERS,
            })
        })
        .collect()
}

struct Reader {
    forest: Forest,
    /// So many have been read: the next one's serial number, or number, is one more.
    expanders: u64,
    switches: u64,
}

impl Reader {
    /// One port for each child.
    fn ports(&mut self, above: &str, clade: &Clade) -> Result<Vec<Port>, SyntaxError> {
        let port = |(number, child): (usize, &Clade)| {
            Ok(Port {
                name: format!("{above}.{number}"),
                speed: pci::LinkSpeed::Gt32,
                width: pci::LinkWidth::X16,
                hot_plug: true,
                device: Some(if child.inner {
                    Device::Switch(self.switch(child)?)
                } else {
                    Device::Type3(self.expander(child)?)
                }),
            })
        };
        (0..).zip(&clade.children).map(port).collect()
    }

    fn switch(&mut self, clade: &Clade) -> Result<Switch, SyntaxError> {
        let name = match &clade.label {
            Some(label) => self.name(clade, label)?,
            None => format!("sw{}", self.switches),
        };
        self.switches += 1;
        let mut performance = DEFAULT_SWITCH_PERFORMANCE;
        self.cost(clade, &mut performance)?;
        for attribute in &clade.attributes {
            if attribute.key != "bw" {
                return Err(self.unknown(attribute.at, &attribute.key, "bw"));
            }
        }
        Ok(Switch {
            ports: self.ports(&name, clade)?,
            name,
            serial: None,
            decoders: DEFAULT_DECODERS,
            performance,
            mailbox_cci: false,
        })
    }

    fn expander(&mut self, clade: &Clade) -> Result<Type3, SyntaxError> {
        self.expanders += 1;
        let label = clade.label.as_deref().unwrap_or_default();
        let mut performance = DEFAULT_PERFORMANCE;
        self.cost(clade, &mut performance)?;
        let mut volatile = DEFAULT_CAPACITY;
        for attribute in &clade.attributes {
            match attribute.key.as_str() {
                "volatile" => {
                    let size = parse_size(&attribute.value);
                    volatile = size.ok_or_else(|| {
                        let reason = "the capacity is no size such as 256MiB";
                        self.forest.complaint(attribute.at, reason)
                    })?;
                }
                "bw" => {}
                key => return Err(self.unknown(attribute.at, key, "volatile and bw")),
            }
        }
        Ok(Type3 {
            name: self.name(clade, label)?,
            serial: self.expanders,
            volatile,
            persistent: 0,
            partitionable: 0,
            dynamic: Vec::new(),
            backing: None,
            labels: None,
            shared: false,
            decoders: DEFAULT_DECODERS,
            performance,
            fault: None,
            part: devices::Part::Whole,
        })
    }

    /// The name of a node: a number is that of an expander.
    fn name(&self, clade: &Clade, label: &str) -> Result<String, SyntaxError> {
        let name = match label.parse::<u32>() {
            Ok(number) => format!("mem{number}"),
            Err(_) => label.to_string(),
        };
        match is_name(&name) {
            true => Ok(name),
            false => Err(self.forest.complaint(
                clade.at,
                "a name has letters, digits, '-', '_' and '.', at most 64 of them",
            )),
        }
    }

    /// What the branch above a node and its bandwidth make of its performance.
    fn cost(&self, clade: &Clade, performance: &mut Performance) -> Result<(), SyntaxError> {
        if let Some(length) = clade.length {
            if !(0.0..=MOST_LATENCY).contains(&length) {
                let reason = "a branch has 0 to 1000000 ns";
                return Err(self.forest.complaint(clade.at, reason));
            }
            // In range, as was just said.
            let more = length.round() as u32;
            performance.read_latency += more;
            performance.write_latency += more;
        }
        for attribute in clade.attributes.iter().filter(|found| found.key == "bw") {
            let bandwidth = attribute.value.parse::<f64>().ok();
            let bandwidth = bandwidth.filter(|bandwidth| bandwidth.is_finite() && *bandwidth > 0.0);
            let bandwidth = bandwidth.ok_or_else(|| {
                let reason = "the bandwidth is no number of GB/s above 0";
                self.forest.complaint(attribute.at, reason)
            })?;
            performance.read_bandwidth = bandwidth;
            performance.write_bandwidth = bandwidth;
        }
        Ok(())
    }

    fn unknown(&self, at: usize, key: &str, known: &str) -> SyntaxError {
        self.forest.complaint(
            at,
            format!("there is no attribute {key}; what there is is {known}"),
        )
    }
}
