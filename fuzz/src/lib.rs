//! Fuzz targets: each turns a byte string into what a hostile guest may do to one model, and panics if the model breaks a
//! promise: it panics itself, answers from outside its registers, asks without end, or does not come back from a reset.
//!
//! `cargo +nightly fuzz run TARGET --features libfuzzer` in the workspace looks for new inputs; `cargo test` runs the kept ones.

mod component_registers;
mod config_space;
mod decode;
mod device_registers;
mod doe;
mod fatbin;
mod input;
mod mailbox;
mod switch;
mod type3;

pub use component_registers::component_registers;
pub use config_space::config_space;
pub use decode::decode;
pub use device_registers::device_registers;
pub use doe::doe;
pub use fatbin::fatbin;
pub use mailbox::mailbox;

/// A target: its name, which is that of its corpus too, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("config_space", config_space),
    ("component_registers", component_registers),
    ("device_registers", device_registers),
    ("mailbox", mailbox),
    ("doe", doe),
    ("decode", decode),
    ("fatbin", fatbin),
];

/// More effects than any one access may have.
const MOST_EFFECTS: usize = 100;
