//! A topology as the kernel takes it: links, expanders, and what each host sees of them.
//!
//! [`crate::newick`] reads the text; this module gives it meaning.
//!
//! | key | on | meaning | default |
//! |---|---|---|---|
//! | (branch length) | any | what the edge adds to a round trip, ns | switch 70, expander 0 |
//! | `profile` | any | constants to start from | `cxl-a`; a switch `switch` |
//! | `bw`, `s2m`, `m2s` | any | capacity of the edge, both or one direction, GB/s | profile |
//! | `g`, `h` | any | share of a line that a completion, a request takes | profile |
//! | `as`, `am`, `bm` | any | waits of S2M, M2S, and M2S slope, ns | profile |
//! | `credits` | any | lines that may be under way on the edge | no bound |
//! | `lat`, `wlat` | expander | idle round trip of a read, of a write, ns | profile |
//! | `cd`, `ad` | expander | media capacity, GB/s, and its wait, ns | profile |
//! | `cap` | expander | capacity, GB (10^9 bytes) | 20 |
//!
//! An expander, or a switch with a label, that occurs in more than one host's tree is one shared
//! thing. Below a shared switch the links are shared too; an expander with two different parents
//! has a head and a link for each, and one media.

use std::collections::{HashMap, HashSet};

use crate::attributes::{Reader, Settings};
use crate::error::Error;
use crate::law::{LINE, LinkLaw, MediaLaw};
use crate::newick::{Clade, Forest, SyntaxError};

/// Capacity of an expander that does not say, bytes: the original's default of 20 GB.
pub const DEFAULT_CAPACITY: u64 = 20_000_000_000;

/// Hosts, links and expanders. Indices into the vectors are stable.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// The edges, each once.
    pub links: Vec<Link>,
    /// The memory devices, each once, in order of first mention.
    pub expanders: Vec<Expander>,
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// An edge, named after the node below it.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Name of the node below.
    pub name: String,
    /// What the edge adds to a round trip, ns.
    pub added_ns: f64,
    /// How it behaves under load; capacities already bounded by credits.
    pub law: LinkLaw,
}

/// A memory device.
#[derive(Debug, Clone, PartialEq)]
pub struct Expander {
    /// Its label in the topology.
    pub name: String,
    /// Idle round trip of a read, without what the edges add, ns.
    pub read_ns: f64,
    /// Idle round trip of a write, likewise, ns.
    pub write_ns: f64,
    /// How it behaves under load.
    pub media: MediaLaw,
    /// Bytes.
    pub capacity: u64,
}

/// A host and its view.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name; `h0`, `h1` where the topology gives none.
    pub name: String,
    /// One for each expander that it reaches, in the order of its tree.
    pub paths: Vec<Path>,
}

/// The way from a host to an expander.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Index of the expander.
    pub expander: usize,
    /// Indices of the links, the host's first.
    pub links: Vec<usize>,
}

/// Per-expander figures that replace those of the topology: the original's `-l`, `-b` and `-q`.
///
/// Each list is in order of the expanders, and its last entry holds for all further ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// (read, write), ns.
    pub latency: Vec<(f64, f64)>,
    /// (read, write), GB/s: S2M and M2S of the expander's own link.
    pub bandwidth: Vec<(f64, f64)>,
    /// Bytes.
    pub capacity: Vec<u64>,
}

