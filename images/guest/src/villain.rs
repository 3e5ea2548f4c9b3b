//! A guest that misbehaves on purpose, run by root in the guest: `memu-guest villain CASE`.
//!
//! Each case does to the emulated hardware what no driver would. It passes if the machine still answers afterwards;
//! the test on the host looks at the VMM. Random numbers come from a fixed seed, so that a failure can be repeated.

use crate::pci_sysfs::{Bar, Function, physical};
use anyhow::{Context, Result, bail, ensure};

type Case = (&'static str, fn() -> Result<()>);

/// The cases, by the word that selects them.
const CASES: &[Case] = &[
    ("random-bars", random_bars),
    ("random-config", random_config),
    ("stacked-bars", stacked_bars),
    ("overlapping-decoders", overlapping_decoders),
    ("nonsense-mailbox", nonsense_mailbox),
    ("broken-virtqueues", broken_virtqueues),
    ("random-ports", random_ports),
    ("ecam-sweep", ecam_sweep),
    ("random-host-bridge", random_host_bridge),
    ("uncommitted-window", uncommitted_window),
    ("reset-storm", reset_storm),
];

/// Accesses per target and case: enough for every register to be hit many times over.
const ROUNDS: u64 = 10_000;
/// Rounds where each one takes several milliseconds in an emulated machine.
const SLOW_ROUNDS: u64 = 500;

/// Runs one case.
///
/// # Errors
/// No such case, or the hardware it needs is not there or no longer answers.
pub fn run(case: &str) -> Result<()> {
    let (_, run) = CASES
        .iter()
        .find(|(name, _)| *name == case)
        .with_context(|| {
            format!(
                "no case {case:?}; there are {}",
                CASES.iter().map(|c| c.0).collect::<Vec<_>>().join(", ")
            )
        })?;
    run()?;
    // The configuration mechanism is what everything else stands on: it must still answer.
    ensure!(
        !Function::all()?.is_empty(),
        "no PCI function answers any more"
    );
    Ok(())
}

/// xorshift64*: small, and good enough to wander through register space.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x6d65_6d75_7669_6c6c)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A number that hardware tends to stumble over: all zeros, all ones, one bit, or anything.
    fn nasty(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }
}

fn functions(vendor: u16, device: u16) -> Result<Vec<Function>> {
    let found: Vec<Function> = Function::all()?
        .into_iter()
        .filter(|f| f.vendor == vendor && f.device == device)
        .collect();
    ensure!(!found.is_empty(), "no function {vendor:04x}:{device:04x}");
    Ok(found)
}

fn expanders() -> Result<Vec<Function>> {
    functions(0x8086, 0x0d93)
}

/// The expanders and the accelerator.
fn devices() -> Result<Vec<Function>> {
    let mut found = expanders()?;
    found.extend(functions(0x8086, 0x0d92)?);
    Ok(found)
}

fn hammer(bar: &Bar, random: &mut Random, rounds: u64) {
    for _ in 0..rounds {
        let width = 1 << random.below(4);
        let offset = random.below(bar.len() / width) * width;
        if random.below(2) == 0 {
            bar.read(offset, width);
        } else {
            let value = random.nasty();
            bar.write(offset, width, value);
        }
    }
}

fn random_bars() -> Result<()> {
    let mut random = Random::new();
    for function in devices()? {
        function.unbind();
        for index in [0, 2, 4] {
            if let Ok(bar) = function.map_bar(index) {
                hammer(&bar, &mut random, ROUNDS);
            }
        }
    }
    Ok(())
}

fn random_config() -> Result<()> {
    let mut random = Random::new();
    // Not the virtio console that carries the verdict, nor the bridges above the devices.
    for function in devices()? {
        function.unbind();
        for _ in 0..ROUNDS {
            let width = 1 << random.below(3);
            let offset = random.below(4096 / width) * width;
            if random.below(2) == 0 {
                function.config_read(offset, width)?;
            } else {
                let value = random.nasty();
                // The kernel refuses some writes itself; those never reach the hardware.
                let _ = function.config_write(offset, width, value);
            }
        }
    }
    Ok(())
}

/// Offset of BAR 0 in a type 0 header, PCI 3.0 section 6.1.
const BAR0: u64 = 0x10;
const COMMAND: u64 = 0x04;
const MEMORY_SPACE: u64 = 1 << 1;

