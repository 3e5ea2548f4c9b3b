//! Devices that come to a running machine, and those that leave it: under the same keys and rules as in the file.

use std::path::Path;

use toml::de::DeTable;

use super::diagnostic::Diagnostics;
use super::model::{Config, Device, Place, Port};
use super::report::Report;
use super::{parse, validate};

impl Config {
    /// This machine with a device more, at the port `place`, which is empty. `table` has the keys of
    /// `[host_bridge.root_port.device]`; relative paths in it are relative to `file`, which messages name.
    ///
    /// # Errors
    /// Every mistake in the table, or everything of the device that does not fit to the rest of the machine.
    pub fn with_device(
        &self,
        place: &Place,
        file: &Path,
        table: toml::Table,
    ) -> Result<Self, Diagnostics> {
        let source = toml::Table::from_iter([("device".into(), toml::Value::Table(table))]);
        let source = source.to_string();
        let (table, errors) = DeTable::parse_recoverable(&source);
        if !errors.is_empty() {
            return Err(Diagnostics::of_syntax(file, &source, &errors));
        }
        let nothing = DeTable::new();
        let mut report = Report::new(file, "", &nothing);
        let mut config = self.clone();
        let device = parse::added_device(table.get_ref(), &mut report);
        if matches!(device, Some(Device::Switch(_))) {
            report.error(
                "device.type",
                "a switch cannot come while the machine runs",
                "write type = \"type3\"",
            );
        }
        if let Some(port) = config.port_mut(place) {
            port.device = device;
        }
        if report.is_clean() {
            validate::validate(&config, &mut report);
        }
        report.into_result().map(|()| config)
    }

    /// This machine without the device at `place`, and without the regions that it is part of.
    #[must_use]
    pub fn without_device(&self, place: &Place) -> Self {
        let mut config = self.clone();
        if let Some(port) = config.port_mut(place) {
            port.device = None;
        }
        config
            .regions
            .retain(|region| !region.devices.contains(place));
        config
    }

    /// The port of this name, with its place.
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<(Place, &Port)> {
        let mut ports = self.ports().into_iter();
        ports.find(|(_, port)| port.name == name)
    }

    fn port_mut(&mut self, place: &Place) -> Option<&mut Port> {
        let (first, rest) = place.ports.split_first()?;
        let bridge = self.host_bridges.get_mut(place.host_bridge)?;
        let mut port = bridge.root_ports.get_mut(*first)?;
        for index in rest {
            let Some(Device::Switch(switch)) = &mut port.device else {
                return None;
            };
            port = switch.ports.get_mut(*index)?;
        }
        Some(port)
    }
}