impl Topology {
    /// Reads a topology string.
    ///
    /// # Errors
    /// [`Error::Topology`] for what does not parse or makes no sense, with a caret under it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::build(&Forest::parse(text)?)
    }

    /// Gives meaning to a parsed topology.
    ///
    /// # Errors
    /// [`Error::Topology`] as for [`Self::parse`].
    pub fn build(forest: &Forest) -> Result<Self, Error> {
        let mut builder = Builder::new(forest)?;
        for (index, tree) in forest.trees.iter().enumerate() {
            builder.host(index, tree.host.as_deref(), &tree.root)?;
        }
        Ok(builder.finish())
    }

    /// Replaces figures of the expanders.
    pub fn apply(&mut self, overrides: &Overrides) {
        let pick = |index: usize, len: usize| len.checked_sub(1).map(|last| index.min(last));
        for (index, expander) in self.expanders.iter_mut().enumerate() {
            if let Some(i) = pick(index, overrides.latency.len()) {
                (expander.read_ns, expander.write_ns) = overrides.latency[i];
            }
            if let Some(i) = pick(index, overrides.capacity.len()) {
                expander.capacity = overrides.capacity[i];
            }
            let Some(i) = pick(index, overrides.bandwidth.len()) else {
                continue;
            };
            let (read, write) = overrides.bandwidth[i];
            // Devices are no narrower than what the user says passes their link.
            expander.media.bandwidth = expander.media.bandwidth.max(1.15 * (read + write));
            let own_links = self.hosts.iter().flat_map(|host| &host.paths);
            for path in own_links.filter(|path| path.expander == index) {
                if let Some(&link) = path.links.last() {
                    (self.links[link].law.s2m, self.links[link].law.m2s) = (read, write);
                }
            }
        }
    }

    /// Round trip of a read on an idle path, ns.
    pub fn idle_read_ns(&self, path: &Path) -> f64 {
        self.expanders[path.expander].read_ns + self.added_ns(path)
    }

    /// Round trip of a write on an idle path, ns.
    pub fn idle_write_ns(&self, path: &Path) -> f64 {
        self.expanders[path.expander].write_ns + self.added_ns(path)
    }

    fn added_ns(&self, path: &Path) -> f64 {
        path.links
            .iter()
            .map(|&link| self.links[link].added_ns)
            .sum()
    }
}

struct Builder<'a> {
    forest: &'a Forest,
    reader: Reader<'a>,
    topology: Topology,
    /// Credits of each link, with the longest round trip below it seen so far.
    credits: Vec<(Option<f64>, f64)>,
    links: HashMap<(String, String), usize>,
    expanders: HashMap<String, usize>,
    /// Labels of switches: one name must not be both.
    switches: HashSet<String>,
    /// Those that the host at hand has mentioned.
    mentioned: HashSet<String>,
}

impl<'a> Builder<'a> {
    fn new(forest: &'a Forest) -> Result<Self, Error> {
        Ok(Self {
            forest,
            reader: Reader::new(forest)?,
            topology: Topology {
                links: Vec::new(),
                expanders: Vec::new(),
                hosts: Vec::new(),
            },
            credits: Vec::new(),
            links: HashMap::new(),
            expanders: HashMap::new(),
            switches: HashSet::new(),
            mentioned: HashSet::new(),
        })
    }

    fn host(&mut self, index: usize, name: Option<&str>, root: &Clade) -> Result<(), Error> {
        let name = name.map_or_else(|| format!("h{index}"), str::to_owned);
        if self.topology.hosts.iter().any(|host| host.name == name) {
            return Err(self.fail(root.at, format!("two hosts are named {name}")));
        }
        if root.length.is_some() || !root.attributes.is_empty() {
            return Err(self.fail(
                root.at,
                "the outer parentheses are the host; it has no edge above it",
            ));
        }
        self.mentioned.clear();
        let mut host = Host {
            name: name.clone(),
            paths: Vec::new(),
        };
        for child in &root.children {
            self.node(&mut host, &name, child, &mut Vec::new())?;
        }
        self.topology.hosts.push(host);
        Ok(())
    }