fn stacked_bars() -> Result<()> {
    for function in devices()? {
        function.unbind();
        // The BARs are 64 bits wide: two registers each.
        let (low, high) = (
            function.config_read(BAR0, 4)?,
            function.config_read(BAR0 + 4, 4)?,
        );
        let base = high << 32 | low & !0xf;
        ensure!(base != 0, "BAR 0 was never assigned");
        for bar in 0..6 {
            // Sizing leaves all ones behind: the BAR now claims the top of the address space.
            function.config_write(BAR0 + 4 * bar, 4, u64::from(u32::MAX))?;
            function.config_write(COMMAND, 2, MEMORY_SPACE)?;
            function.config_read(BAR0 + 4 * bar, 4)?;
        }
        for bar in [0, 2, 4] {
            function.config_write(BAR0 + 4 * bar, 4, low)?;
            function.config_write(BAR0 + 4 * bar + 4, 4, high)?;
        }
        function.config_write(COMMAND, 2, MEMORY_SPACE)?;
        hammer(&physical(base, 0x1_0000)?, &mut Random::new(), SLOW_ROUNDS);
    }
    Ok(())
}

/// CXL 3.1 section 8.2.4: the CXL.cachemem registers start here in a component register block.
const CACHEMEM: u64 = 0x1000;
const HDM_DECODER_CAPABILITY: u64 = 5;

fn hdm_decoders(bar: &Bar) -> Result<u64> {
    let count = bar.read(CACHEMEM, 4) >> 24;
    for index in 1..=count {
        let header = bar.read(CACHEMEM + 4 * index, 4);
        if header & 0xffff == HDM_DECODER_CAPABILITY {
            return Ok(CACHEMEM + (header >> 20));
        }
    }
    bail!("no HDM decoder capability among {count}")
}

/// CXL 3.1 section 8.2.4.20: decoder n occupies 0x20 bytes from 0x10.
fn program_decoder(bar: &Bar, hdm: u64, n: u64, base: u64, size: u64, control: u64) {
    let at = hdm + 0x10 + 0x20 * n;
    bar.write(at, 4, base & 0xffff_ffff);
    bar.write(at + 4, 4, base >> 32);
    bar.write(at + 8, 4, size & 0xffff_ffff);
    bar.write(at + 12, 4, size >> 32);
    bar.write(at + 16, 4, control);
}

const COMMIT: u64 = 1 << 9;
const COMMITTED: u64 = 1 << 10;

fn overlapping_decoders() -> Result<()> {
    let mut random = Random::new();
    for function in expanders()? {
        function.unbind();
        let bar = function.map_bar(0)?;
        let hdm = hdm_decoders(&bar)?;
        let block = 256 << 20;
        program_decoder(&bar, hdm, 0, 1 << 36, block, COMMIT);
        program_decoder(&bar, hdm, 1, 1 << 36, block, COMMIT);
        let control = bar.read(hdm + 0x10 + 0x20 + 16, 4);
        ensure!(
            control & COMMITTED == 0,
            "a decoder that overlaps another was committed"
        );
        for _ in 0..SLOW_ROUNDS {
            let (n, base, size) = (random.below(10), random.nasty(), random.nasty());
            let control = random.nasty() | COMMIT;
            program_decoder(&bar, hdm, n, base, size, control);
        }
    }
    Ok(())
}

/// CXL 3.1 section 8.2.8: device capability headers of 16 bytes, identifiers in the low 16 bits.
const PRIMARY_MAILBOX: u64 = 2;

fn nonsense_mailbox() -> Result<()> {
    let mut random = Random::new();
    for function in expanders()? {
        function.unbind();
        let bar = function.map_bar(2)?;
        let count = (bar.read(0, 8) >> 32) & 0xffff;
        let mailbox = (1..=count)
            .find(|i| bar.read(0x10 * i, 4) & 0xffff == PRIMARY_MAILBOX)
            .map(|i| bar.read(0x10 * i + 4, 4))
            .context("no primary mailbox")?;
        let payload = 1u64 << (bar.read(mailbox, 4) & 0x1f);
        for _ in 0..SLOW_ROUNDS {
            for offset in (0..64).step_by(8) {
                let value = random.nasty();
                bar.write(mailbox + 0x20 + offset % payload, 8, value);
            }
            let command = match random.below(3) {
                0 => random.next(),
                _ => random.below(0x5000) | random.nasty() << 16,
            };
            bar.write(mailbox + 8, 8, command);
            bar.write(mailbox + 4, 4, 1);
            ensure!(
                bar.read(mailbox + 4, 4) & 1 == 0,
                "the doorbell stuck at command {command:#x}"
            );
        }
    }
    Ok(())
}

