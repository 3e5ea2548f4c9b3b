//! The machine of a configuration, drawn as a tree: what `memu-vmm check` prints.

use devices::Part;

use super::drawing::Node;
use super::model::{
    AcceleratorBackend, Arithmetic, Config, Device, HypervisorBit, Port, Region, Switch, Type2,
    Type3, Window,
};
use super::regions::RegionPlan;
use super::units::show_size;
use crate::error::Result;
use crate::layout::Layout;

impl Config {
    /// The machine as a tree, with the addresses of windows and regions.
    ///
    /// # Errors
    /// [`Error::Layout`](crate::Error::Layout) if the address map cannot be made.
    pub fn topology(&self) -> Result<Node> {
        let layout = Layout::new(&self.layout_request())?;
        let bases: Vec<u64> = layout.windows.iter().map(|window| window.start).collect();
        let plans = self.plan_regions(&bases);
        let mut children = vec![self.boot_node()];
        children.extend(self.device_nodes());
        for (i, bridge) in self.host_bridges.iter().enumerate() {
            let ports = bridge.root_ports.iter().enumerate();
            children.push(Node::new(
                format!("host bridge {}, ACPI0016 UID {}", bridge.name, i + 1),
                ports
                    .map(|(number, port)| port_node("root port", number, port))
                    .collect(),
            ));
        }
        for (i, window) in self.windows.iter().enumerate() {
            children.push(self.window_node(i, window, bases[i], &plans));
        }
        Ok(Node::new(self.machine_line(), children))
    }

    fn machine_line(&self) -> String {
        let bit = if self.hypervisor_bit_is_shown() {
            "shown"
        } else {
            "hidden"
        };
        let why = match self.machine.hypervisor_bit {
            HypervisorBit::Auto => "auto",
            HypervisorBit::Show | HypervisorBit::Hide => "as configured",
        };
        format!(
            "machine: {} vCPUs, {} RAM{}, hypervisor bit {bit} ({why})",
            self.machine.vcpus,
            show_size(self.machine.memory),
            if self.machine.huge_pages {
                " in huge pages"
            } else {
                ""
            },
        )
    }

    fn boot_node(&self) -> Node {
        let initrd = self
            .boot
            .initrd
            .iter()
            .map(|path| format!(", initrd {}", path.display()));
        let line = format!(
            "boot {}{}",
            self.boot.kernel.display(),
            initrd.collect::<String>()
        );
        let cmdline = Some(&self.boot.cmdline).filter(|words| !words.is_empty());
        Node::new(line, cmdline.into_iter().map(Node::leaf).collect())
    }

    fn device_nodes(&self) -> Vec<Node> {
        let mut nodes = vec![Node::leaf(format!("serial port: {}", self.serial))];
        if let Some(socket) = &self.control {
            nodes.push(Node::leaf(format!("control socket {}", socket.display())));
        }
        for disk in &self.disks {
            let access = if disk.read_only { ", read-only" } else { "" };
            nodes.push(Node::leaf(format!(
                "virtio disk {}{access}",
                disk.path.display()
            )));
        }
        for net in &self.nets {
            nodes.push(Node::leaf(format!(
                "virtio net, tap {}, {}",
                net.tap, net.mac
            )));
        }
        for target in &self.virtio_consoles {
            nodes.push(Node::leaf(format!("virtio console: {target}")));
        }
        if self.rng {
            nodes.push(Node::leaf("virtio entropy source"));
        }
        nodes
    }

    fn window_node(&self, index: usize, window: &Window, base: u64, plans: &[RegionPlan]) -> Node {
        let targets = window
            .targets
            .iter()
            .map(|&i| self.host_bridges[i].name.as_str());
        let allowed = [
            (window.volatile, "volatile"),
            (window.persistent, "persistent"),
        ];
        let allowed = allowed
            .iter()
            .filter(|(allowed, _)| *allowed)
            .map(|(_, name)| *name);
        let line = format!(
            "window {} {}: {} over {} at {}{}, for {}, QTG {}",
            window.name,
            range(base, window.size),
            show_size(window.size),
            targets.collect::<Vec<_>>().join(", "),
            show_size(window.granularity),
            match window.arithmetic {
                Arithmetic::Modulo => "",
                Arithmetic::Xor => " by XOR",
            },
            allowed.collect::<Vec<_>>().join(" and "),
            window.qtg,
        );
        let inside = plans
            .iter()
            .filter(|plan| self.regions[plan.region].window == index);
        let mut children: Vec<Node> = inside
            .map(|plan| self.region_node(&self.regions[plan.region], plan))
            .collect();
        let free = self.free_in_window(index);
        if free != 0 {
            children.push(Node::leaf(format!(
                "{} free for the user's regions",
                show_size(free)
            )));
        }
        Node::new(line, children)
    }

