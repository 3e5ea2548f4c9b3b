//! `memu-guest`: one static program with what the tests, the demo and the benchmark do inside a guest.
//!
//! Every command prints one line of JSON per result, and exits with 0 only if what it checked held.

mod counter;
mod fabric;
mod feature;
mod gpu;
mod hex;
mod insmod;
mod interface;
mod mapping;
mod memory;
mod node;
mod pattern;
mod pci_sysfs;
mod poison;
mod raw_command;
mod requests;
#[path = "../../../gpu/src/protocol/spec.rs"]
#[allow(dead_code, reason = "the interface is described whole")]
mod spec;
mod vector;
mod villain;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: memu-guest COMMAND
  insmod LIST                        insert the modules that the file LIST names, in its order
  bw SIZE [PASSES [FILE]]            fill, read and copy bandwidth over SIZE of memory, in GB/s
  read SIZE [PASSES [FILE]]          bandwidth of sequential loads, a word at a time
  chase SIZE [LOADS [FILE]]          ns per dependent load over SIZE of memory
  chase-in-steps SIZE LOADS STEPS    the same for each of STEPS steps, without a stop between them
  fill-sum [MIB]                     fill MIB (64) with a pattern and sum it
  pattern write|check FILE OFFSET LENGTH SEED
                                     a pattern in a file or device, mapped shared
  avx [MIB]                          AVX2 copies, locked operations and XSAVE areas on memory
  numa-where                         the nodes of this program's own code, data, heap and stack
  on-node NODE COMMAND...            run a command of this program with code and data on NODE
  fabric                             say what the switches with a mailbox have
  fabric unbind PORT wait|orderly|surprise
                                     take what is behind a port of the first of them from this host
  fabric bind PORT                   give it back
  fabric requests PORT               ask it, and what is behind its ports, all that libcxlmi can; PORT is not bound
  gpu-v1                             add vectors on an accelerator, by version 1 of its protocol
  poison                             say where a page is, wait for a line of input, load the page, expect SIGBUS
  raw FILE OPCODE [HEX]              send a command to the memory device behind FILE as it is, with this payload
  requests FILE                      ask the memory device behind FILE all that libcxlmi can; its contents are lost
  features FILE                      features of a memory device, by its fwctl node FILE
  feature FILE get UUID LENGTH       current value of one
  feature FILE set UUID HEX          write one
  count UNIT EVENT COMMAND...        what a counter of a monitoring unit counts while a program runs
  villain CASE                       misuse the hardware on purpose
SIZE is in MiB, or in KiB with a K behind it; FILE is mapped instead of anonymous memory.";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("memu-guest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; `Ok(false)` when what it checks does not hold.
fn run(words: &[&str]) -> Result<bool> {
    match words {
        ["insmod", list] => insmod::insert_all(list),
        ["bw", size] => memory::bandwidth(bytes(size)?, 4, None),
        ["bw", size, passes] => memory::bandwidth(bytes(size)?, number(passes)?, None),
        ["bw", size, passes, file] => memory::bandwidth(bytes(size)?, number(passes)?, Some(file)),
        ["read", size] => memory::sequential(bytes(size)?, 4, None),
        ["read", size, passes] => memory::sequential(bytes(size)?, number(passes)?, None),
        ["read", size, passes, file] => {
            memory::sequential(bytes(size)?, number(passes)?, Some(file))
        }
        ["chase", size] => memory::chase(bytes(size)?, 1_000_000, None),
        ["chase", size, loads] => memory::chase(bytes(size)?, number(loads)?, None),
        ["chase", size, loads, file] => memory::chase(bytes(size)?, number(loads)?, Some(file)),
        ["chase-in-steps", size, loads, steps] => {
            memory::chase_in_steps(bytes(size)?, number(loads)?, number(steps)?)
        }
        ["fill-sum"] => memory::fill_sum(64 << 20),
        ["fill-sum", size] => memory::fill_sum(bytes(size)?),
        ["pattern", "write", file, offset, length, seed] => {
            pattern::write(file, number(offset)?, number(length)?, number(seed)?)
        }
        ["pattern", "check", file, offset, length, seed] => {
            pattern::check(file, number(offset)?, number(length)?, number(seed)?)
        }
        ["avx"] => vector::exercise(16 << 20),
        ["avx", size] => vector::exercise(bytes(size)?),
        ["numa-where"] => node::report_own_pages(),
        ["fabric"] => fabric::show(),
        ["fabric", "unbind", port, how] => fabric::unbind(number(port)?, how),
        ["fabric", "bind", port] => fabric::bind(number(port)?),
        ["fabric", "requests", port] => fabric::ask_all(number(port)?),
        ["gpu-v1"] => gpu::version_1(),
        ["poison"] => poison::meet(),
        ["raw", file, opcode] => raw_command::send(file, number(opcode)?, &[]),
        ["raw", file, opcode, payload] => {
            raw_command::send(file, number(opcode)?, &hex::bytes(payload)?)
        }
        ["requests", file] => raw_command::ask_all(file),
        ["features", file] => feature::list(file),
        ["feature", file, "get", uuid, length] => feature::get(file, uuid, number(length)?),
        ["feature", file, "set", uuid, value] => feature::set(file, uuid, value),
        ["count", unit, event, command @ ..] if !command.is_empty() => {
            counter::count(unit, event, command)
        }
        ["villain", case] => villain::run(case).map(|()| true),
        ["on-node", node, rest @ ..] if !rest.is_empty() => node::execute_on(number(node)?, rest),
        _ => bail!("{USAGE}"),
    }
}

/// A number, decimal or with 0x.
fn number(word: &str) -> Result<u64> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.with_context(|| format!("`{word}` is no number"))
}

/// A positive size in bytes: MiB, or KiB with a `K` behind the number.
fn bytes(word: &str) -> Result<usize> {
    let (digits, unit) = match word.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => (word, 1 << 20),
    };
    let bytes = number(digits)?.checked_mul(unit).filter(|bytes| *bytes > 0);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.with_context(|| format!("`{word}` is no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("4096").unwrap(), 4096);
        assert_eq!(number("0x1000").unwrap(), 4096);
        assert!(number("4k").is_err());
    }

    #[test]
    fn a_size_is_positive_and_fits() {
        assert_eq!(bytes("2").unwrap(), 2 << 20);
        assert_eq!(bytes("64K").unwrap(), 64 << 10);
        assert!(bytes("0").is_err());
        assert!(bytes("0xffffffffffffffff").is_err());
    }

    #[test]
    fn an_unknown_command_shows_the_usage() {
        assert!(run(&["fly"]).unwrap_err().to_string().contains("usage"));
    }
}
