//! How a guest commands the accelerator.
//!
//! | module | does |
//! |---|---|
//! | [`spec`] | offsets, commands and structures, for the device and for its drivers |
//! | [`registers`] | the register page: takes an access, says what the guest asks for |
//! | [`region`] | guest memory that a session's commands may name |
//! | [`ring`] | a queue's submissions and completions in guest memory |

pub mod region;
pub mod registers;
pub mod ring;
pub mod spec;
