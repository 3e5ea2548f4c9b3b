//! A program on expanders that are differently far away, in one guest.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guest::{Guest, Lab, Machine, System};

/// A load from each of the expanders, ns; [`HARDWARE`] has them so far away.
pub const LATENCIES: [f64; 4] = [150.0, 250.0, 400.0, 1000.0];
/// A load from the host's own memory, ns, as [`HARDWARE`] says.
const LOCAL: f64 = 100.0;
const HARDWARE: &str = include_str!("timing.toml");

/// MiB that the program jumps about in: many more than the processor has translations of. An emulated one forgets them each
/// time that the guest is entered, so that a smaller program is slower right after each look of the sampler.
const SIZE: u64 = 208;
/// Loads of a step.
const LOADS: u32 = 2_000_000;
/// Steps in which the first estimates get better, and those behind them that are measured.
const FIRST: u32 = 3;
const MEASURED: u32 = 6;

/// Loads of a program from one expander.
#[derive(Clone, Copy, Debug)]
pub struct Chase {
    /// Latency of the expander, ns.
    pub latency: f64,
    /// Time of a load by the guest's clock, ns.
    pub took: f64,
    /// Of that, time for which the guest ran, ns.
    pub ran: f64,
    /// Loads that the machine has counted, of those that were made.
    pub counted: f64,
    /// Delay that the model has asked for, for a counted load, ns.
    pub asked: f64,
}

impl Chase {
    /// What a load has been made longer by, ns.
    #[must_use]
    pub fn longer(&self) -> f64 {
        self.took - self.ran
    }

    /// What a load costs more on the expander than from the host's own memory, ns.
    #[must_use]
    pub fn model(&self) -> f64 {
        self.latency - LOCAL
    }
}

impl fmt::Display for Chase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} ns away: {:.0} ns a load, {:.1} of them for the way, which are {:.1}; {:.2} of the loads were counted",
            self.latency,
            self.took,
            self.longer(),
            self.model(),
            self.counted
        )
    }
}

/// What the books say.
#[derive(Clone, Copy, Debug)]
struct Books {
    lines: f64,
    added: f64,
    ran: f64,
}

impl Books {
    fn read(guest: &Guest, device: usize) -> Result<Self> {
        let timing = guest.control(&["timing"])?;
        let number = |value: &Value| value.as_f64().with_context(|| timing.to_string());
        Ok(Self {
            lines: number(&timing["devices"][device]["lines"])?,
            added: number(&timing["added"])?,
            ran: number(&timing["ran"])?,
        })
    }
}

/// The same program on each of the expanders, one after the other.
///
/// # Errors
/// The guest's.
pub fn chase(lab: &Lab, system: &System) -> Result<Vec<Chase>> {
    let script = format!(
        r#"
for dax in /sys/bus/dax/devices/dax*; do
  echo "$(cat $dax/resource) ${{dax##*/}}"
done | sort | while read -r address dax; do
  section $dax daxctl reconfigure-device --mode=system-ram $dax
  memu-guest on-node $(cat /sys/bus/dax/devices/$dax/target_node) chase-in-steps {SIZE} {LOADS} {}
done"#,
        FIRST + MEASURED
    );
    let mut guest = Machine::new(lab, system, "timing", HARDWARE)
        .cmdline("memhp_default_state=offline")
        .script(&script)
        .start()?;
    let chases = LATENCIES
        .into_iter()
        .enumerate()
        .map(|(device, latency)| one(&mut guest, device, latency))
        .collect::<Result<_>>()?;
    guest.wait()?.powered_off()?;
    Ok(chases)
}

fn one(guest: &mut Guest, device: usize, latency: f64) -> Result<Chase> {
    for step in 0..FIRST {
        time_of_step(guest, step)?;
    }
    let before = Books::read(guest, device)?;
    let mut took = 0.0;
    for step in FIRST..FIRST + MEASURED {
        took += time_of_step(guest, step)?;
    }
    let after = Books::read(guest, device)?;
    let (lines, loads) = (after.lines - before.lines, f64::from(MEASURED * LOADS));
    ensure!(
        lines > 0.0,
        "nothing was counted of device {device}: {after:?}"
    );
    Ok(Chase {
        latency,
        took: took / f64::from(MEASURED),
        ran: (after.ran - before.ran) / loads,
        counted: lines / loads,
        asked: (after.added - before.added) / lines,
    })
}

/// ns a load.
fn time_of_step(guest: &mut Guest, step: u32) -> Result<f64> {
    let mut found = Value::Null;
    guest
        .wait_for_line(|line| {
            found = serde_json::from_str(line).unwrap_or_default();
            found["step"] == step
        })
        .with_context(|| format!("step {step} of the program"))?;
    found["ns_per_load"]
        .as_f64()
        .with_context(|| found.to_string())
}
