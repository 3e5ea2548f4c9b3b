//! Bytes as hexadecimal digits.

use anyhow::{Context, Result, ensure};

/// The digits of `bytes`.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of `digits`; dashes count for nothing.
pub fn bytes(digits: &str) -> Result<Vec<u8>> {
    let digits = digits.replace('-', "");
    ensure!(
        digits.is_ascii() && digits.len().is_multiple_of(2),
        "`{digits}` are no bytes"
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(&digits[at..at + 2], 16)
                .with_context(|| format!("`{digits}` are no bytes"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes_are_the_same() {
        assert_eq!(bytes("0b49-E4").unwrap(), [0x0b, 0x49, 0xe4]);
        assert_eq!(text(&[0x0b, 0x49, 0xe4]), "0b49e4");
        assert_eq!(bytes("").unwrap(), []);
        assert!(bytes("0b4").is_err() && bytes("0x").is_err() && bytes("ää").is_err());
    }
}
