//! `memu-ctl extent`: dynamic capacity that comes and goes, as a command line.

use anyhow::{Result, ensure};
use clap::Subcommand;
use vmm::control::{ChangeExtents, Extent as Range, ExtentChange};

use crate::inject::number;

/// Numbers are decimal or 0x..., and multiples of the blocks that the tree tells of.
#[derive(Debug, Subcommand)]
pub enum Extent {
    /// Offers extents to the guest, which answers all of them at once
    Add {
        /// Name of the device
        device: String,
        /// First device address and bytes of the first, of the second, ...
        #[arg(required = true, num_args = 2.., value_names = ["DPA", "LENGTH"])]
        ranges: Vec<String>,
        /// What their owner calls them: up to 16 bytes, two hexadecimal digits each
        #[arg(long, default_value = "")]
        tag: String,
    },
    /// Asks the guest to release an extent, or part of one
    Release {
        /// Name of the device
        device: String,
        /// First device address
        dpa: String,
        /// Bytes
        length: String,
        /// Takes it away at once, whatever the guest does with it
        #[arg(long)]
        force: bool,
    },
}

impl Extent {
    /// The body of the request.
    ///
    /// # Errors
    /// Words that are no numbers, or an address without a length.
    pub fn request(&self) -> Result<ChangeExtents> {
        let (device, change) = match self {
            Self::Add {
                device,
                ranges,
                tag,
            } => {
                ensure!(ranges.len().is_multiple_of(2), "an address has no length");
                let ranges = ranges.chunks(2).map(|range| match range {
                    [dpa, length] => extent(dpa, length, tag),
                    _ => extent("", "", tag),
                });
                let change = ExtentChange::Add(ranges.collect::<Result<_>>()?);
                (device, change)
            }
            Self::Release {
                device,
                dpa,
                length,
                force,
            } => {
                let range = extent(dpa, length, "")?;
                let change = match force {
                    true => ExtentChange::Take(range),
                    false => ExtentChange::Release(range),
                };
                (device, change)
            }
        };
        Ok(ChangeExtents {
            device: device.clone(),
            change,
        })
    }
}

fn extent(dpa: &str, length: &str, tag: &str) -> Result<Range> {
    Ok(Range {
        dpa: number(dpa)?,
        length: number(length)?,
        tag: tag.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(subcommand)]
        extent: Extent,
    }

    fn body(words: &str) -> String {
        let words = Words::try_parse_from(format!("extent {words}").split(' ')).unwrap();
        serde_json::to_string(&words.extent.request().unwrap()).unwrap()
    }

    #[test]
    fn each_command_is_a_change_of_a_device() {
        for (words, request) in [
            (
                "add mem0 0x1000 4096 0x4000 0x2000 --tag c0ffee",
                r#"{"device":"mem0","change":{"add":[{"dpa":4096,"length":4096,"tag":"c0ffee"},{"dpa":16384,"length":8192,"tag":"c0ffee"}]}}"#,
            ),
            (
                "release mem0 0x1000 4096",
                r#"{"device":"mem0","change":{"release":{"dpa":4096,"length":4096}}}"#,
            ),
            (
                "release mem0 0x1000 4096 --force",
                r#"{"device":"mem0","change":{"take":{"dpa":4096,"length":4096}}}"#,
            ),
        ] {
            assert_eq!(body(words), request);
        }
    }

    #[test]
    fn an_address_without_a_length_is_refused() {
        assert!(Words::try_parse_from(["extent", "add", "mem0", "1"]).is_err());
        let words = Words::try_parse_from(["extent", "add", "mem0", "1", "2", "3"]).unwrap();
        assert!(words.extent.request().is_err());
    }
}
