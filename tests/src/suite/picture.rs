//! The kernel's own picture of the CXL hierarchy, as `cxl list -vvv` tells it, against the configuration file.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use toml::Table;

/// Decoders of a component whose description names no number.
const DECODERS: i64 = 10;

/// What both have to agree on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    /// Root decoders: base and size are the kernel's to say, the number of targets is the file's.
    windows: Vec<i64>,
    /// Host bridges and switches that lead to a device: how many of each depth and number of decoders.
    ports: BTreeMap<(i64, i64), usize>,
    /// Expanders by serial number: depth, decoders, volatile and persistent bytes.
    expanders: BTreeMap<i64, (i64, i64, i64, i64)>,
}

/// Fails unless the kernel sees exactly the devices, ports, decoders and windows that `config` describes.
///
/// # Errors
/// A difference, with both pictures.
pub fn check(config: &str, list: &Value) -> Result<()> {
    let wanted = of_config(&config.parse().context("the hardware description")?)?;
    let mut found = Picture::default();
    for bus in list
        .as_array()
        .context("cxl list gives no array of buses")?
    {
        of_list(bus, &mut found);
    }
    found.windows.sort_unstable();
    ensure!(
        found == wanted,
        "the kernel's picture is not the file's:\n{found:?}\n{wanted:?}\n{list:#}"
    );
    Ok(())
}

fn tables<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = &'t Table> {
    let array = table.get(key).and_then(|value| value.as_array());
    array
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table)
}

fn number(table: &Table, key: &str, default: i64) -> i64 {
    table
        .get(key)
        .and_then(toml::Value::as_integer)
        .unwrap_or(default)
}

/// A capacity, which is written in MiB or GiB.
fn capacity(table: &Table, key: &str) -> Result<i64> {
    let Some(text) = table.get(key).and_then(|value| value.as_str()) else {
        return Ok(0);
    };
    let (digits, shift) = match text.strip_suffix("GiB") {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix("MiB").context(key.to_string())?, 20),
    };
    Ok(digits.parse::<i64>()? << shift)
}

fn of_config(config: &Table) -> Result<Picture> {
    let mut picture = Picture::default();
    for window in tables(config, "window") {
        let targets = window.get("targets").and_then(|targets| targets.as_array());
        picture.windows.push(targets.map_or(0, Vec::len) as i64);
    }
    picture.windows.sort_unstable();
    for bridge in tables(config, "host_bridge") {
        component(bridge, "root_port", 1, &mut picture)?;
    }
    Ok(picture)
}

/// Adds a host bridge or switch at `depth` with all below it, and says whether there is a device: without one the kernel
/// does not look at a switch, and newer kernels not at a host bridge's decoders.
fn component(table: &Table, ports: &str, depth: i64, picture: &mut Picture) -> Result<bool> {
    let mut leads_to_devices = false;
    for port in tables(table, ports) {
        let Some(device) = port.get("device").and_then(toml::Value::as_table) else {
            continue;
        };
        match device.get("type").and_then(toml::Value::as_str) {
            Some("switch") => leads_to_devices |= component(device, "port", depth + 1, picture)?,
            Some("type3") => {
                leads_to_devices = true;
                let expander = (
                    depth + 1,
                    number(device, "decoders", DECODERS),
                    capacity(device, "volatile")?,
                    capacity(device, "persistent")?,
                );
                let serial = number(device, "serial", 0);
                picture.expanders.insert(serial, expander);
            }
            // No driver of the kernel's own makes a memory device of an accelerator.
            _ => {}
        }
    }
    if leads_to_devices {
        let key = (depth, number(table, "decoders", DECODERS));
        *picture.ports.entry(key).or_default() += 1;
    }
    Ok(leads_to_devices)
}

/// Adds a bus, port or endpoint of the list with all below it.
fn of_list(object: &Value, picture: &mut Picture) {
    let Some(fields) = object.as_object() else {
        return;
    };
    let size = |value: &Value, key: &str| value[key].as_i64().unwrap_or(0);
    let of_kind = |kind: &'static str| {
        fields
            .iter()
            .filter(move |(key, _)| key.starts_with(kind))
            .filter_map(|(_, value)| value.as_array())
            .flatten()
    };
    let decoders = of_kind("decoders:").count() as i64;
    let depth = size(object, "depth");
    if let Some(memdev) = fields.get("memdev").filter(|value| value.is_object()) {
        let expander = (
            depth,
            decoders,
            size(memdev, "ram_size"),
            size(memdev, "pmem_size"),
        );
        picture.expanders.insert(size(memdev, "serial"), expander);
    } else if fields.contains_key("bus") {
        let targets = of_kind("decoders:").map(|decoder| size(decoder, "nr_targets"));
        picture.windows.extend(targets);
    } else if decoders > 0 {
        *picture.ports.entry((depth, decoders)).or_default() += 1;
    }
    for below in of_kind("ports:").chain(of_kind("endpoints:")) {
        of_list(below, picture);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONFIG: &str = r#"
[[host_bridge]]
[[host_bridge.root_port]]
[host_bridge.root_port.device]
type = "switch"
decoders = 2
[[host_bridge.root_port.device.port]]
[host_bridge.root_port.device.port.device]
type = "type3"
serial = 7
volatile = "256MiB"
persistent = "1GiB"
[[host_bridge.root_port]]
[[window]]
targets = ["hb0"]
"#;

    fn list(depth: i64) -> Value {
        let decoders = |count| vec![json!({"decoder": "d"}); count];
        json!([{
            "bus": "root0",
            "decoders:root0": [{"decoder": "decoder0.0", "nr_targets": 1}],
            "ports:root0": [{
                "port": "port1", "depth": 1,
                "decoders:port1": decoders(10),
                "ports:port1": [{
                    "port": "port2", "depth": 2,
                    "decoders:port2": decoders(2),
                    "endpoints:port2": [{
                        "endpoint": "endpoint3", "depth": depth,
                        "memdev": {"serial": 7, "ram_size": 1 << 28, "pmem_size": 1 << 30},
                        "decoders:endpoint3": decoders(10),
                    }],
                }],
            }],
        }])
    }

    #[test]
    fn the_same_tree_is_the_same_picture() {
        check(CONFIG, &list(3)).unwrap();
    }

    #[test]
    fn a_device_at_another_depth_or_of_another_size_is_another_picture() {
        assert!(check(CONFIG, &list(2)).is_err());
        assert!(check(&CONFIG.replace("1GiB", "2GiB"), &list(3)).is_err());
        assert!(check(&CONFIG.replace("decoders = 2", ""), &list(3)).is_err());
    }
}
