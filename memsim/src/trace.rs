//! Traces: what reached memory, as text.
//!
//! One record a line, `#` opens a comment:
//!
//! ```text
//! time_ns host r|w|s address [lines]
//! ```
//!
//! `time_ns` is the host's own run time and never falls within a host; `host` its name or its place,
//! from 0; `r`, `w` and `s` are lines read, written back, and snooped by back-invalidate; `address`
//! is hexadecimal with or without `0x`; `lines` consecutive lines, 1 by default.

use crate::error::Error;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines read.
    Read,
    /// Lines written back.
    Write,
    /// Back-invalidate snoops.
    Snoop,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Run time of the host, ns.
    pub time_ns: f64,
    /// Place of the host in the topology.
    pub host: usize,
    /// What it did.
    pub kind: Kind,
    /// Address of the first line.
    pub address: u64,
    /// How many lines.
    pub lines: u32,
}

/// Reads one line of a trace; `None` for a line without a record. `number` counts from 1 and is for
/// complaints; `hosts` are the names.
///
/// # Errors
/// [`Error::Table`] for what does not read.
pub fn parse(line: &str, number: usize, hosts: &[&str]) -> Result<Option<Record>, Error> {
    let fail = |reason: String| Error::Table {
        what: "trace",
        line: number,
        reason,
    };
    let line = line.split('#').next().unwrap_or_default();
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (time, host, kind, address, lines) = match fields[..] {
        [] => return Ok(None),
        [time, host, kind, address] => (time, host, kind, address, "1"),
        [time, host, kind, address, lines] => (time, host, kind, address, lines),
        _ => return Err(fail("needs: time_ns host r|w|s address [lines]".into())),
    };
    let time_ns: f64 = time
        .parse()
        .ok()
        .filter(|ns: &f64| ns.is_finite() && *ns >= 0.0)
        .ok_or_else(|| fail(format!("'{time}' is not a time in ns")))?;
    let host = hosts
        .iter()
        .position(|name| *name == host)
        .or_else(|| {
            host.parse()
                .ok()
                .filter(|&place: &usize| place < hosts.len())
        })
        .ok_or_else(|| fail(format!("no host '{host}'; there are {}", hosts.join(", "))))?;
    let kind = match kind {
        "r" => Kind::Read,
        "w" => Kind::Write,
        "s" => Kind::Snoop,
        _ => return Err(fail(format!("'{kind}' is none of r, w, s"))),
    };
    let digits = address.strip_prefix("0x").unwrap_or(address);
    let address = u64::from_str_radix(digits, 16)
        .map_err(|_| fail(format!("'{address}' is not a hexadecimal address")))?;
    let lines = lines
        .parse()
        .map_err(|_| fail(format!("'{lines}' is not a number of lines")))?;
    Ok(Some(Record {
        time_ns,
        host,
        kind,
        address,
        lines,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads() {
        let record = parse("1500 h1 w 0x7f40 3 # three lines", 1, &["h0", "h1"])
            .unwrap()
            .unwrap();
        let expected = Record {
            time_ns: 1500.0,
            host: 1,
            kind: Kind::Write,
            address: 0x7f40,
            lines: 3,
        };
        assert_eq!(record, expected);
        assert_eq!(parse("0 0 r 40", 1, &["a"]).unwrap().unwrap().lines, 1);
        assert_eq!(parse("  # nothing", 1, &["a"]).unwrap(), None);
    }

    #[test]
    fn a_bad_record_is_named_by_its_line() {
        let error = |line: &str| parse(line, 7, &["a"]).unwrap_err().to_string();
        assert_eq!(error("0 b r 40"), "trace, line 7: no host 'b'; there are a");
        assert!(error("0 a x 40").contains("none of r, w, s"));
        assert!(error("-1 a r 40").contains("not a time"));
        assert!(error("0 a r zz").contains("hexadecimal"));
        assert!(error("0 a").contains("needs"));
    }
}
