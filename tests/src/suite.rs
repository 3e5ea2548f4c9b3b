//! The list of guest tests. A test is a function with a sentence for a name; it fails by returning an error.

use crate::guest::Lab;
use anyhow::Result;

mod accelerator;
mod boot;
mod clients;
mod cuda;
mod example;
mod fabric;
mod hostile;
mod hotplug;
mod machine;
mod mailbox;
mod own;
mod passphrase;
mod persistence;
mod picture;
mod ras;
mod region;
mod sets;
mod timing;

/// One guest test.
#[derive(Clone, Copy)]
pub struct Test {
    /// What holds, as a sentence with underscores.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&Lab) -> Result<()>,
}

impl Test {
    /// Why this test cannot run, if it cannot.
    #[must_use]
    pub fn lacks(&self, lab: &Lab) -> Option<&'static str> {
        if self.name.starts_with("own::") && lab.own.is_none() {
            return Some("no own kernel: run cargo xtask kernel --own");
        }
        if self.name.starts_with("cuda::") && lab.clients.is_none() {
            return Some("no disk with CUDA programs: cargo xtask image --clients says why");
        }
        None
    }
}

/// Turns functions into tests named `module::function`.
#[macro_export]
macro_rules! tests {
    ($module:literal: $($function:ident),+ $(,)?) => {
        &[$($crate::suite::Test { name: concat!($module, "::", stringify!($function)), run: $function }),+]
    };
}

/// All tests, in the order in which they run.
pub fn all() -> Vec<Test> {
    [
        boot::TESTS,
        region::TESTS,
        sets::TESTS,
        persistence::TESTS,
        mailbox::TESTS,
        clients::TESTS,
        passphrase::TESTS,
        ras::TESTS,
        machine::TESTS,
        example::TESTS,
        accelerator::TESTS,
        cuda::TESTS,
        hotplug::TESTS,
        fabric::TESTS,
        hostile::TESTS,
        timing::TESTS,
        own::TESTS,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_lack_something_say_what_and_no_others_do() {
        let lab = Lab {
            vmm: "vmm".into(),
            ctl: "ctl".into(),
            work: "work".into(),
            systems: Vec::new(),
            own: None,
            show: false,
            clients: None,
        };
        let mut suites: Vec<&str> = all()
            .iter()
            .filter(|test| test.lacks(&lab).is_some())
            .filter_map(|test| test.name.split("::").next())
            .collect();
        suites.dedup();
        assert_eq!(suites, ["cuda", "own"]);
        let clients = Some("clients.img".into());
        let equipped = Lab { clients, ..lab };
        let cuda = all()
            .into_iter()
            .find(|test| test.name.starts_with("cuda::"));
        assert_eq!(cuda.unwrap().lacks(&equipped), None);
    }
}
