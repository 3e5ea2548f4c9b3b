//! Machine code by hand, for tests on a real KVM: plain integer instructions of 32-bit protected
//! mode, which every KVM runs, be it backed by hardware or by an interpreter.

/// A program under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Payload(Vec<u8>);

impl Payload {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes for which there is no method.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn opcode(self, opcode: u8, operand: u32) -> Self {
        self.raw(&[opcode]).raw(&operand.to_le_bytes())
    }

    /// `mov eax, value`
    pub(super) fn set(self, value: u32) -> Self {
        self.opcode(0xb8, value)
    }

    /// `mov eax, [address]`
    pub(super) fn load(self, address: u32) -> Self {
        self.opcode(0xa1, address)
    }

    /// `mov [address], eax`
    pub(super) fn store(self, address: u32) -> Self {
        self.opcode(0xa3, address)
    }

    /// `mov [address], value`
    pub(super) fn put(self, address: u32, value: u32) -> Self {
        self.set(value).store(address)
    }

    /// `mov edx, port; out dx, al`
    pub(super) fn out8(self, port: u16) -> Self {
        self.opcode(0xba, port.into()).raw(&[0xee])
    }

    /// `mov edx, port; out dx, eax`
    pub(super) fn out32(self, port: u16) -> Self {
        self.opcode(0xba, port.into()).raw(&[0xef])
    }

    /// `mov edx, port; in eax, dx`
    pub(super) fn in32(self, port: u16) -> Self {
        self.opcode(0xba, port.into()).raw(&[0xed])
    }

    /// Loads from `address` until the value is not zero.
    pub(super) fn poll(self, address: u32) -> Self {
        // test eax, eax; jz back over mov (5), test (2) and itself (2)
        self.load(address).raw(&[0x85, 0xc0, 0x74, 0xf7])
    }

    /// Counts up at `address` for ever.
    pub(super) fn count_up(self, address: u32) -> Self {
        // inc dword [address] (6 bytes); jmp back over it and itself (2)
        self.raw(&[0xff, 0x05])
            .raw(&address.to_le_bytes())
            .raw(&[0xeb, 0xf8])
    }

    /// `hlt`
    pub(super) fn halt(self) -> Self {
        self.raw(&[0xf4])
    }
}
