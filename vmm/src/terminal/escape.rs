//! The keys that are for the program and not for the guest.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// Takes the escape keys out of a stream: Ctrl-A x quits, Ctrl-A Ctrl-A is one Ctrl-A. Before any
/// other key Ctrl-A is an ordinary byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Escape {
    /// The last byte was a prefix.
    armed: bool,
}

impl Escape {
    /// Appends what is for the guest to `kept`; true if the user wants to quit.
    pub(super) fn filter(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> bool {
        for &byte in bytes {
            match (std::mem::take(&mut self.armed), byte) {
                (true, b'x') => return true,
                (true, PREFIX) => kept.push(PREFIX),
                (true, other) => kept.extend([PREFIX, other]),
                (false, PREFIX) => self.armed = true,
                (false, other) => kept.push(other),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut escape = Escape::default();
        let mut kept = Vec::new();
        let quit = chunks.iter().any(|chunk| escape.filter(chunk, &mut kept));
        (kept, quit)
    }

    #[test]
    fn ordinary_bytes_pass() {
        assert_eq!(filter(&[b"ax", b"\r\x03x"]), (b"ax\r\x03x".to_vec(), false));
    }

    #[test]
    fn ctrl_a_x_quits_even_in_two_pieces() {
        assert_eq!(filter(&[b"hi\x01xrest"]), (b"hi".to_vec(), true));
        assert_eq!(filter(&[b"hi\x01", b"x"]), (b"hi".to_vec(), true));
    }

    #[test]
    fn ctrl_a_twice_is_one_and_arms_nothing() {
        assert_eq!(filter(&[b"\x01\x01x"]), (b"\x01x".to_vec(), false));
    }

    #[test]
    fn ctrl_a_before_another_key_passes_with_it() {
        assert_eq!(filter(&[b"\x01b"]), (b"\x01b".to_vec(), false));
    }
}
