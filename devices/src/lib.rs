//! What a guest sees on a bus: CXL ports, memory expanders and accelerators, virtio functions, serial, power.

mod cdat;
pub mod coherence;
mod cxl_config;
mod device;
mod downstream_port;
#[cfg(test)]
mod downstream_port_test;
mod effect;
mod endpoint;
#[cfg(test)]
mod error_test;
mod fabric;
#[cfg(test)]
mod fabric_test;
#[cfg(test)]
mod hierarchy_test;
mod host;
#[cfg(test)]
mod hostile_test;
pub mod power;
#[cfg(test)]
mod replay_test;
pub mod rtc;
mod switch_cci;
#[cfg(test)]
mod switch_cci_test;
#[cfg(test)]
mod testing;
mod type2;
#[cfg(test)]
mod type2_test;
mod type3;
#[cfg(test)]
mod type3_test;
mod upstream_port;
#[cfg(test)]
mod upstream_port_test;
pub mod virtio;

pub use device::Device;
pub use downstream_port::{DownstreamPort, DownstreamPortConfig, DownstreamPortKind, SlotState};
pub use effect::Effect;
pub use fabric::{run_switch_command, set_link_down, tell_switch};
/// What is behind the registers of an accelerator.
pub use gpu;
pub use host::HostBridge;
pub use switch_cci::SwitchCci;
pub use type2::{ACCELERATOR_DECODERS, Trapped, Type2, Type2Config};
pub use type3::{Part, Type3, Type3Config};
pub use upstream_port::{UpstreamPort, UpstreamPortConfig};
