//! How accesses of any width reach registers of 32 bits.

/// Bytes of one register.
pub(crate) const DWORD: u64 = 4;

/// Fills `data` from the registers at `offset`; an access may have any width and alignment.
pub(crate) fn read(offset: u64, data: &mut [u8], mut register: impl FnMut(u64) -> u32) {
    let mut at = offset;
    let mut rest = data;
    while !rest.is_empty() {
        let lane = at % DWORD;
        let bytes = register(at - lane).to_le_bytes();
        let lanes = bytes.get(lane as usize..).unwrap_or_default();
        let count = lanes.len().min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(lanes.get(..count).unwrap_or_default());
        rest = later;
        at = at.wrapping_add(count as u64);
    }
}

/// Splits a naturally aligned write of 4 or 8 bytes into registers, low one first.
///
/// Section 8.2.3: registers are accessed as 4 or 8 bytes; what another access does is undefined.
/// Here it does nothing.
pub(crate) fn write(offset: u64, data: &[u8], mut register: impl FnMut(u64, u32)) {
    let len = data.len() as u64;
    if !matches!(len, 4 | 8) || !offset.is_multiple_of(len) {
        return;
    }
    for (index, dword) in (0..).zip(data.chunks_exact(4)) {
        if let Ok(bytes) = dword.try_into() {
            // Within the address space, since the whole access is aligned.
            register(offset + DWORD * index, u32::from_le_bytes(bytes));
        }
    }
}

/// Puts `value` into the low half of a 64-bit register.
pub(crate) fn set_low(register: &mut u64, value: u32) {
    *register = *register & !u64::from(u32::MAX) | u64::from(value);
}

/// Puts `value` into the high half of a 64-bit register.
pub(crate) fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}

/// The low half of a 64-bit register.
pub(crate) fn low(register: u64) -> u32 {
    register as u32
}

/// The high half of a 64-bit register.
pub(crate) fn high(register: u64) -> u32 {
    (register >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_any_width_see_the_same_bytes() {
        let register = |offset: u64| 0x0302_0100 + 0x0404_0404 * (offset / 4) as u32;
        for offset in 0..8 {
            for len in 0..12 {
                let mut data = vec![0xff; len];
                read(offset, &mut data, register);
                let expected: Vec<u8> = (offset..offset + len as u64).map(|n| n as u8).collect();
                assert_eq!(data, expected);
            }
        }
    }

    #[test]
    fn a_qword_write_is_two_dword_writes() {
        let mut seen = Vec::new();
        write(8, &[1, 0, 0, 0, 2, 0, 0, 0], |offset, value| {
            seen.push((offset, value))
        });
        assert_eq!(seen, [(8, 1), (12, 2)]);
    }

    #[test]
    fn narrow_wide_and_unaligned_writes_do_nothing() {
        for (offset, len) in [(0, 0), (0, 1), (0, 2), (0, 3), (2, 4), (4, 8), (0, 16)] {
            write(offset, &vec![0xff; len], |_, _| {
                panic!("{len} bytes at {offset}")
            });
        }
    }

    #[test]
    fn the_last_bytes_of_the_address_space_can_be_read() {
        let mut data = [0; 8];
        read(u64::MAX - 3, &mut data, |_| 0x1111_1111);
        assert_eq!(data, [0x11; 8]);
    }

    #[test]
    fn the_last_registers_of_the_address_space_can_be_written() {
        let mut seen = Vec::new();
        write(u64::MAX - 7, &[0; 8], |offset, _| seen.push(offset));
        write(u64::MAX - 3, &[0; 4], |offset, _| seen.push(offset));
        assert_eq!(seen, [u64::MAX - 7, u64::MAX - 3, u64::MAX - 3]);
    }
}