fn broken_virtqueues() -> Result<()> {
    // virtio 1.2 section 4.1.4.3, common configuration.
    const DEVICE_FEATURE_SELECT: u64 = 0x00;
    const DRIVER_FEATURE_SELECT: u64 = 0x08;
    const DRIVER_FEATURE: u64 = 0x0c;
    const STATUS: u64 = 0x14;
    const QUEUE_SELECT: u64 = 0x16;
    const QUEUE_SIZE: u64 = 0x18;
    const QUEUE_ENABLE: u64 = 0x1c;
    const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    const QUEUE_DESC: u64 = 0x20;
    let mut random = Random::new();
    let function = functions(0x1af4, 0x1044)?.remove(0);
    function.unbind();
    function.config_write(COMMAND, 2, 6)?;
    let (common, notify, multiplier) = function.virtio_regions()?;
    let ram_top = 64u64 << 20;
    for _ in 0..SLOW_ROUNDS {
        common.write(STATUS, 1, 0);
        for status in [1, 3] {
            common.write(STATUS, 1, status);
        }
        common.write(DEVICE_FEATURE_SELECT, 4, 1);
        common.write(DRIVER_FEATURE_SELECT, 4, 1);
        common.write(DRIVER_FEATURE, 4, 1);
        common.write(STATUS, 1, 11);
        common.write(QUEUE_SELECT, 2, 0);
        let size = if random.below(2) == 0 {
            1 << random.below(9)
        } else {
            random.nasty() & 0xffff
        };
        common.write(QUEUE_SIZE, 2, size);
        for ring in [QUEUE_DESC, QUEUE_DESC + 8, QUEUE_DESC + 16] {
            // Somewhere in RAM full of other data, or nowhere at all.
            let address = if random.below(3) == 0 {
                random.nasty()
            } else {
                random.below(ram_top) & !0xfff
            };
            common.write(ring, 4, address & 0xffff_ffff);
            common.write(ring + 4, 4, address >> 32);
        }
        // The device may write where the rings point: only addresses that nobody uses, so leave the queue off
        // unless all of them are outside RAM.
        let outside = u64::MAX << 40;
        for ring in [QUEUE_DESC + 8, QUEUE_DESC + 16] {
            common.write(ring + 4, 4, (outside | random.next()) >> 32);
        }
        common.write(QUEUE_ENABLE, 2, 1);
        common.write(STATUS, 1, 15);
        let offset = common.read(QUEUE_NOTIFY_OFF, 2).wrapping_mul(multiplier);
        if offset + 4 <= notify.len() {
            notify.write(offset, 2, random.nasty() & 0xffff);
        }
        ensure!(common.read(STATUS, 1) <= 0xff, "status does not answer");
    }
    common.write(STATUS, 1, 0);
    Ok(())
}

fn random_ports() -> Result<()> {
    let mut random = Random::new();
    // The configuration address and data ports, then everything that is not the console, the interrupt controllers,
    // the timer, or power: those do what they are told, and the machine would rightly be gone.
    let kept = |port: u64| matches!(port, 0x20..=0x21 | 0x40..=0x43 | 0x61 | 0xa0..=0xa1 | 0x3f8..=0x3ff | 0x600..=0x60f | 0xcf9);
    for _ in 0..ROUNDS {
        let width = 1 << random.below(3);
        let port = if random.below(2) == 0 {
            0xcf8 + random.below(8)
        } else {
            random.below(0x1_0000)
        };
        if (port..port + width).any(kept) || port + width > 0x1_0000 {
            continue;
        }
        if random.below(2) == 0 {
            crate::pci_sysfs::port_read(port, width)?;
        } else if !(0xcf8..0xd00).contains(&port) {
            let value = random.nasty();
            crate::pci_sysfs::port_write(port, width, value)?;
        }
    }
    Ok(())
}

/// Where the machine's ECAM and host bridge registers are, from the ACPI tables the kernel exports.
fn ecam_sweep() -> Result<()> {
    let (base, buses) = crate::pci_sysfs::ecam()?;
    let ecam = physical(base, buses << 20)?;
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        let width = 1 << random.below(4);
        let offset = random.below(ecam.len() / width) * width;
        ecam.read(offset, width);
    }
    // Every bus number, device 0 and 31, first and last register.
    for bus in 0..buses {
        for device in [0, 31] {
            for register in [0, 0xffc] {
                ecam.read(bus << 20 | device << 15 | register, 4);
            }
        }
    }
    Ok(())
}

fn random_host_bridge() -> Result<()> {
    let mut random = Random::new();
    for base in crate::pci_sysfs::chbcr()? {
        hammer(&physical(base, 0x1_0000)?, &mut random, ROUNDS);
    }
    Ok(())
}

fn uncommitted_window() -> Result<()> {
    let mut random = Random::new();
    for (base, size) in crate::pci_sysfs::windows()? {
        let window = physical(base, size.min(1 << 30))?;
        for _ in 0..SLOW_ROUNDS {
            let width = 1 << random.below(4);
            let offset = random.below(window.len() / width) * width;
            window.write(offset, width, 0x5a5a_5a5a_5a5a_5a5a);
            let ones = u64::MAX >> (64 - 8 * width);
            ensure!(
                window.read(offset, width) == ones,
                "an uncommitted window answered at {:#x}",
                base + offset
            );
        }
    }
    Ok(())
}

fn reset_storm() -> Result<()> {
    for function in devices()? {
        function.unbind();
        for _ in 0..100 {
            function.reset()?;
        }
        ensure!(
            function.config_read(0, 4)? != u64::from(u32::MAX),
            "the function is gone after its resets"
        );
    }
    Ok(())
}
