//! Options of CXLMemSim that have another spelling here, or nothing to steer.

use memsim::Error;

/// Given to a command line of the original, they do what they did, or say why not.
#[derive(Debug, Default, clap::Args)]
pub struct Originals {
    /// Events between two hardware samples (source `samples`)
    #[arg(short = 'p', long = "period", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub period: Option<u64>,

    /// A variable of the target's environment; may be repeated
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<String>,

    /// Policies of CXLMemSim: allocation (none, interleave, numa), migration (none, heataware,
    /// frequency), paging (none), caching (none)
    #[arg(short = 'k', value_name = "POLICY,...", value_delimiter = ',')]
    pub policies: Vec<String>,

    #[arg(short = 'f', value_name = "MHZ", hide = true)]
    frequency: Option<String>,
    #[arg(short = 'v', value_name = "WEIGHTS", hide = true)]
    heuristics: Option<String>,
    #[arg(short = 'x', value_name = "PMUS", hide = true)]
    pmus: Option<String>,
    #[arg(short = 'y', value_name = "CONFIG1", hide = true)]
    config1: Option<String>,
    #[arg(short = 'z', value_name = "CONFIG2", hide = true)]
    config2: Option<String>,
}

impl Originals {
    /// Options that were given and change nothing, with the reason.
    pub fn idle(&self) -> Vec<String> {
        let counters = "counters are chosen by probing";
        let all = [
            (
                "-f",
                &self.frequency,
                "it had no effect in CXLMemSim either",
            ),
            ("-v", &self.heuristics, "latencies come from the topology"),
            ("-x", &self.pmus, counters),
            ("-y", &self.config1, counters),
            ("-z", &self.config2, counters),
        ];
        let given = all.iter().filter(|(_, value, _)| value.is_some());
        given
            .map(|(option, _, why)| format!("{option} changes nothing: {why}"))
            .collect()
    }

    /// The environment as pairs.
    ///
    /// # Errors
    /// [`Error::Value`] for one without a name and a value.
    pub fn environment(&self) -> Result<Vec<(&str, &str)>, Error> {
        self.environment
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name, value)),
                _ => Err(Error::Value {
                    what: "environment (-e)",
                    reason: format!("'{pair}' is not NAME=VALUE"),
                }),
            })
            .collect()
    }

    /// What `--policy` would say for the original's policies; nothing if they are all `none`.
    ///
    /// # Errors
    /// [`Error::Value`] for one that has no counterpart.
    pub fn policy(&self) -> Result<Option<&'static str>, Error> {
        let refuse = |place: &str, name: &str| {
            Err(Error::Value {
                what: "policies (-k)",
                reason: format!("there is no {place} '{name}' here; see --policy and --page-size"),
            })
        };
        let places = ["allocation", "migration", "paging", "caching"];
        let mut policy = None;
        for (index, name) in self.policies.iter().enumerate() {
            let place = places.get(index).copied().unwrap_or("policy");
            let found = match (place, name.trim()) {
                ("policy", name) => return refuse(place, name),
                (_, "none" | "") => continue,
                ("allocation", "interleave") => "interleave",
                ("allocation", "numa") => "numa",
                ("migration", "heataware" | "frequency") => "promote:100",
                (_, name) => return refuse(place, name),
            };
            if policy.replace(found).is_some() {
                return refuse("combination", &self.policies.join(","));
            }
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(names: &str) -> Originals {
        Originals {
            policies: names.split(',').map(str::to_owned).collect(),
            ..Originals::default()
        }
    }

    #[test]
    fn the_originals_policies_are_translated_or_refused() {
        assert_eq!(policies("none,none,none,none").policy().unwrap(), None);
        assert_eq!(policies("interleave").policy().unwrap(), Some("interleave"));
        assert_eq!(
            policies("none,heataware,none,none").policy().unwrap(),
            Some("promote:100")
        );
        for refused in [
            "best",
            "none,lifetime",
            "none,none,none,fifo",
            "numa,frequency",
            "none,none,none,none,x",
        ] {
            assert!(policies(refused).policy().is_err(), "{refused}");
        }
    }

    #[test]
    fn variables_have_a_name_and_a_value() {
        let originals = |pair: &str| Originals {
            environment: vec![pair.into()],
            ..Originals::default()
        };
        let given = originals("OMP_NUM_THREADS=24");
        assert_eq!(given.environment().unwrap(), [("OMP_NUM_THREADS", "24")]);
        assert!(originals("=24").environment().is_err());
        assert!(originals("threads").environment().is_err());
    }

    #[test]
    fn options_that_change_nothing_say_so() {
        let originals = Originals {
            frequency: Some("4000".into()),
            ..Originals::default()
        };
        assert_eq!(originals.idle().len(), 1);
        assert!(Originals::default().idle().is_empty());
    }
}
