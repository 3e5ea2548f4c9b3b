//! The machine's tree as the model takes it: the configuration's figures, and nothing else.

use memsim::topology::Topology;

use crate::config::{Config, Device, Performance, Port};
use crate::error::{Error, Result};
use crate::performance::{self, HOST_BRIDGE};

/// How much wider a medium is than its link lets through: the link is the bottleneck that the configuration names.
const MEDIUM: f64 = 1.15;

/// The topology in Newick syntax, as `memsim -o` takes it: host bridges and switches are switches, expanders leaves, in
/// the order of the file. What nothing is behind is left out.
pub fn text(config: &Config) -> String {
    let bridges: Vec<String> = config
        .host_bridges
        .iter()
        .filter_map(|bridge| {
            inner(
                &bridge.root_ports,
                HOST_BRIDGE.read_bandwidth,
                HOST_BRIDGE.write_bandwidth,
                HOST_BRIDGE.read_latency,
            )
        })
        .collect();
    format!("({})", bridges.join(","))
}

/// What is behind `ports`, below an edge of these GB/s towards the host and away from it, and these ns.
fn inner(ports: &[Port], read: f64, write: f64, latency: f64) -> Option<String> {
    let children: Vec<String> = ports.iter().filter_map(child).collect();
    let children = (!children.is_empty()).then(|| children.join(","))?;
    Some(format!(
        "({children})[&s2m={read:.3},m2s={write:.3}]:{latency:.3}"
    ))
}

fn child(port: &Port) -> Option<String> {
    let link = performance::link(port);
    let narrowest = |performance: &Performance| {
        (
            link.read_bandwidth.min(performance.read_bandwidth),
            link.write_bandwidth.min(performance.write_bandwidth),
        )
    };
    match port.device.as_ref()? {
        // Only expanders' memory is timed.
        Device::Type2(_) => None,
        Device::Switch(switch) => {
            let (read, write) = narrowest(&switch.performance);
            let latency = link.read_latency + f64::from(switch.performance.read_latency);
            inner(&switch.ports, read, write, latency)
        }
        Device::Type3(device) => {
            let (read, write) = narrowest(&device.performance);
            Some(format!(
                "{}[&lat={},wlat={},s2m={read:.3},m2s={write:.3},cd={:.3}]:{:.3}",
                device.name,
                device.performance.read_latency,
                device.performance.write_latency,
                MEDIUM * (read + write),
                link.read_latency
            ))
        }
    }
}

/// The topology; its expanders are in the order of [`Config::devices`].
///
/// # Errors
/// [`Error::Timing`] for a name that the syntax has another use for.
pub fn topology(config: &Config) -> Result<Topology> {
    Topology::parse(&text(config)).map_err(|error| Error::Timing(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn config(tree: &str) -> Config {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("kernel"), "").unwrap();
        let source = format!("[boot]\nkernel = \"kernel\"\n{tree}");
        let file: &Path = &files.path().join("host0.toml");
        Config::parse(file, &source, &Overrides::default()).unwrap()
    }

    const TREE: &str = r#"
[[host_bridge]]
name = "hb0"
[[host_bridge.root_port]]
name = "rp0"
width = 8
[host_bridge.root_port.device]
type = "type3"
name = "mem0"
serial = 1
volatile = "256MiB"
read_latency = 97
write_latency = 80
read_bandwidth = 20
write_bandwidth = 64
[[host_bridge.root_port]]
name = "rp1"
[[host_bridge]]
name = "hb1"
[[host_bridge.root_port]]
name = "rp3"
[[host_bridge]]
name = "hb2"
[[host_bridge.root_port]]
name = "rp2"
[host_bridge.root_port.device]
type = "switch"
name = "sw0"
read_latency = 70
write_latency = 70
read_bandwidth = 40
write_bandwidth = 80
[[host_bridge.root_port.device.port]]
name = "dsp0"
[host_bridge.root_port.device.port.device]
type = "type3"
name = "mem1"
serial = 2
volatile = "256MiB"
read_latency = 349
[[host_bridge.root_port.device.port]]
name = "dsp1"
"#;

    #[test]
    fn the_tree_of_the_file_is_the_topology_and_empty_ports_are_not_in_it() {
        // 32 GT/s x8 are 32 GB/s, of which 64 bytes in 68 are for messages.
        assert_eq!(
            text(&config(TREE)),
            "((mem0[&lat=97,wlat=80,s2m=20.000,m2s=30.118,cd=57.635]:2.125)[&s2m=64.000,m2s=64.000]:51.000,\
             ((mem1[&lat=349,wlat=150,s2m=32.000,m2s=32.000,cd=73.600]:1.062)[&s2m=40.000,m2s=60.235]:71.062)\
             [&s2m=64.000,m2s=64.000]:51.000)"
        );
    }

    #[test]
    fn idle_latencies_are_what_hmat_and_cdat_add_up_to() {
        let config = config(TREE);
        let topology = topology(&config).unwrap();
        let host = &topology.hosts[0];
        let names = host
            .paths
            .iter()
            .map(|path| &topology.expanders[path.expander].name);
        assert!(names.eq(config.devices().map(|(_, device)| &device.name)));
        let idle: Vec<f64> = host
            .paths
            .iter()
            .map(|path| topology.idle_read_ns(path))
            .collect();
        let flit = |lanes: f64| 68.0 / (32.0 * lanes / 8.0);
        let sums = [
            51.0 + flit(8.0) + 97.0,
            51.0 + 2.0 * flit(16.0) + 70.0 + 349.0,
        ];
        for (idle, sum) in idle.iter().zip(sums) {
            assert!((idle - sum).abs() < 0.01, "{idle} {sum}");
        }
    }
}