    fn node(
        &mut self,
        host: &mut Host,
        parent: &str,
        clade: &Clade,
        above: &mut Vec<usize>,
    ) -> Result<(), Error> {
        let name = match &clade.label {
            Some(label) => label.clone(),
            None => format!("{}.sw{}", host.name, self.topology.links.len()),
        };
        let taken = if clade.inner {
            self.expanders.contains_key(&name)
        } else {
            self.switches.contains(&name)
        };
        if taken {
            return Err(self.fail(clade.at, format!("{name} is both a switch and an expander")));
        }
        let settings = self.reader.read(clade)?;
        let link = self.link(parent, &name, clade, &settings)?;
        above.push(link);
        if clade.inner {
            if !self.mentioned.insert(name.clone()) {
                return Err(self.fail(
                    clade.at,
                    format!("switch {name} occurs twice below one host"),
                ));
            }
            self.switches.insert(name.clone());
            for child in &clade.children {
                self.node(host, &name, child, above)?;
            }
        } else {
            let expander = self.expander(&name, clade, &settings)?;
            if host.paths.iter().any(|path| path.expander == expander) {
                return Err(self.fail(
                    clade.at,
                    format!("expander {name} occurs twice below one host"),
                ));
            }
            let path = Path {
                expander,
                links: above.clone(),
            };
            self.note_round_trips(&path);
            host.paths.push(path);
        }
        above.pop();
        Ok(())
    }

    /// The edge between two nodes; a repeated one must not say something else.
    fn link(
        &mut self,
        parent: &str,
        name: &str,
        clade: &Clade,
        settings: &Settings,
    ) -> Result<usize, Error> {
        let link = Link {
            name: name.to_owned(),
            added_ns: settings.added_ns,
            law: settings.law,
        };
        let key = (parent.to_owned(), name.to_owned());
        if let Some(&known) = self.links.get(&key) {
            let plain = clade.attributes.is_empty() && clade.length.is_none();
            if !plain
                && (self.topology.links[known] != link || self.credits[known].0 != settings.credits)
            {
                return Err(self.fail(
                    clade.at,
                    format!("shared {name} has other figures where it was named first"),
                ));
            }
            return Ok(known);
        }
        let index = self.topology.links.len();
        self.topology.links.push(link);
        self.credits.push((settings.credits, 0.0));
        self.links.insert(key, index);
        Ok(index)
    }

    fn expander(&mut self, name: &str, clade: &Clade, settings: &Settings) -> Result<usize, Error> {
        let expander = Expander {
            name: name.to_owned(),
            read_ns: settings.read_ns,
            write_ns: settings.write_ns,
            media: settings.media,
            capacity: settings.capacity,
        };
        if let Some(&known) = self.expanders.get(name) {
            if !clade.attributes.is_empty() && self.topology.expanders[known] != expander {
                return Err(self.fail(
                    clade.at,
                    format!("shared {name} has other figures where it was named first"),
                ));
            }
            return Ok(known);
        }
        let index = self.topology.expanders.len();
        self.topology.expanders.push(expander);
        self.expanders.insert(name.to_owned(), index);
        Ok(index)
    }

    /// Remembers for each link of a path how long a line is under way below it.
    fn note_round_trips(&mut self, path: &Path) {
        let mut below = self.topology.expanders[path.expander].read_ns;
        for &link in path.links.iter().rev() {
            below += self.topology.links[link].added_ns;
            self.credits[link].1 = self.credits[link].1.max(below);
        }
    }

    /// A link with `c` credits never has more than `c` lines under way, so it carries at most
    /// `c` lines in each round trip.
    fn finish(mut self) -> Topology {
        for (link, (credits, round_trip)) in self.topology.links.iter_mut().zip(&self.credits) {
            if let Some(credits) = credits
                && *round_trip > 0.0
            {
                let most = credits * LINE / round_trip;
                link.law.s2m = link.law.s2m.min(most);
                link.law.m2s = link.law.m2s.min(most);
            }
        }
        self.topology
    }

