//! `vprintf`: C's format strings over a buffer of packed arguments.

/// One argument at a time, each aligned to its size.
struct Arguments<F> {
    read: F,
    at: u64,
}

impl<F: FnMut(u64, u64) -> Result<u64, E>, E> Arguments<F> {
    fn take(&mut self, bytes: u64) -> Result<u64, E> {
        let at = self.at.next_multiple_of(bytes);
        self.at = at + bytes;
        (self.read)(at, bytes)
    }
}

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    long: bool,
}

/// Output wider than this is cut: a format cannot make the host write without end.
const MAX_FIELD: usize = 1024;

/// Formats; `read` takes an offset in the argument buffer and a size, `string` an address.
pub fn format<E>(
    format: &[u8],
    read: impl FnMut(u64, u64) -> Result<u64, E>,
    mut string: impl FnMut(u64) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut args = Arguments { read, at: 0 };
    let mut out = Vec::new();
    let mut rest = format.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|byte| b"-+ #0".contains(byte)) {
            match flag {
                b'-' => spec.left = true,
                b'+' => spec.plus = true,
                b' ' => spec.space = true,
                b'#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        if rest.next_if_eq(&b'*').is_some() {
            let width = args.take(4)? as i32;
            spec.left |= width < 0;
            spec.width = (width.unsigned_abs() as usize).min(MAX_FIELD);
        }
        while let Some(digit) = rest.next_if(u8::is_ascii_digit) {
            spec.width = (spec.width * 10 + usize::from(digit - b'0')).min(MAX_FIELD);
        }
        if rest.next_if_eq(&b'.').is_some() {
            let mut precision = 0;
            if rest.next_if_eq(&b'*').is_some() {
                precision = usize::try_from(args.take(4)? as i32)
                    .unwrap_or(0)
                    .min(MAX_FIELD);
            }
            while let Some(digit) = rest.next_if(u8::is_ascii_digit) {
                precision = (precision * 10 + usize::from(digit - b'0')).min(MAX_FIELD);
            }
            spec.precision = Some(precision);
        }
        while let Some(length) = rest.next_if(|byte| b"hlLqjzt".contains(byte)) {
            spec.long |= length != b'h';
        }
        let Some(conversion) = rest.next() else {
            break;
        };
        let bytes = if spec.long { 8 } else { 4 };
        match conversion {
            b'%' => out.push(b'%'),
            b'd' | b'i' => {
                let value = args.take(bytes)?;
                let value = if spec.long {
                    value as i64
                } else {
                    i64::from(value as i32)
                };
                let digits = value.unsigned_abs().to_string();
                spec.number(&mut out, value < 0, "", &digits);
            }
            b'u' => spec.number(&mut out, false, "", &args.take(bytes)?.to_string()),
            b'x' => spec.radix(&mut out, "0x", &format!("{:x}", args.take(bytes)?)),
            b'X' => spec.radix(&mut out, "0X", &format!("{:X}", args.take(bytes)?)),
            b'o' => spec.radix(&mut out, "0", &format!("{:o}", args.take(bytes)?)),
            b'p' => {
                let text = format!("{:#x}", args.take(8)?);
                spec.pad(&mut out, text.as_bytes());
            }
            b'c' => spec.pad(&mut out, &[args.take(4)? as u8]),
            b's' => {
                let mut text = string(args.take(8)?)?;
                text.truncate(spec.precision.unwrap_or(usize::MAX));
                spec.pad(&mut out, &text);
            }
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' => {
                let value = f64::from_bits(args.take(8)?);
                let text = float(&spec, conversion.to_ascii_lowercase(), value.abs());
                let text = if conversion.is_ascii_uppercase() {
                    text.to_ascii_uppercase()
                } else {
                    text
                };
                spec.precision = None;
                spec.zero &= value.is_finite();
                spec.number(
                    &mut out,
                    value.is_sign_negative() && !value.is_nan(),
                    "",
                    &text,
                );
            }
            other => out.extend([b'%', other]),
        }
    }
    Ok(out)
}

impl Spec {
    fn pad(&self, out: &mut Vec<u8>, text: &[u8]) {
        let fill = self.width.saturating_sub(text.len());
        if !self.left {
            out.extend(std::iter::repeat_n(b' ', fill));
        }
        out.extend_from_slice(text);
        if self.left {
            out.extend(std::iter::repeat_n(b' ', fill));
        }
    }

