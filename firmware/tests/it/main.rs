//! What the tables say, read back by two strangers: a decoder written from the specifications' offsets,
//! and ACPICA.

mod acpi;
mod acpica;
mod e820;
mod machines;
mod refusals;
mod tables;
