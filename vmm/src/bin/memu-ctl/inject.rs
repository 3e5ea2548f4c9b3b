//! `memu-ctl inject`: what can go wrong, as a command line.

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use vmm::control::{EventSeverity, Injection};

/// Numbers are decimal or 0x...
#[derive(Debug, Subcommand)]
pub enum Inject {
    /// Lines of a device's media go bad: a load of them is a machine check
    Poison {
        /// Name of the device
        device: String,
        /// First device address, a multiple of 64
        dpa: String,
        /// Bytes, a multiple of 64
        #[arg(default_value = "64")]
        length: String,
    },
    /// Lines of a device's media are good again, with the bytes that they had
    ClearPoison {
        /// Name of the device
        device: String,
        /// First device address, a multiple of 64
        dpa: String,
        /// Bytes, a multiple of 64
        #[arg(default_value = "64")]
        length: String,
    },
    /// A correctable protocol error, such as mem-data-ecc
    Correctable {
        /// Name of a device, port or switch
        component: String,
        /// The error
        error: String,
    },
    /// An uncorrectable protocol error, such as mem-data-parity
    Uncorrectable {
        /// Name of a device, port or switch
        component: String,
        /// The error
        error: String,
        /// First dwords of the header log
        header: Vec<String>,
    },
    /// A general media event record
    MediaEvent {
        /// Name of the device
        device: String,
        /// The log
        severity: Severity,
        /// Device address
        dpa: String,
    },
    /// A DRAM event record
    DramEvent {
        /// Name of the device
        device: String,
        /// The log
        severity: Severity,
        /// Device address
        dpa: String,
        #[arg(long)]
        bank: Option<u8>,
        #[arg(long)]
        row: Option<u32>,
        #[arg(long)]
        column: Option<u16>,
    },
    /// The device contains an error by going viral, if the guest has enabled that
    Viral {
        /// Name of the device
        device: String,
    },
    /// The link below a port goes down
    LinkDown {
        /// Name of the port
        port: String,
    },
    /// The device fails
    Fault {
        /// Name of the device
        device: String,
        /// stuck-doorbell, mailbox-not-ready, media-not-ready, fatal, firmware-halt or flush-fails
        fault: String,
    },
    /// The device works again, or the link below the port is up
    Mend {
        /// Name of the device or port
        device: String,
    },
    /// The health changes; what is worse than its thresholds is logged
    Health {
        /// Name of the device
        device: String,
        /// Degrees Celsius
        #[arg(long, allow_negative_numbers = true)]
        temperature: Option<i16>,
        /// Percent
        #[arg(long)]
        life_used: Option<u8>,
    },
}

/// The log that an event goes to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Severity {
    Informational,
    Warning,
    Failure,
    Fatal,
}

impl From<Severity> for EventSeverity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Informational => Self::Informational,
            Severity::Warning => Self::Warning,
            Severity::Failure => Self::Failure,
            Severity::Fatal => Self::Fatal,
        }
    }
}

impl Inject {
    /// The body of the request.
    ///
    /// # Errors
    /// Words that are no numbers.
    pub fn request(&self) -> Result<vmm::control::Inject> {
        let (target, what) = match self {
            Self::Poison {
                device,
                dpa,
                length,
            } => {
                let (dpa, length) = (number(dpa)?, number(length)?);
                (device, Injection::Poison { dpa, length })
            }
            Self::ClearPoison {
                device,
                dpa,
                length,
            } => {
                let (dpa, length) = (number(dpa)?, number(length)?);
                (device, Injection::ClearPoison { dpa, length })
            }
            Self::Correctable { component, error } => {
                let error = error.clone();
                (component, Injection::Correctable { error })
            }
            Self::Uncorrectable {
                component,
                error,
                header,
            } => {
                let dword = |word: &String| {
                    u32::try_from(number(word)?).with_context(|| format!("{word} is no dword"))
                };
                let what = Injection::Uncorrectable {
                    error: error.clone(),
                    header: header.iter().map(dword).collect::<Result<_>>()?,
                };
                (component, what)
            }
            Self::MediaEvent {
                device,
                severity,
                dpa,
            } => {
                let what = Injection::MediaEvent {
                    severity: (*severity).into(),
                    dpa: number(dpa)?,
                };
                (device, what)
            }
            Self::DramEvent {
                device,
                severity,
                dpa,
                bank,
                row,
                column,
            } => {
                let what = Injection::DramEvent {
                    severity: (*severity).into(),
                    dpa: number(dpa)?,
                    bank: *bank,
                    row: *row,
                    column: *column,
                };
                (device, what)
            }
            Self::Viral { device } => (device, Injection::Viral),
            Self::LinkDown { port } => (port, Injection::LinkDown),
            Self::Fault { device, fault } => {
                let fault = Some(fault.clone());
                (device, Injection::Fault { fault })
            }
            Self::Mend { device } => (device, Injection::Fault { fault: None }),
            Self::Health {
                device,
                temperature,
                life_used,
            } => {
                let what = Injection::Health {
                    temperature: *temperature,
                    life_used: *life_used,
                };
                (device, what)
            }
        };
        Ok(vmm::control::Inject {
            target: target.clone(),
            what,
        })
    }
}

/// A number, decimal or with 0x.
pub fn number(word: &str) -> Result<u64> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.with_context(|| format!("{word} is no number"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(subcommand)]
        inject: Inject,
    }

    fn body(words: &str) -> String {
        let words = Words::try_parse_from(format!("inject {words}").split(' ')).unwrap();
        serde_json::to_string(&words.inject.request().unwrap()).unwrap()
    }

    #[test]
    fn each_command_is_a_request_to_a_target() {
        for (words, request) in [
            (
                "poison mem0 0x1000",
                r#"{"target":"mem0","what":{"poison":{"dpa":4096,"length":64}}}"#,
            ),
            (
                "clear-poison mem0 64 0x80",
                r#"{"target":"mem0","what":{"clear-poison":{"dpa":64,"length":128}}}"#,
            ),
            (
                "correctable rp0 crc-threshold",
                r#"{"target":"rp0","what":{"correctable":{"error":"crc-threshold"}}}"#,
            ),
            (
                "uncorrectable mem0 mem-data-ecc 1 0xff",
                r#"{"target":"mem0","what":{"uncorrectable":{"error":"mem-data-ecc","header":[1,255]}}}"#,
            ),
            ("link-down rp0", r#"{"target":"rp0","what":"link-down"}"#),
            (
                "media-event mem0 fatal 0",
                r#"{"target":"mem0","what":{"media-event":{"severity":"fatal","dpa":0}}}"#,
            ),
            (
                "dram-event mem0 warning 0x40 --bank 3 --row 9",
                r#"{"target":"mem0","what":{"dram-event":{"severity":"warning","dpa":64,"bank":3,"row":9,"column":null}}}"#,
            ),
            ("viral mem0", r#"{"target":"mem0","what":"viral"}"#),
            (
                "fault mem0 fatal",
                r#"{"target":"mem0","what":{"fault":{"fault":"fatal"}}}"#,
            ),
            (
                "mend mem0",
                r#"{"target":"mem0","what":{"fault":{"fault":null}}}"#,
            ),
            (
                "health mem0 --temperature -5",
                r#"{"target":"mem0","what":{"health":{"temperature":-5,"life_used":null}}}"#,
            ),
        ] {
            assert_eq!(body(words), request);
        }
    }
}