    fn radix(&self, out: &mut Vec<u8>, prefix: &str, digits: &str) {
        let prefix = if self.alternate && digits != "0" {
            prefix
        } else {
            ""
        };
        // Unsigned: a sign is never shown.
        let unsigned = Self {
            plus: false,
            space: false,
            ..*self
        };
        unsigned.number(out, false, prefix, digits);
    }

    fn number(&self, out: &mut Vec<u8>, negative: bool, prefix: &str, digits: &str) {
        let sign = if negative {
            "-"
        } else if self.plus {
            "+"
        } else if self.space {
            " "
        } else {
            ""
        };
        let mut zeros = self.precision.unwrap_or(0).saturating_sub(digits.len());
        if self.zero && !self.left && self.precision.is_none() {
            zeros = self
                .width
                .saturating_sub(sign.len() + prefix.len() + digits.len());
        }
        let text = format!("{sign}{prefix}{}{digits}", "0".repeat(zeros));
        self.pad(out, text.as_bytes());
    }
}

/// The digits of a number without its sign.
fn float(spec: &Spec, conversion: u8, value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return "inf".into();
    }
    let precision = spec.precision.unwrap_or(6);
    match conversion {
        b'f' => format!("{value:.precision$}"),
        b'e' => exponential(value, precision),
        _ => {
            let precision = precision.max(1);
            let text = exponential(value, precision - 1);
            let exponent: i32 = text
                .split_once('e')
                .and_then(|(_, exponent)| exponent.parse().ok())
                .unwrap_or(0);
            let text = if exponent < -4 || exponent >= precision as i32 {
                text
            } else {
                format!("{value:.*}", (precision as i32 - 1 - exponent) as usize)
            };
            if spec.alternate {
                text
            } else {
                without_trailing_zeros(&text)
            }
        }
    }
}

/// C writes at least two digits of exponent, with a sign.
fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        None => text,
    }
}

fn without_trailing_zeros(text: &str) -> String {
    let (digits, exponent) = match text.split_once('e') {
        Some((digits, exponent)) => (digits, format!("e{exponent}")),
        None => (text, String::new()),
    };
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    format!("{digits}{exponent}")
}

#[cfg(test)]
mod tests {
    use super::format;

    fn print(text: &str, args: &[u8]) -> String {
        let read = |at: u64, bytes: u64| {
            let source = args.get(at as usize..(at + bytes) as usize).ok_or(())?;
            let mut value = [0; 8];
            value[..source.len()].copy_from_slice(source);
            Ok::<_, ()>(u64::from_le_bytes(value))
        };
        let out = format(text.as_bytes(), read, |_| Ok(b"text".to_vec())).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_have_flags_width_and_length() {
        assert_eq!(
            print("[%d] [%u]", &[255, 255, 255, 255, 7, 0, 0, 0]),
            "[-1] [7]"
        );
        assert_eq!(
            print("%5d|%-5d|", &[1, 0, 0, 0, 2, 0, 0, 0]),
            "    1|2    |"
        );
        assert_eq!(
            print("%05d %+d", &[0xd6, 0xff, 0xff, 0xff, 3, 0, 0, 0]),
            "-0042 +3"
        );
        assert_eq!(
            print(
                "%#x %lld",
                &[16, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
            ),
            "0x10 9"
        );
    }

    #[test]
    fn floats_are_printed_as_c_does() {
        let bytes = |value: f64| value.to_bits().to_le_bytes();
        assert_eq!(print("%f", &bytes(1.5)), "1.500000");
        assert_eq!(print("%8.2f|", &bytes(-2.345)), "   -2.35|");
        assert_eq!(print("%e", &bytes(12345.678)), "1.234568e+04");
        assert_eq!(print("%g", &bytes(0.0001)), "0.0001");
        assert_eq!(print("%g", &bytes(1e-5)), "1e-05");
        assert_eq!(print("%g", &bytes(100.0)), "100");
        assert_eq!(print("%f", &bytes(f64::NAN)), "nan");
    }

    #[test]
    fn strings_characters_and_percent_signs_pass() {
        assert_eq!(print("%s|%.2s|%%", &[0; 16]), "text|te|%");
        assert_eq!(print("%c", b"x\0\0\0"), "x");
    }
}
