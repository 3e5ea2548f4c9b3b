//! Numbers as people write them.

/// How a size is written.
pub(super) const SIZE_MEND: &str = "write a number with B, KiB, MiB, GiB or TiB";

/// Bytes in the units of sizes, smallest first.
const UNITS: [(&str, u32); 5] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// Bytes that a text such as `256MiB` or `4 GiB` stands for; `None` if it is no size or exceeds 64 bits.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim_start();
    let &(_, shift) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(1 << shift)
}

/// `bytes` in the largest unit that divides it, as [`parse_size`] reads it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let fits = |&&(_, shift): &&(&str, u32)| bytes != 0 && bytes.is_multiple_of(1 << shift);
    let (unit, shift) = UNITS.iter().rev().find(fits).copied().unwrap_or(UNITS[0]);
    format!("{}{unit}", bytes >> shift)
}

/// The six bytes of a text such as `02:00:00:00:00:01`.
pub(super) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        let hex = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| hex)?;
    }
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let table = [
            ("0B", Some(0)),
            ("256B", Some(256)),
            ("16KiB", Some(16 << 10)),
            ("256MiB", Some(256 << 20)),
            ("4 GiB", Some(4 << 30)),
            ("1TiB", Some(1 << 40)),
            ("16777216TiB", None),
            ("256", None),
            ("256XB", None),
            ("256MB", None),
            ("MiB", None),
            ("-1MiB", None),
            ("1.5GiB", None),
            ("", None),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_divides_them() {
        for text in ["0B", "257B", "3KiB", "768MiB", "4GiB", "1TiB"] {
            assert_eq!(parse_size(text).map(show_size).as_deref(), Some(text));
        }
        assert_eq!(show_size(1024 << 20), "1GiB");
    }

    #[test]
    fn mac_addresses_are_six_hexadecimal_pairs() {
        assert_eq!(
            parse_mac("02:00:5e:00:fF:01"),
            Some([2, 0, 0x5e, 0, 0xff, 1])
        );
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:zz",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(parse_mac(text), None, "{text:?}");
        }
    }
}
