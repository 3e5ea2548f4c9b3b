//! Register blocks whose behaviour is a table: reset value and access rule per register.

/// A 32-bit register of a block and what software can do to each of its bits.
///
/// A bit in neither mask is read-only and keeps its reset value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register {
    /// Offset from the start of the block.
    pub offset: u64,
    /// Value after reset.
    pub reset: u32,
    /// Bits that take the value written (RW, RWS).
    pub writable: u32,
    /// Bits that a one clears (RW1C, RW1CS).
    pub clears: u32,
}

impl Register {
    /// A register that software cannot change.
    pub const fn read_only(offset: u64, reset: u32) -> Self {
        Self {
            offset,
            reset,
            writable: 0,
            clears: 0,
        }
    }

    /// A register whose bits in `writable` can be written.
    pub const fn read_write(offset: u64, reset: u32, writable: u32) -> Self {
        Self {
            offset,
            reset,
            writable,
            clears: 0,
        }
    }

    /// A status register: zero after reset, cleared bit by bit by writing ones.
    pub const fn write_one_to_clear(offset: u64, clears: u32) -> Self {
        Self {
            offset,
            reset: 0,
            writable: 0,
            clears,
        }
    }
}

/// A block of table-driven registers; what the table does not name reads zero.
#[derive(Debug)]
pub(crate) struct RegisterBlock {
    registers: &'static [Register],
    values: Vec<u32>,
}

impl RegisterBlock {
    pub fn new(registers: &'static [Register]) -> Self {
        Self {
            registers,
            values: registers.iter().map(|register| register.reset).collect(),
        }
    }

    pub fn reset(&mut self) {
        for (value, register) in self.values.iter_mut().zip(self.registers) {
            *value = register.reset;
        }
    }

    pub fn read(&self, offset: u64) -> u32 {
        self.registers
            .iter()
            .zip(&self.values)
            .find(|(register, _)| register.offset == offset)
            .map_or(0, |(_, value)| *value)
    }

    pub fn write(&mut self, offset: u64, data: u32) {
        if let Some((register, value)) = self.entry(offset) {
            let kept = *value & !register.writable;
            *value = (kept | data & register.writable) & !(data & register.clears);
        }
    }

    /// Puts a value into a register as the component itself does.
    pub fn set(&mut self, offset: u64, data: u32) {
        if let Some((_, value)) = self.entry(offset) {
            *value = data;
        }
    }

    fn entry(&mut self, offset: u64) -> Option<(&Register, &mut u32)> {
        self.registers
            .iter()
            .zip(&mut self.values)
            .find(|(register, _)| register.offset == offset)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Walks every register of `block`: reset value, writable bits, read-only bits, cleared bits.
    pub(crate) fn walk(registers: &'static [Register]) {
        let mut block = RegisterBlock::new(registers);
        for register in registers {
            let Register {
                offset,
                reset,
                writable,
                clears,
            } = *register;
            assert_eq!(block.read(offset), reset, "reset value at {offset:#x}");
            assert_eq!(writable & clears, 0, "one rule per bit at {offset:#x}");
            assert_eq!(
                reset & clears,
                0,
                "a status bit resets to zero at {offset:#x}"
            );

            block.write(offset, u32::MAX);
            assert_eq!(
                block.read(offset),
                reset | writable,
                "all ones at {offset:#x}"
            );
            block.write(offset, 0);
            assert_eq!(
                block.read(offset),
                reset & !writable,
                "all zeroes at {offset:#x}"
            );

            if let Some((_, value)) = block.entry(offset) {
                *value |= clears;
            }
            block.write(offset, 0);
            assert_eq!(
                block.read(offset) & clears,
                clears,
                "a zero keeps status at {offset:#x}"
            );
            block.write(offset, clears);
            assert_eq!(
                block.read(offset) & clears,
                0,
                "a one clears status at {offset:#x}"
            );
        }
        block.reset();
        for register in registers {
            assert_eq!(block.read(register.offset), register.reset);
        }
    }

    #[test]
    fn what_the_table_does_not_name_reads_zero_and_drops_writes() {
        static REGISTERS: [Register; 1] = [Register::read_write(4, 1, 3)];
        let mut block = RegisterBlock::new(&REGISTERS);
        block.write(0, 7);
        block.write(8, 7);
        assert_eq!([block.read(0), block.read(4), block.read(8)], [0, 1, 0]);
    }
}