    fn fail(&self, at: usize, reason: impl Into<String>) -> Error {
        let complaint: SyntaxError = self.forest.complaint(at, reason);
        complaint.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(topology: &Topology) -> Vec<&str> {
        topology
            .expanders
            .iter()
            .map(|expander| expander.name.as_str())
            .collect()
    }

    #[test]
    fn the_originals_example_has_three_expanders_two_of_them_behind_a_switch() {
        let topology = Topology::parse("(1,(2,3))").unwrap();
        assert_eq!(names(&topology), ["1", "2", "3"]);
        let host = &topology.hosts[0];
        let depths: Vec<usize> = host.paths.iter().map(|path| path.links.len()).collect();
        assert_eq!(depths, [1, 2, 2]);
        assert_eq!(topology.idle_read_ns(&host.paths[0]), 214.0);
        assert_eq!(topology.idle_read_ns(&host.paths[1]), 214.0 + 70.0);
    }

    #[test]
    fn branch_lengths_add_to_a_round_trip() {
        let topology = Topology::parse("((1[&lat=100]:5)sw:30)").unwrap();
        assert_eq!(topology.idle_read_ns(&topology.hosts[0].paths[0]), 135.0);
    }

    #[test]
    fn an_expander_behind_a_shared_switch_shares_its_link_too() {
        let topology = Topology::parse("a=((m)sw);b=((m)sw)").unwrap();
        assert_eq!(topology.expanders.len(), 1);
        let [a, b] = &topology.hosts[..] else {
            panic!("two hosts")
        };
        assert_ne!(a.paths[0].links[0], b.paths[0].links[0]);
        assert_eq!(a.paths[0].links[1], b.paths[0].links[1]);
    }

    #[test]
    fn a_multi_headed_expander_has_a_link_for_each_host() {
        let topology = Topology::parse("(m);(m)").unwrap();
        assert_eq!((topology.expanders.len(), topology.links.len()), (1, 2));
    }

    #[test]
    fn unnamed_switches_are_never_shared() {
        let topology = Topology::parse("((1));((1))").unwrap();
        assert_eq!(topology.links.len(), 4);
    }

    #[test]
    fn credits_bound_what_a_link_carries_in_a_round_trip() {
        let topology = Topology::parse("(1[&lat=100,bw=64,credits=50])").unwrap();
        assert_eq!(topology.links[0].law.s2m, 50.0 * 64.0 / 100.0);
    }

    #[test]
    fn overrides_replace_figures_in_order_and_the_last_holds_on() {
        let mut topology = Topology::parse("(1,(2,3))").unwrap();
        topology.apply(&Overrides {
            latency: vec![(200.0, 250.0)],
            bandwidth: vec![(50.0, 40.0), (30.0, 20.0)],
            capacity: vec![1, 2],
        });
        assert!(
            topology
                .expanders
                .iter()
                .all(|e| (e.read_ns, e.write_ns) == (200.0, 250.0))
        );
        let links: Vec<f64> = topology.hosts[0]
            .paths
            .iter()
            .map(|path| topology.links[*path.links.last().unwrap()].law.s2m)
            .collect();
        assert_eq!(links, [50.0, 30.0, 30.0]);
        let capacities: Vec<u64> = topology.expanders.iter().map(|e| e.capacity).collect();
        assert_eq!(capacities, [1, 2, 2]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_where_it_stands() {
        let caret = |text: &str| match Topology::parse(text) {
            Err(Error::Topology(error)) => (error.at, error.reason),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(caret("(1[&bw=0])"), (4, "bw must be above zero".into()));
        assert_eq!(
            caret("(1[&lat=-3])"),
            (4, "lat must be zero or more".into())
        );
        assert_eq!(
            caret("((1)[&lat=3])"),
            (6, "lat is for an expander, not for a switch".into())
        );
        assert_eq!(caret("(1[&speed=3])").0, 4);
        assert_eq!(caret("(1[&profile=none])").0, 4);
        assert_eq!(
            caret("(1,(2,1))"),
            (6, "expander 1 occurs twice below one host".into())
        );
        assert_eq!(
            caret("(a,(1)a)"),
            (3, "a is both a switch and an expander".into())
        );
        assert_eq!(
            caret("((1)s,(2)s)"),
            (6, "switch s occurs twice below one host".into())
        );
        assert_eq!(caret("(1):3").0, 0);
        assert_eq!(caret("a=(1);a=(2)").0, 8);
    }
}
