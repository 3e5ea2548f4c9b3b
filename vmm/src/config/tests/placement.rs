//! Decoder settings against tables made by hand, and the tree that `check` prints.

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn port(host_bridge: usize, root_port: usize) -> Place {
    Place::host_bridge(host_bridge).below(root_port)
}

#[test]
fn one_way_takes_the_region_as_it_is() {
    let config = Files::new().example("shared-host0.toml");
    assert_eq!(
        config.plan_regions(&[4 * GIB]),
        [RegionPlan {
            region: 0,
            hpa: 4 * GIB,
            size: 256 * MIB,
            is_accelerators: false,
            lock: false,
            ports: vec![PortDecoder {
                component: Place::host_bridge(0),
                decoder: 0,
                hpa: 4 * GIB,
                size: 256 * MIB,
                granularity: 256,
                targets: vec![0],
            }],
            endpoints: vec![EndpointDecoder {
                device: port(0, 0),
                decoder: 0,
                hpa: 4 * GIB,
                size: 256 * MIB,
                ways: 1,
                granularity: 256,
                position: 0,
                dpa: 0,
                dpa_size: 256 * MIB,
                dpa_skip: 0,
            }],
        }]
    );
}

/// The decoders of a host bridge as `(host bridge, granularity, targets)`.
fn bridges(plan: &RegionPlan) -> Vec<(usize, u64, &[u8])> {
    let decoders = plan.ports.iter();
    decoders
        .map(|d| (d.component.host_bridge, d.granularity, &d.targets[..]))
        .collect()
}

/// The devices as `(place, position, ways, granularity)`.
fn endpoints(plan: &RegionPlan) -> Vec<(Place, u64, u64, u64)> {
    let decoders = plan.endpoints.iter();
    decoders
        .map(|d| (d.device.clone(), d.position, d.ways, d.granularity))
        .collect()
}

#[test]
fn a_bridge_below_a_two_way_window_works_at_twice_the_granularity_even_with_one_port() {
    let config = Files::new().example("interleave-host-bridges.toml");
    let plan = &config.plan_regions(&[GIB])[0];
    assert_eq!(bridges(plan), [(0, 512, &[0][..]), (1, 512, &[0])]);
    assert_eq!(
        endpoints(plan),
        [(port(0, 0), 0, 2, 256), (port(1, 0), 1, 2, 256)]
    );
    assert!(
        plan.endpoints
            .iter()
            .all(|d| d.dpa_size == 256 * MIB && d.size == 512 * MIB)
    );
}

#[test]
fn ports_below_a_one_way_window_work_at_the_granularity_of_the_region() {
    let config = Files::new().example("interleave-root-ports.toml");
    let plan = &config.plan_regions(&[GIB])[0];
    assert_eq!(bridges(plan), [(0, 256, &[0, 1][..])]);
    assert_eq!(
        endpoints(plan),
        [(port(0, 0), 0, 2, 256), (port(0, 1), 1, 2, 256)]
    );
}

#[test]
fn a_four_way_window_multiplies_the_granularity_of_its_bridges_by_four() {
    let config = Files::new().example("four-bridges.toml");
    let plan = &config.plan_regions(&[GIB])[0];
    let granularities: Vec<u64> = plan.ports.iter().map(|d| d.granularity).collect();
    assert_eq!(granularities, [16384; 4]);
}

