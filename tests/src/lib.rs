//! Guest tests: whatever boots a guest lives here. `cargo xtask test` runs `memu-guest-tests` where KVM works.

pub mod accelerator;
pub mod alive;
pub mod cpio;
pub mod guest;
pub mod options;
pub mod result;
pub mod suite;
pub mod timing;
