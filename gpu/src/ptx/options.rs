//! How kernels are run.

use std::time::Duration;

/// What executes a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The interpreter for the first threads of a kernel without a loop, compiled code for all others.
    #[default]
    Automatic,
    Interpreter,
    /// Compiled code from the first launch on, where a kernel has any.
    Compiler,
}

/// How a context runs kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Host threads that run blocks.
    pub workers: u32,
    /// A kernel that takes longer ends with error 702; `None` lets it run for ever.
    pub watchdog: Option<Duration>,
    pub tier: Tier,
}

impl Default for Options {
    /// As many workers as the host runs at once, and ten seconds.
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            watchdog: Some(Duration::from_secs(10)),
            tier: Tier::Automatic,
        }
    }
}