/// Bridges of `ports` devices each, 1 GiB volatile and 1 GiB persistent; a window over the first `ways` of them.
fn grid(files: &Files, bridges: usize, ports: usize, ways: usize, regions: &str) -> Config {
    let mut source = BOOT.to_string();
    for i in 0..bridges {
        source += &format!("[[host_bridge]]\nname = \"hb{i}\"\n");
        for j in 0..ports {
            source += &format!(
                "[[host_bridge.root_port]]\nname = \"rp{i}{j}\"\n[host_bridge.root_port.device]\ntype = \"type3\"\n\
                 name = \"mem{i}{j}\"\nserial = {}\nvolatile = \"1GiB\"\npersistent = \"1GiB\"\nbacking = \"mem{i}{j}\"\n",
                1 + i * ports + j
            );
        }
    }
    let targets: Vec<String> = (0..ways).map(|i| format!("hb{i}")).collect();
    source += &format!("[[window]]\nname = \"w0\"\nsize = \"12GiB\"\ntargets = {targets:?}\n");
    source += &format!("[[window]]\nname = \"w1\"\nsize = \"12GiB\"\ntargets = {targets:?}\n");
    files
        .parse(&(source + regions))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn region(name: &str, window: &str, size: &str, kind: &str, devices: &[&str]) -> String {
    format!(
        "[[region]]\nname = \"{name}\"\nwindow = \"{window}\"\nsize = \"{size}\"\ntype = \"{kind}\"\ndevices = {devices:?}\n"
    )
}

#[test]
fn the_interleave_over_host_bridges_turns_faster_than_that_over_their_ports() {
    let files = Files::new();
    let devices = ["mem01", "mem10", "mem00", "mem11"];
    let config = grid(
        &files,
        2,
        2,
        2,
        &region("r0", "w0", "4GiB", "volatile", &devices),
    );
    let plan = &config.plan_regions(&[GIB, 13 * GIB])[0];
    assert_eq!(bridges(plan), [(0, 512, &[1, 0][..]), (1, 512, &[0, 1])]);
    assert_eq!(
        endpoints(plan),
        [
            (port(0, 1), 0, 4, 256),
            (port(1, 0), 1, 4, 256),
            (port(0, 0), 2, 4, 256),
            (port(1, 1), 3, 4, 256),
        ]
    );
}

/// The interleave of a decoder.
fn interleave(ways: usize, granularity: u64) -> cxl::Interleave {
    cxl::Interleave::new(
        cxl::Ways::new(ways as u64).unwrap(),
        cxl::Granularity::new(granularity).unwrap(),
    )
}

/// Follows an offset in a region from its window through host bridges and switches to a device.
fn follow(config: &Config, plan: &RegionPlan, offset: u64) -> Place {
    let window = &config.windows[config.regions[plan.region].window];
    let target = interleave(window.ways(), window.granularity).position(offset);
    let mut place = Place::host_bridge(window.targets[usize::try_from(target).unwrap()]);
    while let Some(port) = plan.ports.iter().find(|port| port.component == place) {
        let way = interleave(port.targets.len(), port.granularity).position(offset);
        place = place.below(port.targets[usize::try_from(way).unwrap()].into());
    }
    place
}

#[test]
fn window_and_bridges_lead_every_chunk_to_the_device_that_claims_it() {
    let files = Files::new();
    let pairs = ["mem01", "mem10", "mem00", "mem11"];
    let eights = [
        "mem00", "mem10", "mem01", "mem11", "mem02", "mem12", "mem03", "mem13",
    ];
    let fours: Vec<String> = (0..16)
        .map(|p| format!("mem{}{}", p % 4, 3 - p / 4))
        .collect();
    let fours: Vec<&str> = fours.iter().map(String::as_str).collect();
    for (bridges, size, devices) in [
        (2, "1GiB", &pairs[..]),
        (2, "2GiB", &eights),
        (4, "4GiB", &fours),
        (3, "768MiB", &["mem02", "mem11", "mem20"]),
    ] {
        let regions = region("r0", "w0", size, "volatile", devices);
        let config = grid(&files, bridges, 4, bridges, &regions);
        let plan = &config.plan_regions(&[12 * GIB, 24 * GIB])[0];
        for chunk in 0..64 * devices.len() as u64 {
            let offset = chunk * 256;
            let reached = follow(&config, plan, offset);
            let claims: Vec<_> = plan
                .endpoints
                .iter()
                .filter(|d| interleave(devices.len(), d.granularity).position(offset) == d.position)
                .map(|d| d.device.clone())
                .collect();
            assert_eq!(claims, [reached], "chunk {chunk} over {devices:?}");
        }
    }
}

#[test]
fn a_three_way_window_leaves_the_granularity_of_its_bridges_alone() {
    let files = Files::new();
    let devices = ["mem00", "mem10", "mem20"];
    let config = grid(
        &files,
        3,
        1,
        3,
        &region("r0", "w0", "768MiB", "volatile", &devices),
    );
    let plan = &config.plan_regions(&[3 * GIB, 15 * GIB])[0];
    assert_eq!(
        bridges(plan),
        [(0, 256, &[0][..]), (1, 256, &[0]), (2, 256, &[0])]
    );
    assert!(
        plan.endpoints
            .iter()
            .all(|d| d.ways == 3 && d.dpa_size == 256 * MIB)
    );
}

#[test]
fn regions_follow_each_other_in_the_window_and_in_the_device() {
    let files = Files::new();
    // The last region of the file lies in the first window, so its decoders come first.
    let regions = region("v1", "w1", "256MiB", "volatile", &["mem00"])
        + &region("p1", "w1", "256MiB", "persistent", &["mem00"])
        + &region("p2", "w1", "512MiB", "persistent", &["mem00"])
        + &region("v0", "w0", "512MiB", "volatile", &["mem00"]);
    let config = grid(&files, 1, 1, 1, &regions);
    let plans = config.plan_regions(&[GIB, 13 * GIB]);
    let table: Vec<_> = plans
        .iter()
        .map(|plan| {
            let (bridge, device) = (&plan.ports[0], &plan.endpoints[0]);
            assert_eq!((bridge.hpa, device.hpa), (plan.hpa, plan.hpa));
            assert_eq!((bridge.size, device.size), (plan.size, plan.size));
            assert_eq!(bridge.decoder, device.decoder);
            let name = config.regions[plan.region].name.as_str();
            (
                name,
                device.decoder,
                plan.hpa / MIB,
                device.dpa / MIB,
                device.dpa_skip / MIB,
                device.dpa_size / MIB,
            )
        })
        .collect();
    assert_eq!(
        table,
        [
            ("v0", 0, 1024, 0, 0, 512),
            ("v1", 1, 13 * 1024, 512, 0, 256),
            // 256 MiB of volatile memory are left over.
            ("p1", 2, 13 * 1024 + 256, 1024, 256, 256),
            ("p2", 3, 13 * 1024 + 512, 1280, 0, 512),
        ]
    );
}

#[test]
fn the_tree_shows_everything_with_its_addresses() {
    let files = Files::new();
    let config = files.example("mixed.toml");
    let directory = format!("{}/", files.path().display());
    assert_eq!(
        config.topology().unwrap().to_string().replace(&directory, ""),
        "\
machine: 4 vCPUs, 2GiB RAM, hypervisor bit hidden (auto)
├── boot kernel, initrd initrd
│   └── console=ttyS0
├── serial port: stdio
├── host bridge hb0, ACPI0016 UID 1
│   ├── root port rp0, port number 0, 32GT/s x8
│   │   └── type 3 both, serial 0x10: 512MiB volatile, 512MiB persistent, in both.img, labels 128KiB in both.img.lsa
│   ├── root port rp1, port number 1, 16GT/s x16
│   │   └── type 3 volatile, serial 0x11: 512MiB volatile, 512MiB dynamic
│   ├── root port rp2, port number 2, 64GT/s x16
│   │   └── type 3 persistent, serial 0x12: 256MiB persistent, in persistent.img, labels 128KiB in persistent.img.lsa
│   └── root port rp3, port number 3, 32GT/s x16, empty
├── window ram [0x150000000-0x18fffffff]: 1GiB over hb0 at 256B, for volatile, QTG 0
│   ├── region boot [0x150000000-0x16fffffff]: 512MiB volatile, 1-way at 256B
│   │   └── position 0: both, DPA [0x0-0x1fffffff]
│   └── 512MiB free for the user's regions
└── window pmem [0x190000000-0x1cfffffff]: 1GiB over hb0 at 256B, for persistent, QTG 1
    └── 1GiB free for the user's regions
"
    );
}

#[test]
fn the_largest_machine_fits_into_the_address_map() {
    let files = Files::new();
    let config = grid(&files, 4, 16, 4, "");
    config.topology().unwrap();
}
