//! Interleave sets of every width, made one after the other in one boot, by cxl-cli or by the kernel's files that it
//! writes to: every byte is where the formulas of the specification put it, worked out here, and using a set leaves the
//! guest's devices alone.

mod geometry;

use std::fmt::Write;

use self::geometry::{AREA, CAPACITY, Set, alternating, some, xor_maps};
use super::Test;
use super::boot::without_complaint;
use super::picture;
use super::region::{SEED, pattern, stock};
use crate::guest::{Guest, Lab, Machine, Outcome};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub const TESTS: &[Test] = crate::tests!["sets":
    two_to_sixteen_ways_below_one_bridge_and_two_switches,
    three_to_twelve_ways_and_xor_over_four_bridges_and_two_levels_of_switches,
];

/// MiB that `memu-guest bw 4 16` moves: once to touch them, and sixteen times each to fill, read and copy.
const MOVED: u64 = 4 * (1 + 3 * 16);

/// A window as the test knows it.
#[derive(Clone, Copy)]
struct Window {
    bridges: &'static [&'static str],
    granularity: u64,
    xor: bool,
    /// Most expanders of a set in it.
    most: u64,
}

const SCRIPT: &str = r#"
section picture PICTURE
section cedt od -An -v -tx1 /sys/firmware/acpi/tables/CEDT
for m in /sys/bus/cxl/devices/mem*; do
  read -r serial <$m/serial
  eval "memdev_$((serial))=${m##*/}"
done
last() { for last in $1; do :; done; echo ${last##*/}; }
by_client() {
  decoder=$1 granularity=$2; shift 2
  names=; for serial; do eval "names=\"\$names \$memdev_$serial\""; done
  cxl create-region -m -t ram -d $decoder -w $# -g $granularity $names
}
decoder_of() {
  for endpoint in endpoint*; do [ $endpoint/uport -ef $1 ] && echo decoder${endpoint#endpoint}.0; done
}
by_hand() {
  cd /sys/bus/cxl/devices
  decoder=$1 granularity=$2; shift 2
  read -r region <$decoder/create_ram_region
  echo $region >$decoder/create_ram_region && echo $granularity >$region/interleave_granularity &&
    echo $# >$region/interleave_ways && echo $(($# << 28)) >$region/size || return
  position=0
  for serial; do
    eval "target=\$(decoder_of \$memdev_$serial)"
    echo ram >$target/mode && echo $((1 << 28)) >$target/dpa_size && echo $target >$region/target$position || return
    position=$((position + 1))
  done
  echo 1 >$region/commit && echo $region >/sys/bus/cxl/drivers/cxl_region/bind
}
make() {
  "$@" || return
  dax=$(last '/sys/bus/dax/devices/dax*') driver=/sys/bus/dax/drivers/device_dax
  # As daxctl reconfigure-device does, which takes much longer.
  [ -e $driver/$dax ] || echo $dax >$driver/new_id
  [ -e /dev/$dax ]
}
use_it() {
  dax=/dev/$(last '/sys/bus/dax/devices/dax*')
  memu-guest bw 4 16 $dax || return
  for at; do memu-guest pattern write $dax $at AREA SEED && memu-guest pattern check $dax $at AREA SEED || return; done
}
destroy() { cxl destroy-region -f $(last '/sys/bus/cxl/devices/region*'); }
"#;

/// The exits of a machine, all and by who answered.
struct Exits(Value);

impl Exits {
    fn of(guest: &Guest) -> Result<Self> {
        Ok(Self(guest.control(&["exits"])?))
    }

    fn total(&self) -> u64 {
        self.0["total"].as_u64().unwrap_or(0)
    }

    /// Those to a window, a component register, a mailbox or configuration space: to anything that is about CXL memory.
    fn to_hardware(&self) -> u64 {
        let devices = self.0["devices"].as_object();
        devices
            .into_iter()
            .flatten()
            .filter(|(name, _)| {
                !["serial", "rtc", "power"].contains(&name.as_str()) && !name.contains("virtio")
            })
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    }
}

/// What an expander had when a set was written.
struct Found<'s> {
    set: &'s Set,
    area: u64,
    device: &'s str,
    /// Device address of the first byte.
    from: u64,
    bytes: Vec<u8>,
}

/// The bytes that an area of a set has on each member.
fn read_area<'s>(guest: &Guest, set: &'s Set, area: u64) -> Result<Vec<Found<'s>>> {
    let mut found = Vec::new();
    for device in set.below.iter().flatten() {
        // A member's share of the area, and a chunk more at either end, whatever the arithmetic.
        let chunk = |offset: u64| offset / set.granularity / set.ways() * set.granularity;
        let from = chunk(area);
        let to = chunk(area + AREA - 1) + set.granularity;
        let data = guest.request(&format!(
            "/v1/media?device={device}&dpa={from}&length={}",
            to - from
        ))?;
        found.push(Found {
            set,
            area,
            device,
            from,
            bytes: hexadecimal(data["data"].as_str().context("media without data")?)?,
        });
    }
    Ok(found)
}