    fn region_node(&self, region: &Region, plan: &RegionPlan) -> Node {
        let flags = [
            (region.lock, ", locked"),
            (region.soft_reserved, ", soft-reserved"),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
        let line = format!(
            "region {} {}: {} {}, {}-way at {}{}",
            region.name,
            range(plan.hpa, plan.size),
            show_size(plan.size),
            region.kind,
            region.ways(),
            show_size(region.granularity),
            flags.collect::<String>(),
        );
        let endpoints = plan.endpoints.iter().map(|endpoint| {
            let name = self.member_name(&endpoint.device);
            let dpa = range(endpoint.dpa, endpoint.dpa_size);
            Node::leaf(format!("position {}: {name}, DPA {dpa}", endpoint.position))
        });
        Node::new(line, endpoints.collect())
    }
}

fn port_node(kind: &str, number: usize, port: &Port) -> Node {
    let device = port.device.as_ref().map(|device| match device {
        Device::Type2(device) => type2_node(device),
        Device::Type3(device) => type3_node(device),
        Device::Switch(switch) => switch_node(switch),
    });
    let empty = if device.is_none() { ", empty" } else { "" };
    let line = format!(
        "{kind} {}, port number {number}, {} {}{empty}",
        port.name, port.speed, port.width
    );
    Node::new(line, device.into_iter().collect())
}

fn switch_node(switch: &Switch) -> Node {
    let ports = switch.ports.iter().enumerate();
    let serial = switch.serial.map(|serial| format!(", serial {serial:#x}"));
    let mailbox = if switch.mailbox_cci {
        ", with a mailbox"
    } else {
        ""
    };
    Node::new(
        format!(
            "switch {}{}{mailbox}",
            switch.name,
            serial.unwrap_or_default()
        ),
        ports
            .map(|(number, port)| port_node("downstream port", number, port))
            .collect(),
    )
}

fn type2_node(device: &Type2) -> Node {
    let backend = match &device.backend {
        AcceleratorBackend::Ptx { .. } => "PTX on this host's processors".to_string(),
        AcceleratorBackend::Cuda { library, device } => {
            format!("device {device} of {}", library.display())
        }
    };
    Node::leaf(format!(
        "type 2 {}, serial {:#x}: {}, {backend}",
        device.name,
        device.serial,
        show_size(device.memory)
    ))
}

fn type3_node(device: &Type3) -> Node {
    let parts = [
        (device.volatile != 0).then(|| format!("{} volatile", show_size(device.volatile))),
        (device.partitionable != 0)
            .then(|| format!("{} partitionable", show_size(device.partitionable))),
        (device.persistent != 0).then(|| format!("{} persistent", show_size(device.persistent))),
        dynamic_capacity(device),
        device.backing.as_ref().map(|path| {
            let shared = if device.shared { "shared " } else { "" };
            format!("{shared}in {}", path.display())
        }),
        device.labels.as_ref().map(|labels| {
            format!(
                "labels {} in {}",
                show_size(labels.size),
                labels.path.display()
            )
        }),
        match device.part {
            Part::Whole => None,
            Part::LogicalDevice { count, own } => Some(format!("logical device {own} of {count}")),
            Part::Head { count, own } => Some(format!("head {own} of {count}")),
        },
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Node::leaf(format!(
        "type 3 {}, serial {:#x}: {}",
        device.name,
        device.serial,
        parts.join(", ")
    ))
}

fn dynamic_capacity(device: &Type3) -> Option<String> {
    let sizes = device.dynamic.iter().map(|region| show_size(region.size));
    let sizes: Vec<String> = sizes.collect();
    (!sizes.is_empty()).then(|| format!("{} dynamic", sizes.join(" + ")))
}

/// First and last address of a range, which is not empty.
fn range(start: u64, size: u64) -> String {
    format!(
        "[{start:#x}-{:#x}]",
        start.saturating_add(size).saturating_sub(1)
    )
}
