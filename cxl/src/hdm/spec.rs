//! Layout of the HDM decoder capability structure (section 8.2.4.20).

use bitfield_struct::bitfield;

/// Decoder Capability register (section 8.2.4.20.1).
pub(super) const CAPABILITY: u64 = 0x00;
/// Global Control register (section 8.2.4.20.2).
pub(super) const GLOBAL_CONTROL: u64 = 0x04;
/// The first decoder's registers.
pub(super) const DECODERS: u64 = 0x10;
/// Bytes of one decoder's registers.
pub(super) const DECODER_STRIDE: u64 = 0x20;

/// Registers of one decoder, from the start of the decoder (sections 8.2.4.20.3 to 8.2.4.20.11).
pub(super) mod decoder {
    pub const BASE_LOW: u64 = 0x00;
    pub const BASE_HIGH: u64 = 0x04;
    pub const SIZE_LOW: u64 = 0x08;
    pub const SIZE_HIGH: u64 = 0x0c;
    pub const CONTROL: u64 = 0x10;
    /// Target List Low of a port, DPA Skip Low of an endpoint.
    pub const DESTINATION_LOW: u64 = 0x14;
    /// Target List High of a port, DPA Skip High of an endpoint.
    pub const DESTINATION_HIGH: u64 = 0x18;
}

/// Addresses and sizes have bits 63:28: the low register's other bits are reserved.
pub(super) const LOW_WRITABLE: u32 = 0xf000_0000;

/// HDM Decoder Capability register (section 8.2.4.20.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HdmCapability {
    /// Code of the number of decoders: 0 for one, else half the number.
    #[bits(4)]
    pub decoder_count: u8,
    /// Targets per decoder of a port; 0 on an endpoint.
    #[bits(4)]
    pub target_count: u8,
    /// Granularities of 256 B to 2 KiB (address bits 11:8).
    pub interleave_11_8: bool,
    /// Granularities of 4 KiB to 16 KiB (address bits 14:12).
    pub interleave_14_12: bool,
    /// Poison can be returned for an address that nothing decodes.
    pub poison_on_decode_error: bool,
    /// 3, 6 and 12 ways.
    pub interleave_3_6_12: bool,
    /// 16 ways.
    pub interleave_16: bool,
    /// Decodes UIO direct peer-to-peer traffic.
    pub uio: bool,
    #[bits(2)]
    __: u8,
    /// Number of UIO capable decoders.
    #[bits(4)]
    pub uio_decoder_count: u8,
    /// Answers an unmapped read with NXM.
    pub memdata_nxm: bool,
    /// Coherency models a decoder can select.
    #[bits(2)]
    pub coherency_models: u8,
    #[bits(9)]
    __: u16,
}

/// HDM Decoder Global Control register (section 8.2.4.20.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalControl {
    /// Return poison on a decode error; fixed to zero, as the capability is absent.
    pub poison_on_decode_error: bool,
    /// With this clear, no decoder decodes.
    pub enable: bool,
    #[bits(30)]
    __: u32,
}

/// HDM Decoder n Control register (section 8.2.4.20.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DecoderControl {
    /// IG: code of the granularity.
    #[bits(4)]
    pub granularity: u8,
    /// IW: code of the way count.
    #[bits(4)]
    pub ways: u8,
    /// Lock this decoder's registers until reset when it commits.
    pub lock_on_commit: bool,
    /// Written with one to commit, with zero to release.
    pub commit: bool,
    /// Set by the component: the decoder decodes.
    pub committed: bool,
    /// Set by the component: the settings were refused.
    pub error: bool,
    /// Target range type: host-only coherent (HDM-H) if set, device coherent if clear.
    pub host_only: bool,
    /// Back-invalidate: HDM-DB rather than HDM-D. Fixed to zero but on a Type 2 device.
    pub back_invalidate: bool,
    /// UIO; fixed to zero.
    pub uio: bool,
    #[bits(17)]
    __: u32,
}

impl DecoderControl {
    /// What software may change in a port's decoder while it is not committed.
    pub(super) const PORT_WRITABLE: u32 = 0x0000_13ff;
    /// The same in an endpoint's: a Type 3 device's range type is host-only for good.
    pub(super) const ENDPOINT_WRITABLE: u32 = 0x0000_03ff;
    /// The same in a Type 2 device's, whose range type is device coherent for good.
    pub(super) const ACCELERATOR_WRITABLE: u32 = 0x0000_23ff;
}