fn hexadecimal(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).context("not hexadecimal");
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => anyhow::bail!("half a byte"),
        })
        .collect()
}

/// Compares every byte of an area with what its members had; an interleave moves whole chunks of 256 bytes at least.
fn compare(set: &Set, maps: &[u64], area: u64, found: &[&Found]) -> Result<()> {
    for offset in (area..area + AREA).step_by(256) {
        let (device, dpa) = set.oracle(maps, offset);
        let member = found
            .iter()
            .find(|found| found.area == area && found.device == device)
            .with_context(|| format!("nothing was read of {device}"))?;
        let start = usize::try_from(dpa - member.from)?;
        let bytes = member
            .bytes
            .get(start..start + 256)
            .context("less was read than wanted")?;
        // The guest counts the pattern from the beginning of the area.
        let wanted: Vec<u8> = (offset - area..offset - area + 256).map(pattern).collect();
        ensure!(
            bytes == wanted,
            "offset {offset:#x} is not at {dpa:#x} of {device}: found {:02x?}, not {:02x?}",
            &bytes[..16],
            &wanted[..16],
        );
    }
    Ok(())
}

/// Boots `hardware`, an `[[host_bridge]]` part, with `windows`, and makes, uses and destroys each of the sets; `picture` lists
/// what the kernel sees.
fn each_set(
    lab: &Lab,
    hardware: &Hardware,
    windows: &[Window],
    sets: &[Set],
    picture: &str,
) -> Result<()> {
    let config = hardware.with(windows);
    let mut script = SCRIPT
        .replace("PICTURE", picture)
        .replace("AREA", &AREA.to_string())
        .replace("SEED", &SEED.to_string());
    for (n, set) in sets.iter().enumerate() {
        let serials: Vec<String> = set
            .order()
            .iter()
            .map(|name| hardware.serial(name).to_string())
            .collect();
        let areas = set.areas().map(|area| area.to_string()).join(" ");
        writeln!(
            script,
            "section made{n} make {} decoder0.{} {} {}\nstep made{n}\nsection used{n} use_it {areas}\nstep used{n}\n\
             section gone{n} destroy",
            if set.by_hand { "by_hand" } else { "by_client" },
            set.window,
            set.granularity,
            serials.join(" ")
        )?;
    }
    script += "section dmesg dmesg\n";
    let mut guest = Machine::new(lab, stock(lab)?, "guest", &config)
        .script(&script)
        .start()?;
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    for (n, set) in sets.iter().enumerate() {
        guest
            .wait_for_step(&format!("made{n}"))
            .with_context(|| set.name())?;
        let before = Exits::of(&guest)?;
        guest.go_on()?;
        guest
            .wait_for_step(&format!("used{n}"))
            .with_context(|| set.name())?;
        let after = Exits::of(&guest)?;
        let spent = after.total() - before.total();
        if after.to_hardware() != before.to_hardware() || spent >= MOVED {
            wrong.push(format!(
                "{}: {MOVED} MiB cost {spent} exits:\n{}\n{}",
                set.name(),
                before.0,
                after.0
            ));
        }
        for area in set.areas() {
            found.extend(read_area(&guest, set, area).with_context(|| set.name())?);
        }
        guest.go_on()?;
    }
    let outcome = guest.wait()?;
    outcome.powered_off()?;
    picture::check(&config, &outcome.json("picture")?)?;
    let cedt = outcome.passed("cedt")?.split_whitespace();
    let cedt: Vec<u8> = cedt
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    // A boot is dear: what is wrong with one set does not hide the others.
    for (n, set) in sets.iter().enumerate() {
        if let Err(error) = judge(&outcome, n, set, &windows[set.window], &cedt, &found) {
            wrong.push(format!("{}: {error:#}", set.name()));
        }
    }
    if let Err(error) = without_complaint(outcome.passed("dmesg")?) {
        wrong.push(error.to_string());
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What the guest said of a set, and what its members had.
fn judge(
    outcome: &Outcome,
    n: usize,
    set: &Set,
    window: &Window,
    cedt: &[u8],
    found: &[Found],
) -> Result<()> {
    for section in ["made", "used", "gone"] {
        outcome.passed(&format!("{section}{n}"))?;
    }
    let maps = if window.xor {
        xor_maps(cedt, window.granularity)?
    } else {
        Vec::new()
    };
    let found: Vec<&Found> = found
        .iter()
        .filter(|found| std::ptr::eq(found.set, set))
        .collect();
    set.areas()
        .into_iter()
        .try_for_each(|area| compare(set, &maps, area, &found))
}

/// Host bridges and what is below them.
#[derive(Default)]
struct Hardware {
    text: String,
    /// Expanders in the order of their serial numbers, from 1 on.
    expanders: Vec<String>,
    switches: usize,
}

impl Hardware {
    fn bridge(mut self, name: &str) -> Self {
        self.text += &format!("[[host_bridge]]\nname = \"{name}\"\n");
        self
    }

    /// A switch below a port at `path`, a table of ports, with `count` expanders named `prefix0` and up, or with whatever
    /// is added at the returned path of its ports.
    fn switch(&mut self, path: &str, prefix: &str, count: usize) -> String {
        let n = self.switches;
        self.switches += 1;
        self.text += &format!(
            "[[{path}]]\nname = \"p{n}\"\n[{path}.device]\ntype = \"switch\"\nname = \"sw{n}\"\ndecoders = 2\n"
        );
        let below = format!("{path}.device.port");
        for name in some(prefix, count) {
            self.expanders.push(name.clone());
            self.text += &format!(
                "[[{below}]]\nname = \"to-{name}\"\n[{below}.device]\ntype = \"type3\"\nname = \"{name}\"\nserial = {}\n\
                 volatile = \"256MiB\"\ndecoders = 2\n",
                self.expanders.len()
            );
        }
        below
    }

    fn serial(&self, name: &str) -> usize {
        let index = self.expanders.iter().position(|known| known == name);
        index.map_or(0, |index| index + 1)
    }

    fn with(&self, windows: &[Window]) -> String {
        let mut config = format!("[machine]\nmemory = \"2GiB\"\n{}", self.text);
        for (n, window) in windows.iter().enumerate() {
            config += &format!(
                "[[window]]\nname = \"w{n}\"\nsize = \"{}MiB\"\ntargets = {:?}\ngranularity = \"{}B\"\narithmetic = \"{}\"\n",
                (window.most * CAPACITY) >> 20,
                window.bridges,
                window.granularity,
                if window.xor { "xor" } else { "modulo" }
            );
        }
        config
    }
}

const PORT: &str = "host_bridge.root_port";

fn two_to_sixteen_ways_below_one_bridge_and_two_switches(lab: &Lab) -> Result<()> {
    let mut hardware = Hardware::default().bridge("hb0");
    hardware.switch(PORT, "a", 8);
    hardware.switch(PORT, "b", 8);
    let window = Window {
        bridges: &["hb0"],
        granularity: 256,
        xor: false,
        most: 16,
    };
    let set = |granularity, members| Set::new(0, granularity, &[members]);
    // The largest granularities that Linux takes: no decoder chooses by an address bit above 14.
    let sets = [
        set(256, alternating(["a", "b"], 1)),
        set(16384, some("b", 2)),
        set(256, alternating(["b", "a"], 2)),
        set(8192, some("a", 4)),
        set(256, some("b", 8)).by_hand(),
        set(4096, some("a", 8)),
        set(256, alternating(["a", "b"], 8)),
        set(2048, alternating(["b", "a"], 8)),
    ];
    each_set(lab, &hardware, &[window], &sets, "picture")
}

fn three_to_twelve_ways_and_xor_over_four_bridges_and_two_levels_of_switches(
    lab: &Lab,
) -> Result<()> {
    let mut hardware = Hardware::default().bridge("hb0");
    hardware.switch(PORT, "a", 4);
    hardware = hardware.bridge("hb1");
    hardware.switch(PORT, "b", 4);
    hardware = hardware.bridge("hb2");
    hardware.switch(PORT, "c", 4);
    hardware = hardware.bridge("hb3");
    let upper = hardware.switch(PORT, "d", 1);
    hardware.switch(&upper, "e", 2);
    let window = |bridges, granularity, xor, most| Window {
        bridges,
        granularity,
        xor,
        most,
    };
    let windows = [
        window(&["hb0", "hb1", "hb2"], 256, false, 12),
        window(&["hb2", "hb0", "hb1"], 16384, false, 12),
        window(&["hb0", "hb1", "hb2", "hb3"], 256, true, 4),
        window(&["hb0", "hb1", "hb2", "hb3"], 4096, false, 4),
        window(&["hb1", "hb2"], 512, true, 8),
        window(&["hb3"], 256, false, 2),
        window(&["hb1", "hb2", "hb0"], 8192, false, 12),
    ];
    let three = |count| ["a", "b", "c"].map(|prefix| some(prefix, count));
    let turned = |count| ["c", "a", "b"].map(|prefix| some(prefix, count));
    let four = ["a", "b", "c", "d"].map(|prefix| some(prefix, 1));
    let sets = [
        Set::new(0, 256, &three(1)),
        Set::new(1, 16384, &turned(1)),
        Set::new(0, 256, &three(2)),
        Set::new(1, 16384, &turned(2)),
        Set::new(0, 256, &three(4)),
        Set::new(6, 8192, &["b", "c", "a"].map(|prefix| some(prefix, 4))),
        Set::new(2, 256, &four),
        Set::new(3, 4096, &four),
        Set::new(4, 512, &["b", "c"].map(|prefix| some(prefix, 4))),
        Set::new(5, 16384, &[some("e", 2)]),
    ];
    // All that there is to list takes its time with many devices, and is listed of as many in the other test.
    each_set(lab, &hardware, &windows, &sets, "cxl list -vv")
}
